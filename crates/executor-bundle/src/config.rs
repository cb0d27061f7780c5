//! The OCI runtime specification of a container and of a process, made deliberately: nothing is left
//! to the defaults of the library that models it.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use executor_core::lifecycle::{ContainerId, StartFailure, TerminalSize};
use executor_core::{
    Capability, ContainerSpec, ExecSpec, NetworkNamespace, ProcessMode, ProcessSpec, Resources, Seccomp,
    Security,
};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    BoxBuilder, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxDevice, LinuxDeviceBuilder,
    LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, Mount, MountBuilder,
    PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
    UserBuilder,
};
use serde_json::json;

use crate::users::User;
use crate::{bad, seccomp};

/// A container's host name when none is asked for.
pub const DEFAULT_HOSTNAME: &str = "longshore";

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The version of the specification that is written; runc 1.1 and crun 1.8 take it.
const OCI_VERSION: &str = "1.0.2";

/// The scheduler's period, in microseconds, of which a container gets its share.
const CPU_PERIOD: u64 = 100_000;

/// What root in a container may do: the set that container engines have agreed on.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Parts of /proc and /sys that tell of the host.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Parts of /proc that would change the host.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where from, where to, of what kind, how.
type DefaultMount = (&'static str, &'static str, &'static str, &'static [&'static str]);

const MOUNTS: [DefaultMount; 7] = [
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

/// The whole of `config.json`. `files` are of ours, each with the place where the container finds it.
pub(crate) fn container(
    id: &ContainerId,
    spec: &ContainerSpec,
    root: &Path,
    files: &[(PathBuf, PathBuf)],
    process: Process,
    cgroup: &str,
    network: &NetworkNamespace,
) -> Result<Spec, StartFailure> {
    let insecure = spec.security == Security::Insecure;
    let seccomp = if insecure { &Seccomp::Unconfined } else { &spec.seccomp };
    let seccomp = seccomp::filter(seccomp, &capabilities(&spec.process, spec.security))?;
    let hosts_proc = spec.process_mode == ProcessMode::NoSandbox;
    let hidden = |paths: &[&str]| -> Vec<String> {
        let shown = |path: &str| insecure || hosts_proc && path.starts_with("/proc/");
        paths.iter().filter(|path| !shown(path)).map(|path| (*path).to_owned()).collect()
    };
    let make = || {
        let mut linux = LinuxBuilder::default()
            .namespaces(namespaces(network, spec.process_mode)?)
            .resources(resources(&spec.resources, spec.security)?)
            .cgroups_path(cgroup)
            .masked_paths(hidden(&MASKED))
            .readonly_paths(hidden(&READ_ONLY));
        if insecure {
            linux = linux.devices(host_devices()?);
        }
        if let Some(seccomp) = seccomp {
            linux = linux.seccomp(seccomp);
        }
        let linux = linux.build()?;
        let annotations = [("io.longshore.container".to_owned(), id.to_string())];
        SpecBuilder::default()
            .version(OCI_VERSION)
            .root(RootBuilder::default().path(root).readonly(spec.read_only).build()?)
            .hostname(spec.hostname.as_deref().unwrap_or(DEFAULT_HOSTNAME))
            .process(process)
            .mounts(mounts(spec, files)?)
            .annotations(annotations)
            .linux(linux)
            .build()
    };
    make().map_err(|error: OciSpecError| bad("spec", &error.to_string()))
}

/// What a process may do at most.
fn capabilities(process: &ProcessSpec, security: Security) -> BTreeSet<Capability> {
    let mut all: BTreeSet<_> = match security {
        Security::Sandbox => Capability::all().filter(|one| CAPABILITIES.contains(&one.name())).collect(),
        Security::Insecure => Capability::all().filter(|one| is_ours_to_give(*one)).collect(),
    };
    all.extend(&process.cap_add);
    all.retain(|capability| !process.cap_drop.contains(capability));
    all
}

/// The capabilities this process can hand on, one in each bit: its bounding set.
static BOUNDING: LazyLock<Option<u64>> = LazyLock::new(|| {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
});

fn is_ours_to_give(capability: Capability) -> bool {
    BOUNDING.is_none_or(|set| set >> capability.number() & 1 == 1)
}

/// The `process` object.
pub(crate) fn process(spec: &ProcessSpec, user: &User, security: Security) -> Result<Process, StartFailure> {
    if let Some(denied) = spec.cap_add.iter().find(|capability| !is_ours_to_give(**capability)) {
        return Err(bad("capability", &format!("{denied}: this process has none of it to give")));
    }
    let make = || {
        let names: Vec<_> = capabilities(spec, security).iter().map(|capability| capability.name()).collect();
        let capabilities: HashSet<_> = serde_json::from_value(json!(names))?;
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(capabilities.clone())
            .effective(capabilities.clone())
            .permitted(capabilities)
            .inheritable([])
            .ambient([])
            .build()?;
        let ulimits = spec.ulimits.iter().map(|limit| {
            let kind: PosixRlimitType = serde_json::from_value(json!(limit.kind()))?;
            PosixRlimitBuilder::default().typ(kind).soft(limit.soft).hard(limit.hard).build()
        });
        let ulimits = ulimits.collect::<Result<Vec<_>, _>>()?;
        let groups: Vec<u32> = user.groups.iter().copied().collect();
        let mut builder = ProcessBuilder::default().terminal(spec.terminal.is_some());
        if let Some(TerminalSize { rows, columns }) = spec.terminal {
            let size = BoxBuilder::default().height(u64::from(rows)).width(u64::from(columns)).build()?;
            builder = builder.console_size(size);
        }
        if let Some(score) = spec.oom_score_adj {
            builder = builder.oom_score_adj(score);
        }
        builder
            .args(spec.args.clone())
            .env(environment(&spec.env, user))
            .cwd(&spec.cwd)
            .user(UserBuilder::default().uid(user.uid).gid(user.gid).additional_gids(groups).build()?)
            .capabilities(capabilities)
            .rlimits(ulimits)
            .no_new_privileges(spec.no_new_privileges)
            .build()
    };
    make().map_err(|error: OciSpecError| bad("spec", &error.to_string()))
}

/// An exec's settings, with those of the container's init where it has none.
pub(crate) fn merged(init: &ProcessSpec, exec: &ExecSpec) -> ProcessSpec {
    ProcessSpec {
        args: exec.args.clone(),
        env: init.env.iter().chain(&exec.env).cloned().collect(),
        cwd: exec.cwd.clone().unwrap_or_else(|| init.cwd.clone()),
        user: exec.user.clone().or_else(|| init.user.clone()),
        stdio: Default::default(),
        terminal: exec.terminal,
        time_limit: None,
        cap_add: init.cap_add.clone(),
        cap_drop: init.cap_drop.clone(),
        no_new_privileges: init.no_new_privileges,
        ulimits: init.ulimits.clone(),
        oom_score_adj: init.oom_score_adj,
    }
}

/// Defaults first, so that what is asked for replaces them; the last value of a name counts.
fn environment(env: &[(String, String)], user: &User) -> Vec<String> {
    let home = user.home.as_deref().unwrap_or(if user.uid == 0 { "/root" } else { "/" });
    let asked = env.iter().map(|(key, value)| format!("{key}={value}"));
    let mut all: Vec<String> = Vec::new();
    for entry in [DEFAULT_PATH.to_owned(), format!("HOME={home}")].into_iter().chain(asked) {
        let name = entry.split_inclusive('=').next().unwrap_or_default();
        all.retain(|other| !other.starts_with(name));
        all.push(entry);
    }
    all
}

fn namespaces(network: &NetworkNamespace, mode: ProcessMode) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let make = |kind, path: Option<&Path>| {
        let namespace = LinuxNamespaceBuilder::default().typ(kind);
        match path {
            Some(path) => namespace.path(path).build(),
            None => namespace.build(),
        }
    };
    let pid = (mode == ProcessMode::Sandbox).then_some(LinuxNamespaceType::Pid);
    let own = [
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Cgroup,
    ];
    let mut all = own.into_iter().chain(pid).map(|kind| make(kind, None)).collect::<Result<Vec<_>, _>>()?;
    match network {
        NetworkNamespace::Host => {}
        NetworkNamespace::New => all.push(make(LinuxNamespaceType::Network, None)?),
        NetworkNamespace::At(path) => all.push(make(LinuxNamespaceType::Network, Some(path))?),
    }
    Ok(all)
}

/// A mount of the caller's takes the place of a default one, or an earlier one, at the same destination.
fn mounts(spec: &ContainerSpec, files: &[(PathBuf, PathBuf)]) -> Result<Vec<Mount>, OciSpecError> {
    let mut all: Vec<Mount> = Vec::new();
    let writable = spec.security == Security::Insecure;
    let defaults = MOUNTS.into_iter().map(|(destination, source, kind, options)| {
        let options = options.iter().filter(|option| !writable || **option != "ro");
        let options = options.map(|option| (*option).to_owned()).collect();
        if destination == "/proc" && spec.process_mode == ProcessMode::NoSandbox {
            return mount(Path::new(destination), Path::new("/proc"), "bind", vec!["rbind".to_owned()]);
        }
        mount(Path::new(destination), Path::new(source), kind, options)
    });
    let bind = |source: &Path, destination: &Path, access: &str| {
        mount(destination, source, "bind", vec!["rbind".to_owned(), access.to_owned()])
    };
    let files = files.iter().map(|(source, place)| bind(source, place, "ro"));
    let asked = spec
        .mounts
        .iter()
        .map(|asked| bind(&asked.source, &asked.destination, if asked.read_only { "ro" } else { "rw" }));
    for mount in defaults.chain(files).chain(asked) {
        let mount = mount?;
        all.retain(|other| other.destination() != mount.destination());
        all.push(mount);
    }
    Ok(all)
}

fn mount(destination: &Path, source: &Path, kind: &str, options: Vec<String>) -> Result<Mount, OciSpecError> {
    MountBuilder::default().destination(destination).source(source).typ(kind).options(options).build()
}

/// The host's devices, as they are in its `/dev`, but for those of terminals, which are each container's own.
fn host_devices() -> Result<Vec<LinuxDevice>, OciSpecError> {
    let mut devices = Vec::new();
    let mut dirs = vec![PathBuf::from("/dev")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
            let kind = meta.file_type();
            if kind.is_dir() && !["pts", "shm", "mqueue", "fd"].iter().any(|own| path.ends_with(own)) {
                dirs.push(path);
                continue;
            }
            let kind = match (kind.is_char_device(), kind.is_block_device()) {
                (true, _) => LinuxDeviceType::C,
                (_, true) => LinuxDeviceType::B,
                (false, false) => continue,
            };
            if ["/dev/console", "/dev/ptmx", "/dev/tty"].iter().any(|own| path == Path::new(own)) {
                continue;
            }
            let number = |part: u32| i64::from(part);
            let device = LinuxDeviceBuilder::default()
                .path(path)
                .typ(kind)
                .major(number(rustix::fs::major(meta.rdev())))
                .minor(number(rustix::fs::minor(meta.rdev())))
                .file_mode(meta.mode() & 0o7777)
                .uid(meta.uid())
                .gid(meta.gid());
            devices.push(device.build()?);
        }
    }
    Ok(devices)
}

/// The limits asked for; and no device but those the runtime always allows, unless all are.
fn resources(limits: &Resources, security: Security) -> Result<LinuxResources, OciSpecError> {
    let all = security == Security::Insecure;
    let devices = LinuxDeviceCgroupBuilder::default().allow(all).access("rwm").build()?;
    let mut resources = LinuxResourcesBuilder::default().devices([devices]);
    if let Some(bytes) = limits.memory.and_then(|bytes| i64::try_from(bytes).ok()) {
        resources = resources.memory(LinuxMemoryBuilder::default().limit(bytes).build()?);
    }
    if let Some(cpus) = limits.cpus {
        #[expect(clippy::cast_possible_truncation, reason = "validated: 0.01 to 100,000 CPUs")]
        let quota = (cpus * 100_000.0).round() as i64;
        resources = resources.cpu(LinuxCpuBuilder::default().quota(quota).period(CPU_PERIOD).build()?);
    }
    if let Some(pids) = limits.pids {
        resources = resources.pids(LinuxPidsBuilder::default().limit(i64::from(pids)).build()?);
    }
    resources.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_core::Mount as Bind;
    use serde_json::Value;

    fn config(change: impl FnOnce(&mut ContainerSpec)) -> Value {
        config_in(&NetworkNamespace::New, change)
    }

    fn config_in(network: &NetworkNamespace, change: impl FnOnce(&mut ContainerSpec)) -> Value {
        let mut spec = ContainerSpec::host(["sh", "-c", "true"]);
        change(&mut spec);
        let user = User { uid: 0, gid: 0, groups: [0, 10].into(), home: Some("/root".into()) };
        let process = process(&spec.process, &user, spec.security).unwrap();
        let id = ContainerId::new("c").unwrap();
        let config = container(&id, &spec, Path::new("/b/rootfs"), &[], process, "/longshore/e/c", network);
        serde_json::to_value(config.unwrap()).unwrap()
    }

    #[test]
    fn nothing_of_the_librarys_defaults_gets_in() {
        let config = config(|_| {});
        assert_eq!(config["hostname"], "longshore");
        assert_eq!(config["ociVersion"], "1.0.2");
        assert_eq!(config["root"], json!({"path": "/b/rootfs", "readonly": false}));
        assert_eq!(config["process"]["capabilities"]["bounding"].as_array().map(Vec::len), Some(14));
        assert_eq!(config["process"]["capabilities"]["inheritable"], json!([]));
        assert_eq!(config["process"].get("rlimits").cloned().unwrap_or(json!([])), json!([]));
        assert!(!config["process"]["terminal"].as_bool().unwrap_or_default());
        assert_eq!(config["process"]["user"], json!({"uid": 0, "gid": 0, "additionalGids": [0, 10]}));
        assert_eq!(config["linux"]["cgroupsPath"], "/longshore/e/c");
        assert_eq!(config["linux"]["resources"], json!({"devices": [{"allow": false, "access": "rwm"}]}));
        let mounts = config["mounts"].as_array().unwrap();
        assert!(mounts.iter().all(|mount| mount["destination"] != "/run"), "there is no /run mount");
        assert_eq!(mounts.len(), MOUNTS.len());
    }

    #[test]
    fn the_network_is_a_namespace_or_none() {
        let network = |network| {
            let config = config_in(&network, |_| {});
            let all = config["linux"]["namespaces"].as_array().unwrap().clone();
            all.into_iter().find(|namespace| namespace["type"] == "network")
        };
        assert_eq!(network(NetworkNamespace::Host), None);
        assert_eq!(network(NetworkNamespace::New), Some(json!({"type": "network"})));
        let at = json!({"type": "network", "path": "/run/netns/x"});
        assert_eq!(network(NetworkNamespace::At("/run/netns/x".into())), Some(at));
    }

    #[test]
    fn an_insecure_container_may_do_all_and_sees_all() {
        let config = config(|spec| spec.security = Security::Insecure);
        let known = Capability::all().filter(|capability| is_ours_to_give(*capability)).count();
        let bounding = config["process"]["capabilities"]["bounding"].as_array().unwrap();
        assert_eq!(bounding.len(), known);
        let linux = &config["linux"];
        assert_eq!(linux.get("seccomp"), None);
        for hidden in ["maskedPaths", "readonlyPaths"] {
            assert_eq!(linux.get(hidden).cloned().unwrap_or(json!([])), json!([]));
        }
        assert_eq!(linux["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
        let devices = linux["devices"].as_array().unwrap();
        let null = devices.iter().find(|device| device["path"] == "/dev/null").unwrap();
        assert_eq!((&null["type"], &null["major"], &null["minor"]), (&json!("c"), &json!(1), &json!(3)));
        let mounts = config["mounts"].as_array().unwrap();
        assert!(mounts.iter().all(|mount| !mount["options"].as_array().unwrap().contains(&json!("ro"))));
    }

    #[test]
    fn rights_and_limits_are_those_asked_for() {
        let config = config(|spec| {
            spec.process.cap_add = vec!["SYS_PTRACE".parse().unwrap(), "NET_RAW".parse().unwrap()];
            spec.process.cap_drop = vec!["KILL".parse().unwrap(), "CHOWN".parse().unwrap()];
            spec.process.no_new_privileges = true;
            spec.process.ulimits = vec!["nofile=64:128".parse().unwrap()];
            spec.process.oom_score_adj = Some(500);
        });
        let process = &config["process"];
        assert_eq!(process["capabilities"]["bounding"].as_array().map(Vec::len), Some(13));
        assert_eq!(process["noNewPrivileges"], true);
        assert_eq!(process["rlimits"], json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]));
        assert_eq!(process["oomScoreAdj"], 500);
    }

    #[test]
    fn limits_are_written_as_the_specification_has_them() {
        let limits = Resources { memory: Some(64 << 20), cpus: Some(0.5), pids: Some(64) };
        let resources = config(|spec| spec.resources = limits)["linux"]["resources"].clone();
        assert_eq!(resources["memory"]["limit"], 64 << 20);
        assert_eq!(resources["cpu"], json!({"quota": 50_000, "period": 100_000}));
        assert_eq!(resources["pids"]["limit"], 64);
    }

    #[test]
    fn later_mounts_and_variables_replace_former_ones() {
        let bind =
            |source: &str| Bind { source: source.into(), destination: "/dev/shm".into(), read_only: true };
        let config = config(|spec| {
            spec.mounts = vec![bind("/a"), bind("/b")];
            spec.process.env =
                vec![("PATH".into(), "/x".into()), ("A".into(), "1".into()), ("A".into(), "2".into())];
        });
        let mounts = config["mounts"].as_array().unwrap();
        let shm: Vec<_> = mounts.iter().filter(|mount| mount["destination"] == "/dev/shm").collect();
        assert_eq!(shm.len(), 1);
        assert_eq!(shm[0]["source"], "/b");
        assert_eq!(shm[0]["options"], json!(["rbind", "ro"]));
        assert_eq!(config["process"]["env"], json!(["HOME=/root", "PATH=/x", "A=2"]));
    }

    #[test]
    fn an_exec_starts_from_the_containers_settings() {
        let mut spec = ContainerSpec::host(["init"]).process;
        spec.env = vec![("A".into(), "1".into()), ("B".into(), "1".into())];
        spec.user = Some("ann".into());
        let mut exec = ExecSpec::new(["ls"]);
        exec.env = vec![("B".into(), "2".into())];
        exec.cwd = Some("/tmp".into());
        let both = merged(&spec, &exec);
        assert_eq!(
            (both.args, both.user, both.cwd),
            (vec!["ls".to_owned()], Some("ann".into()), "/tmp".into())
        );
        assert_eq!(both.env.last(), Some(&("B".into(), "2".into())));
    }
}
