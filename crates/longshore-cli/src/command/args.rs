//! The command line. [`container`] has the options that make up a container, [`spec`] makes a specification of them, and
//! [`numbers`], [`values`] and [`environment`] read the values of options.

mod container;
mod environment;
mod numbers;
mod spec;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use longshore::ContainerId;

pub(crate) use self::container::Container;
use self::numbers::duration;
pub(crate) use self::spec::DefaultInit;

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
#[command(next_help_heading = "Longshore")]
pub(crate) struct Global {
    /// Directory for bundles and state
    ///
    /// The default is /run/longshore, or a directory of the user's.
    #[arg(long, value_name = "DIR", global = true, hide_short_help = true)]
    pub(crate) root: Option<PathBuf>,
    /// The OCI runtime, by name or path
    ///
    /// The default is the first of longshore-runc, runc, crun, youki on PATH.
    #[arg(long, value_name = "CMD", global = true, hide_short_help = true)]
    pub(crate) runtime: Option<String>,
    /// Have the runtime move the root file system instead of using pivot_root(2)
    ///
    /// This is needed where the root of this machine is a ramdisk.
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) no_pivot: bool,
    /// Directory with the configurations of CNI networks [default: /etc/cni/net.d]
    #[arg(long, value_name = "DIR", global = true, hide_short_help = true)]
    pub(crate) cni_configs: Option<PathBuf>,
    /// Directory with CNI plugins [default: /opt/cni/bin, /usr/lib/cni]
    #[arg(long, value_name = "DIR", global = true, hide_short_help = true)]
    pub(crate) cni_plugins: Vec<PathBuf>,
    /// Send spans to an OTLP collector (HTTP), as in http://localhost:4318/v1/traces
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "ENDPOINT", global = true, hide_short_help = true)]
    pub(crate) otlp: Option<String>,
}

impl Global {
    /// The root that is given, or the user's.
    pub(crate) fn root(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(longshore::default_root)
    }
}

const ALL_OPTIONS: &str = "`--help` has all options, and the exit codes.";

const CODES: &str = "\
Exit status: the program's code; 128+n when signal n ended it; 124 when --timeout did; 125 when Longshore failed; 126 when the
program cannot be executed; 127 when there is none. docs/messages.md has every sentence on stderr, with what to do.";

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Run a program in a new container and wait for it
    ///
    /// The program's output is copied to stdout and stderr, and stdin to the program with -i. SIGINT (Ctrl-C), SIGHUP and
    /// SIGTERM end the program: it gets the same signal, then SIGTERM or --stop-signal after half of --grace, and SIGKILL after
    /// all of it; a second one kills it at once. SIGTSTP freezes the container and stops the command until SIGCONT. Other
    /// signals are passed on.
    #[command(
        override_usage = "longshore run [OPTIONS] PROGRAM [ARG]...",
        after_help = ALL_OPTIONS,
        after_long_help = CODES
    )]
    Run(Box<Run>),
    /// Check whether containers can be run here, and say what to do where not
    ///
    /// The checks are in the order in which `run` depends on them. The last one runs a container.
    Doctor(Doctor),
    /// Print the config.json that `run` would use with the same options
    ///
    /// Written to a directory as config.json, it can be given to `run --config`, with --rootfs host if it was made for
    /// that. What needs files or a network of its own is not in it and is given to `run`: --init, --add-host, --dns and
    /// --net cni. A runtime by itself cannot run it, since the files that `run` makes are missing; with --bundle, a bundle
    /// is made that has them. With --json, the whole specification is printed in the library's JSON form, and `run --spec`
    /// reads it.
    #[command(override_usage = "longshore spec [OPTIONS] PROGRAM [ARG]...", after_help = ALL_OPTIONS, after_long_help = "")]
    Spec(Box<Spec>),
    /// Remove what dead executors left under --root, and only that
    ///
    /// CNI plugins give back what their containers had of networks: see --cni-plugins and --cni-configs. No runtime is needed.
    Sweep(Sweep),
    /// Print what a shell needs to complete the command line
    ///
    /// For bash: longshore completion bash > /etc/bash_completion.d/longshore
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages to a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of all commands that are of no use to a sweep, so that its help does not list them.
#[derive(Args, Debug)]
pub(crate) struct Sweep {
    #[arg(long, hide = true, value_name = "CMD")]
    runtime: Option<String>,
    #[arg(long, hide = true)]
    no_pivot: bool,
}

impl Sweep {
    pub(crate) const fn names_a_runtime(&self) -> bool {
        self.runtime.is_some()
    }
}

#[derive(Args, Debug)]
pub(crate) struct Spec {
    /// Print the specification instead, in the library's JSON form, which `run --spec` reads
    #[arg(long)]
    pub(crate) json: bool,
    /// Make a bundle in this directory instead, which a runtime can run: `runc run --bundle DIR ID`
    ///
    /// Without --rootfs, what its program writes stays in DIR, and directories of this machine with mounts below them are
    /// read-only.
    #[arg(long, value_name = "DIR", conflicts_with = "json")]
    pub(crate) bundle: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The container's id [default: made up]
    ///
    /// --name is the same.
    #[arg(long, alias = "name", value_name = "ID")]
    pub(crate) id: Option<ContainerId>,
    /// Pass stdin on to the program
    ///
    /// It reads nothing otherwise.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the program a terminal
    ///
    /// With -i, every key goes to it as it is, Ctrl-C too. Without, keys are kept for the next reader, and not shown. Its TERM
    /// is that of the command, or xterm.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// End the program after this time; 0 is never
    ///
    /// As in 30s or 2m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Time to end, before SIGKILL
    ///
    /// From --stop-signal to SIGKILL. With 0 it is killed at once. --stop-timeout is the same.
    #[arg(long, alias = "stop-timeout", value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub(crate) grace: Duration,
    /// Write events as JSON to FILE; - is stderr
    ///
    /// An object on each line. A FIFO needs a reader.
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Do not say how the program ended
    ///
    /// Neither that a time or a signal ended it, nor that memory was short. The exit code is the same. Failures of Longshore
    /// are said.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the container's id to this file, which must not exist
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) cidfile: Option<PathBuf>,
    /// Copy between the program's streams and these, or give it these themselves [default: pipe]
    ///
    /// With `inherit` the program can read and set the terminal without -i, and open files again to overwrite them, and a
    /// file becomes the property of the container's user. What the runtime writes to stderr is shown, too.
    #[arg(
        long,
        value_enum,
        default_value = "pipe",
        hide_default_value = true,
        conflicts_with = "tty",
        hide_short_help = true
    )]
    pub(crate) stdio: Streams,
    #[command(flatten)]
    pub(crate) container: Container,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Streams {
    Pipe,
    Inherit,
}
