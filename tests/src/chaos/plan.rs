//! What a seed comes to: the lives of containers, and what goes wrong in them.

use std::time::Duration;

use fastrand::Rng;
use longshore::{ExitStatus, Signal, SignalScope, Stdio};

/// What a process does, and so how it may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Ends with this code.
    Code(u8),
    /// Does nothing until it is ended.
    Sleep,
    /// Ends with 7 when it gets SIGTERM.
    Polite,
    /// Gives back what it reads.
    Cat,
    /// Writes a megabyte.
    Flood,
    /// Leaves children behind that hold its output, and ends with 3.
    Family,
    /// Uses more memory than it may.
    Hungry,
    /// Does not exist.
    Missing,
}

impl Program {
    /// What is executed.
    pub fn args(self) -> Vec<String> {
        let sh = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        match self {
            Self::Code(code) => sh(&format!("exit {code}")),
            Self::Sleep => vec!["sleep".into(), "1000".into()],
            Self::Polite => sh("trap 'exit 7' TERM; while :; do sleep 0.02; done"),
            Self::Cat => vec!["cat".into()],
            Self::Flood => sh("head -c 1000000 /dev/zero"),
            Self::Family => sh("setsid sleep 1000 & sleep 1000 & exit 3"),
            Self::Hungry => sh("exec tail /dev/zero"),
            Self::Missing => vec!["no-such-program".into()],
        }
    }

    /// How it ends when it is left alone.
    pub fn natural(self) -> Option<ExitStatus> {
        match self {
            Self::Code(code) => Some(ExitStatus::Code(code)),
            Self::Cat | Self::Flood => Some(ExitStatus::Code(0)),
            Self::Family => Some(ExitStatus::Code(3)),
            Self::Hungry => Some(ExitStatus::Signal(Signal::KILL)),
            Self::Sleep | Self::Polite | Self::Missing => None,
        }
    }

    fn any(rng: &mut Rng) -> Self {
        match rng.u8(0..20) {
            0..4 => Self::Code(rng.u8(..)),
            4..9 => Self::Sleep,
            9..11 => Self::Polite,
            11..14 => Self::Cat,
            14..16 => Self::Flood,
            16..18 => Self::Family,
            18 => Self::Hungry,
            _ => Self::Missing,
        }
    }
}

/// How a call of the runtime goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It hangs before it has done anything.
    Stalls,
    /// It does its work and hangs.
    StallsLate,
    /// It crashes at once.
    Crashes,
    /// It does its work and crashes.
    CrashesLate,
    /// It does nothing and says that all is well.
    SaysDone,
    /// It does its work and says that it failed.
    SaysFailed,
}

const FAULTS: [(Fault, &str); 6] = [
    (Fault::Stalls, "sleep 1000"),
    (Fault::StallsLate, r#""$RUNC" "$@"; sleep 1000"#),
    (Fault::Crashes, "kill -SEGV $$"),
    (Fault::CrashesLate, r#""$RUNC" "$@"; kill -SEGV $$"#),
    (Fault::SaysDone, "exit 0"),
    (Fault::SaysFailed, r#""$RUNC" "$@"; exit 1"#),
];

/// The calls that can go wrong.
const CALLS: [&str; 4] = ["run", "exec", "pause", "resume"];

/// The faulty runtime, as a script around the real one, `$RUNC`: the container's id says which call of it
/// goes wrong, and how.
pub fn faulty_runtime() -> String {
    let faults = CALLS.iter().flat_map(|call| {
        FAULTS.iter().map(move |(fault, does)| format!("{call}:*-{call}-{fault:?}*) {does};;\n"))
    });
    let faults: String = faults.collect();
    format!(
        "for word in \"$@\"; do case $word in run|exec|pause|resume) call=$word; break;; esac; done\n\
         case \"$call:$*\" in\n{faults}esac\nexec \"$RUNC\" \"$@\"\n"
    )
}

/// One thing that is done to a process.
#[derive(Clone, Debug)]
pub enum Act {
    /// A process is added.
    Exec(Life),
    /// A signal is sent.
    Signal(Signal, SignalScope),
    /// The container is frozen for a while.
    Pause(Duration),
    /// Its processes are listed, and it is looked up by its id.
    Look,
    /// Its terminal gets another size.
    Resize,
}

/// How a process is parted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its end is waited for, and it is cancelled when it has none of its own.
    Wait,
    /// It is cancelled with this grace.
    Cancel(Duration),
    /// The same twice.
    CancelTwice(Duration),
    /// The future that asks for it is dropped after this time, answered or not.
    Dropped(Duration),
}

/// What is made of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Nothing: it goes nowhere.
    None,
    /// All of it is read.
    All,
    /// A little is read now and then, and then no more.
    Slow,
    /// The pipe is dropped at once.
    Drops,
    /// Readers come and go.
    Attaches,
}

impl Reader {
    /// Where the output goes.
    pub fn stdio(self) -> Stdio {
        match self {
            Self::None => Stdio::Null,
            Self::All | Self::Slow | Self::Drops => Stdio::Pipe,
            Self::Attaches => Stdio::Shared { replay: 64 << 10 },
        }
    }
}

/// The life of a process, container or exec.
#[derive(Clone, Debug)]
pub struct Life {
    /// What it does.
    pub program: Program,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// What is made of its output.
    pub reader: Reader,
    /// What is done to it, each after a pause.
    pub acts: Vec<(Duration, Act)>,
    /// How it is parted from.
    pub end: End,
}

/// A container's life, and which call of the runtime goes wrong for it.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its id; says what goes wrong.
    pub id: String,
    /// The life of its init.
    pub life: Life,
    /// What goes wrong in which call.
    pub fault: Option<(&'static str, Fault)>,
}

impl Container {
    /// The container that is `number`th in the plan of `rng`.
    pub fn any(rng: &mut Rng, prefix: &str, number: u64) -> Self {
        let fault = (rng.u8(0..5) == 0).then(|| (CALLS[rng.usize(..4)], FAULTS[rng.usize(..6)].0));
        let named = fault.map(|(call, fault)| format!("-{call}-{fault:?}")).unwrap_or_default();
        Self { id: format!("{prefix}-{number}{named}"), life: Life::any(rng, true), fault }
    }
}

impl Life {
    fn any(rng: &mut Rng, container: bool) -> Self {
        let terminal = rng.u8(0..10) == 0;
        let acts = (0..rng.usize(0..5)).map(|_| (short(rng, 20), Act::any(rng, container))).collect();
        let end = match rng.u8(0..8) {
            0..3 => End::Wait,
            3..6 => End::Cancel(short(rng, 40)),
            6 => End::CancelTwice(short(rng, 40)),
            _ => End::Dropped(short(rng, 60)),
        };
        let readers = [Reader::None, Reader::All, Reader::All, Reader::Slow, Reader::Drops, Reader::Attaches];
        let reader = readers[rng.usize(..readers.len())];
        let program = Program::any(rng);
        // On a terminal there is no end of input.
        let terminal = terminal && program != Program::Cat;
        Self { program, terminal, reader, acts, end }
    }
}

impl Act {
    /// Only a container's init is given processes and is frozen.
    fn any(rng: &mut Rng, container: bool) -> Self {
        match rng.u8(if container { 0..10 } else { 6..10 }) {
            0..4 => Self::Exec(Life::any(rng, false)),
            4 => Self::Pause(short(rng, 30)),
            5 => Self::Look,
            6 => Self::Resize,
            _ => {
                let signals = [Signal::USR1, Signal::HUP, Signal::TERM, Signal::INT, Signal::KILL];
                let scopes = [SignalScope::Process, SignalScope::Group, SignalScope::Container];
                Self::Signal(signals[rng.usize(..5)], scopes[rng.usize(..3)])
            }
        }
    }
}

/// A time from nothing to `most` milliseconds.
fn short(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_micros(rng.u64(0..=most * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_again() {
        let plan = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..50).map(|number| format!("{:?}", Container::any(&mut rng, "c", number))).collect::<Vec<_>>()
        };
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }
}
