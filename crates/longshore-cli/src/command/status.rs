//! The exit code of the command, for a shell, and the sentence on stderr, for its user.
//!
//! The code is the program's own; 128+n when signal n ended it; 124 when its time was over; 125 when
//! Longshore failed; 126 when the program cannot be executed; 127 when there is none.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::io::Errno;

use super::ordinary::{LoweredOomScore, Unmapped};
use super::refused::Refused;
use super::relay::NotRead;
use super::remark::Remark;
use super::shortage::{self, Limited};

use longshore::{
    Cancel, Error, Exit, ExitReason, ExitStatus, RuntimeError, Signal, StartFailure, StartFailureKind,
    TimeLimit, with_causes, without_names,
};

pub(crate) const TIMED_OUT: u8 = 124;
pub(crate) const OUR_FAILURE: Code = Code(125);
/// 128 and SIGPIPE.
const BROKEN_PIPE: Code = Code(141);
const NOT_EXECUTABLE: Code = Code(126);
const NOT_FOUND: Code = Code(127);

/// The sentence if events could not be written. The code is still the program's own if that has failed.
pub(crate) fn lost_events(error: &io::Error, code: Code) -> (Code, String) {
    let code = if code == Code(0) { OUR_FAILURE } else { code };
    (code, Remark::EventsLost { why: error.to_string() }.to_string())
}

/// The sentence if output of the program could not be written. The code is still the program's own if that has failed, other
/// than by SIGPIPE: its output was closed.
pub(crate) fn lost_output(error: &io::Error, code: Code) -> (Code, String) {
    let code = if [Code(0), BROKEN_PIPE].contains(&code) { OUR_FAILURE } else { code };
    let remark = if error.get_ref().is_some_and(|cause| cause.is::<NotRead>()) {
        Remark::OutputNotRead
    } else if Errno::from_io_error(error) == Some(Errno::BADF) {
        Remark::OutputClosed
    } else {
        Remark::OutputLost { why: error.to_string() }
    };
    (code, remark.to_string())
}

/// The sentence if input of the program could not be read. The code is still the program's own if that has failed.
pub(crate) fn lost_input(why: String, code: Code) -> (Code, String) {
    let code = if code == Code(0) { OUR_FAILURE } else { code };
    (code, Remark::InputLost { why }.to_string())
}

const KILLED: ExitStatus = ExitStatus::Signal(Signal::KILL);

/// What gives an ordinary user cgroups, and with them limits.
pub(crate) const DELEGATE: &str =
    "start it with systemd-run --user --scope -p Delegate=yes, or give --cgroup-parent";

/// What to do if a root cannot be used.
pub(crate) const OWN_ROOT: &str = "name a directory with --root to which only you can write";

/// What to do if a part of a root is covered.
const UNMOUNT: &str = "something is mounted over a directory of the root: unmount it, or name another --root";

/// What to do if the words of the runtime say nothing of an option.
const CHECK: &str = "`longshore doctor` checks what containers need";

/// What to do if there are no more file descriptors.
pub(crate) const MORE_FILES: &str = "raise the limit of open files (ulimit -n)";

/// An exit code of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u8);

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.0)
    }
}

/// Something that went wrong, in one sentence: the cause, then what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) cause: String,
    pub(crate) remedy: &'static str,
    pub(crate) code: Code,
}

impl Failure {
    fn ours(cause: impl Into<String>, remedy: &'static str) -> Self {
        Self { cause: cause.into(), remedy, code: OUR_FAILURE }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.remedy)
    }
}

/// What to do if the system has run out of something.
pub(crate) fn remedy_of_system(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let system = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        match system.map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE) => return Some(MORE_FILES),
            Some(Errno::NOSPC | Errno::DQUOT) => {
                return Some("free some space below --root, or name another one");
            }
            Some(_) | None => cause = error.source(),
        }
    }
    None
}

/// What to do if a root cannot be used, unless it is the root of somebody else.
pub(crate) fn remedy_of_root(error: &RuntimeError) -> Option<&'static str> {
    // What is below a root is opened without crossing a mount.
    let is_mounted_over = matches!(error, RuntimeError::Root { .. }) && has_error(error, Errno::XDEV);
    if is_mounted_over { Some(UNMOUNT) } else { remedy_of_system(error) }
}

fn has_error(error: &(dyn std::error::Error + 'static), wanted: Errno) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut systems = causes.filter_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error());
    systems.any(|number| Errno::from_raw_os_error(number) == wanted)
}

/// Why a root cannot be used, with its path once. `None` if the error is about something else.
pub(crate) fn refused_root(error: &RuntimeError) -> Option<String> {
    let RuntimeError::Root { root, source } = error else { return None };
    let of_root = |op: &str, text: &str| text == format!("{op} {}", root.display());
    let mut causes = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&**source);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes.dedup();
    causes.retain(|text| !of_root("use", text) && !of_root("open", text));
    Some(root_cannot_be_used(root, &causes.join(": ")))
}

/// The sentence on it. What is wrong may be the root itself, or a directory above it.
pub(crate) fn root_cannot_be_used(root: &Path, why: &str) -> String {
    match why.starts_with(&format!("{} ", root.display())) {
        true => format!("the root {why}"),
        false => format!("the root {} cannot be used: {why}", root.display()),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Some(remedy) = remedy_of_system(&error) {
            return Self::ours(with_causes(&error), remedy);
        }
        let covered = if let Error::Runtime(error) = &error { remedy_of_root(error) } else { None };
        let remedy = match &error {
            Error::Runtime(RuntimeError::Root { .. }) if covered.is_some() => covered.unwrap_or(OWN_ROOT),
            Error::InvalidSpec(error) if error.field == "memory" => {
                "give another --memory, as in 64m (a number alone is bytes)"
            }
            Error::InvalidSpec(error)
                if error.field == "config" && error.why.ends_with(": cannot be read") =>
            {
                "name a directory with a config.json that you may read"
            }
            Error::InvalidSpec(_) => "see `longshore run --help`",
            Error::InvalidId(_) | Error::IdTaken { .. } => "choose another --id",
            Error::Runtime(RuntimeError::NoRuntime { .. }) => {
                "install runc, or name a runtime with --runtime (`longshore doctor` checks the rest)"
            }
            Error::Runtime(RuntimeError::Root { .. }) => OWN_ROOT,
            Error::Runtime(
                RuntimeError::NotRunning { .. }
                | RuntimeError::Unsupported { .. }
                | RuntimeError::Refused { .. }
                | RuntimeError::TimedOut { .. }
                | RuntimeError::Failed { .. },
            )
            | Error::NotFound { .. }
            | Error::NoProcess { .. }
            | Error::Refused { .. }
            | Error::NotStarted { .. }
            | Error::NotReady(_)
            | Error::Pipe(_)
            | Error::NoOutput { .. }
            | Error::Thread(_)
            | Error::ShuttingDown
            | Error::Stopped
            | _ => CHECK,
        };
        let refused = if let Error::Runtime(error) = &error { refused_root(error) } else { None };
        // A parameter has a path in the JSON form, and an option here.
        let cause =
            refused.unwrap_or_else(|| with_causes(&error).replacen("sysctl: /sysctls/", "--sysctl ", 1));
        Self::ours(cause, remedy)
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        Error::from(error).into()
    }
}

impl From<StartFailure> for Failure {
    fn from(StartFailure { kind, message, .. }: StartFailure) -> Self {
        // A message begins with the field of the specification that it is about.
        let field = message.split([':', ' ']).next().unwrap_or_default();
        let (code, remedy) = match (kind, shortage::of_path(&message), option_at_fault(&message)) {
            // That of a program begins with its name, which may be any.
            (StartFailureKind::NotFound, ..) => (
                NOT_FOUND,
                "check its name, bring it in with -v, or name its root file system with --rootfs (there are no images)",
            ),
            (StartFailureKind::NotExecutable, ..) => {
                (NOT_EXECUTABLE, "name a program or a script that can be executed")
            }
            (StartFailureKind::PermissionDenied, ..) if field == "resources" => (OUR_FAILURE, DELEGATE),
            // The path may have any words in it.
            (StartFailureKind::BadConfig, Some(remedy), _) => (OUR_FAILURE, remedy),
            (..) if field == "network" => {
                (OUR_FAILURE, "choose another network with --net (see also --cni-configs and --cni-plugins)")
            }
            (_, _, Some(remedy)) => (OUR_FAILURE, remedy),
            (StartFailureKind::BadConfig, ..) => (OUR_FAILURE, "correct that option"),
            (StartFailureKind::IdTaken, ..) => (OUR_FAILURE, "choose another --id"),
            (StartFailureKind::PermissionDenied, ..) => {
                (OUR_FAILURE, "run as root, with the rights to do that")
            }
            (StartFailureKind::NoResources, ..) => {
                (OUR_FAILURE, "free some memory, disk, files or pids, or raise the limit")
            }
            (StartFailureKind::RuntimeTimedOut, ..) => (OUR_FAILURE, "`longshore doctor` checks the runtime"),
            (StartFailureKind::ContainerGone | StartFailureKind::Interrupted, ..) => {
                (OUR_FAILURE, "start it anew")
            }
            (StartFailureKind::RuntimeBroken | _, ..) => (OUR_FAILURE, CHECK),
        };
        Self { cause: message, remedy, code }
    }
}

/// Words of runtimes and the kernel that are about the value of an option, and what to do.
pub(crate) const OPTIONS: [(&str, &str); 23] = [
    ("(os error 27)", "raise the limit of file sizes (ulimit -f)"),
    ("is no OCI runtime", "name another one with --runtime (`longshore doctor` checks it)"),
    (
        "cpuset.cpus",
        "--cpuset-cpus must name CPUs that this machine has (see /sys/devices/system/cpu/online)",
    ),
    (
        "cpuset.mems",
        "--cpuset-mems must name memory nodes of this machine (see /sys/devices/system/node/online)",
    ),
    ("memory.memsw", "give another --memory-swap"),
    ("memory.swap", "give another --memory-swap"),
    ("memory.limit", "give another --memory"),
    ("memory.max", "give another --memory"),
    ("cpu.cfs_period", "give another --cpu-period"),
    ("cpu.cfs_quota", "give another --cpu-quota, or --cpus"),
    ("cpu.max", "give another --cpu-quota, --cpu-period or --cpus"),
    ("cpu.shares", "give another --cpu-shares"),
    ("cpu.weight", "give another --cpu-shares"),
    ("pids.max", "give another --pids"),
    ("uids and gids must be in range", "give --user numbers from 0 to 2147483647"),
    ("oom_score_adj", "give another --oom-score-adj"),
    (
        "uid_map",
        "newuidmap(1) maps such ids, for an ordinary user those of /etc/subuid (`longshore doctor` checks that)",
    ),
    (
        "gid_map",
        "newgidmap(1) maps such ids, for an ordinary user those of /etc/subgid (`longshore doctor` checks that)",
    ),
    ("error setting rlimit", "give another --ulimit"),
    ("setrlimit", "give another --ulimit"),
    ("sysctl", "give another name or value with --sysctl"),
    (
        "pivot_root",
        "give --no-pivot if the root of this machine is a ramdisk (`longshore doctor` checks that)",
    ),
    ("apparmor", "give another --apparmor"),
];

/// Fields of the specification with which messages of ours begin. What comes after them names something.
const FIELDS: [&str; 6] = ["mount", "rootfs", "layer", "cwd", "seccomp", "config"];

/// What to do if the message is about an option.
fn option_at_fault(message: &str) -> Option<&'static str> {
    let field = message.split([':', ' ']).next().unwrap_or_default();
    let own = match FIELDS.contains(&field) {
        // What it says is behind the name.
        true => message.splitn(3, ": ").nth(2)?.to_owned(),
        false => without_names(message),
    };
    OPTIONS.iter().find(|(words, _)| own.contains(words)).map(|(_, remedy)| *remedy)
}

/// What `run` was asked for, as far as the sentence on the end depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) time_limit: Option<TimeLimit>,
    /// How the program is asked to end.
    pub(crate) cancel: Cancel,
    /// The memory limit, in bytes.
    pub(crate) memory: Option<u64>,
    /// The limit of processes that was given.
    pub(crate) pids: Option<u64>,
    /// Limits of each process.
    pub(crate) limited: Limited,
    /// There is a process 1 in front of the program, whose exit code is 128+n if signal n ended the program.
    pub(crate) has_init: bool,
    /// Its seccomp profile is a file of the caller's.
    pub(crate) has_profile: bool,
    /// Its cgroup is below one of the caller's.
    pub(crate) has_parent: bool,
    /// Ids that this user may not map.
    pub(crate) unmapped: Option<Unmapped>,
    /// A value of `--oom-score-adj` that takes a right which this process lacks.
    pub(crate) lowered: Option<LoweredOomScore>,
    /// The first signal to this command.
    pub(crate) interrupted: Option<Signal>,
    /// A second signal came, and the program was to be killed at once.
    pub(crate) hurried: bool,
    /// The reader of its output has gone, and it is to end as by SIGPIPE.
    pub(crate) broken_pipe: bool,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            time_limit: None,
            cancel: Cancel::now(),
            memory: None,
            pids: None,
            limited: Limited::default(),
            has_init: false,
            has_profile: false,
            has_parent: false,
            unmapped: None,
            lowered: None,
            interrupted: None,
            hurried: false,
            broken_pipe: false,
        }
    }
}

/// The exit code for an end. If there is something to say beside it, a sentence: none when only the program failed.
pub(crate) fn of(exit: Exit, asked: &Asked) -> (Code, Option<String>) {
    let own = if exit.success { Code(0) } else { program(exit.status, asked) };
    let oom_kills = exit.usage.as_deref().map_or(0, |usage| usage.oom_kills);
    match exit.reason {
        ExitReason::Normal => (own, of_children(oom_kills, asked.memory)),
        ExitReason::StartFailed(failure) => {
            let of_program = [StartFailureKind::NotFound, StartFailureKind::NotExecutable];
            let of_map = asked.unmapped.filter(|_| !of_program.contains(&failure.kind));
            let of_score = asked.lowered.filter(|_| LoweredOomScore::explains(&failure.message));
            let refused = of_map.map(Refused::Ids).or(of_score.map(Refused::OomScore));
            let short = shortage::remedy(&failure, asked);
            let suspect = shortage::suspect(&failure, asked);
            let failure = refused.map_or_else(|| failure.into(), Failure::from);
            let suspect = suspect.filter(|_| failure.remedy == CHECK);
            let remedy = short.or(suspect).unwrap_or(failure.remedy);
            let failure = Failure { remedy, ..failure };
            (failure.code, Some(failure.to_string()))
        }
        ExitReason::TimedOut { killed } => {
            let started = exit.started_at.is_some();
            (Code(TIMED_OUT), Some(timed_out(exit.status, started, killed, asked)))
        }
        ExitReason::Cancelled { .. } if exit.status == KILLED && asked.broken_pipe => (BROKEN_PIPE, None),
        ExitReason::Cancelled { killed: true, .. } if exit.status == KILLED => (own, Some(killed_by(asked))),
        ExitReason::Cancelled { .. } => (own, of_children(oom_kills, asked.memory)),
        ExitReason::OutOfMemory => {
            let limit =
                asked.memory.map(|bytes| format!(" at its limit of {} MiB", bytes >> 20)).unwrap_or_default();
            (own, Some(format!("out of memory: the kernel killed the program{limit}; raise --memory")))
        }
        ExitReason::Lost | _ => {
            let cause =
                "the exit status of the program is unknown: another part of this process has waited for it";
            (OUR_FAILURE, Some(format!("{cause}; `longshore doctor` checks what containers need")))
        }
    }
}

/// That processes were killed, though the program went on. It has probably lost some of its work.
fn of_children(oom_kills: u64, limit: Option<u64>) -> Option<String> {
    let were = if oom_kills == 1 { "was" } else { "were" };
    let remedy = if limit.is_some() { "raise --memory" } else { "free some memory of this machine" };
    (oom_kills > 0)
        .then(|| format!("{oom_kills} of the program's processes {were} killed for lack of memory; {remedy}"))
}

/// How a program ended that exceeded its time limit.
fn timed_out(status: ExitStatus, started: bool, killed: bool, asked: &Asked) -> String {
    let limit = asked.time_limit;
    let after = humantime::format_duration(limit.map(|limit| limit.after).unwrap_or_default());
    let cancel = limit.map_or_else(Cancel::now, |limit| limit.cancel);
    let (signal, grace) = (cancel.signal, humantime::format_duration(cancel.grace));
    let how = match status {
        _ if !started => ", before the program ran".to_owned(),
        KILLED if !killed || cancel.is_immediate() => ", and the program was killed with SIGKILL".to_owned(),
        KILLED if asked.interrupted.is_some() => {
            format!(", and the program did not end on {signal} and was killed with SIGKILL")
        }
        KILLED => {
            format!(", and the program did not end within {grace} of {signal} and was killed with SIGKILL")
        }
        // A program of its own code 143 has ended as one does that has no handler.
        ExitStatus::Code(code) if asked.has_init && code == 128 + signal.number() => {
            format!(", and {signal} ended the program")
        }
        ExitStatus::Code(code) => format!(", and the program ended with exit code {code}"),
        ExitStatus::Signal(signal) => format!(", and {signal} ended the program"),
        ExitStatus::Unknown => ", and the program has ended".to_owned(),
    };
    format!("the timeout of {after} was over{how}; give it more with --timeout")
}

/// How a program was killed after a signal to this command.
fn killed_by(asked: &Asked) -> String {
    let grace = humantime::format_duration(asked.cancel.grace);
    let signal = asked.interrupted.filter(|first| *first != Signal::TERM).unwrap_or(asked.cancel.signal);
    match (asked.hurried, asked.cancel.grace) {
        (true, _) => {
            format!("a second signal killed the program before its grace of {grace} was over; wait for it")
        }
        (false, Duration::ZERO) => {
            "the program was killed with SIGKILL at once; --grace gives it time to end".into()
        }
        (false, _) => format!(
            "the program did not end within {grace} of {signal} and was killed with SIGKILL; give it more time with --grace"
        ),
    }
}

/// As a shell would say it.
fn program(status: ExitStatus, asked: &Asked) -> Code {
    match (status, asked.interrupted) {
        (ExitStatus::Code(code), _) => Code(code),
        (ExitStatus::Signal(signal), _) | (ExitStatus::Unknown, Some(signal)) => Code(128 + signal.number()),
        (ExitStatus::Unknown, None) => OUR_FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use longshore::{CancelCause, Timestamp};

    fn ended(status: ExitStatus, reason: ExitReason) -> (u8, bool) {
        let at = Timestamp::default();
        let exit = Exit::new(status, reason, &BTreeSet::new(), Some(at), at);
        let (code, sentence) = of(exit, &Asked { interrupted: Some(Signal::INT), ..Asked::default() });
        (code.0, sentence.is_some())
    }

    #[test]
    fn codes_are_what_a_shell_expects() {
        let kill = ExitStatus::Signal(Signal::KILL);
        let unknown = ExitStatus::Unknown;
        let failed = |kind| ExitReason::StartFailed(StartFailure::new(kind, "x"));
        let cancelled = |killed| ExitReason::Cancelled { cause: CancelCause::Requested, killed };
        for (status, reason, expected) in [
            (ExitStatus::Code(0), ExitReason::Normal, (0, false)),
            (ExitStatus::Code(255), ExitReason::Normal, (255, false)),
            (kill, ExitReason::Normal, (137, false)),
            (kill, ExitReason::OutOfMemory, (137, true)),
            (ExitStatus::Code(3), cancelled(false), (3, false)),
            (kill, cancelled(true), (137, true)),
            (ExitStatus::Code(3), cancelled(true), (3, false)),
            (unknown, cancelled(false), (130, false)),
            (ExitStatus::Code(0), ExitReason::TimedOut { killed: false }, (124, true)),
            (unknown, failed(StartFailureKind::NotFound), (127, true)),
            (unknown, failed(StartFailureKind::NotExecutable), (126, true)),
            (unknown, failed(StartFailureKind::RuntimeBroken), (125, true)),
            (unknown, ExitReason::Lost, (125, true)),
        ] {
            assert_eq!(ended(status, reason.clone()), expected, "{status:?} {reason:?}");
        }
    }
    fn sentence(status: ExitStatus, reason: ExitReason, asked: Asked) -> String {
        let at = Timestamp::default();
        of(Exit::new(status, reason, &BTreeSet::new(), Some(at), at), &asked).1.unwrap_or_default()
    }

    #[test]
    fn sentences_say_how_the_program_ended() {
        let limited = |grace| Asked {
            time_limit: Some(TimeLimit { after: Duration::from_secs(2), cancel: Cancel::with_grace(grace) }),
            cancel: Cancel::with_grace(grace),
            ..Asked::default()
        };
        let (second, none) = (Duration::from_secs(1), Duration::ZERO);
        let term = ExitStatus::Signal(Signal::TERM);
        for (status, killed, grace, how) in [
            (ExitStatus::Code(7), false, second, "and the program ended with exit code 7;"),
            (ExitStatus::Code(7), true, second, "and the program ended with exit code 7;"),
            (term, false, second, "and SIGTERM ended the program;"),
            (KILLED, true, second, "did not end within 1s of SIGTERM and was killed with SIGKILL;"),
            (KILLED, true, none, "and the program was killed with SIGKILL;"),
            (KILLED, false, second, "and the program was killed with SIGKILL;"),
        ] {
            let said = sentence(status, ExitReason::TimedOut { killed }, limited(grace));
            assert!(said.starts_with("the timeout of 2s was over, ") && said.contains(how), "{said}");
        }
        let cancelled = ExitReason::Cancelled { cause: CancelCause::Requested, killed: true };
        let said = sentence(KILLED, cancelled.clone(), limited(second));
        assert!(said.starts_with("the program did not end within 1s of SIGTERM"), "{said}");
        assert!(said.ends_with("give it more time with --grace"), "{said}");
        assert!(sentence(KILLED, cancelled.clone(), limited(none)).contains("at once"));
        let said = sentence(KILLED, cancelled, Asked { hurried: true, ..limited(second) });
        assert!(said.starts_with("a second signal killed the program"), "{said}");
    }

    /// Process 1 cannot end by a signal, and has a code for it.
    #[test]
    fn a_signal_behind_process_1_is_said_as_one() {
        let cancel = Cancel::with_grace(Duration::from_secs(5));
        let limit = TimeLimit { after: Duration::from_secs(1), cancel };
        let asked = Asked { time_limit: Some(limit), cancel, has_init: true, ..Asked::default() };
        let said = |code| sentence(ExitStatus::Code(code), ExitReason::TimedOut { killed: false }, asked);
        assert!(said(143).contains("was over, and SIGTERM ended the program;"), "{}", said(143));
        assert!(said(0).contains("and the program ended with exit code 0;"), "{}", said(0));
    }

    #[test]
    fn a_child_that_was_killed_for_lack_of_memory_is_said() {
        let at = Timestamp::default();
        let said = |code, oom_kills| {
            let status = ExitStatus::Code(code);
            let usage = longshore::Usage { oom_kills, ..longshore::Usage::default() };
            let exit = Exit::new(status, ExitReason::Normal, &BTreeSet::new(), Some(at), at);
            let asked = Asked { memory: Some(1 << 20), ..Asked::default() };
            of(exit.with_usage(Some(Box::new(usage))), &asked).1.unwrap_or_default()
        };
        assert_eq!((said(0, 0), said(1, 0)), (String::new(), String::new()));
        let one = "1 of the program's processes was killed for lack of memory; raise --memory";
        assert_eq!((said(0, 1).as_str(), said(1, 1).as_str()), (one, one));
        assert!(said(1, 2).starts_with("2 of the program's processes were killed"));
    }

    #[test]
    fn the_path_of_a_root_is_said_once() {
        let root = Path::new("/r/x");
        let said = |why| root_cannot_be_used(root, why);
        assert_eq!(said("/r/x belongs to user 7"), "the root /r/x belongs to user 7");
        assert_eq!(said("/r belongs to user 7"), "the root /r/x cannot be used: /r belongs to user 7");
    }

    #[test]
    fn remedies_name_the_option() {
        let remedy = |kind, message: &str| Failure::from(StartFailure::new(kind, message)).remedy;
        let limits = "resources: limits need cgroups, and none are delegated to this user";
        assert_eq!(remedy(StartFailureKind::PermissionDenied, limits), DELEGATE);
        let network = "network x: no configuration of this network in /etc/cni/net.d";
        assert!(remedy(StartFailureKind::BadConfig, network).contains("--net"));
        assert_eq!(remedy(StartFailureKind::BadConfig, "device: /dev/x"), "correct that option");
        let missing = "mount source: /etc/apparmor.d/x: No such file or directory (os error 2)";
        assert!(remedy(StartFailureKind::BadConfig, missing).contains("no volumes by name"));
        let other = "mount source: /etc/passwd: Not a directory (os error 20)";
        assert_eq!(remedy(StartFailureKind::BadConfig, other), "correct that option");
    }
}
