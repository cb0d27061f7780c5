//! One call of the runtime: executed, its answer read, its log read and removed.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use executor_core::lifecycle::{ContainerId, ExitStatus};
use executor_core::metrics::CallOutcome;
use executor_core::{BoxFuture, ChildFd, ChildStdio};
use executor_disk::Dir;
use executor_host::{Call, CallEnd, Command, EXECUTOR_VARIABLE, StdioSource};
use futures::FutureExt;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::arguments::Step;
use super::{ANSWER_LIMIT, Caller, CommandLine, KEPT_VARIABLES, LOG_LIMIT};
use crate::image::Images;
use crate::oci::{Launch, OciRuntime, RuntimeCall};
use crate::{Error, Result, failure, id_helpers};

impl CommandLine {
    /// Executes the runtime with its own log.
    fn call(
        &self,
        args: &[OsString],
        env: Vec<(OsString, OsString)>,
        stdio: &ChildStdio,
    ) -> (BoxFuture<'static, executor_host::Result<Call>>, Log) {
        let mut all: Vec<OsString> = Vec::new();
        let mut log = Log(None);
        if let Some(Caller { state, log_prefix, .. }) = &self.caller {
            let number = self.calls.fetch_add(1, Ordering::Relaxed);
            let file = format!("{log_prefix}{number}");
            all.extend(["--root".into(), state.path().into()]);
            all.extend(["--log".into(), state.path_of(&file).into(), "--log-format".into(), "json".into()]);
            log = Log(Some((Arc::clone(state), file)));
        }
        all.extend_from_slice(args);
        let command = Command {
            program: self.program.clone().into(),
            image: None,
            args: all,
            env,
            stdio: [StdioSource::Null; 3],
        };
        let spawned = self.host.spawn(command, self.images.as_ref().and_then(Images::image), stdio);
        let images = self.images.clone();
        let spawned = spawned.inspect(move |call| {
            if let (Some(images), Ok(call)) = (images, call) {
                images.note_fate(call.image());
            }
        });
        (spawned.boxed(), log)
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut variables = Vec::new();
        // It comes first: a sweep reads only the beginning of an environment.
        if let Some(caller) = &self.caller {
            variables.push((EXECUTOR_VARIABLE.into(), caller.mark.clone().into()));
        }
        for name in KEPT_VARIABLES {
            if let Some(value) = std::env::var_os(name) {
                variables.push((name.into(), value));
            }
        }
        variables
    }

    pub(super) fn launch(
        &self,
        id: &ContainerId,
        step: &Step<'_>,
        launch: &Launch,
        stdio: &ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>> {
        let mut env = self.environment();
        if let Some(bundle) = step.bundle() {
            for (_, path) in env.iter_mut().filter(|(name, _)| name == "PATH") {
                *path = id_helpers::path(bundle, std::mem::take(path));
            }
        }
        let (call, log) = self.call(&step.args(id, launch, self.no_pivot), env, stdio);
        async move { Ok(RuntimeCall::new(call.await?, || log.take().boxed())) }.boxed()
    }

    pub(super) async fn json<T: for<'a> Deserialize<'a>>(
        &self,
        id: Option<&ContainerId>,
        args: &[OsString],
    ) -> Result<T> {
        let answer = self.answer(id, args).await?;
        let (op, subject) = self.names(id, args);
        serde_json::from_slice(&answer).map_err(|source| Error::Answer { op, subject, source })
    }

    /// Calls the runtime, and returns what it has written to stdout. If the future is dropped, the call still
    /// continues to its end: otherwise it would leave a log or a runtime behind.
    pub(super) async fn answer(&self, id: Option<&ContainerId>, args: &[OsString]) -> Result<Vec<u8>> {
        let (call, own_id, own_args) = (self.clone(), id.cloned(), args.to_vec());
        let measured = self.measured.begin(operation(args).trim_start_matches('-'));
        let whole = async move {
            let answer = call.whole_call(own_id.as_ref(), &own_args).await;
            measured.end(match &answer {
                Ok(_) => CallOutcome::Ok,
                Err(Error::TimedOut { .. }) => CallOutcome::TimedOut,
                Err(_) => CallOutcome::Failed,
            });
            answer
        };
        tokio::spawn(whole).await?
    }

    async fn whole_call(&self, id: Option<&ContainerId>, args: &[OsString]) -> Result<Vec<u8>> {
        let (op, subject) = self.names(id, args);
        let failed = |source| Error::Io { op: op.clone(), subject: subject.clone(), source };
        let (ours, theirs) = std::io::pipe().map_err(failed)?;
        let stdout = ChildFd::Fd(Arc::new(OwnedFd::from(theirs)));
        // The runtime writes its errors to its log. On stderr it only repeats them.
        let stdio = ChildStdio { stdout, ..ChildStdio::default() };
        let (call, log) = self.call(args, self.environment(), &stdio);
        drop(stdio);
        let reader = pipe::Receiver::from_owned_fd(ours.into()).map_err(failed)?;
        let runtime = call.await?;
        let mut answer = Vec::new();
        let mut limited = reader.take(ANSWER_LIMIT);
        let read = tokio::time::timeout(self.deadline, limited.read_to_end(&mut answer));
        let (ended, read) = tokio::join!(runtime.wait(self.deadline, std::future::pending()), read);
        let words = log.take().await;
        match (ended, read) {
            (CallEnd::Ended(ExitStatus::Code(0)), Ok(read)) => read.map(|_| answer).map_err(failed),
            (CallEnd::Ended(ExitStatus::Code(0)), Err(_)) | (CallEnd::Overdue | CallEnd::Abandoned, _) => {
                Err(Error::TimedOut { op, subject, after: self.deadline })
            }
            (CallEnd::Ended(status), _) => Err(match words {
                Some(words) => Error::Refused { op, subject, words },
                None => Error::Failed { op, subject, status },
            }),
        }
    }

    /// The operation and its subject, for error messages.
    fn names(&self, id: Option<&ContainerId>, args: &[OsString]) -> (String, String) {
        let subject = id.map_or_else(|| self.program.display().to_string(), ToString::to_string);
        (format!("{} {}", self.name(), operation(args)), subject)
    }
}

/// The command of the runtime, as `state`.
fn operation(args: &[OsString]) -> Cow<'_, str> {
    args.first().map(|arg| arg.to_string_lossy()).unwrap_or_default()
}

/// The log of one call. It is removed when it was read or is dropped.
pub(crate) struct Log(Option<(Arc<Dir>, String)>);

impl Log {
    /// The runtime's words about its failure.
    pub(crate) async fn take(self) -> Option<String> {
        let read = move || self.0.as_ref().map(|(dir, file)| dir.read(file, LOG_LIMIT));
        failure::words(&tokio::task::spawn_blocking(read).await.ok()??.ok()?)
    }
}

impl Drop for Log {
    /// The file is short, and removing it takes microseconds.
    fn drop(&mut self) {
        if let Some((dir, file)) = &self.0 {
            let _never_written = dir.remove_file(file);
        }
    }
}
