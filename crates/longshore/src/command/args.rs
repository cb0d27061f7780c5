//! The command line, and the specification it stands for.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use longshore::{
    Cancel, Capability, ContainerId, ContainerSpec, Dns, ExtraHost, InvalidSpec, Mount, Network, ProcessMode,
    Resources, Rootfs, Seccomp, Security, TimeLimit, Ulimit,
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
    /// Set a variable; without a value it is passed on as it is here
    #[arg(short, long, value_name = "K=V")]
    pub(crate) env: Vec<String>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR", default_value = "/")]
    pub(crate) workdir: PathBuf,
    /// User, by name or number, with or without a group: USER[:GROUP]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Bind a file or directory of this machine into the container
    #[arg(short, long, value_name = "SRC:DST[:ro]", value_parser = volume)]
    pub(crate) volume: Vec<Mount>,
    /// Host name in the container [default: longshore]
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// What it sees of the network
    #[arg(long, value_enum, default_value_t = Net::None)]
    pub(crate) net: Net,
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
    /// CPU limit, as in 0.5
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<f64>,
    /// Limit of processes and threads
    #[arg(long, value_name = "N")]
    pub(crate) pids: Option<u32>,
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
    /// Keep programs from gaining rights, as with set-uid
    #[arg(long)]
    pub(crate) no_new_privileges: bool,
    /// Limit of each process, as in nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<Ulimit>,
    /// How soon the kernel takes it when memory runs out, -1000 (never) to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) oom_score_adj: Option<i32>,
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

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Net {
    /// A loopback of its own
    None,
    /// The host's network
    Host,
}

impl Run {
    /// The specification this stands for, streams apart.
    pub(crate) fn spec(&self) -> ContainerSpec {
        let mut spec = self.container.spec();
        let cancel = Cancel::with_grace(self.grace);
        spec.process.time_limit = self.timeout.map(|after| TimeLimit { after, cancel });
        spec.process.terminal = self.tty.then(terminal::size);
        spec
    }
}

impl Container {
    /// The specification this stands for. What makes no sense is left for it to find out.
    pub(crate) fn spec(&self) -> ContainerSpec {
        let rootfs = match self.rootfs.as_path() {
            host if host == Path::new("host") => Rootfs::Host,
            dir => Rootfs::Dir(absolute(dir)),
        };
        let mut spec = ContainerSpec::new(rootfs, self.command.iter().cloned());
        spec.id = self.id.clone();
        spec.read_only = self.read_only;
        spec.mounts = self.volume.clone();
        spec.hostname = self.hostname.clone();
        spec.network = match self.net {
            Net::None => Network::None,
            Net::Host => Network::Host,
        };
        spec.extra_hosts = self.add_host.clone();
        spec.dns = Dns {
            nameservers: self.dns.clone(),
            search: self.dns_search.clone(),
            options: self.dns_option.clone(),
        };
        spec.resources = Resources { memory: self.memory, cpus: self.cpus, pids: self.pids };
        spec.process.env = self.env.iter().filter_map(|entry| variable(entry)).collect();
        spec.process.cwd = self.workdir.clone();
        spec.process.user = self.user.clone();
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
        spec
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
    let mount: Mount = text.parse().map_err(|error: InvalidSpec| error.why)?;
    Ok(Mount { source: absolute(&mount.source), ..mount })
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
        assert!(volume("rel:/b").unwrap().source.is_absolute());
        assert!(volume("/a").is_err());
    }

    #[test]
    fn the_command_line_of_the_manual() {
        let line = "longshore --root /r run --id a --rootfs /x -e K=V -w /w -u 1:2 -v /s:/d:ro --hostname h --net host \
                    --read-only -i --timeout 30s --grace 1s --memory 64m --cpus 0.5 --pids 64 --events - -- sh -c true";
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Action::Run(run) = arguments.action else { panic!("not run") };
        let spec = run.spec();
        assert_eq!(spec.validate(), Ok(()));
        assert_eq!(spec.process.args, ["sh", "-c", "true"]);
        assert_eq!(spec.rootfs, Rootfs::Dir("/x".into()));
        assert_eq!(spec.resources, Resources { memory: Some(64 << 20), cpus: Some(0.5), pids: Some(64) });
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
