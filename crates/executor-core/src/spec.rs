//! What a caller asks for: a container, a process in it, and where its streams go.
//!
//! The parts have files of their own: [`rootfs`](Rootfs), [`network`](Network), [`stdio`](Stdio); `builders` sets what people
//! set most, `validate` says what makes no sense, `env` is the form of variables in JSON.

mod builders;
mod env;
mod network;
mod rootfs;
mod stdio;
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
pub(crate) use self::validate::{absolute, host_name, invalid, no_nul, word};
use crate::{
    Capability, CgroupParent, Config, Device, Dns, ExtraHost, IdMap, Mount, ProcessMode, Resources, Seccomp,
    Security, Selinux, Telemetry, Ulimit,
};

/// A container and its first process.
///
/// As JSON, what is absent has its default: `{"process": {"args": ["make"]}}` is a whole one. A field that is not known
/// is an error.
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
    /// Its id; made up when absent.
    pub id: Option<ContainerId>,
    /// The caller's own words about it; they are in its [`Snapshot`](crate::Snapshot) and nowhere else.
    pub labels: Labels,
    /// What it sees as `/`.
    pub rootfs: Rootfs,
    /// Whether `/` is read-only for it.
    pub read_only: bool,
    /// What is mounted into it, in this order; a later mount of the same destination replaces the former.
    pub mounts: Vec<Mount>,
    /// Its host name; `longshore` when absent.
    pub hostname: Option<String>,
    /// What it sees of the network.
    pub network: Network,
    /// Names in its `/etc/hosts` beside localhost and its own.
    pub extra_hosts: Vec<ExtraHost>,
    /// How it resolves other names.
    pub dns: Dns,
    /// What it may use at most.
    pub resources: Resources,
    /// The cgroup that its own lies in; the executor's default when absent.
    pub cgroup_parent: Option<CgroupParent>,
    /// A user namespace, with these of the host's ids in it. As an ordinary user there is always one; then
    /// this is what it has when absent: the user as root, and the user's subordinate ids where they can be had.
    pub id_map: Option<IdMap>,
    /// Devices beside those that every container has, as `/dev/null`.
    pub devices: Vec<Device>,
    /// Whether directories above a mount stub, made with it, are removed with it when they are empty. A stub
    /// itself always is: a mount point that had to be made in a root file system that is kept.
    pub remove_stub_parents: bool,
    /// Whether a small program of Longshore's is its process 1, which starts the program, hands signals on
    /// to it and reaps orphans.
    pub init: bool,
    /// Whose processes it sees.
    pub process_mode: ProcessMode,
    /// How much it is kept apart from the machine.
    pub security: Security,
    /// Which system calls it may make; all in an insecure container.
    pub seccomp: Seccomp,
    /// The AppArmor profile of its processes; a host without AppArmor is an error then.
    pub apparmor: Option<String>,
    /// The SELinux labels of its processes and files; a host without SELinux is an error then.
    pub selinux: Option<Selinux>,
    /// What its processes are told of where to send traces.
    pub telemetry: Telemetry,
    /// A configuration of the caller's, which everything above adds to or replaces;
    /// [`ContainerSpec::from_config`] reads one.
    pub config: Option<Config>,
    /// Its init.
    pub process: ProcessSpec,
    /// Whether it is killed when the last handle that [`Executor::run`](crate::Executor::run) gave out
    /// is dropped. By default it runs on, and `Executor::get` finds it.
    pub cancel_on_drop: bool,
    /// How long it is kept once it has exited: its id, its exit with the usage, what its shared outputs replay, and its
    /// bundle. By default it is released at once.
    pub keep_exited: KeepExited,
}

/// Words of a caller's about a container, each with its name.
pub type Labels = BTreeMap<String, String>;

/// A process to be init.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default = "ProcessSpec::template", deny_unknown_fields)]
pub struct ProcessSpec {
    /// The program and its arguments; a program without a slash is looked up in the container's `PATH`.
    pub args: Vec<String>,
    /// Variables set beside `PATH` and `HOME`, which have defaults. In JSON each is one string, `NAME=value`.
    #[serde(with = "env")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub env: Vec<(String, String)>,
    /// Its working directory, an absolute path in the container; created when absent.
    pub cwd: PathBuf,
    /// `user`, `uid`, `user:group` or `uid:gid`, names as in the container's passwd and group; root when absent.
    pub user: Option<String>,
    /// Where its streams go.
    pub stdio: StdioSpec,
    /// A terminal of this size in place of its three streams; its stdin and stdout are then pipes or
    /// nothing, and what it writes as an error comes with the rest.
    pub terminal: Option<TerminalSize>,
    /// The most time it may take, from the request on; see [`ContainerSpec::time_limit`].
    pub time_limit: Option<TimeLimit>,
    /// Exit codes that count as success, beside 0.
    pub valid_exit_codes: BTreeSet<u8>,
    /// Capabilities beside the usual ones, or all of these in an insecure container.
    pub cap_add: Vec<Capability>,
    /// Capabilities it is denied; counts more than `cap_add`.
    pub cap_drop: Vec<Capability>,
    /// Whether it and its children are kept from gaining rights by executing a program, as with set-uid.
    pub no_new_privileges: bool,
    /// Limits of its own; what is not named is as the runtime has it.
    pub ulimits: Vec<Ulimit>,
    /// How soon the kernel's OOM killer takes it, from -1000 (never) to 1000; as the embedder when absent.
    pub oom_score_adj: Option<i32>,
}

/// A process to be added to a container. What is absent is as for the container's init.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default = "ExecSpec::template", deny_unknown_fields)]
pub struct ExecSpec {
    /// Its id, which no exec of the container may have that has not ended; `exec-1`, `exec-2`… when absent.
    pub id: Option<ExecId>,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Variables that are added to the container's, or replace them. In JSON each is one string, `NAME=value`.
    #[serde(with = "env")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
    /// Its user, as in [`ProcessSpec::user`].
    pub user: Option<String>,
    /// Where its streams go.
    pub stdio: StdioSpec,
    /// A terminal of this size in place of its three streams; its stdin and stdout are then pipes or
    /// nothing, and what it writes as an error comes with the rest.
    pub terminal: Option<TerminalSize>,
    /// The most time it may take, from the request on; see [`ContainerSpec::time_limit`].
    pub time_limit: Option<TimeLimit>,
    /// Exit codes that count as success, beside 0.
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
            cgroup_parent: None,
            id_map: None,
            devices: Vec::new(),
            remove_stub_parents: false,
            init: false,
            process_mode: ProcessMode::default(),
            security: Security::default(),
            seccomp: Seccomp::default(),
            apparmor: None,
            selinux: None,
            telemetry: Telemetry::default(),
            config: None,
            process: ProcessSpec::new(args),
            cancel_on_drop: false,
            keep_exited: KeepExited::No,
        }
    }

    /// A container that runs `args` on a throw-away overlay of the host's root.
    pub fn host<A: Into<String>>(args: impl IntoIterator<Item = A>) -> Self {
        Self::new(Rootfs::Host, args)
    }

    /// A container that runs `args` on the directory `dir`, an absolute path, used as it is.
    pub fn dir<A: Into<String>>(dir: impl Into<PathBuf>, args: impl IntoIterator<Item = A>) -> Self {
        Self::new(Rootfs::Dir(dir.into()), args)
    }

    /// A container that runs `args` on directories over one another, absolute paths, the topmost first. What is written is
    /// thrown away.
    pub fn layers<P: Into<PathBuf>, A: Into<String>>(
        layers: impl IntoIterator<Item = P>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let lower = layers.into_iter().map(Into::into).collect();
        Self::new(Rootfs::Overlay { lower, upper: None }, args)
    }

    /// What is absent in JSON is as in a container on the host's root.
    fn template() -> Self {
        Self::host::<String>([])
    }

    /// What the lifecycle depends on.
    pub(crate) fn traits(&self) -> ContainerTraits {
        ContainerTraits {
            has_terminal: self.process.terminal.is_some(),
            shares_pids: self.process_mode == ProcessMode::NoSandbox,
            keep_exited: self.keep_exited,
        }
    }

    /// The same for its init.
    pub(crate) fn init_traits(&self) -> ProcessTraits {
        let ContainerTraits { has_terminal, shares_pids, .. } = self.traits();
        ProcessTraits { has_terminal, shares_pids }
    }

    /// What is expected of its init, from its start on.
    pub(crate) fn terms(&self) -> Terms {
        let ProcessSpec { time_limit, valid_exit_codes, .. } = &self.process;
        Terms { time_limit: *time_limit, valid_codes: valid_exit_codes.clone() }
    }

    /// The same but for what a container can be given when it is started.
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
