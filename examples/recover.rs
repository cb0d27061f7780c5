//! A scheduler that is killed, and goes on. Its jobs outlive it: each runs once, and no exit is lost. What has ended is in the events, which the next scheduler reads from the first on. Its own number would do.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore::sim::{SimRuntime, Simulation};
use longshore::{ContainerSpec, Error, EventKind, Executor, Exit, Notice, Survival, forget_name};

/// The jobs, and what each does.
const JOBS: [(&str, &str); 4] =
    [("fetch", "exit 0"), ("compile", "sleep 1; exit 0"), ("test", "sleep 1.5; exit 3"), ("pack", "sleep 2")];

/// Runs every job that was not run before, and waits until all have ended. Returns their exits.
async fn schedule(executor: &Executor) -> Result<BTreeMap<String, Exit>, Error> {
    let mut exits = BTreeMap::new();
    let mut events = executor.events_since(0)?;
    let known = executor.list().await?;
    let runs = |job: &str| known.iter().any(|one| one.exit.is_none() && one.container.as_str() == job);
    for (job, script) in JOBS {
        let id = job.parse()?;
        if runs(job) {
            println!("{job}: it goes on");
        } else if executor.exit_of(&id).await.is_err() {
            let spec = ContainerSpec::host(["sh", "-c", script]).id(id);
            executor.run(spec).await?;
        }
    }
    while exits.len() < JOBS.len() {
        let Some(notice) = events.next().await else { return Err(Error::Stopped) };
        let Notice::Event(event) = notice else { continue };
        if let EventKind::Exited { exit } = event.kind {
            println!("{}: {exit} (event {})", event.container, event.number);
            exits.insert(event.container.to_string(), exit);
        }
    }
    Ok(exits)
}

fn report(exits: &BTreeMap<String, Exit>) {
    let failed: Vec<_> = exits.iter().filter_map(|(job, exit)| (!exit.is_success()).then_some(job)).collect();
    println!("{} jobs have run once each; failed: {failed:?}", exits.len());
}

fn simulated() -> Result<(), Box<dyn std::error::Error>> {
    Simulation::new(SimRuntime::new()).keep().run(async |sim| {
        let killed = tokio::time::timeout(Duration::from_millis(700), schedule(&sim.executor)).await;
        assert!(killed.is_err(), "it has ended before");
        println!("the scheduler is killed");
        let executor = sim.crash_embedder();
        report(&schedule(&executor).await?);
        Ok(())
    })
}

/// The first scheduler is a process of its own, which is killed.
fn real() -> Result<(), Box<dyn std::error::Error>> {
    let executor = || {
        let builder = Executor::builder(longshore::runc().build()?);
        builder.survival(Survival::keep("recover")).build()
    };
    if std::env::args().any(|argument| argument == "--first") {
        report(&futures::executor::block_on(schedule(&executor()?))?);
        return Ok(());
    }
    let mut first =
        std::process::Command::new(std::env::current_exe()?).args(["--real", "--first"]).spawn()?;
    std::thread::sleep(Duration::from_millis(700));
    first.kill().and_then(|()| first.wait())?;
    println!("the scheduler is killed");
    let executor = executor()?;
    report(&futures::executor::block_on(schedule(&executor))?);
    futures::executor::block_on(executor.shutdown(longshore::Cancel::now(), Duration::from_secs(10)));
    forget_name(&longshore::default_root(), "recover")?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if longshore_examples::is_real() { real() } else { simulated() }
}
