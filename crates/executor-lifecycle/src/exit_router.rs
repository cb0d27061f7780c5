//! Which exit belongs to whom.
//!
//! ```text
//!            Watch                     Ended
//!  unknown ────────▶ watched ────────────────▶ delivered
//!     │                                            ▲
//!     └─ Ended ─▶ kept: it came early ── Watch ────┘
//! ```
//! The exit source may see a process end before the actor in charge has asked for the exit; such an
//! end is kept until it does. `Forget` drops what nobody will ask for any more. Neighbours: the
//! `Reaper` actor feeds it from the exit source; `Process` actors are delivered to.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ContainerId, Effects, ExitStatus, ProcessRef, RawExit, Refusal, Refused};

/// The machine that routes exits.
///
/// ```
/// # use executor_lifecycle::exit_router::{ExitRouter, ExitRouterEffect, ExitRouterEvent};
/// # use executor_lifecycle::{ContainerId, RawExit, ExitStatus, ProcessRef, Refused};
/// let process = ProcessRef::init(ContainerId::new("c").unwrap());
/// let raw = RawExit::with(ExitStatus::Code(0));
/// let mut router = ExitRouter::default();
/// // It ends before anybody has asked for it: the end is kept.
/// assert_eq!(router.step(ExitRouterEvent::Ended(process.clone(), raw.clone()))?.as_slice(), []);
/// let effects = router.step(ExitRouterEvent::Watch(process.clone()))?;
/// assert_eq!(effects.as_slice(), [ExitRouterEffect::Deliver(process, raw)]);
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExitRouter {
    watched: BTreeSet<ProcessRef>,
    early: BTreeMap<ProcessRef, RawExit>,
    /// Nothing tells ends any more.
    is_cut_off: bool,
}

/// What can happen to exits, and to those who wait for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExitRouterEvent {
    /// The end of this process is wanted.
    Watch(ProcessRef),
    /// The exit source saw this process end.
    Ended(ProcessRef, RawExit),
    /// Nothing of this container will be asked for any more.
    Forget(ContainerId),
    /// The exit source ended: whoever watches learns that nobody knows.
    SourceEnded,
}

/// What is to be done with exits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExitRouterEffect {
    /// Tell the one who watches. Comes once for each `Watch`.
    Deliver(ProcessRef, RawExit),
}

impl ExitRouter {
    /// Takes one event. A process is watched once at a time; another `Watch` is `Refused::Stale`, and
    /// so is an end that was seen before.
    pub fn step(&mut self, event: ExitRouterEvent) -> Result<Effects<ExitRouterEffect>, Refused> {
        match event {
            ExitRouterEvent::Watch(process) => match self.early.remove(&process) {
                Some(raw) => Ok(vec![ExitRouterEffect::Deliver(process, raw)].into()),
                None if self.is_cut_off => {
                    Ok(vec![ExitRouterEffect::Deliver(process, RawExit::with(ExitStatus::Unknown))].into())
                }
                None if self.watched.insert(process) => Ok(Effects::none()),
                None => Err(stale()),
            },
            ExitRouterEvent::Ended(process, raw) => {
                if self.watched.remove(&process) {
                    return Ok(vec![ExitRouterEffect::Deliver(process, raw)].into());
                }
                match self.early.contains_key(&process) {
                    true => Err(stale()),
                    false => {
                        self.early.insert(process, raw);
                        Ok(Effects::none())
                    }
                }
            }
            ExitRouterEvent::Forget(container) => {
                let all = || ProcessRef::all_of(&container);
                let watched: Vec<_> = self.watched.range(all()).cloned().collect();
                let early: Vec<_> = self.early.range(all()).map(|(process, _)| process.clone()).collect();
                for process in watched.iter().chain(&early) {
                    self.watched.remove(process);
                    self.early.remove(process);
                }
                Ok(Effects::none())
            }
            ExitRouterEvent::SourceEnded => {
                self.is_cut_off = true;
                let unknown = || RawExit::with(ExitStatus::Unknown);
                let watched = std::mem::take(&mut self.watched).into_iter();
                let told = watched.map(|process| ExitRouterEffect::Deliver(process, unknown()));
                Ok(told.collect::<Vec<_>>().into())
            }
        }
    }

    /// How many processes are watched, and how many ends are kept for a `Watch` to come.
    pub fn sizes(&self) -> (usize, usize) {
        (self.watched.len(), self.early.len())
    }
}

fn stale() -> Refused {
    Refusal::Stale.from_state("routing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExecId;

    fn init() -> ProcessRef {
        ProcessRef::init(ContainerId::new("c").unwrap())
    }

    fn ending(code: u8) -> RawExit {
        RawExit::with(ExitStatus::Code(code))
    }

    fn deliver(code: u8) -> Result<Effects<ExitRouterEffect>, Refused> {
        Ok(vec![ExitRouterEffect::Deliver(init(), ending(code))].into())
    }

    /// Every state (unknown, watched, kept; and without a source) × every event.
    #[test]
    fn every_state_and_event() {
        let unknown = ExitRouter::default();
        let mut watched = ExitRouter::default();
        let _ = watched.step(ExitRouterEvent::Watch(init())).unwrap();
        let mut kept = ExitRouter::default();
        let _ = kept.step(ExitRouterEvent::Ended(init(), ending(1))).unwrap();

        let mut cut_off = ExitRouter::default();
        let _ = cut_off.step(ExitRouterEvent::SourceEnded).unwrap();

        let none = || Ok(Effects::none());
        let unknown_end =
            || Ok(vec![ExitRouterEffect::Deliver(init(), RawExit::with(ExitStatus::Unknown))].into());
        for (state, event, answer, sizes) in [
            (&unknown, ExitRouterEvent::Watch(init()), none(), (1, 0)),
            (&unknown, ExitRouterEvent::Ended(init(), ending(2)), none(), (0, 1)),
            (&unknown, ExitRouterEvent::Forget(init().container), none(), (0, 0)),
            (&watched, ExitRouterEvent::Watch(init()), Err(stale()), (1, 0)),
            (&watched, ExitRouterEvent::Ended(init(), ending(2)), deliver(2), (0, 0)),
            (&watched, ExitRouterEvent::Forget(init().container), none(), (0, 0)),
            (&kept, ExitRouterEvent::Watch(init()), deliver(1), (0, 0)),
            (&kept, ExitRouterEvent::Ended(init(), ending(2)), Err(stale()), (0, 1)),
            (&kept, ExitRouterEvent::Forget(init().container), none(), (0, 0)),
            (&unknown, ExitRouterEvent::SourceEnded, none(), (0, 0)),
            (&watched, ExitRouterEvent::SourceEnded, unknown_end(), (0, 0)),
            (&kept, ExitRouterEvent::SourceEnded, none(), (0, 1)),
            (&cut_off, ExitRouterEvent::Watch(init()), unknown_end(), (0, 0)),
            (&cut_off, ExitRouterEvent::Ended(init(), ending(2)), none(), (0, 1)),
        ] {
            let mut router = state.clone();
            assert_eq!(
                (router.step(event.clone()), router.sizes()),
                (answer, sizes),
                "{state:?} × {event:?}"
            );
        }
    }

    #[test]
    fn processes_of_one_container_and_others_are_kept_apart() {
        let mut router = ExitRouter::default();
        let exec = ProcessRef::exec(init().container, ExecId::numbered(1));
        let other = ProcessRef::init(ContainerId::new("d").unwrap());
        for process in [&exec, &other] {
            let _ = router.step(ExitRouterEvent::Watch(process.clone())).unwrap();
        }
        assert_eq!(router.step(ExitRouterEvent::Ended(init(), ending(0))), Ok(Effects::none()));
        let _ = router.step(ExitRouterEvent::Forget(init().container)).unwrap();
        assert_eq!(router.sizes(), (1, 0));
    }
}
