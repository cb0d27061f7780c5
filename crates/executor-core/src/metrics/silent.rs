//! Without the feature `metrics`: what the actors and a runtime call, and that does nothing.

use executor_lifecycle::process::Process as Machine;
use executor_lifecycle::{Event, Exit, Leftover, ProcessId};

use super::{CallOutcome, StartKind};
use crate::Swept;
use crate::clock::Clock;

#[derive(Clone, Debug)]
pub(crate) struct Meters;

impl Meters {
    pub(crate) const fn register() -> Self {
        Self
    }

    pub(crate) const fn container(&self, _: StartKind, _: Clock) -> ContainerMeter {
        ContainerMeter
    }

    pub(crate) const fn swept(&self, _: &[Swept]) {}

    pub(crate) const fn leftovers(&self, _: &[Leftover]) {}

    pub(crate) const fn missed(&self, _: u64) {}

    pub(crate) const fn release(&self, _: Clock) -> impl FnOnce() + use<> {
        || ()
    }
}

#[derive(Debug)]
pub(crate) struct ContainerMeter;

impl ContainerMeter {
    pub(crate) const fn prepared(&self) {}

    pub(crate) const fn start_requested(&self) {}

    pub(crate) const fn reveal(&self) {}

    pub(crate) const fn event(&self, _: &Event) {}

    pub(crate) const fn restored(&self, _: &Event) {}
}

#[derive(Debug)]
pub(crate) struct CancelMeter;

impl CancelMeter {
    pub(crate) const fn new() -> Self {
        Self
    }

    pub(crate) const fn stepped(&mut self, _: &Machine, _: Clock) {}

    pub(crate) const fn exited(&self, _: &Meters, _: &ProcessId, _: &Exit) {}
}

/// The calls of an OCI runtime, which the feature `metrics` counts.
#[derive(Clone, Debug)]
pub struct RuntimeCalls;

/// A call that has begun.
#[derive(Debug)]
pub struct RuntimeCall;

impl RuntimeCalls {
    /// Calls that no executor makes, which are not counted.
    #[must_use]
    pub const fn uncounted() -> Self {
        Self
    }

    /// Registers the calls of an executor. Called when its root is opened.
    #[must_use]
    pub const fn register() -> Self {
        Self
    }

    /// A call begins.
    #[must_use]
    pub const fn begin(&self, _: &str) -> RuntimeCall {
        RuntimeCall
    }
}

impl RuntimeCall {
    /// The call has ended.
    pub const fn end(self, _: CallOutcome) {}
}

/// The pools of a driver's blocking work, which the feature `metrics` measures.
#[derive(Clone, Debug)]
pub struct PoolJobs;

/// A piece of blocking work.
#[derive(Debug)]
pub struct PoolJob;

impl PoolJobs {
    /// Registers the pools of an executor. Called when its root is opened.
    #[must_use]
    pub const fn register() -> Self {
        Self
    }

    /// A piece of work waits for its pool from now on.
    #[must_use]
    pub const fn wait(&self, _: &'static str) -> PoolJob {
        PoolJob
    }

    /// It is being done from now on.
    pub const fn begin(&self, _: &mut PoolJob) {}
}
