//! What a runtime is pointed at: a container's bundle, a process to be added to one.
//!
//! ```text
//!  reservation the id ▶ attach to the network ▶ write the bundle ▶ config.json
//!  (bundles)      (attachments, if slow)  (bundles)
//! ```

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use executor_core::lifecycle::{ContainerId, ProcessId, StartFailure, StartFailureKind};
use executor_core::{ContainerSpec, ExecSpec, NetworkAttachment};
use tokio::sync::watch;

use super::container::DriverContainer;
use super::pools::Pool;
use super::{DriverState, gone};
use crate::{Error, lock};

impl DriverState {
    pub(super) async fn prepare(
        self: Arc<Self>,
        id: ContainerId,
        spec: Arc<ContainerSpec>,
        preparation: Preparation,
    ) -> Result<(), StartFailure> {
        let is_slow = self.bundles.network(&spec).is_slow;
        let (own, worker) = (Arc::clone(&self), Arc::clone(&self));
        let reservation = move || own.reserve(&id, spec);
        // Work that has begun goes on when it is not awaited any more.
        let under_way = Arc::new(preparation);
        let until_done = || Arc::clone(&under_way);
        if !is_slow {
            let held = until_done();
            let all = move || {
                let _held = held;
                let container = reservation()?;
                let network = worker.bundles.attach(&container.place(), &container.spec)?;
                worker.write_bundle(&container, &network)
            };
            return self.work(Pool::Bundles, all).await;
        }
        let held = until_done();
        let reservation = move || {
            let _held = held;
            reservation()
        };
        let container = self.work(Pool::Bundles, reservation).await?;
        let (attached, attacher, held) = (Arc::clone(&container), Arc::clone(&self), until_done());
        let attach = move || {
            let _held = held;
            attacher.bundles.attach(&attached.place(), &attached.spec)
        };
        let network = self.work(Pool::Attachments, attach).await?;
        let held = until_done();
        let write = move || {
            let _held = held;
            worker.write_bundle(&container, &network)
        };
        self.work(Pool::Bundles, write).await
    }

    /// From now on this id is being prepared, until what is answered here is dropped.
    pub(super) fn begin_preparation(self: &Arc<Self>, id: &ContainerId) -> Preparation {
        let (under_way, over) = watch::channel(());
        lock(&self.preparing).insert(id.clone(), under_way);
        Preparation { shared: Arc::clone(self), id: id.clone(), _over: over }
    }

    /// Blocking work of a start's.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        pool: Pool,
        work: impl FnOnce() -> Result<T, StartFailure> + Send + 'static,
    ) -> Result<T, StartFailure> {
        self.pools.run(pool, work).await.unwrap_or_else(|error| Err(error.start_failure()))
    }

    fn reserve(
        &self,
        id: &ContainerId,
        spec: Arc<ContainerSpec>,
    ) -> Result<Arc<DriverContainer>, StartFailure> {
        let opened = self.opened().map_err(|error| error.start_failure())?;
        let parent = spec.cgroup_parent.as_ref().or(self.cgroup_parent.as_ref());
        let reserved = opened.root.reserve(id, parent).map_err(|error| Error::from(error).start_failure())?;
        let reservation = reserved.ok_or_else(|| {
            StartFailure::new(
                StartFailureKind::IdTaken,
                format!("the container id {id} is taken by another executor"),
            )
        })?;
        let network = self.bundles.network(&spec);
        let container = Arc::new(DriverContainer::new(reservation, spec, network));
        lock(&self.containers).insert(id.clone(), Arc::clone(&container));
        if container.reservation.cgroup.is_none() && !container.spec.resources.is_unlimited() {
            let message = "resources: limits need cgroups, and none are delegated to this user";
            return Err(StartFailure::new(StartFailureKind::PermissionDenied, message));
        }
        Ok(container)
    }

    fn write_bundle(
        &self,
        container: &DriverContainer,
        network: &NetworkAttachment,
    ) -> Result<(), StartFailure> {
        let _first = container.namespace.set(network.namespace.clone());
        let config = self.bundles.write(&container.place(), &container.spec, network)?;
        write(&container.reservation.dir.join("config.json"), &config)
    }

    pub(super) fn write_process(
        &self,
        container: &DriverContainer,
        process: &ProcessId,
        mut spec: ExecSpec,
        file: &Path,
    ) -> Result<(), StartFailure> {
        // The runtime makes the terminal of the size that counts by now.
        if let (Some(size), Some(asked)) = (&mut spec.terminal, container.asked_size(process)) {
            *size = asked;
        }
        let init = *container.init.get().ok_or_else(|| gone("the container does not run".to_owned()))?;
        write(file, &self.bundles.process(&container.place(), &container.spec, init, &spec)?)
    }
}

/// A preparation that is under way.
pub(super) struct Preparation {
    shared: Arc<DriverState>,
    id: ContainerId,
    /// Closes the channel when it is dropped.
    _over: watch::Receiver<()>,
}

impl Drop for Preparation {
    fn drop(&mut self) {
        lock(&self.shared.preparing).remove(&self.id);
    }
}

/// Makes a file where none is, for its owner's eyes.
fn write(path: &Path, text: &[u8]) -> Result<(), StartFailure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text));
    written.map_err(|error| Error::file("write", path)(error).start_failure())
}
