//! The requests of a driver as futures.
//!
//! Every method enters its request into the host's queue before it returns, whether or not the future is
//! polled. A token pairs the request with its answer.

mod answers;
mod handles;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, OomKill, ProcessRef, Signal, SignalScope};
use executor_core::{
    BoxFuture, BoxStream, ChildFd, ChildStdio, Delivery, SIGNAL_DESCRIPTORS, check_free_descriptors,
};
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use futures::channel::oneshot;
use futures::{FutureExt, StreamExt, future, stream};
use tokio::signal::unix::{SignalKind, signal};

pub use self::answers::ClientSink;
use self::answers::{Pending, PendingAnswer, PendingAnswers, receive_answer};
use self::handles::exit_future;
pub use self::handles::{Adopted, Call, CallEnd, Ended};
use crate::local::LocalHost;
use crate::seam::{
    CallId, Command, Containers, Image, Members, Parent, ProcessEnd, ProcessHost, Request, StdioSource, Token,
};
use crate::{Error, Result, lock};

/// One driver's connection to a host. It closes with the last clone and the last [`Call`].
#[derive(Clone)]
pub struct HostClient {
    shared: Arc<Connection>,
}

struct Connection {
    host: Box<dyn ProcessHost>,
    pending: Arc<Pending>,
    /// The next token or call id.
    next: AtomicU64,
    /// Taken by the first call of [`HostClient::exits`].
    exits: Mutex<Option<UnboundedReceiver<(ProcessRef, ProcessEnd)>>>,
    /// Taken by the first call of [`HostClient::oom_kills`].
    oom_kills: Mutex<Option<UnboundedReceiver<(ContainerId, OomKill)>>>,
}

impl HostClient {
    /// A client of the host in this process.
    ///
    /// # Errors
    /// When the host's thread cannot be started.
    pub fn local() -> Result<Self> {
        Self::connect(|sink| LocalHost::connect(sink).map(|host| Box::new(host) as Box<dyn ProcessHost>))
            .map_err(Error::system("start the host's thread"))
    }

    /// A client of the host that `connect` makes. That host delivers its events to the given sink.
    ///
    /// # Errors
    /// When `connect` fails.
    pub fn connect(connect: impl FnOnce(ClientSink) -> io::Result<Box<dyn ProcessHost>>) -> io::Result<Self> {
        let ((exits, receiver), (oom_kills, kills)) = (unbounded(), unbounded());
        let answers = Mutex::new(Some(PendingAnswers::default()));
        let pending = Arc::new(Pending { answers, exits, oom_kills });
        let host = connect(ClientSink(Arc::clone(&pending)))?;
        let (exits, oom_kills) = (Mutex::new(Some(receiver)), Mutex::new(Some(kills)));
        let next = AtomicU64::new(0);
        Ok(Self { shared: Arc::new(Connection { host, pending, next, exits, oom_kills }) })
    }

    /// Executes a runtime.
    pub fn spawn(
        &self,
        mut command: Command,
        image: Option<(Image, OwnedFd)>,
        stdio: &ChildStdio,
    ) -> BoxFuture<'static, Result<Call>> {
        let mut fds = Vec::new();
        command.stdio = match stdio_sources(stdio, &mut fds) {
            Ok(sources) => sources,
            Err(error) => return future::ready(Err(Error::system("pass a stream on")(error))).boxed(),
        };
        command.image = image.map(|(image, fd)| Image { fd: push(&mut fds, fd), ..image });
        let call = CallId(self.number());
        let (spawned, ended) = (oneshot::channel(), oneshot::channel());
        self.register(|answers| {
            answers.spawned.insert(call, spawned.0);
            answers.call_exits.insert(call, ended.0);
        });
        let program = PathBuf::from(command.program.clone());
        self.shared.host.request(Request::Spawn { call, command }, fds);
        let (client, ended) = (self.clone(), exit_future(ended.1, ExitStatus::Unknown));
        async move {
            match receive_answer(spawned.1).await? {
                Ok((_, image)) => Ok(Call { id: call, image, ended, client }),
                Err(error) => Err(Error::File { op: "execute", path: program, source: error.into() }),
            }
        }
        .boxed()
    }

    /// Takes charge of a process that a runtime has started. Its exit is reported once the [`Adopted`] is
    /// dropped.
    pub fn adopt(
        &self,
        process: ProcessRef,
        pid: HostPid,
        parent: Parent,
        members: Members,
    ) -> BoxFuture<'static, Result<Adopted>> {
        let ended = oneshot::channel();
        self.register(|answers| {
            answers.process_exits.insert(process.clone(), ended.0);
            answers.unreported.insert(process.clone(), None);
        });
        let (named, (answer, adopted)) = (process.clone(), oneshot::channel());
        self.request_for(PendingAnswer::Adopted(answer), |token| Request::Adopt {
            token,
            process,
            pid,
            parent,
            members,
        });
        let unknown = ProcessEnd { status: ExitStatus::Unknown, oom: None, has_executed: None, at: None };
        let (ended, client) = (exit_future(ended.1, unknown), self.clone());
        async move {
            let adopted = receive_answer(adopted).await?.map_err(io::Error::from);
            let has_executed = adopted.map_err(Error::process("watch", pid))?;
            Ok(Adopted { process: named, ended, has_executed, reports: true, client })
        }
        .boxed()
    }

    /// Signals an adopted process, alone or with its group.
    pub fn signal(
        &self,
        process: ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) -> BoxFuture<'static, Result<Delivery>> {
        self.request_delivery("signal", |token| Request::Signal { token, process, signal, scope })
    }

    /// Signals every process in a container.
    pub fn signal_all(&self, members: Members, signal: Signal) -> BoxFuture<'static, Result<Delivery>> {
        self.request_delivery("signal", |token| Request::SignalAll { token, members, signal })
    }

    /// Sends SIGKILL to an adopted process, to its group, and to the processes of `everything`. Then thaws the
    /// freezers in these directories.
    pub fn kill(
        &self,
        process: ProcessRef,
        everything: Option<Members>,
        thaw: Vec<std::ffi::OsString>,
    ) -> BoxFuture<'static, Result<Delivery>> {
        self.request_delivery("kill", |token| Request::Kill { token, process, everything, thaw })
    }

    /// Thaws the freezers in these directories of a container, in all below them, and in our own above them.
    pub fn thaw(&self, dirs: Vec<std::ffi::OsString>) -> BoxFuture<'static, Result<()>> {
        self.request_named("thaw", |token| Request::Thaw { token, dirs })
    }

    /// Kills what a runtime has left half made, and the process with the pid `started` if it is in the
    /// container.
    pub fn end_unadopted(
        &self,
        members: Members,
        all: bool,
        started: Option<HostPid>,
    ) -> BoxFuture<'static, Result<()>> {
        self.request_named("end what a runtime has left", |token| Request::EndUnadopted {
            token,
            members,
            all,
            started,
        })
    }

    /// Has the host reap the processes that are in a container now, once they are its children and have exited.
    pub fn remember(&self, container: ContainerId, members: Members) {
        self.shared.host.request(Request::Remember { container, members }, Vec::new());
    }

    /// Kills what is in a container until nothing is left.
    pub fn end_all(
        &self,
        container: ContainerId,
        members: Members,
        thaw: Vec<std::ffi::OsString>,
        patience: Duration,
    ) -> BoxFuture<'static, Result<()>> {
        self.request_named("end a container", |token| Request::EndAll {
            token,
            container,
            members,
            thaw,
            patience,
        })
    }

    /// Forgets a container. No request may name it any more.
    pub fn forget(&self, container: ContainerId) {
        self.register(|answers| {
            answers.process_exits.retain(|process, _| process.container != container);
            answers.unreported.retain(|process, _| process.container != container);
        });
        self.shared.host.request(Request::Forget { container }, Vec::new());
    }

    /// From now on reaps the unadopted processes that exit inside a container. Needs a tokio runtime.
    ///
    /// # Errors
    /// When SIGCHLD cannot be listened for.
    pub fn reap_orphans(&self, containers: Containers) -> Result<()> {
        let mut ended = check_free_descriptors(SIGNAL_DESCRIPTORS)
            .and_then(|()| signal(SignalKind::child()))
            .map_err(Error::system("listen for SIGCHLD"))?;
        self.shared.host.request(Request::ReapOrphans { containers }, Vec::new());
        let connection = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                let Some(shared) = connection.upgrade() else { return };
                // SIGCHLDs that arrive during the look are merged into one.
                let looked = Self { shared }.request(|token| Request::LookForOrphans { token });
                if looked.await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Says that somebody else in this process may wait for any child. See [`Request::WaitsElsewhere`].
    pub fn waits_elsewhere(&self) {
        self.shared.host.request(Request::WaitsElsewhere, Vec::new());
    }

    /// Also reaps every other child of this process, that long after its exit. See [`Request::ReapOthers`].
    pub fn reap_others(&self, age: Duration) {
        self.shared.host.request(Request::ReapOthers { age }, Vec::new());
    }

    /// The exits of adopted processes. A second call returns an empty stream.
    pub fn exits(&self) -> BoxStream<'static, (ProcessRef, ProcessEnd)> {
        let exits = lock(&self.shared.exits).take();
        exits.map_or_else(|| stream::empty().boxed(), StreamExt::boxed)
    }

    /// The kills for lack of memory in the containers that are tracked. A second call returns an empty stream.
    pub fn oom_kills(&self) -> BoxStream<'static, (ContainerId, OomKill)> {
        let kills = lock(&self.shared.oom_kills).take();
        kills.map_or_else(|| stream::empty().boxed(), StreamExt::boxed)
    }

    /// Looks for a process that is going to be started, in a container with a memory limit, among the processes that are
    /// killed for lack of memory. `has_program` if it is an init that reports the end of its program as its own.
    pub fn track_kills(&self, process: ProcessRef, has_program: bool, members: Members) {
        self.shared.host.request(Request::TrackKills { process, has_program, members }, Vec::new());
    }

    /// The process was not started.
    pub fn untrack_kills(&self, process: ProcessRef) {
        self.shared.host.request(Request::UntrackKills { process }, Vec::new());
    }

    /// Watches the cgroup of a container with a memory limit, and looks for its adopted processes as well. `has_program` is
    /// about its init, as in [`track_kills`](Self::track_kills).
    pub fn watch_kills(&self, container: ContainerId, has_program: bool, members: Members) {
        self.shared.host.request(Request::WatchKills { container, has_program, members }, Vec::new());
    }

    /// Makes the host a child subreaper, or stops that. Blocks.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn subreap(&self, on: bool) -> Result<()> {
        self.request_blocking(None, |token| Request::Subreap { token, on })?
            .map_err(Error::system("become a child subreaper"))
    }

    /// [`end_unadopted`](Self::end_unadopted) for all processes of a container. Blocks.
    ///
    /// # Errors
    /// When the host has ended.
    pub fn end_unadopted_now(&self, members: Members) -> Result<()> {
        let request = |token| Request::EndUnadopted { token, members, all: true, started: None };
        self.request_blocking(None, request)?.map_err(Error::system("end what a runtime has left"))
    }

    /// Kills and reaps every runtime and every adopted process. Later spawns fail. Blocks for `patience` at
    /// most.
    ///
    /// # Errors
    /// When the host has ended.
    pub fn close(&self, patience: Duration) -> Result<()> {
        // After `patience`, the host still kills what the runtimes have left.
        let timeout = patience.saturating_add(Duration::from_secs(1));
        self.request_blocking(Some(timeout), |token| Request::Close { token, patience })?
            .map_err(Error::system("end all processes"))
    }

    fn number(&self) -> u64 {
        self.shared.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers senders for answers. If the host has ended, `register` is dropped together with its senders,
    /// and their receivers fail.
    fn register(&self, register: impl FnOnce(&mut PendingAnswers)) {
        if let Some(answers) = &mut *lock(&self.shared.pending.answers) {
            register(answers);
        }
    }

    /// Sends a request under a token of its own. `awaits` gets the answer.
    fn request_for(&self, awaits: PendingAnswer, request: impl FnOnce(Token) -> Request) {
        let token = Token(self.number());
        self.register(|answers| drop(answers.tokens.insert(token, awaits)));
        self.shared.host.request(request(token), Vec::new());
    }

    /// Sends a request that is answered with `Done` or `Failed`.
    fn request(
        &self,
        request: impl FnOnce(Token) -> Request,
    ) -> impl Future<Output = Result<io::Result<()>>> + Send + 'static {
        let (answer, done) = oneshot::channel();
        self.request_for(PendingAnswer::Done(answer), request);
        receive_answer(done).map(|answer| Ok(answer?.map_err(io::Error::from)))
    }

    /// The same, with an error that names the operation.
    fn request_named(
        &self,
        op: &'static str,
        request: impl FnOnce(Token) -> Request,
    ) -> BoxFuture<'static, Result<()>> {
        self.request(request).map(move |answer| answer?.map_err(Error::system(op))).boxed()
    }

    /// Sends a request that is answered with `Signalled`.
    fn request_delivery(
        &self,
        op: &'static str,
        request: impl FnOnce(Token) -> Request,
    ) -> BoxFuture<'static, Result<Delivery>> {
        let (answer, signalled) = oneshot::channel();
        self.request_for(PendingAnswer::Signalled(answer), request);
        async move {
            match receive_answer(signalled).await? {
                Ok(delivered) => Ok(Delivery::from(delivered)),
                Err(error) => Err(Error::system(op)(error.into())),
            }
        }
        .boxed()
    }

    /// Sends a request that is answered with `Done` or `Failed`, and blocks until then.
    fn request_blocking(
        &self,
        timeout: Option<Duration>,
        request: impl FnOnce(Token) -> Request,
    ) -> Result<io::Result<()>> {
        let (answer, done) = mpsc::channel();
        self.request_for(PendingAnswer::Blocking(answer), request);
        let answer = match timeout {
            Some(timeout) => done.recv_timeout(timeout).map_err(|_| Error::HostGone)?,
            None => done.recv().map_err(|_| Error::HostGone)?,
        };
        Ok(answer.map_err(io::Error::from))
    }
}

/// The sources of a runtime's streams. Adds the file descriptors that they refer to.
fn stdio_sources(stdio: &ChildStdio, fds: &mut Vec<OwnedFd>) -> io::Result<[StdioSource; 3]> {
    let mut sources = [StdioSource::Null; 3];
    for (source, stream) in sources.iter_mut().zip([&stdio.stdin, &stdio.stdout, &stdio.stderr]) {
        *source = match stream {
            ChildFd::Null => StdioSource::Null,
            ChildFd::Inherit => StdioSource::Inherit,
            ChildFd::Fd(fd) => StdioSource::Fd(push(fds, fd.try_clone()?)),
        };
    }
    Ok(sources)
}

/// Adds a file descriptor, and returns its index.
fn push(fds: &mut Vec<OwnedFd>, fd: OwnedFd) -> usize {
    fds.push(fd);
    fds.len() - 1
}
