//! A network that was set up, on disk: everything that taking it back needs.
//!
//! ```text
//! <root>/networks/<executor>.<number>/
//!      ├ attachment.json   the configuration, where the plugins are, their result
//!      └ netns             the namespace's name
//! ```
//! The file is written before the first plugin is called, and again when all have answered: whenever its executor dies,
//! the next one knows what to undo.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use executor_core::{Dns, NetworkAttachment, NetworkNamespace};
use serde_json::{Value, json};

use crate::config::NetworkConfig;
use crate::namespace;
use crate::plugin::{Action, Subject, call};

/// The interface that a container finds.
const INTERFACE: &str = "eth0";
const FILE: &str = "attachment.json";
const NAMESPACE: &str = "netns";

/// A network in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    pub(crate) dir: PathBuf,
    config: NetworkConfig,
    plugins: Vec<PathBuf>,
    /// What the last plugin answered.
    result: Option<Value>,
}

impl Attachment {
    /// Sets a network up in `dir`, which must not exist. What was begun is taken back when it fails.
    pub(crate) fn make(dir: PathBuf, config: NetworkConfig, plugins: Vec<PathBuf>) -> Result<Self, String> {
        let mut new = Self { dir, config, plugins, result: None };
        match new.set_up() {
            Ok(()) => Ok(new),
            Err(why) => {
                // Who could not add it may not be able to delete it either, for the same reason; the interfaces go
                // with the namespace in any case.
                let _said_already = new.delete();
                let left: Vec<_> =
                    remove_namespace(&new.dir).into_iter().chain(remove_dir(&new.dir)).collect();
                Err(if left.is_empty() { why } else { format!("{why}; left: {}", left.join(", ")) })
            }
        }
    }

    fn set_up(&mut self) -> Result<(), String> {
        let shown = |error: io::Error| format!("{}: {error}", self.dir.display());
        DirBuilder::new().mode(0o711).create(&self.dir).map_err(shown)?;
        self.write().map_err(shown)?;
        namespace::make(&self.namespace()).map_err(shown)?;
        call(&self.plugins, Action::Add, &self.subject("lo"), &self.loopback())?;
        for plugin in &self.config.plugins {
            let told = self.config.for_plugin(plugin, self.result.as_ref());
            if let Some(result) = call(&self.plugins, Action::Add, &self.subject(INTERFACE), &told)? {
                self.result = Some(result);
            }
        }
        self.write().map_err(|error| format!("{}: {error}", self.dir.display()))
    }

    /// The network in a directory; an error when there is none that could be read.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        let json: Value = serde_json::from_slice(&fs::read(dir.join(FILE))?)?;
        let config = NetworkConfig::read(&json["config"].to_string()).map_err(io::Error::other)?;
        let plugins =
            json["plugins"].as_array().into_iter().flatten().filter_map(Value::as_str).map(PathBuf::from);
        let result = json.get("result").filter(|result| !result.is_null()).cloned();
        Ok(Self { dir: dir.to_owned(), config, plugins: plugins.collect(), result })
    }

    fn write(&self) -> io::Result<()> {
        let json = json!({"config": self.config.to_json(), "plugins": self.plugins, "result": self.result});
        // In one step: half of it would be nothing.
        let new = self.dir.join("new");
        fs::write(&new, json.to_string())?;
        fs::rename(new, self.dir.join(FILE))
    }

    /// One without plugins.
    #[cfg(test)]
    pub(crate) fn bare(dir: PathBuf) -> Self {
        let config = NetworkConfig {
            name: "bare".into(),
            version: "1.0.0".into(),
            disable_check: false,
            plugins: Vec::new(),
        };
        Self { dir, config, plugins: Vec::new(), result: None }
    }

    /// Whether its plugins say that it is as they made it.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.config.disable_check || !knows_check(&self.config.version) {
            return Ok(());
        }
        self.config.plugins.iter().try_for_each(|plugin| {
            let told = self.config.for_plugin(plugin, self.result.as_ref());
            call(&self.plugins, Action::Check, &self.subject(INTERFACE), &told).map(drop)
        })
    }

    /// Takes it back; answers with what could not be. Doing so twice is fine.
    pub(crate) fn remove(&self) -> Vec<String> {
        let mut left = self.delete();
        left.extend(remove_namespace(&self.dir));
        // With something left, the directory tells how to undo it.
        if left.is_empty() {
            left.extend(remove_dir(&self.dir));
        }
        left
    }

    /// Has the plugins take back what they made; answers with what they could not. The loopback goes with its
    /// namespace.
    fn delete(&self) -> Vec<String> {
        let delete = |plugin| {
            let told = self.config.for_plugin(plugin, self.result.as_ref());
            call(&self.plugins, Action::Del, &self.subject(INTERFACE), &told).err()
        };
        self.config.plugins.iter().rev().filter_map(delete).collect()
    }

    /// The namespace's name.
    pub(crate) fn namespace(&self) -> PathBuf {
        self.dir.join(NAMESPACE)
    }

    fn subject<'a>(&'a self, interface: &'a str) -> Subject<'a> {
        let id = self.dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Subject { id, namespace: self.namespace(), interface }
    }

    fn loopback(&self) -> Value {
        json!({"cniVersion": self.config.version, "name": "lo", "type": "loopback"})
    }

    /// What a container is told of it.
    pub(crate) fn told(&self) -> NetworkAttachment {
        let result = self.result.clone().unwrap_or_default();
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

/// CHECK came with version 0.4.0 of the specification.
fn knows_check(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (0, 4)
}

/// Takes back what is in a directory, even if its file is not to be read; answers with what could not be.
pub(crate) fn remove(dir: &Path) -> Vec<String> {
    match Attachment::read(dir) {
        Ok(attachment) => attachment.remove(),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            remove_namespace(dir).into_iter().chain(remove_dir(dir)).collect()
        }
        Err(error) => vec![format!("network {}: {error}", dir.display())],
    }
}

fn remove_namespace(dir: &Path) -> Option<String> {
    let file = dir.join(NAMESPACE);
    namespace::remove(&file).err().map(|error| format!("network namespace {}: {error}", file.display()))
}

fn remove_dir(dir: &Path) -> Option<String> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Some(format!("{}: {error}", dir.display())),
        Ok(()) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_becomes_addresses_and_names() {
        let config =
            NetworkConfig::read(r#"{"name": "n", "cniVersion": "1.0.0", "type": "bridge"}"#).unwrap();
        let result = json!({
            "ips": [{"address": "10.88.0.2/16", "gateway": "10.88.0.1"}, {"address": "fd00::2/64"}, {"address": "x"}],
            "dns": {"nameservers": ["10.88.0.1"], "search": ["example"], "options": ["ndots:1"]},
        });
        let attachment =
            Attachment { dir: "/d/e.1".into(), config, plugins: Vec::new(), result: Some(result) };
        let told = attachment.told();
        assert_eq!(told.namespace, NetworkNamespace::At("/d/e.1/netns".into()));
        assert_eq!(told.addresses, ["10.88.0.2", "fd00::2"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert_eq!((told.dns.nameservers.len(), told.dns.search.len(), told.dns.options.len()), (1, 1, 1));
        assert!(knows_check("1.0.0") && knows_check("0.4.0") && !knows_check("0.3.1") && !knows_check(""));
    }
}
