//! The command line, and the specification it stands for.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use longshore::{
    Cancel, Capability, CgroupParent, ContainerId, ContainerSpec, Device, Dns, ExtraHost, IdMap, IdRange,
    InvalidSpec, Mount, MountSource, Network, ProcessMode, Rootfs, Seccomp, Security, Selinux, TimeLimit,
    Ulimit,
};

use super::terminal;

/// Run programs in containers, and never lose track of one.
#[derive(Debug, Parser)]
#[command(name = "longshore", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Directory for bundles and state [default: /run/longshore, or a directory of the user's]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) root: Option<PathBuf>,
    /// The OCI runtime, by name or path [default: the first of longshore-runc, runc, crun, youki on PATH]
    #[arg(long, value_name = "CMD", global = true)]
    pub(crate) runtime: Option<String>,
    /// Directory with the configurations of CNI networks [default: /etc/cni/net.d]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) cni_configs: Option<PathBuf>,
    /// Send spans to an OTLP collector (HTTP), as in http://localhost:4318/v1/traces
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "ENDPOINT", global = true)]
    pub(crate) otlp: Option<String>,
    /// Directory with CNI plugins [default: /opt/cni/bin, /usr/lib/cni]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) cni_plugins: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Run a program in a new container and wait for it
    ///
    /// The program's stdout, stderr and stdin are the command's own. Exit status: the program's code;
    /// 128+n when signal n ended it; 124 when --timeout did; 125 when Longshore failed; 126 when the
    /// program cannot be executed; 127 when there is none. Ctrl-C and SIGTERM end the program with
    /// SIGTERM, and SIGKILL after --grace; a second one kills it at once.
    Run(Box<Run>),
    /// Check whether containers can be run here, and say what to do where not
    Doctor,
    /// Print the config.json that `run` would use with the same options
    Spec(Box<Container>),
    /// Remove what dead executors left under --root, and only that
    Sweep,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) container: Container,
    /// Pass stdin on to the program; it reads nothing otherwise
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the program a terminal; with -i, every key goes to it as it is, Ctrl-C too
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// End the program after this time, as in 30s or 2m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// From SIGTERM to SIGKILL, when the program is to end
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub(crate) grace: Duration,
    /// Write what happens to this file, a JSON object on each line; - is stderr
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Container {
    /// The container's id; made up when absent
    #[arg(long)]
    pub(crate) id: Option<ContainerId>,
    /// The root file system: a directory, or `host` for a throw-away overlay of this machine's own
    #[arg(long, value_name = "DIR|host", default_value = "host")]
    pub(crate) rootfs: PathBuf,
    /// In place of --rootfs, directories over one another; the topmost first, what is written is thrown away
    #[arg(long, value_name = "DIR", conflicts_with = "rootfs")]
    pub(crate) layer: Vec<PathBuf>,
    /// Set a variable; without a value it is passed on as it is here
    #[arg(short, long, value_name = "K=V")]
    pub(crate) env: Vec<String>,
    /// Working directory in the container [default: /]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// User, by name or number, with or without a group: USER[:GROUP]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Bind a file or directory of this machine into the container
    #[arg(short, long, value_name = "SRC:DST[:ro]", value_parser = volume)]
    pub(crate) volume: Vec<Mount>,
    /// Mount something: bind (with selector=PATH below the source), tmpfs, or another kind of file system
    #[arg(long, value_name = "type=T,src=S,dst=D[,ro]", value_parser = mount)]
    pub(crate) mount: Vec<Mount>,
    /// Remove directories that were made above a mount point in --rootfs DIR, as the mount point itself is
    #[arg(long)]
    pub(crate) remove_stub_parents: bool,
    /// Start from this bundle's config.json: what is said beside it is added or takes its place
    #[arg(long, value_name = "BUNDLE", conflicts_with_all = ["rootfs"])]
    pub(crate) config: Option<PathBuf>,
    /// Host name in the container [default: longshore]
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// What it sees of the network: a loopback of its own (none), this machine's (host), or a network of CNI's
    #[arg(long, value_name = "none|host|cni[:NAME]", value_parser = network, default_value = "none")]
    pub(crate) net: Network,
    /// Add a name to its /etc/hosts
    #[arg(long, value_name = "NAME:IP")]
    pub(crate) add_host: Vec<ExtraHost>,
    /// Name server, in place of this machine's
    #[arg(long, value_name = "IP")]
    pub(crate) dns: Vec<IpAddr>,
    /// Domain to look short names up in, in place of this machine's
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Option of its resolver, in place of this machine's
    #[arg(long, value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Memory limit, as in 64m
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// Limit of memory and swap together; -1 is none
    #[arg(long, value_name = "SIZE", value_parser = swap, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<u64>,
    /// CPU limit, as in 0.5
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<f64>,
    /// Share of the CPU when there is not enough for all; 1024 is usual
    #[arg(long, value_name = "N")]
    pub(crate) cpu_shares: Option<u64>,
    /// CPU time in each period, in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_quota: Option<u64>,
    /// The period of --cpu-quota, in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_period: Option<u64>,
    /// CPUs it runs on, as in 0-2,7
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes it uses
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Limit of processes and threads
    #[arg(long, value_name = "N")]
    pub(crate) pids: Option<u32>,
    /// Put its cgroup below this one, or into a slice of systemd's
    #[arg(long, value_name = "PATH|SLICE:")]
    pub(crate) cgroup_parent: Option<CgroupParent>,
    /// Map users of the container to this machine's; groups as well, without --gidmap
    #[arg(long, value_name = "CONTAINER:HOST:SIZE")]
    pub(crate) uidmap: Vec<IdRange>,
    /// Map groups
    #[arg(long, value_name = "CONTAINER:HOST:SIZE")]
    pub(crate) gidmap: Vec<IdRange>,
    /// Add a device: by its path, with rights of r, w and m, or by its CDI name, as in vendor.com/gpu=0
    #[arg(long, value_name = "PATH[:DST][:RIGHTS]|NAME")]
    pub(crate) device: Vec<Device>,
    /// Give it a file that only it can read and that is never on a disk, with the contents of SRC; the mode is 400
    #[arg(long, value_name = "SRC:DST[:MODE]", value_parser = secret)]
    pub(crate) secret: Vec<Mount>,
    /// Put a small process 1 in front of the program, which reaps orphans and hands signals on
    #[arg(long)]
    pub(crate) init: bool,
    /// Show it its own processes only, or this machine's
    #[arg(long, value_enum, default_value_t = Mode::Sandbox)]
    pub(crate) process_mode: Mode,
    /// Keep it apart from this machine, or give it every right and device
    #[arg(long, value_enum, default_value_t = Apart::Sandbox)]
    pub(crate) security: Apart,
    /// Add a capability, as in NET_ADMIN; or `all`
    #[arg(long, value_name = "CAP", value_parser = capabilities)]
    pub(crate) cap_add: Vec<Capabilities>,
    /// Take a capability away; or `all`
    #[arg(long, value_name = "CAP", value_parser = capabilities)]
    pub(crate) cap_drop: Vec<Capabilities>,
    /// System calls: `default`, `unconfined`, or a profile of yours
    #[arg(long, value_name = "PROFILE", default_value = "default")]
    pub(crate) seccomp: PathBuf,
    /// AppArmor profile of its processes
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// Give it SELinux labels of its own
    #[arg(long)]
    pub(crate) selinux: bool,
    /// Bind this OTLP socket into it, and tell its programs of it
    #[arg(long, value_name = "SOCKET")]
    pub(crate) tracing_socket: Option<PathBuf>,
    /// Keep programs from gaining rights, as with set-uid
    #[arg(long)]
    pub(crate) no_new_privileges: bool,
    /// Limit of each process, as in nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<Ulimit>,
    /// How soon the kernel takes it when memory runs out, -1000 (never) to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) oom_score_adj: Option<i32>,
    /// Exit code that counts as success: the command's own is 0 then
    #[arg(long, value_name = "CODE")]
    pub(crate) valid_exit_code: Vec<u8>,
    /// The program and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mode {
    Sandbox,
    NoSandbox,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Apart {
    Sandbox,
    Insecure,
}

/// What one option names: one, or all.
type Capabilities = Vec<Capability>;

fn capabilities(text: &str) -> Result<Capabilities, String> {
    match text.to_ascii_lowercase().as_str() {
        "all" => Ok(Capability::all().collect()),
        _ => text.parse().map(|one| vec![one]).map_err(|error: InvalidSpec| error.why),
    }
}

fn network(text: &str) -> Result<Network, String> {
    match text.split_once(':').unwrap_or((text, "")) {
        ("none", "") => Ok(Network::None),
        ("host", "") => Ok(Network::Host),
        ("cni", "") if text == "cni" => Ok(Network::Cni { name: None }),
        ("cni", name) if !name.is_empty() => Ok(Network::Cni { name: Some(name.to_owned()) }),
        _ => Err("give none, host, cni or cni:NAME".into()),
    }
}

impl Run {
    /// The specification this stands for, streams apart.
    pub(crate) fn spec(&self) -> Result<ContainerSpec, InvalidSpec> {
        let mut spec = self.container.spec()?;
        let cancel = Cancel::with_grace(self.grace);
        spec.process.time_limit = self.timeout.map(|after| TimeLimit { after, cancel });
        spec.process.terminal = self.tty.then(terminal::size);
        Ok(spec)
    }
}

impl Container {
    /// The specification this stands for. What makes no sense is left for it to find out.
    pub(crate) fn spec(&self) -> Result<ContainerSpec, InvalidSpec> {
        let rootfs = match self.rootfs.as_path() {
            _ if !self.layer.is_empty() => {
                let lower = self.layer.iter().map(|layer| absolute(layer)).collect();
                Rootfs::Overlay { lower, upper: None }
            }
            host if host == Path::new("host") => Rootfs::Host,
            dir => Rootfs::Dir(absolute(dir)),
        };
        let mut spec = match &self.config {
            Some(bundle) => ContainerSpec::from_config(bundle)?,
            None => ContainerSpec::new(rootfs, self.command.iter().cloned()),
        };
        if !self.command.is_empty() {
            spec.process.args = self.command.clone();
        }
        spec.id = self.id.clone();
        spec.read_only |= self.read_only;
        spec.mounts = self.volume.iter().chain(&self.mount).chain(&self.secret).cloned().collect();
        spec.remove_stub_parents = self.remove_stub_parents;
        spec.hostname = self.hostname.clone().or(spec.hostname);
        spec.network = self.net.clone();
        spec.extra_hosts = self.add_host.clone();
        spec.dns = Dns {
            nameservers: self.dns.clone(),
            search: self.dns_search.clone(),
            options: self.dns_option.clone(),
        };
        let limits = &mut spec.resources;
        limits.memory = self.memory;
        limits.memory_swap = self.memory_swap;
        limits.cpus = self.cpus;
        limits.cpu_quota = self.cpu_quota;
        limits.cpu_period = self.cpu_period;
        limits.cpu_shares = self.cpu_shares;
        limits.cpuset_cpus = self.cpuset_cpus.clone();
        limits.cpuset_mems = self.cpuset_mems.clone();
        limits.pids = self.pids;
        spec.cgroup_parent = self.cgroup_parent.clone();
        spec.id_map = (!self.uidmap.is_empty()).then(|| IdMap {
            uids: self.uidmap.clone(),
            gids: if self.gidmap.is_empty() { self.uidmap.clone() } else { self.gidmap.clone() },
        });
        spec.devices = self.device.clone();
        spec.init = self.init;
        spec.apparmor = self.apparmor.clone();
        spec.selinux = self.selinux.then_some(Selinux::Generated);
        spec.telemetry.socket = self.tracing_socket.as_deref().map(absolute);
        spec.process.valid_exit_codes = self.valid_exit_code.iter().copied().collect();
        spec.process.env.extend(self.env.iter().filter_map(|entry| variable(entry)));
        if let Some(workdir) = &self.workdir {
            spec.process.cwd = workdir.clone();
        }
        spec.process.user = self.user.clone().or(spec.process.user);
        spec.process_mode = match self.process_mode {
            Mode::Sandbox => ProcessMode::Sandbox,
            Mode::NoSandbox => ProcessMode::NoSandbox,
        };
        spec.security = match self.security {
            Apart::Sandbox => Security::Sandbox,
            Apart::Insecure => Security::Insecure,
        };
        spec.seccomp = match self.seccomp.as_path() {
            path if path == Path::new("default") => Seccomp::Default,
            path if path == Path::new("unconfined") => Seccomp::Unconfined,
            path => Seccomp::Profile(absolute(path)),
        };
        spec.process.cap_add = self.cap_add.concat();
        // What is added by name stays when all are dropped.
        let by_name = self.cap_add.iter().filter(|added| added.len() == 1).flatten();
        let kept: &Vec<_> = &by_name.collect();
        let drops = self.cap_drop.iter().flat_map(|dropped| {
            let all = dropped.len() > 1;
            dropped.iter().filter(move |capability| !all || !kept.contains(capability))
        });
        spec.process.cap_drop = drops.copied().collect();
        spec.process.no_new_privileges = self.no_new_privileges;
        spec.process.ulimits = self.ulimit.clone();
        spec.process.oom_score_adj = self.oom_score_adj;
        Ok(spec)
    }
}

fn variable(entry: &str) -> Option<(String, String)> {
    match entry.split_once('=') {
        Some((key, value)) => Some((key.to_owned(), value.to_owned())),
        None => Some((entry.to_owned(), std::env::var(entry).ok()?)),
    }
}

/// Paths of this machine may be relative to where the command was called.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn volume(text: &str) -> Result<Mount, String> {
    text.parse().map(from_here).map_err(|error: InvalidSpec| error.why)
}

fn mount(text: &str) -> Result<Mount, String> {
    Mount::from_words(text).map(from_here).map_err(|error| error.why)
}

/// `SRC:DST[:MODE]`. The file is read here and now.
fn secret(text: &str) -> Result<Mount, String> {
    let form = || "give SRC:DST or SRC:DST:MODE, as in ./token:/run/token:400".to_owned();
    let parts: Vec<_> = text.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [source, destination] => (source, destination, 0o400),
        [source, destination, mode] => {
            (source, destination, u32::from_str_radix(mode, 8).map_err(|_| form())?)
        }
        _ => return Err(form()),
    };
    let contents = std::fs::read(source).map_err(|error| format!("{source}: {error}"))?;
    Ok(Mount::secret(contents, *destination, mode, (0, 0)))
}

fn from_here(mut mount: Mount) -> Mount {
    if let MountSource::Bind { path, .. } = &mut mount.source {
        *path = absolute(path);
    }
    mount
}

fn swap(text: &str) -> Result<u64, String> {
    if text == "-1" { Ok(u64::MAX) } else { size(text) }
}

/// Bytes, or with k, m, g or t for powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches('b').trim_end_matches('i');
    let (number, shift) = match number.char_indices().last() {
        Some((end, unit @ ('k' | 'm' | 'g' | 't'))) => {
            (number.get(..end).unwrap_or_default(), 10 * (1 + "kmgt".find(unit).unwrap_or_default()))
        }
        _ => (number, 0),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "give a size such as 64m, 1g or a number of bytes".into())
}

/// A number of seconds, or with units.
fn duration(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|_| "give a time such as 500ms, 30s or 2m".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        for (text, bytes) in
            [("64m", 64 << 20), ("1GiB", 1 << 30), ("512", 512), ("2k", 2048), ("1gb", 1 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "-1", "1.5g", "99999999999t", "1x"] {
            assert!(size(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("-1").is_err() && duration("soon").is_err());
    }

    #[test]
    fn volumes_may_be_relative_to_here() {
        assert!(volume("rel:/b").unwrap().host_path().unwrap().is_absolute());
        assert!(mount("src=rel,dst=/b").unwrap().host_path().unwrap().is_absolute());
        assert!(volume("/a").is_err());
    }

    #[test]
    fn the_command_line_of_the_manual() {
        let line = "longshore --root /r run --id a --rootfs /x -e K=V -w /w -u 1:2 -v /s:/d:ro --hostname h --net host \
                    --read-only -i --timeout 30s --grace 1s --memory 64m --cpus 0.5 --pids 64 --events - -- sh -c true";
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Action::Run(run) = arguments.action else { panic!("not run") };
        let spec = run.spec().unwrap();
        assert_eq!(spec.validate(), Ok(()));
        assert_eq!(spec.process.args, ["sh", "-c", "true"]);
        assert_eq!(spec.rootfs, Rootfs::Dir("/x".into()));
        let limits = longshore::Resources::default().memory(64 << 20).cpus(0.5).pids(64);
        assert_eq!(spec.resources, limits);
        assert_eq!(spec.process.time_limit.map(|limit| limit.after), Some(Duration::from_secs(30)));
    }

    #[test]
    fn id_traversal() {
        for bad in ["..", "a/b", "-x", ""] {
            let parsed =
                Arguments::try_parse_from(["longshore", "run", &format!("--id={bad}"), "--", "true"]);
            assert!(parsed.is_err(), "{bad:?} was taken");
        }
    }
}
