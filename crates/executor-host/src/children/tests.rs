//! Orphans, adoption races and stolen statuses, on a kernel that does what a test wants.

mod oom;

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::mpsc;

use executor_core::Delivery;
use executor_core::lifecycle::{ExecId, Signal, SignalScope};
use rustix::io::Errno;

use super::*;
use crate::kernel::Spawned;
use crate::oom::LogNews;
use crate::procfs::Stat;
use crate::seam::{Command, Delivered, ImageFate, Members, OsError, StdioSource};
use crate::subreaper::Report;

const OWN: u32 = 1;
const OURS: &str = "/longshore/e/c";

#[derive(Clone, Debug)]
struct Fake {
    /// Which process, whatever its pid.
    serial: u64,
    parent: u32,
    group: u32,
    session: u32,
    comm: &'static str,
    cgroup: &'static str,
    nested: bool,
    has_executed: bool,
    ended: Option<ExitStatus>,
}

/// A kernel whose processes end when a test says so.
#[derive(Default)]
struct World {
    processes: BTreeMap<u32, Fake>,
    /// Statuses of reaped processes that the kernel still knows.
    known: HashMap<u64, ExitStatus>,
    forgets: bool,
    v1_only: bool,
    out_of_files: bool,
    /// A tracer has to reap an exited process first.
    traced: bool,
    /// How often reaping was attempted.
    tried: u32,
    /// How often the children were listed.
    listed: std::cell::Cell<u32>,
    serial: u64,
    spawned: u32,
    subreaper: bool,
    /// What calls below a subreaper have left behind.
    reports: HashMap<u32, Report<u64>>,
    robbed: u32,
    /// Calls have a subreaper.
    subreaps: bool,
    /// A process that does not die yet.
    immortal: Option<u32>,
    /// The children of a process are ours when it is reaped.
    reparents: bool,
    did: Vec<String>,
    /// The kernel's log can be read.
    has_log: bool,
    log: Option<LogNews>,
    counted: u64,
    /// The inode of the cgroup that has them.
    counted_in: u64,
    noticed: BTreeMap<u64, Vec<OsString>>,
    /// The log cannot be read any more.
    log_has_ended: bool,
    /// The directories whose counters were read.
    counters_read: std::cell::RefCell<Vec<OsString>>,
    first_children: HashMap<u32, u32>,
    /// The processes of threads.
    threads: HashMap<u32, u32>,
}

impl World {
    fn add(&mut self, pid: u32, parent: u32, change: impl FnOnce(&mut Fake)) -> HostPid {
        self.serial += 1;
        let mut fake = Fake {
            serial: self.serial,
            parent,
            group: pid,
            session: pid,
            comm: "program",
            cgroup: OURS,
            nested: true,
            has_executed: true,
            ended: None,
        };
        change(&mut fake);
        self.processes.insert(pid, fake);
        HostPid::new(pid).unwrap()
    }

    fn end(&mut self, pid: u32, status: ExitStatus) {
        self.processes.get_mut(&pid).unwrap().ended = Some(status);
    }

    /// Another thread waits for it.
    fn steal(&mut self, pid: u32) {
        let fake = self.processes.remove(&pid).unwrap();
        if !self.forgets {
            self.known.insert(fake.serial, fake.ended.unwrap());
        }
    }

    fn by_serial(&self, serial: u64) -> Option<(u32, &Fake)> {
        self.processes.iter().find(|(_, fake)| fake.serial == serial).map(|(pid, fake)| (*pid, fake))
    }
}

impl Kernel for World {
    type Pidfd = u64;

    fn spawn(
        &mut self,
        command: &Command,
        _: &[OwnedFd],
        named: &mut dyn FnMut(String),
    ) -> io::Result<Spawned<u64>> {
        named(command.program.to_string_lossy().into_owned());
        self.spawned += 1;
        let pid = 100 * self.spawned;
        let pid = self.add(pid, OWN, |fake| (fake.session, fake.cgroup, fake.nested) = (OWN, "/", false));
        let runtime = match self.subreaps {
            true => self.add(pid.get() + 1, pid.get(), |fake| {
                (fake.session, fake.cgroup, fake.nested) = (OWN, "/", false);
            }),
            false => pid,
        };
        Ok(Spawned { pid, pidfd: None, runtime, image: ImageFate::None })
    }

    fn report(&mut self, call: HostPid) -> Report<u64> {
        self.reports.remove(&call.get()).unwrap_or_default()
    }

    fn was_robbed(&mut self) {
        self.robbed += 1;
    }

    fn open(&mut self, pid: HostPid) -> io::Result<u64> {
        if self.out_of_files {
            return Err(Errno::MFILE.into());
        }
        self.processes.get(&pid.get()).map(|fake| fake.serial).ok_or_else(|| Errno::SRCH.into())
    }

    fn watch(&mut self, _: u64, _: &u64) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self, pidfd: &u64) -> io::Result<Option<Reaped>> {
        let Some((pid, fake)) = self.by_serial(*pidfd).filter(|(_, fake)| fake.parent == OWN) else {
            return Err(Errno::CHILD.into());
        };
        let status = fake.ended.filter(|_| !self.traced);
        self.tried += 1;
        if status.is_some() {
            self.processes.remove(&pid);
            if self.reparents {
                let orphans = self.processes.values_mut().filter(|fake| fake.parent == pid);
                orphans.for_each(|fake| fake.parent = OWN);
            }
            self.did.push(format!("reap {pid}"));
        }
        Ok(status.map(Reaped::with))
    }

    fn reap_unwatched(&mut self, pid: HostPid) -> io::Result<Option<ExitStatus>> {
        let serial = self.processes.get(&pid.get()).map(|fake| fake.serial);
        let reaped = serial.map_or(Err(Errno::CHILD.into()), |serial| self.reap(&serial));
        Ok(reaped?.map(|reaped| reaped.status))
    }

    fn recorded(&mut self, _: HostPid) -> Option<Reaped> {
        None
    }

    fn forget(&mut self, _: &mut dyn Iterator<Item = HostPid>) {}

    fn status_of_reaped(&mut self, pidfd: &u64) -> Option<ExitStatus> {
        self.known.get(pidfd).copied()
    }

    fn send(&mut self, pidfd: &u64, signal: Signal) -> io::Result<Delivery> {
        let Some((pid, _)) = self.by_serial(*pidfd) else { return Ok(Delivery::Gone) };
        self.did.push(format!("{signal} {pid}"));
        if signal == Signal::KILL {
            let is_immortal = self.immortal == Some(pid);
            let fake = self.processes.get_mut(&pid).unwrap();
            fake.ended = fake.ended.or((!is_immortal).then_some(ExitStatus::Signal(signal)));
        }
        Ok(Delivery::Sent)
    }

    fn send_group(&mut self, group: HostPid, signal: Signal) -> io::Result<()> {
        self.did.push(format!("{signal} -{group}"));
        let immortal = self.immortal;
        let mortal = self.processes.iter_mut().filter(|(pid, _)| immortal != Some(**pid));
        let members = mortal.map(|(_, fake)| fake).filter(|fake| fake.group == group.get());
        if signal == Signal::KILL {
            members.for_each(|fake| fake.ended = fake.ended.or(Some(ExitStatus::Signal(signal))));
        }
        Ok(())
    }

    fn kill_unwatched(&mut self, pid: HostPid) {
        self.did.push(format!("kill {pid}"));
        self.end(pid.get(), ExitStatus::Signal(Signal::KILL));
    }

    fn children(&self) -> Vec<HostPid> {
        self.listed.set(self.listed.get() + 1);
        let own = self.processes.iter().filter(|(_, fake)| fake.parent == OWN);
        own.map(|(pid, _)| HostPid::new(*pid).unwrap()).collect()
    }

    fn stat(&self, pid: HostPid) -> Option<Stat> {
        let stat = |comm: &str, state, parent, group, session, start| Stat {
            comm: comm.to_owned(),
            state,
            parent,
            group,
            session,
            threads: 1,
            start,
            flags: 0,
        };
        if pid.get() == OWN {
            return Some(stat("embedder", 'S', 0, OWN, OWN, 0));
        }
        let fake = self.processes.get(&pid.get())?;
        let state = if fake.ended.is_some() { 'Z' } else { 'S' };
        let flags = if fake.has_executed { 0 } else { crate::procfs::PF_FORKNOEXEC };
        let stat = stat(fake.comm, state, fake.parent, fake.group, fake.session, fake.serial);
        Some(Stat { flags, ..stat })
    }

    fn own_pid(&self) -> HostPid {
        HostPid::new(OWN).unwrap()
    }

    fn cgroups_of(&self, pid: HostPid) -> Vec<String> {
        let fake = self.processes.get(&pid.get());
        let forgotten = |fake: &&Fake| self.v1_only && fake.ended.is_some();
        fake.map(|fake| if forgotten(&fake) { "/" } else { fake.cgroup }.to_owned()).into_iter().collect()
    }

    fn keeps_zombies_in_cgroups(&self) -> bool {
        !self.v1_only
    }

    fn is_in_nested_pid_namespace(&self, pid: HostPid) -> bool {
        self.processes.get(&pid.get()).is_some_and(|fake| fake.nested)
    }

    fn members(&self, members: &Members) -> Vec<HostPid> {
        let Members::Cgroup { path, .. } = members else { return Vec::new() };
        let alive = self.processes.iter().filter(|(_, fake)| fake.cgroup == path && fake.ended.is_none());
        alive.map(|(pid, _)| HostPid::new(*pid).unwrap()).collect()
    }

    fn thaw(&mut self, dirs: &[OsString]) {
        self.did.push(format!("thaw {dirs:?}"));
    }

    fn children_of(&self, pid: HostPid) -> Vec<HostPid> {
        let children = self.processes.iter().filter(|(_, fake)| fake.parent == pid.get());
        children.filter_map(|(pid, _)| HostPid::new(*pid)).collect()
    }

    fn first_child(&self, pid: HostPid) -> Option<HostPid> {
        self.first_children.get(&pid.get()).copied().and_then(HostPid::new)
    }

    fn process_of(&self, thread: HostPid) -> Option<HostPid> {
        self.threads.get(&thread.get()).copied().and_then(HostPid::new)
    }

    fn open_log(&mut self) -> io::Result<()> {
        self.log = self.has_log.then(LogNews::default);
        self.log.as_ref().map(|_| ()).ok_or_else(|| Errno::PERM.into())
    }

    fn read_log(&mut self) -> Option<LogNews> {
        let news = self.log.as_mut().map(std::mem::take)?;
        if self.log_has_ended {
            self.log = None;
            return Some(LogNews { is_incomplete: true, has_ended: true, ..news });
        }
        Some(news)
    }

    fn notice_kills(&mut self, number: u64, dirs: &[OsString]) -> io::Result<()> {
        self.noticed.insert(number, dirs.to_vec());
        Ok(())
    }

    fn ignore_notices(&mut self, number: u64) {
        self.noticed.remove(&number);
    }

    fn ignore_kills(&mut self) {
        self.log = None;
    }

    fn count_kills(&self, dirs: &[OsString]) -> io::Result<BTreeMap<u64, u64>> {
        self.counters_read.borrow_mut().extend_from_slice(dirs);
        if self.out_of_files {
            return Err(Errno::MFILE.into());
        }
        let counters = [(self.counted_in, self.counted)].into_iter();
        Ok(counters.filter(|_| !dirs.is_empty()).collect())
    }

    fn is_subreaper(&self) -> io::Result<bool> {
        Ok(self.subreaper)
    }

    fn set_subreaper(&mut self, on: bool) -> io::Result<()> {
        self.subreaper = on;
        Ok(())
    }
}

impl EventSink for mpsc::Sender<Event> {
    fn deliver(&mut self, event: Event) {
        drop(self.send(event));
    }
}

/// A table with one client, whose containers are those of executor `e`.
struct Stage {
    table: ChildTable<World>,
    events: mpsc::Receiver<Event>,
    now: Instant,
    token: u64,
}

impl Stage {
    fn new() -> Self {
        let mut stage = Self {
            table: ChildTable::new(World::default()),
            events: mpsc::channel().1,
            now: Instant::now(),
            token: 0,
        };
        stage.events = stage.join(0);
        stage.ask(0, |_| Request::ReapOrphans { containers: Containers::Of("e".into()) });
        stage
    }

    fn join(&mut self, client: ClientId) -> mpsc::Receiver<Event> {
        let (sink, events) = mpsc::channel();
        self.table.join(client, Box::new(sink));
        events
    }

    fn ask(&mut self, client: ClientId, request: impl FnOnce(Token) -> Request) -> Token {
        self.token += 1;
        self.table.handle(self.now, client, request(Token(self.token)), Vec::new());
        Token(self.token)
    }

    fn world(&mut self) -> &mut World {
        &mut self.table.kernel
    }

    /// All that has ended is reported, and what is due is done, until `later`.
    fn settle(&mut self, later: Duration) {
        let end = self.now + later;
        while self.now <= end {
            let ended = |watched: &Watched<u64>| {
                watched.give_up.is_none()
                    && self.table.kernel.by_serial(watched.pidfd).is_none_or(|(_, fake)| fake.ended.is_some())
            };
            let ready: Vec<_> = self
                .table
                .watched
                .iter()
                .filter(|(_, watched)| ended(watched))
                .map(|(number, _)| *number)
                .collect();
            ready.into_iter().for_each(|number| self.table.ended(self.now, number));
            self.table.tick(self.now);
            self.now += RETRY;
        }
    }

    fn events(&self) -> Vec<Event> {
        self.events.try_iter().collect()
    }

    fn exits(&self) -> Vec<(String, ExitStatus)> {
        let exit = |event| {
            let Event::Exited { process, end } = event else { return None };
            Some((process.to_string(), end.status))
        };
        self.events().into_iter().filter_map(exit).collect()
    }

    fn sigchld(&mut self) {
        self.ask(0, |token| Request::LookForOrphans { token });
        self.table.idle(self.now);
    }

    fn spawn(&mut self) -> (CallId, u32) {
        self.token += 1;
        let call = CallId(self.token);
        let command = Command {
            program: "runc".into(),
            image: None,
            args: Vec::new(),
            env: Vec::new(),
            stdio: [StdioSource::Null; 3],
        };
        self.ask(0, |_| Request::Spawn { call, command });
        let pid = 100 * self.world().spawned;
        assert!(matches!(self.events().last(), Some(Event::Spawned { .. })));
        (call, pid)
    }

    fn adopt(&mut self, process: ProcessRef, pid: HostPid, parent: Parent) {
        self.ask(0, |token| Request::Adopt { token, process, pid, parent, members: members() });
    }

    fn did(&mut self) -> Vec<String> {
        std::mem::take(&mut self.world().did)
    }
}

fn container() -> ContainerId {
    ContainerId::new("c").unwrap()
}

fn init() -> ProcessRef {
    ProcessRef::init(container())
}

fn exec() -> ProcessRef {
    ProcessRef::exec(container(), ExecId::numbered(1))
}

fn members() -> Members {
    Members::Cgroup { path: OURS.into(), dirs: Vec::new() }
}

fn code(code: u8) -> ExitStatus {
    ExitStatus::Code(code)
}

#[test]
fn an_orphan_that_was_reaped_before_it_is_adopted_has_its_status() {
    let mut stage = Stage::new();
    let pid = stage.world().add(812, OWN, |_| {});
    stage.world().end(812, code(3));
    stage.sigchld();
    assert_eq!(stage.did(), ["reap 812"]);
    stage.adopt(init(), pid, Parent::Us);
    assert_eq!(stage.exits(), [("c/init".into(), code(3))]);
    // It is reported once.
    stage.adopt(exec(), pid, Parent::Us);
    assert_eq!(stage.exits(), [("c/exec-1".into(), ExitStatus::Unknown)]);
}

/// Whether a process has executed its program: at its adoption, and at its exit.
#[test]
fn whether_a_program_was_executed_is_known_at_each_exit() {
    let forked = |fake: &mut Fake| fake.has_executed = false;
    let seen = |stage: &Stage| {
        let seen = |event: Event| {
            if let Event::Adopted { has_executed, .. } = event {
                return Some(Some(has_executed));
            }
            let Event::Exited { end, .. } = event else { return None };
            Some(end.has_executed)
        };
        stage.events().into_iter().filter_map(seen).collect::<Vec<_>>()
    };
    // It executes its program after its adoption, never, or before.
    for (at_first, at_last) in [(false, true), (false, false), (true, true)] {
        let mut stage = Stage::new();
        let pid = stage.world().add(812, OWN, |fake| fake.has_executed = at_first);
        stage.adopt(init(), pid, Parent::Us);
        stage.world().processes.get_mut(&812).unwrap().has_executed = at_last;
        stage.world().end(812, code(1));
        stage.settle(RETRY);
        assert_eq!(seen(&stage), [Some(at_first), Some(at_last)]);
    }
    // It was reaped as an orphan before.
    let mut stage = Stage::new();
    let pid = stage.world().add(812, OWN, forked);
    stage.world().end(812, code(1));
    stage.sigchld();
    stage.adopt(init(), pid, Parent::Us);
    assert_eq!(seen(&stage), [Some(false); 2]);
    // Somebody else has reaped it: nothing is known, unless it was known before.
    for (at_first, expected) in [(false, None), (true, Some(true))] {
        let mut stage = Stage::new();
        let pid = stage.world().add(812, OWN, |fake| fake.has_executed = at_first);
        stage.adopt(init(), pid, Parent::Us);
        stage.world().end(812, code(1));
        stage.world().steal(812);
        stage.settle(HANDOVER);
        assert_eq!(seen(&stage), [Some(at_first), expected]);
    }
}

#[test]
fn an_orphan_may_have_been_reaped_for_another_executor() {
    let mut stage = Stage::new();
    let others = stage.join(7);
    stage.world().v1_only = true;
    let pid = stage.world().add(812, OWN, |_| {});
    stage.world().end(812, code(3));
    stage.sigchld();
    let adopt =
        |token| Request::Adopt { token, process: init(), pid, parent: Parent::Us, members: members() };
    stage.ask(7, adopt);
    assert!(others.try_iter().any(
        |event| matches!(event, Event::Exited { process, end } if process == init() && end.status == code(3))
    ));
}

#[test]
fn one_look_for_orphans_answers_all_that_were_asked_for() {
    let mut stage = Stage::new();
    let others = stage.join(7);
    stage.world().add(812, OWN, |fake| fake.ended = Some(code(3)));
    stage.world().listed.set(0);
    let own = stage.ask(0, |token| Request::LookForOrphans { token });
    let theirs = stage.ask(7, |token| Request::LookForOrphans { token });
    assert_eq!(stage.did(), [""; 0], "more requests may be waiting");
    stage.table.idle(stage.now);
    assert_eq!(stage.did(), ["reap 812"]);
    assert_eq!(stage.events(), [Event::Done { token: own }]);
    assert_eq!(others.try_iter().collect::<Vec<_>>(), [Event::Done { token: theirs }]);
    stage.table.idle(stage.now);
    assert_eq!(stage.world().listed.get(), 1);
    // A queue of requests that never ends does not put it off for ever.
    let late = stage.ask(0, |token| Request::LookForOrphans { token });
    stage.settle(RETRY);
    assert_eq!(stage.events(), [Event::Done { token: late }]);
}

#[test]
fn only_so_many_orphans_are_remembered() {
    let mut stage = Stage::new();
    for pid in 0..u32::try_from(HISTORY).unwrap() + 10 {
        stage.world().add(1000 + pid, OWN, |fake| fake.ended = Some(code(0)));
    }
    stage.sigchld();
    assert_eq!(stage.table.reaped_orphans.len(), HISTORY);
}

#[test]
fn a_stolen_status_is_the_kernels_or_unknown() {
    for (forgets, expected) in [(false, code(5)), (true, ExitStatus::Unknown)] {
        let mut stage = Stage::new();
        stage.world().forgets = forgets;
        let pid = stage.world().add(812, OWN, |_| {});
        stage.adopt(init(), pid, Parent::Us);
        stage.world().end(812, code(5));
        stage.world().steal(812);
        stage.settle(RETRY);
        assert_eq!(stage.exits(), [("c/init".into(), expected)]);
    }
}

/// A runtime below a subreaper: the process has exited and was reaped by somebody else, and its pid is a stranger's, before the
/// driver knows its pid.
#[test]
fn what_a_subreaper_has_left_behind_is_exact() {
    let mut stage = Stage::new();
    let (call, runtime) = stage.spawn();
    let pid = stage.world().add(812, OWN, |_| {});
    let pidfd = stage.world().open(pid).unwrap();
    let report = Report { status: Some(code(0)), left: vec![(pid, pidfd)] };
    stage.world().reports.insert(runtime, report);
    stage.world().end(812, code(5));
    stage.world().steal(812);
    stage.world().add(812, OWN, |fake| fake.cgroup = "/stranger");
    stage.world().end(runtime, code(1));
    stage.settle(RETRY);
    let ended = Event::CallEnded { call, status: code(0) };
    assert_eq!(stage.events(), [ended], "the runtime's own status");
    stage.adopt(init(), pid, Parent::LeftBy(call));
    stage.settle(RETRY);
    assert_eq!(stage.exits(), [("c/init".into(), code(5))]);
    assert_eq!(stage.world().robbed, 1, "the next runtimes are below a subreaper");
    assert!(stage.table.left.is_empty());
    assert!(stage.world().processes.contains_key(&812), "the stranger is left alone");
}

/// A client closes while it starts a container: the container's process is not adopted any more.
#[test]
fn what_a_call_has_left_is_reaped_when_its_client_closes() {
    for exits_first in [true, false] {
        let mut stage = Stage::new();
        let (_, runtime) = stage.spawn();
        let pid = stage.world().add(812, OWN, |_| {});
        let pidfd = stage.world().open(pid).unwrap();
        stage.world().reports.insert(runtime, Report { status: Some(code(0)), left: vec![(pid, pidfd)] });
        if exits_first {
            stage.world().end(812, code(5));
        }
        stage.world().end(runtime, code(0));
        stage.settle(RETRY);
        stage.ask(0, |token| Request::Close { token, patience: HANDOVER });
        stage.settle(HANDOVER);
        if !exits_first {
            stage.world().end(812, code(5));
        }
        stage.table.leave(0);
        assert!(!stage.world().processes.contains_key(&812), "it remains a zombie");
        assert!(!stage.table.is_needed());
    }
}

/// A call ends after the time that its client has had to close.
#[test]
fn what_a_call_leaves_after_the_close_is_reaped() {
    let mut stage = Stage::new();
    let (_, runtime) = stage.spawn();
    stage.world().immortal = Some(runtime);
    stage.ask(0, |token| Request::Close { token, patience: HANDOVER });
    let pid = stage.world().add(812, OWN, |_| {});
    let pidfd = stage.world().open(pid).unwrap();
    stage.world().reports.insert(runtime, Report { status: Some(code(0)), left: vec![(pid, pidfd)] });
    stage.world().end(812, code(5));
    stage.world().end(runtime, code(0));
    stage.settle(RETRY);
    assert!(stage.table.left.is_empty());
    assert!(!stage.world().processes.contains_key(&812), "it remains a zombie");
}

/// A helper of a runtime, below a subreaper, that no driver knows of.
#[test]
fn what_nobody_adopts_costs_no_descriptor_for_ever() {
    let mut stage = Stage::new();
    let (_, runtime) = stage.spawn();
    let pid = stage.world().add(812, OWN, |_| {});
    let pidfd = stage.world().open(pid).unwrap();
    stage.world().reports.insert(runtime, Report { status: Some(code(0)), left: vec![(pid, pidfd)] });
    stage.world().end(runtime, code(0));
    stage.world().end(812, code(5));
    stage.settle(ADOPTION / 2);
    assert!(stage.world().processes.contains_key(&812) && !stage.table.left.is_empty());
    stage.settle(ADOPTION);
    assert!(stage.table.left.is_empty());
    assert!(!stage.world().processes.contains_key(&812), "it is reaped");
}

/// A call is killed: its runtime dies, and its subreaper exits after that. What the runtime leaves is ours only then, one after the
/// other.
#[test]
fn a_killed_call_ends_when_all_of_its_group_has() {
    for closing in [false, true] {
        let mut stage = Stage::new();
        (stage.world().reparents, stage.world().subreaps) = (true, true);
        let (call, subreaper) = stage.spawn();
        let runtime = subreaper + 1;
        stage.world().add(runtime + 1, runtime, |fake| {
            (fake.group, fake.session, fake.cgroup, fake.nested) = (runtime, OWN, "/", false);
        });
        match closing {
            true => drop(stage.ask(0, |token| Request::Close { token, patience: HANDOVER })),
            false => drop(stage.ask(0, |_| Request::KillCall { call })),
        }
        assert_eq!(stage.did(), [format!("SIGKILL -{runtime}")], "the subreaper is not killed");
        stage.settle(RETRY);
        assert!(stage.events().is_empty());
        // It tells of what the runtime has left, which nobody adopts.
        let left = HostPid::new(runtime + 1).unwrap();
        let pidfd = stage.world().open(left).unwrap();
        let status = Some(ExitStatus::Signal(Signal::KILL));
        stage.world().reports.insert(subreaper, Report { status, left: vec![(left, pidfd)] });
        stage.world().end(subreaper, code(1));
        stage.settle(HANDOVER / 2);
        assert_eq!(stage.world().processes.len(), 0, "{closing}: {:?}", stage.did());
        let is_end = |event: &Event| matches!(event, Event::CallEnded { .. });
        assert_eq!(stage.events().iter().filter(|event| is_end(event)).count(), 1);
    }
}

/// Once the subreaper has exited, the runtime's group may be another's.
#[test]
fn a_subreaper_that_has_exited_has_no_group_to_be_killed() {
    let mut stage = Stage::new();
    stage.world().subreaps = true;
    let (call, subreaper) = stage.spawn();
    stage.world().processes.remove(&(subreaper + 1));
    stage.world().add(subreaper + 1, 1000, |_| {});
    stage.world().end(subreaper, code(0));
    stage.ask(0, |_| Request::KillCall { call });
    assert!(!stage.did().contains(&format!("SIGKILL -{}", subreaper + 1)));
    assert_eq!(stage.world().processes[&(subreaper + 1)].ended, None);
}

/// The rest of a killed call takes longer to die than its end is waited for. The client waits for it when it closes.
#[test]
fn what_has_not_died_in_time_is_waited_for_at_the_end() {
    let mut stage = Stage::new();
    stage.world().reparents = true;
    let (call, runtime) = stage.spawn();
    let of_call =
        |fake: &mut Fake| (fake.group, fake.session, fake.cgroup, fake.nested) = (runtime, OWN, "/", false);
    stage.world().add(101, runtime, of_call);
    stage.world().add(102, 101, of_call);
    stage.world().immortal = Some(101);
    stage.ask(0, |_| Request::KillCall { call });
    stage.settle(HANDOVER * 2);
    assert!(matches!(*stage.events(), [.., Event::CallEnded { .. }]), "it is not waited for ever");
    stage.ask(0, |token| Request::Close { token, patience: HANDOVER * 4 });
    stage.settle(HANDOVER);
    assert_eq!(stage.events(), [], "a child of the runtime is still there");
    stage.world().immortal = None;
    stage.world().end(101, ExitStatus::Signal(Signal::KILL));
    stage.settle(HANDOVER);
    assert!(matches!(*stage.events(), [Event::Done { .. }]));
    assert_eq!(stage.world().processes.len(), 0);
}

#[test]
fn what_another_call_has_left_behind_is_not_taken_for_it() {
    let mut stage = Stage::new();
    let (earlier, runtime) = stage.spawn();
    let pid = stage.world().add(812, OWN, |_| {});
    let pidfd = stage.world().open(pid).unwrap();
    stage.world().reports.insert(runtime, Report { status: Some(code(0)), left: vec![(pid, pidfd)] });
    stage.world().end(812, code(5));
    stage.world().steal(812);
    stage.world().end(runtime, code(0));
    stage.settle(RETRY);
    let (later, _) = stage.spawn();
    stage.adopt(init(), pid, Parent::LeftBy(later));
    assert_eq!(stage.exits(), [("c/init".into(), ExitStatus::Unknown)]);
    assert_eq!(stage.table.left.len(), 1);
    stage.table.leave(0);
    assert!(stage.table.left.is_empty(), "{earlier:?}");
}

#[test]
fn other_children_are_reaped_when_their_time_has_come() {
    let mut stage = Stage::new();
    let own = |fake: &mut Fake| (fake.session, fake.cgroup, fake.nested) = (OWN, "/", false);
    stage.world().add(812, OWN, own);
    stage.world().add(813, OWN, own);
    stage.world().end(812, code(0));
    stage.sigchld();
    stage.settle(HANDOVER);
    assert!(stage.did().is_empty(), "nobody has asked for it");
    stage.ask(0, |_| Request::ReapOthers { age: HANDOVER });
    stage.sigchld();
    stage.settle(HANDOVER / 2);
    // The embedder waits for it, and its next child has the same pid and has exited, too.
    stage.world().steal(812);
    stage.world().add(812, OWN, |fake| fake.session = OWN);
    stage.world().end(812, code(0));
    stage.settle(HANDOVER);
    assert!(stage.did().is_empty(), "another process: its time has not come");
    stage.sigchld();
    stage.world().end(813, code(0));
    stage.settle(HANDOVER * 2);
    assert_eq!(stage.did(), ["reap 812"]);
    stage.sigchld();
    stage.settle(HANDOVER * 2);
    assert_eq!(stage.did(), ["reap 813"]);
}

#[test]
fn a_process_that_is_handed_over_late_is_waited_for() {
    let mut stage = Stage::new();
    stage.world().add(811, OWN, |fake| fake.comm = "crun");
    let pid = stage.world().add(812, 811, |_| {});
    stage.adopt(init(), pid, Parent::Us);
    stage.world().end(812, code(9));
    stage.settle(LATE_HANDOVER);
    assert_eq!(stage.exits(), []);
    stage.world().end(811, code(0));
    stage.world().processes.get_mut(&812).unwrap().parent = OWN;
    stage.settle(SLOW_RETRY);
    assert_eq!(stage.exits(), [("c/init".into(), code(9))]);
    // The helper is an orphan by its name.
    stage.sigchld();
    assert_eq!(stage.did(), ["reap 812", "reap 811"]);

    let pid = stage.world().add(812, 811, |fake| fake.ended = Some(code(9)));
    stage.adopt(init(), pid, Parent::Us);
    stage.settle(HANDOVER + LATE_HANDOVER + SLOW_RETRY);
    assert_eq!(stage.exits(), [("c/init".into(), ExitStatus::Unknown)], "it never came");
}

#[test]
fn a_child_that_its_tracer_does_not_collect_is_looked_at_seldom() {
    let mut stage = Stage::new();
    let pid = stage.world().add(812, OWN, |_| {});
    stage.adopt(init(), pid, Parent::Us);
    stage.world().end(812, code(9));
    stage.world().traced = true;
    stage.settle(HANDOVER);
    stage.world().tried = 0;
    stage.settle(Duration::from_secs(1));
    let tried = stage.world().tried;
    assert!((9..=11).contains(&tried), "{tried} times in a second");
    stage.world().traced = false;
    stage.settle(SLOW_RETRY);
    assert_eq!(stage.exits(), [("c/init".into(), code(9))]);
}

#[test]
fn closing_reaps_what_holds_an_init_up() {
    let mut stage = Stage::new();
    let pid = stage.world().add(10, OWN, |_| {});
    stage.adopt(init(), pid, Parent::Us);
    let pid = stage.world().add(11, OWN, |_| {});
    stage.adopt(exec(), pid, Parent::Us);
    stage.world().add(12, OWN, |fake| fake.ended = Some(code(0)));
    let (_, runtime) = stage.spawn();
    stage.world().add(101, runtime, |fake| (fake.group, fake.cgroup, fake.nested) = (runtime, "/", false));
    let patience = Duration::from_secs(1);
    let token = stage.ask(0, |token| Request::Close { token, patience });
    // The kernel keeps an init whose namespace is not empty.
    stage.world().processes.get_mut(&10).unwrap().ended = None;
    stage.world().processes.get_mut(&101).unwrap().parent = OWN;
    stage.settle(RETRY);
    assert!(!stage.events().contains(&Event::Done { token }));
    let did = stage.did();
    for reaped in ["reap 11", "reap 12", "reap 100", "reap 101"] {
        assert!(did.iter().any(|did| did == reaped), "{did:?}");
    }
    stage.world().end(10, ExitStatus::Signal(Signal::KILL));
    stage.settle(RETRY * 2);
    assert!(stage.events().contains(&Event::Done { token }));
    assert!(stage.world().processes.is_empty());
    let call = CallId(99);
    let command = Command {
        program: "runc".into(),
        image: None,
        args: vec![],
        env: vec![],
        stdio: [StdioSource::Null; 3],
    };
    stage.ask(0, |_| Request::Spawn { call, command });
    assert!(matches!(*stage.events(), [Event::SpawnFailed { .. }]));
}

#[test]
fn closing_is_over_when_its_patience_is() {
    let mut stage = Stage::new();
    let pid = stage.world().add(10, OWN, |_| {});
    stage.adopt(init(), pid, Parent::Us);
    let token = stage.ask(0, |token| Request::Close { token, patience: CHECK_INTERVAL * 2 });
    stage.world().processes.get_mut(&10).unwrap().ended = None;
    stage.settle(CHECK_INTERVAL * 3);
    assert!(stage.events().contains(&Event::Done { token }));
}

#[test]
fn children_of_the_embedders_own_are_never_touched() {
    for v1_only in [false, true] {
        let mut stage = Stage::new();
        stage.world().v1_only = v1_only;
        let (_, runtime) = stage.spawn();
        // One in its session, also in our cgroup, in a pid namespace, called runc; a daemon of its own.
        stage.world().add(20, OWN, |fake| fake.session = OWN);
        stage.world().add(21, OWN, |fake| (fake.session, fake.comm, fake.cgroup) = (OWN, "runc", "/"));
        stage.world().add(22, OWN, |fake| (fake.cgroup, fake.nested) = ("/user", false));
        for pid in 20..=22 {
            stage.world().end(pid, code(0));
        }
        stage.sigchld();
        stage.world().end(runtime, code(1));
        stage.settle(HANDOVER);
        stage.ask(0, |token| Request::Close { token, patience: CHECK_INTERVAL });
        stage.settle(HANDOVER);
        assert_eq!(stage.did(), ["reap 100"]);
    }
}

/// The embedder has put a child of its own into a container's cgroup, and waits for it.
#[test]
fn a_child_of_the_embedders_in_a_container_is_the_embedders_to_reap() {
    for v1_only in [false, true] {
        let mut stage = Stage::new();
        stage.world().v1_only = v1_only;
        let (_, runtime) = stage.spawn();
        stage.world().end(runtime, code(0));
        stage.settle(RETRY);
        stage.world().add(20, OWN, |fake| (fake.session, fake.nested) = (OWN, false));
        // Those of the container: one that a runtime is making, and one that it has made.
        stage.world().add(21, OWN, |fake| {
            (fake.session, fake.group, fake.nested) = (OWN, runtime, false);
        });
        stage.world().add(22, OWN, |_| {});
        stage.did();
        stage.ask(0, |_| Request::Remember { container: container(), members: members() });
        stage.ask(0, |token| Request::EndUnadopted { token, members: members(), all: true, started: None });
        stage.settle(HANDOVER);
        // A release kills it by its cgroup, and then looks for what is left.
        stage.world().end(20, ExitStatus::Signal(Signal::KILL));
        stage.ask(0, |token| Request::EndUnadopted { token, members: members(), all: true, started: None });
        stage.settle(HANDOVER);
        stage.sigchld();
        let mut did = stage.did();
        did.sort();
        assert_eq!(did, ["SIGKILL 21", "SIGKILL 22", "reap 21", "reap 22"], "v1 only: {v1_only}");
    }
}

#[test]
fn what_runtimes_leave_is_known_by_name_session_and_group() {
    let mut stage = Stage::new();
    stage.world().v1_only = true;
    let (_, runtime) = stage.spawn();
    stage.world().end(runtime, code(0));
    stage.settle(RETRY);
    let pid = stage.world().add(30, OWN, |_| {});
    stage.adopt(init(), pid, Parent::Us);
    stage.did();
    stage.world().add(31, OWN, |fake| (fake.comm, fake.session, fake.nested) = ("runc:[2:INIT]", OWN, false));
    stage.world().add(32, OWN, |fake| (fake.comm, fake.nested) = ("crun", false));
    stage.world().add(33, OWN, |fake| {
        (fake.comm, fake.session, fake.group, fake.nested) = ("runc", OWN, runtime, false);
    });
    stage.world().add(34, OWN, |fake| (fake.session, fake.nested) = (30, false));
    stage.world().add(35, OWN, |fake| (fake.comm, fake.session, fake.nested) = ("runc", OWN, false));
    for pid in 31..=35 {
        stage.world().end(pid, code(0));
    }
    stage.sigchld();
    assert_eq!(stage.did(), ["reap 31", "reap 32", "reap 33", "reap 34"]);
    // A session outlives its leader, until the container is forgotten.
    stage.world().end(30, code(0));
    stage.settle(RETRY);
    stage.world().add(36, OWN, |fake| (fake.session, fake.nested, fake.ended) = (30, false, Some(code(0))));
    stage.sigchld();
    stage.ask(0, |_| Request::Forget { container: container() });
    stage.world().add(37, OWN, |fake| (fake.session, fake.nested, fake.ended) = (30, false, Some(code(0))));
    stage.sigchld();
    assert_eq!(stage.did(), ["reap 30", "reap 36"]);
}

#[test]
fn a_pid_that_was_given_again_is_not_adopted() {
    let mut stage = Stage::new();
    let pid = stage.world().add(812, OWN, |fake| fake.ended = Some(code(3)));
    stage.sigchld();
    stage.world().add(812, 4, |fake| (fake.cgroup, fake.nested) = ("/system.slice", false));
    stage.adopt(init(), pid, Parent::Us);
    assert_eq!(stage.exits(), [("c/init".into(), code(3))]);
    let signal = Signal::KILL;
    stage.ask(0, |token| Request::Signal { token, process: init(), signal, scope: SignalScope::Group });
    assert!(matches!(*stage.events(), [Event::Signalled { delivery: Ok(Delivered::Gone), .. }]));
    assert_eq!(stage.did(), ["reap 812"], "a stranger was signalled");

    // And what is remembered of an earlier process of that pid is not the later one's.
    stage.world().processes.clear();
    stage.world().add(813, OWN, |fake| fake.ended = Some(code(3)));
    stage.sigchld();
    let pid = stage.world().add(813, OWN, |_| {});
    stage.adopt(init(), pid, Parent::Us);
    stage.world().forgets = true;
    stage.world().end(813, code(4));
    stage.world().steal(813);
    stage.settle(RETRY);
    assert_eq!(stage.exits(), [("c/init".into(), ExitStatus::Unknown)]);
}

#[test]
fn without_a_file_for_its_pidfd_a_process_is_killed_and_reaped() {
    let mut stage = Stage::new();
    let pid = stage.world().add(812, OWN, |_| {});
    stage.world().out_of_files = true;
    stage.adopt(init(), pid, Parent::Us);
    let failed = OsError(Errno::MFILE.raw_os_error());
    assert!(matches!(*stage.events(), [Event::AdoptFailed { error, .. }] if error == failed));
    assert!(stage.table.next_deadline(stage.now).is_some());
    stage.settle(RETRY);
    assert_eq!(stage.did(), ["kill 812", "reap 812"]);
    assert_eq!(stage.table.next_deadline(stage.now), None);
}

#[test]
fn a_call_that_failed_ends_after_what_it_has_left() {
    let mut stage = Stage::new();
    let (call, runtime) = stage.spawn();
    stage.world().add(101, OWN, |fake| (fake.group, fake.session, fake.nested) = (runtime, OWN, false));
    stage.world().end(runtime, code(1));
    let ended = Event::CallEnded { call, status: code(1) };
    stage.settle(Duration::ZERO);
    assert!(!stage.events().contains(&ended));
    stage.settle(RETRY);
    assert!(stage.events().contains(&ended));
    assert_eq!(stage.did(), ["reap 100", "SIGKILL 101", "reap 101"]);
}

#[test]
fn a_call_is_killed_with_its_group_and_not_after_its_end() {
    let mut stage = Stage::new();
    let (call, runtime) = stage.spawn();
    stage.ask(0, |_| Request::KillCall { call });
    stage.settle(RETRY);
    stage.ask(0, |_| Request::KillCall { call });
    assert_eq!(stage.did(), [format!("SIGKILL -{runtime}"), format!("reap {runtime}")]);
}

/// A process of a container has a group of its own. In the foreground, the host is no subreaper: what a killed runtime leaves
/// becomes a child of the system's init, and nothing says any more which call has started it.
#[test]
fn a_call_is_killed_with_the_process_that_it_has_started() {
    const SYSTEMS_INIT: u32 = 7;
    for (detached, subreaps) in [(false, false), (true, false), (false, true)] {
        let mut stage = Stage::new();
        stage.world().subreaps = subreaps;
        let (call, pid) = stage.spawn();
        let runtime = pid + u32::from(subreaps);
        // The runtime is a shell that has started another one.
        stage.world().add(runtime + 1, runtime, |fake| {
            (fake.group, fake.session, fake.cgroup, fake.nested) = (runtime, OWN, "/", false);
        });
        let started = stage.world().add(runtime + 2, runtime + 1, |_| {});
        // Another call's, and one that somebody else has put into the container, through a runtime that has ended.
        let (other, monitor) = stage.spawn();
        let adopted = stage.world().add(30, monitor, |_| {});
        stage.adopt(init(), adopted, Parent::Call(other));
        stage.world().add(31, SYSTEMS_INIT, |_| {});
        stage.did();
        stage.ask(0, |_| Request::KillCall { call });
        for pid in [runtime + 1, started.get()] {
            let parent = if detached { OWN } else { SYSTEMS_INIT };
            stage.world().processes.get_mut(&pid).unwrap().parent = parent;
        }
        stage.settle(HANDOVER);
        let did = stage.did();
        assert!(did.contains(&format!("SIGKILL {started}")), "{did:?}");
        assert_eq!(did.contains(&format!("reap {started}")), detached, "{did:?}");
        assert!(!did.iter().any(|did| did.starts_with("SIGKILL 3")), "{did:?}");
        // The system's init has reaped it, and that is no theft.
        stage.world().processes.remove(&started.get());
        stage.settle(LATE_HANDOVER + HANDOVER);
        assert_eq!(stage.world().robbed, 0);
    }
}

#[test]
fn a_monitors_end_is_that_of_its_container() {
    for (forgets, expected) in [(false, ExitStatus::Signal(Signal::TERM)), (true, code(143))] {
        let mut stage = Stage::new();
        stage.world().forgets = forgets;
        let (call, runtime) = stage.spawn();
        let pid = stage.world().add(812, runtime, |_| {});
        stage.adopt(init(), pid, Parent::Call(call));
        stage.world().end(812, ExitStatus::Signal(Signal::TERM));
        stage.settle(RETRY);
        assert_eq!(stage.exits(), [], "the monitor knows more");
        stage.world().steal(812);
        stage.world().end(runtime, code(143));
        stage.settle(RETRY);
        assert_eq!(stage.exits(), [("c/init".into(), expected)]);
        // So short a life that the monitor's end came first.
        stage.adopt(exec(), pid, Parent::Call(call));
        assert_eq!(stage.exits(), [("c/exec-1".into(), code(143))]);
    }
}

#[test]
fn signals_go_to_the_group_and_never_to_our_own() {
    let mut stage = Stage::new();
    let pid = stage.world().add(10, OWN, |fake| fake.group = 9);
    stage.adopt(init(), pid, Parent::Us);
    let pid = stage.world().add(11, OWN, |fake| fake.group = OWN);
    stage.adopt(exec(), pid, Parent::Us);
    let (signal, scope) = (Signal::TERM, SignalScope::Group);
    stage.ask(0, |token| Request::Signal { token, process: init(), signal, scope });
    stage.ask(0, |token| Request::Signal { token, process: exec(), signal, scope });
    assert_eq!(stage.did(), ["SIGTERM -9", "SIGTERM 11"]);
}

#[test]
fn a_kill_does_what_it_is_asked_in_order_and_reaps_what_becomes_ours() {
    let mut stage = Stage::new();
    let pid = stage.world().add(10, OWN, |fake| fake.nested = false);
    stage.adopt(init(), pid, Parent::Us);
    stage.world().add(11, 10, |fake| fake.nested = false);
    stage.world().v1_only = true;
    let (everything, thaw) = (Some(members()), vec!["/sys/fs/cgroup/freezer".into()]);
    stage.ask(0, |token| Request::Kill { token, process: init(), everything, thaw });
    assert_eq!(stage.did(), ["SIGKILL -10", "SIGKILL 11", r#"thaw ["/sys/fs/cgroup/freezer"]"#]);
    stage.settle(RETRY);
    stage.sigchld();
    assert_eq!(stage.did(), ["reap 10"], "the other is not ours yet");
    // Its session and its cgroup say nothing: it was seen when it was killed.
    stage.world().processes.get_mut(&11).unwrap().parent = OWN;
    stage.sigchld();
    assert_eq!(stage.did(), ["reap 11"]);
}

#[test]
fn what_is_left_of_a_container_is_killed_until_nothing_is() {
    let mut stage = Stage::new();
    stage.world().add(11, OWN, |fake| fake.nested = false);
    let request = |token, patience| Request::EndAll {
        token,
        container: container(),
        members: members(),
        thaw: vec![],
        patience,
    };
    let token = stage.ask(0, |token| request(token, Duration::from_secs(1)));
    // One that was forked meanwhile.
    stage.world().add(12, OWN, |fake| fake.nested = false);
    stage.settle(CHECK_INTERVAL * 3);
    assert!(stage.events().contains(&Event::Done { token }));
    assert!(stage.world().processes.is_empty(), "{:?}", stage.world().processes);
}

#[test]
fn unadopted_children_of_a_container_are_ended() {
    let mut stage = Stage::new();
    stage.world().add(11, OWN, |_| {});
    stage.world().add(12, OWN, |fake| fake.comm = "runc:[2:INIT]");
    stage.world().add(13, OWN, |fake| (fake.comm, fake.cgroup) = ("runc:[2:INIT]", "/longshore/e/other"));
    let started = stage.world().add(14, OWN, |_| {});
    let stranger = stage.world().add(15, 7, |fake| fake.cgroup = "/user");
    for started in [started, stranger] {
        let started = Some(started);
        let token =
            stage.ask(0, |token| Request::EndUnadopted { token, members: members(), all: false, started });
        stage.settle(RETRY);
        assert!(stage.events().contains(&Event::Done { token }));
    }
    assert_eq!(stage.world().processes.keys().copied().collect::<Vec<_>>(), [11, 13, 15]);
    stage.ask(0, |token| Request::EndUnadopted { token, members: members(), all: true, started: None });
    stage.settle(RETRY);
    assert_eq!(stage.world().processes.keys().copied().collect::<Vec<_>>(), [13, 15]);
}

#[test]
fn the_process_is_a_subreaper_while_anyone_needs_it() {
    let mut stage = Stage::new();
    let _others = stage.join(1);
    for client in [0, 1, 1] {
        stage.ask(client, |token| Request::Subreap { token, on: true });
    }
    stage.ask(0, |token| Request::Subreap { token, on: false });
    assert!(stage.world().subreaper);
    stage.table.leave(1);
    assert!(!stage.world().subreaper);
    stage.world().subreaper = true;
    for on in [true, false] {
        stage.ask(0, |token| Request::Subreap { token, on });
        assert!(stage.world().subreaper, "it was one before");
    }
}

#[test]
fn a_client_that_leaves_is_forgotten() {
    let mut stage = Stage::new();
    let pid = stage.world().add(10, OWN, |_| {});
    stage.adopt(init(), pid, Parent::Us);
    stage.table.leave(0);
    stage.world().end(10, code(0));
    stage.settle(RETRY);
    assert!(!stage.table.is_needed() && stage.did().is_empty());
}

#[test]
fn a_call_that_outlives_its_client_is_reaped() {
    let mut stage = Stage::new();
    let (_, runtime) = stage.spawn();
    stage.table.leave(0);
    assert!(stage.table.is_needed());
    stage.world().end(runtime, code(0));
    stage.settle(RETRY);
    assert_eq!(stage.did(), ["reap 100"]);
    assert!(!stage.table.is_needed());
    assert_eq!(stage.events(), []);
}
