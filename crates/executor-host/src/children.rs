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

mod adoption;
mod calls;
mod orphans;
mod signals;
#[cfg(test)]
mod tests;
mod waits;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, ProcessRef};

pub use self::orphans::RUNTIMES;
use self::waits::{Continuation, Wait};
use crate::kernel::Kernel;
use crate::seam::{CallId, Containers, Event, EventSink, Parent, Request, Token};

/// How long a process that a runtime has let go of may take to become our child, and a child that was killed to end.
const HANDOVER: Duration = Duration::from_millis(100);

/// From one attempt to reap a process to the next.
const RETRY: Duration = Duration::from_millis(1);

/// The same when its parent has had its time. It may be a child that is traced: it has ended, and is ours to reap when its
/// tracer has collected it, which may be hours later.
const SLOW_RETRY: Duration = Duration::from_millis(100);

/// From one look at what is left to the next.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// What is remembered of each kind: far more than can be on its way at once.
const HISTORY: usize = 1024;

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
    waits: BTreeMap<u64, Wait>,
    /// Orphans that were reaped before anyone adopted them, the latest first. One may be a process whose runtime has
    /// just said that it runs, and may be another executor's: where only v1 hierarchies are left to ask, it cannot be known
    /// whose.
    reaped_orphans: VecDeque<(HostPid, ExitStatus)>,
    /// Processes of containers without a pid namespace, which may become our children.
    remembered: Vec<Remembered<K::Pidfd>>,
    /// Children that were killed because there was no file for a pidfd; to be reaped.
    unwatched: Vec<HostPid>,
    /// Looks for orphans that were asked for and not carried out: each executor of a process asks for one at each SIGCHLD, and
    /// one look answers all.
    orphan_checks: Vec<(ClientId, Token)>,
    /// When they are carried out although requests are still waiting.
    orphan_check_by: Option<Instant>,
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
    awaiting_monitor: Vec<(ProcessRef, CallId)>,
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
    is_closed: bool,
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
    Killed,
    /// A call whose client has left: it is reaped when it ends, and nobody is told.
    Abandoned,
}

struct Remembered<P> {
    client: ClientId,
    container: ContainerId,
    pid: HostPid,
    pidfd: P,
}

impl<K: Kernel> ChildTable<K> {
    pub(crate) fn new(kernel: K) -> Self {
        Self {
            kernel,
            clients: BTreeMap::new(),
            watched: HashMap::new(),
            next: 0,
            retries: BTreeSet::new(),
            waits: BTreeMap::new(),
            reaped_orphans: VecDeque::new(),
            remembered: Vec::new(),
            unwatched: Vec::new(),
            orphan_checks: Vec::new(),
            orphan_check_by: None,
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
                watched.role = Role::Abandoned;
                true
            }
            Role::Killed | Role::Abandoned => true,
            Role::Adopted { .. } => false,
        });
        self.waits.retain(|_, wait| wait.client != client);
        self.remembered.retain(|remembered| remembered.client != client);
        if let Err(error) = self.subreap(client, false) {
            tracing::warn!(%error, "this process stays a subreaper");
        }
        self.clients.remove(&client);
    }

    /// When something is due although nothing has ended.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let unwatched = (!self.unwatched.is_empty()).then(|| now + CHECK_INTERVAL);
        let retry = self.retries.first().map(|(at, _)| *at).into_iter().chain(unwatched);
        let waits =
            self.waits.values().map(|wait| wait.next_check.unwrap_or(wait.deadline).min(wait.deadline));
        retry.chain(waits).chain(self.orphan_check_by).min()
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
                let then = Continuation::EndAll { token, container, members, thaw };
                self.begin_wait(client, BTreeSet::new(), now, now + patience, then);
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
                self.orphan_checks.push((client, token));
                self.orphan_check_by.get_or_insert(now + RETRY);
            }
            Request::Forget { container } => self.forget(client, &container),
            Request::Close { token, patience } => self.close(now, client, token, patience),
        }
    }

    /// A process that is watched has ended.
    pub(crate) fn ended(&mut self, now: Instant, number: u64) {
        let Some(watched) = self.watched.get_mut(&number) else { return };
        let give_up = *watched.give_up.get_or_insert(now + HANDOVER);
        // Its end is told by its monitor's, which reaps it.
        if matches!(watched.role, Role::Adopted { parent: Parent::Call(_), .. }) {
            return;
        }
        let status = match self.kernel.reap(&watched.pidfd) {
            Ok(Some(status)) => Some(status),
            // It has ended, and its parent (crun's helper) may not have handed it over yet.
            Ok(None) => return self.retry_reaping(now, give_up, number),
            Err(_)
                if now < give_up && self.kernel.stat(watched.pid).is_some_and(|stat| stat.state == 'Z') =>
            {
                return self.retry_reaping(now, give_up, number);
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
            Role::Killed => status.into_iter().for_each(|status| self.record_orphan(pid, status)),
            Role::Abandoned => {}
        }
        self.process_ended(now, number);
    }

    fn retry_reaping(&mut self, now: Instant, give_up: Instant, number: u64) {
        let pause = if now < give_up { RETRY } else { SLOW_RETRY };
        self.retries.insert((now + pause, number));
    }

    /// No request is waiting: looks for orphans if that was asked for.
    pub(crate) fn idle(&mut self) {
        self.orphan_check_by = None;
        if self.orphan_checks.is_empty() {
            return;
        }
        self.reap_orphans();
        for (client, token) in std::mem::take(&mut self.orphan_checks) {
            self.emit(client, Event::Done { token });
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.orphan_check_by.is_some_and(|by| by <= now) {
            self.idle();
        }
        while let Some((at, number)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.retries.remove(&(at, number));
            self.ended(now, number);
        }
        let due = |wait: &Wait| wait.deadline <= now || wait.next_check.is_some_and(|look| look <= now);
        let due: Vec<_> =
            self.waits.iter().filter(|(_, wait)| due(wait)).map(|(number, _)| *number).collect();
        due.into_iter().for_each(|number| self.advance_wait(now, number));
        self.unwatched.retain(|pid| matches!(self.kernel.reap_unwatched(*pid), Ok(None)));
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
            awaiting_monitor: Vec::new(),
            groups: VecDeque::new(),
            names: HashSet::new(),
            sessions: HashMap::new(),
            containers: None,
            subreaps: false,
            is_closed: false,
        }
    }
}

/// Puts something first and forgets what is too old.
fn push_bounded<T>(queue: &mut VecDeque<T>, first: T) {
    queue.truncate(HISTORY - 1);
    queue.push_front(first);
}

impl<P> Watched<P> {
    /// It has ended, and its pid is not ours to hold.
    fn is_for_others_to_reap(&self) -> bool {
        self.give_up.is_some() && matches!(self.role, Role::Adopted { parent: Parent::Call(_), .. })
    }
}
