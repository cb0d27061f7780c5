//! What the command says beside a failure and beside how the program ended.

use std::fmt;

/// A sentence on stderr: what is not as it should be, and what to do.
#[cfg_attr(test, derive(strum::EnumCount))]
pub(crate) enum Remark {
    /// Output of the program could not be written.
    OutputLost { why: String },
    /// Stdout or stderr was closed from the beginning.
    OutputClosed,
    /// Its reader was not waited for any longer.
    OutputNotRead,
    /// Something of the container's could not be removed.
    Left { what: String },
    /// A sweep could not remove something.
    LeftBySweep { what: String },
    /// The collector of spans did not take all.
    #[cfg_attr(not(any(feature = "otlp", test)), expect(dead_code, reason = "only with the feature otlp"))]
    SpansLost { why: String },
    /// A check of the doctor's has failed.
    Doctor { check: &'static str, what: String, remedy: &'static str },
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutputLost { why } => {
                write!(f, "output of the program is lost: {why}; free some space or memory")
            }
            Self::OutputClosed => f.write_str(
                "output of the program is lost: stdout or stderr is closed; send it to a file, or to /dev/null",
            ),
            Self::OutputNotRead => f.write_str(
                "output of the program is lost: its reader has not read it; read it, or write it to a file",
            ),
            Self::Left { what } => write!(f, "{what}: could not be removed; `longshore sweep` tries again"),
            Self::LeftBySweep { what } => {
                write!(f, "{what}: could not be removed; look who uses it and sweep again")
            }
            Self::SpansLost { why } => {
                write!(f, "not all spans could be sent: {why}; check the collector that --otlp names")
            }
            Self::Doctor { check, what, remedy } => {
                write!(f, "containers cannot be run here: {check}: {what}; {remedy}")
            }
        }
    }
}
