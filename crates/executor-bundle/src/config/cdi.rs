//! Devices by their CDI names: adds to the configuration what the host's CDI specifications say about a device.
//!
//! The CNCF's own library finds the specifications and applies them to an empty configuration. Its result is then moved to
//! our configuration. The library would drop unknown fields if it were given our configuration.

use std::collections::HashMap;

use container_device_interface::cache::{new_cache, with_auto_refresh};
use container_device_interface::spec_dirs::with_spec_dirs;
use executor_core::lifecycle::with_causes;
use oci_spec::runtime::{LinuxBuilder, LinuxResourcesBuilder, ProcessBuilder, Spec, SpecBuilder};
use serde_json::{Value, json};

use crate::error::Error;
use crate::json::{list, object};
use crate::mount_entry;

/// The directories that are searched for specifications.
const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// An environment variable with other directories, separated by colons, which replace [`DIRS`].
const DIRS_VARIABLE: &str = "LONGSHORE_CDI_DIRS";

/// Adds what the devices need to the configuration.
pub(crate) fn add(config: &mut Value, devices: &[String]) -> Result<(), Error> {
    if devices.is_empty() {
        return Ok(());
    }
    let named = std::env::var(DIRS_VARIABLE).ok();
    let dirs = named.as_deref().map_or_else(|| DIRS.to_vec(), |dirs| dirs.split(':').collect());
    let found = edits(devices, &dirs)?;
    let list_of =
        |pointer: &str| found.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    list(config, &["process", "env"])?.extend(list_of("/process/env"));
    for mount in list_of("/mounts") {
        mount_entry::put(list(config, &["mounts"])?, mount);
    }
    for (pointer, path) in [
        ("/linux/devices", &["linux", "devices"][..]),
        ("/linux/resources/devices", &["linux", "resources", "devices"]),
        ("/process/user/additionalGids", &["process", "user", "additionalGids"]),
    ] {
        let new = list_of(pointer);
        if !new.is_empty() {
            list(config, path)?.extend(new);
        }
    }
    for (kind, hooks) in found["hooks"].as_object().into_iter().flatten() {
        list(config, &["hooks", kind])?.extend(hooks.as_array().cloned().unwrap_or_default());
    }
    if let Some(rdt) = found.pointer("/linux/intelRdt") {
        object(config, &["linux"])?.insert("intelRdt".into(), json!(rdt));
    }
    Ok(())
}

fn edits(devices: &[String], dirs: &[&str]) -> Result<Value, Error> {
    let cache = new_cache(vec![with_spec_dirs(dirs), with_auto_refresh(false)]);
    let mut cache = cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // A specification with errors matters only if a device is not found in the others.
    let unread = cache.refresh().err().map(|error| with_causes(&*error).into());
    let mut add = || {
        let mut spec = empty()?;
        cache.inject_devices(Some(&mut spec), devices.to_vec())?;
        Ok(serde_json::to_value(spec)?)
    };
    add().map_err(|source| Error::Devices {
        devices: devices.to_vec(),
        dirs: dirs.iter().map(|dir| (*dir).to_owned()).collect(),
        unread,
        source,
    })
}

fn empty() -> Result<Spec, oci_spec::OciSpecError> {
    let process = ProcessBuilder::default().cwd("/").args([]).env([]).build()?;
    let resources = LinuxResourcesBuilder::default().devices([]).build()?;
    let linux = LinuxBuilder::default().devices([]).resources(resources).namespaces([]).build()?;
    SpecBuilder::default().process(process).mounts([]).linux(linux).annotations(HashMap::new()).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_brings_nodes_mounts_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        let fixture = json!({
            "cdiVersion": "0.6.0", "kind": "example.com/widget",
            "devices": [{"name": "one", "containerEdits": {
                "env": ["WIDGET=1"], "deviceNodes": [{"path": "/dev/widget", "hostPath": "/dev/null"}],
                "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/widget", "options": ["ro", "bind"]}]}}],
        });
        std::fs::write(dir.path().join("widget.json"), fixture.to_string()).unwrap();
        let dirs = [dir.path().to_str().unwrap()];
        let found = edits(&["example.com/widget=one".into()], &dirs).unwrap();
        assert_eq!(found["process"]["env"], json!(["WIDGET=1"]));
        assert_eq!(found["mounts"][0]["destination"], "/widget");
        let device = &found["linux"]["devices"][0];
        assert_eq!(
            (&device["path"], &device["major"], &device["minor"]),
            (&json!("/dev/widget"), &json!(1), &json!(3))
        );
        assert_eq!(found["linux"]["resources"]["devices"][0]["major"], 1);
        let error = edits(&["example.com/widget=two".into()], &dirs).unwrap_err().to_string();
        assert!(error.starts_with("device: example.com/widget=two: "), "{error}");
    }
}
