//! What a caller asks for: a container, a process in it, and where its streams go.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use executor_lifecycle::container::{ContainerTraits, KeepExited};
use executor_lifecycle::process::{ProcessTraits, Terms, TimeLimit};
use executor_lifecycle::{Cancel, ContainerId, ExecId, TerminalSize};

use crate::{
    Capability, CgroupParent, Config, Dns, ExtraHost, IdMap, InvalidSpec, Mount, ProcessMode, Resources,
    Seccomp, Security, Selinux, Telemetry, Ulimit,
};

/// A container and its first process.
///
/// ```
/// # use executor_core::*;
/// # use executor_core::lifecycle::*;
/// # use executor_sim::{SimRuntime, Simulation};
/// # use std::time::Duration;
/// # Simulation::new(SimRuntime::new()).run(async |sim| {
/// # let executor = &sim.executor;
/// let mut spec = ContainerSpec::host(["make", "test"]).time_limit(Duration::from_secs(60)).piped();
/// spec.mounts.push("/home/ann/project:/src:ro".parse()?);
/// spec.process.cwd = "/src".into();
/// spec.process.env.push(("CI".into(), "1".into()));
/// spec.resources.memory = Some(64 << 20);
/// spec.validate()?;
/// # Ok::<(), Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    /// Its id; made up when absent.
    pub id: Option<ContainerId>,
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
    /// Devices by their CDI names, as in `vendor.com/gpu=0`.
    pub devices: Vec<String>,
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

/// Where a container's root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rootfs {
    /// A throw-away overlay of the host's own root: what is written there is gone afterwards.
    Host,
    /// A directory, used as it is.
    Dir(PathBuf),
    /// Directories over one another.
    Overlay {
        /// The layers that are only read, the topmost first.
        lower: Vec<PathBuf>,
        /// Where what is written goes; nowhere that lasts when absent.
        upper: Option<UpperLayer>,
    },
}

/// The layer of an overlay that is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// The directory that holds what was written.
    pub dir: PathBuf,
    /// An empty directory on the same file system, for the kernel's own use.
    pub work: PathBuf,
}

/// What a container sees of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Its own loopback and nothing else.
    #[default]
    None,
    /// The host's network.
    Host,
    /// What CNI plugins make of it.
    Cni {
        /// The network's name, as its configuration has it; the first configuration there is when absent.
        name: Option<String>,
    },
}

/// The network namespace a container is started in, once its network is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// A new one that the runtime makes, with a loopback that is up.
    New,
    /// The host's.
    Host,
    /// One that exists.
    At(PathBuf),
}

/// What a kind of network is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkTraits {
    /// Setting it up or taking it back may take seconds: others' programs are called.
    pub is_slow: bool,
    /// It is there after the container's processes have ended, and can then be asked what went over it, which takes no longer
    /// than reading a file.
    pub outlives_processes: bool,
}

/// What a container has of a network, once it is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkAttachment {
    /// The namespace it is started in.
    pub namespace: NetworkNamespace,
    /// Its addresses there, as far as they are known before it starts.
    pub addresses: Vec<IpAddr>,
    /// How names are resolved there, for a container that does not say otherwise.
    pub dns: Dns,
}

impl From<NetworkNamespace> for NetworkAttachment {
    /// With nothing known of it.
    fn from(namespace: NetworkNamespace) -> Self {
        Self { namespace, addresses: Vec::new(), dns: Dns::default() }
    }
}

/// A process to be init.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessSpec {
    /// The program and its arguments; a program without a slash is looked up in the container's `PATH`.
    pub args: Vec<String>,
    /// Variables set beside `PATH` and `HOME`, which have defaults.
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
#[derive(Clone, Debug)]
pub struct ExecSpec {
    /// Its id, which no exec of the container may have that has not ended; `exec-1`, `exec-2`… when absent.
    pub id: Option<ExecId>,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Variables that are added to the container's, or replace them.
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

/// Where the streams of a process go; nowhere by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StdioSpec {
    /// Where it reads from.
    pub stdin: Stdio,
    /// Where it writes to.
    pub stdout: Stdio,
    /// Where it complains to.
    ///
    /// An OCI runtime shares this stream with the process it starts, and writes its own complaint
    /// there when it fails to. [`Stdio::Pipe`] keeps that apart: nothing is handed on of a process
    /// that did not start.
    pub stderr: Stdio,
}

/// Where one stream goes.
#[derive(Clone, Default)]
pub enum Stdio {
    /// `/dev/null`.
    #[default]
    Null,
    /// The embedder's own stream of the same number.
    Inherit,
    /// This file, straight: no copy is made of what passes.
    Fd(Arc<OwnedFd>),
    /// A pipe, whose other end the handle gives out.
    Pipe,
    /// For an output: any number of readers, who attach when they like and never hold the process back.
    Shared {
        /// How many bytes of the past are kept for those who attach later, or are slow.
        replay: usize,
    },
}

/// Files are equal when they are the same one, not when they lead to the same.
impl PartialEq for Stdio {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) | (Self::Inherit, Self::Inherit) | (Self::Pipe, Self::Pipe) => true,
            (Self::Fd(one), Self::Fd(other)) => Arc::ptr_eq(one, other),
            (Self::Shared { replay: one }, Self::Shared { replay: other }) => one == other,
            (Self::Null | Self::Inherit | Self::Pipe | Self::Fd(_) | Self::Shared { .. }, _) => false,
        }
    }
}

impl Eq for Stdio {}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Self {
        Self::Fd(Arc::new(fd))
    }
}

impl From<std::fs::File> for Stdio {
    fn from(file: std::fs::File) -> Self {
        OwnedFd::from(file).into()
    }
}

impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Inherit => "Inherit",
            Self::Fd(_) => "Fd",
            Self::Pipe => "Pipe",
            Self::Shared { .. } => "Shared",
        })
    }
}

impl ContainerSpec {
    /// A container that runs `args` on `rootfs`, with everything else at its default.
    pub fn new<A: Into<String>>(rootfs: Rootfs, args: impl IntoIterator<Item = A>) -> Self {
        Self {
            id: None,
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
            process: ProcessSpec {
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
            },
            cancel_on_drop: false,
            keep_exited: KeepExited::No,
        }
    }

    /// A container that runs `args` on a throw-away overlay of the host's root.
    pub fn host<A: Into<String>>(args: impl IntoIterator<Item = A>) -> Self {
        Self::new(Rootfs::Host, args)
    }

    /// The same with this id.
    #[must_use]
    pub fn id(self, id: ContainerId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// The same with stdout and stderr as pipes.
    #[must_use]
    pub fn piped(mut self) -> Self {
        self.process.stdio = self.process.stdio.piped();
        self
    }

    /// The same, kept so long once it has exited.
    #[must_use]
    pub fn keep_exited(self, keep_exited: KeepExited) -> Self {
        Self { keep_exited, ..self }
    }

    /// The same with at most this much time, and SIGKILL then. It counts from the request to run it, and for a container
    /// that is held at created from the request to start it.
    #[must_use]
    pub fn time_limit(mut self, after: Duration) -> Self {
        self.process.time_limit = Some(TimeLimit { after, cancel: Cancel::now() });
        self
    }

    /// Says which field makes no sense, without looking at the system.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        let process = &self.process;
        program("args", &process.args)?;
        environment("env", &process.env)?;
        absolute("cwd", &process.cwd)?;
        process.user.as_deref().map_or(Ok(()), |user| word("user", user))?;
        process.stdio.validate(process.terminal)?;
        if let Some(hostname) = &self.hostname {
            host_name(hostname)?;
        }
        self.rootfs.validate()?;
        self.mounts.iter().try_for_each(Mount::validate)?;
        self.id_map.as_ref().map_or(Ok(()), IdMap::validate)?;
        self.cgroup_parent.as_ref().map_or(Ok(()), CgroupParent::validate)?;
        self.apparmor.as_deref().map_or(Ok(()), |profile| word("apparmor", profile))?;
        self.telemetry.validate()?;
        self.extra_hosts.iter().try_for_each(ExtraHost::validate)?;
        self.dns.validate()?;
        if self.process.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
            return Err(invalid("oom score", "give a number from -1000 to 1000"));
        }
        self.resources.validate()
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
        let mut same = Self { id: None, cancel_on_drop: false, ..self.clone() };
        same.process.time_limit = None;
        same.process.valid_exit_codes = BTreeSet::new();
        same
    }
}

impl Rootfs {
    fn validate(&self) -> Result<(), InvalidSpec> {
        match self {
            Self::Host => Ok(()),
            Self::Dir(dir) => absolute("rootfs", dir),
            Self::Overlay { lower, upper } => {
                if lower.is_empty() {
                    return Err(invalid("rootfs", "an overlay needs a layer"));
                }
                let upper = upper.iter().flat_map(|upper| [&upper.dir, &upper.work]);
                lower.iter().chain(upper).try_for_each(|dir| absolute("rootfs", dir))
            }
        }
    }
}

impl ExecSpec {
    /// The same with this id.
    #[must_use]
    pub fn id(self, id: ExecId) -> Self {
        Self { id: Some(id), ..self }
    }

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

    /// The same with stdout and stderr as pipes.
    #[must_use]
    pub fn piped(mut self) -> Self {
        self.stdio = self.stdio.piped();
        self
    }

    /// Says which field makes no sense, without looking at the system.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        program("args", &self.args)?;
        environment("env", &self.env)?;
        self.cwd.as_deref().map_or(Ok(()), |cwd| absolute("cwd", cwd))?;
        self.stdio.validate(self.terminal)?;
        self.user.as_deref().map_or(Ok(()), |user| word("user", user))
    }
}

impl StdioSpec {
    fn validate(&self, terminal: Option<TerminalSize>) -> Result<(), InvalidSpec> {
        if matches!(self.stdin, Stdio::Shared { .. }) {
            return Err(invalid("stdin", "only outputs can be shared"));
        }
        let ours = |stdio: &Stdio| matches!(stdio, Stdio::Null | Stdio::Pipe | Stdio::Shared { .. });
        if terminal.is_some() && !(ours(&self.stdin) && ours(&self.stdout)) {
            return Err(invalid(
                "terminal",
                "its streams are copied: give a pipe, a shared output or nothing",
            ));
        }
        Ok(())
    }

    fn piped(self) -> Self {
        Self { stdout: Stdio::Pipe, stderr: Stdio::Pipe, ..self }
    }
}

pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> InvalidSpec {
    InvalidSpec { field, why: why.into() }
}

pub(crate) fn no_nul(field: &'static str, text: &str) -> Result<(), InvalidSpec> {
    if text.contains('\0') { Err(invalid(field, format!("{text:?} holds a NUL byte"))) } else { Ok(()) }
}

pub(crate) fn word(field: &'static str, text: &str) -> Result<(), InvalidSpec> {
    if text.is_empty() { Err(invalid(field, "cannot be empty")) } else { no_nul(field, text) }
}

fn program(field: &'static str, args: &[String]) -> Result<(), InvalidSpec> {
    match args.first() {
        None => return Err(invalid(field, "there is no command to run")),
        Some(program) if program.is_empty() => return Err(invalid(field, "the command is an empty word")),
        Some(_) => {}
    }
    args.iter().try_for_each(|arg| no_nul(field, arg))
}

fn environment(field: &'static str, env: &[(String, String)]) -> Result<(), InvalidSpec> {
    env.iter().try_for_each(|(key, value)| {
        if key.is_empty() || key.contains('=') {
            return Err(invalid(field, format!("{key:?} cannot be a variable's name")));
        }
        no_nul(field, key).and_then(|()| no_nul(field, value))
    })
}

pub(crate) fn absolute(field: &'static str, path: &Path) -> Result<(), InvalidSpec> {
    let text = path.to_str().ok_or_else(|| invalid(field, format!("{path:?} is not UTF-8")))?;
    no_nul(field, text)?;
    if path.is_absolute() { Ok(()) } else { Err(invalid(field, format!("{text:?} is not an absolute path"))) }
}

/// The kernel takes 64 bytes; what names hold is hostname(7)'s.
pub(crate) fn host_name(name: &str) -> Result<(), InvalidSpec> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(fine) {
        return Err(invalid("hostname", format!("{name:?}: give 1 to 64 letters, digits, '-', '.' or '_'")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(change: impl FnOnce(&mut ContainerSpec)) -> Option<&'static str> {
        let mut spec = ContainerSpec::host(["true"]);
        change(&mut spec);
        spec.validate().err().map(|error| error.field)
    }

    #[test]
    fn spec_nonsense_is_named_by_its_field() {
        assert_eq!(field(|_| {}), None);
        assert_eq!(field(|s| s.process.args.clear()), Some("args"));
        assert_eq!(field(|s| s.process.args = vec![String::new()]), Some("args"));
        assert_eq!(field(|s| s.process.args.push("a\0b".into())), Some("args"));
        assert_eq!(field(|s| s.process.env.push(("A=B".into(), String::new()))), Some("env"));
        assert_eq!(field(|s| s.process.env.push(("A".into(), "\0".into()))), Some("env"));
        assert_eq!(field(|s| s.process.cwd = "tmp".into()), Some("cwd"));
        assert_eq!(field(|s| s.process.user = Some(String::new())), Some("user"));
        assert_eq!(field(|s| s.hostname = Some("a b".into())), Some("hostname"));
        assert_eq!(field(|s| s.rootfs = Rootfs::Dir("x".into())), Some("rootfs"));
        assert_eq!(field(|s| s.resources.memory = Some(1)), Some("memory"));
        assert_eq!(field(|s| s.resources.memory = Some(u64::MAX)), Some("memory"));
        assert_eq!(field(|s| s.resources.cpus = Some(f64::NAN)), Some("cpus"));
        assert_eq!(field(|s| s.resources.cpus = Some(-1.0)), Some("cpus"));
        assert_eq!(field(|s| s.resources.pids = Some(0)), Some("pids"));
        assert_eq!(field(|s| s.dns.search.push("a b".into())), Some("dns"));
        assert_eq!(field(|s| s.process.oom_score_adj = Some(1001)), Some("oom score"));
        let mount = |source: &str, destination: &str| Mount::bind(source, destination);
        assert_eq!(field(|s| s.mounts.push(mount("a", "/b"))), Some("mount source"));
        assert_eq!(field(|s| s.mounts.push(mount("/a", "b"))), Some("mount destination"));
        assert_eq!(field(|s| s.mounts.push(mount("/a", "/"))), Some("mount destination"));
    }
}
