//! A container that was reserved, as the driver knows it.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::sync::{Arc, Mutex, OnceLock};

use executor_core::lifecycle::{HostPid, ProcessId, TerminalSize, Usage};
use executor_core::{ContainerSpec, NetworkNamespace, NetworkTraits};
use executor_host::cgroup::Cgroups;
use executor_host::procfs::{self, Stat};
use executor_host::terminal::Terminal;
use executor_host::{Ended, Members, Place, Reservation};
use tokio::sync::watch;

use super::created::Layout;
use crate::lock;

pub(super) struct DriverContainer {
    pub(super) reservation: Reservation,
    pub(super) spec: Arc<ContainerSpec>,
    pub(super) network: NetworkTraits,
    /// Where its network is, once it is attached.
    pub(super) namespace: OnceLock<NetworkNamespace>,
    pub(super) init: OnceLock<HostPid>,
    /// The end of init.
    pub(super) ended: OnceLock<Ended>,
    /// How init waits to be started, when it was created.
    pub(super) layout: OnceLock<Layout>,
    /// Found when init runs, so that nothing has to be looked for when it ends.
    cgroups: OnceLock<Cgroups>,
    starts: Mutex<Starts>,
    terminals: Mutex<Terminals>,
}

/// The starts that are under way.
#[derive(Default)]
struct Starts {
    /// Each is given up by sending here, and is over when the channel is closed.
    under_way: HashMap<ProcessId, watch::Sender<bool>>,
    /// The container is being released.
    closed: bool,
}

/// The terminals of processes, and the sizes of those that are still to come. An entry is the present process's: it goes when
/// that has ended, at the latest when another of the same id is started.
#[derive(Default)]
struct Terminals {
    awaited: HashMap<ProcessId, Arc<Terminal>>,
    /// Asked for before there was anything to resize.
    sizes: HashMap<ProcessId, TerminalSize>,
}

impl DriverContainer {
    pub(super) fn new(reservation: Reservation, spec: Arc<ContainerSpec>, network: NetworkTraits) -> Self {
        Self {
            reservation,
            spec,
            network,
            namespace: OnceLock::new(),
            init: OnceLock::new(),
            ended: OnceLock::new(),
            layout: OnceLock::new(),
            cgroups: OnceLock::new(),
            starts: Mutex::default(),
            terminals: Mutex::default(),
        }
    }

    /// The start of a new process: a terminal that an earlier one of this id had is not its own. None once the container is
    /// being released.
    pub(super) fn begin_start(self: Arc<Self>, process: ProcessId) -> Option<PendingStart> {
        let start = self.register_start(process)?;
        // A size that was asked for may be the new one's already.
        lock(&start.container.terminals).awaited.remove(&start.process);
        Some(start)
    }

    /// From now on the start of this process can be given up, until what is answered here is dropped.
    pub(super) fn register_start(self: Arc<Self>, process: ProcessId) -> Option<PendingStart> {
        let (abandon, abandoned) = watch::channel(false);
        {
            let mut starts = lock(&self.starts);
            if starts.closed {
                return None;
            }
            starts.under_way.insert(process.clone(), abandon);
        }
        Some(PendingStart { container: self, process, abandoned })
    }

    pub(super) fn abandon(&self, process: &ProcessId) {
        if let Some(abandon) = lock(&self.starts).under_way.get(process) {
            abandon.send_replace(true);
        }
    }

    /// Gives every start up, lets none begin, and answers when all are over: a runtime that still works would make anew what
    /// is being removed.
    pub(super) async fn close_starts(&self) {
        let under_way: Vec<_> = {
            let mut starts = lock(&self.starts);
            starts.closed = true;
            starts.under_way.values().cloned().collect()
        };
        for start in &under_way {
            start.send_replace(true);
        }
        for start in under_way {
            start.closed().await;
        }
    }

    /// The terminal that this process will get, of the size that was asked for last, or of this one.
    pub(super) fn await_terminal(&self, process: &ProcessId, size: TerminalSize) -> Arc<Terminal> {
        // Under one lock: a size that is asked for meanwhile goes to either.
        let mut terminals = lock(&self.terminals);
        let size = terminals.sizes.remove(process).unwrap_or(size);
        let terminal = Arc::new(Terminal::awaited(size));
        terminals.awaited.insert(process.clone(), Arc::clone(&terminal));
        terminal
    }

    /// Gives the terminal of a process another size, or keeps the size for one that is still to come.
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

    /// The size that was asked for before there was a terminal.
    pub(super) fn asked_size(&self, process: &ProcessId) -> Option<TerminalSize> {
        lock(&self.terminals).sizes.get(process).copied()
    }

    /// The process has ended: the next of its id has another terminal.
    pub(super) fn forget_terminal(&self, process: &ProcessId) {
        let mut terminals = lock(&self.terminals);
        terminals.awaited.remove(process);
        terminals.sizes.remove(process);
    }

    /// The start is over: a terminal that has not come by now does not come.
    fn end_start(&self, process: &ProcessId) {
        {
            let mut terminals = lock(&self.terminals);
            terminals.sizes.remove(process);
            if terminals.awaited.get(process).is_some_and(|terminal| !terminal.was_received()) {
                terminals.awaited.remove(process);
            }
        }
        lock(&self.starts).under_way.remove(process);
    }

    /// Before init runs they may not be there yet; afterwards they are looked for once. Blocks for a moment.
    pub(super) fn cgroups(&self) -> Cgroups {
        let at =
            || self.reservation.cgroup.as_ref().map_or_else(Cgroups::none, |place| Cgroups::at(&place.path));
        let find = || self.reservation.cgroups().unwrap_or_else(|_| at());
        match self.init.get() {
            Some(_) => self.cgroups.get_or_init(find).clone(),
            None => find(),
        }
    }

    /// The same if they were looked for already.
    pub(super) fn known_cgroups(&self) -> Option<&Cgroups> {
        self.cgroups.get()
    }

    /// What says that a process is in it, by what is known without looking.
    pub(super) fn members(&self) -> Members {
        self.reservation.members(self.cgroups.get(), self.init.get().copied())
    }

    /// The directories with its freezers.
    pub(super) fn freezers(&self) -> Vec<OsString> {
        match self.members() {
            Members::Cgroup { dirs, .. } => dirs,
            Members::PidNamespace { .. } => Vec::new(),
        }
    }

    /// The host pids of what is in it: by its cgroup, or by its pid namespace where no cgroups may be made. Blocks.
    pub(super) fn processes(&self) -> BTreeSet<HostPid> {
        let mut pids: BTreeSet<_> = match (&self.reservation.cgroup, self.init.get()) {
            (None, Some(init)) => procfs::in_pid_namespace_of(*init).collect(),
            (Some(_), _) | (None, None) => self.cgroups().processes(),
        };
        // A process leaves its cgroup after it has closed its files: by then others may know of its end. Of a process
        // whose first thread has ended others may live on.
        pids.retain(|pid| Stat::of(*pid).is_some_and(|stat| !stat.is_ending() || stat.threads > 1));
        pids
    }

    /// Blocks for a moment.
    pub(super) fn has_ended(&self) -> bool {
        self.init.get().is_none_or(|init| Stat::of(*init).is_none_or(|stat| stat.is_ending()))
    }

    /// What it has used so far, and what went over its network as long as its processes live. What goes over the host's is not
    /// the container's. Blocks for a moment.
    pub(super) fn usage(&self) -> Usage {
        let own = self.namespace.get().is_some_and(|namespace| *namespace != NetworkNamespace::Host);
        let init = self.init.get().filter(|_| own && !self.has_ended());
        let network = init.and_then(|init| procfs::network_usage(*init));
        Usage { network, ..self.cgroups().usage() }
    }

    pub(super) fn place(&self) -> Place<'_> {
        let cgroup = self.reservation.cgroup.as_ref().map(|place| place.cgroups_path.as_str());
        Place { id: &self.reservation.id, dir: &self.reservation.dir, cgroup }
    }
}

/// A start that is under way.
pub(super) struct PendingStart {
    pub(super) container: Arc<DriverContainer>,
    pub(super) process: ProcessId,
    abandoned: watch::Receiver<bool>,
}

impl PendingStart {
    /// Until it is given up.
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

/// How the names of a process's files in its container's directory begin. No exec can have init's.
pub(super) fn stem(process: &ProcessId) -> String {
    match process {
        ProcessId::Init => "init".to_owned(),
        ProcessId::Exec(exec) => format!("exec.{exec}"),
    }
}
