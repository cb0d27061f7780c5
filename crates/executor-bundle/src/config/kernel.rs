//! What the specification says of the kernel: its parameters, and the size of shared memory. And its labels, as annotations.

use executor_core::ContainerSpec;
use serde_json::{Value, json};

use crate::error::Error;
use crate::json::{list, object};

const SHM: &str = "/dev/shm";

/// What the names of labels begin with. Runtimes take annotations of other names as orders: crun opens files that
/// `run.oci.hooks.stdout` names.
const LABEL: &str = "io.longshore.label.";

pub(super) fn add(config: &mut Value, spec: &ContainerSpec) -> Result<(), Error> {
    if !spec.sysctls.is_empty() {
        let sysctls = object(config, &["linux", "sysctl"])?;
        sysctls.extend(spec.sysctls.iter().map(|(name, value)| (name.clone(), json!(value))));
    }
    if !spec.labels.is_empty() {
        let annotations = object(config, &["annotations"])?;
        annotations.extend(spec.labels.iter().map(|(name, value)| (format!("{LABEL}{name}"), json!(value))));
    }
    Ok(())
}

/// Sets the size of the configuration's /dev/shm. A mount that the specification puts there instead has a size of its own.
pub(super) fn shm_size(config: &mut Value, spec: &ContainerSpec) -> Result<(), Error> {
    let Some(bytes) = spec.shm_size else { return Ok(()) };
    let mounts = list(config, &["mounts"])?;
    let shm = mounts.iter_mut().find(|mount| mount["destination"] == SHM && mount["type"] == "tmpfs");
    let why = "the configuration has no /dev/shm of its own";
    let shm = shm.ok_or_else(|| Error::field("shm size", why))?;
    let options = list(shm, &["options"])?;
    options.retain(|option| option.as_str().is_none_or(|option| !option.starts_with("size=")));
    options.push(json!(format!("size={bytes}")));
    Ok(())
}
