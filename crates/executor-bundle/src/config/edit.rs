//! Adds a container's specification to a configuration, ours or the caller's. Fields that are unknown here stay as they are.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use executor_core::{IdRange, NetworkNamespace, Resources, Seccomp, Security};
use serde_json::{Value, json};

use super::seccomp::{self, Filter};
use super::{cgroup, devices, kernel, labels};
use crate::context::BundleContext;
use crate::error::Error;
use crate::json::{list, object};
use crate::mount_entry::{self, bind_own};
use crate::{ids, init};

/// The path in the container of the socket that traces are sent to.
const OTLP: &str = "/dev/otlp.sock";

/// Adds everything but `process`, which is in its place already. Returns our seccomp filter instead of adding it; `None`
/// if the container has none, or the caller's.
pub(crate) fn all(config: &mut Value, context: &BundleContext<'_>) -> Result<Option<Filter>, Error> {
    let spec = context.spec;
    object(config, &["root"])?.insert("path".into(), json!(context.rootfs.root));
    if spec.read_only || spec.config.is_none() {
        object(config, &["root"])?.insert("readonly".into(), json!(spec.read_only));
    }
    if let Some(hostname) = &spec.hostname {
        config["hostname"] = json!(hostname);
    }
    cgroup(config, context)?;
    limits(config, context)?;
    let filter = filter(config, context)?;
    network(config, context)?;
    labels::add(config, context)?;
    kernel::add(config, spec)?;
    // Before the mounts of the specification are added.
    kernel::shm_size(config, spec)?;
    all_mounts(config, context)?;
    telemetry(config, context)?;
    devices::add(config, &spec.devices, context.map)?;
    // This comes last, because it changes the mounts that the others have added.
    user_namespace(config, context)?;
    if spec.init {
        init::add(config, context.dir)?;
    }
    Ok(filter)
}

/// We decide where the container's cgroup is, also with a configuration of the caller's.
fn cgroup(config: &mut Value, context: &BundleContext<'_>) -> Result<(), Error> {
    let linux = object(config, &["linux"])?;
    match context.cgroup {
        Some(cgroup) => {
            linux.insert("cgroupsPath".into(), json!(cgroup));
        }
        None => {
            linux.remove("cgroupsPath");
            // Device rules need a cgroup. Without one, the user's own permissions apply.
            linux.remove("resources");
        }
    }
    Ok(())
}

fn limits(config: &mut Value, context: &BundleContext<'_>) -> Result<(), Error> {
    let limits = &context.spec.resources;
    let mut set = |part: &str, field: &str, value: Option<Value>| -> Result<(), Error> {
        if let Some(value) = value {
            object(config, &["linux", "resources", part])?.insert(field.to_owned(), value);
        }
        Ok(())
    };
    set("memory", "limit", limits.memory.map(Value::from))?;
    let or_none = |limit: u64| if limit == u64::MAX { json!(-1) } else { json!(limit) };
    set("memory", "swap", limits.memory_swap.map(or_none))?;
    let (quota, period) = limits.cpu_time();
    set("cpu", "quota", quota.map(Value::from))?;
    set("cpu", "period", period.map(Value::from))?;
    set("cpu", "shares", limits.cpu_shares.map(Value::from))?;
    set("cpu", "cpus", limits.cpuset_cpus.clone().map(Value::from))?;
    set("cpu", "mems", limits.cpuset_mems.clone().map(Value::from))?;
    let pids = limits.pids.or_else(|| default_pids(context));
    set("pids", "limit", pids.filter(|pids| *pids != u64::MAX).map(Value::from))?;
    if pids == Some(u64::MAX) {
        // runc takes -1, crun does not. A new cgroup has no limit.
        object(config, &["linux", "resources"])?.remove("pids");
    }
    Ok(())
}

/// A configuration of the caller's has the limit that is in it. Without the controller there can be no limit, and the
/// runtime would fail to set one.
fn default_pids(context: &BundleContext<'_>) -> Option<u64> {
    let cgroup = context.cgroup.filter(|_| context.spec.config.is_none())?;
    cgroup::has_pids(Path::new(cgroup::MOUNT_POINT), cgroup).then_some(Resources::DEFAULT_PIDS)
}

/// What the specification asks for. Otherwise an insecure container has no filter, and a configuration of the caller's keeps
/// its own.
fn filter(config: &mut Value, context: &BundleContext<'_>) -> Result<Option<Filter>, Error> {
    let spec = context.spec;
    let seccomp = match (&spec.seccomp, spec.security) {
        (Some(asked), _) => asked,
        (None, Security::Insecure) => &Seccomp::Unconfined,
        (None, Security::Sandbox) if spec.config.is_some() => return Ok(None),
        (None, Security::Sandbox) => &Seccomp::Default,
    };
    object(config, &["linux"])?.remove("seccomp");
    seccomp::filter(seccomp, context.capabilities, *context.network == NetworkNamespace::Host)
}

/// A configuration of the caller's keeps its network namespace if no provider has made one and the container is not in the
/// host's.
fn network(config: &mut Value, context: &BundleContext<'_>) -> Result<(), Error> {
    if context.spec.config.is_some() && *context.network == NetworkNamespace::New {
        return Ok(());
    }
    let namespaces = list(config, &["linux", "namespaces"])?;
    namespaces.retain(|namespace| namespace["type"] != "network");
    match context.network {
        NetworkNamespace::Host => {}
        NetworkNamespace::New => namespaces.push(json!({"type": "network"})),
        NetworkNamespace::At(path) => namespaces.push(json!({"type": "network", "path": path})),
    }
    Ok(())
}

/// A later mount replaces an earlier one with the same destination.
fn all_mounts(config: &mut Value, context: &BundleContext<'_>) -> Result<(), Error> {
    let is_ours = context.spec.config.is_none();
    let mounts = list(config, &["mounts"])?;
    let mut configured = std::mem::take(mounts);
    // Of a bind mount over /dev or /sys, the container gets what is there, and nothing of ours in it.
    configured.retain(|mount| !is_ours || !context.mounts.iter().any(|over| binds_above(over, mount)));
    // Those of a configuration of the caller's are made in the order that they have there.
    mounts.extend(context.rootfs.mounts.iter().cloned());
    for mount in configured {
        let point = mount_entry::destination(&mount);
        mounts.retain(|other| mount_entry::destination(other) != point);
        mounts.push(mount);
    }
    for (source, destination) in context.files {
        mount_entry::put(mounts, bind_own(source, destination, &["noexec", "ro"]));
    }
    for mount in context.mounts.iter().cloned() {
        mount_entry::put(mounts, mount);
    }
    Ok(())
}

/// Whether a bind mount has the destination of another mount below its own.
fn binds_above(bind: &Value, mount: &Value) -> bool {
    let (above, point) = (mount_entry::destination(bind), mount_entry::destination(mount));
    bind["type"] == "bind" && above != point && point.starts_with(above)
}

/// A variable that the specification sets itself keeps its value.
fn telemetry(config: &mut Value, context: &BundleContext<'_>) -> Result<(), Error> {
    let telemetry = &context.spec.telemetry;
    let mut variables = Vec::new();
    if let Some(socket) = &telemetry.socket {
        let meta = fs::metadata(socket).map_err(Error::file("telemetry", socket))?;
        if !meta.file_type().is_socket() {
            return Err(Error::field("telemetry", format!("{} is not a socket", socket.display())));
        }
        mount_entry::put(list(config, &["mounts"])?, bind_own(socket, Path::new(OTLP), &["noexec", "rw"]));
        variables.extend([
            ("OTEL_TRACES_EXPORTER", "otlp".to_owned()),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("unix://{OTLP}")),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc".to_owned()),
        ]);
    }
    variables.extend(telemetry.traceparent.clone().map(|parent| ("TRACEPARENT", parent)));
    variables.extend(telemetry.tracestate.clone().map(|state| ("TRACESTATE", state)));
    let is_set = |name: &str| context.spec.process.env.iter().any(|(key, _)| key == name);
    let env = list(config, &["process", "env"])?;
    for (name, value) in variables {
        if !is_set(name) {
            env.push(json!(format!("{name}={value}")));
        }
    }
    Ok(())
}

fn user_namespace(config: &mut Value, context: &BundleContext<'_>) -> Result<(), Error> {
    let Some(map) = context.map else { return Ok(()) };
    let linux = object(config, &["linux"])?;
    linux.insert("uidMappings".into(), mappings(&map.uids));
    linux.insert("gidMappings".into(), mappings(&map.gids));
    let namespaces = list(config, &["linux", "namespaces"])?;
    namespaces.retain(|namespace| namespace["type"] != "user");
    namespaces.push(json!({"type": "user"}));
    let own_network =
        namespaces.iter().any(|namespace| namespace["type"] == "network" && namespace.get("path").is_none());
    if let Some(user) = object(config, &["process", "user"])?.get_mut("additionalGids")
        && ids::rootless()
        && user.as_array().is_some_and(Vec::is_empty)
    {
        *user = Value::Null;
    }
    for mount in list(config, &["mounts"])? {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| {
                let group = option.as_str().and_then(|option| option.strip_prefix("gid=")?.parse().ok());
                group.is_none_or(|group| map.host_gid(group).is_some())
            });
        }
        // The kernel lets only the owner of the network namespace mount a sysfs. Others get the host's, read-only.
        if !own_network && mount["type"] == "sysfs" {
            let destination = mount["destination"].as_str().unwrap_or("/sys").to_owned();
            let options = ["rbind", "nosuid", "noexec", "nodev", "rro"];
            *mount = mount_entry::mount(Path::new(&destination), "bind", Path::new("/sys"), &options);
        }
    }
    if !own_network {
        list(config, &["mounts"])?.retain(|mount| mount["type"] != "cgroup");
    }
    Ok(())
}

fn mappings(ranges: &[IdRange]) -> Value {
    let mapping =
        |range: &IdRange| json!({"containerID": range.container, "hostID": range.host, "size": range.size});
    ranges.iter().map(mapping).collect()
}
