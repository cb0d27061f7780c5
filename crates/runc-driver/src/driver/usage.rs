//! What a container has used: while it runs, and with the exit of its init.

use std::sync::Arc;

use executor_core::lifecycle::{ExitStatus, ProcessId, ProcessRef, RawExit, Usage};

use super::DriverState;
use super::container::DriverContainer;
use super::pools::Pool;
use crate::Result;

impl DriverState {
    pub(super) async fn exit(
        self: Arc<Self>,
        process: ProcessRef,
        status: ExitStatus,
    ) -> (ProcessRef, RawExit) {
        let container = self.container(&process.container).ok();
        if let Some(container) = &container {
            container.forget_terminal(&process.process);
        }
        let usage = match (&process.process, container) {
            (ProcessId::Init, Some(container)) => self.usage(container).await.ok().map(Box::new),
            (ProcessId::Init | ProcessId::Exec(_), _) => None,
        };
        (process, RawExit { status, usage })
    }

    /// What a container has used so far, of the network too as long as that can be known.
    pub(super) async fn usage(self: &Arc<Self>, container: Arc<DriverContainer>) -> Result<Usage> {
        let own = Arc::clone(&container);
        let mut usage = self.pools.run(Pool::Reads, move || own.usage()).await?;
        if container.network.outlives_processes {
            let own = Arc::clone(self);
            let ask = move || own.bundles.network_usage(&container.reservation.dir);
            let asked = self.pools.run(Pool::Reads, ask).await?;
            usage.network = asked.or(usage.network);
        }
        Ok(usage)
    }
}
