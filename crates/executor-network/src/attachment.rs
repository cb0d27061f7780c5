//! A network that was set up, on disk: its directory holds everything that is needed to remove it.
//!
//! ```text
//! <root>/networks/<executor>.<number>/
//!      ├ attachment.json   the configuration, the directories of plugins, the last plugin's result
//!      └ netns             the name of the network namespace
//! ```
//! `attachment.json` is written before the first plugin is called, and again when all have answered. So the next executor
//! can remove the network, whenever this one dies.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executor_core::lifecycle::{Leftover, LeftoverKind};
use executor_core::{Dns, NetworkAttachment, NetworkNamespace};
use executor_disk::Dir;
use serde_json::{Value, json};

use crate::config::NetworkConfig;
use crate::error::NetworkError;
use crate::namespace;
use crate::plugin::{Action, Subject, call};

/// The directory of all networks, below an executor's root.
pub(crate) const NETWORKS: &str = "networks";
/// The name of the interface in the container.
const INTERFACE: &str = "eth0";
const FILE: &str = "attachment.json";
/// The most bytes of it that are read.
const LIMIT: u64 = 16 << 20;
/// The name of `FILE` until it is complete.
const NEW: &str = "new";
/// The file in the directory that is the name of the network namespace.
pub(crate) const NAMESPACE: &str = "netns";

/// Where a network is on disk: its name, below an executor's root.
#[derive(Clone, Debug)]
pub(crate) struct NetworkDir {
    pub(crate) root: Arc<Dir>,
    pub(crate) name: String,
}

impl NetworkDir {
    fn make(&self) -> Result<Dir, NetworkError> {
        let networks = self.root.open_or_make_dir(NETWORKS);
        let made = networks.and_then(|networks| networks.make_dir(&self.name, 0o700));
        made.map_err(NetworkError::io("make", &self.path()))
    }

    fn open(&self) -> io::Result<Dir> {
        self.root.open_dir(NETWORKS)?.open_dir(&self.name)
    }

    fn path(&self) -> PathBuf {
        self.root.path_of(NETWORKS).join(&self.name)
    }

    /// Removes the files that we made, and the directory if nothing else is in it.
    fn remove(&self) -> Option<Leftover> {
        let remove = || -> io::Result<()> {
            let dir = self.open()?;
            for file in [NEW, FILE] {
                unless_missing(dir.remove_file(file))?;
            }
            self.root.open_dir(NETWORKS)?.remove_dir(&self.name)
        };
        let error = unless_missing(remove()).err()?;
        Some(Leftover::new(LeftoverKind::File, self.path(), &error))
    }

    fn remove_namespace(&self) -> Option<Leftover> {
        let removed = self.open().and_then(|dir| namespace::remove(&dir, NAMESPACE));
        let error = unless_missing(removed).err()?;
        Some(Leftover::new(LeftoverKind::NetworkNamespace, self.path().join(NAMESPACE), &error))
    }
}

/// A network and its directory.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    pub(crate) dir: NetworkDir,
    description: Description,
}

/// What `attachment.json` has.
#[derive(Clone, Debug)]
struct Description {
    config: NetworkConfig,
    /// The directories that are searched for plugins.
    plugins: Vec<PathBuf>,
    /// The result of the last plugin, which includes those of the others.
    result: Option<Value>,
}

impl Description {
    /// The text of the file at `path`.
    fn parse(path: &Path, text: &[u8]) -> Result<Self, NetworkError> {
        let path = || path.to_owned();
        let json: Value = match serde_json::from_slice(text) {
            Ok(json) => json,
            Err(source) => return Err(NetworkError::NotJson { path: path(), source }),
        };
        let config = match NetworkConfig::of(&json["config"]) {
            Ok(config) => config,
            Err(why) => return Err(NetworkError::Malformed { path: path(), why }),
        };
        let plugins =
            json["plugins"].as_array().into_iter().flatten().filter_map(Value::as_str).map(PathBuf::from);
        let result = json.get("result").filter(|result| !result.is_null()).cloned();
        Ok(Self { config, plugins: plugins.collect(), result })
    }

    fn to_json(&self) -> Value {
        json!({"config": self.config.to_json(), "plugins": self.plugins, "result": self.result})
    }
}

impl Attachment {
    /// Sets a network up in `dir`, which must not exist. If that fails, what was set up is removed again.
    pub(crate) fn make(
        dir: NetworkDir,
        config: NetworkConfig,
        plugins: Vec<PathBuf>,
    ) -> Result<Self, NetworkError> {
        let mut new = Self { dir, description: Description { config, plugins, result: None } };
        let Err(error) = new.set_up() else { return Ok(new) };
        // A plugin that fails to add may fail to delete for the same reason, so its errors are ignored. The kernel removes
        // the interfaces with the namespace in any case.
        let _same_reason = new.delete();
        let mut left: Vec<_> = new.dir.remove_namespace().into_iter().collect();
        left.extend(new.dir.remove());
        if left.is_empty() {
            return Err(error);
        }
        Err(NetworkError::HalfMade { left, source: Box::new(error) })
    }

    fn set_up(&mut self) -> Result<(), NetworkError> {
        let dir = self.dir.make()?;
        self.write(&dir)?;
        let named = namespace::make(&dir, NAMESPACE);
        named.map_err(NetworkError::io("make the network namespace", &self.namespace()))?;
        call(&self.description.plugins, Action::Add, &self.subject("lo"), &self.loopback())?;
        for plugin in &self.description.config.plugins {
            let given = self.description.config.for_plugin(plugin, self.description.result.as_ref());
            if let Some(result) =
                call(&self.description.plugins, Action::Add, &self.subject(INTERFACE), &given)?
            {
                self.description.result = Some(result);
            }
        }
        self.write(&dir)
    }

    /// The network in a directory. `None` if there is no `attachment.json`: then no plugin was called.
    pub(crate) fn read(dir: &NetworkDir) -> Result<Option<Self>, NetworkError> {
        let path = dir.path().join(FILE);
        let text = match dir.open().and_then(|dir| dir.read(FILE, LIMIT)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(NetworkError::io("read", &path))?,
        };
        let description = Description::parse(&path, &text)?;
        Ok(Some(Self { dir: dir.clone(), description }))
    }

    fn write(&self, dir: &Dir) -> Result<(), NetworkError> {
        let written = dir.replace(FILE, NEW, self.description.to_json().to_string().as_bytes());
        written.map_err(NetworkError::io("write", &dir.path_of(FILE)))
    }

    /// A network without plugins.
    #[cfg(test)]
    pub(crate) fn bare(dir: NetworkDir) -> Self {
        let config = NetworkConfig {
            name: "bare".into(),
            version: "1.0.0".into(),
            disable_check: false,
            plugins: Vec::new(),
        };
        Self { dir, description: Description { config, plugins: Vec::new(), result: None } }
    }

    /// Has its plugins check that the network is as they made it.
    pub(crate) fn check(&self) -> Result<(), NetworkError> {
        if self.description.config.disable_check || !knows_check(&self.description.config.version) {
            return Ok(());
        }
        self.description.config.plugins.iter().try_for_each(|plugin| {
            let given = self.description.config.for_plugin(plugin, self.description.result.as_ref());
            call(&self.description.plugins, Action::Check, &self.subject(INTERFACE), &given).map(drop)
        })
    }

    /// Removes the network. Returns what could not be removed. A second call does nothing.
    pub(crate) fn remove(&self) -> Vec<Leftover> {
        let mut left = self.delete();
        left.extend(self.dir.remove_namespace());
        // If something is left, the directory is needed to try again.
        if left.is_empty() {
            left.extend(self.dir.remove());
        }
        left
    }

    /// Has the plugins delete what they made. Returns what they could not delete. The loopback disappears with its namespace.
    fn delete(&self) -> Vec<Leftover> {
        let delete = |plugin| {
            let given = self.description.config.for_plugin(plugin, self.description.result.as_ref());
            call(&self.description.plugins, Action::Del, &self.subject(INTERFACE), &given).err()
        };
        let failed = self.description.config.plugins.iter().rev().filter_map(delete);
        failed.map(|error| Leftover::new(LeftoverKind::Network, self.dir.path(), &error)).collect()
    }

    /// The path that is the name of the network namespace.
    pub(crate) fn namespace(&self) -> PathBuf {
        self.dir.path().join(NAMESPACE)
    }

    /// The network namespace.
    pub(crate) fn open_namespace(&self) -> io::Result<File> {
        self.dir.open()?.open_mounted(NAMESPACE)
    }

    fn subject<'a>(&'a self, interface: &'a str) -> Subject<'a> {
        Subject { id: &self.dir.name, namespace: self.namespace(), interface }
    }

    fn loopback(&self) -> Value {
        json!({"cniVersion": self.description.config.version, "name": "lo", "type": "loopback"})
    }

    /// What the container's bundle is made from: the namespace, and the addresses and DNS servers of the plugins' result.
    pub(crate) fn for_container(&self) -> NetworkAttachment {
        let result = self.description.result.clone().unwrap_or_default();
        let texts = |pointer: &str| -> Vec<String> {
            let list = result.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let ips = result["ips"].as_array().into_iter().flatten().filter_map(|ip| ip["address"].as_str());
        let address = |text: &str| text.split('/').next()?.parse::<IpAddr>().ok();
        NetworkAttachment {
            namespace: NetworkNamespace::At(self.namespace()),
            addresses: ips.filter_map(address).collect(),
            dns: Dns {
                nameservers: texts("/dns/nameservers").iter().filter_map(|text| text.parse().ok()).collect(),
                search: texts("/dns/search"),
                options: texts("/dns/options"),
            },
        }
    }
}

/// Reads an `attachment.json` for `fuzzing`: the programs that its plugins are. What was read is written
/// and read again, which must give the same.
///
/// # Panics
/// When it does not.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn programs(text: &[u8]) -> Option<Vec<String>> {
    let path = Path::new("attachment.json");
    let description = Description::parse(path, text).ok()?;
    let written = description.to_json();
    let again = Description::parse(path, written.to_string().as_bytes()).ok();
    assert_eq!(again.as_ref().map(Description::to_json), Some(written));
    let of = |plugin: &Value| description.config.for_plugin(plugin, description.result.as_ref());
    let programs = description.config.plugins.iter().map(of);
    Some(programs.map(|given| given["type"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Whether this version of CNI's specification has CHECK: it came with 0.4.0.
fn knows_check(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (0, 4)
}

/// Removes the network in a directory, even if it was set up only in part. Returns what could not be removed.
pub(crate) fn remove(dir: &NetworkDir) -> Vec<Leftover> {
    match Attachment::read(dir) {
        Ok(Some(attachment)) => attachment.remove(),
        Ok(None) => dir.remove_namespace().into_iter().chain(dir.remove()).collect(),
        Err(error) => vec![Leftover::new(LeftoverKind::Network, dir.path(), &error)],
    }
}

/// To remove a file that does not exist is no error.
fn unless_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(()) | Err(_) => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_becomes_addresses_and_names() {
        let dir = tempfile::tempdir().unwrap();
        let root = Arc::new(Dir::open_checked(dir.path()).unwrap());
        let config = json!({"name": "n", "cniVersion": "1.0.0", "type": "bridge"});
        let config = NetworkConfig::of(&config).unwrap();
        let result = json!({
            "ips": [{"address": "10.88.0.2/16", "gateway": "10.88.0.1"}, {"address": "fd00::2/64"}, {"address": "x"}],
            "dns": {"nameservers": ["10.88.0.1"], "search": ["example"], "options": ["ndots:1"]},
        });
        let attachment = Attachment {
            dir: NetworkDir { root, name: "e.1".to_owned() },
            description: Description { config, plugins: Vec::new(), result: Some(result) },
        };
        let found = attachment.for_container();
        assert_eq!(found.namespace, NetworkNamespace::At(dir.path().join("networks/e.1/netns")));
        assert_eq!(found.addresses, ["10.88.0.2", "fd00::2"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert_eq!((found.dns.nameservers.len(), found.dns.search.len(), found.dns.options.len()), (1, 1, 1));
        assert!(knows_check("1.0.0") && knows_check("0.4.0") && !knows_check("0.3.1") && !knows_check(""));
    }
}
