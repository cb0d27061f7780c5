//! A container: its init, the processes exec'd into it, where it is held, and the order of its events.
//!
//! ```text
//!       Create            Prepared               InitCreated           Start, ProcessStarted
//!  New ────────▶ Preparing ───────▶ Creating ───────────────▶ Created ─────▶ Starting ─────▶ Running
//!                    │  └─ Start came, no terminal ───────────────────────────▲               (thawed ◀──▶ frozen)
//!                    │ init ended        │ init ended           │ init ended  │ init ended    │ init ended
//!                    ▼                   ▼                      ▼             ▼               ▼
//!                 Exiting: execs are withdrawn or killed, and waited for; without a pid namespace the rest is killed
//!                    │ nothing is left of it: `Exited` is published
//!                    ▼
//!                 Exited: held while it is kept, or its bundle is still being made
//!                    │ Remove, Tick, Prepared, PrepareFailed
//!                    ▼
//!                 Releasing ── ReleaseEnded ──▶ Released
//! ```
//! A caller that runs a container sends `Create` and `Start` at once: the container is then not held at created. `Exited`
//! is published when init and every exec have ended; it does not wait for the release. An exec that comes before the
//! container runs is parked, and launched once it runs.
//!
//! Neighbours: the `Container` actor feeds this machine. The [`process`](crate::process) machine of each process reports to
//! it. The [`registry`](crate::registry) frees its id.
//!
//! | file | holds |
//! |---|---|
//! | `vocabulary` | events, effects, and the phases that a caller sees |
//! | `start` | from the bundle to init running |
//! | `exec` | the processes exec'd into it |
//! | `freeze` | pause and resume |
//! | `request` | what a caller asks of a container that exists |
//! | `exit` | from init's end to the release |
//! | `oom` | kills of the OOM killer, each published once |
//! | `adopt` | what another executor has left |

mod adopt;
mod exec;
mod exit;
mod freeze;
mod oom;
mod request;
mod start;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};

pub use self::adopt::Inheritance;
pub use self::vocabulary::{ContainerEffect, ContainerEvent, ContainerTraits, KeepExited, Phase};

use crate::event::{Event, EventKind};
use crate::{ContainerId, Effects, ExecId, Exit, ProcessId, Refusal, Refused, Timestamp};

/// The machine of one container.
///
/// ```
/// # use executor_lifecycle::container::{Container, ContainerEffect, ContainerEvent, ContainerTraits};
/// # use executor_lifecycle::{ContainerId, Refusal, Refused, Timestamp};
/// let mut container = Container::new(ContainerId::new("c").unwrap(), ContainerTraits::default());
/// let effects = container.step(Timestamp::default(), ContainerEvent::Create)?;
/// let [ContainerEffect::Publish(registered), ContainerEffect::Prepare] = effects.as_slice() else { panic!() };
/// assert_eq!((registered.seq, container.state()), (1, "preparing"));
/// let refused = container.step(Timestamp::default(), ContainerEvent::Pause).unwrap_err();
/// assert_eq!((refused.reason, &*refused.state), (Refusal::NotRunning, "preparing"));
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    id: ContainerId,
    traits: ContainerTraits,
    state: State,
    execs: BTreeMap<ExecId, ExecState>,
    /// The number in the last exec id that this machine has generated.
    generated_exec_ids: u64,
    /// The sequence number of the last event.
    seq: u64,
    /// The bundle is being made: nothing can be released before that is over.
    is_preparing: bool,
    /// A caller wants the program to be executed.
    is_start_wanted: bool,
    is_cancelled: bool,
    /// Something in it was killed while the runtime was freezing it: it is thawed as soon as it is frozen.
    is_thaw_wanted: bool,
    /// How many kills of the OOM killer were published.
    oom_kills: u64,
    /// How many of them were of an unknown process, and no exit has explained yet.
    oom_unnamed: u64,
    /// The processes alive whose kill was published.
    oom_killed: BTreeSet<ProcessId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    New,
    Preparing,
    Creating,
    Created,
    Starting,
    Running {
        freeze: Freeze,
    },
    Exiting {
        exit: Exit,
        rest: Rest,
    },
    /// Its exit was published. It is held for as long as `kept` says, and while its bundle is still being made.
    Exited {
        exit: Exit,
        kept: Kept,
    },
    Releasing {
        exit: Exit,
    },
    Released {
        exit: Exit,
    },
}

/// The processes that do not end with init, because the container has no pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rest {
    /// There are none, or nothing was done about them yet.
    Unasked,
    /// They are being killed.
    Ending,
    /// None is left.
    Ended,
}

/// How long a container that has exited is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kept {
    /// It is not kept.
    No,
    Until(Timestamp),
    UntilRemoved,
}

/// How far the freezing of a running container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Freeze {
    Thawed,
    /// A caller wants it frozen. The freeze waits for execs that are being started: they would hang in a frozen container.
    Awaited,
    Freezing,
    Frozen,
    Thawing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ExecState {
    /// The container does not run yet.
    Parked,
    /// The runtime is starting it.
    Launched,
    Running,
}

type Answer = Result<Vec<ContainerEffect>, Refusal>;

impl Container {
    /// A container of which nothing exists yet.
    pub const fn new(id: ContainerId, traits: ContainerTraits) -> Self {
        Self {
            id,
            traits,
            state: State::New,
            execs: BTreeMap::new(),
            generated_exec_ids: 0,
            seq: 0,
            is_preparing: false,
            is_start_wanted: false,
            is_cancelled: false,
            is_thaw_wanted: false,
            oom_kills: 0,
            oom_unnamed: 0,
            oom_killed: BTreeSet::new(),
        }
    }

    /// Whether its exit was published.
    pub const fn has_exited(&self) -> bool {
        matches!(&self.state, State::Exited { .. } | State::Releasing { .. } | State::Released { .. })
    }

    /// The name of its state, as in the diagram of `docs/message-semantics.md`.
    pub const fn state(&self) -> &'static str {
        match &self.state {
            State::New => "new",
            State::Preparing => "preparing",
            State::Creating => "creating",
            State::Created => "created",
            State::Starting => "starting",
            State::Running { freeze: Freeze::Thawed } => "running",
            State::Running { freeze: Freeze::Awaited | Freeze::Freezing } => "freezing",
            State::Running { freeze: Freeze::Frozen } => "frozen",
            State::Running { freeze: Freeze::Thawing } => "thawing",
            State::Exiting { rest: Rest::Ending, .. } => "ending_rest",
            State::Exiting { .. } => "exiting",
            State::Exited { .. } if self.is_preparing => "settling",
            State::Exited { .. } => "exited",
            State::Releasing { .. } => "releasing",
            State::Released { .. } => "released",
        }
    }

    /// When `Tick` is due next, if nothing else happens.
    pub const fn next_deadline(&self) -> Option<Timestamp> {
        match &self.state {
            State::Exited { kept: Kept::Until(until), .. } => Some(*until),
            State::Exited { kept: Kept::No | Kept::UntilRemoved, .. }
            | State::New
            | State::Preparing
            | State::Creating
            | State::Created
            | State::Starting
            | State::Running { .. }
            | State::Exiting { .. }
            | State::Releasing { .. }
            | State::Released { .. } => None,
        }
    }

    /// Takes one event.
    ///
    /// A `Cancel` after the end is satisfied already and has no effects. A completion that this state does not
    /// wait for is [`Refusal::Stale`]. The other refusals say why a request cannot be met.
    pub fn step(
        &mut self,
        now: Timestamp,
        event: ContainerEvent,
    ) -> Result<Effects<ContainerEffect>, Refused> {
        let from = self.state();
        self.take(now, event).map(Effects::from).map_err(|reason| reason.from_state(from))
    }

    fn take(&mut self, now: Timestamp, event: ContainerEvent) -> Answer {
        match event {
            ContainerEvent::Create => self.create(now),
            ContainerEvent::Start(terms) => self.start(terms),
            ContainerEvent::Prepared => self.prepared(),
            ContainerEvent::PrepareFailed(failure) => self.prepare_failed(failure),
            ContainerEvent::InitCreated { pid } => self.init_created(now, pid),
            ContainerEvent::ProcessStarted { process: ProcessId::Init, pid } => self.init_started(now, pid),
            ContainerEvent::ProcessStarted { process: ProcessId::Exec(exec), pid } => {
                self.exec_started(now, exec, pid)
            }
            ContainerEvent::ProcessExited { process: ProcessId::Init, exit } => self.init_exited(now, exit),
            ContainerEvent::ProcessExited { process: ProcessId::Exec(exec), exit } => {
                self.exec_exited(now, exec, exit)
            }
            ContainerEvent::OomKilled(kill) => self.oom_killed(now, kill),
            ContainerEvent::StillAlive(process) => self.still_alive(process),
            ContainerEvent::Exec(id) => self.exec(now, id),
            ContainerEvent::Cancel(cancel) => Ok(self.cancel(cancel)),
            ContainerEvent::End(cancel) => Ok(self.end(cancel)),
            ContainerEvent::Remove => self.remove(),
            ContainerEvent::Signal(signal, scope) => self.signal(signal, scope),
            ContainerEvent::Resize(_) if !self.traits.has_terminal => Err(Refusal::NoTerminal),
            ContainerEvent::Resize(size) => self.if_init_exists(ContainerEffect::ResizeInit(size)),
            ContainerEvent::Pause => self.pause(),
            ContainerEvent::Resume => self.resume(),
            ContainerEvent::PauseEnded { frozen } => self.pause_ended(now, frozen),
            ContainerEvent::ResumeEnded { thawed } => self.resume_ended(now, thawed),
            ContainerEvent::ListProcesses => self.if_created_or_running(ContainerEffect::ListProcesses),
            ContainerEvent::ReadUsage => self.if_created_or_running(ContainerEffect::ReadUsage),
            ContainerEvent::Update => self.if_created_or_running(ContainerEffect::Update),
            ContainerEvent::RemainingEnded => self.rest_ended(now),
            ContainerEvent::ReleaseEnded { left } => self.release_ended(now, left),
            ContainerEvent::Tick => Ok(self.tick(now)),
        }
    }

    fn publish(&mut self, at: Timestamp, kind: EventKind) -> ContainerEffect {
        ContainerEffect::Publish(self.event(at, kind))
    }

    fn event(&mut self, at: Timestamp, kind: EventKind) -> Event {
        self.seq += 1;
        Event::new(self.seq, self.id.clone(), at, kind)
    }
}
