//! Which exit belongs to which process.
//!
//! ```text
//!            Watch                     Ended
//!  unknown ────────▶ watched ────────────────▶ delivered
//!     │                                            ▲
//!     └─ Ended ─▶ kept: it came early ── Watch ────┘
//! ```
//! The exit source may see a process end before the process's actor has asked for the exit. Such an exit is kept until the
//! actor asks. `Forget` drops the exits of a container that has been released. Neighbours: the `Reaper` actor feeds this
//! machine from the exit source, and delivers exits to the `Process` actors.

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
/// // The process ends before its actor has asked for the exit: the exit is kept.
/// assert_eq!(router.step(ExitRouterEvent::Ended(process.clone(), raw.clone()))?.as_slice(), []);
/// let effects = router.step(ExitRouterEvent::Watch(process.clone()))?;
/// assert_eq!(effects.as_slice(), [ExitRouterEffect::Deliver(process, raw)]);
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExitRouter {
    watched: BTreeSet<ProcessRef>,
    /// The exits that came before their `Watch`.
    early: BTreeMap<ProcessRef, RawExit>,
    /// The exit source has ended: no exit comes any more.
    is_cut_off: bool,
}

/// What can happen to exits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExitRouterEvent {
    /// An actor asks for the exit of this process.
    Watch(ProcessRef),
    /// The exit source saw this process end.
    Ended(ProcessRef, RawExit),
    /// No actor will ask for an exit of this container any more.
    Forget(ContainerId),
    /// The exit source ended: every process that is watched, now or later, gets an unknown exit.
    SourceEnded,
}

/// What is to be done with exits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExitRouterEffect {
    /// Deliver the exit to the actor that asked for it. Comes once for each `Watch`.
    Deliver(ProcessRef, RawExit),
}

type Answer = Result<Vec<ExitRouterEffect>, Refused>;

impl ExitRouter {
    /// Takes one event. A process is watched once at a time: another `Watch` is [`Refusal::Stale`], and so is an exit that
    /// came before.
    pub fn step(&mut self, event: ExitRouterEvent) -> Result<Effects<ExitRouterEffect>, Refused> {
        let effects = match event {
            ExitRouterEvent::Watch(process) => self.watch(process)?,
            ExitRouterEvent::Ended(process, raw) => self.ended(process, raw)?,
            ExitRouterEvent::Forget(container) => self.forget(&container),
            ExitRouterEvent::SourceEnded => self.source_ended(),
        };
        Ok(effects.into())
    }

    fn watch(&mut self, process: ProcessRef) -> Answer {
        if let Some(raw) = self.early.remove(&process) {
            return Ok(vec![ExitRouterEffect::Deliver(process, raw)]);
        }
        if self.is_cut_off {
            return Ok(vec![unknown_exit(process)]);
        }
        if !self.watched.insert(process) {
            return Err(stale());
        }
        Ok(Vec::new())
    }

    fn ended(&mut self, process: ProcessRef, raw: RawExit) -> Answer {
        if self.watched.remove(&process) {
            return Ok(vec![ExitRouterEffect::Deliver(process, raw)]);
        }
        if self.early.contains_key(&process) {
            return Err(stale());
        }
        self.early.insert(process, raw);
        Ok(Vec::new())
    }

    fn forget(&mut self, container: &ContainerId) -> Vec<ExitRouterEffect> {
        let all = || ProcessRef::all_of(container);
        let watched: Vec<_> = self.watched.range(all()).cloned().collect();
        let early: Vec<_> = self.early.range(all()).map(|(process, _)| process.clone()).collect();
        for process in &watched {
            self.watched.remove(process);
        }
        for process in &early {
            self.early.remove(process);
        }
        Vec::new()
    }

    fn source_ended(&mut self) -> Vec<ExitRouterEffect> {
        self.is_cut_off = true;
        std::mem::take(&mut self.watched).into_iter().map(unknown_exit).collect()
    }

    /// How many processes are watched, and how many exits are kept for a `Watch` to come.
    pub fn sizes(&self) -> (usize, usize) {
        (self.watched.len(), self.early.len())
    }
}

fn unknown_exit(process: ProcessRef) -> ExitRouterEffect {
    ExitRouterEffect::Deliver(process, RawExit::with(ExitStatus::Unknown))
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
