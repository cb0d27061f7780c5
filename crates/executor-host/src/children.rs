//! Whose children the children of this process are, and what becomes of their exit statuses.
//!
//! ```text
//!  Spawn ──▶ call ── it ends ──▶ reaped; when it failed, the rest of its process group is killed and reaped ──▶ CallEnded
//!  Adopt ──▶ adopted ── it ends ──▶ reaped by us ─────────────────────────────▶ Exited
//!                          ├──▶ not ours yet: tried again for a moment
//!                          └──▶ reaped by somebody else: PIDFD_GET_INFO ──────▶ Exited, perhaps Unknown
//!  a child nobody asked for ── it ends in one of our containers ──▶ an orphan: reaped, its status remembered for Adopt
//! ```
//! The kernel holds a container's init until every process of its pid namespace is reaped, so one that is forgotten is
//! a container that never ends. Children of the embedder's own are left to it.
//!
//! An example. A container runs `true`. runc writes pid 812 to the pid file and ends; 812 is ours now, and ends before the
//! driver has read the file. SIGCHLD: 812 is no call and not adopted, has ended, and its cgroup is one of ours, so it is
//! an orphan: it is reaped, and `(812, exit 0)` is remembered. `Adopt(812)` comes: there is no such process any more, the
//! status is found, and `Exited(exit 0)` follows `Adopted` at once.
//!
//! Everything is decided here, on one thread, so a process that was reaped is not signalled: its pid, or its process group,
//! may be a stranger's. All of the system is behind [`Kernel`].

mod orphans;
mod signals;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, ProcessRef, Signal};
use rustix::io::Errno;

pub use self::orphans::RUNTIMES;
use crate::kernel::Kernel;
use crate::seam::{CallId, Command, Containers, Event, EventSink, Members, Parent, Request, Token};

/// How long a process that a runtime has let go of may take to become our child, and a child that was killed to end.
const ADOPTION: Duration = Duration::from_millis(100);

/// From one attempt to reap a process to the next.
const AGAIN: Duration = Duration::from_millis(1);

/// The same when its parent has had its time. It may be a child that is traced: it has ended, and is ours to reap when its
/// tracer has collected it, which may be hours later.
const SELDOM: Duration = Duration::from_millis(100);

/// From one look at what is left to the next.
const LOOK: Duration = Duration::from_millis(5);

/// What is remembered of each kind: far more than can be on its way at once.
const BOUND: usize = 1024;

/// One executor's connection.
pub(crate) type ClientId = u64;

/// The children of this process that are known, and what became of some that were not.
pub(crate) struct ChildTable<K: Kernel> {
    kernel: K,
    clients: BTreeMap<ClientId, Client>,
    watched: HashMap<u64, Watched<K::Pidfd>>,
    next: u64,
    /// When to try again to reap a process that has ended.
    retries: BTreeSet<(Instant, u64)>,
    errands: BTreeMap<u64, Errand>,
    /// Orphans that were reaped before anyone adopted them, the latest first. One may be a process whose runtime has
    /// just said that it runs, and may be another executor's: where only v1 hierarchies are left to ask, it cannot be known
    /// whose.
    reaped: VecDeque<(HostPid, ExitStatus)>,
    /// Processes of containers without a pid namespace, which may become our children.
    remembered: Vec<Remembered<K::Pidfd>>,
    /// Children that were killed because there was no file for a pidfd; to be reaped.
    unwatched: Vec<HostPid>,
    /// Looks for orphans that were asked for and not carried out: each executor of a process asks for one at each SIGCHLD, and
    /// one look answers all.
    looks: Vec<(ClientId, Token)>,
    /// When they are carried out although requests are still waiting.
    looks_by: Option<Instant>,
    /// Whether the process was a subreaper before it had to be.
    was_subreaper: bool,
}

struct Client {
    sink: Box<dyn EventSink>,
    adopted: HashMap<ProcessRef, u64>,
    calls: HashMap<CallId, u64>,
    /// The last calls that have ended: a monitor may have ended before what it monitored is adopted.
    ended_calls: VecDeque<(CallId, ExitStatus)>,
    /// Adopted processes that were gone, whose exit is told by the end of their monitor.
    gone: Vec<(ProcessRef, CallId)>,
    /// The last runtimes that were executed; each led a process group.
    groups: VecDeque<HostPid>,
    /// The names that the runtime's processes have: its program's, and that of the file in memory which is executed in
    /// its place.
    names: HashSet<String>,
    /// The processes that each container has had: those that stay in their sessions are the container's.
    sessions: HashMap<ContainerId, HashSet<HostPid>>,
    /// Where unknown children are ours to reap.
    containers: Option<Containers>,
    subreaps: bool,
    closed: bool,
}

/// A process that we hold a pidfd of.
struct Watched<P> {
    pid: HostPid,
    pidfd: P,
    client: ClientId,
    role: Role,
    /// Set when it has ended: until when its parent may take to hand it over.
    give_up: Option<Instant>,
}

enum Role {
    Call(CallId),
    Adopted {
        process: ProcessRef,
        parent: Parent,
    },
    /// It was killed, and is reaped when it ends.
    Doomed,
    /// A call whose client has left: it is reaped when it ends, and nobody is told.
    Left,
}

struct Remembered<P> {
    client: ClientId,
    container: ContainerId,
    pid: HostPid,
    pidfd: P,
}

/// Something that is done when processes have ended, or its time is over.
struct Errand {
    client: ClientId,
    awaits: BTreeSet<u64>,
    deadline: Instant,
    /// When it looks again by itself.
    look: Option<Instant>,
    then: Then,
}

enum Then {
    CallEnded {
        call: CallId,
        status: ExitStatus,
    },
    Unadopted {
        token: Token,
    },
    /// What the runtimes of these groups have left is killed next.
    Closing {
        token: Token,
        groups: HashSet<u32>,
    },
    Closed {
        token: Token,
    },
    EndAll {
        token: Token,
        container: ContainerId,
        members: Members,
        thaw: Vec<OsString>,
    },
}

impl<K: Kernel> ChildTable<K> {
    pub(crate) fn new(kernel: K) -> Self {
        Self {
            kernel,
            clients: BTreeMap::new(),
            watched: HashMap::new(),
            next: 0,
            retries: BTreeSet::new(),
            errands: BTreeMap::new(),
            reaped: VecDeque::new(),
            remembered: Vec::new(),
            unwatched: Vec::new(),
            looks: Vec::new(),
            looks_by: None,
            was_subreaper: false,
        }
    }

    pub(crate) fn kernel(&self) -> &K {
        &self.kernel
    }

    /// Whether there are clients, or children that only we will reap.
    pub(crate) fn is_needed(&self) -> bool {
        !self.clients.is_empty() || !self.watched.is_empty() || !self.unwatched.is_empty()
    }

    pub(crate) fn join(&mut self, client: ClientId, sink: Box<dyn EventSink>) {
        self.clients.insert(client, Client::new(sink));
    }

    /// A client is gone: what it had is not ours to know any more. What was executed or killed for it is still to be reaped, or
    /// it stays a zombie of the embedder's.
    pub(crate) fn leave(&mut self, client: ClientId) {
        self.watched.retain(|_, watched| match watched.role {
            _ if watched.client != client => true,
            Role::Call(_) => {
                watched.role = Role::Left;
                true
            }
            Role::Doomed | Role::Left => true,
            Role::Adopted { .. } => false,
        });
        self.errands.retain(|_, errand| errand.client != client);
        self.remembered.retain(|remembered| remembered.client != client);
        if let Err(error) = self.subreap(client, false) {
            tracing::warn!(%error, "this process stays a subreaper");
        }
        self.clients.remove(&client);
    }

    /// When something is due although nothing has ended.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let unwatched = (!self.unwatched.is_empty()).then(|| now + LOOK);
        let retry = self.retries.first().map(|(at, _)| *at).into_iter().chain(unwatched);
        let errands =
            self.errands.values().map(|errand| errand.look.unwrap_or(errand.deadline).min(errand.deadline));
        retry.chain(errands).chain(self.looks_by).min()
    }

    /// Carries a request out.
    pub(crate) fn handle(&mut self, now: Instant, client: ClientId, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Spawn { call, command } => self.spawn(client, call, &command, &fds),
            Request::KillCall { call } => self.kill_call(client, call),
            Request::Adopt { token, process, pid, parent, members } => {
                self.adopt(client, token, process, pid, parent, &members);
            }
            Request::Signal { token, process, signal, scope } => {
                let delivery = self.signal(client, &process, signal, scope);
                self.signalled(client, token, delivery);
            }
            Request::SignalAll { token, members, signal } => {
                let delivery = self.signal_all(&members, signal);
                self.signalled(client, token, Ok(delivery));
            }
            Request::Kill { token, process, everything, thaw } => {
                let delivery = self.kill(client, &process, everything.as_ref(), &thaw);
                self.signalled(client, token, delivery);
            }
            Request::Thaw { token, dirs } => {
                self.kernel.thaw(&dirs);
                self.emit(client, Event::Done { token });
            }
            Request::EndUnadopted { token, members, all, started } => {
                self.end_unadopted(now, client, token, &members, all, started);
            }
            Request::Remember { container, members } => self.remember(client, &container, &members),
            Request::EndAll { token, container, members, thaw, patience } => {
                let then = Then::EndAll { token, container, members, thaw };
                self.begin(client, BTreeSet::new(), now, now + patience, then);
            }
            Request::Subreap { token, on } => {
                let event = match self.subreap(client, on) {
                    Ok(()) => Event::Done { token },
                    Err(error) => Event::Failed { token, error: error.into() },
                };
                self.emit(client, event);
            }
            Request::ReapOrphans { containers } => {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.containers = Some(containers);
                }
                self.reap_orphans();
            }
            Request::LookForOrphans { token } => {
                self.looks.push((client, token));
                self.looks_by.get_or_insert(now + AGAIN);
            }
            Request::Forget { container } => self.forget(client, &container),
            Request::Close { token, patience } => self.close(now, client, token, patience),
        }
    }

    /// A process that is watched has ended.
    pub(crate) fn ended(&mut self, now: Instant, number: u64) {
        let Some(watched) = self.watched.get_mut(&number) else { return };
        let give_up = *watched.give_up.get_or_insert(now + ADOPTION);
        // Its end is told by its monitor's, which reaps it.
        if matches!(watched.role, Role::Adopted { parent: Parent::Call(_), .. }) {
            return;
        }
        let status = match self.kernel.reap(&watched.pidfd) {
            Ok(Some(status)) => Some(status),
            // It has ended, and its parent (crun's helper) may not have handed it over yet.
            Ok(None) => return self.try_again(now, give_up, number),
            Err(_)
                if now < give_up && self.kernel.stat(watched.pid).is_some_and(|stat| stat.state == 'Z') =>
            {
                return self.try_again(now, give_up, number);
            }
            Err(error) => {
                tracing::debug!(pid = %watched.pid, %error, "someone else has reaped it");
                self.kernel.status_of_reaped(&watched.pidfd)
            }
        };
        let Some(Watched { pid, client, role, .. }) = self.watched.remove(&number) else { return };
        match role {
            Role::Call(call) => {
                self.call_ended(now, client, call, pid, status.unwrap_or(ExitStatus::Unknown))
            }
            Role::Adopted { process, .. } => {
                self.exited(client, process, status.unwrap_or(ExitStatus::Unknown))
            }
            Role::Doomed => status.into_iter().for_each(|status| self.remember_orphan(pid, status)),
            Role::Left => {}
        }
        self.awaited(now, number);
    }

    fn try_again(&mut self, now: Instant, give_up: Instant, number: u64) {
        let pause = if now < give_up { AGAIN } else { SELDOM };
        self.retries.insert((now + pause, number));
    }

    /// No request is waiting: looks for orphans if that was asked for.
    pub(crate) fn idle(&mut self) {
        self.looks_by = None;
        if self.looks.is_empty() {
            return;
        }
        self.reap_orphans();
        for (client, token) in std::mem::take(&mut self.looks) {
            self.emit(client, Event::Done { token });
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.looks_by.is_some_and(|by| by <= now) {
            self.idle();
        }
        while let Some((at, number)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.retries.remove(&(at, number));
            self.ended(now, number);
        }
        let due = |errand: &Errand| errand.deadline <= now || errand.look.is_some_and(|look| look <= now);
        let due: Vec<_> =
            self.errands.iter().filter(|(_, errand)| due(errand)).map(|(number, _)| *number).collect();
        due.into_iter().for_each(|number| self.look(now, number));
        self.unwatched.retain(|pid| matches!(self.kernel.reap_unwatched(*pid), Ok(None)));
    }

    fn spawn(&mut self, client: ClientId, call: CallId, command: &Command, fds: &[OwnedFd]) {
        let Some(own) = self.clients.get_mut(&client) else { return };
        if own.closed {
            return self
                .emit(client, Event::SpawnFailed { call, error: io::Error::from(Errno::SHUTDOWN).into() });
        }
        let names = &mut own.names;
        let spawned = self.kernel.spawn(command, fds, &mut |name| {
            names.insert(name);
        });
        let watched = spawned.and_then(|(pid, image)| {
            let number = self.watch(pid, client, Role::Call(call))?;
            Ok((number, pid, image))
        });
        match watched {
            Ok((number, pid, image)) => {
                if let Some(own) = self.clients.get_mut(&client) {
                    own.calls.insert(call, number);
                    bounded(&mut own.groups, pid);
                }
                self.emit(client, Event::Spawned { call, pid, image });
            }
            Err(error) => self.emit(client, Event::SpawnFailed { call, error: error.into() }),
        }
    }

    /// Watches a process that can only be ours. Out of files, it is ended while its pid is certainly its own.
    fn watch(&mut self, pid: HostPid, client: ClientId, role: Role) -> io::Result<u64> {
        let watched = self.kernel.open(pid).and_then(|pidfd| self.watch_by(pid, pidfd, client, role));
        if watched.as_ref().is_err_and(|error| Errno::from_io_error(error) != Some(Errno::SRCH)) {
            self.kernel.kill_unwatched(pid);
            self.unwatched.push(pid);
        }
        watched
    }

    fn watch_by(&mut self, pid: HostPid, pidfd: K::Pidfd, client: ClientId, role: Role) -> io::Result<u64> {
        let number = self.next;
        self.kernel.watch(number, &pidfd)?;
        self.next += 1;
        self.watched.insert(number, Watched { pid, pidfd, client, role, give_up: None });
        Ok(number)
    }

    fn call_ended(&mut self, now: Instant, client: ClientId, call: CallId, pid: HostPid, status: ExitStatus) {
        let left = match status {
            ExitStatus::Code(0) => BTreeSet::new(),
            // What it had left in its process group came to us with its end.
            ExitStatus::Code(_) | ExitStatus::Signal(_) | ExitStatus::Unknown => {
                self.doom(client, |_, _, stat| stat.group == pid.get())
            }
        };
        self.begin(client, left, now, now + ADOPTION, Then::CallEnded { call, status });
    }

    fn adopt(
        &mut self,
        client: ClientId,
        token: Token,
        process: ProcessRef,
        pid: HostPid,
        parent: Parent,
        members: &Members,
    ) {
        if let Some(own) = self.clients.get_mut(&client) {
            own.sessions.entry(process.container.clone()).or_default().insert(pid);
        }
        // One that is gone was reaped already: as an orphan, by its monitor, or by someone who waits for any child and
        // has taken the status with them. The pid may be another's by now.
        let there = match self.kernel.open(pid) {
            Ok(_) if self.is_stranger(pid, members) => None,
            Ok(pidfd) => Some(pidfd),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => None,
            Err(error) => return self.adopt_failed(client, token, pid, error),
        };
        let Some(pidfd) = there else {
            self.emit(client, Event::Adopted { token });
            return self.adopted_gone(client, process, pid, parent);
        };
        self.unremember(pid);
        match self.watch_by(pid, pidfd, client, Role::Adopted { process: process.clone(), parent }) {
            Ok(number) => {
                if let Some(own) = self.clients.get_mut(&client) {
                    own.adopted.insert(process, number);
                }
                self.emit(client, Event::Adopted { token });
                let monitor = match parent {
                    Parent::Us => None,
                    Parent::Call(call) => self.status_of_call(client, call).map(|status| (call, status)),
                };
                monitor.into_iter().for_each(|(call, status)| self.monitor_ended(client, call, status));
            }
            Err(error) => self.adopt_failed(client, token, pid, error),
        }
    }

    fn adopt_failed(&mut self, client: ClientId, token: Token, pid: HostPid, error: io::Error) {
        self.kernel.kill_unwatched(pid);
        self.unwatched.push(pid);
        self.emit(client, Event::AdoptFailed { token, error: error.into() });
    }

    fn adopted_gone(&mut self, client: ClientId, process: ProcessRef, pid: HostPid, parent: Parent) {
        let status = match parent {
            Parent::Us => Some(self.take_orphan(pid).unwrap_or(ExitStatus::Unknown)),
            Parent::Call(call) => {
                let status = self.status_of_call(client, call);
                if let (None, Some(own)) = (status, self.clients.get_mut(&client)) {
                    own.gone.push((process.clone(), call));
                }
                status
            }
        };
        status.into_iter().for_each(|status| self.exited(client, process.clone(), status));
    }

    fn status_of_call(&self, client: ClientId, call: CallId) -> Option<ExitStatus> {
        let ended = self.clients.get(&client)?.ended_calls.iter().find(|(ended, _)| *ended == call);
        ended.map(|(_, status)| *status)
    }

    /// The end of a monitor is that of what it monitored, whose own status the kernel may know.
    fn monitor_ended(&mut self, client: ClientId, call: CallId, status: ExitStatus) {
        let monitored = |watched: &Watched<K::Pidfd>| {
            watched.client == client
                && matches!(watched.role, Role::Adopted { parent: Parent::Call(monitor), .. } if monitor == call)
        };
        let numbers: Vec<_> = self
            .watched
            .iter()
            .filter(|(_, watched)| monitored(watched))
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            let Some(Watched { pidfd, role: Role::Adopted { process, .. }, .. }) =
                self.watched.remove(&number)
            else {
                continue;
            };
            let status = self.kernel.status_of_reaped(&pidfd).unwrap_or(status);
            self.exited(client, process, status);
        }
        let Some(own) = self.clients.get_mut(&client) else { return };
        let (gone, rest) =
            std::mem::take(&mut own.gone).into_iter().partition(|(_, monitor)| *monitor == call);
        own.gone = rest;
        let gone: Vec<(ProcessRef, CallId)> = gone;
        gone.into_iter().for_each(|(process, _)| self.exited(client, process, status));
    }

    fn exited(&mut self, client: ClientId, process: ProcessRef, status: ExitStatus) {
        if let Some(own) = self.clients.get_mut(&client) {
            own.adopted.remove(&process);
        }
        self.emit(client, Event::Exited { process, status });
    }

    fn forget(&mut self, client: ClientId, container: &ContainerId) {
        self.reap_remembered();
        self.remembered.retain(|one| one.client != client || one.container != *container);
        let Some(own) = self.clients.get_mut(&client) else { return };
        own.sessions.remove(container);
        let of_it = own.adopted.extract_if(|process, _| process.container == *container);
        for (_, number) in of_it.collect::<Vec<_>>() {
            self.watched.remove(&number);
        }
    }

    fn close(&mut self, now: Instant, client: ClientId, token: Token, patience: Duration) {
        let Some(own) = self.clients.get_mut(&client) else { return };
        own.closed = true;
        let calls: Vec<_> = own.calls.values().copied().collect();
        let awaits: BTreeSet<_> = calls.iter().chain(own.adopted.values()).copied().collect();
        let groups =
            calls.iter().filter_map(|call| self.watched.get(call)).map(|call| call.pid.get()).collect();
        for number in &awaits {
            let _gone = self.signal_group(*number, Signal::KILL);
        }
        self.begin(client, awaits, now, now + patience, Then::Closing { token, groups });
    }

    fn subreap(&mut self, client: ClientId, on: bool) -> io::Result<()> {
        let others = self.clients.iter().any(|(other, own)| *other != client && own.subreaps);
        let Some(own) = self.clients.get_mut(&client) else { return Ok(()) };
        if !others && own.subreaps != on {
            if on {
                self.was_subreaper = self.kernel.is_subreaper()?;
                self.kernel.set_subreaper(true)?;
            } else if !self.was_subreaper {
                // Orphans of the embedder's own go to the system's init again.
                self.kernel.set_subreaper(false)?;
            }
        }
        own.subreaps = on;
        Ok(())
    }

    /// Begins to wait for the ends of these.
    fn begin(
        &mut self,
        client: ClientId,
        awaits: BTreeSet<u64>,
        now: Instant,
        deadline: Instant,
        then: Then,
    ) {
        let number = self.next;
        self.next += 1;
        let looks = matches!(then, Then::EndAll { .. } | Then::Closing { .. });
        self.errands.insert(number, Errand { client, awaits, deadline, look: looks.then_some(now), then });
        self.look(now, number);
    }

    /// One process less to wait for.
    fn awaited(&mut self, now: Instant, ended: u64) {
        let lighter = |errand: &mut Errand| errand.awaits.remove(&ended) && errand.awaits.is_empty();
        let over: Vec<_> = self
            .errands
            .iter_mut()
            .filter_map(|(number, errand)| lighter(errand).then_some(*number))
            .collect();
        over.into_iter().for_each(|number| self.look(now, number));
    }

    /// Goes on with an errand if it can.
    fn look(&mut self, now: Instant, number: u64) {
        let Some(mut errand) = self.errands.remove(&number) else { return };
        let overdue = errand.deadline <= now;
        let over = match &errand.then {
            Then::EndAll { container, members, thaw, .. } => {
                self.end_members(errand.client, container, members, thaw)
            }
            // Zombies of their pid namespaces hold inits up.
            Then::Closing { .. } => {
                self.reap_orphans();
                errand.awaits.retain(|awaited| self.watched.contains_key(awaited));
                errand.awaits.is_empty()
            }
            Then::CallEnded { .. } | Then::Unadopted { .. } | Then::Closed { .. } => errand.awaits.is_empty(),
        };
        if !over && !overdue {
            errand.look = errand.look.map(|_| now + LOOK);
            self.errands.insert(number, errand);
            return;
        }
        self.finish(now, errand);
    }

    fn finish(&mut self, now: Instant, errand: Errand) {
        let Errand { client, then, .. } = errand;
        match then {
            Then::CallEnded { call, status } => {
                if let Some(own) = self.clients.get_mut(&client) {
                    own.calls.remove(&call);
                    bounded(&mut own.ended_calls, (call, status));
                }
                self.emit(client, Event::CallEnded { call, status });
                self.monitor_ended(client, call, status);
            }
            Then::Unadopted { token } => {
                self.reap_orphans();
                self.emit(client, Event::Done { token });
            }
            Then::Closing { token, groups } => {
                let left = self.doom(client, |_, _, stat| groups.contains(&stat.group));
                self.begin(client, left, now, now + ADOPTION, Then::Closed { token });
            }
            Then::Closed { token } => self.emit(client, Event::Done { token }),
            Then::EndAll { token, .. } => {
                self.reap_remembered();
                self.emit(client, Event::Done { token });
            }
        }
    }

    fn emit(&mut self, client: ClientId, event: Event) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.sink.deliver(event);
        }
    }
}

impl Client {
    fn new(sink: Box<dyn EventSink>) -> Self {
        Self {
            sink,
            adopted: HashMap::new(),
            calls: HashMap::new(),
            ended_calls: VecDeque::new(),
            gone: Vec::new(),
            groups: VecDeque::new(),
            names: HashSet::new(),
            sessions: HashMap::new(),
            containers: None,
            subreaps: false,
            closed: false,
        }
    }
}

/// Puts something first and forgets what is too old.
fn bounded<T>(queue: &mut VecDeque<T>, first: T) {
    queue.truncate(BOUND - 1);
    queue.push_front(first);
}

impl<P> Watched<P> {
    /// It has ended, and its pid is not ours to hold.
    fn is_for_others_to_reap(&self) -> bool {
        self.give_up.is_some() && matches!(self.role, Role::Adopted { parent: Parent::Call(_), .. })
    }
}
