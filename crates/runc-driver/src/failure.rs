//! Whose fault it is that a process did not start, from what the runtime said.
//!
//! runc and crun explain themselves in their log, a JSON object on each line; the last line of level
//! `error` is the cause. The texts are runc 1.1's and crun 1.8's.

use executor_core::lifecycle::{StartFailure, StartFailureKind};

/// The runtime's own words: the last error in its log, else the last line of whatever it wrote.
pub(crate) fn words(log: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        #[serde(default)]
        level: String,
        msg: String,
    }
    let text = String::from_utf8_lossy(log);
    let lines = || text.lines().rev().filter(|line| !line.trim().is_empty());
    let parsed = || lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let error = parsed().find(|line| matches!(line.level.as_str(), "error" | "fatal" | "panic"));
    let words =
        error.or_else(|| parsed().next()).map(|line| line.msg).or_else(|| lines().next().map(str::to_owned));
    words.map(|words| cause_first(&words).to_owned())
}

/// What runc says before it comes to the cause.
const PREFACES: [&str; 4] = [
    "runc run failed: ",
    "exec failed: ",
    "unable to start container process: ",
    "error during container init: ",
];

fn cause_first(words: &str) -> &str {
    let mut rest = words;
    while let Some(shorter) = PREFACES.iter().find_map(|preface| rest.strip_prefix(preface)) {
        rest = shorter;
    }
    rest
}

/// What went wrong, by words of which each kind has its own. The first match counts.
const KINDS: [(&str, StartFailureKind); 22] = [
    ("executable file not found", StartFailureKind::NotFound),
    ("executable file `", StartFailureKind::NotFound),
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
    ("too many open files", StartFailureKind::NoResources),
    ("resource temporarily unavailable", StartFailureKind::NoResources),
    ("container init was OOM-killed", StartFailureKind::NoResources),
    ("memory limit too low", StartFailureKind::NoResources),
    ("chdir to cwd", StartFailureKind::BadConfig),
    ("error mounting", StartFailureKind::BadConfig),
    ("invalid", StartFailureKind::BadConfig),
    ("cannot set", StartFailureKind::BadConfig),
    ("operation not permitted", StartFailureKind::PermissionDenied),
    ("permission denied", StartFailureKind::PermissionDenied),
];

/// Makes a failure of the runtime's words.
///
/// `permission denied` of the program itself means that it cannot be executed; of anything else,
/// that we may not do it.
pub(crate) fn classify(words: String) -> StartFailure {
    let of_program =
        words.contains("exec: \"") || words.contains("exec /") || words.contains("open executable");
    let kind = KINDS.iter().find(|(text, _)| words.contains(text)).map(|(_, kind)| *kind);
    let kind = match kind {
        Some(StartFailureKind::PermissionDenied) if of_program => StartFailureKind::NotExecutable,
        Some(kind) => kind,
        None if of_program && words.contains("no such file or directory") => StartFailureKind::NotFound,
        None => StartFailureKind::RuntimeBroken,
    };
    StartFailure::new(kind, words)
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
            ("something nobody has ever seen", StartFailureKind::RuntimeBroken),
        ] {
            assert_eq!(classify(words.to_owned()).kind, kind, "{words}");
        }
    }
}
