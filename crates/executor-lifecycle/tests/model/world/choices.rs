//! What may happen next, and what has to.

use super::*;

impl World {
    /// What must happen sooner or later.
    pub(crate) fn due(&self, due: &mut Vec<Action>) {
        let AskedOf { preparing, pausing, resuming, ending_rest, releasing, releasing_lost, .. } = self.asked;
        let arrives = |completion| Action::Arrives(completion);
        if preparing {
            due.extend([true, false].map(|well| arrives(Completion::Prepared(well))));
        }
        if pausing {
            due.extend([true, false].map(|well| arrives(Completion::PauseEnded(well))));
        }
        if resuming {
            due.extend([true, false].map(|well| arrives(Completion::ResumeEnded(well))));
        }
        due.extend(ending_rest.then(|| arrives(Completion::RemainingEnded)));
        due.extend(releasing.then(|| arrives(Completion::ReleaseEnded)));
        due.extend(releasing_lost.then(|| arrives(Completion::LostReleased)));
        due.extend(self.network.iter().filter(|one| self.is_next(one)).cloned().map(Action::Arrives));
        for (id, member) in &self.members {
            if member.request.is_some_and(|request| !request.stalled || request.abandoned) {
                due.extend(
                    [Action::RuntimeStarts, Action::RuntimeFails, Action::RuntimeDies]
                        .map(|act| act(id.clone())),
                );
            }
            if self.is_lost() {
                continue;
            }
            due.extend((!member.up.is_empty()).then(|| Action::Up(id.clone())));
            due.extend((!member.down.is_empty()).then(|| Action::Down(id.clone())));
            due.extend(member.machine.next_deadline().map(|_| Action::Deadline(id.clone())));
        }
        let deadline = self.container.as_ref().and_then(Container::next_deadline);
        due.extend(deadline.map(|_| Action::ContainerDeadline));
    }

    /// Kills arrive in their order.
    fn is_next(&self, completion: &Completion) -> bool {
        let number = |completion: &Completion| {
            let Completion::OomKill(_, number) = completion else { return None };
            Some(*number)
        };
        let first = self.network.iter().filter_map(number).min();
        number(completion).is_none_or(|number| Some(number) == first)
    }

    /// What may happen, or not.
    pub(crate) fn possible(&self, possible: &mut Vec<Action>) {
        let budget = &self.budget;
        let mut add = |allowed: bool, action: Action| {
            if allowed {
                possible.push(action);
            }
        };
        add(self.is_new(), Action::Run);
        let lives = self.container.is_some();
        add(lives && budget.starts > 0, Action::Start);
        add(lives && budget.removes > 0, Action::Remove);
        add(lives && budget.execs > 0, Action::Exec);
        add(lives && budget.cancels > 0, Action::Cancel { graceful: false });
        add(lives && budget.cancels > 0, Action::Cancel { graceful: true });
        add(lives && budget.signals > 0, Action::Signal(Signal::HUP));
        add(lives && budget.signals > 0, Action::Signal(Signal::KILL));
        add(lives && budget.resizes > 0, Action::Resize);
        add(lives && budget.pauses > 0, Action::Pause);
        add(lives && self.frozen, Action::Resume);
        add(budget.drops > 0, Action::DropExecutor);
        add(budget.refused_kills > 0 && !self.kernel_refuses, Action::KernelRefusesKills);
        add(lives && budget.dead_containers > 0 && !self.asked.released, Action::ContainerActorDies);
        add(budget.crashes > 0 && !self.is_new(), Action::Crash { with_keeper: false });
        add(budget.crashes > 0 && budget.keeper_dies && !self.is_new(), Action::Crash { with_keeper: true });
        for (id, member) in &self.members {
            let id = || id.clone();
            add(lives && budget.exec_cancels > 0 && id() != ProcessId::Init, Action::CancelExec(id()));
            add(lives && budget.dead_actors > 0 && !member.machine.has_exited(), Action::ActorDies(id()));
            let may_stall = member.request.is_some_and(|request| !request.stalled && !request.abandoned);
            add(budget.stalls > 0 && may_stall, Action::RuntimeStalls(id()));
            add(matches!(member.real, Real::Alive | Real::Created) && !self.frozen, Action::Exits(id()));
            let may_be_killed = member.real == Real::Alive && !self.frozen;
            add(may_be_killed && budget.oom_kills > 0, Action::OomKills(Some(id())));
            let has_child = may_be_killed && id() == ProcessId::Init;
            add(has_child && budget.oom_kills > 0, Action::OomKills(None));
            add(may_be_killed && budget.foreign_kills > 0, Action::KilledFromOutside(id()));
        }
        if budget.copies > 0 {
            possible.extend(self.arrived.iter().cloned().map(Action::ArrivesAgain));
        }
    }

    /// Whether it is right that nothing happens any more, unless the user wants something.
    pub(crate) fn may_rest(&self) -> bool {
        let settled = |member: &Member| match (member.real, member.request) {
            (Real::Dead(_) | Real::Never, _) => false,
            (_, Some(request)) => request.stalled && !member.to_end,
            (Real::Making, None) => false,
            (Real::Unasked | Real::Created | Real::Alive, None) => !member.to_end,
        };
        let all_settled = || self.members.values().all(|member| member.exit.is_some() || settled(member));
        let has_ended = self.budget.drops == 0 || self.registry.state() != "ending";
        match self.phase() {
            None => self.is_new() && has_ended || self.asked.released,
            Some(Phase::Released) => {
                self.asked.released && has_ended && self.members.values().all(|member| member.exit.is_some())
            }
            Some(Phase::Creating | Phase::Created) => {
                let waits =
                    self.phase() == Some(Phase::Created) || self.members[&ProcessId::Init].request.is_some();
                !self.init_is_over()
                    && all_settled()
                    && waits
                    && !(self.start_asked && self.phase() == Some(Phase::Created))
            }
            Some(Phase::Running | Phase::Paused) => !self.init_is_over() && all_settled(),
            Some(Phase::Exited) => !self.may_go,
            Some(other) => panic!("the model does not know {other}"),
        }
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        Some(match self.container.as_ref()?.state() {
            "new" | "preparing" | "creating" | "starting" => Phase::Creating,
            "created" => Phase::Created,
            "frozen" | "thawing" => Phase::Paused,
            "running" | "freezing" | "exiting" | "ending_rest" => Phase::Running,
            "settling" | "exited" | "releasing" => Phase::Exited,
            _ => Phase::Released,
        })
    }
}
