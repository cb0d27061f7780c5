//! The end of a container, with its actor or without it; draining and shutting down the executor.

use super::{Entry, Mode, PublishedState, REMEMBERED, Registry, RegistryEffect, StartOutcome};
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

    /// A container may be released before its pool and its run have learned what became of it. They learn it now.
    pub(super) fn catch_up(&mut self, id: &ContainerId, exit: &Exit) -> Vec<RegistryEffect> {
        let mut effects = self.ready_died(id.clone()).unwrap_or_default();
        effects.extend(self.given_started(id.clone(), StartOutcome::of(exit)).unwrap_or_default());
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
                // Its pool must not give it to a run.
                let mut effects = self.ready_died(id.clone()).unwrap_or_default();
                effects.retain(|effect| !effect.ends(&id));
                effects.push(RegistryEffect::ReleaseLost(id));
                Ok(effects)
            }
            Some(Entry { is_lost: true, .. }) | None => Err(Refusal::Stale),
        }
    }

    /// Publishes the events that the lost actor has not published: the exits of its execs, its own exit, its release.
    pub(super) fn lost_released(
        &mut self,
        now: Timestamp,
        id: ContainerId,
        story: PublishedState,
        left: Vec<Leftover>,
    ) -> Result<Vec<RegistryEffect>, Refusal> {
        match self.containers.get(&id) {
            Some(Entry { is_lost: true, .. }) => {}
            Some(Entry { is_lost: false, .. }) | None => return Err(Refusal::Stale),
        }
        let PublishedState { mut seq, started_at, execs, exit } = story;
        let mut next_event = |kind| {
            seq += 1;
            Event::new(seq, id.clone(), now, kind)
        };
        let mut effects = Vec::new();
        for (exec, has_started) in execs {
            let exec_started_at = if has_started { started_at } else { None };
            let kind = EventKind::ExecExited { exec, exit: Exit::lost(exec_started_at, now) };
            effects.push(RegistryEffect::Publish(next_event(kind)));
        }
        let known_exit = exit.unwrap_or_else(|| {
            let lost = Exit::lost(started_at, now);
            effects.push(RegistryEffect::Publish(next_event(EventKind::Exited { exit: lost.clone() })));
            lost
        });
        let last = next_event(EventKind::Released { left });
        effects.extend(self.released(last, known_exit)?);
        Ok(effects)
    }

    pub(super) fn drain(&mut self) -> Vec<RegistryEffect> {
        if self.mode == Mode::Open {
            self.mode = Mode::Draining;
        }
        let pools: Vec<_> = self.pools.keys().copied().collect();
        let mut effects = Vec::new();
        for pool in pools {
            effects.extend(self.on_pool(pool, PoolEvent::Want(0)).unwrap_or_default());
        }
        effects.extend(self.when_empty());
        effects
    }

    /// Ends the containers in the order in which they were requested. Those that are kept ready come last.
    pub(super) fn shutdown(&mut self, cancel: Cancel) -> Vec<RegistryEffect> {
        if self.mode == Mode::Stopped {
            return vec![self.stop_with_what_is_left()];
        }
        let mut effects = self.drain();
        // The containers that are kept ready are ended below, with all others.
        effects.retain(|effect| !matches!(effect, RegistryEffect::Drained | RegistryEffect::End(..)));
        self.mode = Mode::Ending;
        let cancel = cancel.cause(CancelCause::Shutdown);
        let mut all: Vec<_> = self.containers.iter().filter(|(_, entry)| !entry.is_lost).collect();
        all.sort_by_key(|(_, entry)| (entry.token.is_none(), entry.token));
        effects.extend(all.into_iter().map(|(id, _)| RegistryEffect::End(id.clone(), cancel)));
        effects.extend(self.when_empty());
        effects
    }

    /// What follows once the last container is gone.
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
            // The deadline of a shutdown that is over, or was never asked for.
            Mode::Open | Mode::Draining | Mode::Stopped => Vec::new(),
        }
    }

    pub(super) fn stop_with_what_is_left(&self) -> RegistryEffect {
        RegistryEffect::Stop(self.visible().cloned().collect())
    }
}
