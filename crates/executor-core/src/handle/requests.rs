//! Requests to a container: signals, cancels, pauses, limits and usage.

use std::time::Duration;

use executor_lifecycle::{Cancel, Exit, HostPid, Signal, SignalScope, TerminalSize, Usage};

use super::ContainerHandle;
use super::ask::{ask, order_cancel};
use crate::{Error, Resources, Samples, messages};

impl ContainerHandle {
    /// Sends a signal to init. If init does not run yet, the signal is kept and sent when it does.
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
    /// [`Error::Refused`] if init has ended.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on it is carried out, even if the future is
    /// dropped.
    pub async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.signal_to(signal, SignalScope::Process).await
    }

    /// Sends a signal to init, to its process group, or to every process in the container.
    ///
    /// # Errors
    /// As for [`signal`](Self::signal).
    ///
    /// # Cancel safety
    /// As for [`signal`](Self::signal).
    pub async fn signal_to(&self, signal: Signal, scope: SignalScope) -> Result<(), Error> {
        let answer = ask(&self.address, messages::Signal(signal, scope)).await;
        answer.ok_or_else(|| self.has_exited())?.map_err(|refused| self.refused(refused))
    }

    /// Changes the size of the terminal of init. If init does not run yet, the last size is kept for it.
    ///
    /// # Errors
    /// [`Error::Refused`] if init has ended, or has no terminal.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on it is carried out, even if the future is
    /// dropped.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        let answer = ask(&self.address, messages::Resize(size)).await;
        answer.ok_or_else(|| self.has_exited())?.map_err(|refused| self.refused(refused))
    }

    /// Ends every process in the container, and waits for the end. Returns the exit of init. If the container has
    /// ended already, the future returns its exit.
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
    ///
    /// # Cancel safety
    /// The request is sent by the call, before the future is polled. Dropping the future does not take it back.
    pub fn cancel(&self, cancel: Cancel) -> impl Future<Output = Exit> + Send + 'static {
        order_cancel(&self.address, cancel);
        let container = self.clone();
        async move { container.wait().await }
    }

    /// Freezes every process. Returns when they are frozen.
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
    /// [`Error::Refused`] if the container does not run or is frozen already; [`Error::Runtime`] if it cannot be
    /// frozen.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on it is carried out, even if the future is
    /// dropped.
    pub async fn pause(&self) -> Result<(), Error> {
        self.answer(ask(&self.address, messages::Pause).await)
    }

    /// Thaws every process. Returns when they run again.
    ///
    /// # Errors
    /// [`Error::Refused`] if the container is not frozen; [`Error::Runtime`] if it cannot be thawed.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on it is carried out, even if the future is
    /// dropped.
    pub async fn resume(&self) -> Result<(), Error> {
        self.answer(ask(&self.address, messages::Resume).await)
    }

    /// Returns the pids, on the host, of all processes in the container, as the runtime reports them.
    ///
    /// # Errors
    /// [`Error::Refused`] if no process runs in it; [`Error::Runtime`] if they cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is changed. The future can be dropped at any time.
    pub async fn processes(&self) -> Result<Vec<HostPid>, Error> {
        self.answer(ask(&self.address, messages::ListProcesses).await)
    }

    /// Reads what the container has used so far. What it had used by its end is in its exit.
    ///
    /// # Errors
    /// [`Error::Refused`] if no process runs in it; [`Error::Runtime`] if the runtime cannot read it.
    ///
    /// # Cancel safety
    /// Nothing is changed. The future can be dropped at any time.
    pub async fn usage(&self) -> Result<Usage, Error> {
        self.answer(ask(&self.address, messages::ReadUsage).await)
    }

    /// Changes the limits while the container is created, running or paused. Returns when they apply to all its
    /// processes.
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
    ///   than is in use, or, with cgroup v1, for more memory than the present limit of memory and swap together (give
    ///   `memory_swap` as well; with v2 the limit of swap stays as it is). If several limits were given, some of them may have been changed.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on the limits are changed even if the future is
    /// dropped. Updates of one container are carried out one after the other.
    pub async fn update(&self, resources: Resources) -> Result<(), Error> {
        resources.validate()?;
        self.answer(ask(&self.address, messages::Update(resources)).await)
    }

    /// Samples the usage every `every` (at least 1 ms) until the end of the container. The last sample is the usage
    /// in its exit. If the reader is slow, samples are left out; it holds nothing up.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. If the future is dropped, no samples are taken.
    pub async fn samples(&self, every: Duration) -> Samples {
        let every = every.max(Duration::from_millis(1));
        ask(&self.address, messages::SampleUsage { every }).await.unwrap_or_else(Samples::none)
    }
}
