//! Requests to a container that is there: signals, cancels, pauses, limits and usage.

use std::time::Duration;

use executor_lifecycle::{Cancel, Exit, HostPid, Signal, SignalScope, TerminalSize, Usage};

use super::ContainerHandle;
use super::ask::{ask, order_cancel};
use crate::{Error, Resources, Samples, messages};

impl ContainerHandle {
    /// Sends a signal to init; before the start it waits.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let script = "trap 'exit 4' HUP; echo ready; while :; do sleep 1; done";
    /// let container = executor.run(ContainerSpec::host(["sh", "-c", script]).piped()).await?;
    /// container.io().take_stdout().expect("a pipe").next_chunk().await;
    /// container.signal(Signal::HUP).await?;
    /// assert_eq!(container.wait().await.status, ExitStatus::Code(4));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] when init has ended.
    pub async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.signal_to(signal, SignalScope::Process).await
    }

    /// Sends a signal to init, to its process group, or to everything in the container.
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub async fn signal_to(&self, signal: Signal, scope: SignalScope) -> Result<(), Error> {
        let answer = ask(&self.address, messages::Signal(signal, scope)).await;
        answer.ok_or_else(|| self.has_exited())?.map_err(|refused| self.refused(refused))
    }

    /// Gives init's terminal another size; before the start the last one waits.
    ///
    /// # Errors
    /// [`Error::Refused`] when init has ended, or has no terminal.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        let answer = ask(&self.address, messages::Resize(size)).await;
        answer.ok_or_else(|| self.has_exited())?.map_err(|refused| self.refused(refused))
    }

    /// Ends everything in it, and waits for the end. The intent is kept from the call on, whether
    /// or not the future is awaited.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.run(ContainerSpec::host(["sleep", "3600"])).await?;
    /// container.started().await?;
    /// // Without a handler for it, an init ignores SIGTERM: SIGKILL follows.
    /// let exit = container.cancel(Cancel::with_grace(Duration::from_secs(5))).await;
    /// assert_eq!(exit.reason, ExitReason::Cancelled { cause: CancelCause::Requested, killed: true });
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub fn cancel(&self, cancel: Cancel) -> impl Future<Output = Exit> + Send + 'static {
        order_cancel(&self.address, cancel);
        let container = self.clone();
        async move { container.wait().await }
    }

    /// Freezes every process; answers when they stand still.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.run(ContainerSpec::host(["sleep", "60"])).await?;
    /// container.started().await?;
    /// container.pause().await?;
    /// assert!(container.exec(ExecSpec::new(["true"])).await.is_err()); // it would hang
    /// container.resume().await?;
    /// assert!(container.exec(ExecSpec::new(["true"])).await?.wait().await.is_success());
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] when it does not run or is frozen already, [`Error::Runtime`].
    pub async fn pause(&self) -> Result<(), Error> {
        self.answer(ask(&self.address, messages::Pause).await)
    }

    /// Thaws every process; answers when they go on.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not frozen, [`Error::Runtime`].
    pub async fn resume(&self) -> Result<(), Error> {
        self.answer(ask(&self.address, messages::Resume).await)
    }

    /// The host pids of all its processes.
    ///
    /// # Errors
    /// [`Error::Refused`] when nothing runs in it, [`Error::Runtime`].
    pub async fn processes(&self) -> Result<Vec<HostPid>, Error> {
        self.answer(ask(&self.address, messages::ListProcesses).await)
    }

    /// What it has used so far. What it had used by its end is in its exit.
    ///
    /// # Errors
    /// [`Error::Refused`] when nothing runs in it, [`Error::Runtime`] when the runtime does not say.
    pub async fn usage(&self) -> Result<Usage, Error> {
        self.answer(ask(&self.address, messages::ReadUsage).await)
    }

    /// Changes its limits while it is created, running or paused, and completes when they apply to all its processes.
    /// The fields have the units of [`Resources`]. Absent fields keep their value; there is no way to remove a limit, except
    /// that `memory_swap` can be `u64::MAX`.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.run(ContainerSpec::host(["sleep", "60"])).await?;
    /// container.started().await?;
    /// container.update(Resources::default().memory(64 << 20)).await?;
    /// container.update(Resources::default().pids(100)).await?; // the memory stays limited
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// - [`Error::InvalidSpec`] for values that [`Executor::run`](crate::Executor::run) rejects as well. Nothing is changed.
    /// - [`Error::Refused`] if it is not created yet, or has exited. Nothing is changed.
    /// - [`Error::Runtime`] if the runtime or the kernel refuses: for CPUs that the machine does not have, for less memory
    ///   than is in use, or for more memory than the present limit of memory and swap together (give `memory_swap` as
    ///   well). If several limits were given, some of them may have been changed.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on the limits are changed even if the future is
    /// dropped. Updates of one container are carried out one after the other.
    pub async fn update(&self, resources: Resources) -> Result<(), Error> {
        resources.validate()?;
        self.answer(ask(&self.address, messages::Update(resources)).await)
    }

    /// What it has used, every so often from now on until its end. The last sample is what its exit tells. A
    /// reader that is slow is sent less, and holds nothing up.
    pub async fn samples(&self, every: Duration) -> Samples {
        let every = every.max(Duration::from_millis(1));
        ask(&self.address, messages::SampleUsage { every }).await.unwrap_or_else(Samples::none)
    }
}
