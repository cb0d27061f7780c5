//! The children of this process: which are ours to reap, and what happens with their exit statuses.
//!
//! ```text
//!  Spawn ──▶ call ── exits ──▶ reaped; if it failed, the rest of its process group is killed and reaped ──▶ CallEnded
//!  Adopt ──▶ adopted ── exits ──▶ reaped by us ─────────────────────────▶ Exited
//!                          ├──▶ not our child yet: retried for a moment
//!                          └──▶ reaped by somebody else: PIDFD_GET_INFO ─▶ Exited, perhaps Unknown
//!  an unknown child ── exits inside one of our containers ──▶ an orphan: reaped, its status recorded for Adopt
//! ```
//! The kernel keeps a container's init until every process of its pid namespace is reaped. An orphan that is
//! not reaped therefore keeps its container from ending. The embedder's own children are left to the
//! embedder.
//!
//! # Example
//! A container runs `true`. runc writes pid 812 to the pid file and exits, so 812 becomes our child. It exits
//! before the driver has read the pid file:
//!
//! 1. SIGCHLD arrives. 812 is neither a call nor adopted, it is a zombie, and its cgroup is one of ours: it is an orphan.
//! 2. It is reaped, and `(812, exit 0)` is recorded.
//! 3. `Adopt(812)` arrives. There is no such process any more, and the recorded status is found.
//! 4. The client gets `Adopted`, and `Exited(exit 0)` right after it.
//!
//! All decisions are taken here, on one thread. A process that was reaped is therefore never signalled: its
//! pid, or its process group, may belong to a stranger by then. All system calls are behind [`Kernel`].

mod adoption;
mod calls;
mod oom;
mod orphans;
mod others;
mod signals;
#[cfg(test)]
mod tests;
mod waits;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, ProcessRef};

use self::adoption::Adoption;
use self::oom::OomWatch;
pub use self::orphans::RUNTIMES;
use self::waits::{Continuation, Wait};
use crate::kernel::{Kernel, Reaped};
use crate::seam::{CallId, Containers, Event, EventSink, Parent, Request, Token};

/// How long a process may take to become our child after its runtime has exited, and a killed child to exit.
const HANDOVER: Duration = Duration::from_millis(100);

/// How much longer it may take if the process is known to be a zombie: its status is kept for as long, and on a busy machine
/// the helper of a runtime may not run for a while.
const LATE_HANDOVER: Duration = Duration::from_secs(5);

/// The time between two attempts to reap a process that has exited.
const RETRY: Duration = Duration::from_millis(1);

/// The same after [`HANDOVER`]. The process may be traced: it has exited, but we can reap it only after its
/// tracer has, which may take hours.
const SLOW_RETRY: Duration = Duration::from_millis(100);

/// The time between two checks of what is left of a container.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// How long a process that a call has left behind waits to be adopted. Its driver adopts it as soon as it has read a file; what
/// nobody adopts, a helper of the runtime or a program that a hook has started, costs a file descriptor until then.
const ADOPTION: Duration = Duration::from_secs(60);

/// How many past exits, calls and process groups are kept, of each kind. Far fewer are in flight at once.
const HISTORY: usize = 1024;

/// One executor's connection.
pub(crate) type ClientId = u64;

/// The known children of this process, and the recorded exits of some unknown ones.
pub(crate) struct ChildTable<K: Kernel> {
    kernel: K,
    clients: BTreeMap<ClientId, Client>,
    /// Processes that we hold a pidfd of, by the number under which the kernel reports their exit.
    watched: HashMap<u64, Watched<K::Pidfd>>,
    /// The next number of a watched process or a wait.
    next: u64,
    /// When to retry to reap a watched process that has exited.
    retries: BTreeSet<(Instant, u64)>,
    waits: BTreeMap<u64, Wait>,
    /// Orphans that were reaped before they were adopted, the latest first. A runtime may report the pid of
    /// one of them a moment later. Their executor is not recorded: on a host with v1 hierarchies only, it is
    /// unknown.
    reaped_orphans: VecDeque<(HostPid, Reaped)>,
    /// What calls below a subreaper have left behind, the latest first, until it is adopted.
    left: VecDeque<LeftBy<K::Pidfd>>,
    /// Processes of containers without a pid namespace, which may become our children.
    remembered: Vec<Remembered<K::Pidfd>>,
    /// Children that are nobody's of ours and have exited, with their start in clock ticks, and when the exit was seen.
    others: HashMap<HostPid, (u64, Instant)>,
    /// Children that were killed because no file descriptor was left for a pidfd. They are still to be reaped.
    unwatched: Vec<HostPid>,
    /// Requests to look for orphans that were not carried out yet. Every executor in the process sends one
    /// for each SIGCHLD, and one look answers them all.
    orphan_checks: Vec<(ClientId, Token)>,
    /// When they are carried out even if other requests are waiting.
    orphan_check_by: Option<Instant>,
    /// What the OOM killer has killed.
    oom: OomWatch,
    /// Whether this process was a subreaper before we made it one.
    was_subreaper: bool,
}

struct Client {
    sink: Box<dyn EventSink>,
    adopted: HashMap<ProcessRef, u64>,
    calls: HashMap<CallId, u64>,
    /// The last calls that have ended. A monitor may end before the process that it monitored is adopted.
    ended_calls: VecDeque<(CallId, ExitStatus)>,
    /// Adopted processes that had exited by then. Their monitor's exit status is theirs.
    awaiting_monitor: Vec<(ProcessRef, CallId)>,
    /// The process groups of the last runtimes; each runtime leads one.
    groups: VecDeque<HostPid>,
    /// The process groups of the last calls that have ended before all of their group had.
    unfinished: VecDeque<u32>,
    /// The names of the runtime's processes: of its program, and of the file in memory that is executed
    /// instead.
    names: HashSet<String>,
    /// Pids that each container's processes have had. Every process in a session of one of them belongs to
    /// the container.
    sessions: HashMap<ContainerId, HashSet<HostPid>>,
    /// The containers in which unknown children are reaped.
    containers: Option<Containers>,
    /// How long after its exit any other child is reaped.
    reaps_others_after: Option<Duration>,
    subreaps: bool,
    is_closed: bool,
}

/// A process that we hold a pidfd of.
struct Watched<P> {
    pid: HostPid,
    pidfd: P,
    client: ClientId,
    role: Role,
    /// The runtime of a call, which leads a process group. It is another process if the call has a subreaper.
    runtime: Option<HostPid>,
    /// Set when it has exited: until when it may become our child.
    give_up: Option<Instant>,
}

enum Role {
    Call(CallId),
    Adopted {
        process: ProcessRef,
        parent: Parent,
        /// Whether it had executed its program when it was adopted.
        has_executed: bool,
    },
    /// It was killed, and is reaped when it exits.
    Killed,
    /// A call whose client has left. It is reaped when it exits, and no event is delivered.
    Abandoned,
}

/// The processes that a call has left behind.
struct LeftBy<P> {
    client: ClientId,
    call: CallId,
    /// When the call has ended.
    since: Instant,
    processes: Vec<(HostPid, P)>,
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
            left: VecDeque::new(),
            remembered: Vec::new(),
            others: HashMap::new(),
            unwatched: Vec::new(),
            orphan_checks: Vec::new(),
            orphan_check_by: None,
            oom: OomWatch::default(),
            was_subreaper: false,
        }
    }

    pub(crate) fn kernel(&self) -> &K {
        &self.kernel
    }

    /// Whether there are clients, or children that only we can reap.
    pub(crate) fn is_needed(&self) -> bool {
        !self.clients.is_empty() || !self.watched.is_empty() || !self.unwatched.is_empty()
    }

    pub(crate) fn join(&mut self, client: ClientId, sink: Box<dyn EventSink>) {
        self.clients.insert(client, Client::new(sink));
    }

    /// Forgets a client and its adopted processes. Runtimes that were executed for it, and processes that
    /// were killed for it, stay watched: otherwise they would remain zombies of the embedder.
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
        self.give_up_left_by(|left| left.client == client);
        self.reap_orphans();
        self.forget_kills(|other, _| other == client);
        if let Err(error) = self.subreap(client, false) {
            tracing::warn!(%error, "this process stays a subreaper");
        }
        self.clients.remove(&client);
    }

    /// When [`tick`](Self::tick) has to be called next, if no process exits earlier.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let retry = self.retries.first().map(|(at, _)| *at);
        let unwatched = (!self.unwatched.is_empty()).then(|| now + CHECK_INTERVAL);
        let wait = self.waits.values().map(Wait::next_deadline).min();
        let left = self.left.back().map(|left| left.since + ADOPTION);
        let oom = self.next_oom_deadline(now);
        let own = [retry, unwatched, wait, left, self.orphan_check_by, self.next_other(), oom];
        own.into_iter().flatten().min()
    }

    /// Carries a request out.
    pub(crate) fn handle(&mut self, now: Instant, client: ClientId, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Spawn { call, command } => self.spawn(client, call, &command, &fds),
            Request::KillCall { call } => self.kill_call(client, call),
            Request::Adopt { token, process, pid, parent, members } => {
                self.adopt(Adoption { client, token, process, pid, parent }, &members);
            }
            Request::Signal { token, process, signal, scope } => {
                self.signal(client, token, &process, signal, scope);
            }
            Request::SignalAll { token, members, signal } => {
                self.signal_all(client, token, &members, signal);
            }
            Request::Kill { token, process, everything, thaw } => {
                self.kill(client, token, &process, everything.as_ref(), &thaw);
            }
            Request::Thaw { token, dirs } => self.thaw(client, token, &dirs),
            Request::EndUnadopted { token, members, all, started } => {
                self.end_unadopted(now, client, token, &members, all, started);
            }
            Request::Remember { container, members } => self.remember(client, &container, &members),
            Request::EndAll { token, container, members, thaw, patience } => {
                self.end_all(now, client, Continuation::EndAll { token, container, members, thaw }, patience);
            }
            Request::ReapOrphans { containers } => self.reap_orphans_in(client, containers),
            Request::WaitsElsewhere => self.kernel.was_robbed(),
            Request::ReapOthers { age } => self.reap_others_after(client, age),
            Request::LookForOrphans { token } => {
                self.orphan_checks.push((client, token));
                self.orphan_check_by.get_or_insert(now + RETRY);
            }
            Request::TrackKills { process, has_program, members } => {
                self.track_kills(client, process, has_program, &members);
            }
            Request::UntrackKills { process } => self.untrack_kills(client, &process),
            Request::WatchKills { container, has_program, members } => {
                self.watch_kills(client, container, has_program, &members);
            }
            Request::Subreap { token, on } => {
                let done = self.subreap(client, on);
                self.done(client, token, done);
            }
            Request::Forget { container } => self.forget(client, &container),
            Request::Close { token, patience } => self.close(now, client, token, patience),
        }
    }

    /// Handles the exit of a watched process, or the notice of a cgroup.
    pub(crate) fn ended(&mut self, now: Instant, number: u64) {
        let Some(watched) = self.watched.get_mut(&number) else { return self.cgroup_noticed(now, number) };
        let give_up = *watched.give_up.get_or_insert(now + HANDOVER);
        // Its monitor reaps it, and the monitor's exit reports its own.
        if matches!(watched.role, Role::Adopted { parent: Parent::Call(_), .. }) {
            return;
        }
        // What is reaped can be looked at no more.
        let known = watched.role.is_known_to_have_executed();
        let seen = known.or_else(|| self.kernel.stat(watched.pid).map(|stat| stat.has_executed()));
        let (status, has_executed, at) = match self.kernel.reap(&watched.pidfd) {
            Ok(Some(reaped)) => (Some(reaped.status), known.or(reaped.has_executed).or(seen), reaped.at),
            // It has exited, and its parent (crun's helper) may still exist.
            Ok(None) => return self.retry_reaping(now, give_up, number),
            // It is another's child yet, or somebody else is just reaping it (state X): its status is known after that.
            Err(_)
                if now < give_up + LATE_HANDOVER
                    && self.kernel.stat(watched.pid).is_some_and(|stat| stat.is_ending()) =>
            {
                return self.retry_reaping(now, give_up, number);
            }
            Err(error) => {
                tracing::debug!(pid = %watched.pid, %error, "somebody else has reaped this process");
                // What was killed may have been a runtime's child, and not ours: the system's init reaps it then.
                if !matches!(watched.role, Role::Killed) {
                    self.kernel.was_robbed();
                }
                // By now, another process may have the pid that was looked at.
                (self.kernel.status_of_reaped(&watched.pidfd), known, None)
            }
        };
        let Some(Watched { pid, client, role, runtime, .. }) = self.watched.remove(&number) else { return };
        match role {
            Role::Call(call) => self.call_ended(now, client, call, (pid, runtime.unwrap_or(pid)), status),
            Role::Adopted { process, .. } => {
                let status = status.unwrap_or(ExitStatus::Unknown);
                self.exited(client, process, Reaped { status, has_executed, at });
            }
            Role::Killed => {
                if let Some(status) = status {
                    self.record_orphan(pid, Reaped { status, has_executed, at });
                }
            }
            Role::Abandoned => drop(self.kernel.report(pid)),
        }
        self.process_ended(now, number);
    }

    fn retry_reaping(&mut self, now: Instant, give_up: Instant, number: u64) {
        let pause = if now < give_up { RETRY } else { SLOW_RETRY };
        self.retries.insert((now + pause, number));
    }

    /// No request is waiting: looks for orphans if a client has asked for it.
    pub(crate) fn idle(&mut self, now: Instant) {
        self.orphan_check_by = None;
        if self.orphan_checks.is_empty() {
            return;
        }
        self.reap_orphans();
        self.note_others(now);
        for (client, token) in std::mem::take(&mut self.orphan_checks) {
            self.emit(client, Event::Done { token });
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.orphan_check_by.is_some_and(|by| by <= now) {
            self.idle(now);
        }
        while let Some((at, number)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.retries.remove(&(at, number));
            self.ended(now, number);
        }
        self.oom_tick(now);
        self.advance_due_waits(now);
        self.reap_others(now);
        self.give_up_left(now);
        self.unwatched.retain(|pid| matches!(self.kernel.reap_unwatched(*pid), Ok(None)));
    }

    fn done(&mut self, client: ClientId, token: Token, done: io::Result<()>) {
        let event = match done {
            Ok(()) => Event::Done { token },
            Err(error) => Event::Failed { token, error: error.into() },
        };
        self.emit(client, event);
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
            unfinished: VecDeque::new(),
            names: HashSet::new(),
            sessions: HashMap::new(),
            containers: None,
            reaps_others_after: None,
            subreaps: false,
            is_closed: false,
        }
    }
}

impl<P> Watched<P> {
    /// Whether it has exited and its monitor reaps it: its pid may be reused at any moment.
    fn is_reaped_by_monitor(&self) -> bool {
        self.give_up.is_some() && matches!(self.role, Role::Adopted { parent: Parent::Call(_), .. })
    }
}

/// Puts an item in front, and drops the oldest beyond [`HISTORY`].
fn push_bounded<T>(queue: &mut VecDeque<T>, first: T) {
    queue.truncate(HISTORY - 1);
    queue.push_front(first);
}
