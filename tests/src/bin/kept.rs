//! An embedder that is kept: it takes up what another one has left, writes every event that it has not seen yet into a file, runs
//! containers that end with the code in their id, and waits to be killed. When its input ends, it drains and shuts down.
//!
//! Arguments: the root, the file, a seed, how many containers to keep up.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use longshore::{Cancel, ContainerSpec, Event, EventKind, ExecSpec, Executor, Notice, Survival};
use longshore_tests::HUNG;
use tokio::time::sleep;

type Done = Result<(), Box<dyn std::error::Error>>;

fn main() -> Done {
    let mut args = std::env::args().skip(1);
    let (Some(root), Some(file), Some(seed), Some(count)) =
        (args.next(), args.next(), args.next(), args.next())
    else {
        return Err("root, file, seed, count".into());
    };
    longshore_tests::runtime().block_on(embed(
        Path::new(&root),
        Path::new(&file),
        seed.parse()?,
        count.parse()?,
    ))
}

async fn embed(root: &Path, file: &Path, seed: u64, count: usize) -> Done {
    let runtime = longshore_tests::runtime_under_test(longshore::runc()).build()?;
    let executor = Executor::builder(runtime).root(root).survival(Survival::keep("tests")).build()?;
    if let [unadopted, ..] = executor.unadopted() {
        return Err(format!("not taken up: {unadopted}").into());
    }
    let adopted = executor.adopted().await?;
    println!("{} adopted", adopted.len());
    let observed = tokio::spawn(observe(executor.clone(), file.to_owned()));
    let stopping = Arc::new(AtomicBool::new(false));
    let lives: Vec<_> = (0..count)
        .map(|life| {
            let (executor, stopping) = (executor.clone(), Arc::clone(&stopping));
            let (rng, longer) =
                (Rng::with_seed(seed.wrapping_add(life as u64)), (count as f64 / 8.0).max(1.0));
            tokio::spawn(live(executor, stopping, rng, longer))
        })
        .collect();
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    stopping.store(true, Ordering::Relaxed);
    for life in lives {
        life.await?;
    }
    for container in executor.list().await? {
        if let Ok(container) = executor.get(&container.container).await {
            drop(container.resume().await);
        }
    }
    tokio::time::timeout(HUNG, executor.drain()).await??;
    let report = executor.shutdown(Cancel::now(), HUNG).await;
    observed.await??;
    if report != longshore::ShutdownReport::default() {
        return Err(format!("{report:?}").into());
    }
    println!("nothing left");
    Ok(())
}

/// One container after another, with execs, until it is to stop.
/// With many lives, each container lives longer, so that many are up.
async fn live(executor: Executor, stopping: Arc<AtomicBool>, mut rng: Rng, longer: f64) {
    while !stopping.load(Ordering::Relaxed) {
        let code = rng.u8(1..200);
        let (id, time) =
            (format!("c{:08x}-{code}", rng.u32(..)), f64::from(rng.u32(0..700)) * longer / 1000.0);
        let script = format!("sleep {time:.3}; exit {code}");
        let spec = ContainerSpec::host(["sh", "-c", &script]);
        let Ok(id) = id.parse() else { return };
        let Ok(container) = executor.run(spec.id(id).label("code", code.to_string())).await else { return };
        if rng.bool() && container.started().await.is_ok() {
            let code = rng.u8(1..200);
            let time = f64::from(rng.u32(0..300)) * longer / 1000.0;
            let exec = ExecSpec::new(["sh", "-c", &format!("sleep {time:.3}; exit {code}")]);
            let Ok(id) = format!("x{:08x}-{code}", rng.u32(..)).parse() else { return };
            drop(container.exec(exec.id(id)).await);
        }
        if rng.u8(0..4) == 0 {
            sleep(Duration::from_millis(rng.u64(0..200))).await;
        } else {
            container.wait().await;
        }
    }
}

/// Appends each event, in one write, after those that are there.
async fn observe(executor: Executor, file: std::path::PathBuf) -> Result<(), String> {
    let words = |error: std::io::Error| error.to_string();
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let last = text.lines().rev().find_map(|line| serde_json::from_str::<Event>(line).ok());
    let mut events =
        executor.events_since(last.map_or(0, |event| event.number)).map_err(|error| error.to_string())?;
    drop(executor);
    let mut file = OpenOptions::new().append(true).create(true).open(file).map_err(words)?;
    while let Some(notice) = events.next().await {
        match notice {
            Notice::Event(event) => {
                let line = serde_json::to_string(&event).map_err(|error| error.to_string())?;
                file.write_all(format!("{line}\n").as_bytes()).map_err(words)?;
                if matches!(event.kind, EventKind::Released { .. }) {
                    tokio::task::yield_now().await;
                }
            }
            other @ (Notice::Gap { .. } | _) => return Err(format!("{other:?}")),
        }
    }
    Ok(())
}
