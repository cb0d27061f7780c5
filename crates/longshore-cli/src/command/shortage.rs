//! What to do when something is missing at a start: a path, or what an option or this machine has a limit of.

use longshore::{StartFailure, StartFailureKind, Ulimit};

use super::status::{Asked, MORE_FILES};

/// Limits of the command line that a start can run into.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limited {
    files: bool,
    processes: bool,
    memory: bool,
    anything: bool,
}

impl Limited {
    pub(crate) fn by(ulimits: &[Ulimit]) -> Self {
        let any = |names: &[&str]| ulimits.iter().any(|ulimit| names.contains(&ulimit.kind()));
        Self {
            files: any(&["RLIMIT_NOFILE"]),
            processes: any(&["RLIMIT_NPROC"]),
            memory: any(&["RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_STACK"]),
            anything: !ulimits.is_empty(),
        }
    }
}

type Applies = fn(&Asked) -> bool;

/// The kernel's words in lower case, an option that has to be given, and what to do. The first match counts.
pub(crate) const SHORTAGES: [(&str, &str, Applies, &str); 6] = [
    ("too many open files", "--ulimit nofile", |asked| asked.limited.files, "give another --ulimit"),
    ("too many open files", "", |_| true, MORE_FILES),
    (
        "resource temporarily unavailable",
        "--ulimit nproc",
        |asked| asked.limited.processes,
        "give another --ulimit",
    ),
    ("resource temporarily unavailable", "--pids", |asked| asked.pids.is_some(), "raise --pids"),
    (
        "cannot allocate memory",
        "--ulimit as, data or stack",
        |asked| asked.limited.memory,
        "give another --ulimit",
    ),
    ("cannot allocate memory", "--memory", |asked| asked.memory.is_some(), "raise --memory"),
];

/// What to do, if it is known what has run out.
pub(crate) fn remedy(failure: &StartFailure, asked: &Asked) -> Option<&'static str> {
    let message = failure.message.to_lowercase();
    let applies =
        |(words, _, applies, _): &&(&str, &str, Applies, &str)| message.contains(words) && applies(asked);
    let known = SHORTAGES.iter().filter(|_| failure.kind == StartFailureKind::NoResources).find(applies);
    known.map(|(.., remedy)| *remedy)
}

/// Options with a value that may keep the runtime from working, and what to do. The first match counts.
pub(crate) const SUSPECTS: [(&str, Applies, &str); 3] = [
    (
        "--seccomp FILE",
        |asked| asked.has_profile,
        "the profile of --seccomp may refuse what every container needs: try without it (`longshore doctor` checks the rest)",
    ),
    (
        "--ulimit",
        |asked| asked.limited.anything,
        "a limit of --ulimit may be too low for every container: try without it (`longshore doctor` checks the rest)",
    ),
    (
        "--cgroup-parent",
        |asked| asked.has_parent,
        "the cgroup of --cgroup-parent may allow too little: try without it (`longshore doctor` checks the rest)",
    ),
];

/// What to do if the runtime has failed, and its words do not say over what.
pub(crate) fn suspect(failure: &StartFailure, asked: &Asked) -> Option<&'static str> {
    let mut known = SUSPECTS.iter().filter(|_| failure.kind == StartFailureKind::RuntimeBroken);
    known.find(|(_, applies, _)| applies(asked)).map(|(.., remedy)| *remedy)
}

/// Fields with a path of this machine that does not exist, and what to do.
const MISSING: [(&str, &str); 3] = [
    (
        "rootfs",
        "put a root file system there, or give another --rootfs, as in --rootfs host (there are no images)",
    ),
    ("layer", "put files there, or give another --layer (there are no images)"),
    ("mount source", "make it, or give the path of another (there are no volumes by name)"),
];

/// What to do if the message is about a path that does not exist.
pub(crate) fn of_path(message: &str) -> Option<&'static str> {
    let (field, why) = message.split_once(": ")?;
    let remedy = MISSING.iter().find(|(of, _)| *of == field).map(|(_, remedy)| *remedy);
    remedy.filter(|_| why.contains(": No such file or directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_the_command_line_is_named() {
        let said = |message: &str, asked: Asked| {
            remedy(&StartFailure::new(StartFailureKind::NoResources, message), &asked)
        };
        let ulimit =
            |text: &str| Asked { limited: Limited::by(&[text.parse().unwrap()]), ..Asked::default() };
        let pids = Asked { pids: Some(1), ..Asked::default() };
        let memory = Asked { memory: Some(8 << 20), ..Asked::default() };
        let (files, processes) =
            ("pipe2: too many open files", "true: Resource temporarily unavailable (os error 11)");
        for (message, asked, expected) in [
            (files, ulimit("nofile=10"), Some("give another --ulimit")),
            (files, ulimit("nproc=10"), Some(MORE_FILES)),
            ("make a layer in /x: Too many open files (os error 24)", Asked::default(), Some(MORE_FILES)),
            (processes, pids, Some("raise --pids")),
            (processes, ulimit("nproc=1"), Some("give another --ulimit")),
            (processes, Asked::default(), None),
            ("x: cannot allocate memory", ulimit("as=1"), Some("give another --ulimit")),
            ("x: cannot allocate memory", memory, Some("raise --memory")),
            ("x: no space left on device", memory, None),
        ] {
            assert_eq!(said(message, asked), expected, "{message}");
        }
        let other = StartFailure::new(StartFailureKind::NotFound, "too many open files: not found");
        assert_eq!(remedy(&other, &pids), None);
    }
}
