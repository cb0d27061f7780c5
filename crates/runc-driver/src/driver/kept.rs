//! An executor that is kept: its keeper, what its predecessor has left, and taking that up.
//!
//! ```text
//!  open_kept ──▶ the name ▶ the keeper ▶ the containers on disk: specification, journal, pid files ▶ what was held
//!  adopt     ──▶ each process that has not ended, or its record ▶ what is half made is killed
//! ```
//! A container has its specification in `container.json`, which is written before anything is made of it, and its processes in its
//! journal, by their names. A process that was just started may be in a pid file only.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{ContainerId, ExecId, ExitStatus, HostPid, Leftover, ProcessId, ProcessRef};
use executor_core::{
    BoxStream, ChildFd, ContainerSpec, Kept, KeptContainer, KeptStreams, NetworkNamespace, RuntimeError,
    Stdio, StdioSpec, StreamKind, Unadopted,
};
use executor_disk::Dir;
use executor_host::keeper::{Keeper, KeeperError, Recorded, WeakKeeper};
use executor_host::procfs::Stat;
use executor_host::terminal::{Holder, Terminal};
use executor_host::{HostClient, Parent, ProcessEnd, RECORD, Reservation, Root, journal};
use futures::channel::mpsc;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::container::DriverContainer;
use super::pid_file::read_pid;
use super::pools::Pool;
use super::{CALL_DEADLINE, DriverState, Mode, Runc};
use crate::{Error, Result, lock};

/// The version of [`RECORD`] that this library writes, and the last one that it reads.
const VERSION: u32 = 1;

/// The most bytes of a file in a bundle that are read.
const LIMIT: u64 = 64 << 20;

/// The last part of the name under which a terminal is held.
const TERMINAL: &str = "terminal";

/// How long after a keeper that could not be started another one is tried.
const KEEPER_RETRY: Duration = Duration::from_secs(1);

/// How long a predecessor that has given up its name may have the keeper: a thread of it may still be in a call.
const PREDECESSOR_LEAVES: Duration = Duration::from_secs(2);

const TAKEN_INTERVAL: Duration = Duration::from_millis(5);

/// What an executor that is kept has besides.
pub(super) struct KeptHost {
    pub(super) keeper: Keeper,
    pub(super) client: HostClient,
    pub(super) is_detached: AtomicBool,
    /// Its keeper ends, or is left alone.
    pub(super) is_leaving: AtomicBool,
}

/// The exits of processes that could not be taken up.
pub(super) struct LostExits {
    sender: mpsc::UnboundedSender<(ProcessRef, ProcessEnd)>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<(ProcessRef, ProcessEnd)>>>,
}

impl Default for LostExits {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded();
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl LostExits {
    fn send(&self, process: ProcessRef, end: ProcessEnd) {
        // If the executor has stopped, nobody waits for it.
        drop(self.sender.unbounded_send((process, end)));
    }

    /// The stream of them. A second call returns an empty one.
    pub(super) fn take(&self) -> BoxStream<'static, (ProcessRef, ProcessEnd)> {
        lock(&self.receiver).take().map_or_else(|| stream::empty().boxed(), StreamExt::boxed)
    }
}

/// The contents of [`RECORD`].
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    spec: ContainerSpec,
}

/// The version alone: a later one may have another specification.
#[derive(Deserialize)]
struct AnyRecord {
    version: u32,
}

impl Runc {
    pub(super) fn open_as_kept(&self, root: &Path, name: &str) -> std::result::Result<Kept, RuntimeError> {
        let shared = &self.shared;
        let failed = |source: Error| RuntimeError::Root { root: root.to_owned(), source: source.into() };
        if shared.opened.get().is_some() {
            let taken = io::Error::other("this driver has a root already");
            return Err(RuntimeError::Root { root: root.to_owned(), source: taken.into() });
        }
        if shared.mode == Mode::Foreground {
            return Err(RuntimeError::unsupported("keep an executor in the foreground, as", name));
        }
        let (own, swept) =
            Root::open_kept(root, name, &*shared.bundles).map_err(|error| failed(error.into()))?;
        let keeper = keeper_of(&own).map_err(failed)?;
        let client = HostClient::kept(keeper.clone()).map_err(|error| failed(error.into()))?;
        let ledger = own.ledger().map_err(|error| failed(error.into()))?;
        let reservations = own.reservations().map_err(|error| failed(error.into()))?;
        let held = keeper.held().map_err(|error| failed(error.into()))?;
        let _first =
            shared.kept.set(KeptHost { keeper, client, is_detached: false.into(), is_leaving: false.into() });
        shared.enter(own);
        let (mut containers, mut unadopted) = (Vec::new(), Vec::new());
        for reservation in reservations {
            let id = reservation.id.clone();
            match shared.find_kept(reservation, &held) {
                Ok(container) => containers.push(container),
                Err(error) => unadopted.push(Unadopted::new(id.as_str(), words(&error))),
            }
        }
        Ok(Kept { swept, ledger: Arc::new(ledger), containers, unadopted })
    }
}

/// The keeper of the predecessor, or a new one.
fn keeper_of(root: &Root) -> Result<Keeper> {
    let Some(dir) = root.kept() else { return Err(executor_host::Error::NotKept.into()) };
    let cgroup = root.keeper_cgroup();
    let deadline = Instant::now() + PREDECESSOR_LEAVES;
    let connected = loop {
        let connected = match &cgroup {
            Some(cgroup) => Keeper::connect_in(dir, cgroup),
            None => Keeper::connect(dir),
        };
        match connected {
            // The root's name is ours: whoever has the keeper is about to leave it.
            Err(KeeperError::Taken { .. }) if Instant::now() < deadline => thread::sleep(TAKEN_INTERVAL),
            connected => break connected?,
        }
    };
    let Some(keeper) = connected else { return Ok(Keeper::start(dir, cgroup.as_deref())?) };
    if !keeper.is_current() {
        tracing::info!(pid = %keeper.pid(), "the keeper is of another version, and is upgraded in place");
        keeper.upgrade()?;
    }
    Ok(keeper)
}

impl DriverState {
    /// Whether what runs outlives this process.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.get().is_some()
    }

    pub(super) fn is_detached(&self) -> bool {
        self.kept.get().is_some_and(|kept| kept.is_detached.load(Ordering::Relaxed))
    }

    fn find_kept(&self, reservation: Reservation, held: &[String]) -> Result<KeptContainer> {
        let id = reservation.id.clone();
        let dir = reservation.open()?;
        let spec = read_record(&dir)?;
        let processes = self.processes_of(&dir)?;
        let (streams, terminals) = self.streams_of(&id, &spec, held)?;
        let executed = processes.iter().filter(|(_, found)| found.has_executed);
        let executed = executed.map(|(process, found)| (process.clone(), found.pid)).collect();
        let network = self.bundles.network(&spec);
        let container = DriverContainer::new(reservation, Arc::new(spec.clone()), network);
        if let Some(namespace) = namespace_of(&dir) {
            let _first = container.namespace.set(namespace);
        }
        *lock(&container.left) = processes;
        *lock(&container.left_terminals) = terminals;
        let is_frozen = container.cgroups().is_frozen();
        lock(&self.containers).insert(id.clone(), Arc::new(container));
        Ok(KeptContainer { id, spec, executed, is_frozen, streams })
    }

    /// The processes in the journal, and those that were just started.
    fn processes_of(&self, dir: &Dir) -> Result<BTreeMap<ProcessId, Found>> {
        let mut all = BTreeMap::new();
        for (name, recorded) in journal::processes(dir)? {
            let Some(process) = process_of(&name) else { continue };
            let journal::Recorded { pid, start, is_alive } = recorded;
            all.insert(process, self.look_at(pid, Some(start), is_alive));
        }
        let names = dir.names().map_err(Error::file("list", dir.path()))?;
        for name in names.iter().filter_map(|name| name.strip_suffix(".pid")) {
            let process = if name == "init" {
                Some(ProcessId::Init)
            } else {
                name.strip_prefix("exec.").and_then(process_of)
            };
            let pid = read_pid(dir, &format!("{name}.pid"));
            if let Some((process, pid)) = process.zip(pid) {
                let is_alive = Stat::of(pid).is_some_and(|stat| !stat.is_ending());
                all.insert(process, self.look_at(pid, None, is_alive));
            }
        }
        Ok(all)
    }

    fn look_at(&self, pid: HostPid, start: Option<u64>, is_alive: bool) -> Found {
        if is_alive {
            return Found {
                pid,
                is_alive,
                has_executed: Stat::of(pid).is_none_or(|stat| stat.has_executed()),
            };
        }
        let recorded = self.kept.get().map(|kept| kept.keeper.record(pid, start));
        // What nobody knows anything of is taken for a program that has run: its exit is unknown then.
        let has_executed = match recorded {
            Some(Ok(Recorded::Ended(record))) => record.has_executed,
            Some(Ok(Recorded::Alive | Recorded::Unknown) | Err(_)) | None => true,
        };
        Found { pid, is_alive, has_executed }
    }

    /// The ends of pipes, and the terminals, that are held for a container. A terminal gets new pipes.
    fn streams_of(
        &self,
        id: &ContainerId,
        spec: &ContainerSpec,
        held: &[String],
    ) -> Result<(AllStreams, LeftTerminals)> {
        let (mut all, mut terminals) = (AllStreams::new(), LeftTerminals::new());
        let Some(KeptHost { keeper, .. }) = self.kept.get() else { return Ok((all, terminals)) };
        for name in held {
            let mut parts = name.split('/');
            let (Some(of), Some(process), Some(stream)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let Some(process) = process_of(process).filter(|_| of == id.as_str()) else { continue };
            let streams = all.entry(process.clone()).or_default();
            match stream {
                "stdin" => streams.stdin = Some(keeper.take(name)?),
                "stdout" => streams.stdout = Some(keeper.take(name)?),
                "stderr" => streams.stderr = Some(keeper.take(name)?),
                TERMINAL => {
                    let spec = Some(&spec.process.stdio).filter(|_| process == ProcessId::Init);
                    let master = keeper.take(name)?;
                    let terminal = LeftTerminal::connect(master, spec, streams)
                        .map_err(|error| Error::file("make a pipe for", Path::new(name))(error))?;
                    terminals.insert(process, terminal);
                }
                _ => {}
            }
        }
        Ok((all, terminals))
    }

    pub(super) fn holder(&self, process: ProcessRef) -> TerminalHolder {
        TerminalHolder { keeper: self.kept.get().map(|kept| kept.keeper.downgrade()), process }
    }

    fn take_up_terminals(&self, container: &DriverContainer) {
        for (process, terminal) in std::mem::take(&mut *lock(&container.left_terminals)) {
            let named = ProcessRef { container: container.reservation.id.clone(), process: process.clone() };
            let LeftTerminal { master, stdin, stdout } = terminal;
            match Terminal::resume(master, stdin, stdout, self.holder(named.clone())) {
                Ok(terminal) => container.take_up_terminal(process, terminal),
                Err(error) => tracing::warn!(process = %named, %error, "a terminal is not copied"),
            }
        }
    }

    pub(super) fn adopt_kept(self: &Arc<Self>, id: &ContainerId, processes: Vec<(ProcessId, HostPid)>) {
        let Ok(container) = self.container(id) else { return };
        let left = std::mem::take(&mut *lock(&container.left));
        self.take_up_terminals(&container);
        for (process, pid) in processes {
            let is_alive = left.get(&process).is_some_and(|found| found.pid == pid && found.is_alive);
            let parent = if is_alive { Parent::Us } else { Parent::Ended };
            if process == ProcessId::Init {
                let _first = container.init.set(pid);
            }
            self.track_kills(&container, &process);
            let named = ProcessRef { container: id.clone(), process };
            let adopted = self.host().adopt(named.clone(), pid, parent, container.members());
            let (own, container) = (Arc::clone(self), Arc::clone(&container));
            tokio::spawn(async move {
                match adopted.await {
                    Ok(adopted) => {
                        if named.process == ProcessId::Init {
                            let _first = container.ended.set(adopted.ended());
                        }
                        adopted.report();
                    }
                    Err(error) => {
                        tracing::error!(process = %named, %error, "a process was not taken up; it is killed");
                        let status = ExitStatus::Unknown;
                        own.lost.send(named, ProcessEnd { status, oom: None, has_executed: None, at: None });
                    }
                }
            });
        }
        let (own, shares_pids) = (Arc::clone(self), container.spec.shares_pids());
        tokio::spawn(async move {
            // What a runtime of the predecessor was making. Without a pid namespace, what a program has left may be among it.
            if let Err(error) = own.host().end_unadopted(container.members(), !shares_pids, None).await {
                tracing::warn!(%error, "what a runtime has left was not killed");
            }
            if container.init.get().is_some() {
                own.find_cgroups(container).await;
            }
        });
    }

    /// Starts another keeper whenever one has ended, until the executor leaves. Needs a tokio runtime.
    pub(super) fn replace_keepers(self: &Arc<Self>) {
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                let Some(keeper) = shared.upgrade().and_then(|own| Some(own.kept.get()?.keeper.clone()))
                else {
                    return;
                };
                if let Err(error) = keeper.ended().await {
                    return tracing::warn!(%error, "the end of the keeper would not be seen");
                }
                let Some(own) = shared.upgrade().filter(|own| !own.is_leaving()) else { return };
                let renew = Arc::clone(&own);
                let renewed = own.pools.run(Pool::Reads, move || renew.renew_keeper()).await;
                if let Err(error) = renewed.and_then(|renewed| renewed) {
                    tracing::error!(%error, "there is no keeper: nothing can be started");
                    tokio::time::sleep(KEEPER_RETRY).await;
                }
            }
        });
    }

    fn renew_keeper(&self) -> Result<()> {
        let (Some(kept), opened) = (self.kept.get(), self.opened()?) else { return Ok(()) };
        tracing::warn!("the keeper has ended; another one is started");
        let another = keeper_of(&opened.root)?;
        kept.keeper.replace_by(another);
        Ok(())
    }

    /// Whether the keeper's end is its own wish by now.
    fn is_leaving(&self) -> bool {
        self.kept.get().is_none_or(|kept| kept.is_leaving.load(Ordering::Relaxed))
    }

    pub(super) fn hold_end(&self, process: &ProcessRef, stream: StreamKind, end: BorrowedFd<'_>) {
        let Some(KeptHost { keeper, .. }) = self.kept.get() else { return };
        if let Err(error) = keeper.hold(&held_name(process, stream_name(stream)), end) {
            tracing::warn!(%process, ?stream, %error, "a pipe does not outlive this process");
        }
    }

    pub(super) fn unhold_end(&self, process: &ProcessRef, stream: StreamKind) {
        self.unhold_all(&held_name(process, stream_name(stream)));
    }

    /// Lets what runs run on: closing ends nothing.
    pub(super) fn detach(&self) {
        if let Some(kept) = self.kept.get() {
            kept.is_leaving.store(true, Ordering::Relaxed);
            kept.is_detached.store(true, Ordering::Relaxed);
        }
    }

    /// Leaves everything as it is. What a start has half made is ended by the successor.
    pub(super) fn leave_kept(&self) -> Vec<Leftover> {
        if !self.pools.close(CALL_DEADLINE) {
            tracing::warn!("work that does not end was left");
        }
        lock(&self.containers).clear();
        Vec::new()
    }

    /// Ends the keeper, when nothing is left for it.
    pub(super) fn quit_keeper(&self) -> Vec<Leftover> {
        let Some(KeptHost { keeper, is_leaving, .. }) = self.kept.get() else { return Vec::new() };
        is_leaving.store(true, Ordering::Relaxed);
        keeper.quit().unwrap_or_else(|error| {
            tracing::warn!(%error, "the keeper was not ended");
            Vec::new()
        })
    }

    /// Has the keeper close what it holds under names that begin so.
    pub(super) fn unhold_all(&self, prefix: &str) {
        let Some(KeptHost { keeper, .. }) = self.kept.get() else { return };
        if let Err(error) = keeper.release(prefix) {
            tracing::debug!(prefix, %error, "the keeper holds it on");
        }
    }
}

type AllStreams = BTreeMap<ProcessId, KeptStreams>;

/// The terminals that the predecessor has left, until they are taken up.
pub(super) type LeftTerminals = BTreeMap<ProcessId, LeftTerminal>;

/// A terminal, and this driver's ends of the pipes that are copied to and from it.
pub(super) struct LeftTerminal {
    master: OwnedFd,
    stdin: ChildFd,
    stdout: ChildFd,
}

impl LeftTerminal {
    /// Makes the pipes. What the streams of an exec were is not known: both are pipes.
    fn connect(master: OwnedFd, spec: Option<&StdioSpec>, streams: &mut KeptStreams) -> io::Result<Self> {
        let is_piped = |stream: &Stdio| matches!(stream, Stdio::Pipe | Stdio::Shared { .. });
        let (mut stdin, mut stdout) = (ChildFd::Null, ChildFd::Null);
        if spec.is_none_or(|spec| is_piped(&spec.stdin)) {
            let (theirs, ours) = io::pipe()?;
            (stdin, streams.stdin) = (ChildFd::Fd(Arc::new(theirs.into())), Some(ours.into()));
        }
        if spec.is_none_or(|spec| is_piped(&spec.stdout)) {
            let (ours, theirs) = io::pipe()?;
            (stdout, streams.stdout) = (ChildFd::Fd(Arc::new(theirs.into())), Some(ours.into()));
        }
        Ok(Self { master, stdin, stdout })
    }
}

/// Has a terminal held by the keeper, if there is one.
pub(super) struct TerminalHolder {
    /// The threads that copy terminals may end after the driver. Its successor must not wait for them.
    keeper: Option<WeakKeeper>,
    process: ProcessRef,
}

impl TerminalHolder {
    fn keeper(&self) -> Option<Keeper> {
        self.keeper.as_ref()?.upgrade()
    }
}

impl Holder for TerminalHolder {
    fn hold(&self, master: &OwnedFd) {
        let Some(keeper) = self.keeper() else { return };
        if let Err(error) = keeper.hold(&held_name(&self.process, TERMINAL), master) {
            tracing::warn!(process = %self.process, %error, "a terminal does not outlive this process");
        }
    }

    fn close(&self) {
        let Some(keeper) = self.keeper() else { return };
        if let Err(error) = keeper.release(&held_name(&self.process, TERMINAL)) {
            tracing::debug!(process = %self.process, %error, "the keeper holds a terminal on");
        }
    }
}

/// A process that the predecessor has left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pid: HostPid,
    is_alive: bool,
    has_executed: bool,
}

/// What is written down of a container.
pub(super) fn record_of(spec: &ContainerSpec) -> Result<Vec<u8>> {
    let mut spec = spec.clone();
    spec.mounts.retain(|mount| !mount.is_secret());
    let text = serde_json::to_vec(&Record { version: VERSION, spec });
    text.map_err(|error| Error::file("write", Path::new(RECORD))(error.into()))
}

fn read_record(dir: &Dir) -> Result<ContainerSpec> {
    let failed = |error: std::io::Error| Error::file("read", &dir.path_of(RECORD))(error);
    let text = dir.read(RECORD, LIMIT).map_err(failed)?;
    let AnyRecord { version } = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
    if version > VERSION {
        let why = format!("it has version {version}, and this library reads up to {VERSION}");
        return Err(failed(std::io::Error::other(why)));
    }
    let Record { spec, .. } = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
    Ok(spec)
}

/// The network namespace that its configuration names.
fn namespace_of(dir: &Dir) -> Option<NetworkNamespace> {
    let config: serde_json::Value = serde_json::from_slice(&dir.read("config.json", LIMIT).ok()?).ok()?;
    let namespaces = config.pointer("/linux/namespaces")?.as_array()?;
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network");
    Some(match network.map(|network| network["path"].as_str()) {
        None => NetworkNamespace::Host,
        Some(None) => NetworkNamespace::New,
        Some(Some(path)) => NetworkNamespace::At(path.into()),
    })
}

/// A process, by its name in the journal.
fn process_of(name: &str) -> Option<ProcessId> {
    match name {
        "init" => Some(ProcessId::Init),
        exec => ExecId::new(exec).ok().map(ProcessId::Exec),
    }
}

const fn stream_name(stream: StreamKind) -> &'static str {
    match stream {
        StreamKind::Stdin => "stdin",
        StreamKind::Stdout => "stdout",
        StreamKind::Stderr => "stderr",
    }
}

/// The name under which the keeper holds a descriptor of a process.
fn held_name(process: &ProcessRef, stream: &str) -> String {
    format!("{}/{}/{stream}", process.container, process.process)
}

/// An error with its causes.
fn words(error: &Error) -> String {
    executor_core::lifecycle::with_causes(error)
}
