//! A supervisor: a service that is restarted when it ends or when its health check fails, each time after
//! twice the pause, until it ends well or has been tried too often.

use std::time::Duration;

use longshore::{Cancel, ContainerHandle, ContainerSpec, Error, ExecSpec, Executor, Exit};
use longshore::{ExitReason, ExitStatus, TimeLimit};
use tokio::time::sleep;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const TRIES: u32 = 5;
const BETWEEN_CHECKS: Duration = Duration::from_millis(100);
const CHECK_LIMIT: Duration = Duration::from_millis(500);

/// What the service does on each try: it crashes, it hangs unhealthily, and then it works.
fn service(number: u32) -> ContainerSpec {
    let (script, health) = match number {
        1 => ("sleep 0.15; echo out of luck; exit 1", "0"),
        2 => ("trap '' TERM; sleep 3600", "1"),
        _ => ("sleep 0.3; echo done", "0"),
    };
    let mut spec = ContainerSpec::host(["sh", "-c", script]);
    spec.process.env.push(("HEALTH".into(), health.into()));
    spec
}

/// A process in the same container, which sees what the service sees. That the service ends meanwhile, and
/// the check with it, is no ill health: what waits for the end knows better.
async fn is_healthy(service: &ContainerHandle) -> bool {
    let mut check = ExecSpec::new(["sh", "-c", "exit $HEALTH"]);
    check.time_limit = Some(TimeLimit { after: CHECK_LIMIT, cancel: Cancel::now() });
    match service.exec(check).await {
        Ok(check) => {
            let exit = check.wait().await;
            !matches!(exit.status, ExitStatus::Code(1..))
                && !matches!(exit.reason, ExitReason::TimedOut { .. })
        }
        Err(_) => true,
    }
}

/// Until the service ends, or does not feel well and is ended.
async fn watch(service: &ContainerHandle) -> Exit {
    let sick = async {
        loop {
            sleep(BETWEEN_CHECKS).await;
            if !is_healthy(service).await {
                return;
            }
        }
    };
    tokio::select! {
        exit = service.wait() => exit,
        () = sick => {
            println!("  the health check failed");
            service.cancel(Cancel::with_grace(Duration::from_millis(20))).await
        }
    }
}

async fn supervise(executor: &Executor) -> Result<Exit, Error> {
    let mut pause = FIRST_PAUSE;
    for number in 1.. {
        println!("try {number}");
        let exit = watch(&executor.run(service(number)).await?).await;
        println!("  it ended: {exit}");
        if exit.is_success() || number == TRIES {
            return Ok(exit);
        }
        println!("  again in {} ms", pause.as_millis());
        sleep(pause).await;
        pause *= 2;
    }
    unreachable!("the loop has no end")
}

fn main() -> Result<(), Error> {
    longshore_examples::run(async |executor| supervise(executor).await.map(drop))
}
