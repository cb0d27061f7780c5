//! The arrows between the crates point inward, and the lifecycle crate is pure: its manifest says so.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on; the rest of ARCHITECTURE.md's table is prose.
const MAY_DEPEND: [(&str, &[&str]); 7] = [
    ("executor-lifecycle", &["serde", "thiserror"]),
    (
        "executor-core",
        &[
            "actix",
            "actix-rt",
            "executor-lifecycle",
            "futures",
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
        "executor-bundle",
        &[
            "container-device-interface",
            "executor-core",
            "oci-spec",
            "rustix",
            "serde",
            "serde_json",
            "thiserror",
        ],
    ),
    ("executor-network", &["executor-core", "nix", "rustix", "serde_json", "thiserror"]),
    ("executor-sim", &["actix-rt", "executor-core", "fastrand", "futures", "tokio"]),
    ("xtask", &[]),
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

#[test]
fn dependencies_point_inward() {
    let packages = packages();
    for (name, allowed) in MAY_DEPEND {
        let package = packages.iter().find(|package| package["name"] == name).unwrap();
        let normal = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| dependency["kind"].is_null());
        let names: BTreeSet<_> = normal.map(|dependency| dependency["name"].as_str().unwrap()).collect();
        let allowed: BTreeSet<_> = allowed.iter().copied().collect();
        let too_many: Vec<_> = names.difference(&allowed).collect();
        assert!(too_many.is_empty(), "{name} may not depend on {too_many:?}");
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
            ["init/main.rs", "spawner/image.rs", "src/held.rs", "src/pidfd.rs"].map(str::to_owned)
        )
    );
}
