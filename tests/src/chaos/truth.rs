//! What the end of a process may be, given what was done to it. Anything else is a lie.

use longshore::{CancelCause, Exit, ExitReason, ExitStatus, Signal, StartFailureKind};

use super::plan::{Program, Reader};

const KILLED: ExitStatus = ExitStatus::Signal(Signal::KILL);

/// SIGPIPE. No plan sends it.
const PIPE: u8 = 13;

/// What was done to a process until its end.
#[derive(Clone, Debug)]
pub struct Done {
    /// What it does by itself.
    pub program: Program,
    /// What was made of its output.
    pub reader: Reader,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether it is a container's init.
    pub init: bool,
    /// Whether it was cancelled by us.
    pub cancelled: bool,
    /// The signals that were sent to it, or to all of its container.
    pub signals: Vec<Signal>,
    /// Whether the call that started it may have failed.
    pub faulty: bool,
    /// Whether files ran out now and then.
    pub starved: bool,
    /// Whether the executor was shut down.
    pub shutdown: bool,
}

impl Done {
    /// Says what is wrong with an end.
    pub fn judge(&self, exit: &Exit) -> Result<(), String> {
        let ran = exit.started_at.is_some();
        let truthful = match &exit.reason {
            ExitReason::Normal => {
                (ran || self.is_held() && exit.status == KILLED) && self.may_end_as(exit.status)
            }
            ExitReason::Cancelled { cause, killed } => {
                self.was_cancelled(*cause) && self.may_be_cancelled_as(exit.status, ran, *killed)
            }
            ExitReason::OutOfMemory => ran && self.program == Program::Hungry && exit.status == KILLED,
            ExitReason::StartFailed(failure) => {
                !ran && exit.status == ExitStatus::Unknown && self.may_fail_to_start(failure.kind)
            }
            ExitReason::Lost => self.starved,
            ExitReason::TimedOut { .. } | _ => false,
        };
        if truthful { Ok(()) } else { Err(format!("{exit:?} after {self:?}")) }
    }

    const fn was_cancelled(&self, cause: CancelCause) -> bool {
        match cause {
            CancelCause::Requested => self.cancelled,
            CancelCause::Shutdown => self.shutdown,
            // An exec goes with its init.
            CancelCause::ContainerExited => !self.init,
            CancelCause::TimedOut | CancelCause::Abandoned | _ => false,
        }
    }

    fn may_be_cancelled_as(&self, status: ExitStatus, ran: bool, killed: bool) -> bool {
        match (ran, killed) {
            (false, true) => self.is_held() && status == KILLED,
            (false, false) => {
                status == ExitStatus::Unknown || self.is_held() && self.may_end_by(status, Signal::TERM)
            }
            // With grace there was a SIGTERM first, and that may be what ended it.
            (true, killed) => {
                killed && status == KILLED || self.may_end_as(status) || self.may_end_by(status, Signal::TERM)
            }
        }
    }

    const fn may_fail_to_start(&self, kind: StartFailureKind) -> bool {
        match kind {
            StartFailureKind::NotFound => matches!(self.program, Program::Missing) || self.starved,
            StartFailureKind::ContainerGone => !self.init,
            StartFailureKind::RuntimeTimedOut | StartFailureKind::RuntimeBroken => {
                // A signal to all of a container reaches what is on its way into it, too.
                self.faulty || self.starved || self.shutdown || !self.init && !self.signals.is_empty()
            }
            StartFailureKind::NoResources => self.starved,
            StartFailureKind::NotExecutable
            | StartFailureKind::BadConfig
            | StartFailureKind::IdTaken
            | StartFailureKind::PermissionDenied
            | _ => false,
        }
    }

    /// Whether it is created before it is started, for the size of its terminal: it can be killed in between.
    fn is_held(&self) -> bool {
        self.terminal && self.init
    }

    /// Whether it may end so without a cancel of ours.
    fn may_end_as(&self, status: ExitStatus) -> bool {
        let by_itself = self.program.natural() == Some(status);
        // Without a reader its writes fail; a shell reports a child that was killed as a code; a
        // terminal makes characters into signals, and hangs up.
        let disturbed = matches!(self.reader, Reader::Drops | Reader::Slow) || self.terminal;
        let disturbed = disturbed || !self.signals.is_empty() || self.cancelled || self.shutdown;
        // An exec is killed by the kernel when its init ends.
        let taken_along = !self.init && status == KILLED;
        let by_signal = self.signals.iter().any(|signal| self.may_end_by(status, *signal));
        let ends_when_disturbed = !matches!(self.program, Program::Sleep | Program::Missing);
        by_itself
            || taken_along
            || by_signal
            || disturbed && ends_when_disturbed && matches!(status, ExitStatus::Code(_))
            || self.terminal && status == ExitStatus::Signal(Signal::HUP)
            || disturbed && matches!(status, ExitStatus::Signal(signal) if signal.number() == PIPE)
    }

    fn may_end_by(&self, status: ExitStatus, signal: Signal) -> bool {
        let polite = self.program == Program::Polite && signal == Signal::TERM;
        // runc says that it runs a moment before the program is executed; a signal that comes in between
        // ends runc's own init, with this code.
        let too_early = self.init && signal != Signal::KILL && status == ExitStatus::Code(2);
        status == ExitStatus::Signal(signal) || polite && status == ExitStatus::Code(7) || too_early
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use longshore::{StartFailure, Timestamp};

    fn exit(status: ExitStatus, reason: ExitReason, started: bool) -> Exit {
        let started_at = started.then(Timestamp::default);
        Exit::new(status, reason, &BTreeSet::new(), started_at, Timestamp::default())
    }

    /// A program that ends by itself, and to which nothing is done.
    fn alone() -> Done {
        Done {
            program: Program::Code(4),
            reader: Reader::All,
            terminal: false,
            init: true,
            cancelled: false,
            signals: Vec::new(),
            faulty: false,
            starved: false,
            shutdown: false,
        }
    }

    #[test]
    fn lies_are_seen() {
        let alone = alone();
        let normal = |status| exit(status, ExitReason::Normal, true);
        let by_us = |killed| ExitReason::Cancelled { cause: CancelCause::Requested, killed };
        let failed = |kind| ExitReason::StartFailed(StartFailure::new(kind, "why"));
        assert_eq!(alone.judge(&normal(ExitStatus::Code(4))), Ok(()));
        for lie in [
            normal(ExitStatus::Code(5)),
            normal(KILLED),
            normal(ExitStatus::Unknown),
            exit(ExitStatus::Code(4), ExitReason::Normal, false),
            exit(KILLED, by_us(true), true),
            exit(KILLED, ExitReason::OutOfMemory, true),
            exit(ExitStatus::Unknown, failed(StartFailureKind::RuntimeBroken), false),
            exit(ExitStatus::Unknown, ExitReason::Lost, true),
        ] {
            assert!(alone.judge(&lie).is_err(), "{lie:?}");
        }
        let cancelled = Done { cancelled: true, program: Program::Sleep, ..alone };
        assert_eq!(cancelled.judge(&exit(KILLED, by_us(true), true)), Ok(()));
        assert_eq!(cancelled.judge(&exit(ExitStatus::Unknown, by_us(false), false)), Ok(()));
        for lie in [
            normal(KILLED),
            exit(ExitStatus::Code(0), by_us(true), true),
            exit(KILLED, by_us(true), false),
            exit(ExitStatus::Unknown, by_us(true), false),
        ] {
            assert!(cancelled.judge(&lie).is_err(), "{lie:?}");
        }
        let held = Done { terminal: true, ..cancelled };
        assert_eq!(held.judge(&exit(KILLED, by_us(true), false)), Ok(()));
        assert!(held.judge(&exit(ExitStatus::Code(0), by_us(true), false)).is_err());
    }
}
