//! What a specification adds to a configuration, ours or the caller's, as JSON: fields that are
//! unknown here stay as they are.

use std::path::Path;

use executor_core::{IdRange, NetworkNamespace, Resources, Seccomp, Security};
use serde_json::{Value, json};

#[cfg(feature = "cdi")]
use super::cdi;
use super::labels;
use super::seccomp::{self, Filter};
use crate::context::BundleContext;
use crate::error::Error;
use crate::json::{list, object};
use crate::mount_entry::{self, bind};
use crate::{ids, init};

/// Where the container finds the socket that traces go to.
const OTLP: &str = "/dev/otlp.sock";

/// All of it. `process` is in its place already; the filter, where it is ours, is not put there.
pub(crate) fn all(config: &mut Value, context: &BundleContext<'_>) -> Result<Option<Filter>, Error> {
    let spec = context.spec;
    object(config, &["root"])?.insert("path".into(), json!(context.rootfs.root));
    if spec.read_only || spec.config.is_none() {
        object(config, &["root"])?.insert("readonly".into(), json!(spec.read_only));
    }
    if let Some(hostname) = &spec.hostname {
        config["hostname"] = json!(hostname);
    }
    place(config, context)?;
    limits(config, &spec.resources)?;
    let filter = filter(config, context)?;
    network(config, context)?;
    labels::add(config, context)?;
    all_mounts(config, context)?;
    telemetry(config, context)?;
    #[cfg(feature = "cdi")]
    cdi::add(config, &spec.devices)?;
    #[cfg(not(feature = "cdi"))]
    if let Some(device) = spec.devices.first() {
        return Err(Error::field("device", format!("{device}: built without the feature cdi")));
    }
    // Last: in the end it counts what there is.
    user_namespace(config, context)?;
    if spec.init {
        init::add(config, context.dir)?;
    }
    Ok(filter)
}

/// Its place among the cgroups is ours alone to say.
fn place(config: &mut Value, context: &BundleContext<'_>) -> Result<(), Error> {
    let linux = object(config, &["linux"])?;
    match context.cgroup {
        Some(cgroup) => {
            linux.insert("cgroupsPath".into(), json!(cgroup));
        }
        None => {
            linux.remove("cgroupsPath");
            // Rules for devices need a cgroup; without one a user's own rights are all there are.
            linux.remove("resources");
        }
    }
    Ok(())
}

fn limits(config: &mut Value, limits: &Resources) -> Result<(), Error> {
    let mut set = |part: &str, field: &str, value: Option<Value>| {
        value.map_or(Ok(()), |value| {
            object(config, &["linux", "resources", part])
                .map(|part| drop(part.insert(field.to_owned(), value)))
        })
    };
    set("memory", "limit", limits.memory.map(Value::from))?;
    let swap = limits.memory_swap.map(|bytes| if bytes == u64::MAX { json!(-1) } else { json!(bytes) });
    set("memory", "swap", swap)?;
    #[expect(clippy::cast_possible_truncation, reason = "validated: 0.01 to 100,000 CPUs")]
    #[expect(clippy::cast_precision_loss, reason = "the period is a small number")]
    let of_cpus = limits.cpus.map(|cpus| json!((cpus * Resources::CPU_PERIOD as f64).round() as i64));
    let period = limits.cpu_period.or(limits.cpus.map(|_| Resources::CPU_PERIOD));
    set("cpu", "quota", of_cpus.or(limits.cpu_quota.map(Value::from)))?;
    set("cpu", "period", period.map(Value::from))?;
    set("cpu", "shares", limits.cpu_shares.map(Value::from))?;
    set("cpu", "cpus", limits.cpuset_cpus.clone().map(Value::from))?;
    set("cpu", "mems", limits.cpuset_mems.clone().map(Value::from))?;
    set("pids", "limit", limits.pids.map(Value::from))
}

/// A configuration of the caller's has its own filter, unless another is asked for.
fn filter(config: &mut Value, context: &BundleContext<'_>) -> Result<Option<Filter>, Error> {
    let spec = context.spec;
    let insecure = spec.security == Security::Insecure;
    let seccomp = if insecure { &Seccomp::Unconfined } else { &spec.seccomp };
    if spec.config.is_some() && *seccomp == Seccomp::Default {
        return Ok(None);
    }
    object(config, &["linux"])?.remove("seccomp");
    seccomp::filter(seccomp, context.capabilities)
}

/// A configuration of the caller's keeps the network it describes where the specification's adds nothing to it: where
/// no provider has made one, and the container is not in the host's.
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

/// What the root file system needs, what was there, our files, and at last what is asked for.
fn all_mounts(config: &mut Value, context: &BundleContext<'_>) -> Result<(), Error> {
    let mounts = list(config, &["mounts"])?;
    let before = std::mem::take(mounts);
    let files = context.files.iter().map(|(source, place)| bind(source, place, "ro"));
    let rest = before.into_iter().chain(files).chain(context.mounts.iter().cloned());
    context.rootfs.mounts.iter().cloned().chain(rest).for_each(|mount| mount_entry::put(mounts, mount));
    Ok(())
}

/// What a process has set of its own stays.
fn telemetry(config: &mut Value, context: &BundleContext<'_>) -> Result<(), Error> {
    let telemetry = &context.spec.telemetry;
    let mut variables = Vec::new();
    if let Some(socket) = &telemetry.socket {
        mount_entry::put(list(config, &["mounts"])?, bind(socket, Path::new(OTLP), "rw"));
        variables.extend([
            ("OTEL_TRACES_EXPORTER", "otlp".to_owned()),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("unix://{OTLP}")),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc".to_owned()),
        ]);
    }
    variables.extend(telemetry.traceparent.clone().map(|parent| ("TRACEPARENT", parent)));
    variables.extend(telemetry.tracestate.clone().map(|state| ("TRACESTATE", state)));
    let own = |name: &str| context.spec.process.env.iter().any(|(key, _)| key == name);
    let env = list(config, &["process", "env"])?;
    env.extend(
        variables
            .into_iter()
            .filter(|(name, _)| !own(name))
            .map(|(name, value)| json!(format!("{name}={value}"))),
    );
    Ok(())
}

fn user_namespace(config: &mut Value, context: &BundleContext<'_>) -> Result<(), Error> {
    let Some(map) = context.map else { return Ok(()) };
    let ranges = |ranges: &[IdRange]| -> Value {
        let range = |range: &IdRange| json!({"containerID": range.container, "hostID": range.host, "size": range.size});
        ranges.iter().map(range).collect()
    };
    let linux = object(config, &["linux"])?;
    linux.insert("uidMappings".into(), ranges(&map.uids));
    linux.insert("gidMappings".into(), ranges(&map.gids));
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
        // Who does not own the network may not mount a view of it, and is shown the host's.
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
