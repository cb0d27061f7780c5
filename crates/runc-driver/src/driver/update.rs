//! Changing the limits of a container.
//!
//! The runtime's `update` reads its `state.json`, writes all limits in it to the cgroups, and writes `state.json` again.
//! Two updates that overlap would undo each other, and an update during a release would make the state again. So updates
//! take turns, and a release waits for the one in progress and refuses the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executor_core::lifecycle::ContainerId;
use executor_core::{Resources, RuntimeError};
use tokio::sync::Mutex;

use super::DriverState;
use super::container::DriverContainer;
use super::pools::Pool;
use crate::{Error, Result};

const OP: &str = "update";

/// The turns of a container's updates.
#[derive(Default)]
pub(super) struct Updates {
    /// Held during an update.
    turn: Mutex<()>,
    /// The container is being released.
    closed: AtomicBool,
}

impl Updates {
    /// Waits for the update in progress. From now on, updates are refused.
    pub(super) async fn close(&self) {
        // Before its turn comes: the updates that wait before it are refused, not carried out.
        self.closed.store(true, Ordering::SeqCst);
        drop(self.turn.lock().await);
    }
}

impl DriverState {
    /// Changes the limits of a container. Continues to its end if the future is dropped.
    pub(super) async fn update(
        self: Arc<Self>,
        id: ContainerId,
        resources: Resources,
    ) -> std::result::Result<(), RuntimeError> {
        let container = self.container(&id).map_err(|error| error.of(OP, &id))?;
        if container.reservation.cgroup.is_none() {
            // Limits need cgroups, and this user may make none.
            return Err(RuntimeError::unsupported(OP, id));
        }
        let (own, updated) = (Arc::clone(&self), Arc::clone(&container));
        let limits_memory = resources.memory.is_some();
        let result = tokio::spawn(async move { own.update_in_turn(&updated, &resources).await }).await;
        let Err(error) = result.map_err(Error::from).flatten() else {
            if limits_memory {
                container.set_memory_limit();
                self.watch_kills(&container);
            }
            return Ok(());
        };
        let has_ended = move || container.has_ended().unwrap_or(false);
        // The runtime's own words for it are many.
        if self.pools.run(Pool::Reads, has_ended).await.unwrap_or(false) {
            return Err(RuntimeError::not_running(OP, id));
        }
        Err(error.of(OP, id))
    }

    async fn update_in_turn(&self, container: &DriverContainer, resources: &Resources) -> Result<()> {
        let id = &container.reservation.id;
        let _turn = container.updates.turn.lock().await;
        if container.updates.closed.load(Ordering::SeqCst) {
            return Err(Error::NoContainer(id.to_string()));
        }
        self.opened()?.runtime.update(id, resources).await
    }
}
