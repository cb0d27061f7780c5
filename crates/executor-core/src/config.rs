//! A configuration of the caller, in the form of the OCI runtime specification.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executor_lifecycle::TerminalSize;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::invalid;
use crate::{ContainerSpec, InvalidSpec, Rootfs};

/// A `config.json`. Fields that this crate does not know stay as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "Value"))]
#[serde(from = "Value", into = "Value")]
pub struct Config(Arc<Value>);

impl From<Value> for Config {
    fn from(json: Value) -> Self {
        Self(Arc::new(json))
    }
}

impl From<Config> for Value {
    fn from(config: Config) -> Self {
        Arc::unwrap_or_clone(config.0)
    }
}

impl Config {
    /// The JSON value.
    pub fn json(&self) -> &Value {
        &self.0
    }

    fn text(&self, pointer: &str) -> Option<&str> {
        self.0.pointer(pointer).and_then(Value::as_str)
    }

    fn texts(&self, pointer: &str) -> impl Iterator<Item = &str> {
        let list = self.0.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Whether a container of it has a pid namespace of its own, whose processes end with the container's init.
    pub(crate) fn has_own_pids(&self) -> bool {
        let namespaces = self.json().pointer("/linux/namespaces").and_then(Value::as_array);
        let is_own = |namespace: &Value| {
            namespace["type"] == "pid" && namespace["path"].as_str().is_none_or(str::is_empty)
        };
        namespaces.is_some_and(|namespaces| namespaces.iter().any(is_own))
    }

    /// Its user and group, as numbers, in the form of [`ProcessSpec::user`](crate::ProcessSpec::user). `None` if it
    /// has none.
    pub fn user(&self) -> Option<String> {
        let number = |name| self.0.pointer(&format!("/process/user/{name}")).and_then(Value::as_u64);
        Some(format!("{}:{}", number("uid")?, number("gid")?))
    }
}

impl ContainerSpec {
    /// Reads the specification of a container from a bundle. `bundle` is a directory, or the path of its
    /// `config.json`.
    ///
    /// The fields of the specification get the values of the configuration, or their defaults. Fields that you change
    /// replace those of the configuration, or are added to them. The rest of the configuration is kept, unknown
    /// fields included. Its cgroup path is not: Longshore decides on that.
    ///
    /// # Errors
    /// If the file cannot be read, is not a JSON object, or has no `root.path`.
    pub fn from_config(bundle: impl AsRef<Path>) -> Result<Self, InvalidSpec> {
        let bundle = bundle.as_ref();
        let unusable =
            |error| invalid("config", format!("{}: not a path", bundle.display())).caused_by(error);
        let bundle = std::path::absolute(bundle).map_err(unusable)?;
        let file = if bundle.is_dir() { bundle.join("config.json") } else { bundle };
        let wrong = |why: &str| invalid("config", format!("{}: {why}", file.display()));
        let text = read_whole(&file).map_err(|error| wrong("cannot be read").caused_by(error))?;
        let json: Value = serde_json::from_slice(without_mark(&text))
            .map_err(|error| wrong("not JSON").caused_by(error))?;
        if !json.is_object() {
            return Err(wrong("not a JSON object"));
        }
        let config = Config(Arc::new(json));
        let root = config.text("/root/path").ok_or_else(|| wrong("it has no root.path"))?;
        let dir = file.parent().unwrap_or(Path::new("/")).join(root);
        let mut spec = Self::new(Rootfs::Dir(dir), config.texts("/process/args"));
        let flag = |pointer| config.json().pointer(pointer).and_then(Value::as_bool).unwrap_or_default();
        spec.read_only = flag("/root/readonly");
        spec.hostname = config.text("/hostname").map(str::to_owned);
        let process = &mut spec.process;
        let variables = config.texts("/process/env").filter_map(|entry| entry.split_once('='));
        process.env = variables.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        process.cwd = config.text("/process/cwd").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        process.user = config.user();
        process.terminal = flag("/process/terminal").then(TerminalSize::default);
        spec.config = Some(config);
        Ok(spec)
    }
}

/// Reads a file of the user's that is read whole, of at most 16 MiB. It may be a pipe.
///
/// # Errors
/// When it cannot be read, or is larger.
pub fn read_whole(file: &Path) -> io::Result<Vec<u8>> {
    const LARGEST: u64 = 16 << 20;
    let is_socket = || file.metadata().is_ok_and(|meta| meta.file_type().is_socket());
    let opened = File::open(file).map_err(|error| match is_socket() {
        true => io::Error::other("it is a socket, which cannot be opened"),
        false => error,
    })?;
    let mut bytes = Vec::new();
    opened.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= LARGEST) {
        Ok(bytes)
    } else {
        Err(io::Error::new(ErrorKind::FileTooLarge, "it is larger than 16 MiB"))
    }
}

/// A text without the mark of its encoding, UTF-8, which editors of Windows write at the beginning. JSON has no place for it.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use executor_lifecycle::with_causes;

    use super::*;

    fn read(text: &str) -> Result<ContainerSpec, InvalidSpec> {
        let dir =
            std::env::temp_dir().join(format!("longshore-config-{}-{}", std::process::id(), text.len()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("config.json"), text).unwrap();
        let spec = ContainerSpec::from_config(&dir);
        std::fs::remove_dir_all(&dir).unwrap();
        spec
    }

    #[test]
    fn the_fields_have_the_values_of_the_configuration() {
        let spec = read(
            r#"{"root": {"path": "rootfs", "readonly": true}, "hostname": "h", "x": {"y": 1},
                "process": {"args": ["sh", "-c", "true"], "env": ["A=1=2"], "cwd": "/w", "terminal": true,
                            "user": {"uid": 7, "gid": 8, "additionalGids": [9]}}}"#,
        )
        .unwrap();
        assert!(matches!(&spec.rootfs, Rootfs::Dir(dir) if dir.is_absolute() && dir.ends_with("rootfs")));
        assert!(spec.read_only && spec.process.terminal.is_some());
        assert_eq!(spec.process.args, ["sh", "-c", "true"]);
        assert_eq!(spec.process.env, [("A".to_owned(), "1=2".to_owned())]);
        assert_eq!((spec.process.user.as_deref(), spec.hostname.as_deref()), (Some("7:8"), Some("h")));
        assert_eq!(spec.config.unwrap().json()["x"]["y"], 1);
    }

    #[test]
    fn what_is_no_configuration_is_an_error() {
        for (text, why) in [("[]", "not a JSON object"), ("{", "not JSON: EOF"), ("{}", "root.path")] {
            let error = read(text).unwrap_err();
            assert!(error.field == "config" && with_causes(&error).contains(why), "{error:?}");
        }
        let missing = ContainerSpec::from_config("/nowhere/bundle").unwrap_err();
        let sentence = "config: /nowhere/bundle: cannot be read: No such file or directory";
        assert!(with_causes(&missing).starts_with(sentence), "{missing:?}");
        assert_eq!(missing, missing.clone().caused_by("another"), "the cause does not count");
    }
}
