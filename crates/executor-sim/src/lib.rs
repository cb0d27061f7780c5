//! Tests for code that uses `longshore`, without root and without an OCI runtime: the same executor, on a simulated runtime
//! and on virtual time.
//!
//! It is `longshore::sim`, with the feature `sim` of `longshore` among the dev-dependencies:
//!
//! ```toml
//! [dev-dependencies]
//! longshore = { version = "0.1", features = ["sim"] }
//! ```
//!
//! A unit test of an embedder. The function under test takes a `longshore::Executor`, and does not know
//! that it runs on a simulation:
//!
//! ```
//! use std::time::Duration;
//! use longshore::sim::{Program, SimRuntime, Simulation};
//! use longshore::{Cancel, ContainerSpec, Error, Executor, Exit, ExitReason};
//!
//! const HOUR: Duration = Duration::from_secs(3600);
//!
//! /// Runs a build, for an hour at most.
//! async fn build(executor: &Executor) -> Result<Exit, Error> {
//!     let container = executor.run(ContainerSpec::host(["make"]).time_limit(HOUR, Cancel::now())).await?;
//!     Ok(container.wait().await)
//! }
//!
//! // #[test]
//! fn a_build_that_hangs_is_ended() {
//!     let runtime = SimRuntime::new().program("make", Program::forever());
//!     Simulation::new(runtime).run(async |sim| {
//!         let exit = build(&sim.executor).await.unwrap();
//!         assert_eq!(exit.reason, ExitReason::TimedOut { killed: true });
//!         assert!(sim.elapsed() >= HOUR, "of virtual time: the test takes milliseconds");
//!     });
//! }
//! # a_build_that_hangs_is_ended();
//! ```
//!
//! The test is a plain `#[test]` function: [`Simulation::run`] brings the async runtime, so it cannot be called in
//! `#[actix::test]` or `#[tokio::test]`.
//!
//! What a container does is scripted: a [`Program`] has steps (print, wait, use memory, exit, …) and
//! [`Fault`]s of its runtime. [`SimRuntime`] also knows `sleep`, `echo`, `cat` and a small part of `sh -c '…'`, so that many
//! tests need no script. At the end of a test, the executor is shut down and the promises of the lifecycle are checked
//! against the [`Timeline`]. With a [seed](Simulation::explore), the simulation also decides orders and durations that a
//! real machine leaves open. A seed that fails is printed with the command line that runs it again.
//!
//! Not simulated: file systems, networks, terminals, and the limits of resources. A container's usage is what the script
//! says.
//!
//! | module | holds |
//! |---|---|
//! | `program` | scripted programs and faults |
//! | `shell` | the part of a shell that is simulated |
//! | `runtime` | the runtime that the executor uses |
//! | `processes` | the processes of its containers |
//! | `simulation` | virtual time, seeds, and the checks at the end |
//! | `timeline` | everything that happened, in order |

mod limits;
mod processes;
mod program;
mod runtime;
mod shell;
mod simulation;
mod timeline;

pub use program::{Fault, Program};
pub use runtime::SimRuntime;
pub use simulation::{Sim, Simulation};
pub use timeline::{BrokenPromise, Record, Request, Timeline, What};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic while a lock of this crate is held leaves nothing half changed, so a poisoned lock can be used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
