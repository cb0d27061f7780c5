//! What a specification adds to a configuration, ours or the caller's, as JSON: every field that nobody here knows
//! stays as it is.

use std::path::Path;

use executor_core::lifecycle::StartFailure;
use executor_core::{IdRange, Network, NetworkNamespace, Resources, Seccomp, Security};
use serde_json::{Value, json};

#[cfg(feature = "cdi")]
use super::cdi;
use super::labels;
use super::seccomp::{self, Filter};
use crate::context::BundleContext;
#[cfg(not(feature = "cdi"))]
use crate::error::bad;
use crate::json::{list, object};
use crate::mount_entry::{self, bind};
use crate::{capabilities, init};

/// Where the container finds the socket that traces go to.
const OTLP: &str = "/dev/otlp.sock";

/// All of it. `process` is in its place already; the filter, where it is ours, is not put there.
pub(crate) fn all(config: &mut Value, ground: &BundleContext<'_>) -> Result<Option<Filter>, StartFailure> {
    let spec = ground.spec;
    object(config, &["root"])?.insert("path".into(), json!(ground.rootfs.root));
    if spec.read_only || spec.config.is_none() {
        object(config, &["root"])?.insert("readonly".into(), json!(spec.read_only));
    }
    if let Some(hostname) = &spec.hostname {
        config["hostname"] = json!(hostname);
    }
    place(config, ground)?;
    limits(config, &spec.resources)?;
    let filter = filter(config, ground)?;
    network(config, ground)?;
    labels::add(config, ground)?;
    all_mounts(config, ground)?;
    telemetry(config, ground)?;
    #[cfg(feature = "cdi")]
    cdi::add(config, &spec.devices)?;
    #[cfg(not(feature = "cdi"))]
    if let Some(device) = spec.devices.first() {
        return Err(bad("device", &format!("{device}: built without the feature cdi")));
    }
    // Last: in the end it counts what there is.
    user_namespace(config, ground)?;
    if spec.init {
        init::add(config, ground.dir)?;
    }
    Ok(filter)
}

/// Its place among the cgroups is ours alone to say.
fn place(config: &mut Value, ground: &BundleContext<'_>) -> Result<(), StartFailure> {
    let linux = object(config, &["linux"])?;
    match ground.cgroup {
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

fn limits(config: &mut Value, limits: &Resources) -> Result<(), StartFailure> {
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
fn filter(config: &mut Value, ground: &BundleContext<'_>) -> Result<Option<Filter>, StartFailure> {
    let spec = ground.spec;
    let insecure = spec.security == Security::Insecure;
    let seccomp = if insecure { &Seccomp::Unconfined } else { &spec.seccomp };
    if spec.config.is_some() && *seccomp == Seccomp::Default {
        return Ok(None);
    }
    object(config, &["linux"])?.remove("seccomp");
    seccomp::filter(seccomp, &capabilities::of(&spec.process, spec.security))
}

/// A configuration of the caller's has its own network, unless another than none is asked for.
fn network(config: &mut Value, ground: &BundleContext<'_>) -> Result<(), StartFailure> {
    if ground.spec.config.is_some() && ground.spec.network == Network::None {
        return Ok(());
    }
    let namespaces = list(config, &["linux", "namespaces"])?;
    namespaces.retain(|namespace| namespace["type"] != "network");
    match ground.network {
        NetworkNamespace::Host => {}
        NetworkNamespace::New => namespaces.push(json!({"type": "network"})),
        NetworkNamespace::At(path) => namespaces.push(json!({"type": "network", "path": path})),
    }
    Ok(())
}

/// What the root file system needs, what was there, our files, and at last what is asked for.
fn all_mounts(config: &mut Value, ground: &BundleContext<'_>) -> Result<(), StartFailure> {
    let mounts = list(config, &["mounts"])?;
    let before = std::mem::take(mounts);
    let files = ground.files.iter().map(|(source, place)| bind(source, place, "ro"));
    let rest = before.into_iter().chain(files).chain(ground.mounts.iter().cloned());
    ground.rootfs.mounts.iter().cloned().chain(rest).for_each(|mount| mount_entry::put(mounts, mount));
    Ok(())
}

/// What a process has set of its own stays.
fn telemetry(config: &mut Value, ground: &BundleContext<'_>) -> Result<(), StartFailure> {
    let telemetry = &ground.spec.telemetry;
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
    let own = |name: &str| ground.spec.process.env.iter().any(|(key, _)| key == name);
    let env = list(config, &["process", "env"])?;
    env.extend(
        variables
            .into_iter()
            .filter(|(name, _)| !own(name))
            .map(|(name, value)| json!(format!("{name}={value}"))),
    );
    Ok(())
}

fn user_namespace(config: &mut Value, ground: &BundleContext<'_>) -> Result<(), StartFailure> {
    let Some(map) = ground.map else { return Ok(()) };
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
        && crate::ids::rootless()
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
