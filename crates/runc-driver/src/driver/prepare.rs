//! Making what a runtime reads: a container's bundle, and the description of a process to be started in a
//! container.
//!
//! ```text
//!  reserve the id ▶ attach to the network ▶ write the bundle ▶ config.json
//!  (bundles)        (attachments, if slow)  (bundles)
//! ```
//! The second line names the pool of each step. With a network that is not slow, all of it is one step.

use std::sync::Arc;

use executor_core::lifecycle::{ContainerId, ProcessId, StartFailure, StartFailureKind};
use executor_core::{ContainerSpec, ExecSpec, NetworkAttachment};
use executor_host::Place;
use tokio::sync::watch;

use super::container::DriverContainer;
use super::kept::record_of;
use super::pools::Pool;
use super::{DriverState, gone};
use crate::{Error, id_helpers, lock};

impl DriverState {
    pub(super) async fn prepare(
        self: Arc<Self>,
        id: ContainerId,
        spec: Arc<ContainerSpec>,
        preparation: Preparation,
    ) -> Result<(), StartFailure> {
        let preparation = Arc::new(preparation);
        if !self.bundles.network(&spec).is_slow {
            let all = move |own: &Self| {
                let container = own.reserve(&id, spec)?;
                container.at_place(|place| {
                    let network = own.bundles.attach(place, &container.spec)?;
                    own.write_bundle(&container, place, &network)
                })
            };
            return self.do_step(Pool::Bundles, &preparation, all).await;
        }
        let reserve = move |own: &Self| own.reserve(&id, spec);
        let container = self.do_step(Pool::Bundles, &preparation, reserve).await?;
        let attached = Arc::clone(&container);
        let attach = move |own: &Self| attached.at_place(|place| own.bundles.attach(place, &attached.spec));
        let network = self.do_step(Pool::Attachments, &preparation, attach).await?;
        let write =
            move |own: &Self| container.at_place(|place| own.write_bundle(&container, place, &network));
        self.do_step(Pool::Bundles, &preparation, write).await
    }

    /// Does one step of a preparation. A step that has begun is done even if it is not awaited any more, and
    /// holds the preparation until then.
    async fn do_step<T: Send + 'static>(
        self: &Arc<Self>,
        pool: Pool,
        preparation: &Arc<Preparation>,
        step: impl FnOnce(&Self) -> Result<T, StartFailure> + Send + 'static,
    ) -> Result<T, StartFailure> {
        let (own, held) = (Arc::clone(self), Arc::clone(preparation));
        let work = move || {
            let _until_done = held;
            step(&own)
        };
        self.work(pool, work).await
    }

    /// Marks an id as being prepared, until the returned value is dropped.
    pub(super) fn begin_preparation(self: &Arc<Self>, id: &ContainerId) -> Preparation {
        let (sender, over) = watch::channel(());
        lock(&self.preparing).insert(id.clone(), sender);
        Preparation { shared: Arc::clone(self), id: id.clone(), _over: over }
    }

    /// Does blocking work of a start.
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
        let record = self.is_kept().then(|| record_of(&spec)).transpose();
        let record = record.map_err(|error| error.start_failure())?;
        let reserved = opened
            .root
            .reserve_with(id, parent, record.as_deref(), &*self.bundles)
            .map_err(|error| Error::from(error).start_failure())?;
        let Some(reservation) = reserved else {
            let message = format!(
                "the container id {id} is taken on this root, by another executor or by what a sweep could not remove"
            );
            return Err(StartFailure::new(StartFailureKind::IdTaken, message));
        };
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
        place: &Place<'_>,
        network: &NetworkAttachment,
    ) -> Result<(), StartFailure> {
        let _first = container.namespace.set(network.namespace.clone());
        let config = self.bundles.write(place, &container.spec, network)?;
        let failed = Error::file("write helpers in", place.dir.path());
        id_helpers::write(place.dir).map_err(|error| failed(error).start_failure())?;
        write(place, "config.json", &config)
    }

    pub(super) fn write_process(
        &self,
        container: &DriverContainer,
        process: &ProcessId,
        mut spec: ExecSpec,
        file: &str,
    ) -> Result<(), StartFailure> {
        // The runtime makes the terminal with the size that was requested last.
        if let (Some(size), Some(requested)) = (&mut spec.terminal, container.requested_size(process)) {
            *size = requested;
        }
        let init = *container.init.get().ok_or_else(|| gone("the container does not run".to_owned()))?;
        container
            .at_place(|place| write(place, file, &self.bundles.process(place, &container.spec, init, &spec)?))
    }
}

/// A preparation in progress.
pub(super) struct Preparation {
    shared: Arc<DriverState>,
    id: ContainerId,
    /// Dropping it closes the channel.
    _over: watch::Receiver<()>,
}

impl Drop for Preparation {
    fn drop(&mut self) {
        lock(&self.shared.preparing).remove(&self.id);
    }
}

/// Makes a new file that only its owner can read.
fn write(place: &Place<'_>, name: &str, text: &[u8]) -> Result<(), StartFailure> {
    let failed = Error::file("write", &place.dir.path_of(name));
    place.dir.write_new(name, text, 0o600).map(drop).map_err(|error| failed(error).start_failure())
}
