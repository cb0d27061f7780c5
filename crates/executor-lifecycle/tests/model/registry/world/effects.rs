//! The registry takes its steps, and its effects are performed as the executor's actor does it. What a rule forbids is
//! noted here.

use super::*;

impl World {
    pub(super) fn registry(&mut self, step: Step, event: RegistryEvent) {
        let _stale = self.is_refused(step, event);
    }

    pub(super) fn is_refused(&mut self, step: Step, event: RegistryEvent) -> bool {
        let before = self.registry.clone();
        match step(&mut self.registry, NOW, event) {
            Ok(effects) => {
                for effect in effects {
                    self.perform(step, effect);
                }
                false
            }
            Err(_) => {
                if self.registry != before {
                    self.breaks(UNCHANGED);
                }
                true
            }
        }
    }

    pub(super) fn perform(&mut self, step: Step, effect: RegistryEffect) {
        match effect {
            RegistryEffect::Register { id, token, hold } => self.register(&id, token, hold),
            RegistryEffect::Make(pool) => {
                self.is_new_thing(None);
                if self.budget.late_makes {
                    self.late.push(pool);
                } else {
                    self.make(step, pool);
                }
            }
            RegistryEffect::Give(id, token) => self.give(&id, token),
            RegistryEffect::Answer(id, token) => self.answer(&id, token),
            RegistryEffect::Retry(token) => {
                self.is_new_thing(Some(token));
                self.ask(step, caller_of(token));
            }
            RegistryEffect::End(id, _) => self.end(&id),
            RegistryEffect::ReleaseLost(id) => self.thing(&id).actor = Actor::Lost,
            RegistryEffect::Publish(event) => {
                let thing = self.thing(&event.container);
                if let EventKind::Exited { exit } = event.kind {
                    thing.life = Life::Ended(exit);
                }
            }
            RegistryEffect::Forget(id) => self.thing(&id).is_forgotten = true,
            RegistryEffect::PoolChanged(pool) => self.pool_changed(pool),
            RegistryEffect::Drained => {
                self.drain_waits = false;
                if self.is_anything_left() || self.takes_new {
                    self.breaks(DRAINED);
                }
            }
            RegistryEffect::Stop(late) => self.stop(&late),
        }
    }

    /// For what must not come once it drains, nor for a request that is answered or whose caller is gone.
    pub(super) fn is_new_thing(&mut self, token: Option<RequestToken>) {
        if !self.takes_new {
            self.breaks(NOTHING_NEW);
        }
        let Some(caller) = token.map(|token| self.callers[caller_of(token)]) else { return };
        if caller.reply != Reply::Waits {
            self.breaks(ANSWERED_ONCE);
        }
        if caller.is_gone {
            self.breaks(DROPPED);
        }
    }

    pub(super) fn register(&mut self, id: &ContainerId, token: RequestToken, hold: bool) {
        self.is_new_thing(Some(token));
        let thing = Thing { token: Some(token), is_started: !hold, ..Thing::new(true) };
        self.insert(id, thing);
        self.answer(id, token);
    }

    pub(super) fn give(&mut self, id: &ContainerId, token: RequestToken) {
        self.is_new_thing(Some(token));
        let Some(thing) = self.things.get_mut(id).filter(|thing| !thing.is_forgotten) else { return };
        let is_again = thing.token.replace(token).is_some();
        thing.is_started = true;
        thing.fares = true;
        if is_again {
            self.breaks(GIVEN_ONCE);
        }
    }

    pub(super) fn answer(&mut self, id: &ContainerId, token: RequestToken) {
        let caller = &mut self.callers[caller_of(token)];
        let is_first = caller.reply == Reply::Waits;
        let may_be_dead = caller.is_gone || !self.takes_new;
        let Some(thing) = self.things.get_mut(id).filter(|thing| !thing.is_forgotten) else { return };
        caller.reply = Reply::Answered;
        thing.is_visible = true;
        let never_began = thing.exit().is_some_and(|exit| exit.started_at.is_none());
        let is_dead = thing.pool.is_some() && never_began && !thing.is_cancelled;
        if !is_first || thing.token != Some(token) {
            self.breaks(ANSWERED_ONCE);
        }
        if is_dead && !may_be_dead {
            self.breaks(FALLBACK);
        }
    }

    pub(super) fn end(&mut self, id: &ContainerId) {
        let Some(thing) = self.things.get_mut(id).filter(|thing| thing.actor == Actor::Lives) else { return };
        thing.is_cancelled = true;
        thing.may_go = true;
    }

    pub(super) fn pool_changed(&mut self, pool: PoolId) {
        let state = self.registry.pool(pool).map(executor_lifecycle::ready::Pool::is_settled);
        if self.pool != Some(pool) {
            return;
        }
        if state.unwrap_or(true) {
            self.prepare_waits = false;
        }
        if state.is_none() {
            self.pool = None;
        }
    }

    pub(super) fn stop(&mut self, late: &[ContainerId]) {
        (self.drain_waits, self.shutdown_waits) = (false, false);
        let is_first = !std::mem::replace(&mut self.has_stopped, true);
        if is_first && self.is_anything_left() && !self.has_passed {
            self.breaks(TOO_SOON);
        }
        let seen = self.things.iter().filter(|(_, thing)| thing.is_visible && !thing.is_forgotten);
        if !seen.map(|(id, _)| id).eq(late) {
            self.breaks(LATE);
        }
    }
}
