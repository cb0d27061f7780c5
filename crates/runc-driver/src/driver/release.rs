//! Releasing a container: killing and removing everything that it has.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use executor_core::lifecycle::{ContainerId, Leftover, LeftoverKind};

use super::DriverState;
use super::container::DriverContainer;
use super::pools::Pool;
use crate::{Result, lock};

impl DriverState {
    /// Runs the poststop hooks of a caller's own configuration, by the runtime's `delete`. Our own removal
    /// runs no hooks.
    async fn run_poststop_hooks(&self, container: &DriverContainer) {
        let Ok(opened) = self.opened() else { return };
        let config = container.spec.config.as_ref();
        let has_hooks = config.is_some_and(|config| config.json().pointer("/hooks/poststop").is_some());
        let id = &container.reservation.id;
        if has_hooks && let Err(error) = opened.runtime.delete(id).await {
            tracing::warn!(container = %id, %error, "poststop hooks were not run");
        }
    }

    /// Kills and removes everything that a container has. Its preparation and its starts may still be in
    /// progress, even if their futures are dropped, and what they make after the removal would stay. So it
    /// waits for them first.
    pub(super) async fn release(self: Arc<Self>, id: &ContainerId) -> Vec<Leftover> {
        let preparing = lock(&self.preparing).get(id).cloned();
        if let Some(preparing) = preparing {
            preparing.closed().await;
        }
        let Ok(container) = self.container(id) else { return Vec::new() };
        container.close_starts().await;
        container.updates.close().await;
        self.run_poststop_hooks(&container).await;
        self.remember_rest(&container);
        let left = self.remove_parts(&container).await;
        self.released(&container, left.as_ref().is_ok_and(Vec::is_empty));
        left.unwrap_or_else(|error| {
            vec![Leftover::new(LeftoverKind::File, container.reservation.path(), &error)]
        })
    }

    /// Removes the parts of a container, each step in its pool. Returns what is left.
    async fn remove_parts(self: &Arc<Self>, container: &Arc<DriverContainer>) -> Result<Vec<Leftover>> {
        let own = Arc::clone(container);
        let (killed, mut left) =
            self.pools.run(Pool::Releases, move || own.reservation.end(own.known_cgroups())).await?;
        if killed > 0 {
            tracing::debug!(container = %container.reservation.id, killed, "processes were left");
        }
        if container.reservation.cgroup.is_some() {
            self.host().end_unadopted(container.members(), true, None).await?;
        }
        let pool = if container.network.is_slow { Pool::Detachments } else { Pool::Releases };
        let (own, detached) = (Arc::clone(self), Arc::clone(container));
        left.extend(self.pools.run(pool, move || detached.reservation.detach(&*own.bundles)).await?);
        let (own, removed) = (Arc::clone(self), Arc::clone(container));
        self.pools.run(Pool::Releases, move || removed.reservation.remove(&*own.bundles, left)).await
    }

    /// The same while the driver is being closed. Blocks.
    pub(super) fn release_now(&self, container: &DriverContainer) -> Vec<Leftover> {
        self.remember_rest(container);
        let (_, mut left) = container.reservation.end(container.known_cgroups());
        if container.reservation.cgroup.is_some()
            && let Err(error) = self.host().end_unadopted_now(container.members())
        {
            tracing::warn!(container = %container.reservation.id, %error, "what a runtime has left was not killed");
        }
        left.extend(container.reservation.detach(&*self.bundles));
        let left = container.reservation.remove(&*self.bundles, left);
        self.released(container, left.is_empty());
        left
    }

    /// The containers whose preparation does not end, and what is left of them: the next sweep removes it.
    pub(super) fn left_in_preparation(&self) -> (BTreeSet<ContainerId>, Vec<Leftover>) {
        let Ok(opened) = self.opened() else { return Default::default() };
        let error = io::Error::other("it is being prepared, and that does not end");
        let left = |id: &ContainerId| Leftover::new(LeftoverKind::File, opened.root.path_of(id), &error);
        let ids: BTreeSet<_> = lock(&self.preparing).keys().cloned().collect();
        let left = ids.iter().map(left).collect();
        (ids, left)
    }

    /// Without a pid namespace, the remaining processes become our children, and have to be reaped by us.
    fn remember_rest(&self, container: &DriverContainer) {
        if container.spec.shares_pids() {
            self.host().remember(container.reservation.id.clone(), container.members());
        }
    }

    /// Forgets a container. If something could not be removed, it is kept, and closing the driver tries again.
    fn released(&self, container: &DriverContainer, completely: bool) {
        self.host().forget(container.reservation.id.clone());
        self.unhold_all(&format!("{}/", container.reservation.id));
        if completely {
            lock(&self.containers).remove(&container.reservation.id);
        }
    }
}
