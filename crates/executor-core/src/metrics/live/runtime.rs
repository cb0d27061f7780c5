//! What a runtime records: calls of an OCI runtime, and pools of blocking work.

use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Gauge, Histogram};

use super::super::series::{Counted, Series};
use super::super::{CallOutcome, table};

/// The calls of an OCI runtime.
#[derive(Clone, Debug)]
pub struct RuntimeCalls(Option<Arc<CallHandles>>);

#[derive(Debug)]
struct CallHandles {
    calls: Series<Counter, 2>,
    duration: Series<Histogram, 1>,
}

/// A call that has begun. If it is dropped, it is not counted.
#[derive(Debug)]
pub struct RuntimeCall {
    handles: Option<Arc<CallHandles>>,
    operation: Option<&'static str>,
    began: Instant,
}

impl RuntimeCalls {
    /// Calls that no executor makes, which are not counted.
    #[must_use]
    pub const fn uncounted() -> Self {
        Self(None)
    }

    /// Registers the calls of an executor. Called when its root is opened.
    #[must_use]
    pub fn register() -> Self {
        Self(Some(Arc::new(CallHandles {
            calls: Series::counters(&table::RUNTIME_CALLS),
            duration: Series::histograms(&table::RUNTIME_CALL_DURATION),
        })))
    }

    /// A call begins. An operation that is not in the table is not counted.
    #[must_use]
    pub fn begin(&self, operation: &str) -> RuntimeCall {
        let operation = table::OPERATION.values.iter().find(|known| **known == operation).copied();
        RuntimeCall { handles: self.0.clone(), operation, began: Instant::now() }
    }
}

impl RuntimeCall {
    /// The call has ended.
    pub fn end(self, outcome: CallOutcome) {
        let (Some(handles), Some(operation)) = (self.handles, self.operation) else { return };
        let outcome = match outcome {
            CallOutcome::Ok => "ok",
            CallOutcome::Failed => "failed",
            CallOutcome::TimedOut => "timed_out",
            CallOutcome::Abandoned => "abandoned",
        };
        handles.calls.add([operation, outcome], 1);
        handles.duration.record([operation], self.began.elapsed());
    }
}

/// The pools of a driver's blocking work.
#[derive(Clone, Debug)]
pub struct PoolJobs(Arc<PoolHandles>);

#[derive(Debug)]
struct PoolHandles {
    jobs: Series<Gauge, 2>,
    wait: Series<Histogram, 1>,
}

/// A piece of blocking work. It is counted until this is dropped.
#[derive(Debug)]
pub struct PoolJob {
    pool: &'static str,
    counted: Option<Counted>,
    came: Instant,
}

impl PoolJobs {
    /// Registers the pools of an executor. Called when its root is opened.
    #[must_use]
    pub fn register() -> Self {
        let (jobs, wait) = (Series::gauges(&table::POOL_JOBS), Series::histograms(&table::POOL_WAIT));
        Self(Arc::new(PoolHandles { jobs, wait }))
    }

    /// A piece of work waits for its pool from now on.
    #[must_use]
    pub fn wait(&self, pool: &'static str) -> PoolJob {
        PoolJob { pool, counted: self.0.jobs.count([pool, "waiting"]), came: Instant::now() }
    }

    /// It is being done from now on.
    pub fn begin(&self, job: &mut PoolJob) {
        drop(job.counted.take());
        job.counted = self.0.jobs.count([job.pool, "running"]);
        self.0.wait.record([job.pool], job.came.elapsed());
    }
}
