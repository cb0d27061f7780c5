//! What may happen next, and what has to.

use super::*;

impl World {
    /// What must happen sooner or later.
    pub(crate) fn due(&self, due: &mut Vec<Action>) {
        if !self.late.is_empty() {
            due.push(Action::LateMake);
        }
        for (id, thing) in &self.things {
            let mut add = |is_due: bool, action: fn(ContainerId) -> Action| {
                due.extend(is_due.then(|| action(id.clone())));
            };
            let acts = thing.actor == Actor::Lives && !thing.is_forgotten;
            let (making, created) = (thing.life == Life::Making, thing.life == Life::Created);
            // A cancel may come too late for either.
            add(acts && making, Action::Created);
            // What a caller holds at created is started in the end.
            add(acts && created && (thing.is_started || thing.is_visible), Action::Began);
            add(acts && !thing.is_over() && thing.is_cancelled, Action::Ends);
            add(acts && thing.is_over() && !thing.may_go && thing.is_visible, Action::Removed);
            add(acts && thing.is_over() && thing.may_go, Action::Released);
            add(thing.actor == Actor::Died, Action::Lost);
            add(thing.actor == Actor::Lost && !thing.is_forgotten, Action::LostReleased);
            let is_known = match thing.watch {
                Some(Watch::Created) => !making,
                Some(Watch::Exited) => thing.is_over(),
                None => false,
            };
            add(is_known, Action::Watched);
            add(thing.fares && (thing.life == Life::Began || thing.is_over()), Action::StartOutcome);
            add(thing.in_first_moments, Action::FirstMomentsOver);
        }
    }

    /// What may happen, or not.
    pub(crate) fn possible(&self, possible: &mut Vec<Action>) {
        let budget = &self.budget;
        let mut add = |allowed: bool, action: Action| possible.extend(allowed.then_some(action));
        for (number, caller) in self.callers.iter().enumerate() {
            let is_next = number == 0 || self.callers[number - 1].reply != Reply::Unasked;
            add(is_next && caller.reply == Reply::Unasked, Action::Ask(number));
            let may_go = caller.reply != Reply::Unasked && !caller.is_gone;
            add(budget.drops > 0 && may_go, Action::CallerGoes(number));
        }
        for count in budget.ready {
            add(budget.keep_readies > 0, Action::KeepReady(*count));
        }
        add(budget.unmade > 0 && !self.making_fails, Action::MakingFails);
        for (id, thing) in &self.things {
            let acts = thing.actor == Actor::Lives && !thing.is_forgotten;
            let has_begun = thing.life == Life::Began || thing.is_over();
            add(acts && budget.failures > 0 && !has_begun, Action::Fails(id.clone()));
            add(acts && budget.lost > 0, Action::ActorDies(id.clone()));
            let ends_by_itself = thing.life == Life::Began && !thing.is_cancelled;
            add(acts && ends_by_itself, Action::Ends(id.clone()));
        }
        add(budget.drains > 0, Action::Drain);
        add(budget.shutdowns > 0, Action::Shutdown);
        add(self.deadlines > 0, Action::DeadlinePasses);
    }

    /// Whether it is right that nothing happens any more, unless the user wants something.
    pub(crate) fn may_rest(&self) -> bool {
        let answered = self.callers.iter().all(|caller| caller.reply != Reply::Waits);
        let ready = self.things.values().filter(|thing| thing.rests()).count();
        let running = self.things.values().filter(|thing| thing.runs_on()).count();
        let nothing_else = ready + running == self.things.len() && (running == 0 || !self.is_ending);
        let full = self.has_failed || self.deaths > 1 || ready == self.wanted_ready;
        let kept = if self.takes_new { full } else { ready == 0 };
        // A drain that is asked for after the end is answered when the actor goes.
        let drained = !self.drain_waits || running > 0 || self.has_stopped;
        let ended = !self.is_ending || self.registry.state() == "stopped";
        answered && nothing_else && kept && drained && ended && !self.prepare_waits && !self.shutdown_waits
    }
}
