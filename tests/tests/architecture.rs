//! The arrows between the crates point inward, and the lifecycle crate is pure: its manifest says so. The map of the code
//! names what exists.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on; the rest of ARCHITECTURE.md's table is prose.
const MAY_DEPEND: [(&str, &[&str]); 10] = [
    ("executor-programs", &[]),
    ("executor-lifecycle", &["humantime", "schemars", "serde", "thiserror"]),
    (
        "executor-core",
        &[
            "actix",
            "actix-rt",
            "csv",
            "executor-lifecycle",
            "futures",
            "libc",
            "metrics",
            "rustix",
            "schemars",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tracing",
            "uuid",
            "zeroize",
        ],
    ),
    ("executor-disk", &["executor-lifecycle", "rustix"]),
    (
        "executor-host",
        &[
            "executor-core",
            "executor-disk",
            "executor-programs",
            "futures",
            "libc",
            "nix",
            "rustix",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tracing",
            "uuid",
        ],
    ),
    (
        "runc-driver",
        &[
            "executor-core",
            "executor-disk",
            "executor-host",
            "futures",
            "libc",
            "rustix",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tracing",
        ],
    ),
    (
        "executor-bundle",
        &[
            "container-device-interface",
            "executor-core",
            "executor-disk",
            "executor-programs",
            "libc",
            "nix",
            "oci-spec",
            "rustix",
            "serde",
            "serde_json",
            "thiserror",
        ],
    ),
    ("executor-network", &["executor-core", "executor-disk", "nix", "rustix", "serde_json", "thiserror"]),
    ("executor-sim", &["actix-rt", "executor-core", "fastrand", "futures", "tokio"]),
    ("xtask", &["serde_json"]),
];

fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// A package of this workspace by its library's name, others by their own.
fn short(name: &Value) -> &str {
    let name = name.as_str().unwrap();
    name.strip_prefix("longshore-").unwrap_or(name)
}

#[test]
fn dependencies_point_inward() {
    let packages = packages();
    for (name, allowed) in MAY_DEPEND {
        let package = packages.iter().find(|package| short(&package["name"]) == name).unwrap();
        let normal = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| dependency["kind"].is_null());
        let names: BTreeSet<_> = normal.map(|dependency| short(&dependency["name"])).collect();
        let allowed: BTreeSet<_> = allowed.iter().copied().collect();
        let too_many: Vec<_> = names.difference(&allowed).collect();
        assert!(too_many.is_empty(), "{name} may not depend on {too_many:?}");
    }
}

/// Only tests make changes of files fail.
#[test]
fn no_program_of_ours_injects_faults() {
    let mut enabled = Vec::new();
    for package in packages() {
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["features"].as_array().unwrap().iter().any(|feature| feature == "faults") {
                enabled.push((short(&package["name"]).to_owned(), dependency["kind"].clone()));
            }
        }
    }
    assert_eq!(enabled, [("tests".to_owned(), Value::from("dev"))]);
}

/// The files at the top of a crate, each with those that it imports, what lies in its directory included; tests apart.
fn imports(source: &Path) -> BTreeMap<String, BTreeSet<String>> {
    fn read(path: &Path, text: &mut String) {
        if path.is_dir() {
            std::fs::read_dir(path).unwrap().flatten().for_each(|entry| read(&entry.path(), text));
        } else {
            let file = std::fs::read_to_string(path).unwrap();
            text.push_str(file.split("\nmod tests {").next().unwrap_or_default());
        }
    }
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for entry in std::fs::read_dir(source).unwrap().flatten() {
        let name = entry.path().file_stem().unwrap().to_string_lossy().into_owned();
        read(&entry.path(), all.entry(name).or_default());
    }
    let named = |text: &str, name: &str| {
        text.split("crate::").skip(1).any(|path| {
            // `crate::name…` or `crate::{…, name…}`
            let list = path.strip_prefix('{').and_then(|list| list.split('}').next());
            let first =
                |path: &str| path.split(|c: char| !c.is_alphanumeric() && c != '_').next() == Some(name);
            list.map_or_else(|| first(path), |list| list.split(',').any(|part| first(part.trim())))
        })
    };
    let of = |file: &String, text: &String| {
        all.keys().filter(|other| *other != file && named(text, other)).cloned().collect()
    };
    all.iter().map(|(file, text)| (file.clone(), of(file, text))).collect()
}

#[test]
fn files_import_in_one_direction() {
    for name in ["executor-bundle", "executor-network"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(name).join("src");
        let mut rest = imports(&source);
        assert!(rest.values().map(BTreeSet::len).sum::<usize>() > 10, "{name}: {rest:?}");
        // Those that import nothing of the rest are taken away until none are left.
        while !rest.is_empty() {
            let lowest: BTreeSet<_> =
                rest.iter().filter(|(_, others)| others.is_empty()).map(|(file, _)| file.clone()).collect();
            assert!(!lowest.is_empty(), "{name}: these import each other: {rest:?}");
            rest.retain(|file, _| !lowest.contains(file));
            rest.values_mut().for_each(|others| others.retain(|other| !lowest.contains(other)));
        }
    }
}

/// The files that use paths, and what these are the paths of. None of them is below a root.
const USE_PATHS: [(&str, &str); 25] = [
    ("executor-bundle/src/config/cgroup.rs", "/proc"),
    ("executor-bundle/src/config/defaults.rs", "the host's devices"),
    ("executor-bundle/src/config/devices.rs", "a device that a specification names"),
    ("executor-bundle/src/config/edit.rs", "a socket that a specification names"),
    ("executor-bundle/src/config/host.rs", "/proc/self/ns, and the namespaces that a configuration names"),
    ("executor-bundle/src/config/labels.rs", "/sys"),
    ("longshore/src/sandbox.rs", "the directory above a bundle of the caller's"),
    ("executor-bundle/src/ids.rs", "/etc/passwd, /etc/subuid, PATH"),
    ("executor-bundle/src/kernel_fs.rs", "the sources of a specification's mounts"),
    ("executor-bundle/src/mount_entry.rs", "mounts"),
    ("executor-bundle/src/mounts.rs", "the sources of a specification's mounts"),
    ("executor-bundle/src/nested.rs", "the sources of a specification's mounts, and mounts"),
    ("executor-bundle/src/names.rs", "the host's resolv.conf"),
    ("executor-bundle/src/process/program/format.rs", "/proc/sys/fs/binfmt_misc"),
    ("executor-bundle/src/rootfs/covered.rs", "the host's directories beneath mounts"),
    ("executor-bundle/src/rootfs/hidden.rs", "the host's directories that have executors' roots"),
    ("executor-bundle/src/rootfs/host.rs", "the host's mounts"),
    ("executor-bundle/src/rootfs/overlay.rs", "the layers that a specification names"),
    ("executor-bundle/src/rootfs.rs", "the directories that a specification names, and the host's own"),
    ("executor-bundle/src/rootfs_dir.rs", "the root directory of a container, opened once; descriptors"),
    ("executor-host/src/journal.rs", "the boot id"),
    ("executor-network/src/config.rs", "CNI's configurations"),
    ("executor-network/src/namespace.rs", "/proc"),
    ("runc-driver/src/driver/frozen.rs", "the files of cgroups"),
    ("runc-driver/src/driver/program.rs", "descriptors"),
];

/// Calls of the standard library and of rustix that take a path.
const PATH_CALLS: [&str; 18] = [
    "fs::read(",
    "fs::read_",
    "fs::write(",
    "fs::copy(",
    "fs::create_",
    "fs::remove_",
    "fs::rename(",
    "fs::metadata(",
    "fs::symlink_metadata(",
    "fs::set_permissions(",
    "fs::open(",
    "File::open(",
    "File::create",
    "OpenOptions",
    "DirBuilder",
    ".canonicalize()",
    "(CWD,",
    ".exists()",
];

/// What would change something.
const CHANGES: [&str; 9] = [
    "fs::write(",
    "fs::copy(",
    "fs::create_",
    "fs::remove_",
    "fs::rename(",
    "fs::set_permissions(",
    "File::create",
    "OpenOptions",
    "DirBuilder",
];

/// `executor-disk` is the one way to the files below a root.
#[test]
fn files_below_a_root_are_reached_by_descriptors() {
    fn visit(path: &Path, found: &mut Vec<(String, String)>) {
        if path.is_dir() {
            std::fs::read_dir(path).unwrap().flatten().for_each(|entry| visit(&entry.path(), found));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let code: Vec<_> = code.lines().filter(|line| !line.trim().starts_with("//")).collect();
            found.push((path.to_string_lossy().into_owned(), code.join("\n")));
        }
    }
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut files = Vec::new();
    for place in [
        "executor-bundle/src",
        "executor-host/src/bundles.rs",
        "executor-host/src/journal.rs",
        "executor-host/src/root.rs",
        "executor-host/src/root",
        "executor-network/src",
        "runc-driver/src/command_line.rs",
        "runc-driver/src/command_line",
        "runc-driver/src/driver.rs",
        "runc-driver/src/driver",
        "longshore/src/sandbox.rs",
    ] {
        visit(&crates.join(place), &mut files);
    }
    assert!(files.len() > 50, "{}", files.len());
    let known = |file: &str| USE_PATHS.iter().any(|(known, _)| file.ends_with(known));
    for (file, code) in &files {
        let calls = if known(file) { CHANGES.iter() } else { PATH_CALLS.iter() };
        let around: Vec<_> = calls.filter(|call| code.contains(**call)).collect();
        assert!(around.is_empty(), "{file} goes around executor-disk: {around:?}");
    }
    for (known, _) in USE_PATHS {
        let (_, code) = files.iter().find(|(file, _)| file.ends_with(known)).expect(known);
        assert!(PATH_CALLS.iter().any(|call| code.contains(call)), "{known} uses no paths any more");
    }
}

#[test]
fn unsafe_code_is_where_it_is_known_to_be() {
    fn visit(dir: &std::path::Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" {
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && std::fs::read_to_string(&path)
                    .unwrap()
                    .lines()
                    .any(|line| line.contains("expect(unsafe_code"))
                && !path.ends_with("architecture.rs")
            {
                let parts = path.iter().rev().take(2).collect::<Vec<_>>();
                let name =
                    parts.iter().rev().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
                found.insert(name);
            }
        }
    }
    let mut found = BTreeSet::new();
    visit(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut found);
    assert_eq!(
        found,
        BTreeSet::from(
            [
                "init/main.rs",
                "subreaper/main.rs",
                "command/job.rs",
                "command/unopened.rs",
                "src/descriptors.rs",
                "src/image.rs",
                "src/null.rs",
                "src/pidfd.rs",
                "tests/strangers.rs"
            ]
            .map(str::to_owned)
        )
    );
}

/// The paths that a document names: targets of links, and words in backquotes that have a slash and no space.
fn paths_in(document: &str) -> impl Iterator<Item = &str> {
    let links = document.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links = links.filter(|link| !link.starts_with("http")).filter_map(|link| link.split('#').next());
    let words = document.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| word.contains('/') && !word.contains([' ', '<', '$', '…', ':', '*']);
    links.chain(words.filter(is_path))
}

#[test]
fn documents_name_paths_that_exist() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut missing = Vec::new();
    for name in ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"] {
        let document = std::fs::read_to_string(repository.join(name)).unwrap();
        // Blocks of code have backquotes of their own.
        let document: String = document.split("```").step_by(2).collect();
        let exists =
            |path: &str| repository.join(path).exists() || repository.join("crates").join(path).exists();
        let all: Vec<_> =
            paths_in(&document).filter(|path| !path.is_empty() && !path.starts_with('/')).collect();
        assert!(all.len() > 1, "{name}: {all:?}");
        missing.extend(all.into_iter().filter(|path| !exists(path)).map(|path| format!("{name}: {path}")));
    }
    assert_eq!(missing, [""; 0], "these do not exist");
}
