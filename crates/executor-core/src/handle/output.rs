//! A process to its end, with all that it writes: what most callers want, and what cannot hang on a full pipe.

use executor_lifecycle::ProcessRef;

use super::{ContainerHandle, ProcessHandle};
use crate::io::DEFAULT_LIMIT;
use crate::{Error, ProcessOutput};

impl ContainerHandle {
    /// Reads what its init writes while waiting until it has ended: both streams at once, so that the process is never held
    /// back by a full pipe. Of each stream the first 16 MiB are kept; see
    /// [`output_with_limit`](Self::output_with_limit) for another limit.
    ///
    /// It takes the ends of pipes ([`Stdio::Pipe`](crate::Stdio::Pipe)), and attaches to what is
    /// [`Stdio::Shared`](crate::Stdio::Shared). An input that nobody has taken is closed, so that a program that reads to the
    /// end of it ends; to write to it, take it before. That the process could not be started is no error here: its exit says so.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.run(ContainerSpec::host(["sh", "-c", "echo hello; exit 3"]).piped()).await?;
    /// let output = container.output().await?;
    /// assert_eq!((&*output.stdout_lossy(), output.exit.status), ("hello\n", ExitStatus::Code(3)));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Cancel safety
    /// When a future of it is dropped before it is ready, what was read is lost, and so are the ends of the pipes that it
    /// has taken: a process that goes on writing gets SIGPIPE. It is not cancelled.
    ///
    /// # Errors
    /// [`Error::NoOutput`] when neither stdout nor stderr can be read: the specification gives them no pipe (see
    /// [`ContainerSpec::piped`](crate::ContainerSpec::piped)), or they were taken. [`Error::Pipe`] when a pipe cannot be read.
    pub async fn output(&self) -> Result<ProcessOutput, Error> {
        self.output_with_limit(DEFAULT_LIMIT).await
    }

    /// The same with another limit for each of the two streams, in bytes. What goes over it is read all the same, is dropped,
    /// and is counted.
    ///
    /// # Cancel safety
    /// As [`output`](Self::output).
    ///
    /// # Errors
    /// As [`output`](Self::output).
    pub async fn output_with_limit(&self, limit: usize) -> Result<ProcessOutput, Error> {
        let sources = self.io.take_sources();
        let sources =
            sources.ok_or_else(|| Error::NoOutput { process: ProcessRef::init(self.id.clone()) })?;
        sources.collect(limit, self.wait()).await.map_err(Error::Pipe)
    }
}

impl ProcessHandle {
    /// Reads what it writes while waiting until it has ended, as [`ContainerHandle::output`].
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.run(ContainerSpec::host(["sleep", "60"])).await?;
    /// let exec = container.exec(ExecSpec::new(["sh", "-c", "echo hello"]).piped()).await?;
    /// let output = exec.output_with_limit(4).await?;
    /// assert_eq!((output.stdout.as_slice(), output.stdout_dropped), (&b"hell"[..], 2));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Cancel safety
    /// As [`ContainerHandle::output`].
    ///
    /// # Errors
    /// As [`ContainerHandle::output`].
    pub async fn output(&self) -> Result<ProcessOutput, Error> {
        self.output_with_limit(DEFAULT_LIMIT).await
    }

    /// The same with another limit for each of the two streams, as [`ContainerHandle::output_with_limit`].
    ///
    /// # Cancel safety
    /// As [`ContainerHandle::output`].
    ///
    /// # Errors
    /// As [`ContainerHandle::output`].
    pub async fn output_with_limit(&self, limit: usize) -> Result<ProcessOutput, Error> {
        let sources = self.io.take_sources();
        let sources = sources.ok_or_else(|| Error::NoOutput { process: self.id.clone() })?;
        sources.collect(limit, self.wait()).await.map_err(Error::Pipe)
    }
}
