//! The signals to this command while it has a container.
//!
//! | signal | what it does |
//! |---|---|
//! | INT, TERM, HUP | end the program, with grace; a second one kills it: see `ending` |
//! | any other that would end this command | is passed on to the program |
//! | WINCH | is passed on, unless the program has a terminal, which is resized |
//! | TSTP | stops the container and this command; CONT continues both: see `job` |
//! | TTIN, TTOU | are blocked: see [`block_those_of_terminals`] |
//! | STOP | stops this command alone |
//! | SEGV, BUS, FPE, ILL | are passed on if somebody has sent them; a fault of this command's own ends it: see `faults` |
//! | KILL, and such a fault | end it; the next executor removes the container |
//!
//! What was ignored when the command started stays ignored, as nohup(1) wants it.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::time::Duration;

use longshore::Signal;
use longshore::runtime::set_of_status;
use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{faults, job};

/// Those that end the program.
const ENDS: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

/// Others that end a process that does not handle them, and are never faults of its own.
const PASSED_ON: [Number; 14] = [
    Number::SIGQUIT,
    Number::SIGABRT,
    Number::SIGTRAP,
    Number::SIGSYS,
    Number::SIGUSR1,
    Number::SIGUSR2,
    Number::SIGALRM,
    Number::SIGSTKFLT,
    Number::SIGXCPU,
    Number::SIGXFSZ,
    Number::SIGVTALRM,
    Number::SIGPROF,
    Number::SIGIO,
    Number::SIGPWR,
];
/// Those too. Of 32 and 33, the C library makes use.
const REAL_TIME: std::ops::RangeInclusive<u8> = 34..=64;

/// A signal that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// The program is to end.
    End(Signal),
    /// It is for the program.
    PassOn(Signal),
    /// The container and this command are to stop.
    Stop,
    /// This command was stopped, and goes on.
    Continued,
}

impl From<Signal> for Received {
    fn from(signal: Signal) -> Self {
        const STOP: u8 = Number::SIGTSTP as u8;
        const CONTINUED: u8 = Number::SIGCONT as u8;
        match signal.number() {
            STOP => Self::Stop,
            CONTINUED => Self::Continued,
            _ if ENDS.contains(&signal) => Self::End(signal),
            _ => Self::PassOn(signal),
        }
    }
}

/// The signals, in the order in which they are received.
pub(crate) struct Signals {
    received: mpsc::Receiver<Signal>,
    /// Those that were looked at, and not handled.
    waiting: VecDeque<Signal>,
    ended: bool,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn listen(has_terminal: bool) -> io::Result<Self> {
        let ignored = ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        let resize = (!has_terminal).then_some(Number::SIGWINCH);
        let others = PASSED_ON.into_iter().chain(resize).map(|signal| signal as i32);
        let ends = ENDS.into_iter().map(|signal| i32::from(signal.number()));
        let (sender, receiver) = mpsc::channel(64);
        for number in ends.chain(others).chain(REAL_TIME.map(i32::from)) {
            let Some(name) = u8::try_from(number).ok().and_then(Signal::new) else { continue };
            if ignored & (1 << (number - 1)) != 0 {
                continue;
            }
            let mut stream = signal(SignalKind::from_raw(number))?;
            let sender = sender.clone();
            tokio::spawn(
                async move { while stream.recv().await.is_some() && sender.send(name).await.is_ok() {} },
            );
        }
        faults::listen(ignored, sender.clone())?;
        listen_as_job(ignored & (1 << (Number::SIGTSTP as i32 - 1)) == 0, sender)?;
        Ok(Self { received: receiver, waiting: VecDeque::new(), ended: false })
    }

    /// The next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Received {
        let signal = match self.waiting.pop_front() {
            Some(signal) => signal,
            None => match self.received.recv().await {
                Some(signal) => signal,
                None => return std::future::pending().await,
            },
        };
        let received = signal.into();
        self.ended |= matches!(received, Received::End(_));
        received
    }

    /// Whether SIGCONT has come since the last signal was received.
    pub(crate) async fn was_continued(&mut self) -> bool {
        // The tasks that listen are given time.
        tokio::time::sleep(Duration::from_millis(1)).await;
        while let Ok(signal) = self.received.try_recv() {
            self.waiting.push_back(signal);
        }
        self.waiting.iter().any(|signal| Received::from(*signal) == Received::Continued)
    }

    /// Whether one has come that ends the program, or a wait.
    pub(crate) fn have_ended(&self) -> bool {
        self.ended
    }

    /// Completes when the user has no patience any more: the program has ended, and nothing else can be meant.
    pub(crate) async fn hurry(&mut self) {
        loop {
            match self.next().await {
                Received::End(_) => return,
                Received::PassOn(signal) if signal.number() == Number::SIGQUIT as u8 => {
                    self.ended = true;
                    return;
                }
                Received::PassOn(_) | Received::Continued => {}
                Received::Stop => job::stop_alone(self).await,
            }
        }
    }
}

/// Listens for SIGTSTP, and for SIGCONT. If both have come, SIGTSTP was the first: the other order would have stopped nothing.
fn listen_as_job(can_stop: bool, sender: mpsc::Sender<Signal>) -> io::Result<()> {
    let listen = |number: Number| signal(SignalKind::from_raw(number as i32));
    let mut stop = can_stop.then(|| listen(Number::SIGTSTP)).transpose()?;
    let mut continued = listen(Number::SIGCONT)?;
    tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                biased;
                Some(_) = async { stop.as_mut()?.recv().await }, if stop.is_some() => Number::SIGTSTP,
                Some(()) = continued.recv() => Number::SIGCONT,
                else => return,
            };
            let Some(name) = u8::try_from(number as i32).ok().and_then(Signal::new) else { return };
            if sender.send(name).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// The set of ignored signals in a `/proc/PID/status`. The bit 0 is signal 1.
fn ignored(status: &str) -> u64 {
    set_of_status(status, "SigIgn:").unwrap_or(0)
}

/// Blocks SIGTTIN and SIGTTOU in this thread, and in those that it makes. The kernel sends them to a job in the background
/// that uses its terminal, and they stop all its threads: then a signal to the command, and the end of its container, would
/// wait until the job is in the foreground. A read fails instead. What writes or sets the terminal looks for itself whether
/// it may: see `background`.
pub(crate) fn block_those_of_terminals() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Number::SIGTTIN);
    signals.add(Number::SIGTTOU);
    Ok(signals.thread_block()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read() {
        assert_eq!(ignored("Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!(ignored(""), 0);
    }

    #[test]
    fn three_signals_end_the_program() {
        for (number, end) in [(1, true), (2, true), (15, true), (3, false), (10, false), (34, false)] {
            let signal = Signal::new(number).unwrap();
            assert_eq!(matches!(Received::from(signal), Received::End(_)), end, "{signal}");
        }
    }
}
