//! A pipeline: a step runs as soon as the steps that it needs have ended, in parallel with others. If one fails, all
//! others are cancelled at once.

use std::collections::HashMap;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, Shared, try_join_all};
use longshore::{Cancel, ContainerSpec, Error, Executor};

/// A step. Those that need it get its output in a variable with its name.
struct Step {
    name: &'static str,
    needs: &'static [&'static str],
    script: &'static str,
}

const fn step(name: &'static str, needs: &'static [&'static str], script: &'static str) -> Step {
    Step { name, needs, script }
}

const GOOD: [Step; 5] = [
    step("FETCH", &[], "sleep 0.2; echo sources"),
    step("COMPILE", &["FETCH"], "sleep 0.5; echo objects of $FETCH"),
    step("DOCUMENT", &["FETCH"], "sleep 0.3; echo pages of $FETCH"),
    step("TEST", &["COMPILE"], "sleep 0.2; echo passed with $COMPILE"),
    step("PACKAGE", &["COMPILE", "DOCUMENT", "TEST"], "echo $COMPILE, $DOCUMENT, $TEST"),
];

const BAD: [Step; 3] = [
    step("FETCH", &[], "echo sources"),
    step("COMPILE", &["FETCH"], "sleep 0.1; echo error in $FETCH; exit 1"),
    step("DOCUMENT", &["FETCH"], "sleep 3600; echo pages of $FETCH"),
];

/// The output of a step, or which step failed and how.
type Outcome = Result<String, String>;

async fn run_step(executor: &Executor, step: &Step, inputs: Vec<(String, String)>) -> Outcome {
    let mut spec = ContainerSpec::host(["sh", "-c", step.script]).piped();
    spec.process.env = inputs;
    let container = executor.run(spec).await.map_err(|error| error.to_string())?;
    let output = container.output().await.map_err(|error| error.to_string())?;
    let (text, exit) = (output.stdout_lossy().trim_end().to_owned(), output.exit);
    println!("  {:<9} {exit}: {text}", step.name);
    if exit.is_success() { Ok(text) } else { Err(format!("{}: {exit}", step.name)) }
}

/// Runs the steps, each listed after those it needs. Answers with the output of the last one.
async fn run_pipeline(executor: &Executor, steps: &[Step]) -> Result<Outcome, Error> {
    let mut outputs: HashMap<_, Shared<LocalBoxFuture<Outcome>>> = HashMap::new();
    for step in steps {
        let needs = step.needs.iter().map(|name| {
            let output = outputs[name].clone();
            async move { Ok::<_, String>(((*name).to_owned(), output.await?)) }
        });
        let needs = try_join_all(needs.collect::<Vec<_>>());
        let output = async move { run_step(executor, step, needs.await?).await };
        outputs.insert(step.name, output.boxed_local().shared());
    }
    let all = try_join_all(steps.iter().map(|step| outputs[step.name].clone())).await;
    for running in executor.list().await?.into_iter().filter(|container| container.exit.is_none()) {
        let exit = executor.get(&running.container).await?.cancel(Cancel::now()).await;
        println!("  what still ran is {exit}");
    }
    Ok(all.map(|mut outputs| outputs.pop().unwrap_or_default()))
}

fn main() -> Result<(), Error> {
    longshore_examples::run(async |executor| {
        println!("result: {:?}", run_pipeline(executor, &GOOD).await?);
        println!("result: {:?}", run_pipeline(executor, &BAD).await?);
        Ok(())
    })
}
