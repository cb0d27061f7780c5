//! The OCI runtime specification of a container and of a process, made deliberately: nothing is left to the
//! defaults of a library. A caller's own configuration takes the place of ours; what the container's specification
//! says beside it is added by [`edit`], to either, as JSON: unknown fields stay.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use executor_core::lifecycle::{ContainerId, StartFailure, TerminalSize};
use executor_core::{
    Capability, ContainerSpec, ExecSpec, IdMap, NetworkNamespace, ProcessMode, ProcessSpec, Security,
};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::rootfs::Made;
use crate::seccomp::Filter;
use crate::users::User;
use crate::{bad, edit, mounts};

/// A container's host name when none is asked for.
pub const DEFAULT_HOSTNAME: &str = "longshore";

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The version of the specification that is written; runc 1.1 and crun 1.8 take it.
const OCI_VERSION: &str = "1.0.2";

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

/// What goes into a configuration beside the specification.
pub(crate) struct BundleContext<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) rootfs: &'a Made,
    /// Files of ours, each with the place where the container finds it.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    /// The mounts asked for.
    pub(crate) mounts: Vec<Value>,
    pub(crate) cgroup: Option<&'a str>,
    pub(crate) network: &'a NetworkNamespace,
    pub(crate) map: Option<&'a IdMap>,
    /// Where the bundle is, for what is put beside it.
    pub(crate) dir: &'a Path,
}

/// The whole of `config.json`: ours, or the caller's with what the specification adds to it.
pub(crate) struct Configuration {
    /// All of it but the filter.
    pub(crate) json: Value,
    /// The filter for system calls, where it is ours: nine tenths of the whole, and the same for most containers.
    filter: Option<Filter>,
}

impl Configuration {
    pub(crate) fn of(ground: &BundleContext<'_>, process: Value) -> Result<Self, StartFailure> {
        let mut json = match &ground.spec.config {
            Some(config) => config.json().clone(),
            None => default(ground),
        };
        json["process"] = process;
        let filter = edit::all(&mut json, ground)?;
        Ok(Self { json, filter })
    }

    /// With the filter in its place, for people.
    pub(crate) fn whole(mut self) -> serde_json::Result<Value> {
        if let Some(filter) = &self.filter {
            self.json["linux"]["seccomp"] = serde_json::from_str(filter.get())?;
        }
        Ok(self.json)
    }
}

/// As `whole` would be written; the filter's text goes in as it is.
impl Serialize for Configuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Linux<'a>(&'a Map<String, Value>, &'a RawValue);
        impl Serialize for Linux<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                for (key, value) in self.0 {
                    map.serialize_entry(key, value)?;
                }
                map.serialize_entry("seccomp", self.1)?;
                map.end()
            }
        }
        let (Some(filter), Some(all)) = (&self.filter, self.json.as_object()) else {
            return self.json.serialize(serializer);
        };
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in all {
            match value.as_object().filter(|_| key == "linux") {
                Some(linux) => map.serialize_entry(key, &Linux(linux, filter))?,
                None => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}

/// A container's configuration where the caller has none. What [`edit`] puts in is not there yet.
fn default(ground: &BundleContext<'_>) -> Value {
    let spec = ground.spec;
    let insecure = spec.security == Security::Insecure;
    let hosts_proc = spec.process_mode == ProcessMode::NoSandbox;
    let hidden = |paths: &[&'static str]| -> Vec<&'static str> {
        let shown = |path: &str| insecure || hosts_proc && path.starts_with("/proc/");
        paths.iter().copied().filter(|path| !shown(path)).collect()
    };
    let mut config = json!({
        "ociVersion": OCI_VERSION,
        "root": {},
        "hostname": DEFAULT_HOSTNAME,
        "mounts": default_mounts(spec),
        "annotations": {"io.longshore.container": ground.id.as_str()},
        "linux": {
            "namespaces": namespaces(spec.process_mode),
            // No device but those the runtime always allows, unless all are.
            "resources": {"devices": [{"allow": insecure, "access": "rwm"}]},
            "maskedPaths": hidden(&MASKED),
            "readonlyPaths": hidden(&READ_ONLY),
        },
    });
    if insecure {
        config["linux"]["devices"] = host_devices();
    }
    config
}

/// What a process may do at most.
pub(crate) fn capabilities(process: &ProcessSpec, security: Security) -> BTreeSet<Capability> {
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

/// The `process` object of a container's init.
pub(crate) fn process(spec: &ContainerSpec, user: &User) -> Result<Value, StartFailure> {
    if let Some(denied) = spec.process.cap_add.iter().find(|capability| !is_ours_to_give(**capability)) {
        return Err(bad("capability", &format!("{denied}: this process has none of it to give")));
    }
    let mut process = match &spec.config {
        Some(config) => config.json().get("process").cloned().unwrap_or_default(),
        None => default_process(spec),
    };
    let asked = &spec.process;
    match &spec.config {
        Some(config) => {
            process["env"] = json!(pairs(&asked.env).collect::<Vec<_>>());
            if asked.user != config.user() {
                process["user"] = user_object(user);
            }
            change_capabilities(&mut process, asked);
        }
        None => {
            process["env"] = json!(environment(&asked.env, user));
            process["user"] = user_object(user);
        }
    }
    process["args"] = json!(asked.args);
    process["cwd"] = json!(asked.cwd);
    set_terminal(&mut process, asked.terminal);
    if asked.no_new_privileges {
        process["noNewPrivileges"] = json!(true);
    }
    if let Some(score) = asked.oom_score_adj {
        process["oomScoreAdj"] = json!(score);
    }
    for limit in &asked.ulimits {
        let limits = edit::list(&mut process, &["rlimits"])?;
        limits.retain(|other| other["type"] != limit.kind());
        limits.push(json!({"type": limit.kind(), "soft": limit.soft, "hard": limit.hard}));
    }
    Ok(process)
}

fn default_process(spec: &ContainerSpec) -> Value {
    let names: Vec<_> =
        capabilities(&spec.process, spec.security).iter().map(|capability| capability.name()).collect();
    json!({
        "capabilities": {
            "bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": [],
        },
        "noNewPrivileges": false,
    })
}

/// Of a configuration of the caller's.
fn change_capabilities(process: &mut Value, asked: &ProcessSpec) {
    if asked.cap_add.is_empty() && asked.cap_drop.is_empty() {
        return;
    }
    for set in ["bounding", "effective", "permitted"] {
        let before = process["capabilities"][set].as_array().cloned().unwrap_or_default();
        let mut names: BTreeSet<String> =
            before.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        names.extend(asked.cap_add.iter().map(|capability| capability.name().to_owned()));
        names.retain(|name| asked.cap_drop.iter().all(|dropped| dropped.name() != name));
        process["capabilities"][set] = json!(names);
    }
}

fn user_object(user: &User) -> Value {
    json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.groups})
}

fn set_terminal(process: &mut Value, terminal: Option<TerminalSize>) {
    process["terminal"] = json!(terminal.is_some());
    match terminal {
        Some(TerminalSize { rows, columns }) => {
            process["consoleSize"] = json!({"height": rows, "width": columns});
        }
        None => {
            process.as_object_mut().map(|process| process.remove("consoleSize"));
        }
    }
}

/// The `process` object of an exec: the one of its container's init, with what it asks for in its place.
pub(crate) fn exec(mut process: Value, init: &ProcessSpec, exec: &ExecSpec, user: Option<&User>) -> Value {
    process["args"] = json!(exec.args);
    if let Some(cwd) = &exec.cwd {
        process["cwd"] = json!(cwd);
    }
    let mut env: Vec<String> = process["env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if let Some(user) = user {
        process["user"] = user_object(user);
        // The home of init's user is not this one's, unless somebody has said so.
        if init.env.iter().all(|(key, _)| key != "HOME") {
            set_variable(&mut env, format!("HOME={}", home(user)));
        }
    }
    pairs(&exec.env).for_each(|entry| set_variable(&mut env, entry));
    process["env"] = json!(env);
    set_terminal(&mut process, exec.terminal);
    process
}

fn pairs(env: &[(String, String)]) -> impl Iterator<Item = String> {
    env.iter().map(|(key, value)| format!("{key}={value}"))
}

fn home(user: &User) -> &str {
    user.home.as_deref().unwrap_or(if user.uid == 0 { "/root" } else { "/" })
}

/// The last value of a name counts.
pub(crate) fn set_variable(env: &mut Vec<String>, entry: String) {
    let name = entry.split_inclusive('=').next().unwrap_or_default();
    env.retain(|other| !other.starts_with(name));
    env.push(entry);
}

/// Defaults first, so that what is asked for replaces them.
fn environment(env: &[(String, String)], user: &User) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let defaults = [DEFAULT_PATH.to_owned(), format!("HOME={}", home(user))];
    defaults.into_iter().chain(pairs(env)).for_each(|entry| set_variable(&mut all, entry));
    all
}

/// All but that of the network, which comes with it.
fn namespaces(mode: ProcessMode) -> Vec<Value> {
    let pid = (mode == ProcessMode::Sandbox).then_some("pid");
    ["ipc", "uts", "mount", "cgroup"].into_iter().chain(pid).map(|kind| json!({"type": kind})).collect()
}

fn default_mounts(spec: &ContainerSpec) -> Vec<Value> {
    let writable = spec.security == Security::Insecure;
    let mounts = MOUNTS.into_iter().map(|(destination, source, kind, options)| {
        if destination == "/proc" && spec.process_mode == ProcessMode::NoSandbox {
            return mounts::mount(Path::new(destination), "bind", Path::new("/proc"), &["rbind"]);
        }
        let options: Vec<_> = options.iter().copied().filter(|option| !writable || *option != "ro").collect();
        mounts::mount(Path::new(destination), kind, Path::new(source), &options)
    });
    mounts.collect()
}

/// The host's devices, as they are in its `/dev`, but for those of terminals, which are each container's own.
fn host_devices() -> Value {
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
                (true, _) => "c",
                (_, true) => "b",
                (false, false) => continue,
            };
            if ["/dev/console", "/dev/ptmx", "/dev/tty"].iter().any(|own| path == Path::new(own)) {
                continue;
            }
            devices.push(json!({
                "path": path,
                "type": kind,
                "major": rustix::fs::major(meta.rdev()),
                "minor": rustix::fs::minor(meta.rdev()),
                "fileMode": meta.mode() & 0o7777,
                "uid": meta.uid(),
                "gid": meta.gid(),
            }));
        }
    }
    devices.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_core::{CgroupParent, Mount as Bind, Resources, Seccomp, Telemetry};

    fn config(change: impl FnOnce(&mut ContainerSpec)) -> Value {
        config_in(&NetworkNamespace::New, change)
    }

    fn config_in(network: &NetworkNamespace, change: impl FnOnce(&mut ContainerSpec)) -> Value {
        let mut spec = ContainerSpec::host(["sh", "-c", "true"]);
        change(&mut spec);
        spec.validate().unwrap();
        let user = User { uid: 0, gid: 0, groups: [0, 10].into(), home: Some("/root".into()) };
        let process = process(&spec, &user).unwrap();
        let id = ContainerId::new("c").unwrap();
        let rootfs = Made { root: "/b/rootfs".into(), seen: "/".into(), mounts: Vec::new(), is_kept: false };
        let ground = BundleContext {
            id: &id,
            spec: &spec,
            rootfs: &rootfs,
            files: Vec::new(),
            mounts: mounts::asked(None, &spec, spec.id_map.is_some()).unwrap(),
            cgroup: Some("/longshore/e/c"),
            network,
            map: spec.id_map.as_ref(),
            dir: Path::new("/b"),
        };
        Configuration::of(&ground, process).unwrap().whole().unwrap()
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
        let limits =
            Resources { memory: Some(64 << 20), cpus: Some(0.5), pids: Some(64), ..Resources::default() };
        let resources = config(|spec| spec.resources = limits)["linux"]["resources"].clone();
        assert_eq!(resources["memory"]["limit"], 64 << 20);
        assert_eq!(resources["cpu"], json!({"quota": 50_000, "period": 100_000}));
        assert_eq!(resources["pids"]["limit"], 64);
        let limits = Resources {
            memory: Some(64 << 20),
            memory_swap: Some(u64::MAX),
            cpu_quota: Some(20_000),
            cpu_period: Some(50_000),
            cpu_shares: Some(512),
            cpuset_cpus: Some("0".into()),
            cpuset_mems: Some("0".into()),
            ..Resources::default()
        };
        let resources = config(|spec| spec.resources = limits)["linux"]["resources"].clone();
        assert_eq!(resources["memory"], json!({"limit": 64 << 20, "swap": -1}));
        let cpu = json!({"quota": 20_000, "period": 50_000, "shares": 512, "cpus": "0", "mems": "0"});
        assert_eq!(resources["cpu"], cpu);
    }

    #[test]
    fn later_mounts_and_variables_replace_former_ones() {
        let bind = |source: &str| Bind::bind(source, "/dev/shm").read_only();
        let config = config(|spec| {
            spec.mounts = vec![bind("/etc"), bind("/usr")];
            spec.process.env =
                vec![("PATH".into(), "/x".into()), ("A".into(), "1".into()), ("A".into(), "2".into())];
        });
        let mounts = config["mounts"].as_array().unwrap();
        let shm: Vec<_> = mounts.iter().filter(|mount| mount["destination"] == "/dev/shm").collect();
        assert_eq!(shm.len(), 1);
        assert_eq!(shm[0]["source"], "/usr");
        assert_eq!(shm[0]["options"], json!(["rbind", "ro"]));
        assert_eq!(config["process"]["env"], json!(["HOME=/root", "PATH=/x", "A=2"]));
    }

    #[test]
    fn an_exec_starts_from_the_containers_settings() {
        let mut spec = ContainerSpec::host(["init"]);
        spec.process.env = vec![("A".into(), "1".into()), ("B".into(), "1".into())];
        spec.process.no_new_privileges = true;
        spec.process.terminal = Some(TerminalSize::default());
        let user = |uid, home: &str| User { uid, gid: uid, groups: [uid].into(), home: Some(home.into()) };
        let init = process(&spec, &user(1, "/one")).unwrap();
        let mut asked = ExecSpec::new(["ls"]);
        asked.env = vec![("B".into(), "2".into())];
        asked.cwd = Some("/tmp".into());
        let same = exec(init.clone(), &spec.process, &asked, None);
        assert_eq!(
            (&same["args"], &same["cwd"], &same["user"]),
            (&json!(["ls"]), &json!("/tmp"), &init["user"])
        );
        assert_eq!(same["env"], json!([DEFAULT_PATH, "HOME=/one", "A=1", "B=2"]));
        assert_eq!((&same["noNewPrivileges"], &same["terminal"]), (&json!(true), &json!(false)));
        assert_eq!(same["capabilities"], init["capabilities"]);
        let other = exec(init.clone(), &spec.process, &ExecSpec::new(["ls"]), Some(&user(2, "/two")));
        assert_eq!((&other["user"]["uid"], &other["cwd"]), (&json!(2), &json!("/")));
        assert!(other["env"].as_array().unwrap().contains(&json!("HOME=/two")));
    }

    /// What Longshore has no name for stays, and what was changed replaces what was there.
    #[test]
    fn a_configuration_of_the_callers_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = json!({
            "ociVersion": "1.2.0", "unknown": {"deep": [1, 2]}, "hostname": "theirs",
            "root": {"path": "rootfs"},
            "process": {
                "args": ["a"], "env": ["X=1"], "cwd": "/", "user": {"uid": 5, "gid": 6, "umask": 18},
                "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "ambient": ["CAP_KILL"]},
                "scheduler": {"policy": "SCHED_BATCH"}, "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}],
            },
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "x": true}],
            "linux": {"namespaces": [{"type": "mount"}, {"type": "network", "path": "/n"}], "intelRdt": {"closID": "c"},
                      "resources": {"unified": {"memory.high": "1"}, "memory": {"reservation": 5}}, "cgroupsPath": "/theirs",
                      "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}},
        });
        std::fs::write(dir.path().join("config.json"), theirs.to_string()).unwrap();
        let bundle = dir.path().to_owned();
        let plain = config(|spec| *spec = ContainerSpec::from_config(&bundle).unwrap());
        let mut expected = theirs.clone();
        expected["root"] = json!({"path": "/b/rootfs"});
        expected["linux"]["cgroupsPath"] = json!("/longshore/e/c");
        expected["process"]["terminal"] = json!(false);
        assert_eq!(plain, expected);

        let changed = config(|spec| {
            *spec = ContainerSpec::from_config(&bundle).unwrap();
            spec.hostname = Some("ours".into());
            spec.read_only = true;
            spec.process.user = Some("0:0".into());
            spec.process.cap_add = vec!["CHOWN".parse().unwrap()];
            spec.process.cap_drop = vec!["KILL".parse().unwrap()];
            spec.process.ulimits = vec!["core=2:3".parse().unwrap()];
            spec.mounts.push(Bind::bind("/etc", "/proc"));
            spec.resources.memory = Some(64 << 20);
            spec.network = executor_core::Network::Host;
            spec.seccomp = Seccomp::Unconfined;
        });
        assert_eq!((&changed["hostname"], &changed["root"]["readonly"]), (&json!("ours"), &json!(true)));
        assert_eq!(changed["process"]["user"], json!({"uid": 0, "gid": 0, "additionalGids": [0, 10]}));
        assert_eq!(changed["process"]["capabilities"]["bounding"], json!(["CAP_CHOWN"]));
        assert_eq!(changed["process"]["rlimits"], json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 3}]));
        assert_eq!(changed["process"]["scheduler"], theirs["process"]["scheduler"]);
        assert_eq!(changed["mounts"].as_array().map(Vec::len), Some(1));
        assert_eq!(changed["linux"]["resources"]["memory"], json!({"reservation": 5, "limit": 64 << 20}));
        assert_eq!(changed["linux"]["resources"]["unified"], theirs["linux"]["resources"]["unified"]);
        assert_eq!(changed["linux"].get("seccomp"), None);
    }

    #[test]
    fn a_user_namespace_has_its_ids_and_mounts_that_fit() {
        let mapped = |network: &NetworkNamespace, size| {
            let range = executor_core::IdRange { container: 0, host: 100_000, size };
            config_in(network, |spec| spec.id_map = Some(IdMap::both(vec![range])))
        };
        let own = mapped(&NetworkNamespace::New, 65_536);
        let ranges = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        assert_eq!((&own["linux"]["uidMappings"], &own["linux"]["gidMappings"]), (&ranges, &ranges));
        assert!(own["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "user"})));
        let at = |config: &Value, destination: &str| {
            config["mounts"]
                .as_array()
                .unwrap()
                .iter()
                .find(|mount| mount["destination"] == destination)
                .cloned()
        };
        assert_eq!(at(&own, "/sys").unwrap()["type"], "sysfs");
        // A network that is not its own may not be shown by a sysfs of its own.
        let shared = mapped(&NetworkNamespace::Host, 1);
        assert_eq!(at(&shared, "/sys").unwrap()["type"], "bind");
        assert_eq!(at(&shared, "/sys/fs/cgroup"), None);
        let pts = at(&shared, "/dev/pts").unwrap()["options"].as_array().unwrap().clone();
        assert!(!pts.contains(&json!("gid=5")), "the group 5 is not there");
    }

    #[test]
    fn labels_traces_and_cgroups_are_said() {
        let with = config(|spec| {
            spec.telemetry = Telemetry {
                socket: Some("/run/otlp.sock".into()),
                traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
                tracestate: Some("a=b".into()),
            };
            spec.process.env = vec![("OTEL_TRACES_EXPORTER".into(), "none".into())];
            spec.cgroup_parent = Some(CgroupParent::Path("/ci".into()));
        });
        let env = with["process"]["env"].as_array().unwrap();
        for entry in [
            "OTEL_TRACES_EXPORTER=none",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=unix:///dev/otlp.sock",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc",
            "TRACEPARENT=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "TRACESTATE=a=b",
        ] {
            assert!(env.contains(&json!(entry)), "{entry} in {env:?}");
        }
        let bound = json!({"destination": "/dev/otlp.sock", "type": "bind", "source": "/run/otlp.sock", "options": ["rbind", "rw"]});
        assert!(with["mounts"].as_array().unwrap().contains(&bound));
        let init = config(|spec| spec.init = true);
        assert_eq!(init["process"]["args"], json!(["/dev/longshore-init", "sh", "-c", "true"]));
    }
}
