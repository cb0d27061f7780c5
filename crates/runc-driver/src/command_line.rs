//! The runtime's command line: arguments, calls and answers.
//!
//! Every call has its own log, so that no call reads the error of another one. Every call has a deadline, so
//! that a hanging runtime becomes an error that names the call.

mod arguments;
mod calls;
mod runtime;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use executor_core::Resources;
use executor_core::lifecycle::{ContainerId, HostPid, Signal};
use executor_core::metrics::RuntimeCalls;
use executor_disk::Dir;
use executor_host::{HostClient, Root, log_prefix};
use serde::Deserialize;

use self::arguments::limits;
use crate::image::{self, Images};
use crate::oci::{OciFeatures, OciState};
use crate::vulnerabilities::{KnownVulnerability, known_vulnerabilities};
use crate::{Error, Result};

/// How many bytes of an answer are read, at most.
const ANSWER_LIMIT: u64 = 16 << 20;

/// How many bytes of a log are read, at most.
const LOG_LIMIT: u64 = 16 << 20;

/// The environment variables that a runtime inherits. With `NOTIFY_SOCKET`, runc would wait for a message
/// that never arrives. With `LISTEN_FDS`, it would pass our sockets to the container.
const KEPT_VARIABLES: [&str; 5] = ["PATH", "HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "TMPDIR"];

/// The executor that makes the calls.
#[derive(Clone)]
struct Caller {
    /// The runtime's `--root`. The logs of the calls are in it.
    state: Arc<Dir>,
    log_prefix: String,
    /// What its runtimes have in their environment.
    mark: String,
}

/// A runtime with runc's command line, and its state directory.
#[derive(Clone)]
pub struct CommandLine {
    program: PathBuf,
    /// The executor that makes the calls. If absent, they use the runtime's own default state.
    caller: Option<Caller>,
    no_pivot: bool,
    deadline: Duration,
    host: HostClient,
    /// The copy of the program in memory, if that is enabled.
    images: Option<Arc<Images>>,
    /// Keeps the program open for reading, for the sake of `image::read_only`. `None` if it cannot be read.
    _readable: Option<Arc<File>>,
    calls: Arc<AtomicU64>,
    measured: RuntimeCalls,
}

impl CommandLine {
    pub(crate) fn new(
        program: PathBuf,
        no_pivot: bool,
        in_memory: bool,
        deadline: Duration,
        host: HostClient,
    ) -> Self {
        let images = in_memory.then(|| Arc::new(Images::new(&program)));
        let readable = image::hold(&program);
        Self {
            program,
            caller: None,
            no_pivot,
            deadline,
            host,
            images,
            _readable: readable.ok().map(Arc::new),
            calls: Arc::default(),
            measured: RuntimeCalls::uncounted(),
        }
    }

    /// The same for the containers of an executor.
    pub(crate) fn with_root(&self, root: &Root, host: HostClient, measured: RuntimeCalls) -> Self {
        let caller = Caller {
            state: Arc::clone(root.runtime_state()),
            log_prefix: log_prefix(root.executor()),
            mark: root.mark().to_owned(),
        };
        Self { caller: Some(caller), host, measured, ..self.clone() }
    }

    /// The runtime's program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The first line of `--version`, as in `runc version 1.1.5`.
    ///
    /// # Errors
    /// When it cannot be executed, fails or hangs.
    pub async fn version(&self) -> Result<String> {
        let text = self.answer(None, &["--version".into()]).await?;
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// The vulnerabilities that a runtime of this version has, unless a distribution has fixed them without a new version.
    ///
    /// # Errors
    /// When it cannot be executed, fails or hangs.
    pub async fn known_vulnerabilities(&self) -> Result<Vec<KnownVulnerability>> {
        Ok(known_vulnerabilities(&self.version().await?))
    }

    /// The answer of `features`, which runc has from 1.1 on and crun from 1.8.6 on.
    ///
    /// # Errors
    /// When the runtime does not have the command, fails or hangs.
    pub async fn features(&self) -> Result<OciFeatures> {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct FeaturesAnswer {
            oci_version_min: String,
            oci_version_max: String,
            hooks: Vec<String>,
        }
        let FeaturesAnswer { oci_version_min, oci_version_max, hooks } =
            self.json(None, &["features".into()]).await?;
        Ok(OciFeatures { oci_version_min, oci_version_max, hooks })
    }

    /// The state of a container.
    ///
    /// # Errors
    /// When there is no such container, or the runtime fails or hangs.
    pub async fn state(&self, id: &ContainerId) -> Result<OciState> {
        self.json(Some(id), &["state".into(), "--".into(), id.as_str().into()]).await.map(StateAnswer::into)
    }

    /// The host pids of all processes in a container.
    ///
    /// # Errors
    /// When there is no such container, or the runtime fails or hangs.
    pub async fn ps(&self, id: &ContainerId) -> Result<Vec<HostPid>> {
        let args = ["ps", "--format", "json", "--", id.as_str()].map(OsString::from);
        let pids: Option<Vec<u32>> = self.json(Some(id), &args).await?;
        Ok(pids.into_iter().flatten().filter_map(HostPid::new).collect())
    }

    /// Has the runtime send a signal to a container's init.
    ///
    /// # Errors
    /// When there is no such container or it does not run, or the runtime fails or hangs.
    pub async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        let args = ["kill", "--", id.as_str(), &signal.number().to_string()].map(OsString::from);
        self.answer(Some(id), &args).await.map(drop)
    }

    /// Executes the program of a created container.
    ///
    /// # Errors
    /// When there is no such container or it is not created, or the runtime fails or hangs.
    pub async fn start(&self, id: &ContainerId) -> Result<()> {
        self.answer(Some(id), &["start".into(), "--".into(), id.as_str().into()]).await.map(drop)
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// When there is no such container or it does not run, or the runtime fails or hangs.
    pub async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.answer(Some(id), &["pause".into(), "--".into(), id.as_str().into()]).await.map(drop)
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// When there is no such container or it is not frozen, or the runtime fails or hangs.
    pub async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.answer(Some(id), &["resume".into(), "--".into(), id.as_str().into()]).await.map(drop)
    }

    /// Changes the limits of a container. Absent fields keep their value.
    ///
    /// # Errors
    /// When there is no such container or it does not run, or the runtime fails or hangs.
    pub async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let mut args = vec!["update".into()];
        args.extend(limits(resources));
        args.extend(["--".into(), id.as_str().into()]);
        self.answer(Some(id), &args).await.map(drop)
    }

    /// Kills and removes a container. A container that does not exist is not an error.
    ///
    /// # Errors
    /// When the runtime fails or hangs.
    pub async fn delete(&self, id: &ContainerId) -> Result<()> {
        let args = ["delete", "--force", "--", id.as_str()].map(OsString::from);
        match self.answer(Some(id), &args).await {
            // The messages of runc and of crun.
            Err(Error::Refused { words, .. })
                if ["does not exist", "/status`: No such file"].iter().any(|known| words.contains(known)) =>
            {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }
}

/// The `OciState` of the OCI specification, as far as it is used.
#[derive(Deserialize)]
pub(crate) struct StateAnswer {
    id: String,
    status: String,
    #[serde(default)]
    pid: u32,
}

impl From<StateAnswer> for OciState {
    fn from(answer: StateAnswer) -> Self {
        let StateAnswer { id, status, pid } = answer;
        Self { id, status, pid: HostPid::new(pid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_runtime_are_understood() {
        let state: StateAnswer =
            serde_json::from_str(r#"{"ociVersion":"1.0.2","id":"c","pid":0,"status":"stopped"}"#).unwrap();
        assert_eq!(OciState::from(state), OciState { id: "c".into(), status: "stopped".into(), pid: None });
    }
}
