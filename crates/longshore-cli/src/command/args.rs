//! The command line. [`spec`] makes a specification of it, and [`values`] reads the values of options.

mod spec;
mod values;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use longshore::{CgroupParent, ContainerId, Device, ExtraHost, IdRange, Mount, Network, Ulimit};

use self::values::{
    Capabilities, capabilities, duration, mount, network, pids, secret, size, swap, timeout, volume,
};

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

impl Global {
    /// The root that is given, or the user's.
    pub(crate) fn root(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(longshore::default_root)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Run a program in a new container and wait for it
    ///
    /// The program's output is copied to stdout and stderr, and stdin to the program with -i. Exit status: the program's code;
    /// 128+n when signal n ended it; 124 when --timeout did; 125 when Longshore failed; 126 when the
    /// program cannot be executed; 127 when there is none. SIGINT (Ctrl-C), SIGHUP and
    /// SIGTERM end the program: it gets the same signal, SIGTERM after half of --grace, and SIGKILL after all of it; a
    /// second one kills it at once. SIGTSTP freezes the container and stops the command until SIGCONT. Other
    /// signals are passed on. A program that is process 1 is not ended by a signal that it does not handle.
    Run(Box<Run>),
    /// Check whether containers can be run here, and say what to do where not
    Doctor,
    /// Print the config.json that `run` would use with the same options
    ///
    /// Written to a directory as config.json, it can be given to `run --config`, with --rootfs host if it was made for
    /// that. What needs files or a network of its own is not in it and is given to `run`: --init, --add-host, --dns and
    /// --net cni. With --json, the whole specification is printed in the library's JSON form, and `run --spec` reads it.
    Spec(Box<Spec>),
    /// Remove what dead executors left under --root, and only that
    ///
    /// CNI plugins give back what their containers had of networks: see --cni-plugins and --cni-configs. No runtime is needed.
    Sweep,
}

#[derive(Args, Debug)]
pub(crate) struct Spec {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Print the specification instead, in the library's JSON form, which `run --spec` reads
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) container: Container,
    /// Pass stdin on to the program; it reads nothing otherwise
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Copy between the program's streams and these, or give it these themselves [default: pipe]
    ///
    /// With `inherit` the program can read and set the terminal without -i, and open files again to overwrite them, and a
    /// file becomes the property of the container's user. What the runtime writes to stderr is shown, too.
    #[arg(long, value_enum, default_value = "pipe", hide_default_value = true, conflicts_with = "tty")]
    pub(crate) stdio: Streams,
    /// Give the program a terminal; with -i, every key goes to it as it is, Ctrl-C too
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// End the program after this time, as in 30s or 2m; more than zero
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub(crate) timeout: Option<Duration>,
    /// Time from the first signal to SIGKILL when the program is to end; with 0 it is killed at once
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub(crate) grace: Duration,
    /// Write what happens to this file, a JSON object on each line; - is stderr. A FIFO needs a reader
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Container {
    /// The container's id; made up when absent
    #[arg(long)]
    pub(crate) id: Option<ContainerId>,
    /// The root file system: a directory, or `host` for a throw-away overlay of this machine's own [default: host]
    #[arg(long, value_name = "DIR|host")]
    pub(crate) rootfs: Option<PathBuf>,
    /// In place of --rootfs, directories over one another; the topmost first, what is written is thrown away
    #[arg(long, value_name = "DIR", conflicts_with = "rootfs")]
    pub(crate) layer: Vec<PathBuf>,
    /// Set a variable; without a value it is passed on as it is here
    #[arg(short, long, value_name = "K=V")]
    pub(crate) env: Vec<String>,
    /// Working directory in the container; created if it does not exist [default: /]
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
    /// Start from this bundle's config.json; options add to it, and those that set one value replace it
    #[arg(long, value_name = "BUNDLE")]
    pub(crate) config: Option<PathBuf>,
    /// Let --config leave the container in namespaces of this machine, or share its mounts with it
    #[arg(long)]
    pub(crate) allow_host_namespaces: bool,
    /// Start from this specification in the library's JSON form; - is stdin. Options are added to it or take its place
    ///
    /// The form is in docs/schema/container-spec.json; `longshore spec --json` prints one. Its streams do not count: the
    /// program has those of the command.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) spec: Option<PathBuf>,
    /// Host name in the container [default: longshore]
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Its network: a loopback of its own (none), this machine's (host), or a CNI network [default: none]
    #[arg(long, value_name = "none|host|cni[:NAME]", value_parser = network)]
    pub(crate) net: Option<Network>,
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
    /// Share of the CPU when there is not enough for all; the default is 1024
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
    /// Limit of processes and threads; -1, 0 or `unlimited` is none [default: 4096 where there are cgroups]
    #[arg(long, value_name = "N", value_parser = pids, allow_hyphen_values = true)]
    pub(crate) pids: Option<u64>,
    /// Put its cgroup below this one, or into a slice of systemd's
    #[arg(long, value_name = "PATH|SLICE:")]
    pub(crate) cgroup_parent: Option<CgroupParent>,
    /// Map users of the container to this machine's; groups as well, without --gidmap
    #[arg(long, value_name = "CONTAINER:HOST:SIZE")]
    pub(crate) uidmap: Vec<IdRange>,
    /// Map groups differently from users
    #[arg(long, value_name = "CONTAINER:HOST:SIZE", requires = "uidmap")]
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
    /// Show it its own processes only, or this machine's [default: sandbox]
    #[arg(long, value_enum)]
    pub(crate) process_mode: Option<Mode>,
    /// Keep it apart from this machine, or give it every right and device [default: sandbox]
    #[arg(long, value_enum)]
    pub(crate) security: Option<Apart>,
    /// Add a capability, as in NET_ADMIN; or `all`
    #[arg(long, value_name = "CAP", value_parser = capabilities)]
    pub(crate) cap_add: Vec<Capabilities>,
    /// Take a capability away; or `all`
    #[arg(long, value_name = "CAP", value_parser = capabilities)]
    pub(crate) cap_drop: Vec<Capabilities>,
    /// System calls: `default`, `unconfined`, or the file of a profile [default: default]
    #[arg(long, value_name = "PROFILE")]
    pub(crate) seccomp: Option<PathBuf>,
    /// AppArmor profile of its processes
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// Give it SELinux labels of its own
    #[arg(long)]
    pub(crate) selinux: bool,
    /// Bind this OTLP socket into it, and set the variables that name it
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
    /// The program and its arguments; options of longshore come before it
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Streams {
    Pipe,
    Inherit,
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
