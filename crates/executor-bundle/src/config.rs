//! The `config.json` of a container. [`defaults`] writes ours, unless the caller brings a configuration. [`edit`] adds the
//! container's specification to either.
//!
//! All of it is JSON, not a library's types: no default of a library gets in, and unknown fields of a caller's
//! configuration stay.

#[cfg(feature = "cdi")]
mod cdi;
mod cgroup;
mod defaults;
pub(crate) mod devices;
mod edit;
pub(crate) mod host;
mod kernel;
pub(crate) mod labels;
mod seccomp;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::context::BundleContext;
use crate::error::Error;
use seccomp::Filter;

/// The whole of `config.json`.
pub(crate) struct Configuration {
    /// Everything but our seccomp filter.
    pub(crate) json: Value,
    /// Our seccomp filter, if it is not the caller's. It is text already: it makes up nine tenths of the file, and is the
    /// same for most containers.
    filter: Option<Filter>,
}

impl Configuration {
    pub(crate) fn of(context: &BundleContext<'_>, process: Value) -> Result<Self, Error> {
        let mut json = match &context.spec.config {
            Some(config) => config.json().clone(),
            None => defaults::config(context)?,
        };
        json["process"] = process;
        let filter = edit::all(&mut json, context)?;
        host::check(&json, context.spec)?;
        Ok(Self { json, filter })
    }

    /// The contents of `config.json`.
    pub(crate) fn text(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(|source| Error::Json { op: "write", source })
    }

    /// The same, indented.
    pub(crate) fn pretty(self) -> Result<String, Error> {
        let text = self.whole().and_then(|config| serde_json::to_string_pretty(&config));
        text.map_err(|source| Error::Json { op: "write", source })
    }

    /// The same as one JSON value, with the filter in its place.
    fn whole(mut self) -> serde_json::Result<Value> {
        if let Some(filter) = &self.filter {
            self.json["linux"]["seccomp"] = serde_json::from_str(filter.get())?;
        }
        Ok(self.json)
    }
}

/// Writes the same as `whole`. The filter's text is copied, not parsed.
impl Serialize for Configuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// The object `linux` with the filter in it.
        struct LinuxWithFilter<'a>(&'a Map<String, Value>, &'a RawValue);
        impl Serialize for LinuxWithFilter<'_> {
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
                Some(linux) => map.serialize_entry(key, &LinuxWithFilter(linux, filter))?,
                None => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities;
    use crate::mounts;
    use crate::process::users::User;
    use crate::process::{self};
    use crate::rootfs::BundleRootfs;
    use executor_core::lifecycle::ContainerId;
    use executor_core::{
        Capability, CgroupParent, ContainerSpec, IdMap, Mount as Bind, NetworkNamespace, Resources, Seccomp,
        Security, Telemetry,
    };
    use serde_json::json;
    use std::path::Path;

    fn config(change: impl FnOnce(&mut ContainerSpec)) -> Value {
        config_in(&NetworkNamespace::New, change)
    }

    fn config_in(network: &NetworkNamespace, change: impl FnOnce(&mut ContainerSpec)) -> Value {
        let mut spec = ContainerSpec::host(["sh", "-c", "true"]);
        change(&mut spec);
        spec.validate().unwrap();
        let user = User { uid: 0, gid: 0, groups: [0, 10].into(), home: Some("/root".into()) };
        let capabilities = capabilities::of(&spec.process, spec.security).unwrap();
        let process = process::init(&spec, &user, &capabilities).unwrap();
        let id = ContainerId::new("c").unwrap();
        let rootfs = BundleRootfs {
            root: "/b/rootfs".into(),
            seen: "/".into(),
            mounts: Vec::new(),
            is_kept: false,
            is_complete: true,
        };
        let mounts = mounts::requested(None, &spec, &crate::ids::Ids::of(&spec)).unwrap().entries;
        let context = BundleContext {
            id: &id,
            spec: &spec,
            rootfs: &rootfs,
            files: &[],
            mounts: &mounts,
            capabilities: &capabilities,
            cgroup: Some("/longshore/e/c"),
            network,
            map: spec.id_map.as_ref(),
            dir: Path::new("/b"),
        };
        Configuration::of(&context, process).unwrap().whole().unwrap()
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
        let devices = json!([{"allow": false, "access": "rwm"}]);
        assert_eq!(config["linux"]["resources"], json!({"devices": devices, "pids": {"limit": 4096}}));
        let mounts = config["mounts"].as_array().unwrap();
        assert!(mounts.iter().all(|mount| mount["destination"] != "/run"), "there is no /run mount");
        assert_eq!(mounts.len(), defaults::MOUNTS.len());
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
        let known = Capability::all().filter(|capability| capability.can_be_given()).count();
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
        let limits = Resources::default().memory(64 << 20).cpus(0.5).pids(64);
        let resources = config(|spec| spec.resources = limits)["linux"]["resources"].clone();
        assert_eq!(resources["memory"]["limit"], 64 << 20);
        assert_eq!(resources["cpu"], json!({"quota": 50_000, "period": 100_000}));
        assert_eq!(resources["pids"]["limit"], 64);
        let limits = Resources::default()
            .memory(64 << 20)
            .memory_swap(u64::MAX)
            .cpu_quota(20_000)
            .cpu_period(50_000)
            .cpu_shares(512)
            .cpuset_cpus("0")
            .cpuset_mems("0");
        let resources = config(|spec| spec.resources = limits)["linux"]["resources"].clone();
        assert_eq!(resources["memory"], json!({"limit": 64 << 20, "swap": -1}));
        let cpu = json!({"quota": 20_000, "period": 50_000, "shares": 512, "cpus": "0", "mems": "0"});
        assert_eq!(resources["cpu"], cpu);
        let resources = config(|spec| spec.resources.pids = Some(u64::MAX))["linux"]["resources"].clone();
        assert_eq!(resources.get("pids"), None);
    }

    #[test]
    fn parameters_of_the_kernel_shared_memory_and_labels() {
        let with = |spec: ContainerSpec| {
            spec.sysctl("net.core.somaxconn", "7").shm_size(1 << 20).label("run.oci.handler", "x")
        };
        let config = config(|spec| *spec = with(spec.clone()));
        assert_eq!(config["linux"]["sysctl"], json!({"net.core.somaxconn": "7"}));
        let annotations = json!({"io.longshore.container": "c", "io.longshore.label.run.oci.handler": "x"});
        assert_eq!(config["annotations"], annotations, "a runtime takes no order from a label");
        let mounts = config["mounts"].as_array().unwrap();
        let shm = mounts.iter().find(|mount| mount["destination"] == "/dev/shm").unwrap();
        assert_eq!(shm["options"], json!(["nosuid", "noexec", "nodev", "mode=1777", "size=1048576"]));
    }

    #[test]
    fn later_mounts_and_variables_replace_former_ones() {
        let bind = |source: &str| Bind::bind(source, "/dev/shm").read_only();
        let config = config(|spec| {
            spec.mounts = vec![bind("/usr")];
            spec.process.env =
                vec![("PATH".into(), "/x".into()), ("A".into(), "1".into()), ("A".into(), "2".into())];
        });
        let mounts = config["mounts"].as_array().unwrap();
        let shm: Vec<_> = mounts.iter().filter(|mount| mount["destination"] == "/dev/shm").collect();
        assert_eq!(shm.len(), 1);
        assert_eq!(shm[0]["source"], "/usr");
        assert_eq!(shm[0]["options"], json!(["rbind", "ro", "rro"]));
        assert_eq!(config["process"]["env"], json!(["HOME=/root", "PATH=/x", "A=2"]));
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
            "mounts": [{"destination": "/d", "type": "mqueue", "source": "mqueue", "x": true}],
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"},
                                     {"type": "network", "path": "/n"}],
                      "intelRdt": {"closID": "c"},
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
            spec.mounts.push(Bind::bind("/etc", "/d"));
            spec.resources.memory = Some(64 << 20);
            spec.network = executor_core::Network::Host;
            spec.seccomp = Some(Seccomp::Unconfined);
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
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("otlp.sock");
        let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let with = config(|spec| {
            spec.telemetry = Telemetry {
                socket: Some(socket.clone()),
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
        let bound = json!({"destination": "/dev/otlp.sock", "type": "bind", "source": socket, "options": ["bind", "nosuid", "nodev", "noexec", "rw"]});
        assert!(with["mounts"].as_array().unwrap().contains(&bound));
        let init = config(|spec| spec.init = true);
        assert_eq!(init["process"]["args"], json!(["/dev/longshore-init", "sh", "-c", "true"]));
    }
}
