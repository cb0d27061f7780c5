//! The end of a container, with its actor or without, and of all of them.

use super::{Entry, Fared, Mode, REMEMBERED, Registry, RegistryEffect, Story};
use crate::event::{Event, EventKind};
use crate::ready::PoolEvent;
use crate::{Cancel, CancelCause, ContainerId, Exit, Leftover, Refusal, Timestamp};

impl Registry {
    pub(super) fn released(&mut self, event: Event, exit: Exit) -> Result<Vec<RegistryEffect>, Refusal> {
        let id = event.container.clone();
        let mut effects = self.catch_up(&id, &exit);
        let Some(entry) = self.containers.remove(&id) else { return Err(Refusal::Stale) };
        if entry.token.is_some() {
            self.remember(id.clone(), exit);
        }
        effects.extend([RegistryEffect::Publish(event), RegistryEffect::Forget(id)]);
        effects.extend(self.when_empty());
        Ok(effects)
    }

    /// A container may be released before what became of it is learned: its pool and its run learn it now.
    pub(super) fn catch_up(&mut self, id: &ContainerId, exit: &Exit) -> Vec<RegistryEffect> {
        let mut effects = self.fell(id.clone()).unwrap_or_default();
        effects.extend(self.fared(id.clone(), Fared::of(exit)).unwrap_or_default());
        effects.extend(self.first_moments_over(id).unwrap_or_default());
        effects.retain(|effect| !effect.ends(id));
        effects
    }

    pub(super) fn remember(&mut self, id: ContainerId, exit: Exit) {
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back((id, exit));
    }

    pub(super) fn lost(&mut self, id: ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        match self.containers.get_mut(&id) {
            Some(entry @ Entry { is_lost: false, .. }) => {
                entry.is_lost = true;
                // No run can be given it.
                let mut effects = self.fell(id.clone()).unwrap_or_default();
                effects.retain(|effect| !effect.ends(&id));
                effects.push(RegistryEffect::ReleaseLost(id));
                Ok(effects)
            }
            Some(Entry { is_lost: true, .. }) | None => Err(Refusal::Stale),
        }
    }

    /// The events that its actor did not come to publish: its execs and its exit are lost, and it is released.
    pub(super) fn lost_released(
        &mut self,
        now: Timestamp,
        id: ContainerId,
        story: Story,
        left: Vec<Leftover>,
    ) -> Result<Vec<RegistryEffect>, Refusal> {
        match self.containers.get(&id) {
            Some(Entry { is_lost: true, .. }) => {}
            Some(Entry { is_lost: false, .. }) | None => return Err(Refusal::Stale),
        }
        let Story { seq, started_at, execs, exit } = story;
        let lost = Exit::lost(started_at, now);
        let exec_exits = execs.into_iter().map(|(exec, has_started)| {
            let started_at = started_at.filter(|_| has_started);
            EventKind::ExecExited { exec, exit: Exit::lost(started_at, now) }
        });
        let exited = exit.is_none().then(|| EventKind::Exited { exit: lost.clone() });
        let mut seq = seq;
        let mut event = |kind| {
            seq += 1;
            Event { seq, container: id.clone(), at: now, kind }
        };
        let mut effects: Vec<_> =
            exec_exits.chain(exited).map(|kind| RegistryEffect::Publish(event(kind))).collect();
        let last = event(EventKind::Released { left });
        effects.extend(self.released(last, exit.unwrap_or(lost))?);
        Ok(effects)
    }

    pub(super) fn drain(&mut self) -> Vec<RegistryEffect> {
        if self.mode == Mode::Open {
            self.mode = Mode::Draining;
        }
        let pools: Vec<_> = self.pools.keys().copied().collect();
        let ended =
            pools.into_iter().flat_map(|pool| self.on_pool(pool, PoolEvent::Want(0)).unwrap_or_default());
        let mut effects: Vec<_> = ended.collect();
        effects.extend(self.when_empty());
        effects
    }

    /// In the order they were asked for; what is kept ready comes last.
    pub(super) fn shutdown(&mut self, cancel: Cancel) -> Vec<RegistryEffect> {
        if self.mode == Mode::Stopped {
            return vec![self.stop_with_what_is_left()];
        }
        let mut effects = self.drain();
        // What is ready is ended below, like everything.
        effects.retain(|effect| !matches!(effect, RegistryEffect::Drained | RegistryEffect::End(..)));
        self.mode = Mode::Ending;
        let cancel = cancel.cause(CancelCause::Shutdown);
        let mut all: Vec<_> = self.containers.iter().filter(|(_, entry)| !entry.is_lost).collect();
        all.sort_by_key(|(_, entry)| (entry.token.is_none(), entry.token));
        effects.extend(all.into_iter().map(|(id, _)| RegistryEffect::End(id.clone(), cancel)));
        effects.extend(self.when_empty());
        effects
    }

    /// What is due when the last container is gone.
    pub(super) fn when_empty(&mut self) -> Option<RegistryEffect> {
        if !self.containers.is_empty() {
            return None;
        }
        match self.mode {
            Mode::Open | Mode::Stopped => None,
            Mode::Draining => Some(RegistryEffect::Drained),
            Mode::Ending => self.stop().pop(),
        }
    }

    pub(super) fn stop(&mut self) -> Vec<RegistryEffect> {
        match self.mode {
            Mode::Ending => {
                self.mode = Mode::Stopped;
                vec![self.stop_with_what_is_left()]
            }
            // A deadline of a shutdown that is over.
            Mode::Open | Mode::Draining | Mode::Stopped => Vec::new(),
        }
    }

    pub(super) fn stop_with_what_is_left(&self) -> RegistryEffect {
        RegistryEffect::Stop(self.visible().cloned().collect())
    }
}
