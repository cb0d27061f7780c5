//! Exit codes and sentences: what a shell and a person are told of an end.
//!
//! The program's own code; 128+n when signal n ended it; 124 when its time was over; 125 when
//! Longshore failed; 126 when the program cannot be executed; 127 when there is none.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use longshore::{
    Error, Exit, ExitReason, ExitStatus, RuntimeError, Signal, StartFailure, StartFailureKind, with_causes,
};

pub(crate) const TIMED_OUT: u8 = 124;
pub(crate) const OUR_FAILURE: Code = Code(125);
const NOT_EXECUTABLE: Code = Code(126);
const NOT_FOUND: Code = Code(127);

/// An exit code of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u8);

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.0)
    }
}

/// Something that went wrong, in one sentence: the cause, then what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) cause: String,
    pub(crate) remedy: &'static str,
    pub(crate) code: Code,
}

impl Failure {
    /// A failure of ours.
    pub(crate) fn new(cause: impl Into<String>, remedy: &'static str) -> Self {
        Self { cause: cause.into(), remedy, code: OUR_FAILURE }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.remedy)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let remedy = match &error {
            Error::InvalidSpec(_) => "see `longshore run --help`",
            Error::InvalidId(_) | Error::IdTaken { .. } => "choose another --id",
            Error::Runtime(RuntimeError::NoRuntime { .. }) => {
                "install runc, or name a runtime with --runtime (`longshore doctor` checks the rest)"
            }
            Error::Runtime(RuntimeError::Root { .. }) => "name a directory you may write to with --root",
            Error::Runtime(
                RuntimeError::NotRunning { .. }
                | RuntimeError::Unsupported { .. }
                | RuntimeError::Refused { .. }
                | RuntimeError::TimedOut { .. }
                | RuntimeError::Failed { .. },
            )
            | Error::NotFound { .. }
            | Error::NoProcess { .. }
            | Error::Refused { .. }
            | Error::NotStarted { .. }
            | Error::NotReady(_)
            | Error::Pipe(_)
            | Error::NoOutput { .. }
            | Error::Thread(_)
            | Error::ShuttingDown
            | Error::Stopped => "`longshore doctor` checks what containers need",
        };
        Self::new(with_causes(&error), remedy)
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        Error::from(error).into()
    }
}

impl From<StartFailure> for Failure {
    fn from(StartFailure { kind, message, .. }: StartFailure) -> Self {
        let (code, remedy) = match kind {
            StartFailureKind::NotFound => (NOT_FOUND, "check its name, or bring it in with -v"),
            StartFailureKind::NotExecutable => {
                (NOT_EXECUTABLE, "name a program or a script that can be executed")
            }
            StartFailureKind::BadConfig => (OUR_FAILURE, "correct that option"),
            StartFailureKind::IdTaken => {
                (OUR_FAILURE, "choose another --id (`longshore sweep` frees those of dead executors)")
            }
            StartFailureKind::PermissionDenied => (OUR_FAILURE, "run as root, with the rights to do that"),
            StartFailureKind::NoResources => {
                (OUR_FAILURE, "free some memory, disk, files or pids, or raise the limit")
            }
            StartFailureKind::RuntimeTimedOut => (OUR_FAILURE, "`longshore doctor` checks the runtime"),
            StartFailureKind::ContainerGone => (OUR_FAILURE, "start it anew"),
            StartFailureKind::RuntimeBroken | _ => {
                (OUR_FAILURE, "`longshore doctor` checks what containers need")
            }
        };
        Self { cause: message, remedy, code }
    }
}

/// What `run` was asked for, as far as the end is judged by it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) timeout: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) memory: Option<u64>,
    /// The signal that made us cancel.
    pub(crate) interrupted: Option<Signal>,
}

/// The exit code for an end, and the sentence if there is one to say: none when only the program failed.
pub(crate) fn of(exit: Exit, asked: &Asked) -> (Code, Option<String>) {
    let grace = humantime::format_duration(asked.grace);
    let own = if exit.success { Code(0) } else { program(exit.status, asked) };
    match exit.reason {
        ExitReason::Normal => (own, None),
        ExitReason::StartFailed(failure) => {
            let failure = Failure::from(failure);
            (failure.code, Some(failure.to_string()))
        }
        ExitReason::TimedOut { killed } => {
            let after = humantime::format_duration(asked.timeout.unwrap_or_default());
            let how = match (killed, exit.started_at) {
                (_, None) => "before the program ran".to_owned(),
                (false, Some(_)) => "and the program was ended with SIGTERM".to_owned(),
                (true, Some(_)) => format!("and the program was killed, {grace} after SIGTERM"),
            };
            (
                Code(TIMED_OUT),
                Some(format!("the timeout of {after} was over, {how}; give it more with --timeout")),
            )
        }
        ExitReason::Cancelled { killed: true, .. } if exit.status == ExitStatus::Signal(Signal::KILL) => (
            own,
            Some(format!(
                "the program did not end by SIGTERM and was killed; --grace {grace} gives it more time"
            )),
        ),
        ExitReason::Cancelled { .. } => (own, None),
        ExitReason::OutOfMemory => {
            let limit =
                asked.memory.map(|bytes| format!(" at its limit of {} MiB", bytes >> 20)).unwrap_or_default();
            (own, Some(format!("out of memory: the kernel killed the program{limit}; raise --memory")))
        }
        ExitReason::Lost | _ => {
            let cause = "nobody saw how the program ended: something else has waited for it";
            (OUR_FAILURE, Some(format!("{cause}; `longshore doctor` checks what containers need")))
        }
    }
}

/// As a shell would say it.
fn program(status: ExitStatus, asked: &Asked) -> Code {
    match (status, asked.interrupted) {
        (ExitStatus::Code(code), _) => Code(code),
        (ExitStatus::Signal(signal), _) | (ExitStatus::Unknown, Some(signal)) => Code(128 + signal.number()),
        (ExitStatus::Unknown, None) => OUR_FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use longshore::{CancelCause, Timestamp};

    fn ended(status: ExitStatus, reason: ExitReason) -> (u8, bool) {
        let at = Timestamp::default();
        let exit = Exit::new(status, reason, &BTreeSet::new(), Some(at), at);
        let (code, sentence) = of(exit, &Asked { interrupted: Some(Signal::INT), ..Asked::default() });
        (code.0, sentence.is_some())
    }

    #[test]
    fn codes_are_what_a_shell_expects() {
        let kill = ExitStatus::Signal(Signal::KILL);
        let unknown = ExitStatus::Unknown;
        let failed = |kind| ExitReason::StartFailed(StartFailure::new(kind, "x"));
        let cancelled = |killed| ExitReason::Cancelled { cause: CancelCause::Requested, killed };
        for (status, reason, expected) in [
            (ExitStatus::Code(0), ExitReason::Normal, (0, false)),
            (ExitStatus::Code(255), ExitReason::Normal, (255, false)),
            (kill, ExitReason::Normal, (137, false)),
            (kill, ExitReason::OutOfMemory, (137, true)),
            (ExitStatus::Code(3), cancelled(false), (3, false)),
            (kill, cancelled(true), (137, true)),
            (unknown, cancelled(false), (130, false)),
            (ExitStatus::Code(0), ExitReason::TimedOut { killed: false }, (124, true)),
            (unknown, failed(StartFailureKind::NotFound), (127, true)),
            (unknown, failed(StartFailureKind::NotExecutable), (126, true)),
            (unknown, failed(StartFailureKind::RuntimeBroken), (125, true)),
            (unknown, ExitReason::Lost, (125, true)),
        ] {
            assert_eq!(ended(status, reason.clone()), expected, "{status:?} {reason:?}");
        }
    }
}
