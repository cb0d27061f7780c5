//! Why a process did not start, from the runtime's log.
//!
//! runc and crun write a JSON object on each line of their log. The last line of level `error` has the cause.
//! The known messages are those of runc 1.1 and crun 1.8.

use std::io;

use executor_core::lifecycle::{StartFailure, StartFailureKind, without_names};
use rustix::io::Errno;

/// The runtime's own words: the last error in its log, or its last line if no line is an error.
pub(crate) fn words(log: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        #[serde(default)]
        level: String,
        msg: String,
    }
    let text = String::from_utf8_lossy(log);
    let is_error = |line: &Line| matches!(line.level.as_str(), "error" | "fatal" | "panic");
    let latest_first: Vec<_> = text.lines().rev().filter(|line| !line.trim().is_empty()).collect();
    let mut parsed: Vec<Line> =
        latest_first.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if parsed.is_empty() {
        return latest_first.first().map(|line| without_prefaces(line).to_owned());
    }
    let chosen = parsed.swap_remove(parsed.iter().position(is_error).unwrap_or(0));
    Some(without_prefaces(&chosen.msg).to_owned())
}

/// What runc writes before the cause.
const PREFACES: [&str; 4] = [
    "runc run failed: ",
    "exec failed: ",
    "unable to start container process: ",
    "error during container init: ",
];

fn without_prefaces(words: &str) -> &str {
    let mut rest = words;
    while let Some(shorter) = PREFACES.iter().find_map(|preface| rest.strip_prefix(preface)) {
        rest = shorter;
    }
    rest
}

/// The kind of a failure, by a part of its message in lower case: runc has Go's words for an error of the system, and crun has the
/// C library's, which begin with a capital. The first match counts. Names are left out of the message.
const KINDS: [(&str, StartFailureKind); 23] = [
    ("executable file not found", StartFailureKind::NotFound),
    ("exec format error", StartFailureKind::NotExecutable),
    ("is a directory", StartFailureKind::NotExecutable),
    ("already exists", StartFailureKind::IdTaken),
    ("cannot exec in a stopped container", StartFailureKind::ContainerGone),
    ("cannot exec a container that has stopped", StartFailureKind::ContainerGone),
    ("container does not exist", StartFailureKind::ContainerGone),
    ("container not running", StartFailureKind::ContainerGone),
    ("is not running", StartFailureKind::ContainerGone),
    ("cannot allocate memory", StartFailureKind::NoResources),
    ("no space left on device", StartFailureKind::NoResources),
    ("disk quota exceeded", StartFailureKind::NoResources),
    ("too many open files", StartFailureKind::NoResources),
    ("resource temporarily unavailable", StartFailureKind::NoResources),
    ("container init was oom-killed", StartFailureKind::NoResources),
    ("memory limit too low", StartFailureKind::NoResources),
    ("chdir to cwd", StartFailureKind::BadConfig),
    ("error mounting", StartFailureKind::BadConfig),
    ("invalid", StartFailureKind::BadConfig),
    ("cannot set", StartFailureKind::BadConfig),
    ("operation not permitted", StartFailureKind::PermissionDenied),
    ("permission denied", StartFailureKind::PermissionDenied),
    ("read-only file system", StartFailureKind::PermissionDenied),
];

/// Classifies the runtime's words.
///
/// If `permission denied` is about the container's program, the program cannot be executed. Otherwise this
/// user lacks a permission.
pub(crate) fn classify(words: String) -> StartFailure {
    let lower = words.to_lowercase();
    let own = without_names(&lower);
    let says = |text: &str| own.contains(text);
    let of_program = lower.starts_with("exec: \"")
        || lower.contains(": exec: \"")
        || lower.contains("exec /")
        || says("open executable");
    let kind = KINDS.iter().find(|(text, _)| says(text)).map(|(_, kind)| *kind);
    let kind = match kind {
        Some(StartFailureKind::PermissionDenied) if of_program => StartFailureKind::NotExecutable,
        Some(kind) => kind,
        None if of_program && says("no such file or directory") => StartFailureKind::NotFound,
        None => StartFailureKind::RuntimeBroken,
    };
    StartFailure::new(kind, words)
}

/// Errors of execve(2), with the words of Go and of the C library in lower case, and what they say of a program.
const NOT_EXECUTED: [(Errno, &str, &str); 9] = [
    (Errno::NOENT, "no such file or directory", "it, its interpreter or its loader does not exist"),
    (Errno::NOTDIR, "not a directory", "its path, or that of its interpreter, leads through a file"),
    (
        Errno::ACCESS,
        "permission denied",
        "permission denied: it, or its interpreter, is not executable for this user or on its mount",
    ),
    (Errno::PERM, "operation not permitted", "it has capabilities that the container does not have"),
    (
        Errno::NOEXEC,
        "exec format error",
        "exec format error: neither a program for this machine nor a script that begins with #!",
    ),
    (Errno::TXTBSY, "text file busy", "text file busy: it is open for writing"),
    (
        Errno::TOOBIG,
        "argument list too long",
        "argument list too long: the arguments and the environment are larger than the kernel takes",
    ),
    (Errno::LOOP, "too many levels of symbolic links", "too many links or interpreters lead to it"),
    (Errno::LIBBAD, "accessing a corrupted shared library", "its loader cannot be executed"),
];

/// The error of execve(2) in the words of a runtime's init. They begin with the call, and end with the error.
pub(crate) fn errno_of(words: &str) -> Option<Errno> {
    if !words.starts_with("exec ") && !words.starts_with("exec: ") {
        return None;
    }
    let lower = words.trim_end().to_lowercase();
    let known = NOT_EXECUTED.iter().find(|(_, text, _)| lower.ends_with(text)).map(|(errno, ..)| *errno);
    known.or_else(|| lower.ends_with("cannot allocate memory").then_some(Errno::NOMEM))
}

/// A program that the kernel has not executed, for this reason if it is known.
pub(crate) fn not_executed(program: &str, errno: Option<Errno>) -> StartFailure {
    let system = |errno: Errno| io::Error::from(errno);
    let shortage =
        errno.filter(|errno| StartFailureKind::of_io(&system(*errno)) == Some(StartFailureKind::NoResources));
    let kind = match (shortage, errno) {
        (Some(_), _) => StartFailureKind::NoResources,
        (None, Some(Errno::NOENT | Errno::NOTDIR)) => StartFailureKind::NotFound,
        (None, _) => StartFailureKind::NotExecutable,
    };
    let known = NOT_EXECUTED.iter().find(|(known, ..)| Some(*known) == errno);
    let why = match (known, errno) {
        (Some((_, _, why)), _) => (*why).to_owned(),
        (None, Some(errno)) => system(errno).to_string(),
        (None, None) => {
            let causes = "it is not for this machine, it is open for writing, or its arguments are too long";
            format!("the kernel did not execute it: {causes}")
        }
    };
    StartFailure::new(kind, format!("{program}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_the_cause() {
        let log = br#"{"level":"warning","msg":"w","time":"t"}
{"level":"error","msg":"the cause","time":"t"}
{"level":"info","msg":"later","time":"t"}
"#;
        assert_eq!(words(log).as_deref(), Some("the cause"));
        assert_eq!(words(b"{\"msg\":\"crun says\"}\n").as_deref(), Some("crun says"));
        assert_eq!(words(b"panic: oh\n\n").as_deref(), Some("panic: oh"));
        assert_eq!(words(b"\xff\xfe{").map(|text| text.is_empty()), Some(false));
        assert_eq!(words(b" \n"), None);
        let wrapped = br#"{"level":"error","msg":"runc run failed: unable to start container process: the cause: details"}"#;
        assert_eq!(words(wrapped).as_deref(), Some("the cause: details"));
    }

    #[test]
    fn why_a_program_was_not_executed() {
        for (log, errno, kind) in [
            ("exec /bin/x: text file busy\n", Some(Errno::TXTBSY), StartFailureKind::NotExecutable),
            ("before\nexec /x: no such file or directory\n", Some(Errno::NOENT), StartFailureKind::NotFound),
            ("exec /x: cannot allocate memory\n", Some(Errno::NOMEM), StartFailureKind::NoResources),
            (
                "{\"msg\":\"exec container process `/x`: Argument list too long\",\"level\":\"error\"}\n",
                Some(Errno::TOOBIG),
                StartFailureKind::NotExecutable,
            ),
            ("exec: Exec format error\n", Some(Errno::NOEXEC), StartFailureKind::NotExecutable),
            ("another process: no such file or directory\n", None, StartFailureKind::NotExecutable),
        ] {
            let known = errno_of(&words(log.as_bytes()).unwrap());
            assert_eq!((known, not_executed("x", known).kind), (errno, kind), "{log}");
        }
        assert_eq!(
            not_executed("x", Some(Errno::TXTBSY)).message,
            "x: text file busy: it is open for writing"
        );
    }

    #[test]
    fn each_kind_is_known_by_the_runtimes_words() {
        for (words, kind) in [
            (
                r#"runc run failed: unable to start container process: exec: "nope": executable file not found in $PATH"#,
                StartFailureKind::NotFound,
            ),
            (
                r#"unable to start container process: exec: "/nope": stat /nope: no such file or directory"#,
                StartFailureKind::NotFound,
            ),
            (
                "executable file `nope` not found in $PATH: No such file or directory",
                StartFailureKind::NotFound,
            ),
            (
                r#"unable to start container process: exec: "/etc/passwd": permission denied"#,
                StartFailureKind::NotExecutable,
            ),
            (r#"exec: "/tmp": is a directory"#, StartFailureKind::NotExecutable),
            ("exec /x: exec format error", StartFailureKind::NotExecutable),
            ("container with given ID already exists", StartFailureKind::IdTaken),
            ("exec failed: cannot exec in a stopped container", StartFailureKind::ContainerGone),
            ("fork/exec /proc/self/exe: resource temporarily unavailable", StartFailureKind::NoResources),
            ("mkdir /run/x: permission denied", StartFailureKind::PermissionDenied),
            ("openat2 `sys/firmware`: Too many open files", StartFailureKind::NoResources),
            ("write file `x`: No space left on device", StartFailureKind::NoResources),
            ("open executable: Permission denied", StartFailureKind::NotExecutable),
            ("an unknown message", StartFailureKind::RuntimeBroken),
            // What somebody has named may read like these.
            (
                r#"exec: "/invalid/already exists": stat /invalid/already exists: no such file or directory"#,
                StartFailureKind::NotFound,
            ),
            (r#"exec: "is a directory": executable file not found in $PATH"#, StartFailureKind::NotFound),
            (
                r#"mount "/executable file not found": /invalid: operation not permitted"#,
                StartFailureKind::PermissionDenied,
            ),
        ] {
            assert_eq!(classify(words.to_owned()).kind, kind, "{words}");
        }
    }
}
