//! What a configuration of the caller's shares with the host: namespaces that it does not have, or that are the host's, and mounts
//! that reach the host. The specification has to allow it, and mounts that stay are reported.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::{Leftover, LeftoverKind};
use executor_core::{ContainerSpec, Network, ProcessMode};
use executor_disk::Dir;
use executor_disk::mount_table::mounts;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;

/// The file in the bundle of a container that shares its mounts with the host.
const SHARED: &str = "shared-mounts";

/// The largest such file that is read.
const LIMIT: u64 = 16 << 20;

/// What was mounted on the host, below the sources of a container's bind mounts, before the container was made.
#[derive(Serialize, Deserialize)]
struct Before {
    sources: Vec<PathBuf>,
    mounts: BTreeSet<(u32, PathBuf)>,
}

/// The namespaces that a container may share with the host if that is allowed, with their names in `/proc/self/ns`.
const KINDS: [(&str, &str); 4] = [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")];

/// Refuses a configuration that shares with the host what the specification does not allow.
pub(crate) fn check(config: &Value, spec: &ContainerSpec) -> Result<(), Error> {
    if spec.config.is_none() {
        return Ok(());
    }
    if is_hosts(config, "mount", "mnt") {
        let why = "it has the host's mount namespace: the runtime would change how the host's mounts propagate, and mount there";
        return Err(Error::field("config", format!("{why}; add mount to linux.namespaces")));
    }
    if spec.allow_host_namespaces {
        return Ok(());
    }
    let is_asked_for = |kind: &str| match kind {
        "network" => spec.network == Network::Host,
        "pid" => spec.process_mode == ProcessMode::NoSandbox,
        _ => false,
    };
    let shared = KINDS.into_iter().filter(|(kind, name)| !is_asked_for(kind) && is_hosts(config, kind, name));
    let shared: Vec<_> = shared.map(|(kind, _)| kind).collect();
    let remedy = "or allow it (allow_host_namespaces)";
    if !shared.is_empty() {
        let [kinds, noun] =
            [shared.join(", "), if shared.len() == 1 { "namespace" } else { "namespaces" }.into()];
        let why = format!(
            "it has the host's {noun} {kinds}: add them to linux.namespaces without the host's path, {remedy}"
        );
        return Err(Error::field("config", why));
    }
    if let Some(propagation) = shared_propagation(config) {
        let why = format!(
            "its mounts would be the host's, and stay: linux.rootfsPropagation is {propagation}; make it rslave, {remedy}"
        );
        return Err(Error::field("config", why));
    }
    Ok(())
}

fn shared_propagation(config: &Value) -> Option<&str> {
    let propagation = config["linux"]["rootfsPropagation"].as_str();
    propagation.filter(|propagation| matches!(*propagation, "shared" | "rshared"))
}

/// Takes note of what is mounted below the sources of bind mounts, if the container shares its mounts with the host.
pub(crate) fn note_mounts(dir: &Dir, config: &Value) -> Result<(), Error> {
    if shared_propagation(config).is_none() {
        return Ok(());
    }
    let all = config["mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let root = config["root"]["path"].as_str();
    let sources = all.iter().filter_map(|mount| mount["source"].as_str()).chain(root);
    let sources: Vec<_> = sources
        .map(PathBuf::from)
        .filter(|source| source.is_absolute() && !source.starts_with(dir.path()))
        .collect();
    let failed = |error| Error::io("note the mounts in", &dir.path_of(SHARED))(error);
    let before = Before { mounts: mounts_below(&sources).map_err(failed)?, sources };
    let text = serde_json::to_vec(&before).map_err(|source| Error::Json { op: "write", source })?;
    dir.write_new(SHARED, &text, 0o600).map(drop).map_err(failed)
}

fn mounts_below(sources: &[PathBuf]) -> io::Result<BTreeSet<(u32, PathBuf)>> {
    let is_below = |point: &Path| sources.iter().any(|source| point.starts_with(source) && point != source);
    let below = mounts()?.into_iter().filter(|mount| is_below(&mount.point));
    Ok(below.map(|mount| (mount.id, mount.point)).collect())
}

/// What a container has mounted on the host and left there.
pub(crate) fn mounts_left(dir: &Dir) -> Vec<Leftover> {
    let path = dir.path_of(SHARED);
    let look = || -> io::Result<Vec<Leftover>> {
        let before: Before = match dir.read(SHARED, LIMIT) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let now = mounts_below(&before.sources)?;
        let busy = io::Error::from(Errno::BUSY);
        let new = now.difference(&before.mounts);
        Ok(new.map(|(_, point)| Leftover::new(LeftoverKind::Mount, point, &busy)).collect())
    };
    look().unwrap_or_else(|error| vec![Leftover::new(LeftoverKind::File, path, &error)])
}

/// Whether a container of this configuration is in the host's namespace of a kind.
fn is_hosts(config: &Value, kind: &str, name: &str) -> bool {
    let namespaces = config["linux"]["namespaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(entry) = namespaces.iter().find(|namespace| namespace["type"] == kind) else { return true };
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    // If it cannot be looked at, the runtime says why.
    let theirs =
        entry["path"].as_str().filter(|path| !path.is_empty()).and_then(|path| identity(Path::new(path)));
    theirs.is_some() && theirs == identity(&Path::new("/proc/self/ns").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec() -> ContainerSpec {
        let mut spec = ContainerSpec::host(["true"]);
        spec.config = Some(json!({}).into());
        spec
    }

    fn config(kinds: &[&str]) -> Value {
        let namespaces: Vec<_> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        json!({"linux": {"namespaces": namespaces}})
    }

    const ALL: [&str; 5] = ["mount", "pid", "network", "ipc", "uts"];

    #[test]
    fn each_namespace_must_be_there_and_not_be_the_hosts() {
        assert!(check(&config(&ALL), &spec()).is_ok());
        for (missing, name) in KINDS.into_iter().chain([("mount", "mnt")]) {
            let others: Vec<_> = ALL.into_iter().filter(|kind| *kind != missing).collect();
            let mut config = config(&others);
            let said = check(&config, &spec()).unwrap_err().to_string();
            assert!(said.contains(missing), "{said}");
            let path = format!("/proc/self/ns/{name}");
            config["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .push(json!({"type": missing, "path": path}));
            assert!(check(&config, &spec()).is_err(), "{missing} by path");
            let mut allowed = spec();
            allowed.allow_host_namespaces = true;
            assert_eq!(check(&config, &allowed).is_ok(), missing != "mount");
        }
        let said = check(&config(&["mount"]), &spec()).unwrap_err().to_string();
        assert!(said.contains("namespaces pid, network, ipc, uts:"), "{said}");
    }

    #[test]
    fn what_a_field_asks_for_is_allowed() {
        let mut with = spec();
        (with.network, with.process_mode) = (Network::Host, ProcessMode::NoSandbox);
        assert!(check(&config(&["mount", "ipc", "uts"]), &with).is_ok());
        assert!(check(&config(&["mount", "ipc"]), &with).is_err());
    }

    #[test]
    fn mounts_do_not_reach_the_host() {
        for (propagation, is_ok) in
            [("shared", false), ("rshared", false), ("rslave", true), ("private", true)]
        {
            let mut config = config(&ALL);
            config["linux"]["rootfsPropagation"] = propagation.into();
            assert_eq!(check(&config, &spec()).is_ok(), is_ok, "{propagation}");
        }
    }
}
