//! Execs: in a container that runs, and asked for together with its run.

use std::time::{Duration, Instant};

use longshore::{ContainerHandle, ExecSpec};

use super::{GAP, end, pause, well};
use crate::Done;
use crate::figures::{Report, Times};
use crate::ground::Side;

async fn exec(container: &ContainerHandle) -> Done<Duration> {
    let begun = Instant::now();
    well(&container.exec(ExecSpec::new(["true"])).await?.wait().await)?;
    Ok(begun.elapsed())
}

pub(super) async fn execs(side: &Side, report: &mut Report, rounds: usize) -> Done {
    let sleeper = side.spec(&["sleep", "1000"]);
    let bundle = side.bundle("execs", &sleeper)?;
    bundle.start()?;
    let container = side.executor.run(sleeper.clone()).await?;
    container.started().await?;
    let (mut ours, mut raw) = (Times::default(), Times::default());
    for _ in 0..rounds {
        ours.push(exec(&container).await?);
        pause(GAP).await;
        raw.push(bundle.exec(&["true"])?);
        pause(GAP).await;
    }
    let target = if side.name == "runc" { "≤ 0.60" } else { "–" };
    report.compare(&format!("{}: exec of `true`, with idle gaps", side.name), &ours, &raw, target);
    bundle.end()?;
    end(&container).await?;
    together(side, report, rounds).await
}

/// Request for together, against one after the other.
async fn together(side: &Side, report: &mut Report, rounds: usize) -> Done {
    let sleeper = side.spec(&["sleep", "1000"]);
    let (mut together, mut apart) = (Times::default(), Times::default());
    for _ in 0..rounds {
        let begun = Instant::now();
        let container = side.executor.run(sleeper.clone()).await?;
        well(&container.exec(ExecSpec::new(["true"])).await?.wait().await)?;
        together.push(begun.elapsed());
        end(&container).await?;
        pause(GAP).await;
        let begun = Instant::now();
        let container = side.executor.run(sleeper.clone()).await?;
        container.started().await?;
        let started = begun.elapsed();
        pause(GAP).await;
        apart.push(started + exec(&container).await?);
        end(&container).await?;
        pause(GAP).await;
    }
    let what = format!("{}: exec asked for together with run, to run + exec of ours", side.name);
    report.compare(&what, &together, &apart, "≤ 1.1");
    Ok(())
}
