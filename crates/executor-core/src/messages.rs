//! Every message the actors exchange: who sends it, who receives it, what is replied, and what
//! happens when the receiver is gone.
//!
//! Commands are imperative, facts are past tense. Mailboxes of these actors are unbounded, so a
//! message enters at once and messages from one sender keep their order; a caller is held back by
//! the reply it waits for. Facts whose loss would be somebody's are sent so that it is noticed, the others with `do_send`.

use std::sync::Weak;
use std::time::Duration;

use actix::{Message, Recipient, WeakAddr};
use executor_lifecycle::process::{LaunchStep, ProcessTraits, Terms};
use executor_lifecycle::registry::RequestToken;
use executor_lifecycle::{
    ContainerId, Exit, HostPid, ProcessId, ProcessRef, RawExit, Refused, SignalScope, StartFailure,
    TerminalSize, Timestamp, Usage,
};

use crate::actors::{Container, Process};
use crate::events::View;
use crate::exits::ExitRecipients;
use crate::io::{ChildStdio, PipeEnds, SharedOutputs, Streams};
use crate::{ContainerSpec, Error, ExecSpec, Notice, Resources, RuntimeError, Samples, Snapshot};
use tokio::sync::watch;
use tracing::Span;

/// Register a container, have it made, and start it unless it is to be held at created. From an
/// [`Executor`](crate::Executor) handle to the executor; replied when the id is registered, for one that was kept ready
/// when it runs. With the executor gone, the caller gets [`Error::Stopped`].
#[derive(Message)]
#[rtype(result = "Result<RunAccepted, Error>")]
pub struct Run {
    pub(crate) spec: ContainerSpec,
    pub(crate) hold: bool,
    pub(crate) token: RequestToken,
    pub(crate) span: Span,
}

/// Keep so many containers of this specification ready from now on. From a handle to the executor; replied when they
/// are, or one could not be made.
#[derive(Message)]
#[rtype(result = "Result<(), Error>")]
pub struct Prepare {
    pub(crate) spec: ContainerSpec,
    pub(crate) count: usize,
}

/// Find a container by its id. From a handle to the executor.
#[derive(Message)]
#[rtype(result = "Option<ContainerParts>")]
pub struct Get(pub ContainerId);

/// Asks for the exit of the container with this id, or of the last one with this id that was released. The reply is
/// `None` while the container has not exited, and [`Error::NotFound`] if the executor knows no such container. From a handle
/// to the executor.
#[derive(Message)]
#[rtype(result = "Result<Option<Exit>, Error>")]
pub struct ExitOf(pub ContainerId);

/// List every container. From a handle to the executor.
#[derive(Message)]
#[rtype(result = "Vec<Snapshot>")]
pub struct List;

/// Take nothing new; reply when nothing is left. From a handle to the executor.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;

/// Take nothing new, end all, reply when all are released or the deadline has come with the ids
/// of those that are not. From a handle to the executor.
#[derive(Message)]
#[rtype(result = "Vec<ContainerId>")]
pub struct Shutdown {
    /// How the containers are ended.
    pub cancel: executor_lifecycle::Cancel,
    /// How long it may take.
    pub deadline: Duration,
}

/// Stop, whatever there is still to do. From what drives the executor's actors to the executor and its
/// reaper, when a shutdown is over.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// The container has given everything back. From a container to the executor, once: the executor frees the id and
/// then publishes `event`, the container's last. With the executor gone there is no registry to clear.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Released {
    /// The container's last event.
    pub event: executor_lifecycle::Event,
}

/// A container's actor ended without having released it: it panicked. Sent from its `Drop` to the
/// executor, which releases the container and publishes the rest of its events. With the executor gone, closing
/// the runtime does the same.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ContainerLost(pub ContainerId);

/// Be made, and be held at created. From the executor to a container: make the bundle, then create init. From a
/// container to its init: have the runtime create it. No reply; the receiver is owned by the sender.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Create;

/// Execute the program, as soon as that can be done. From the executor or a handle to a container. Replied when the
/// intent is kept; refused once it was started, cancelled, or has ended. The terms are those of the specification where none are
/// given.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Refused>")]
pub struct Start(pub Option<Terms>);

/// Your time counts from now on. From a container to a process. No reply; the receiver is owned by the sender.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Arm(pub Terms);

/// Start now. From a container to a process. No reply; the receiver is owned by the sender.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Launch;

/// The container will never be ready for you. From a container to a process that waits.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Withdraw(pub StartFailure);

/// Give back what is kept of a container that has exited. From a handle to a container. Replied when the release has
/// begun; refused before the exit. With the container gone it is satisfied.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), Refused>")]
pub struct Remove;

/// End everything in the container and keep nothing of it. From the executor, when it shuts down, to a container. No
/// reply; the receiver is owned by the sender.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct End(pub executor_lifecycle::Cancel);

/// Add a process. From a handle, or an actor of the embedder's, to a container. Replied when it is
/// registered; before the container runs it is parked and launched by the event.
#[derive(Message)]
#[rtype(result = "Result<ProcessParts, Refused>")]
pub struct Exec {
    pub(crate) spec: ExecSpec,
    pub(crate) streams: ProcessStreams,
    pub(crate) token: RequestToken,
    pub(crate) span: Span,
}

/// Find an exec'd process by its id: one that has not ended, or one of the last that have. From a handle to a container.
#[derive(Message)]
#[rtype(result = "Option<ProcessParts>")]
pub struct FindProcess(pub executor_lifecycle::ExecId);

/// End it. To a container: everything in it; to a process: that one. Replied when the intent is
/// kept; it needs no repetition. After the end it is satisfied already. With the receiver gone it is
/// satisfied too: actors outlive what they are in charge of.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Cancel(pub executor_lifecycle::Cancel);

/// Send a signal: to a container's init or to a process, and to those that the scope says. Before the
/// start it waits, in order; after the end it is refused.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), Refused>")]
pub struct Signal(pub executor_lifecycle::Signal, pub SignalScope);

/// Give the terminal another size: that of a container's init or of a process. Before the start the last
/// one asked for waits; after the end, and without a terminal, it is refused.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), Refused>")]
pub struct Resize(pub TerminalSize);

/// The request of this token was dropped before its answer came: what it asked for is cancelled. From a future of
/// [`Executor::run`](crate::Executor::run) or of an exec that was dropped, to the executor or the container,
/// after the request. Where the request was refused, or never arrived, there is nothing to cancel.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Unclaimed(pub(crate) RequestToken);

/// Freeze every process. From a handle to a container; replied when the runtime has.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct Pause;

/// Thaw every process. From a handle to a container; replied when the runtime has.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct Resume;

/// List the host pids of all processes inside. From a handle to a container.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<HostPid>, RequestError>")]
pub struct ListProcesses;

/// Read what it has used so far. From a handle to a container.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Usage, RequestError>")]
pub struct ReadUsage;

/// Change its limits. Absent fields keep their value. From a handle to a container, which has validated them; replied
/// when the runtime has changed them. The change is made even if the sender does not wait for the reply.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct Update(pub Resources);

/// Send me what it has used so far, so often, up to its end. From a handle to a container; replied at once. Who
/// reads slowly is sent less.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Samples")]
pub struct SampleUsage {
    /// From one sample to the next.
    pub every: Duration,
}

/// Send every event from now on to this actor, as a [`Notice`]: of a container after a snapshot, of all containers when
/// it is sent to the executor. From a handle. The next notice is sent when the subscriber has handled the former; a slow
/// one gets a [`Notice::Gap`], and the subscription of one that is gone ends.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Subscribe(pub Recipient<Notice>);

/// Init exists and waits for its program to be executed. From init to its container, at most once.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Created {
    /// Its pid on the host.
    pub pid: HostPid,
}

/// A process runs. From a process to its container, once.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Started {
    /// Which process of the container.
    pub process: ProcessId,
    /// Its pid on the host.
    pub pid: HostPid,
}

/// A process ended or could not be started. From a process to its container, exactly once.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Exited {
    /// Which process of the container.
    pub process: ProcessId,
    /// How and why.
    pub exit: Exit,
}

/// A process was killed a while ago and has not ended: something may be frozen. From a process to its container, which
/// thaws and kills again; repeated while it does not end.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct StillAlive(pub(crate) ProcessId);

/// A process's actor ended before its process had: it panicked. Sent from its `Drop` to its
/// container, which puts another in its place; that one kills the process and reports its end.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ProcessLost(pub ProcessId);

/// The end of this process is wanted. From a process to the reaper; a later `Watch` of the same
/// process takes the place of the former.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Watch {
    /// Which process.
    pub process: ProcessRef,
    /// Who is told, with [`Ended`].
    pub to: Recipient<Ended>,
}

/// The kernel says it ended. From the reaper to the process that watches, once. With that one gone
/// it is kept for the next `Watch`.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Ended(pub RawExit);

/// Nothing of this container will be asked for any more. From the executor to the reaper.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Forget(pub ContainerId);

/// The runtime's answer to a create, a start or an exec. From the task that asked it to the process; with that
/// one gone, to the container, for the process actor that takes its place.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct LaunchEnded {
    pub(crate) process: ProcessId,
    pub(crate) asked: LaunchStep,
    pub(crate) answer: Result<HostPid, StartFailure>,
}

/// Why a request that the runtime has to carry out was not met.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Its state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The runtime could not do it.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// The streams of a process to be: the runtime's ends, and ours.
#[derive(Debug, Default)]
pub(crate) struct ProcessStreams {
    pub(crate) stdio: ChildStdio,
    pub(crate) ends: PipeEnds,
    pub(crate) shared: SharedOutputs,
}

/// What a handle of a container is made of. The executor alone keeps the actor alive.
#[derive(Clone)]
pub struct ContainerParts {
    pub(crate) address: WeakAddr<Container>,
    pub(crate) view: View,
    pub(crate) shared: SharedOutputs,
}

/// A container that was registered, and what its first handle has of it.
pub struct RunAccepted {
    pub(crate) id: ContainerId,
    pub(crate) parts: ContainerParts,
    pub(crate) ours: Streams,
}

/// What a handle of a process is made of. The container alone keeps the actor alive.
#[derive(Clone)]
pub struct ProcessParts {
    pub(crate) id: ProcessRef,
    pub(crate) address: WeakAddr<Process>,
    pub(crate) view: watch::Receiver<ProcessView>,
    pub(crate) exit_recipients: Weak<ExitRecipients>,
    pub(crate) shared: SharedOutputs,
}

/// A process as those who wait for it see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessView {
    pub(crate) traits: ProcessTraits,
    /// What the runtime was asked for and has not answered: the answer comes, whichever actor is there to take it.
    pub(crate) asked: Option<LaunchStep>,
    pub(crate) pid: Option<HostPid>,
    pub(crate) started_at: Option<Timestamp>,
    /// How it ended, as delivered to its actor, which need not have reported it yet.
    pub(crate) ended: Option<RawExit>,
    pub(crate) exit: Option<Exit>,
}
