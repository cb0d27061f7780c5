//! Configurations of CNI networks, in the format of CNI's specification: a file describes a network by a list of plugins.

use std::fs;
use std::path::{Path, PathBuf};

use executor_core::without_mark;
use executor_disk::read_regular;
use serde_json::{Value, json};

use crate::error::NetworkError;

/// A network: its name, and the plugins that make it, in the order in which they are called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NetworkConfig {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Whether its plugins must not be called with CHECK.
    pub(crate) disable_check: bool,
    pub(crate) plugins: Vec<Value>,
}

impl NetworkConfig {
    /// Reads a list (`.conflist`), or a single plugin (`.conf`, `.json`), from the text of the file `path`.
    pub(crate) fn read(path: &Path, text: &str) -> Result<Self, NetworkError> {
        let json = serde_json::from_str(text);
        let json: Value = json.map_err(|source| NetworkError::NotJson { path: path.to_owned(), source })?;
        Self::of(&json).map_err(|why| NetworkError::Malformed { path: path.to_owned(), why })
    }

    /// The same, from JSON.
    pub(crate) fn of(json: &Value) -> Result<Self, &'static str> {
        let name = json["name"].as_str().filter(|name| !name.is_empty()).ok_or("it has no name")?;
        let plugins = match json.get("plugins") {
            Some(plugins) => plugins.as_array().cloned().ok_or("its plugins are not a list")?,
            None => vec![json.clone()],
        };
        if plugins.is_empty() {
            return Err("it has no plugins");
        }
        let is_program = |kind: &str| !kind.is_empty() && !kind.contains('/');
        if !plugins.iter().all(|plugin| plugin["type"].as_str().is_some_and(is_program)) {
            return Err("a plugin's type is missing, or is not the name of a program");
        }
        Ok(Self {
            name: name.to_owned(),
            version: json["cniVersion"].as_str().unwrap_or("0.2.0").to_owned(),
            disable_check: json["disableCheck"].as_bool().unwrap_or_default(),
            plugins,
        })
    }

    /// The JSON that [`of`](Self::of) reads.
    pub(crate) fn to_json(&self) -> Value {
        let Self { name, version, disable_check, plugins } = self;
        json!({"name": name, "cniVersion": version, "disableCheck": disable_check, "plugins": plugins})
    }

    /// What a plugin reads on its stdin. `previous` is the result of the plugin before it.
    pub(crate) fn for_plugin(&self, plugin: &Value, previous: Option<&Value>) -> Value {
        let mut config = plugin.clone();
        config["name"] = json!(self.name);
        config["cniVersion"] = json!(self.version);
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        config
    }
}

/// The most bytes of a configuration that are read.
const LARGEST: u64 = 1 << 20;

/// The network of this name in a directory. Without a name, the first one in the order of the files' names.
pub(crate) fn find(dir: &Path, name: Option<&str>) -> Result<NetworkConfig, NetworkError> {
    let entries = fs::read_dir(dir).map_err(NetworkError::io("read", dir))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        file.extension().is_some_and(|kind| kind == "conflist" || kind == "conf" || kind == "json")
    });
    files.sort();
    let mut unread = Vec::new();
    for file in &files {
        let text = read_regular(file, LARGEST).map_err(NetworkError::io("read", file));
        match text.and_then(|text| NetworkConfig::read(file, &String::from_utf8_lossy(without_mark(&text)))) {
            Ok(config) if name.is_none_or(|name| name == config.name) => return Ok(config),
            Ok(_) => {}
            // It may describe another network, so it is an error only if no other file describes the one we look for.
            Err(error) => unread.push(error),
        }
    }
    Err(NetworkError::NoSuchNetwork { dir: dir.to_owned(), unread })
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_core::lifecycle::with_causes;

    #[test]
    fn lists_and_single_plugins_are_read() {
        let list = r#"{"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "bridge", "x": 1}, {"type": "portmap"}]}"#;
        let read = |text: &str| NetworkConfig::read(Path::new("x.conflist"), text);
        let config = read(list).unwrap();
        assert_eq!((config.name.as_str(), config.plugins.len()), ("n", 2));
        assert_eq!(NetworkConfig::of(&config.to_json()), Ok(config.clone()));
        let given = config.for_plugin(&config.plugins[0], Some(&json!({"ips": []})));
        assert_eq!(
            given,
            json!({"type": "bridge", "x": 1, "name": "n", "cniVersion": "0.4.0", "prevResult": {"ips": []}})
        );
        let single = read(r#"{"name": "s", "type": "bridge"}"#).unwrap();
        assert_eq!(single.plugins[0]["type"], "bridge");
        for bad in [
            "",
            "{}",
            r#"{"name": ""}"#,
            r#"{"name": "n", "plugins": []}"#,
            r#"{"name": "n"}"#,
            r#"{"name": "n", "plugins": [{"type": "../sh"}]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn without_a_name_the_first_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("05-broken.conflist", "{"),
            ("10-a.conflist", r#"{"name": "a", "plugins": [{"type": "bridge"}]}"#),
            ("20-b.conf", r#"{"name": "b", "type": "ptp"}"#),
            ("00-other.txt", r#"{"name": "c", "type": "ptp"}"#),
        ] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        assert_eq!(find(dir.path(), None).unwrap().name, "a");
        assert_eq!(find(dir.path(), Some("b")).unwrap().name, "b");
        let error = with_causes(&find(dir.path(), Some("c")).unwrap_err());
        assert!(
            error.starts_with("no configuration of this network in ") && error.contains("05-broken"),
            "{error}"
        );
        assert!(find(Path::new("/nowhere"), None).unwrap_err().to_string().contains("/nowhere"));
    }
}
