//! Your own runtime, for plugins or for steps that need no container. Handles, events, cancels and exits work as with any
//! other. It runs as any user; `--real` makes no difference.

mod functions;

use std::collections::HashMap;
use std::time::Duration;

use functions::{Functions, Program};
use futures::FutureExt;
use longshore::{Cancel, ContainerSpec, Error, ExecSpec, Executor};

fn main() -> Result<(), Error> {
    let count: Program = |args| async move { u8::try_from(args.len() - 1).unwrap_or(u8::MAX) }.boxed();
    let wait: Program = |_| std::future::pending().boxed();
    let mut runtime = Functions::default();
    runtime.programs = HashMap::from([("count", count), ("wait", wait)]);
    let executor = Executor::builder(runtime).build()?;
    futures::executor::block_on(async {
        let container = executor.run(ContainerSpec::host(["wait"])).await?;
        for args in [&["count", "one", "two", "three"][..], &["nonsense"]] {
            let exit = container.exec(ExecSpec::new(args.iter().copied())).await?.wait().await;
            println!("{}: {exit}", args[0]);
        }
        println!("wait: {}", container.cancel(Cancel::now()).await);
        let report = executor.shutdown(Cancel::now(), Duration::from_secs(10)).await;
        println!("{} containers are left", report.late.len() + report.left.len());
        Ok(())
    })
}
