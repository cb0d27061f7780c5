//! What the driver knows of one container, and the starts and terminals of its processes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use executor_core::lifecycle::{HostPid, ProcessId, SeenKills, StartFailure, TerminalSize, Usage};
use executor_core::{ContainerSpec, NetworkNamespace, NetworkTraits};
use executor_host::cgroup::Cgroups;
use executor_host::journal::Journal;
use executor_host::procfs::{self, Stat};
use executor_host::terminal::Terminal;
use executor_host::{Ended, Members, Place, ProcessEnd, Reservation};
use serde_json::Value;
use tokio::sync::watch;

use super::created::Layout;
use super::kept::{Found, LeftTerminals};
use super::update::Updates;
use crate::{Error, lock};

pub(super) struct DriverContainer {
    pub(super) reservation: Reservation,
    pub(super) spec: Arc<ContainerSpec>,
    pub(super) network: NetworkTraits,
    /// The namespace of its network, once it is attached.
    pub(super) namespace: OnceLock<NetworkNamespace>,
    pub(super) init: OnceLock<HostPid>,
    /// Completes with init's end.
    pub(super) ended: OnceLock<Ended<ProcessEnd>>,
    /// How a created init waits for its start.
    pub(super) layout: OnceLock<Layout>,
    /// Its processes, on disk.
    pub(super) journal: Journal,
    /// Found while init runs, so that its exit does not wait for it.
    cgroups: OnceLock<Cgroups>,
    starts: Mutex<Starts>,
    terminals: Mutex<Terminals>,
    pub(super) updates: Updates,
    /// What another executor has left of its processes, until it is taken up.
    pub(super) left: Mutex<BTreeMap<ProcessId, Found>>,
    pub(super) left_terminals: Mutex<LeftTerminals>,
    /// Whether it has a memory limit of its own.
    has_memory_limit: AtomicBool,
    /// The kills for lack of memory that its usage has had so far.
    seen_kills: Mutex<SeenKills>,
}

/// The starts in progress.
#[derive(Default)]
struct Starts {
    /// Sending `true` abandons a start. A start is over when its channel is closed.
    senders: HashMap<ProcessId, watch::Sender<bool>>,
    /// The container is being released.
    closed: bool,
}

/// The terminals of processes, and the sizes of terminals that do not exist yet. An entry is removed when its
/// process has exited, or when another process with the same id is started.
#[derive(Default)]
struct Terminals {
    awaited: HashMap<ProcessId, Arc<Terminal>>,
    /// Sizes that were requested before there was a terminal.
    sizes: HashMap<ProcessId, TerminalSize>,
}

impl DriverContainer {
    pub(super) fn new(reservation: Reservation, spec: Arc<ContainerSpec>, network: NetworkTraits) -> Self {
        let has_memory_limit = reservation.cgroup.is_some() && limits_memory(&spec);
        Self {
            reservation,
            spec,
            network,
            namespace: OnceLock::new(),
            init: OnceLock::new(),
            ended: OnceLock::new(),
            layout: OnceLock::new(),
            journal: Journal::default(),
            cgroups: OnceLock::new(),
            starts: Mutex::default(),
            terminals: Mutex::default(),
            updates: Updates::default(),
            left: Mutex::default(),
            left_terminals: Mutex::default(),
            has_memory_limit: has_memory_limit.into(),
            seen_kills: Mutex::default(),
        }
    }

    /// Begins the start of a new process, and forgets the terminal of an earlier process with the same id.
    /// `None` once the container is being released.
    pub(super) fn begin_start(self: Arc<Self>, process: ProcessId) -> Option<PendingStart> {
        let start = self.register_start(process)?;
        // The size is kept: it may have been requested for the new process.
        lock(&start.container.terminals).awaited.remove(&start.process);
        Some(start)
    }

    /// Registers a start. It can be abandoned until the returned value is dropped.
    pub(super) fn register_start(self: Arc<Self>, process: ProcessId) -> Option<PendingStart> {
        let (abandon, abandoned) = watch::channel(false);
        {
            let mut starts = lock(&self.starts);
            if starts.closed {
                return None;
            }
            starts.senders.insert(process.clone(), abandon);
        }
        Some(PendingStart { container: self, process, abandoned })
    }

    /// The program of its init.
    pub(super) fn program(&self) -> &str {
        self.spec.process.args.first().map_or("", String::as_str)
    }

    pub(super) fn abandon(&self, process: &ProcessId) {
        if let Some(abandon) = lock(&self.starts).senders.get(process) {
            abandon.send_replace(true);
        }
    }

    /// Abandons every start, refuses new ones, and completes when all are over. A runtime that still works
    /// would make again what is being removed.
    pub(super) async fn close_starts(&self) {
        let senders: Vec<_> = {
            let mut starts = lock(&self.starts);
            starts.closed = true;
            starts.senders.values().cloned().collect()
        };
        for start in &senders {
            start.send_replace(true);
        }
        for start in senders {
            start.closed().await;
        }
    }

    /// The terminal that this process will get. It has the size that was requested last, or `size`.
    pub(super) fn await_terminal(&self, process: &ProcessId, size: TerminalSize) -> Arc<Terminal> {
        // Both steps are under one lock, so that a concurrent `resize` finds the old or the new state.
        let mut terminals = lock(&self.terminals);
        let requested = terminals.sizes.remove(process);
        let terminal = Arc::new(Terminal::awaited(requested.unwrap_or(size)));
        terminals.awaited.insert(process.clone(), Arc::clone(&terminal));
        terminal
    }

    /// The terminal of a process that another executor has started.
    pub(super) fn take_up_terminal(&self, process: ProcessId, terminal: Terminal) {
        lock(&self.terminals).awaited.insert(process, Arc::new(terminal));
    }

    /// Resizes the terminal of a process. Without a terminal, keeps the size for the one that will come.
    pub(super) fn resize(&self, process: &ProcessId, size: TerminalSize) -> executor_host::Result<()> {
        let terminal = {
            let mut terminals = lock(&self.terminals);
            let Some(terminal) = terminals.awaited.get(process) else {
                terminals.sizes.insert(process.clone(), size);
                return Ok(());
            };
            Arc::clone(terminal)
        };
        terminal.resize(size)
    }

    /// The size that was requested before there was a terminal.
    pub(super) fn requested_size(&self, process: &ProcessId) -> Option<TerminalSize> {
        lock(&self.terminals).sizes.get(process).copied()
    }

    /// Forgets the terminal of a process that has exited.
    pub(super) fn forget_terminal(&self, process: &ProcessId) {
        let mut terminals = lock(&self.terminals);
        terminals.awaited.remove(process);
        terminals.sizes.remove(process);
    }

    /// Ends a start. A terminal that was not received by now will not be received.
    fn end_start(&self, process: &ProcessId) {
        {
            let mut terminals = lock(&self.terminals);
            terminals.sizes.remove(process);
            if terminals.awaited.get(process).is_some_and(|terminal| !terminal.was_received()) {
                terminals.awaited.remove(process);
            }
        }
        lock(&self.starts).senders.remove(process);
    }

    /// Its cgroups. Once init runs, they are kept when they are found. If the runtime's state cannot be read, these are the
    /// default directories. Blocks for a moment.
    pub(super) fn cgroups(&self) -> Cgroups {
        if let Some(known) = self.cgroups.get() {
            return known.clone();
        }
        match (self.reservation.cgroups(), &self.reservation.cgroup) {
            (Ok(cgroups), _) if self.init.get().is_some() => self.cgroups.get_or_init(|| cgroups).clone(),
            (Ok(cgroups), _) => cgroups,
            (Err(_), Some(place)) => Cgroups::at(&place.path),
            (Err(_), None) => Cgroups::none(),
        }
    }

    /// Its cgroups, if they were found already.
    pub(super) fn known_cgroups(&self) -> Option<&Cgroups> {
        self.cgroups.get()
    }

    /// The evidence that a process is in the container, without reading files.
    pub(super) fn members(&self) -> Members {
        self.reservation.members(self.cgroups.get(), self.init.get().copied())
    }

    /// Whether it has a memory limit of its own. Then what is killed in it for lack of memory is looked for.
    pub(super) fn has_memory_limit(&self) -> bool {
        self.has_memory_limit.load(Ordering::Relaxed)
    }

    /// It has a memory limit from now on.
    pub(super) fn set_memory_limit(&self) {
        self.has_memory_limit.store(true, Ordering::Relaxed);
    }

    /// The directories of its freezers.
    pub(super) fn freezers(&self) -> Vec<OsString> {
        match self.members() {
            Members::Cgroup { dirs, .. } => dirs,
            Members::PidNamespace { .. } => Vec::new(),
        }
    }

    /// The host pids of its processes, by its cgroup, or by its pid namespace if it has no cgroup. Blocks.
    pub(super) fn processes(&self) -> io::Result<BTreeSet<HostPid>> {
        let pids: BTreeSet<_> = match (&self.reservation.cgroup, self.init.get()) {
            (None, Some(init)) => procfs::in_pid_namespace_of(*init).collect(),
            (Some(_), _) | (None, None) => self.cgroups().list_processes()?,
        };
        // An exiting process leaves its cgroup after it has closed its files, so its exit may have been
        // noticed before. If only its first thread has exited, other threads are alive.
        let mut alive = BTreeSet::new();
        for pid in pids {
            if Stat::read(pid)?.is_some_and(|stat| !stat.is_ending() || stat.threads > 1) {
                alive.insert(pid);
            }
        }
        Ok(alive)
    }

    /// What it has run out of, if a runtime may have failed for that. Blocks.
    pub(super) fn exhausted(&self) -> Option<String> {
        if self.reservation.has_no_space() {
            return Some("there is too little space left below the executor's root".to_owned());
        }
        let (has, most) = self.cgroups().full_of_processes()?;
        Some(format!("the container has {has} of {most} processes"))
    }

    /// Whether init has exited, or was never started. Blocks for a moment.
    pub(super) fn has_ended(&self) -> io::Result<bool> {
        let Some(init) = self.init.get() else { return Ok(true) };
        Ok(Stat::read(*init)?.is_none_or(|stat| stat.is_ending()))
    }

    /// Its usage so far. The traffic is included while init is alive, unless the network is the host's.
    /// Blocks for a moment.
    pub(super) fn usage(&self) -> io::Result<Usage> {
        let has_own_network =
            self.namespace.get().is_some_and(|namespace| *namespace != NetworkNamespace::Host);
        let init = if has_own_network && !self.has_ended()? { self.init.get() } else { None };
        let network = init.and_then(|init| procfs::network_usage(*init));
        // Held while the counters are read: of two readings, the later one is seen last.
        let mut seen = lock(&self.seen_kills);
        Ok(Usage { network, ..self.cgroups().usage(&mut seen)? })
    }

    /// Calls `work` with the place of its bundle.
    pub(super) fn at_place<T>(
        &self,
        work: impl FnOnce(&Place<'_>) -> Result<T, StartFailure>,
    ) -> Result<T, StartFailure> {
        let dir = self.reservation.open().map_err(|error| Error::from(error).start_failure())?;
        work(&self.reservation.place(&dir))
    }
}

/// Whether a specification, or the configuration in it, limits the memory. A `memory.high` of v2 is no limit in this sense:
/// it slows processes down, and nothing is killed.
fn limits_memory(spec: &ContainerSpec) -> bool {
    let configured = |pointer| spec.config.as_ref()?.json().pointer(pointer);
    let limit = configured("/linux/resources/memory/limit").and_then(Value::as_i64);
    let raw = configured("/linux/resources/unified/memory.max").and_then(Value::as_str);
    spec.resources.memory.is_some()
        || limit.is_some_and(|limit| limit > 0)
        || raw.is_some_and(|raw| raw.trim() != "max")
}

/// A start in progress.
pub(super) struct PendingStart {
    pub(super) container: Arc<DriverContainer>,
    pub(super) process: ProcessId,
    abandoned: watch::Receiver<bool>,
}

impl PendingStart {
    /// Completes when the start is abandoned.
    pub(super) async fn abandoned(&self) {
        if self.abandoned.clone().wait_for(|abandoned| *abandoned).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for PendingStart {
    fn drop(&mut self) {
        self.container.end_start(&self.process);
    }
}

/// The prefix of a process's files in its container's directory. No exec has the same prefix as init.
pub(super) fn stem(process: &ProcessId) -> String {
    match process {
        ProcessId::Init => "init".to_owned(),
        ProcessId::Exec(exec) => format!("exec.{exec}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let limits = |resources: &str| {
            let config = format!(r#"{{"root":{{"path":"rootfs"}},"linux":{{"resources":{resources}}}}}"#);
            std::fs::write(dir.path().join("config.json"), config).unwrap();
            limits_memory(&ContainerSpec::from_config(dir.path()).unwrap())
        };
        for (resources, expected) in [
            ("{}", false),
            (r#"{"memory":{"limit":4096}}"#, true),
            (r#"{"memory":{"limit":-1}}"#, false),
            (r#"{"unified":{"memory.max":"33554432"}}"#, true),
            (r#"{"unified":{"memory.max":"32M"}}"#, true),
            (r#"{"unified":{"memory.max":"max"}}"#, false),
            (r#"{"unified":{"memory.high":"4096"}}"#, false),
            (r#"{"memory":{"limit":-1},"unified":{"memory.max":"4096"}}"#, true),
        ] {
            assert_eq!(limits(resources), expected, "{resources}");
        }
    }
}
