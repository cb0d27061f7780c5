//! What a caller asks for: a container, a process in it, and where its streams go.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use executor_lifecycle::{Cancel, ContainerId, TerminalSize};

use crate::{Capability, Dns, ExtraHost, InvalidSpec, ProcessMode, Seccomp, Security, Ulimit};

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
#[derive(Clone, Debug)]
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
    /// Whose processes it sees.
    pub process_mode: ProcessMode,
    /// How much it is kept apart from the machine.
    pub security: Security,
    /// Which system calls it may make; all in an insecure container.
    pub seccomp: Seccomp,
    /// Its init.
    pub process: ProcessSpec,
    /// Whether it is killed when the last handle that [`Executor::run`](crate::Executor::run) gave out
    /// is dropped. By default it runs on, and `Executor::get` finds it.
    pub cancel_on_drop: bool,
}

/// Where a container's root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rootfs {
    /// A throw-away overlay of the host's own root: what is written there is gone afterwards.
    Host,
    /// A directory, used as it is.
    Dir(PathBuf),
}

/// A directory or file of the host, bound into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// An absolute path on the host.
    pub source: PathBuf,
    /// An absolute path in the container.
    pub destination: PathBuf,
    /// Whether the container may only read it.
    pub read_only: bool,
}

impl FromStr for Mount {
    type Err = InvalidSpec;

    /// Reads `SOURCE:DESTINATION`, with `:ro` or `:rw` after it. Whether the paths are absolute is left to
    /// [`ContainerSpec::validate`].
    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let parts: Vec<_> = text.split(':').collect();
        let (source, destination, read_only) = match parts.as_slice() {
            [source, destination] | [source, destination, "rw"] => (source, destination, false),
            [source, destination, "ro"] => (source, destination, true),
            [_, _, option] => {
                return Err(invalid("mount", format!("{option:?} is no option of a mount; give ro or rw")));
            }
            _ => return Err(invalid("mount", "give SOURCE:DESTINATION or SOURCE:DESTINATION:ro")),
        };
        if source.is_empty() || destination.is_empty() {
            return Err(invalid("mount", "neither the source nor the destination can be empty"));
        }
        Ok(Self { source: source.into(), destination: destination.into(), read_only })
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, read_only } = self;
        write!(f, "{}:{}{}", source.display(), destination.display(), if *read_only { ":ro" } else { "" })
    }
}

/// What a container sees of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Its own loopback and nothing else.
    #[default]
    None,
    /// The host's network.
    Host,
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

/// The most a container may use; absent means as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Resources {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// CPUs, as in 0.5 for half of one.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// A process to be init.
#[derive(Clone, Debug)]
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
    /// The most time it may take.
    pub time_limit: Option<TimeLimit>,
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
    /// The most time it may take.
    pub time_limit: Option<TimeLimit>,
    /// Whether it is killed when the last handle of it is dropped.
    pub cancel_on_drop: bool,
}

/// The most time a process may take, from the request on, and how it is ended then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimit {
    /// How long.
    pub after: Duration,
    /// What happens then.
    pub cancel: Cancel,
}

/// Where the streams of a process go; nowhere by default.
#[derive(Clone, Debug, Default)]
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
            process_mode: ProcessMode::default(),
            security: Security::default(),
            seccomp: Seccomp::default(),
            process: ProcessSpec {
                args: args.into_iter().map(Into::into).collect(),
                env: Vec::new(),
                cwd: PathBuf::from("/"),
                user: None,
                stdio: StdioSpec::default(),
                terminal: None,
                time_limit: None,
                cap_add: Vec::new(),
                cap_drop: Vec::new(),
                no_new_privileges: false,
                ulimits: Vec::new(),
                oom_score_adj: None,
            },
            cancel_on_drop: false,
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

    /// The same with at most this much time from the request on, and SIGKILL then.
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
        if let Rootfs::Dir(dir) = &self.rootfs {
            absolute("rootfs", dir)?;
        }
        for mount in &self.mounts {
            absolute("mount source", &mount.source)?;
            absolute("mount destination", &mount.destination)?;
            if mount.destination == Path::new("/") {
                return Err(invalid("mount destination", "/ is the rootfs; mount somewhere below it"));
            }
        }
        self.extra_hosts.iter().try_for_each(ExtraHost::validate)?;
        self.dns.validate()?;
        if self.process.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
            return Err(invalid("oom score", "give a number from -1000 to 1000"));
        }
        self.resources.validate()
    }
}

impl ExecSpec {
    /// Runs `args` with everything else as for the container's init.
    pub fn new<A: Into<String>>(args: impl IntoIterator<Item = A>) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: None,
            user: None,
            stdio: StdioSpec::default(),
            terminal: None,
            time_limit: None,
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

impl Resources {
    /// The least memory a container can be started with: the runtime's own init needs some.
    pub const LEAST_MEMORY: u64 = 6 << 20;

    fn validate(&self) -> Result<(), InvalidSpec> {
        if self.memory.is_some_and(|bytes| bytes < Self::LEAST_MEMORY) {
            return Err(invalid("memory", "less than 6 MiB: not even the runtime's init can start"));
        }
        if self.memory.is_some_and(|bytes| i64::try_from(bytes).is_err()) {
            return Err(invalid("memory", "more than any machine has"));
        }
        if self.cpus.is_some_and(|cpus| !(0.01..=100_000.0).contains(&cpus)) {
            return Err(invalid("cpus", "give a number of CPUs from 0.01 on"));
        }
        if self.pids == Some(0) {
            return Err(invalid("pids", "at least one process has to be allowed"));
        }
        Ok(())
    }
}

pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> InvalidSpec {
    InvalidSpec { field, why: why.into() }
}

fn no_nul(field: &'static str, text: &str) -> Result<(), InvalidSpec> {
    if text.contains('\0') { Err(invalid(field, format!("{text:?} holds a NUL byte"))) } else { Ok(()) }
}

fn word(field: &'static str, text: &str) -> Result<(), InvalidSpec> {
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

fn absolute(field: &'static str, path: &Path) -> Result<(), InvalidSpec> {
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

    #[test]
    fn mounts_are_read_and_shown_alike() {
        let mount: Mount = "/a:/b:ro".parse().unwrap();
        assert_eq!(mount, Mount { source: "/a".into(), destination: "/b".into(), read_only: true });
        assert_eq!(mount.to_string(), "/a:/b:ro");
        assert_eq!("/a:/b:rw".parse::<Mount>().unwrap().to_string(), "/a:/b");
        for bad in ["", "/a", "/a:", ":/b", "/a:/b:rx", "/a:/b:ro:z"] {
            assert!(bad.parse::<Mount>().is_err(), "{bad:?} was taken");
        }
    }

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
        let mount = |source: &str, destination: &str| Mount {
            source: source.into(),
            destination: destination.into(),
            read_only: false,
        };
        assert_eq!(field(|s| s.mounts.push(mount("a", "/b"))), Some("mount source"));
        assert_eq!(field(|s| s.mounts.push(mount("/a", "b"))), Some("mount destination"));
        assert_eq!(field(|s| s.mounts.push(mount("/a", "/"))), Some("mount destination"));
    }
}
