//! The options that make up a container, a struct for each heading of the help.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use longshore::{CgroupParent, Device, ExtraHost, IdRange, Mount, Network, Signal, Ulimit};

use super::numbers::{self, Limit, size};
use super::values::{Capabilities, capabilities, label, mount, network, secret, sysctl, tmpfs, volume};

#[derive(Args, Debug)]
pub(crate) struct Container {
    #[command(flatten)]
    pub(crate) process: Process,
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(flatten)]
    pub(crate) net: Net,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) rights: Rights,
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// The program and its arguments; options of longshore come before it
    #[arg(trailing_var_arg = true, value_name = "PROGRAM [ARG]", hide_short_help = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Program")]
pub(crate) struct Process {
    /// Set a variable; without =V its value here
    #[arg(short, long, value_name = "K[=V]")]
    pub(crate) env: Vec<String>,
    /// Set the variables of this file
    ///
    /// A line has NAME=VALUE, or NAME to pass the variable on as it is here. Empty lines and lines that begin with # are
    /// skipped, and quotes are part of the value. --env outweighs it.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Working directory, made if absent [default: /]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// User and group, by name or number
    ///
    /// Without a user, as in :wheel, it is root.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Put a small process 1 in front of the program: the default
    ///
    /// It reaps orphans and hands signals on, so that a signal ends a program that does not handle it. It is left out by
    /// default with --no-init, --process-mode no-sandbox, --config and --spec, and where a mount replaces /dev.
    #[arg(long, overrides_with = "no_init", hide_short_help = true)]
    pub(crate) init: bool,
    /// Let the program be process 1
    ///
    /// The kernel then ignores signals for which the program has no handler: only SIGKILL ends it, after --grace.
    #[arg(long, overrides_with = "init")]
    pub(crate) no_init: bool,
    /// Signal that asks the program to end [default: TERM]
    #[arg(long, value_name = "SIGNAL", hide_short_help = true)]
    pub(crate) stop_signal: Option<Signal>,
    /// Limit of each process, as in nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]", hide_short_help = true)]
    pub(crate) ulimit: Vec<Ulimit>,
    /// Exit code that counts as success: the command's own is 0 then
    #[arg(long, value_name = "CODE", hide_short_help = true)]
    pub(crate) valid_exit_code: Vec<u8>,
    /// Bind this OTLP socket into it, and set the variables that name it
    #[arg(long, value_name = "SOCKET", hide_short_help = true)]
    pub(crate) tracing_socket: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Files")]
pub(crate) struct Files {
    /// Root file system [default: host]
    ///
    /// A directory, or `host` for a throw-away overlay of this machine's own.
    #[arg(long, value_name = "DIR|host")]
    pub(crate) rootfs: Option<PathBuf>,
    /// In place of --rootfs, directories over one another
    ///
    /// The topmost comes first. What is written is thrown away.
    #[arg(long, value_name = "DIR", conflicts_with = "rootfs", hide_short_help = true)]
    pub(crate) layer: Vec<PathBuf>,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Bind a file or directory of this machine
    ///
    /// After the second colon there may be other options of a bind mount, too, as in ro,nosuid.
    #[arg(short, long, value_name = "SRC:DST[:ro]", value_parser = volume)]
    pub(crate) volume: Vec<Mount>,
    /// Mount a bind, tmpfs, or another kind
    ///
    /// Words between commas: type=bind (the default), tmpfs, or another kind of file system; src=, dst=, ro; selector=PATH
    /// below the source of a bind; other words are options of the mount. A word with a comma in it is quoted:
    /// 'type=bind,"src=/a,b",dst=/c'.
    #[arg(long, value_name = "dst=D[,src=S,…]", value_parser = mount)]
    pub(crate) mount: Vec<Mount>,
    /// Mount an empty file system in memory, as in /tmp:size=64m,exec
    ///
    /// Without other options it is nosuid, nodev and noexec, and its mode is 1777; at /dev there are devices, and it is 755. With runc, an ordinary user's has the mode of
    /// the directory that it hides.
    #[arg(long, value_name = "DST[:OPTIONS]", value_parser = tmpfs, hide_short_help = true)]
    pub(crate) tmpfs: Vec<Mount>,
    /// Size of /dev/shm, as in 1g [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = size, hide_short_help = true)]
    pub(crate) shm_size: Option<u64>,
    /// Give it a file that only its root can read and that is never on a disk
    ///
    /// It has the contents of SRC. The mode is 400; another user than root needs 444.
    #[arg(long, value_name = "SRC:DST[:MODE]", value_parser = secret, hide_short_help = true)]
    pub(crate) secret: Vec<Mount>,
    /// Add a device
    ///
    /// By its path, with rights of r, w and m, or by its CDI name, as in vendor.com/gpu=0.
    #[arg(long, value_name = "PATH[:DST][:rwm]|NAME", hide_short_help = true)]
    pub(crate) device: Vec<Device>,
    /// Remove directories that were made above a mount point in --rootfs DIR
    ///
    /// The mount point itself is always removed.
    #[arg(long, hide_short_help = true)]
    pub(crate) remove_stub_parents: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Network")]
pub(crate) struct Net {
    /// none, host, cni or cni:NAME [default: none]
    ///
    /// A loopback of its own (none), this machine's network (host), or a CNI network. --network is the same.
    #[arg(long, alias = "network", value_name = "NETWORK", value_parser = network)]
    pub(crate) net: Option<Network>,
    /// Host name in the container [default: longshore]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) hostname: Option<String>,
    /// Add a name to its /etc/hosts
    #[arg(long, value_name = "NAME:IP", hide_short_help = true)]
    pub(crate) add_host: Vec<ExtraHost>,
    /// Name server, in place of this machine's
    #[arg(long, value_name = "IP", hide_short_help = true)]
    pub(crate) dns: Vec<IpAddr>,
    /// Domain to look short names up in, in place of this machine's
    #[arg(long, value_name = "DOMAIN", hide_short_help = true)]
    pub(crate) dns_search: Vec<String>,
    /// Option of its resolver, in place of this machine's
    #[arg(long, alias = "dns-opt", value_name = "OPTION", hide_short_help = true)]
    pub(crate) dns_option: Vec<String>,
}

/// Of all of them, -1 and 0 are no limit.
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits (-1 and 0 are none)")]
pub(crate) struct Limits {
    /// Memory, as in 64m or 1.5g
    #[arg(short, long, value_name = "SIZE", value_parser = numbers::limit_of_size, allow_negative_numbers = true)]
    pub(crate) memory: Option<Limit<u64>>,
    /// Memory and swap together
    #[arg(long, value_name = "SIZE", value_parser = numbers::limit_of_size, allow_negative_numbers = true, hide_short_help = true)]
    pub(crate) memory_swap: Option<Limit<u64>>,
    /// CPU time, as in 0.5
    #[arg(long, value_name = "N", value_parser = numbers::limit_of_cpus, allow_negative_numbers = true)]
    pub(crate) cpus: Option<Limit<f64>>,
    /// Share of the CPU when there is not enough for all [default: 1024]
    #[arg(short, long, value_name = "N", hide_short_help = true)]
    pub(crate) cpu_shares: Option<u64>,
    /// CPU time in each period, in microseconds
    #[arg(long, value_name = "US", value_parser = numbers::limit_of_number, allow_negative_numbers = true, hide_short_help = true)]
    pub(crate) cpu_quota: Option<Limit<u64>>,
    /// The period of --cpu-quota, in microseconds
    #[arg(long, value_name = "US", hide_short_help = true)]
    pub(crate) cpu_period: Option<u64>,
    /// CPUs it runs on, as in 0-2,7
    #[arg(long, value_name = "LIST", hide_short_help = true)]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes it uses
    #[arg(long, value_name = "LIST", hide_short_help = true)]
    pub(crate) cpuset_mems: Option<String>,
    /// Processes and threads [default: 4096]
    ///
    /// Without cgroups there is no default. `unlimited` is no limit, too. --pids-limit is the same.
    #[arg(long, alias = "pids-limit", value_name = "N", value_parser = numbers::limit_of_number, allow_negative_numbers = true)]
    pub(crate) pids: Option<Limit<u64>>,
    /// Put its cgroup below this one, or into a slice of systemd's
    #[arg(long, value_name = "PATH|SLICE:", hide_short_help = true)]
    pub(crate) cgroup_parent: Option<CgroupParent>,
    /// How soon the kernel takes it when memory runs out, -1000 (never) to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true, hide_short_help = true)]
    pub(crate) oom_score_adj: Option<i32>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Rights")]
pub(crate) struct Rights {
    /// Add a capability, as in NET_ADMIN; or all
    #[arg(long, value_name = "CAP", value_parser = capabilities)]
    pub(crate) cap_add: Vec<Capabilities>,
    /// Take a capability away; or all
    #[arg(long, value_name = "CAP", value_parser = capabilities)]
    pub(crate) cap_drop: Vec<Capabilities>,
    /// Give it every right and device: --security insecure
    #[arg(long, conflicts_with = "security")]
    pub(crate) privileged: bool,
    /// Keep it apart from this machine, or give it every right and device [default: sandbox]
    #[arg(long, value_enum, hide_short_help = true)]
    pub(crate) security: Option<Apart>,
    /// Show it its own processes only, or this machine's [default: sandbox]
    #[arg(long, value_enum, hide_short_help = true)]
    pub(crate) process_mode: Option<Mode>,
    /// Keep programs from gaining rights, as with set-uid
    #[arg(long, hide_short_help = true)]
    pub(crate) no_new_privileges: bool,
    /// Set a parameter of the kernel, as in net.core.somaxconn=1024
    ///
    /// Those that each container has for itself: kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*, and net.* unless --net is
    /// host.
    #[arg(long, value_name = "NAME=VALUE", value_parser = sysctl, hide_short_help = true)]
    pub(crate) sysctl: Vec<(String, String)>,
    /// System calls: `default`, `unconfined`, or the file of a profile [default: default]
    #[arg(long, value_name = "PROFILE", hide_short_help = true)]
    pub(crate) seccomp: Option<PathBuf>,
    /// AppArmor profile of its processes
    #[arg(long, value_name = "PROFILE", hide_short_help = true)]
    pub(crate) apparmor: Option<String>,
    /// Give it SELinux labels of its own
    #[arg(long, hide_short_help = true)]
    pub(crate) selinux: bool,
    /// Map users of the container to this machine's; groups as well, without --gidmap
    #[arg(long, value_name = "CONTAINER:HOST:SIZE", hide_short_help = true)]
    pub(crate) uidmap: Vec<IdRange>,
    /// Map groups differently from users
    #[arg(long, value_name = "CONTAINER:HOST:SIZE", requires = "uidmap", hide_short_help = true)]
    pub(crate) gidmap: Vec<IdRange>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Container")]
pub(crate) struct Identity {
    /// Label, as in team=blue
    ///
    /// Its config.json has it as the annotation io.longshore.label.NAME.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = label, hide_short_help = true)]
    pub(crate) label: Vec<(String, String)>,
    /// Taken, and changes nothing: a container is always removed when it has ended
    #[arg(long, hide_short_help = true)]
    pub(crate) rm: bool,
    /// Start from this bundle's config.json; options add to it, and those that set one value replace it
    ///
    /// A terminal is asked for with -t, whatever it says.
    #[arg(long, value_name = "BUNDLE", hide_short_help = true)]
    pub(crate) config: Option<PathBuf>,
    /// Let --config leave the container in namespaces of this machine, or share its mounts with it
    #[arg(long, hide_short_help = true)]
    pub(crate) allow_host_namespaces: bool,
    /// Start from this specification in the library's JSON form; - is stdin. Options are added to it or take its place
    ///
    /// The form is in docs/schema/container-spec.json; `longshore spec --json` prints one. Its streams do not count: the
    /// program has those of the command. A limit of 0 is refused there, and is none as the value of an option.
    #[arg(long, value_name = "FILE", conflicts_with = "config", hide_short_help = true)]
    pub(crate) spec: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Sandbox,
    NoSandbox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Apart {
    Sandbox,
    Insecure,
}
