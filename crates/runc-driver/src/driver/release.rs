//! Ending and removing all that a container has.

use std::sync::Arc;

use executor_core::ProcessMode;
use executor_core::lifecycle::{ContainerId, Leftover, LeftoverKind};

use super::DriverState;
use super::container::DriverContainer;
use super::pools::Pool;
use crate::{Error, lock};

impl DriverState {
    /// Our own removal runs no hooks: where a caller's configuration has some for after the end, the runtime's own
    /// delete comes first.
    async fn run_poststop_hooks(&self, container: &DriverContainer) {
        let Ok(opened) = self.opened() else { return };
        let config = container.spec.config.as_ref();
        if config.is_some_and(|config| config.json().pointer("/hooks/poststop").is_some())
            && let Err(error) = opened.runtime.delete(&container.reservation.id).await
        {
            tracing::warn!(container = %container.reservation.id, %error, "poststop hooks");
        }
    }

    /// Ends and removes everything a container has. Whoever asked for its preparation or for a start may be gone while that
    /// goes on, and what is made after it was removed would stay.
    pub(super) async fn release(self: Arc<Self>, id: &ContainerId) -> Vec<Leftover> {
        let preparing = lock(&self.preparing).get(id).cloned();
        if let Some(preparing) = preparing {
            preparing.closed().await;
        }
        let Ok(container) = self.container(id) else { return Vec::new() };
        container.close_starts().await;
        self.run_poststop_hooks(&container).await;
        self.remember_rest(&container);
        let released = async {
            let own = Arc::clone(&container);
            let (killed, mut left) =
                self.pools.run(Pool::Releases, move || own.reservation.end(own.known_cgroups())).await?;
            if killed > 0 {
                tracing::debug!(container = %id, killed, "processes were left");
            }
            if container.reservation.cgroup.is_some() {
                self.host.end_unadopted(container.members(), true, None).await?;
            }
            let pool = if container.network.is_slow { Pool::Detachments } else { Pool::Releases };
            let (own, detached) = (Arc::clone(&self), Arc::clone(&container));
            left.extend(self.pools.run(pool, move || own.bundles.detach(&detached.reservation.dir)).await?);
            let (own, removed) = (Arc::clone(&self), Arc::clone(&container));
            self.pools.run(Pool::Releases, move || removed.reservation.remove(&*own.bundles, left)).await
        };
        let left = released.await;
        self.released(&container, left.as_ref().is_ok_and(Vec::is_empty));
        left.unwrap_or_else(|error: Error| {
            vec![Leftover::new(LeftoverKind::File, &container.reservation.dir, &error)]
        })
    }

    /// The same when the driver is closed. Blocks.
    pub(super) fn release_now(&self, container: &DriverContainer) -> Vec<Leftover> {
        self.remember_rest(container);
        let (_, mut left) = container.reservation.end(container.known_cgroups());
        if container.reservation.cgroup.is_some()
            && let Err(error) = self.host.end_unadopted_now(container.members())
        {
            tracing::warn!(container = %container.reservation.id, %error, "end what a runtime has left");
        }
        left.extend(self.bundles.detach(&container.reservation.dir));
        let left = container.reservation.remove(&*self.bundles, left);
        self.released(container, left.is_empty());
        left
    }

    /// Without a pid namespace that ends and reaps them, what is left becomes our children.
    fn remember_rest(&self, container: &DriverContainer) {
        if container.spec.process_mode == ProcessMode::NoSandbox {
            self.host.remember(container.reservation.id.clone(), container.members());
        }
    }

    fn released(&self, container: &DriverContainer, completely: bool) {
        self.host.forget(container.reservation.id.clone());
        // What could not be removed is tried again at the end.
        if completely {
            lock(&self.containers).remove(&container.reservation.id);
        }
    }
}
