//! The machines take their steps, and their effects are performed as the actors and the driver do it. What a rule forbids
//! is noted here.

use super::*;

impl World {
    pub(super) fn router(&mut self, rules: &Rules, event: ExitRouterEvent) {
        for effect in (rules.router)(&mut self.router, event).into_iter().flatten() {
            let ExitRouterEffect::Deliver(process, raw) = effect;
            // Ends arrive at the reaper whenever they like: another delay would add nothing.
            if !self.is_lost() {
                self.member(&process.process).remains.ended = Some(raw.clone());
            }
            self.process(rules, &process.process, NOW, ProcessEvent::Ended(raw));
        }
    }

    pub(super) fn process(&mut self, rules: &Rules, id: &ProcessId, now: Timestamp, event: ProcessEvent) {
        if self.is_lost() {
            return;
        }
        let sized = matches!(event, ProcessEvent::Resize(_));
        let member = self.member(id);
        let answer = (rules.process)(&mut member.machine, now, event);
        member.sizes += u8::from(sized && answer.is_ok());
        self.perform_all(rules, id, answer.unwrap_or_else(|_| Effects::none()));
    }

    pub(super) fn perform_all(&mut self, rules: &Rules, id: &ProcessId, effects: Effects<ProcessEffect>) {
        for effect in effects {
            let reported = self.member(id).exit.is_some();
            match effect {
                ProcessEffect::Create => self.ask(id, LaunchStep::Create),
                ProcessEffect::Launch => self.ask(id, LaunchStep::Launch),
                ProcessEffect::StartCreated => self.ask(id, LaunchStep::StartCreated),
                ProcessEffect::AbandonStart => {
                    if let Some(request) = &mut self.member(id).request {
                        request.abandoned = true;
                    }
                }
                ProcessEffect::Watch => drop(self.network.insert(Completion::Watch(id.clone()))),
                ProcessEffect::Signal(..) | ProcessEffect::Kill(_) if reported => self.breaks(NO_SIGNAL),
                ProcessEffect::Signal(Signal::KILL, _) if !self.frozen => self.dies(id, true),
                ProcessEffect::Signal(..) => {}
                ProcessEffect::Resize(_) => self.member(id).sizes = 0,
                ProcessEffect::Kill(_) if std::mem::replace(&mut self.kernel_refuses, false) => {
                    self.process(rules, id, NOW, ProcessEvent::KillFailed);
                }
                ProcessEffect::Kill(how) => self.kill(id, how),
                // It comes again each second, so one that finds others before it counts for nothing.
                ProcessEffect::ReportStillAlive => {
                    if self.member(id).up.is_empty() {
                        self.container(rules, ContainerEvent::StillAlive(id.clone()));
                    }
                }
                ProcessEffect::ReportCreated { .. } => {
                    let member = self.member(id);
                    (member.remains.asked, member.remains.pid) = (None, Some(pid()));
                    member.up.push_back(Up::Created);
                }
                ProcessEffect::ReportStarted { .. } => {
                    let member = self.member(id);
                    (member.remains.asked, member.remains.pid) = (None, Some(pid()));
                    member.remains.started_at = Some(NOW);
                    member.up.push_back(Up::Started);
                }
                ProcessEffect::ReportExited(exit) => self.report_exited(id, exit),
            }
        }
    }

    pub(super) fn kill(&mut self, id: &ProcessId, how: Kill) {
        self.frozen &= !how.thaw;
        self.rest_alive &= !how.everything;
        if !self.frozen {
            self.dies(id, true);
        }
    }

    pub(super) fn ask(&mut self, id: &ProcessId, asked: LaunchStep) {
        let executes = asked != LaunchStep::Create;
        if *id == ProcessId::Init && executes && !self.start_asked {
            self.breaks(HELD);
        }
        if executes && self.member(id).sizes > 0 {
            self.breaks(SIZED);
        }
        if self.asked.releasing || self.asked.released {
            self.breaks(NOTHING_RUNS);
        }
        let member = self.member(id);
        let is_again = match asked {
            LaunchStep::Create | LaunchStep::Launch => member.real != Real::Unasked,
            LaunchStep::StartCreated => member.began || member.request.is_some(),
        };
        member.remains.asked = Some(asked);
        member.request = Some(Request { asked, stalled: false, abandoned: false });
        if asked != LaunchStep::StartCreated {
            member.real = Real::Making;
        }
        if is_again {
            self.breaks(STARTED_ONCE);
        }
    }

    pub(super) fn report_exited(&mut self, id: &ProcessId, exit: Exit) {
        let member = self.member(id);
        let rule = match member.real {
            _ if member.exit.is_some() => Some(EXITED_ONCE),
            _ if member.began != exit.started_at.is_some() => Some(TRUTHFUL),
            Real::Alive | Real::Created | Real::Making => Some(NOTHING_RUNS),
            Real::Dead(status) => {
                let says_killed = exit.reason == ExitReason::OutOfMemory;
                (status != exit.status || says_killed && !member.was_oom_killed).then_some(TRUTHFUL)
            }
            Real::Unasked | Real::Never => (exit.status != ExitStatus::Unknown).then_some(TRUTHFUL),
        };
        member.exit = Some(exit.clone());
        member.up.push_back(Up::Exited(exit));
        if let Some(rule) = rule {
            self.breaks(rule);
        }
    }

    pub(super) fn registry(&mut self, rules: &Rules, event: RegistryEvent) {
        let effects = (rules.registry)(&mut self.registry, NOW, event).unwrap_or_else(|_| Effects::none());
        for effect in effects {
            match effect {
                RegistryEffect::Register { hold, .. } => {
                    let ContainerTraits { has_terminal, shares_pids, .. } = self.budget.traits;
                    let init = Member::new(ProcessTraits { has_terminal, shares_pids });
                    self.members.insert(ProcessId::Init, init);
                    self.container = Some(Container::new(container_id(), self.budget.traits));
                    self.container(rules, ContainerEvent::Create);
                    if !hold {
                        self.container(rules, ContainerEvent::Start(Terms::default()));
                    }
                }
                RegistryEffect::End(_, cancel) => self.container(rules, ContainerEvent::End(cancel)),
                RegistryEffect::ReleaseLost(_) => self.asked.releasing_lost = true,
                RegistryEffect::Publish(event) => self.publish(rules, &event),
                RegistryEffect::Forget(_) => {
                    if std::mem::replace(&mut self.asked.released, true) {
                        self.breaks(RELEASED_ONCE);
                    }
                    self.router = ExitRouter::default();
                    self.network.clear();
                }
                RegistryEffect::Make(_)
                | RegistryEffect::Give(..)
                | RegistryEffect::Answer(..)
                | RegistryEffect::Retry(_)
                | RegistryEffect::PoolChanged(_)
                | RegistryEffect::Drained
                | RegistryEffect::Stop(_) => {}
            }
        }
    }

    pub(super) fn container(&mut self, rules: &Rules, event: ContainerEvent) {
        self.container_at(rules, NOW, event);
    }

    pub(super) fn container_at(&mut self, rules: &Rules, now: Timestamp, event: ContainerEvent) {
        let Some(container) = &mut self.container else { return };
        let starts = matches!(event, ContainerEvent::Start(_));
        let answer = (rules.container)(container, now, event);
        self.start_asked |= starts && answer.is_ok();
        self.perform_container(rules, answer.unwrap_or_else(|_| Effects::none()));
    }

    pub(super) fn perform_container(
        &mut self,
        rules: &Rules,
        effects: impl IntoIterator<Item = ContainerEffect>,
    ) {
        for effect in effects {
            match effect {
                ContainerEffect::Prepare => self.asked.preparing = true,
                ContainerEffect::AddExec(exec) => {
                    drop(self.members.insert(ProcessId::Exec(exec), Member::new(ProcessTraits::default())))
                }
                ContainerEffect::ArmInit(terms) => self.tell(&ProcessId::Init, Down::Arm(terms)),
                ContainerEffect::CreateInit => self.tell(&ProcessId::Init, Down::Create),
                ContainerEffect::Launch(process) => self.tell(&process, Down::Launch),
                ContainerEffect::Withdraw(process, failure) => self.tell(&process, Down::Withdraw(failure)),
                ContainerEffect::CancelProcess(process, cancel) => {
                    self.member(&process).to_end = true;
                    self.tell(&process, Down::Cancel(cancel));
                }
                // Its end may be on the way to the container; then the runtime finds nothing to kill.
                ContainerEffect::KillAgain(process, how) if self.member(&process).exit.is_none() => {
                    self.kill(&process, how);
                }
                ContainerEffect::KillAgain(..) => {}
                ContainerEffect::SignalInit(signal, scope) => {
                    self.tell(&ProcessId::Init, Down::Signal(signal, scope));
                }
                ContainerEffect::ResizeInit(size) => self.tell(&ProcessId::Init, Down::Resize(size)),
                ContainerEffect::Pause => self.asked.pausing = true,
                ContainerEffect::Resume => self.asked.resuming = true,
                ContainerEffect::Thaw => {
                    self.frozen = false;
                    self.asked.resuming = true;
                }
                ContainerEffect::ListProcesses | ContainerEffect::ReadUsage | ContainerEffect::Update => {}
                ContainerEffect::Publish(event) => self.publish(rules, &event),
                ContainerEffect::KillRemaining => self.asked.ending_rest = true,
                ContainerEffect::Release => {
                    if self.asked.preparing || self.asked.releasing || self.asked.released {
                        self.breaks(RELEASED_ONCE);
                    }
                    if !self.may_go {
                        self.breaks(KEPT);
                    }
                    self.asked.releasing = true;
                }
                ContainerEffect::Finished(event) => {
                    let exit = self.published.exit.clone().unwrap_or_else(|| Exit::lost(None, NOW));
                    self.registry(rules, RegistryEvent::Released(event, exit));
                }
            }
        }
    }

    pub(super) fn tell(&mut self, process: &ProcessId, down: Down) {
        self.member(process).down.push_back(down);
    }

    /// Before an exit is published, its own kill is, and before the last one every kill.
    fn check_kills(&mut self, exit: &Exit, is_last: bool) {
        let published = self.published.oom_kills;
        let is_own_missing = exit.reason == ExitReason::OutOfMemory && published == 0;
        // Without a pid namespace others may be killed after init.
        let is_complete = is_last && !self.is_lost() && !self.budget.traits.shares_pids;
        if is_own_missing || is_complete && published != self.oom_kills {
            self.breaks(KILLS);
        }
    }

    pub(super) fn publish(&mut self, rules: &Rules, event: &Event) {
        if self.order.check(event).is_err() {
            self.breaks(ORDER);
        }
        self.published.seq = event.seq;
        if self.budget.crashes > 0 {
            self.events.push(event.clone());
        }
        let running = match &event.kind {
            EventKind::Exited { exit } => {
                self.check_kills(exit, true);
                self.published.exit = Some(exit.clone());
                let is_lost = self.is_lost();
                !is_lost && (self.rest_alive || self.members.values().any(Member::may_run))
            }
            EventKind::ExecExited { exec, exit } => {
                self.check_kills(exit, false);
                self.published.execs.remove(exec);
                let exec = &self.members[&ProcessId::Exec(exec.clone())];
                !self.is_lost() && exec.may_run()
            }
            EventKind::ExecAdded { exec } => {
                self.published.execs.insert(exec.clone(), false);
                false
            }
            EventKind::ExecStarted { exec, .. } => {
                self.published.execs.insert(exec.clone(), true);
                false
            }
            EventKind::OutOfMemory(kill) => {
                if kill.kills <= self.published.oom_kills || kill.kills > self.oom_kills {
                    self.breaks(KILLS);
                }
                self.published.oom_kills = kill.kills;
                false
            }
            EventKind::Started { .. } => {
                self.published.started = true;
                false
            }
            EventKind::Released { .. } => {
                self.released_is_published(rules);
                self.members.values().any(Member::may_run)
            }
            EventKind::Registered | EventKind::Created { .. } | EventKind::Paused | EventKind::Resumed => {
                false
            }
            other => panic!("the model does not know {other:?}"),
        };
        if running {
            self.breaks(NOTHING_RUNS);
        }
    }

    /// A subscriber that asks for the id again the moment it hears this is not refused it.
    pub(super) fn released_is_published(&mut self, rules: &Rules) {
        let again = (rules.registry)(&mut self.registry.clone(), NOW, wanted(2, false));
        if again.is_err_and(|refused| refused.reason == Refusal::IdTaken) {
            self.breaks(ID_FREE);
        }
        if self.registry.exit_of(&container_id()) != self.published.exit.as_ref() {
            self.breaks(REMEMBERED);
        }
    }
}
