//! What a runtime is pointed at: a container's bundle, a process to be added to one.
//!
//! ```text
//!  claim the id ▶ hold config.json ▶ make the bundle ─────────────▶ write config.json
//!                        └ the runtime is called meanwhile: it starts, opens config.json, waits ┘
//! ```
//! Making it takes a millisecond or two, starting a runtime several. Where all processors are busy there is nothing to win,
//! and a network that plugins set up takes longer than the kernel would hold the runtime up for, if they hang: there
//! the bundle comes first.

use std::path::Path;
use std::sync::Arc;

use executor_core::lifecycle::{ContainerId, StartFailure, StartFailureKind};
use executor_core::{ContainerSpec, ExecSpec, Network};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared as SharedFuture};
use tokio::sync::oneshot;

use super::{Container, Shared, broken, from_io, gone};
use crate::held::Held;
use crate::lock;

/// What a runtime waits for; every clone tells what became of it.
pub(super) type Written = SharedFuture<BoxFuture<'static, Result<(), StartFailure>>>;

/// To be told when the runtime may be called.
pub(super) type MayCall = oneshot::Sender<()>;

impl Shared {
    /// Begins to write what a runtime will read; answers when that may be called.
    pub(super) async fn begin(
        &self,
        work: impl FnOnce(MayCall) -> Result<(), StartFailure> + Send + 'static,
    ) -> Result<Written, StartFailure> {
        let (may_call, told) = oneshot::channel();
        let writing = self.begin_blocking(move || work(may_call)).await;
        let written = writing.map(|ended| ended.unwrap_or_else(|error| Err(broken(error)))).boxed().shared();
        // Nobody tells when it is over already, well or not.
        if told.await.is_err() {
            written.clone().await?;
        }
        Ok(written)
    }

    pub(super) fn claim_and_write(
        &self,
        id: &ContainerId,
        spec: Arc<ContainerSpec>,
        may_call: MayCall,
    ) -> Result<(), StartFailure> {
        let opened = self.opened().map_err(|error| broken(error.message))?;
        let parent = spec.cgroup_parent.as_ref().or(self.cgroup_parent.as_ref());
        let claimed = opened.root.claim(id, parent);
        let claimed = claimed.map_err(|error| from_io(&opened.root.runtime_state(), &error))?;
        let claim = claimed.ok_or_else(|| {
            StartFailure::new(
                StartFailureKind::IdTaken,
                format!("the container id {id} is taken by another executor"),
            )
        })?;
        let container = Arc::new(Container::new(claim, spec));
        lock(&self.containers).insert(id.clone(), Arc::clone(&container));
        if container.claim.cgroup.is_none() && !container.spec.resources.is_unlimited() {
            let message = "resources: limits need cgroups, and none are delegated to this user";
            return Err(StartFailure::new(StartFailureKind::PermissionDenied, message));
        }
        let is_soon = !matches!(container.spec.network, Network::Cni { .. });
        self.write_held(&container.claim.dir.join("config.json"), is_soon.then_some(may_call), || {
            self.bundles.write(&container.place(), &container.spec)
        })
    }

    pub(super) fn write_process(
        &self,
        container: &Container,
        spec: &ExecSpec,
        file: &Path,
        may_call: MayCall,
    ) -> Result<(), StartFailure> {
        let init = *container.init.get().ok_or_else(|| gone("the container does not run".to_owned()))?;
        self.write_held(file, Some(may_call), || {
            self.bundles.process(&container.place(), &container.spec, init, spec)
        })
    }

    /// Makes a file, of what is made while a runtime may wait for it.
    fn write_held(
        &self,
        path: &Path,
        may_call: Option<MayCall>,
        text: impl FnOnce() -> Result<Vec<u8>, StartFailure>,
    ) -> Result<(), StartFailure> {
        let failed = |error| from_io(path, &error);
        let mut file = Held::create(path).map_err(failed)?;
        if let Some(may_call) = may_call
            && self.has_idle_processors()
            && file.hold()
        {
            let _nobody_waits = may_call.send(());
        }
        file.write(&text()?).map_err(failed)
    }
}
