//! Every message the actors exchange: who sends it, who receives it, what is replied, and what
//! happens when the receiver is gone.
//!
//! Commands are imperative, facts are past tense. The mailboxes of these actors are unbounded: a message enters at
//! once, and messages from one sender keep their order. A caller is held back by the reply that it waits for. Facts
//! that another actor depends on are sent so that their loss is noticed; the others are sent with `do_send`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::{Message, Recipient, WeakAddr};
use executor_lifecycle::process::{LaunchStep, ProcessTraits, Terms};
use executor_lifecycle::registry::RequestToken;
use executor_lifecycle::{
    ContainerId, Exit, HostPid, OomKill, ProcessId, ProcessRef, RawExit, Refused, SignalScope, StartFailure,
    TerminalSize, Timestamp, Usage,
};

use crate::actors::{Container, Process};
use crate::events::View;
use crate::exits::ExitRecipients;
use crate::io::{ChildStdio, Io, PipeEnds, SharedOutputs, Streams};
use crate::{ContainerSpec, Error, ExecSpec, Notice, Resources, RuntimeError, Samples, Snapshot};
use tokio::sync::watch;
use tracing::Span;

/// Register a container, create it, and start it unless it is to be held at created. From an
/// [`Executor`](crate::Executor) handle to the executor. The reply comes when the id is registered; for a container
/// that was kept ready, when it runs. If the executor has stopped, the caller gets [`Error::Stopped`].
#[derive(Message)]
#[rtype(result = "Result<RunAccepted, Error>")]
pub struct Run {
    pub(crate) spec: ContainerSpec,
    pub(crate) hold: bool,
    pub(crate) token: RequestToken,
    pub(crate) span: Span,
}

/// Keep `count` containers of this specification ready from now on. From a handle to the executor. The reply comes
/// when they are ready, or one could not be created.
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

/// Takes the containers that another executor has left, for their first handles. From a handle to the executor.
#[derive(Message)]
#[rtype(result = "Vec<RunAccepted>")]
pub struct TakeAdopted;

/// Stop, and let what runs run on. From a handle to the executor, which is kept.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Detach;

/// List every container. From a handle to the executor.
#[derive(Message)]
#[rtype(result = "Vec<Snapshot>")]
pub struct List;

/// Take no new containers. The reply comes when none is left. From a handle to the executor.
#[derive(Message)]
#[rtype(result = "Result<(), Error>")]
pub struct Drain;

/// Take no new containers and cancel all. From a handle to the executor. The reply comes when all are released, or at
/// the deadline with the ids of those that are not.
#[derive(Message)]
#[rtype(result = "Vec<ContainerId>")]
pub struct Shutdown {
    /// How the containers are cancelled.
    pub cancel: executor_lifecycle::Cancel,
    /// The time until the actors are stopped in any case.
    pub deadline: Duration,
}

/// Stop at once. From the task that drives the actors to the executor and its reaper, when a shutdown is over.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// The container has released everything. From a container to the executor, once: the executor frees the id and then
/// publishes `event`, the last one of the container. If the executor has stopped, there is no registry to clear.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Released {
    /// The container's last event.
    pub event: executor_lifecycle::Event,
}

/// The actor of a container ended without having released it, because it panicked. Sent from its `Drop` to the
/// executor, which releases the container and publishes the rest of its events. If the executor has stopped, closing
/// the runtime releases it.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ContainerLost(pub ContainerId);

/// Create the container and hold it at created. From the executor to a container, which makes the bundle and then
/// creates init. From a container to its init, which has the runtime create it. There is no reply; the sender owns
/// the receiver.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Create;

/// Start the program as soon as the container is created. From the executor or a handle to a container. The reply
/// comes when the request is accepted; it is refused if the container was started before, is cancelled, or has ended.
/// Without terms, those of the specification apply.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Refused>")]
pub struct Start(pub Option<Terms>);

/// Apply these terms; the time limit counts from now on. From a container to a process. There is no reply; the sender
/// owns the receiver.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Arm(pub Terms);

/// Start now. From a container to a process. There is no reply; the sender owns the receiver.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Launch;

/// The container will never run, so the process cannot start. From a container to a process that waits. There is no
/// reply; the sender owns the receiver.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Withdraw(pub StartFailure);

/// Release a container that has exited and is kept. From a handle to a container. The reply comes when the release
/// has begun; it is refused before the exit. If the actor of the container has ended, the request is satisfied.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), Refused>")]
pub struct Remove;

/// Cancel the container and do not keep it after its exit. From the executor, when it shuts down, to a container.
/// There is no reply; the sender owns the receiver.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct End(pub executor_lifecycle::Cancel);

/// Add a process. From a handle to a container. The reply comes when it is registered. If the container does not run
/// yet, the process waits and is started with it.
#[derive(Message)]
#[rtype(result = "Result<ProcessParts, Refused>")]
pub struct Exec {
    pub(crate) spec: ExecSpec,
    pub(crate) streams: ProcessStreams,
    pub(crate) token: RequestToken,
    pub(crate) span: Span,
}

/// Find a process that was exec'd, by its id: one that has not ended, or one of the last that have. From a handle to
/// a container.
#[derive(Message)]
#[rtype(result = "Option<ProcessParts>")]
pub struct FindProcess(pub executor_lifecycle::ExecId);

/// Cancel everything in a container, or one process. From a handle to either. The request is kept until the end; it
/// need not be repeated. After the end it is satisfied. If the receiver has ended, it is satisfied too, because an
/// actor outlives its processes.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Cancel(pub executor_lifecycle::Cancel);

/// Send a signal to the init of a container or to a process, and to the others that the scope includes. From a
/// handle, or from a container to its init. Before the start it is kept, in order; after the end it is refused.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), Refused>")]
pub struct Signal(pub executor_lifecycle::Signal, pub SignalScope);

/// Change the size of the terminal of the init of a container or of a process. From a handle, or from a container to
/// its init. Before the start the last size is kept; after the end, and without a terminal, it is refused.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), Refused>")]
pub struct Resize(pub TerminalSize);

/// The caller dropped the future of this request before the reply: cancel what it asked for. From the future of an
/// [`Executor::run`](crate::Executor::run) or an exec to the executor or the container, after the request. If the
/// request was refused, or never arrived, there is nothing to cancel.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Unclaimed(pub(crate) RequestToken);

/// Freeze every process. From a handle to a container. The reply comes when the runtime has frozen them.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct Pause;

/// Thaw every process. From a handle to a container. The reply comes when the runtime has thawed them.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct Resume;

/// List the host pids of all processes inside. From a handle to a container.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<HostPid>, RequestError>")]
pub struct ListProcesses;

/// Read what the container has used so far. From a handle to a container.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Usage, RequestError>")]
pub struct ReadUsage;

/// Change the limits. Absent fields keep their value. From a handle to a container, which has validated them. The
/// reply comes when the runtime has changed them. They are changed even if the sender does not wait for the reply.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct Update(pub Resources);

/// Sample the usage of the container until its end. From a handle to a container. The reply comes at once. If the
/// reader is slow, samples are left out.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Samples")]
pub struct SampleUsage {
    /// The time between two samples.
    pub every: Duration,
}

/// Send every event from now on to this actor, as a [`Notice`]. From a handle to a container, whose snapshot comes
/// first, or to the executor, for the events of all containers. The next notice is sent when the subscriber has
/// handled the former. A slow subscriber gets a [`Notice::Gap`]; if it has ended, the subscription ends.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Subscribe(pub Recipient<Notice>);

/// Init exists, and its program is not executed. From init to its container, at most once.
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

/// The OOM killer has killed a process of the container. From the executor, which has it from the exit source, to the
/// container. If the container's actor has ended, it is not published.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct OomKilled(pub(crate) OomKill);

/// A process was killed a while ago and has not ended: it may be frozen. From a process to its container, which thaws
/// and kills again. It is repeated while the process does not end.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct StillAlive(pub(crate) ProcessId);

/// The actor of a process ended before its process, because it panicked. Sent from its `Drop` to its container, which
/// starts another actor in its place. That one kills the process and reports its end.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ProcessLost(pub ProcessId);

/// Report the end of this process. From a process to the reaper. A later `Watch` of the same process replaces the
/// former.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Watch {
    /// Which process.
    pub process: ProcessRef,
    /// The receiver of [`Ended`].
    pub to: Recipient<Ended>,
}

/// The process has ended, as the kernel reports. From the reaper to the process that watches, once. If that actor has
/// ended, the reaper keeps it for the next `Watch`.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Ended(pub RawExit);

/// Forget the exits of this container, because it is released. From the executor to the reaper.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Forget(pub ContainerId);

/// The result of a create, a start or an exec. From the task that called the runtime to the process. If the process
/// actor has ended, it is sent to the container, for the actor that replaces it.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct LaunchEnded {
    pub(crate) process: ProcessId,
    pub(crate) asked: LaunchStep,
    pub(crate) answer: Result<HostPid, StartFailure>,
}

/// A request that the runtime carries out failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The state of the container does not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// The streams of a process that is to be started: the runtime's ends, and ours.
#[derive(Debug, Default)]
pub(crate) struct ProcessStreams {
    pub(crate) stdio: ChildStdio,
    pub(crate) ends: PipeEnds,
    pub(crate) shared: SharedOutputs,
}

/// The parts of a handle of a container. Only the executor keeps the actor alive.
#[derive(Clone)]
pub struct ContainerParts {
    pub(crate) address: WeakAddr<Container>,
    pub(crate) view: View,
    pub(crate) shared: SharedOutputs,
    pub(crate) spec: Arc<ContainerSpec>,
}

/// A container that was registered, for its first handle.
pub struct RunAccepted {
    pub(crate) id: ContainerId,
    pub(crate) parts: ContainerParts,
    pub(crate) ours: Streams,
}

/// The parts of a handle of a process. Only the container keeps the actor alive.
#[derive(Clone)]
pub struct ProcessParts {
    pub(crate) id: ProcessRef,
    pub(crate) address: WeakAddr<Process>,
    pub(crate) view: watch::Receiver<ProcessView>,
    pub(crate) exit_recipients: Weak<ExitRecipients>,
    /// Its outputs that are shared; of a process that another executor has left, also the ends of its pipes.
    pub(crate) io: Io,
}

/// The state of a process, for handles that wait for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessView {
    pub(crate) traits: ProcessTraits,
    /// The request to the runtime that is in flight. Its result comes to the actor that is there then.
    pub(crate) asked: Option<LaunchStep>,
    pub(crate) pid: Option<HostPid>,
    pub(crate) started_at: Option<Timestamp>,
    /// Its raw exit, as delivered to its actor, which may not have reported it yet.
    pub(crate) ended: Option<RawExit>,
    pub(crate) exit: Option<Exit>,
}
