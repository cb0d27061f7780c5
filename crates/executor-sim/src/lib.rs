//! A simulated runtime on virtual time, to test what is built on `executor-core` in milliseconds,
//! without root or an OCI runtime.
//!
//! [`SimRuntime`] implements both ports: containers are a few lines of memory, and programs do what
//! their [`Program`] says, or what a small shell makes of `sh -c '…'`. [`Simulation`] puts an executor on
//! it, on a clock that jumps to the next thing that happens, and checks the lifecycle's promises at the
//! end. With a seed it permutes whose turn it is and how long the runtime takes; a seed that fails is
//! printed with the line that repeats it.
//!
//! ```
//! use std::time::Duration;
//! use executor_core::{ContainerSpec, lifecycle::ExitStatus};
//! use executor_sim::{Program, SimRuntime, Simulation};
//!
//! let job = Program::new().prints("working\n").runs_for(Duration::from_secs(3600)).exits(2);
//! Simulation::new(SimRuntime::new().program("job", job)).run(async |sim| {
//!     let container = sim.executor.run(ContainerSpec::host(["job"])).await.unwrap();
//!     assert_eq!(container.wait().await.status, ExitStatus::Code(2));
//!     assert_eq!(sim.elapsed(), Duration::from_secs(3600)); // in no time
//! });
//! ```
//!
//! | module | says |
//! |---|---|
//! | `program` | what programs do, and what goes wrong with them |
//! | `shell` | which part of a shell is understood |
//! | `runtime` | the ports |
//! | `processes` | the processes that run |
//! | `limits` | what an update makes of limits |
//! | `simulation` | virtual time, seeds, and what is checked at the end |
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
pub use timeline::{Asked, Broken, Record, Timeline, What};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Nothing is left half changed under any of this crate's locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
