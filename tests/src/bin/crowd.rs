//! An embedder with fifty containers, an exec in each, and five more that are kept ready, on the root that is its
//! argument. It says when all are up, and then waits to be killed.

use futures::future::try_join_all;
use longshore::{Error, ExecSpec, Executor};
use longshore_tests::sleeper;

const SIZE: usize = 50;
const READY: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args_os().nth(1).ok_or("give a root directory")?;
    let executor = Executor::builder(longshore_tests::runtime_under_test(longshore::runc()).build()?)
        .root(root)
        .build()?;
    let one = async || {
        let container = executor.run(sleeper()).await?;
        container.exec(ExecSpec::new(["sleep", "1000"])).await?.started().await?;
        Ok::<_, Error>(container)
    };
    let crowd = futures::executor::block_on(try_join_all((0..SIZE).map(|_| one())))?;
    futures::executor::block_on(executor.prepare(sleeper(), READY))?;
    println!("{} containers and {SIZE} execs are up, {READY} are ready", crowd.len());
    loop {
        std::thread::park();
    }
}
