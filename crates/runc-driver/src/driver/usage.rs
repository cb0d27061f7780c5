//! The usage of a container: while it runs, and together with the exit of its init.

use std::sync::Arc;

use executor_core::lifecycle::{ProcessId, ProcessRef, RawExit, Usage};
use executor_host::ProcessEnd;

use super::DriverState;
use super::container::DriverContainer;
use super::pools::Pool;
use crate::{Error, Result};

impl DriverState {
    /// Adds the usage to the exit of an init.
    pub(super) async fn exit(
        self: Arc<Self>,
        process: ProcessRef,
        ProcessEnd { status, oom, at, .. }: ProcessEnd,
    ) -> (ProcessRef, RawExit) {
        let container = self.container(&process.container).ok();
        if let Some(container) = &container {
            container.forget_terminal(&process.process);
        }
        let usage = match (&process.process, container) {
            (ProcessId::Init, Some(container)) => self.usage(container).await.ok().map(Box::new),
            (ProcessId::Init | ProcessId::Exec(_), _) => None,
        };
        (process, RawExit { usage, oom, at, ..RawExit::with(status) })
    }

    /// The usage of a container so far. The network's part is absent once it cannot be read any more.
    pub(super) async fn usage(self: &Arc<Self>, container: Arc<DriverContainer>) -> Result<Usage> {
        let own = Arc::clone(&container);
        let read = self.pools.run(Pool::Reads, move || own.usage()).await?;
        let mut usage = read.map_err(|source| Error::Io {
            op: "read the usage of".to_owned(),
            subject: container.reservation.id.to_string(),
            source,
        })?;
        if container.network.outlives_processes {
            let own = Arc::clone(self);
            let read = move || {
                let reservation = &container.reservation;
                reservation.open().ok().and_then(|dir| own.bundles.network_usage(&reservation.place(&dir)))
            };
            let network = self.pools.run(Pool::Reads, read).await?;
            usage.network = network.or(usage.network);
        }
        Ok(usage)
    }
}
