//! The configuration of a container whose caller brings none. Everything in it is written out here.

use std::fs;
use std::path::{Path, PathBuf};

use executor_core::{ContainerSpec, ProcessMode, Security};
use executor_disk::mount_table;
use serde_json::{Value, json};

use super::devices;
use crate::context::BundleContext;
use crate::error::Error;
use crate::mount_entry::mount;
use crate::names::DEFAULT_HOSTNAME;

/// The version of the runtime specification that we write. runc 1.1 and crun 1.8 accept it.
const OCI_VERSION: &str = "1.0.2";

/// Parts of /proc and /sys that show the host. They are those of Docker, containerd and podman, except for podman's
/// /sys/dev/block, which has nothing that /sys/block does not. [`masked`] adds those that each CPU has.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// Parts of /proc that would change the host.
const READ_ONLY: [&str; 6] =
    ["/proc/bus", "/proc/dynamic_debug", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Destination, source, type, options.
pub(super) type DefaultMount = (&'static str, &'static str, &'static str, &'static [&'static str]);

pub(super) const MOUNTS: [DefaultMount; 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/shm", "shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
];

/// A container's configuration, before [`edit`](super::edit) adds the specification.
pub(crate) fn config(context: &BundleContext<'_>) -> Result<Value, Error> {
    let spec = context.spec;
    let insecure = spec.security == Security::Insecure;
    let mut config = json!({
        "ociVersion": OCI_VERSION,
        "root": {},
        "hostname": DEFAULT_HOSTNAME,
        "mounts": default_mounts(spec),
        "annotations": {"io.longshore.container": context.id.as_str()},
        "linux": {
            "namespaces": namespaces(spec.process_mode),
            // The runtime always allows some devices. Beside those, all or none are allowed.
            "resources": {"devices": [{"allow": insecure, "access": "rwm"}]},
            "maskedPaths": if insecure { Vec::new() } else { masked() },
            "readonlyPaths": if insecure { Vec::new() } else { read_only(spec.process_mode)? },
        },
    });
    if insecure {
        config["linux"]["devices"] = host_devices();
    }
    Ok(config)
}

fn masked() -> Vec<PathBuf> {
    let mut all: Vec<_> = MASKED.into_iter().map(PathBuf::from).collect();
    // How often a CPU became too hot tells how much other containers compute.
    for entry in fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten() {
        let throttle = entry.path().join("thermal_throttle");
        let is_cpu = entry.file_name().as_encoded_bytes().starts_with(b"cpu");
        if is_cpu && throttle.is_dir() {
            all.push(throttle);
        }
    }
    all
}

/// The paths that the runtime makes read-only, each of which is one mount. The host's /proc may have others below, such as
/// /proc/sys/fs/binfmt_misc: they are paths of their own.
fn read_only(mode: ProcessMode) -> Result<Vec<PathBuf>, Error> {
    let mut all: Vec<_> = READ_ONLY.into_iter().map(PathBuf::from).collect();
    if mode == ProcessMode::NoSandbox {
        let is_below = |point: &Path| READ_ONLY.iter().any(|path| point.starts_with(path));
        for mounted in
            mount_table::mounts().map_err(Error::io("list the mounts below", Path::new("/proc")))?
        {
            if is_below(&mounted.point) && !all.contains(&mounted.point) {
                all.push(mounted.point);
            }
        }
    }
    Ok(all)
}

/// All namespaces except that of the network, which [`edit`](super::edit) adds.
fn namespaces(mode: ProcessMode) -> Vec<Value> {
    let pid = (mode == ProcessMode::Sandbox).then_some("pid");
    ["ipc", "uts", "mount", "cgroup"].into_iter().chain(pid).map(|kind| json!({"type": kind})).collect()
}

fn default_mounts(spec: &ContainerSpec) -> Vec<Value> {
    let writable = spec.security == Security::Insecure;
    let mounts = MOUNTS.into_iter().map(|(destination, source, kind, options)| {
        if destination == "/proc" && spec.process_mode == ProcessMode::NoSandbox {
            return mount(Path::new(destination), "bind", Path::new("/proc"), &["rbind"]);
        }
        let options: Vec<_> = options.iter().copied().filter(|option| !writable || *option != "ro").collect();
        mount(Path::new(destination), kind, Path::new(source), &options)
    });
    mounts.collect()
}

/// The devices in the host's `/dev`, except terminals: every container has its own.
fn host_devices() -> Value {
    let mut all = Vec::new();
    let mut dirs = vec![PathBuf::from("/dev")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
            let kind = meta.file_type();
            if kind.is_dir() && !["pts", "shm", "mqueue", "fd"].iter().any(|own| path.ends_with(own)) {
                dirs.push(path);
                continue;
            }
            let Some(kind) = devices::kind(&meta) else { continue };
            if ["/dev/console", "/dev/ptmx", "/dev/tty"].iter().any(|own| path == Path::new(own)) {
                continue;
            }
            all.push(devices::node(&path, kind, &meta));
        }
    }
    all.into()
}
