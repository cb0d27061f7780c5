//! Kills of the OOM killer. Each is published once: when it happens, or at the latest with the exit that shows it.
//!
//! A kill may arrive after the exit of the process that was killed, and not at all if nothing on the host reports it. So
//! kills are numbered: an exit publishes those that are missing, and one that arrives later has a number that was published.

use super::{Answer, Container, ContainerEffect, State};
use crate::event::EventKind;
use crate::{Exit, ExitReason, OomKill, ProcessId, Refusal, Timestamp};

impl Container {
    pub(super) fn oom_killed(&mut self, now: Timestamp, kill: OomKill) -> Answer {
        match self.state {
            State::Preparing
            | State::Creating
            | State::Created
            | State::Starting
            | State::Running { .. }
            | State::Exiting { .. } => {}
            State::New | State::Exited { .. } | State::Releasing { .. } | State::Released { .. } => {
                return Err(Refusal::Stale);
            }
        }
        if kill.kills <= self.oom_kills {
            // An exit has published a kill in its place.
            self.mark_killed(kill.process);
            return Err(Refusal::Stale);
        }
        Ok(vec![self.publish_kill(now, kill)])
    }

    /// The kills that the exit of a process shows and that were not published: its own, and those that the container's
    /// usage counts.
    pub(super) fn publish_missed_kills(
        &mut self,
        now: Timestamp,
        process: &ProcessId,
        exit: &Exit,
    ) -> Vec<ContainerEffect> {
        let is_own = self.is_kill_missing(process, exit);
        let own = self.oom_kills + u64::from(is_own);
        let counted = exit.usage.as_ref().map_or(0, |usage| usage.oom_kills).max(own);
        if counted == self.oom_kills {
            return Vec::new();
        }
        let kill = OomKill::new(counted).of(is_own.then(|| process.clone()));
        let published = self.publish_kill(now, kill);
        self.oom_killed.remove(process);
        vec![published]
    }

    /// Whether the exit of a process shows a kill of it that was not published. A kill that was published is spent on one exit.
    pub(super) fn is_kill_missing(&mut self, process: &ProcessId, exit: &Exit) -> bool {
        let was_published = self.oom_killed.remove(process);
        if exit.reason != ExitReason::OutOfMemory || was_published {
            return false;
        }
        let is_unnamed = self.oom_unnamed > 0;
        self.oom_unnamed -= u64::from(is_unnamed);
        !is_unnamed
    }

    /// How many kills were published. The usage of the container has no fewer.
    pub const fn oom_kills(&self) -> u64 {
        self.oom_kills
    }

    fn publish_kill(&mut self, now: Timestamp, kill: OomKill) -> ContainerEffect {
        self.note_kill(&kill);
        self.publish(now, EventKind::OutOfMemory(kill))
    }

    /// Counts a kill that is published.
    pub(super) fn note_kill(&mut self, kill: &OomKill) {
        let named = u64::from(kill.process.is_some() || kill.pid.is_some());
        self.oom_unnamed += kill.kills.saturating_sub(self.oom_kills + named);
        self.oom_kills = kill.kills;
        self.mark_killed(kill.process.clone());
    }

    /// Notes that the kill of a process was published, if its exit is still to come.
    fn mark_killed(&mut self, process: Option<ProcessId>) {
        let is_alive = |process: &ProcessId| match process {
            ProcessId::Init => !matches!(self.state, State::Exiting { .. }),
            ProcessId::Exec(exec) => self.execs.contains_key(exec),
        };
        if let Some(process) = process.filter(is_alive) {
            self.oom_killed.insert(process);
        }
    }
}
