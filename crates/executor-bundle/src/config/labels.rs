//! Labels of the host's security modules: AppArmor's profile and SELinux's contexts. A host without the module is an error:
//! otherwise a container that asks for a label would run without it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use executor_core::Selinux;
use serde_json::{Value, json};

use crate::context::BundleContext;
use crate::error::Error;
use crate::json::object;

/// Two categories of SELinux, the lower first.
type Pair = (u16, u16);

/// How many categories the usual policies have.
const CATEGORIES: u16 = 1024;

/// The pairs that containers of this process have, by their bundles. The map is global because labels apply to the whole
/// host: two executors of one process must not use the same pair.
static TAKEN: Mutex<BTreeMap<PathBuf, Pair>> = Mutex::new(BTreeMap::new());

/// Adds the labels that the specification asks for.
pub(crate) fn add(config: &mut Value, context: &BundleContext<'_>) -> Result<(), Error> {
    if let Some(profile) = &context.spec.apparmor {
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|text| text.trim() == "Y") {
            return Err(Error::field("apparmor", format!("{profile}: this host has no AppArmor")));
        }
        object(config, &["process"])?.insert("apparmorProfile".into(), json!(profile));
    }
    if let Some(selinux) = &context.spec.selinux {
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(Error::field("selinux", "this host has no SELinux"));
        }
        add_selinux(config, selinux, context.dir)?;
    }
    Ok(())
}

fn add_selinux(config: &mut Value, selinux: &Selinux, dir: &Path) -> Result<(), Error> {
    let (process, mount) = match selinux {
        Selinux::Labels { process, mount } => (process.clone(), mount.clone()),
        Selinux::Generated => {
            let (low, high) = take(dir).ok_or(Error::Categories)?;
            let label = |kind: &str| format!("system_u:{kind}:s0:c{low},c{high}");
            (label("system_r:container_t"), label("object_r:container_file_t"))
        }
    };
    object(config, &["process"])?.insert("selinuxLabel".into(), json!(process));
    object(config, &["linux"])?.insert("mountLabel".into(), json!(mount));
    Ok(())
}

/// Takes a pair that no other container of this process has. `None` if all are taken.
fn take(dir: &Path) -> Option<Pair> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pairs = (1..CATEGORIES).flat_map(|high| (0..high).map(move |low| (low, high)));
    let free = pairs.find(|pair| taken.values().all(|other| other != pair))?;
    taken.insert(dir.to_owned(), free);
    Some(free)
}

/// Frees the pair of the container whose bundle is in `dir`.
pub(crate) fn release(dir: &Path) {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_are_a_containers_own_until_they_are_released() {
        let label = |dir: &str| {
            let mut config = json!({"process": {}, "linux": {}});
            add_selinux(&mut config, &Selinux::Generated, Path::new(dir)).unwrap();
            let file = config["linux"]["mountLabel"].as_str().unwrap().to_owned();
            assert!(file.starts_with("system_u:object_r:container_file_t:s0:c"));
            let process = config["process"]["selinuxLabel"].as_str().unwrap().to_owned();
            assert_eq!(process.rsplit(':').next(), file.rsplit(':').next());
            process
        };
        let (one, other) = (label("/one"), label("/other"));
        assert_ne!(one, other);
        release(Path::new("/one"));
        assert_eq!(label("/third"), one);
        release(Path::new("/other"));
        release(Path::new("/third"));
        let mut config = json!({});
        let labels = Selinux::Labels { process: "p".into(), mount: "m".into() };
        add_selinux(&mut config, &labels, Path::new("/x")).unwrap();
        assert_eq!(config, json!({"process": {"selinuxLabel": "p"}, "linux": {"mountLabel": "m"}}));
    }
}
