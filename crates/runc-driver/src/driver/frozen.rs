//! A container that has frozen a part of itself, or our directories above it, on a freezer of cgroup v1, and whose init exits.
//!
//! Init ends when all processes of its pid namespace have, and a frozen process does not die. Nothing reports that init waits. So
//! the init of a container that can reach its freezers is looked at now and then, and its freezers are thawed once it is exiting.
//! On v2 a frozen process can be killed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use executor_core::Security;
use executor_host::procfs::Stat;

use super::DriverState;
use super::container::DriverContainer;
use super::pools::Pool;

/// The time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

impl DriverState {
    /// Thaws the freezers of a container if its init exits and does not end. Completes when it has ended, or at once if the
    /// container cannot freeze anything.
    pub(super) async fn thaw_its_exit(&self, container: Arc<DriverContainer>) {
        let (Some(init), Some(ended)) = (container.init.get().copied(), container.ended.get().cloned())
        else {
            return;
        };
        let own = Arc::clone(&container);
        if !self.pools.run(Pool::Reads, move || own.can_freeze()).await.unwrap_or(false) {
            return;
        }
        let mut was_ending = false;
        loop {
            tokio::select! {
                _ = ended.clone() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let is_ending = move || Stat::of(init).is_some_and(|stat| stat.is_ending());
            let is_ending = self.pools.run(Pool::Reads, is_ending).await.unwrap_or(false);
            if is_ending && was_ending {
                let _told_by_the_release = self.host().thaw(container.freezers()).await;
            }
            was_ending = is_ending;
        }
    }
}

impl DriverContainer {
    /// Whether it has a freezer of v1 that it may be able to write to: in a sandbox, cgroups are read-only. Blocks.
    fn can_freeze(&self) -> bool {
        let is_open = self.spec.security == Security::Insecure || self.spec.config.is_some();
        is_open && self.freezers().iter().any(|dir| Path::new(dir).join("freezer.state").exists())
    }
}
