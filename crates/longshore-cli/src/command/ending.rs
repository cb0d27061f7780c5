//! How signals to this command end the program. It decides only: `run` performs.
//!
//! ```text
//!  INT or HUP   ──▶ the same signal ──half of the grace──▶ TERM ──the other half──▶ KILL
//!  TERM         ──▶ TERM ──the grace──▶ KILL
//!  a second one ──▶ KILL at once
//! ```
//! `--stop-signal` takes the place of TERM to the program.

use std::time::{Duration, Instant};

use longshore::{Cancel, Signal};

/// How soon a request comes again that is one: once to the command and once to its process group, as timeout(1) sends it, or
/// as SIGTERM and SIGHUP together, as systemd's `SendSIGHUP=` does.
const SAME_REQUEST: Duration = Duration::from_millis(200);

/// What signals have asked for so far.
#[derive(Debug)]
pub(crate) struct Ending {
    /// How SIGTERM ends the program.
    asked: Cancel,
    first: Option<Signal>,
    last: Option<Instant>,
    /// When its signal follows another one.
    term_at: Option<Instant>,
    hurried: bool,
}

impl Ending {
    pub(crate) fn new(asked: Cancel) -> Self {
        Self { asked, first: None, last: None, term_at: None, hurried: false }
    }

    /// The first signal.
    pub(crate) fn first(&self) -> Option<Signal> {
        self.first
    }

    /// Whether a second signal has come, and the program is to be killed at once.
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurried
    }

    /// A signal has come that ends the program. Returns how.
    #[must_use]
    pub(crate) fn received(&mut self, signal: Signal, now: Instant) -> Option<Cancel> {
        if self.last.is_some_and(|at| now - at < SAME_REQUEST) {
            return None;
        }
        self.last = Some(now);
        self.hurried = self.first.is_some();
        self.first = self.first.or(Some(signal));
        let mut cancel = if self.hurried { Cancel::now() } else { self.asked };
        self.term_at = None;
        if !cancel.is_immediate() {
            if signal != Signal::TERM {
                cancel.signal = signal;
            }
            let is_another = cancel.signal != self.asked.signal;
            self.term_at = is_another.then(|| now.checked_add(cancel.grace / 2)).flatten();
        }
        Some(cancel)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.term_at
    }

    /// Returns the signal that is due.
    #[must_use]
    pub(crate) fn tick(&mut self, now: Instant) -> Option<Signal> {
        self.term_at.take_if(|at| *at <= now).map(|_due| self.asked.signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(4);

    #[test]
    fn a_signal_then_term_then_kill() {
        let now = Instant::now();
        for (signal, is_followed) in [(Signal::INT, true), (Signal::HUP, true), (Signal::TERM, false)] {
            let mut ending = Ending::new(Cancel::with_grace(GRACE));
            let cancel = ending.received(signal, now).unwrap();
            assert_eq!((cancel.signal, cancel.grace), (signal, GRACE));
            assert_eq!(ending.next_deadline(), is_followed.then(|| now + GRACE / 2), "{signal}");
            assert_eq!(ending.tick(now), None);
            assert_eq!(ending.tick(now + GRACE / 2), is_followed.then_some(Signal::TERM), "{signal}");
            assert_eq!((ending.next_deadline(), ending.tick(now + GRACE)), (None, None), "once");
            assert_eq!((ending.first(), ending.is_hurried()), (Some(signal), false));
        }
    }

    #[test]
    fn a_stop_signal_takes_the_place_of_term() {
        let now = Instant::now();
        let mut asked = Cancel::with_grace(GRACE);
        asked.signal = Signal::new(3).unwrap();
        let mut ending = Ending::new(asked);
        assert_eq!(ending.received(Signal::TERM, now), Some(asked));
        assert_eq!(ending.next_deadline(), None);
        let mut ending = Ending::new(asked);
        assert_eq!(ending.received(Signal::INT, now).unwrap().signal, Signal::INT);
        assert_eq!(ending.tick(now + GRACE / 2), Some(Signal::new(3).unwrap()));
    }

    #[test]
    fn a_second_signal_kills_unless_it_comes_with_the_first() {
        let now = Instant::now();
        for (first, second) in [(Signal::INT, Signal::INT), (Signal::TERM, Signal::HUP)] {
            let mut ending = Ending::new(Cancel::with_grace(GRACE));
            assert!(!ending.received(first, now).unwrap().is_immediate());
            assert_eq!(ending.received(second, now + SAME_REQUEST / 2), None);
            let cancel = ending.received(second, now + SAME_REQUEST).unwrap();
            assert!(cancel.is_immediate() && ending.is_hurried());
            assert_eq!(ending.next_deadline(), None);
        }
    }

    #[test]
    fn without_grace_it_is_killed_at_once() {
        let mut ending = Ending::new(Cancel::with_grace(Duration::ZERO));
        assert!(ending.received(Signal::HUP, Instant::now()).unwrap().is_immediate());
        assert_eq!(ending.next_deadline(), None);
        assert!(!ending.is_hurried());
    }
}
