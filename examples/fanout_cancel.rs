//! A tree of work: every node runs a container and waits for its children. The first failure cancels everything that
//! still runs, and the root has the exit of each node.

use std::time::Duration;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, join_all};
use longshore::{Cancel, CancelCause, ContainerSpec, Error, Executor, Exit, ExitReason};
use tokio::sync::watch;

/// What a node runs. One fails while the others still run.
fn script(path: &str) -> &'static str {
    match path {
        "root.2.1" => "sleep 0.6; exit 7",
        "root.1.1" => "sleep 0.05",
        _ => "sleep 3600",
    }
}

/// Runs a node and everything below it. Answers with the exit of each path.
fn node(
    executor: &Executor,
    path: String,
    depth: u32,
    failed: watch::Sender<bool>,
) -> LocalBoxFuture<'_, Result<Vec<(String, Exit)>, Error>> {
    async move {
        let container = executor.run(ContainerSpec::host(["sh", "-c", script(&path)])).await?;
        let children = (1..=3 * u32::from(depth > 0))
            .map(|child| node(executor, format!("{path}.{child}"), depth - 1, failed.clone()));
        let own = async {
            let mut failure = failed.subscribe();
            tokio::select! {
                exit = container.wait() => {
                    failed.send_if_modified(|failed| !exit.is_success() && !std::mem::replace(failed, true));
                    exit
                }
                _ = failure.wait_for(|failed| *failed) => {
                    container.cancel(Cancel::with_grace(Duration::from_millis(20))).await
                }
            }
        };
        let (exit, below) = futures::join!(own, join_all(children));
        let mut all = vec![(path, exit)];
        for ends in below {
            all.extend(ends?);
        }
        Ok(all)
    }
    .boxed_local()
}

fn main() -> Result<(), Error> {
    longshore_examples::run(async |executor| {
        let ends = node(executor, "root".into(), 2, watch::Sender::new(false)).await?;
        for (path, exit) in &ends {
            println!("{path:<9} {exit}");
        }
        let cancelled =
            |exit: &Exit| matches!(exit.reason, ExitReason::Cancelled { cause: CancelCause::Requested, .. });
        let count = ends.iter().filter(|(_, exit)| cancelled(exit)).count();
        println!("{count} of {} were cancelled", ends.len());
        Ok(())
    })
}
