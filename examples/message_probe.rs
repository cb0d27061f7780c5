//! A test of a scheduler: the policy under test runs on the simulator, in the order of each of 200 seeds. Afterwards, the
//! test looks at the messages that the actors have exchanged.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use longshore::{Cancel, ContainerSpec, Error, Executor, Exit};

/// The policy under test: no more than `width` at once, and nothing may take longer than `limit`.
async fn run_all(
    executor: &Executor,
    scripts: &[&str],
    width: usize,
    limit: Duration,
) -> Vec<Result<Exit, Error>> {
    let run = async |script: &&str| {
        let container = executor.run(ContainerSpec::host(["sh", "-c", script])).await?;
        Ok(match tokio::time::timeout(limit, container.wait()).await {
            Ok(exit) => exit,
            Err(_) => container.cancel(Cancel::now()).await,
        })
    };
    stream::iter(scripts).map(run).buffered(width).collect().await
}

const SCRIPTS: [&str; 6] =
    ["exit 0", "sleep 0.3", "exit 3", "sleep 3600", "trap '' TERM; sleep 3600", "sleep 0.1"];
const WIDTH: usize = 2;
const LIMIT: Duration = Duration::from_millis(500);

fn main() -> Result<(), Error> {
    if !longshore_examples::is_real() {
        probe::explore();
    }
    longshore_examples::run(async |executor| {
        for (script, exit) in SCRIPTS.iter().zip(run_all(executor, &SCRIPTS, WIDTH, LIMIT).await) {
            println!("{script:<25} {}", exit?);
        }
        Ok(())
    })
}

mod probe {
    use longshore::EventKind;
    use longshore::observe::{ObservedMessage, ProcessEvent};
    use longshore::sim::{SimRuntime, Simulation, What};

    use super::{LIMIT, SCRIPTS, WIDTH, run_all};

    pub(super) fn explore() {
        Simulation::explore(
            0..200,
            || Simulation::new(SimRuntime::new()),
            async |sim| {
                let exits = run_all(&sim.executor, &SCRIPTS, WIDTH, LIMIT).await;
                assert!(exits.iter().all(Result::is_ok));
                let (mut running, mut most, mut cancels) = (0, 0, 0);
                for record in sim.records() {
                    if let What::Published(event) = &record.what {
                        running += usize::from(matches!(event.kind, EventKind::Registered));
                        running -= usize::from(matches!(event.kind, EventKind::Exited { .. }));
                    }
                    let cancel = |message: &ObservedMessage| {
                        matches!(message, ObservedMessage::Process(_, ProcessEvent::Cancel(_)))
                    };
                    cancels +=
                        usize::from(matches!(&record.what, What::Handled { message, .. } if cancel(message)));
                    most = most.max(running);
                }
                assert_eq!((most, cancels), (WIDTH, 2), "in use at once, cancelled");
            },
        );
        println!("200 seeds: never more than {WIDTH} at once, 2 cancelled each time");
    }
}
