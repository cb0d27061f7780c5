//! A supervisor: it restarts a service that ends or whose health check fails. The pause doubles each time. It gives up
//! when the service has ended with success, or after too many tries.

use std::time::Duration;

use longshore::{Cancel, ContainerHandle, ContainerSpec, Error, ExecSpec, Executor, Exit};
use longshore::{ExitReason, ExitStatus};
use tokio::time::sleep;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const TRIES: u32 = 5;
const BETWEEN_CHECKS: Duration = Duration::from_millis(100);
const CHECK_LIMIT: Duration = Duration::from_millis(500);

/// The service on each try: it crashes, then it hangs and is unhealthy, then it works.
fn service(number: u32) -> ContainerSpec {
    let (script, health) = match number {
        1 => ("sleep 0.15; echo out of luck; exit 1", "0"),
        2 => ("trap '' TERM; sleep 3600", "1"),
        _ => ("sleep 0.3; echo done", "0"),
    };
    ContainerSpec::host(["sh", "-c", script]).env("HEALTH", health)
}

/// The check is an exec: it sees what the service sees. If the service ends meanwhile, the check ends with it. That does not
/// count as unhealthy, because the supervisor sees the end itself.
async fn is_healthy(service: &ContainerHandle) -> bool {
    let check = ExecSpec::new(["sh", "-c", "exit $HEALTH"]).time_limit(CHECK_LIMIT, Cancel::now());
    match service.exec(check).await {
        Ok(check) => {
            let exit = check.wait().await;
            !matches!(exit.status, ExitStatus::Code(1..))
                && !matches!(exit.reason, ExitReason::TimedOut { .. })
        }
        Err(_) => true,
    }
}

/// Waits until the service ends. If it is unhealthy, ends it.
async fn watch(service: &ContainerHandle) -> Exit {
    let unhealthy = async {
        loop {
            sleep(BETWEEN_CHECKS).await;
            if !is_healthy(service).await {
                return;
            }
        }
    };
    tokio::select! {
        exit = service.wait() => exit,
        () = unhealthy => {
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
