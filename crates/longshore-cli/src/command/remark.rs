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
    /// Input of the program could not be read.
    InputLost { why: String },
    /// Events could not be written.
    EventsLost { why: String },
    /// The end of everything is not waited for.
    Stuck,
    /// Something of the container's could not be removed.
    Left { what: String },
    /// A sweep could not remove something.
    LeftBySweep { what: String },
    /// Stderr was read too slowly for the log.
    LogLost { lines: usize },
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
            Self::InputLost { why } => write!(
                f,
                "input of the program is lost: stdin: {why}; give it a file or a pipe that can be read, or leave out -i"
            ),
            Self::EventsLost { why } => write!(f, "events are lost: {why}; free some space, or name another file with --events"),
            Self::Stuck => f.write_str("what the container has could not be removed in time: a file system may not answer; `longshore sweep` removes it"),
            Self::Left { what } => write!(f, "{what}: could not be removed; `longshore sweep` tries again"),
            Self::LeftBySweep { what } => {
                write!(f, "{what}: could not be removed; look who uses it and sweep again")
            }
            Self::LogLost { lines } => {
                let are = if *lines == 1 { "line of the log is" } else { "lines of the log are" };
                write!(
                    f,
                    "{lines} {are} lost, because stderr was not read in time; ask for less with LONGSHORE_LOG, or send stderr to a file"
                )
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
