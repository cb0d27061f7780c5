//! Signals by number and name. The numbers are those of all architectures that Longshore runs on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A signal, by its number from 1 to 64. 64 is `SIGRTMAX`.
///
/// In JSON it is the number. A name, with or without `SIG`, can be read as well. Real-time signals are `RTMIN`, which is 34 as
/// in the C libraries, `RTMIN+1` to `RTMIN+30`, and `RTMAX-30` to `RTMAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "SignalForm", into = "u8")]
pub struct Signal(u8);

/// Numbers as in signal(7) for x86, arm and most others.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The real-time signals that the C libraries leave to programs.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Signal {
    /// Hang-up.
    pub const HUP: Self = Self(1);
    /// Interrupt, as from Ctrl-C.
    pub const INT: Self = Self(2);
    /// Kill; cannot be caught.
    pub const KILL: Self = Self(9);
    /// User-defined signal 1.
    pub const USR1: Self = Self(10);
    /// Request to terminate.
    pub const TERM: Self = Self(15);

    /// A signal by its number; `None` outside 1 to 64.
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            1..=64 => Some(Self(number)),
            _ => None,
        }
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Which processes get a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SignalScope {
    /// The process alone.
    #[default]
    Process,
    /// The process and its process group, if it leads one.
    Group,
    /// Every process in the container.
    Container,
}

/// A text that is not a signal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a signal: give a name such as TERM, SIGTERM or RTMIN+3, or a number from 1 to 64")]
pub struct InvalidSignal(String);

impl FromStr for Signal {
    type Err = InvalidSignal;

    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        let invalid = || InvalidSignal(text.to_owned());
        if let Ok(number) = text.parse::<u8>() {
            return Self::new(number).ok_or_else(invalid);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(number) = real_time(name) {
            return Ok(Self(number));
        }
        let index = NAMES.iter().position(|known| *known == name).ok_or_else(invalid)?;
        u8::try_from(index + 1).ok().and_then(Self::new).ok_or_else(invalid)
    }
}

/// Reads `RTMIN`, `RTMIN+3`, `RTMAX`, `RTMAX-3`.
fn real_time(name: &str) -> Option<u8> {
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        text => {
            text.strip_prefix(sign).filter(|digits| digits.bytes().all(|c| c.is_ascii_digit()))?.parse().ok()
        }
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(text), _) => RTMIN.checked_add(offset(text, '+')?),
        (None, Some(text)) => RTMAX.checked_sub(offset(text, '-')?),
        (None, None) => None,
    };
    number.filter(|number| (RTMIN..=RTMAX).contains(number))
}

/// A signal as it is read from JSON.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum SignalForm {
    Number(u8),
    Name(String),
}

impl TryFrom<SignalForm> for Signal {
    type Error = InvalidSignal;

    fn try_from(form: SignalForm) -> Result<Self, InvalidSignal> {
        match form {
            SignalForm::Number(number) => number.try_into(),
            SignalForm::Name(name) => name.parse(),
        }
    }
}

impl TryFrom<u8> for Signal {
    type Error = InvalidSignal;

    fn try_from(number: u8) -> Result<Self, InvalidSignal> {
        Self::new(number).ok_or_else(|| InvalidSignal(number.to_string()))
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 == RTMIN => f.write_str("SIGRTMIN"),
            None if self.0 > RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "signal {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for (text, signal) in
            [("TERM", Signal::TERM), ("sigkill", Signal::KILL), ("SIGUSR1", Signal::USR1), ("2", Signal::INT)]
        {
            assert_eq!(text.parse(), Ok(signal));
        }
        assert_eq!(Signal::HUP.to_string(), "SIGHUP");
        assert_eq!(Signal::new(31).map(|s| s.to_string()).as_deref(), Some("SIGSYS"));
        for number in 1..=64 {
            let signal = Signal::new(number).unwrap();
            let text = signal.to_string();
            assert_eq!(text.strip_prefix("signal ").unwrap_or(&text).parse(), Ok(signal));
        }
        assert_eq!(Signal::new(33).map(|s| s.to_string()).as_deref(), Some("signal 33"));
        for (text, number) in
            [("SIGRTMIN", 34), ("rtmin+3", 37), ("RTMAX-14", 50), ("RTMAX", 64), ("RTMAX-0", 64)]
        {
            assert_eq!(text.parse(), Ok(Signal(number)));
        }
        for bad in
            ["0", "65", "SIG", "", "TERMINATE", "-9", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMIN+", "RTMIN++1"]
        {
            assert!(bad.parse::<Signal>().is_err(), "{bad:?} was taken");
        }
    }
}
