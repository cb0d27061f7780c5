//! The runtime and the kernel: what they do, and what comes back of it.

use super::*;

impl World {
    pub(super) fn runtime_starts(&mut self, process: &ProcessId) {
        let member = self.member(process);
        let Some(Request { asked, .. }) = member.request.take() else { return };
        let (real, well) = match (asked, member.real) {
            (LaunchStep::Create, _) => (Real::Created, true),
            (LaunchStep::Launch, _) | (LaunchStep::StartCreated, Real::Created) => (Real::Alive, true),
            (LaunchStep::StartCreated, real) => (real, false),
        };
        member.real = real;
        member.began |= real == Real::Alive && well;
        let answer = if asked == LaunchStep::Create { Answer::Create } else { Answer::Start };
        self.network.insert(Completion::LaunchEnded(process.clone(), answer, well));
        if *process == ProcessId::Init {
            self.rest_alive |= real == Real::Alive && self.budget.traits.shares_pids;
        } else if self.init_is_over() {
            // It may say so of a process that was killed with its init before it could begin.
            self.dies(process, true);
        }
    }

    /// What was created stays so, or dies, as it may have.
    pub(super) fn runtime_fails(&mut self, process: &ProcessId) -> Completion {
        let member = self.member(process);
        let asked = member.request.take().map_or(LaunchStep::Launch, |request| request.asked);
        if asked != LaunchStep::StartCreated {
            member.real = Real::Never;
        }
        let answer = if asked == LaunchStep::Create { Answer::Create } else { Answer::Start };
        Completion::LaunchEnded(process.clone(), answer, false)
    }

    /// With init end all others, as with a pid namespace.
    pub(super) fn dies(&mut self, process: &ProcessId, killed: bool) {
        if !matches!(self.member(process).real, Real::Alive | Real::Created) {
            return;
        }
        self.member(process).real = Real::Dead(status(killed));
        self.network.insert(Completion::Ended(process.clone(), killed));
        if *process == ProcessId::Init && !self.budget.traits.shares_pids {
            self.frozen = false;
            let others: Vec<_> = self.members.keys().filter(|other| *other != process).cloned().collect();
            others.iter().for_each(|other| self.dies(other, true));
        }
    }

    /// A process, or a child of init. The log names it, and the counter of the cgroup counts it.
    pub(super) fn oom_kills(&mut self, process: Option<&ProcessId>) {
        self.budget.oom_kills -= 1;
        self.oom_kills += 1;
        self.network.insert(Completion::OomKill(process.cloned(), self.oom_kills));
        if let Some(process) = process {
            self.member(process).was_oom_killed = true;
            self.dies(process, true);
        }
    }

    /// An exit as the driver reports it: that of init has the usage.
    fn raw_exit(&mut self, process: &ProcessId, killed: bool) -> RawExit {
        let oom_kills = self.oom_kills;
        if self.member(process).real == Real::Dead(ExitStatus::Unknown) {
            return RawExit::with(ExitStatus::Unknown);
        }
        let was_killed = self.member(process).was_oom_killed;
        let evidence = if was_killed { OomEvidence::Killed } else { OomEvidence::NotKilled };
        let has_usage = *process == ProcessId::Init && oom_kills > 0;
        let usage = has_usage.then(|| Box::new(Usage { oom_kills, ..Usage::default() }));
        RawExit { usage, oom: Some(evidence), ..RawExit::with(status(killed)) }
    }

    pub(super) fn arrives(&mut self, rules: &Rules, completion: Completion) {
        match completion {
            Completion::Prepared(well) => {
                self.asked.preparing = false;
                let event = if well {
                    ContainerEvent::Prepared
                } else {
                    ContainerEvent::PrepareFailed(failure(false))
                };
                self.container(rules, event);
            }
            Completion::PauseEnded(well) => {
                self.asked.pausing = false;
                let frozen = well && !self.init_is_over();
                self.frozen |= frozen;
                self.container(rules, ContainerEvent::PauseEnded { frozen });
            }
            Completion::ResumeEnded(well) => {
                self.asked.resuming = false;
                let thawed = well || !self.frozen;
                self.frozen &= !thawed;
                self.container(rules, ContainerEvent::ResumeEnded { thawed });
            }
            Completion::RemainingEnded => {
                self.asked.ending_rest = false;
                self.rest_alive = false;
                self.container(rules, ContainerEvent::RemainingEnded);
            }
            Completion::ReleaseEnded => {
                self.asked.releasing = false;
                self.container(rules, ContainerEvent::ReleaseEnded { left: Vec::new() });
            }
            Completion::LostReleased => self.lost_released(rules),
            Completion::LaunchEnded(process, answer, well) => {
                if !well {
                    self.member(&process).remains.asked = None;
                }
                let event = match (answer, well) {
                    (Answer::Create, true) => ProcessEvent::Created { pid: pid() },
                    (Answer::Start, true) => ProcessEvent::Started { pid: pid() },
                    (Answer::Create | Answer::Start, false) => {
                        let is_gone = matches!(self.members[&process].real, Real::Dead(_));
                        ProcessEvent::StartFailed(failure(is_gone))
                    }
                };
                self.process(rules, &process, NOW, event);
            }
            Completion::Ended(process, killed) => {
                let raw = self.raw_exit(&process, killed);
                self.router(rules, ExitRouterEvent::Ended(reference(process), raw));
            }
            Completion::OomKill(process, kills) => {
                let kill = OomKill::new(kills).of(process);
                self.container(rules, ContainerEvent::OomKilled(kill));
            }
            Completion::Watch(process) => self.router(rules, ExitRouterEvent::Watch(reference(process))),
        }
    }

    /// Releasing ends every process, whether or not there is an actor for it.
    pub(super) fn lost_released(&mut self, rules: &Rules) {
        self.asked.releasing_lost = false;
        self.rest_alive = false;
        for member in self.members.values_mut() {
            member.request = None;
            if member.may_run() {
                member.real = Real::Never;
            }
        }
        let Published { seq, started, execs, exit, .. } = self.published.clone();
        let story = PublishedState {
            seq,
            started_at: started.then_some(NOW),
            execs: execs.into_iter().collect(),
            exit,
        };
        self.registry(rules, RegistryEvent::LostReleased(container_id(), story, Vec::new()));
    }
}
