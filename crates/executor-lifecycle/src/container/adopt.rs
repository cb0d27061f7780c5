//! A container that another executor has left: from what that executor has published, and from what runs.
//!
//! A predecessor ends at any moment, and publishes nothing more. What it has published is the container's state. Between two of its
//! events something may have been under way:
//!
//! | the last event | what may be under way | what becomes of it |
//! |---|---|---|
//! | `Registered` | the start of init | a program that was executed has started; else the start has failed |
//! | `Created` | nothing, or the start of init | it stays held; if its start was wanted, it is killed unless it runs |
//! | `ExecAdded` | parked, or its start | as init |
//! | `Started`, `Resumed` | a pause | it is paused if it is frozen |
//! | `Paused` | a resume | it runs if it is not frozen |
//! | `Exited` | the release | it is released again, unless it is kept |
//!
//! Exits are not published here: the exit source reports them to the process machines, those of the past as well.

use std::collections::{BTreeMap, BTreeSet};

use super::{Container, ContainerEffect, ContainerTraits, ExecState, Freeze, KeepExited, Kept, State};
use crate::event::{Event, EventKind};
use crate::process::Inherited;
use crate::{Cancel, CancelCause, ContainerId, ExecId, Exit, HostPid, ProcessId, Timestamp};

/// What is known of a container whose executor has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inheritance {
    /// What that executor has published of it, in order.
    pub events: Vec<Event>,
    /// The processes that have executed their program, with their pids. They may have exited since.
    pub executed: BTreeMap<ProcessId, HostPid>,
    /// The processes that had been sent a cancel.
    pub cancelled: BTreeSet<ProcessId>,
    /// Whether the start of init was asked for.
    pub is_start_wanted: bool,
    /// Whether its processes are frozen.
    pub is_frozen: bool,
}

impl Inheritance {
    /// Whether the exit of an exec with this pid was published. Another exec may have its id by now.
    fn has_exited(&self, exec: &ExecId, pid: HostPid) -> bool {
        let mut last = None;
        let mut exited = self.events.iter().filter_map(|event| {
            if let EventKind::ExecStarted { exec: started, pid } = &event.kind
                && started == exec
            {
                last = Some(*pid);
            }
            let EventKind::ExecExited { exec: exited, .. } = &event.kind else { return None };
            if exited == exec { last.take() } else { None }
        });
        exited.any(|exited| exited == pid)
    }
}

impl Container {
    /// A container as another executor has left it. Returns the effects, and the processes that have not ended as far as was
    /// published, each as it is.
    pub fn adopted(
        now: Timestamp,
        id: ContainerId,
        traits: ContainerTraits,
        inheritance: &Inheritance,
    ) -> (Self, Vec<ContainerEffect>, Vec<(ProcessId, Inherited)>) {
        let mut container = Self::new(id, traits);
        let mut started_at = BTreeMap::new();
        for event in &inheritance.events {
            container.replay(event, &mut started_at);
        }
        container.is_cancelled = inheritance.cancelled.contains(&ProcessId::Init);
        container.is_start_wanted = inheritance.is_start_wanted;
        let mut effects = container.settle_init(now, inheritance, &mut started_at);
        effects.extend(container.settle_execs(now, inheritance, &mut started_at));
        effects.extend(container.settle_freeze(now, inheritance.is_frozen));
        let processes = container.inherited(inheritance, &started_at);
        effects.extend(container.release_if_due());
        (container, effects, processes)
    }

    fn replay(&mut self, event: &Event, started_at: &mut BTreeMap<ProcessId, Timestamp>) {
        self.seq = event.seq;
        match &event.kind {
            EventKind::Registered => self.state = State::Preparing,
            EventKind::Created { .. } => self.state = State::Created,
            EventKind::Started { .. } => {
                self.state = State::Running { freeze: Freeze::Thawed };
                started_at.insert(ProcessId::Init, event.at);
            }
            EventKind::ExecAdded { exec } => {
                let runs = matches!(self.state, State::Running { .. });
                let state = if runs { ExecState::Launched } else { ExecState::Parked };
                self.execs.insert(exec.clone(), state);
            }
            EventKind::ExecStarted { exec, .. } => {
                self.execs.insert(exec.clone(), ExecState::Running);
                started_at.insert(ProcessId::Exec(exec.clone()), event.at);
            }
            EventKind::ExecExited { exec, exit } => {
                self.execs.remove(exec);
                self.is_kill_missing(&ProcessId::Exec(exec.clone()), exit);
            }
            EventKind::OutOfMemory(kill) => self.note_kill(kill),
            EventKind::Paused => self.state = State::Running { freeze: Freeze::Frozen },
            EventKind::Resumed => self.state = State::Running { freeze: Freeze::Thawed },
            EventKind::Exited { exit } => {
                self.state = State::Exited { exit: exit.clone(), kept: self.kept_after(exit) };
            }
            EventKind::Released { .. } => {
                if let State::Exited { exit, .. } = &self.state {
                    self.state = State::Released { exit: exit.clone() };
                }
            }
        }
    }

    fn kept_after(&self, exit: &Exit) -> Kept {
        match self.traits.keep_exited {
            KeepExited::No => Kept::No,
            KeepExited::For(time) => Kept::Until(exit.exited_at.after(time)),
            KeepExited::UntilRemoved => Kept::UntilRemoved,
        }
    }

    fn settle_init(
        &mut self,
        now: Timestamp,
        inheritance: &Inheritance,
        started_at: &mut BTreeMap<ProcessId, Timestamp>,
    ) -> Vec<ContainerEffect> {
        match (&self.state, inheritance.executed.get(&ProcessId::Init)) {
            (State::Preparing | State::Created, Some(pid)) => {
                self.state = State::Running { freeze: Freeze::Thawed };
                started_at.insert(ProcessId::Init, now);
                vec![self.publish(now, EventKind::Started { pid: *pid })]
            }
            (State::Preparing, None) => {
                self.state = State::Starting;
                Vec::new()
            }
            (State::Created, None) if self.is_start_wanted => {
                let abandoned = Cancel::now().cause(CancelCause::Abandoned);
                vec![ContainerEffect::CancelProcess(ProcessId::Init, abandoned)]
            }
            _ => Vec::new(),
        }
    }

    /// Execs that were added to a container that does not run yet are parked no more: nobody has their specifications.
    fn settle_execs(
        &mut self,
        now: Timestamp,
        inheritance: &Inheritance,
        started_at: &mut BTreeMap<ProcessId, Timestamp>,
    ) -> Vec<ContainerEffect> {
        let mut effects = Vec::new();
        for exec in self.execs.keys().cloned().collect::<Vec<_>>() {
            let process = ProcessId::Exec(exec.clone());
            if self.execs.get(&exec) == Some(&ExecState::Running) {
                continue;
            }
            let mut state = ExecState::Launched;
            let pid = inheritance.executed.get(&process).filter(|pid| !inheritance.has_exited(&exec, **pid));
            if let (State::Running { .. }, Some(pid)) = (&self.state, pid) {
                state = ExecState::Running;
                started_at.insert(process, now);
                effects.push(self.publish(now, EventKind::ExecStarted { exec: exec.clone(), pid: *pid }));
            }
            self.execs.insert(exec, state);
        }
        effects
    }

    fn settle_freeze(&mut self, now: Timestamp, is_frozen: bool) -> Option<ContainerEffect> {
        let State::Running { freeze } = &mut self.state else { return None };
        let kind = match (*freeze, is_frozen) {
            (Freeze::Thawed, true) => EventKind::Paused,
            (Freeze::Frozen, false) => EventKind::Resumed,
            _ => return None,
        };
        *freeze = if is_frozen { Freeze::Frozen } else { Freeze::Thawed };
        Some(self.publish(now, kind))
    }

    /// The processes whose exit was not published.
    fn inherited(
        &self,
        inheritance: &Inheritance,
        started_at: &BTreeMap<ProcessId, Timestamp>,
    ) -> Vec<(ProcessId, Inherited)> {
        let init = match &self.state {
            State::Starting => Some(Inherited::Interrupted),
            State::Created => {
                pid_of(&inheritance.events, &ProcessId::Init).map(|pid| Inherited::Created { pid })
            }
            State::Running { .. } => self.running(&ProcessId::Init, inheritance, started_at),
            State::New
            | State::Preparing
            | State::Creating
            | State::Exiting { .. }
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => None,
        };
        let execs = self.execs.iter().map(|(exec, state)| {
            let process = ProcessId::Exec(exec.clone());
            let running = match state {
                ExecState::Running => self.running(&process, inheritance, started_at),
                ExecState::Parked | ExecState::Launched => None,
            };
            (process, running.unwrap_or(Inherited::Interrupted))
        });
        init.map(|init| (ProcessId::Init, init)).into_iter().chain(execs).collect()
    }

    fn running(
        &self,
        process: &ProcessId,
        inheritance: &Inheritance,
        started_at: &BTreeMap<ProcessId, Timestamp>,
    ) -> Option<Inherited> {
        let pid =
            pid_of(&inheritance.events, process).or_else(|| inheritance.executed.get(process).copied())?;
        Some(Inherited::Running { pid, started_at: *started_at.get(process)? })
    }
}

/// The pid that was published last.
fn pid_of(events: &[Event], process: &ProcessId) -> Option<HostPid> {
    events.iter().rev().find_map(|event| match (&event.kind, process) {
        (EventKind::Created { pid } | EventKind::Started { pid }, ProcessId::Init) => Some(*pid),
        (EventKind::ExecStarted { exec, pid }, ProcessId::Exec(wanted)) if exec == wanted => Some(*pid),
        _ => None,
    })
}
