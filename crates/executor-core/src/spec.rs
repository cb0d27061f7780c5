//! The specification of a container and of its processes.
//!
//! The parts have files of their own: [`rootfs`](Rootfs), [`network`](Network), [`stdio`](Stdio). `builders` sets the
//! usual fields, `validate` finds invalid ones, `env` is the form of variables in JSON.

mod builders;
mod env;
mod network;
mod rootfs;
mod stdio;
mod sysctl;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use executor_lifecycle::container::{ContainerTraits, KeepExited};
use executor_lifecycle::process::{ProcessTraits, Terms, TimeLimit};
use executor_lifecycle::{ContainerId, ExecId, TerminalSize};
use serde::{Deserialize, Serialize};

pub use self::network::{Network, NetworkAttachment, NetworkNamespace, NetworkTraits};
pub use self::rootfs::{Rootfs, UpperLayer};
pub use self::stdio::{Stdio, StdioSpec};
pub(crate) use self::validate::{absolute, host_name, invalid, no_control, no_nul, word};
use crate::{
    Capability, CgroupParent, Config, Device, Dns, ExtraHost, IdMap, Mount, ProcessMode, Resources, Seccomp,
    Security, Selinux, Telemetry, Ulimit,
};

/// A container and its first process.
///
/// In JSON, an absent field has its default: `{"process": {"args": ["make"]}}` is complete. An unknown field is an
/// error.
///
/// ```
/// # use executor_core::*;
/// # use executor_core::lifecycle::*;
/// # use executor_sim::{SimRuntime, Simulation};
/// # use std::time::Duration;
/// # Simulation::new(SimRuntime::new()).run(async |sim| {
/// # let executor = &sim.executor;
/// let spec = ContainerSpec::host(["make", "test"])
///     .mount(Mount::bind("/home/ann/project", "/src").read_only())
///     .cwd("/src")
///     .env("CI", "1")
///     .memory(64 << 20)
///     .time_limit(Duration::from_secs(60), Cancel::with_grace(Duration::from_secs(5)))
///     .piped();
/// spec.validate()?;
/// # Ok::<(), Error>(())
/// # }).unwrap();
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default = "ContainerSpec::template", deny_unknown_fields)]
pub struct ContainerSpec {
    /// Its id. The default is a new one of 32 hexadecimal digits.
    pub id: Option<ContainerId>,
    /// Labels of the caller. They are in its [`Snapshot`](crate::Snapshot), and in its `config.json` as annotations
    /// `io.longshore.label.NAME`: runtimes take other annotations as orders. A container that was kept ready has no such
    /// annotations.
    pub labels: Labels,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// Whether its root file system is read-only.
    pub read_only: bool,
    /// What is mounted into it. There is one mount at each destination; it replaces one of the [`config`](Self::config) and of
    /// those that every container has.
    pub mounts: Vec<Mount>,
    /// Its host name. The default is `longshore`.
    pub hostname: Option<String>,
    /// Its network.
    pub network: Network,
    /// Lines of its `/etc/hosts`, in addition to those of localhost and of its own name.
    pub extra_hosts: Vec<ExtraHost>,
    /// How it resolves other names. The default is the host's resolv.conf, without servers that only the host reaches. If there
    /// is no other, it has no server.
    pub dns: Dns,
    /// Its limits.
    pub resources: Resources,
    /// The size of its `/dev/shm`, in bytes. The default is 64 MiB, or what its configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u64>,
    /// Parameters of the kernel, as in `net.core.somaxconn`. Only those that each container has for itself can be set:
    /// `kernel.shm*`, `kernel.msg*`, `kernel.sem`, `fs.mqueue.*`, and `net.*` if the network is its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// The cgroup that contains its own. The default is that of the executor.
    pub cgroup_parent: Option<CgroupParent>,
    /// If present, it has a user namespace with these ids of the host. The containers of an ordinary user always have
    /// one; the default there is the user as root, and the user's subordinate ids if they can be used.
    pub id_map: Option<IdMap>,
    /// Devices in addition to the usual ones, such as `/dev/null`.
    pub devices: Vec<Device>,
    /// Whether directories that were made above a mount stub are removed with it if they are empty. A stub is a mount
    /// point that had to be made in a root file system that is kept; it is always removed.
    pub remove_stub_parents: bool,
    /// Whether its process 1 is a small program of Longshore, which starts the program, forwards signals to it and
    /// reaps orphans.
    pub init: bool,
    /// Which processes it sees.
    pub process_mode: ProcessMode,
    /// How far it is isolated from the machine.
    pub security: Security,
    /// Which system calls it may make. If absent, an insecure container may make all, a [`config`](Self::config) keeps its own
    /// filter, and every other container has [`Seccomp::Default`].
    pub seccomp: Option<Seccomp>,
    /// The AppArmor profile of its processes. If present, a host without AppArmor is an error.
    pub apparmor: Option<String>,
    /// The SELinux labels of its processes and files. If present, a host without SELinux is an error.
    pub selinux: Option<Selinux>,
    /// Where its processes send traces.
    pub telemetry: Telemetry,
    /// A configuration of the caller, which all fields above add to or replace; [`ContainerSpec::from_config`] reads
    /// one.
    pub config: Option<Config>,
    /// Whether [`config`](Self::config) may leave it in namespaces of the host, or share its mounts with the host. By
    /// default a configuration is refused that does not give it pid, network, ipc and uts namespaces other than the host's,
    /// or whose `rootfsPropagation` is shared. [`Network::Host`] allows the network's, [`ProcessMode::NoSandbox`] the pid
    /// namespace. The host's mount namespace is always refused. Mounts of a shared propagation that stay on the host are
    /// reported as left, until somebody unmounts them.
    pub allow_host_namespaces: bool,
    /// Its init process.
    pub process: ProcessSpec,
    /// Whether it is killed when the last handle that [`Executor::run`](crate::Executor::run) returned is dropped. By
    /// default it runs on, and `Executor::get` finds it.
    pub cancel_on_drop: bool,
    /// How long it is kept after its exit: its id, its exit with the usage, what its shared outputs replay, and its
    /// bundle. By default it is released at once.
    pub keep_exited: KeepExited,
}

/// Labels of the caller: names and values.
pub type Labels = BTreeMap<String, String>;

/// The init process of a container.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default = "ProcessSpec::template", deny_unknown_fields)]
pub struct ProcessSpec {
    /// The program and its arguments. A program without a slash is searched in the `PATH` of the container.
    pub args: Vec<String>,
    /// Environment variables, in addition to `PATH` and `HOME`, which have defaults. In JSON each is one string,
    /// `NAME=value`.
    #[serde(with = "env")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub env: Vec<(String, String)>,
    /// Its working directory, an absolute path in the container. It is created if it does not exist.
    pub cwd: PathBuf,
    /// Its user: `user`, `uid`, `user:group` or `uid:gid`, with names of the container's passwd and group. The
    /// default is root, also in `:group`.
    pub user: Option<String>,
    /// What its streams are.
    pub stdio: StdioSpec,
    /// If present, it has a terminal of this size instead of three streams. Its stdin and stdout must then be pipes
    /// or null, and its stderr comes with stdout.
    ///
    /// When the [`Output`](crate::Output) of a pipe is dropped, the terminal is hung up, even if the
    /// [`Input`](crate::Input) is held: the program gets SIGHUP, and can neither read nor write any more. A program that is
    /// process 1 of its container is only ended by it if it handles SIGHUP.
    pub terminal: Option<TerminalSize>,
    /// The time after which it is cancelled; see [`ContainerSpec::time_limit`].
    pub time_limit: Option<TimeLimit>,
    /// Exit codes that count as success, in addition to 0.
    pub valid_exit_codes: BTreeSet<u8>,
    /// Capabilities in addition to the usual ones, or to all in an insecure container.
    pub cap_add: Vec<Capability>,
    /// Capabilities that it does not have. They outweigh `cap_add`.
    pub cap_drop: Vec<Capability>,
    /// Whether it and its children are kept from gaining rights when they execute a program, as with set-uid.
    pub no_new_privileges: bool,
    /// Limits of the process. Others are those of the runtime.
    pub ulimits: Vec<Ulimit>,
    /// How soon the OOM killer of the kernel chooses it, from -1000 (never) to 1000. The default is the value of the
    /// embedder.
    pub oom_score_adj: Option<i32>,
}

/// A process to be added to a container. An absent field has the value of init.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default = "ExecSpec::template", deny_unknown_fields)]
pub struct ExecSpec {
    /// Its id. No exec of the container that has not ended may have it. The default is `exec-1`, `exec-2`…
    pub id: Option<ExecId>,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Environment variables that are added to those of the container, or replace them. In JSON each is one string,
    /// `NAME=value`.
    #[serde(with = "env")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
    /// Its user; see [`ProcessSpec::user`].
    pub user: Option<String>,
    /// What its streams are.
    pub stdio: StdioSpec,
    /// If present, it has a terminal of this size instead of three streams; see [`ProcessSpec::terminal`].
    pub terminal: Option<TerminalSize>,
    /// The time after which it is cancelled; see [`ContainerSpec::time_limit`].
    pub time_limit: Option<TimeLimit>,
    /// Exit codes that count as success, in addition to 0.
    pub valid_exit_codes: BTreeSet<u8>,
    /// Whether it is killed when the last handle of it is dropped.
    pub cancel_on_drop: bool,
}

impl ContainerSpec {
    /// A container that runs `args` on `rootfs`, with everything else at its default.
    pub fn new<A: Into<String>>(rootfs: Rootfs, args: impl IntoIterator<Item = A>) -> Self {
        Self {
            id: None,
            labels: BTreeMap::new(),
            rootfs,
            read_only: false,
            mounts: Vec::new(),
            hostname: None,
            network: Network::default(),
            extra_hosts: Vec::new(),
            dns: Dns::default(),
            resources: Resources::default(),
            shm_size: None,
            sysctls: BTreeMap::new(),
            cgroup_parent: None,
            id_map: None,
            devices: Vec::new(),
            remove_stub_parents: false,
            init: false,
            process_mode: ProcessMode::default(),
            security: Security::default(),
            seccomp: None,
            apparmor: None,
            selinux: None,
            telemetry: Telemetry::default(),
            config: None,
            allow_host_namespaces: false,
            process: ProcessSpec::new(args),
            cancel_on_drop: false,
            keep_exited: KeepExited::No,
        }
    }

    /// A container that runs `args` on a throw-away overlay of the root directory of the host.
    pub fn host<A: Into<String>>(args: impl IntoIterator<Item = A>) -> Self {
        Self::new(Rootfs::Host, args)
    }

    /// A container that runs `args` on the directory `dir`, an absolute path. What it writes is kept.
    pub fn dir<A: Into<String>>(dir: impl Into<PathBuf>, args: impl IntoIterator<Item = A>) -> Self {
        Self::new(Rootfs::Dir(dir.into()), args)
    }

    /// A container that runs `args` on an overlay of directories, absolute paths, the topmost first. What it writes
    /// is thrown away.
    pub fn layers<P: Into<PathBuf>, A: Into<String>>(
        layers: impl IntoIterator<Item = P>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let lower = layers.into_iter().map(Into::into).collect();
        Self::new(Rootfs::Overlay { lower, upper: None }, args)
    }

    /// The values of fields that are absent in JSON.
    pub(crate) fn template() -> Self {
        Self::host::<String>([])
    }

    /// The traits that the lifecycle depends on.
    pub(crate) fn traits(&self) -> ContainerTraits {
        ContainerTraits {
            has_terminal: self.process.terminal.is_some(),
            shares_pids: self.shares_pids(),
            keep_exited: self.keep_exited,
        }
    }

    /// Whether it has no pid namespace of its own: what its init leaves behind does not end with init.
    pub fn shares_pids(&self) -> bool {
        match &self.config {
            Some(config) => !config.has_own_pids(),
            None => self.process_mode == ProcessMode::NoSandbox,
        }
    }

    /// The traits of its init that the lifecycle depends on.
    pub(crate) fn init_traits(&self) -> ProcessTraits {
        let ContainerTraits { has_terminal, shares_pids, .. } = self.traits();
        ProcessTraits { has_terminal, shares_pids }
    }

    /// The time limit and the valid exit codes of its init.
    pub(crate) fn terms(&self) -> Terms {
        let ProcessSpec { time_limit, valid_exit_codes, .. } = &self.process;
        Terms { time_limit: *time_limit, valid_codes: valid_exit_codes.clone() }
    }

    /// The part of the specification that must be equal for a container that is kept ready: the rest is set when it
    /// is started.
    pub(crate) fn as_kept_ready(&self) -> Self {
        let mut same = Self { id: None, labels: BTreeMap::new(), cancel_on_drop: false, ..self.clone() };
        same.process.time_limit = None;
        same.process.valid_exit_codes = BTreeSet::new();
        same
    }
}

impl ProcessSpec {
    /// Runs `args` as root in `/`, with everything else at its default.
    pub fn new<A: Into<String>>(args: impl IntoIterator<Item = A>) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            user: None,
            stdio: StdioSpec::default(),
            terminal: None,
            time_limit: None,
            valid_exit_codes: BTreeSet::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            no_new_privileges: false,
            ulimits: Vec::new(),
            oom_score_adj: None,
        }
    }

    fn template() -> Self {
        Self::new::<String>([])
    }
}

impl ExecSpec {
    pub(crate) const fn traits(&self) -> ProcessTraits {
        ProcessTraits { has_terminal: self.terminal.is_some(), shares_pids: false }
    }

    pub(crate) fn terms(&self) -> Terms {
        Terms { time_limit: self.time_limit, valid_codes: self.valid_exit_codes.clone() }
    }

    /// Runs `args` with everything else as for the container's init.
    pub fn new<A: Into<String>>(args: impl IntoIterator<Item = A>) -> Self {
        Self {
            id: None,
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: None,
            user: None,
            stdio: StdioSpec::default(),
            terminal: None,
            time_limit: None,
            valid_exit_codes: BTreeSet::new(),
            cancel_on_drop: false,
        }
    }

    fn template() -> Self {
        Self::new::<String>([])
    }
}
