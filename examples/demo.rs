//! A short orchestration that prints what happens: a container, two execs in it, a cancel.
//!
//! `cargo xtask demo` installs a runtime if there is none, and runs this.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use longshore::{
    Cancel, ContainerId, ContainerSpec, Error, EventKind, ExecSpec, Executor, Notice, with_causes,
};

#[tokio::main]
async fn main() -> ExitCode {
    match demo().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {}; `longshore doctor` checks what containers need", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<(), Error> {
    let began = Instant::now();
    let say = move |who: &str, what: &str| println!("{:>6} ms  {who:<9} {what}", began.elapsed().as_millis());
    let executor = Executor::builder(longshore::runc().build()?).build()?;
    let mut events = executor.events();
    let printed = tokio::spawn(async move {
        while let Some(notice) = events.next().await {
            if let Notice::Event(event) = notice {
                say("event", &describe(&event.kind));
            }
        }
    });

    say("you", "run a container that sleeps, and ask for an exec before it is up");
    let id = ContainerId::new(format!("demo-{}", std::process::id()))?;
    let container = executor.run(ContainerSpec::host(["sleep", "1000"]).id(id)).await?;
    let script = "set -- /proc/[0-9]*; echo I am $(id -un), and see $# processes: this shell, and $(cat /proc/1/comm) as pid 1";
    let output = container.exec(ExecSpec::new(["sh", "-c", script]).piped()).await?.output().await?;
    say("output", output.stdout_lossy().trim_end());
    say("answer", &output.exit.to_string());

    say("you", "exec a program that fails");
    let script = "echo this will not end well; exit 3";
    let output = container.exec(ExecSpec::new(["sh", "-c", script]).piped()).await?.output().await?;
    say("output", output.stdout_lossy().trim_end());
    say("answer", &output.exit.to_string());

    say("you", "cancel the container: SIGTERM, which pid 1 ignores, and SIGKILL 200 ms later");
    let exit = container.cancel(Cancel::with_grace(Duration::from_millis(200))).await;
    say("answer", &exit.to_string());

    let report = executor.shutdown(Cancel::now(), Duration::from_secs(10)).await;
    drop(executor);
    printed.await.map_err(|_| Error::Stopped)?;
    report.left.iter().for_each(|left| say("left", &left.to_string()));
    say("shutdown", if report.left.is_empty() { "nothing is left" } else { "the rest is removed" });
    Ok(())
}

fn describe(kind: &EventKind) -> String {
    match kind {
        EventKind::Registered => "registered".into(),
        EventKind::Created { pid } => format!("created with pid {pid}"),
        EventKind::ExecAdded { exec } => format!("{exec} added"),
        EventKind::Started { pid } => format!("started, pid {pid} on the host"),
        EventKind::ExecStarted { exec, pid } => format!("{exec} started, pid {pid} on the host"),
        EventKind::ExecExited { exec, exit } => format!("{exec} exited: {exit}"),
        EventKind::OutOfMemory(kill) => format!("{} processes killed for lack of memory", kill.kills),
        EventKind::Paused => "paused".into(),
        EventKind::Resumed => "resumed".into(),
        EventKind::Exited { exit } => format!("exited: {exit}"),
        EventKind::Released { left } if left.is_empty() => "released, nothing left".into(),
        EventKind::Released { left } => format!("released, could not remove {left:?}"),
        other => format!("{other:?}"),
    }
}
