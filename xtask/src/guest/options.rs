//! The arguments of `cargo xtask guest`.

use std::path::PathBuf;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
cargo xtask guest     the tests on the real runtime, in a guest with another kernel and other cgroups
    --suite NAME      one of the test programs, or with NAME:TEXT its tests whose name has TEXT; may be repeated; all of them without
    --quick           what takes less than five minutes: a part of `cargo xtask test`
    --hierarchy H     v2 (without it), v1, or hybrid
    --kernel K        the newest of Debian's kernels that begins with K (6.1 without it), or a directory with boot/vmlinuz-* and lib/modules
    --runtime NAME    runc (without it), or crun";

/// Every suite that a guest can run: those that run containers. The others are the same on every kernel, or call cargo.
/// `scale`, `chaos` and `embedder` are not among them: under emulation they take hours.
const SUITES: [&str; 26] = [
    "lifecycle",
    "shutdown",
    "ready",
    "behaviour",
    "rootfs",
    "mounts",
    "output",
    "metrics",
    "tracing",
    "terminal",
    "update",
    "given",
    "given_program",
    "network",
    "ids",
    "strangers",
    "streams",
    "command",
    "answers",
    "failure_modes",
    "oom",
    "shared",
    "faults",
    "contract",
    "hostile",
    "examples",
];

/// What `--quick` runs: what depends on the kernel and the hierarchies most.
const QUICK: [&str; 6] = [
    "lifecycle",
    "shutdown",
    "strangers:nested_freeze",
    "failure_modes:cgroup_busy",
    "failure_modes:frozen",
    "failure_modes:oom",
];

/// How long a suite may take, in seconds.
pub(super) const SUITE_LIMIT: u32 = 1500;

/// Which cgroup file systems the guest mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hierarchy {
    V2,
    V1,
    Hybrid,
}

impl Hierarchy {
    const ALL: [Self; 3] = [Self::V2, Self::V1, Self::Hybrid];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
        }
    }
}

/// Which kernel the guest boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The newest of Debian's that begins with this.
    Version(String),
    /// What is in this directory.
    Directory(PathBuf),
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Names, some with a part of the tests' names: `ids`, `ids:map`.
    pub(super) suites: Vec<String>,
    pub(super) hierarchy: Hierarchy,
    pub(super) kernel: Choice,
    pub(super) runtime: Option<String>,
    /// How long a guest may say nothing before it counts as hung.
    pub(super) silence: Duration,
}

impl Options {
    pub(super) fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self {
            suites: Vec::new(),
            hierarchy: Hierarchy::V2,
            kernel: Choice::Version("6.1".into()),
            runtime: None,
            silence: Duration::from_secs(u64::from(SUITE_LIMIT) + 100),
        };
        let mut args = args.iter();
        while let Some(option) = args.next() {
            if option == "--quick" {
                options.suites.extend(QUICK.map(str::to_owned));
                continue;
            }
            let value = args.next().ok_or(USAGE)?.clone();
            match option.as_str() {
                "--suite" if SUITES.contains(&name_and_filter(&value).0) => options.suites.push(value),
                "--suite" => {
                    return Err(format!("{value} is no suite of the guest; these are: {}", SUITES.join(" ")));
                }
                "--hierarchy" => options.hierarchy = hierarchy(&value)?,
                "--kernel" if value.contains('/') => options.kernel = Choice::Directory(value.into()),
                "--kernel" => options.kernel = Choice::Version(value),
                "--runtime" => options.runtime = Some(value),
                _ => return Err(USAGE.into()),
            }
        }
        if options.suites.is_empty() {
            options.suites.extend(SUITES.map(str::to_owned));
        }
        Ok(options)
    }
}

/// The parts of `NAME:TEXT`.
pub(super) fn name_and_filter(suite: &str) -> (&str, Option<&str>) {
    suite.split_once(':').map_or((suite, None), |(name, filter)| (name, Some(filter)))
}

fn hierarchy(name: &str) -> Result<Hierarchy, String> {
    Hierarchy::ALL.into_iter().find(|one| one.name() == name).ok_or_else(|| USAGE.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Options, String> {
        Options::parse(&args.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_understood() {
        let all = parse("").unwrap();
        assert_eq!((all.suites.len(), all.hierarchy), (SUITES.len(), Hierarchy::V2));
        assert_eq!(all.kernel, Choice::Version("6.1".into()));
        let some = parse("--suite ready --suite ids:map --hierarchy v1 --kernel ./k --runtime crun").unwrap();
        assert_eq!(some.suites, ["ready", "ids:map"]);
        assert_eq!(name_and_filter("ids:map"), ("ids", Some("map")));
        assert_eq!(some.hierarchy, Hierarchy::V1);
        assert_eq!(some.kernel, Choice::Directory("./k".into()));
        assert_eq!(some.runtime.as_deref(), Some("crun"));
        assert_eq!(parse("--quick").unwrap().suites, QUICK);
    }

    #[test]
    fn other_options_are_refused() {
        for args in ["--suite", "--suite nosuch", "--hierarchy v3", "--kernel", "quick", "--what 1"] {
            assert!(parse(args).is_err(), "{args}");
        }
    }

    #[test]
    fn what_is_named_exists() {
        let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/tests");
        for suite in SUITES {
            let file = std::path::Path::new(tests).join(suite);
            assert!(file.with_extension("rs").exists() || file.join("main.rs").exists(), "{suite}");
        }
        assert!(QUICK.iter().all(|suite| SUITES.contains(&name_and_filter(suite).0)));
    }
}
