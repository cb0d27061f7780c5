//! What others wait for while plugins of networks are slow, which should be nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use longshore::runtime::Cni;
use longshore::{Cancel, Executor, Network, Sandbox, ShutdownReport};
use serde_json::json;

use super::{GAP, pause, well};
use crate::Done;
use crate::figures::{Report, Times};
use crate::ground::Side;

/// Containers whose network is being set up, and for how many seconds.
const NETWORKS: usize = 8;
const SECONDS: u32 = 6;

/// A run, a release and a cancel with plugins under way, against the same without.
pub(crate) async fn slow(side: &Side, report: &mut Report) -> Done {
    let (executor, networked) = executor(side)?;
    let before = measure(side, &executor).await?;
    let mut slow = Vec::new();
    for _ in 0..NETWORKS {
        let mut spec = side.spec(&["true"]);
        spec.network = networked.clone();
        slow.push(executor.run(spec).await?);
    }
    let waiting = measure(side, &executor).await?;
    let still = slow.iter().all(|container| container.snapshot().pid.is_none());
    for container in slow {
        well(&container.wait().await)?;
    }
    let left = executor.shutdown(Cancel::now(), Duration::from_secs(60)).await;
    if !still || left != ShutdownReport::default() {
        return Err(
            format!("plugins were over before the measurement was, or something is left: {left:?}").into()
        );
    }
    let beside = format!("beside {NETWORKS} plugins of {SECONDS} s, and without them");
    report.compare(&format!("a run, {beside}"), &waiting.run, &before.run, "–");
    report.compare(&format!("a release, {beside}"), &waiting.release, &before.release, "–");
    report.compare(&format!("a cancel, {beside}"), &waiting.cancel, &before.cancel, "–");
    Ok(())
}

#[derive(Default)]
struct Measured {
    run: Times,
    release: Times,
    cancel: Times,
}

async fn measure(side: &Side, executor: &Executor) -> Done<Measured> {
    let mut times = Measured::default();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs((SECONDS / 2).into()) {
        let asked = Instant::now();
        let container = executor.run(side.spec(&["true"])).await?;
        well(&container.wait().await)?;
        times.run.push(asked.elapsed());
        let asked = Instant::now();
        container.released().await?;
        times.release.push(asked.elapsed());
        let container = executor.run(side.spec(&["sleep", "1000"])).await?;
        container.started().await?;
        pause(GAP / 4).await;
        let asked = Instant::now();
        container.cancel(Cancel::now()).await;
        times.cancel.push(asked.elapsed());
        container.released().await?;
    }
    Ok(times)
}

/// An executor, and a network whose plugin takes its time.
fn executor(side: &Side) -> Done<(Executor, Network)> {
    let (plugins, configs) = (side.path("plugins"), side.path("networks"));
    for dir in [&plugins, &configs] {
        fs::create_dir_all(dir)?;
    }
    let slow = format!(
        "#!/bin/sh\n[ \"$CNI_COMMAND\" != ADD ] || sleep {SECONDS}\necho '{{\"cniVersion\":\"1.0.0\",\"ips\":[]}}'\n"
    );
    for (name, script) in [("slow", slow.as_str()), ("loopback", "#!/bin/sh\necho '{}'\n")] {
        let file = plugins.join(name);
        fs::write(&file, script)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    let network = json!({"cniVersion": "1.0.0", "name": "slow", "plugins": [{"type": "slow"}]});
    fs::write(configs.join("10-slow.conflist"), network.to_string())?;
    let cni = Cni::default().configs(configs).plugins([plugins]);
    let runc = longshore::runc_with(Sandbox::cni(cni)).runtime(side.name).build()?;
    let executor = Executor::builder(runc).root(side.path("with-plugins")).build()?;
    Ok((executor, Network::Cni { name: Some("slow".into()) }))
}
