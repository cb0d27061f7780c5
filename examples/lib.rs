//! What the examples share: the executor. By default it runs on the simulator, as any user and in no time. With
//! `--real` it runs on runc, as root.

use std::time::Duration;

use longshore::sim::{SimRuntime, Simulation};
use longshore::{Error, Executor};

/// Whether the command line says `--real`.
pub fn is_real() -> bool {
    std::env::args().any(|argument| argument == "--real")
}

/// Runs an orchestration on an executor of its own. An actix `System` is there for actors to live on.
///
/// # Errors
/// The orchestration's, and those of building the executor.
pub fn run<T>(orchestration: impl AsyncFnOnce(&Executor) -> Result<T, Error>) -> Result<T, Error> {
    if !is_real() {
        return Simulation::new(SimRuntime::new()).run(async |sim| orchestration(&sim.executor).await);
    }
    let executor = Executor::builder(longshore::runc().build()?).build()?;
    actix::System::new().block_on(async {
        let done = orchestration(&executor).await;
        executor.shutdown(longshore::Cancel::now(), Duration::from_secs(10)).await;
        done
    })
}
