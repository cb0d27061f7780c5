//! Reads all output of a process while it waits for the end, so that the process cannot block on a full pipe.

use executor_lifecycle::ProcessRef;

use super::{ContainerHandle, ProcessHandle};
use crate::io::DEFAULT_LIMIT;
use crate::{Error, ProcessOutput};

impl ContainerHandle {
    /// Reads the output of init and waits for its end. Both streams are read at once, so the process never blocks on
    /// a full pipe. The first 16 MiB of each stream are kept; [`output_with_limit`](Self::output_with_limit) has
    /// another limit.
    ///
    /// This takes the ends of pipes ([`Stdio::Pipe`](crate::Stdio::Pipe)) and attaches to outputs that are
    /// [`Stdio::Shared`](crate::Stdio::Shared). An input that was not taken is closed, so a program that reads its
    /// stdin to the end ends. To write to it, take it before. If the process cannot be started, that is not an error
    /// here: the exit says so.
    ///
    /// It ends with the process: what something else that holds the pipe writes later than 1 s after the exit is not read, and
    /// the writer gets SIGPIPE.
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
    /// If the future is dropped, what was read is lost, and the ends of the pipes that it has taken are closed: a
    /// process that goes on writing gets SIGPIPE. The process is not cancelled.
    ///
    /// # Errors
    /// [`Error::NoOutput`] if neither stdout nor stderr can be read: the specification gives them no pipe (see
    /// [`ContainerSpec::piped`](crate::ContainerSpec::piped)), or they were taken. [`Error::Pipe`] if reading fails.
    pub async fn output(&self) -> Result<ProcessOutput, Error> {
        self.output_with_limit(DEFAULT_LIMIT).await
    }

    /// Does as [`output`](Self::output), and keeps the first `limit` bytes of each stream. The rest is read, dropped
    /// and counted.
    ///
    /// # Cancel safety
    /// As for [`output`](Self::output).
    ///
    /// # Errors
    /// As for [`output`](Self::output).
    pub async fn output_with_limit(&self, limit: usize) -> Result<ProcessOutput, Error> {
        let sources = self.io.take_sources();
        let sources =
            sources.ok_or_else(|| Error::NoOutput { process: ProcessRef::init(self.id.clone()) })?;
        sources.collect(limit, self.wait()).await.map_err(Error::Pipe)
    }
}

impl ProcessHandle {
    /// Reads the output of the process and waits for its end, as [`ContainerHandle::output`] does.
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
    /// As for [`ContainerHandle::output`].
    ///
    /// # Errors
    /// As for [`ContainerHandle::output`].
    pub async fn output(&self) -> Result<ProcessOutput, Error> {
        self.output_with_limit(DEFAULT_LIMIT).await
    }

    /// Does as [`output`](Self::output), and keeps the first `limit` bytes of each stream. The rest is read, dropped
    /// and counted.
    ///
    /// # Cancel safety
    /// As for [`ContainerHandle::output`].
    ///
    /// # Errors
    /// As for [`ContainerHandle::output`].
    pub async fn output_with_limit(&self, limit: usize) -> Result<ProcessOutput, Error> {
        let sources = self.io.take_sources();
        let sources = sources.ok_or_else(|| Error::NoOutput { process: self.id.clone() })?;
        sources.collect(limit, self.wait()).await.map_err(Error::Pipe)
    }
}
