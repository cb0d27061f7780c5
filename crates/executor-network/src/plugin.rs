//! One call of a CNI plugin: a program that reads its task from the environment and stdin, and answers in JSON on stdout.

use std::env;
use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use executor_core::spawn_without_descriptors;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use crate::error::{NetworkError, Plugin};

/// How long a plugin may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a plugin is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Add,
    Check,
    Del,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
        }
    }
}

/// What a plugin does it for.
#[derive(Clone, Debug)]
pub(crate) struct Subject<'a> {
    /// CNI's container id. It is the name of the attachment, not the id of a container of ours.
    pub(crate) id: &'a str,
    pub(crate) namespace: PathBuf,
    pub(crate) interface: &'a str,
}

/// Calls the plugin that `config` names as its type. `None` if the plugin succeeds without an answer in JSON.
pub(crate) fn call(
    dirs: &[PathBuf],
    action: Action,
    subject: &Subject<'_>,
    config: &Value,
) -> Result<Option<Value>, NetworkError> {
    let name = config["type"].as_str().unwrap_or_default();
    let plugin = Plugin { name: name.to_owned(), action: action.name() };
    let Some(program) = dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file()) else {
        return Err(NetworkError::PluginMissing { plugin, dirs: dirs.to_vec() });
    };
    let mut command = Command::new(&program);
    command
        .env("CNI_COMMAND", action.name())
        .env("CNI_CONTAINERID", subject.id)
        .env("CNI_NETNS", &subject.namespace)
        .env("CNI_IFNAME", subject.interface)
        .env("CNI_PATH", env::join_paths(dirs).unwrap_or_default())
        .env_remove("CNI_ARGS");
    let answer = match run(command, config.to_string()) {
        Ok(Some(answer)) => answer,
        Ok(None) => return Err(NetworkError::PluginTimedOut { plugin, after: DEADLINE }),
        Err(source) => return Err(NetworkError::PluginNotRun { plugin, source }),
    };
    let json = serde_json::from_slice::<Value>(&answer.stdout).ok();
    if answer.status.success() {
        return Ok(json);
    }
    let words = json
        .as_ref()
        .and_then(words)
        .unwrap_or_else(|| format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.stderr).trim()));
    let code = json.and_then(|error| error["code"].as_u64());
    Err(NetworkError::PluginRefused { plugin, code, words })
}

/// The text of a plugin's error.
fn words(error: &Value) -> Option<String> {
    let message = error["msg"].as_str()?;
    match error["details"].as_str().filter(|details| !details.is_empty()) {
        Some(details) => Some(format!("{message}: {details}")),
        None => Some(message.to_owned()),
    }
}

/// Runs a plugin to its end. `None` if it took too long and was killed.
fn run(mut command: Command, config: String) -> io::Result<Option<Output>> {
    let ((stdin, task), (stdout, their_stdout), (stderr, their_stderr)) = (pipe()?, pipe()?, pipe()?);
    command.stdin(stdin).stdout(their_stdout).stderr(their_stderr);
    let mut child = spawn_without_descriptors(|| command.spawn())?;
    // It holds the plugin's ends of the pipes.
    drop(command);
    let answer = converse(&child, config, task, [stdout, stderr]);
    if !matches!(answer, Ok(Some(_))) {
        let _gone = child.kill();
    }
    let status = child.wait()?;
    Ok(answer?.map(|[stdout, stderr]| Output { status, stdout: read(stdout), stderr: read(stderr) }))
}

/// A thread that reads one output to its end.
type Reader = JoinHandle<Vec<u8>>;

fn read(reader: Reader) -> Vec<u8> {
    reader.join().unwrap_or_default()
}

/// Writes to the plugin's stdin and reads its outputs, at the same time, until it ends. `None` if it takes too long: then we
/// do not wait for the readers, because programs that the plugin has started may keep its outputs open.
fn converse(
    child: &Child,
    config: String,
    mut stdin: PipeWriter,
    [stdout, stderr]: [PipeReader; 2],
) -> io::Result<Option<[Reader; 2]>> {
    let thread = || thread::Builder::new().name("longshore-cni".into());
    thread().spawn(move || {
        // If the plugin does not read its stdin, its exit code says whether that is an error.
        let _closed = stdin.write_all(config.as_bytes());
    })?;
    let reader = |mut stream: PipeReader| {
        thread().spawn(move || {
            let mut bytes = Vec::new();
            let _partly = stream.read_to_end(&mut bytes);
            bytes
        })
    };
    let (stdout, stderr) = (reader(stdout)?, reader(stderr)?);
    Ok((!ends_late(child)).then_some([stdout, stderr]))
}

fn ends_late(child: &Child) -> bool {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return false };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let deadline = Timespec { tv_sec: DEADLINE.as_secs().try_into().unwrap_or_default(), tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&deadline)), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_core::lifecycle::with_causes;
    use serde_json::json;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_plugin_gets_its_task_and_answers() {
        let dir = tempfile::tempdir().unwrap();
        let plugin = |name: &str, script: &str| {
            let file = dir.path().join(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        };
        plugin(
            "echoes",
            r#"cat >/dev/null; echo "{\"said\": \"$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME\"}""#,
        );
        plugin("quiet", "cat >/dev/null");
        plugin("fails", r#"echo '{"code": 7, "msg": "no", "details": "really"}'; exit 1"#);
        plugin("breaks", "echo oh >&2; exit 3");
        // A descriptor of the embedder's that is not close-on-exec is not inherited.
        let root = fs::File::open("/").unwrap();
        let inheritable = rustix::io::fcntl_dupfd_cloexec(&root, 100).unwrap();
        rustix::io::fcntl_setfd(&inheritable, rustix::io::FdFlags::empty()).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&inheritable);
        plugin("looks", &format!("cat >/dev/null; [ ! -e /proc/$$/fd/{number} ] && echo '{{}}'"));
        let dirs = [PathBuf::from("/nowhere"), dir.path().to_owned()];
        let subject = Subject { id: "c", namespace: "/n".into(), interface: "eth0" };
        let call = |kind: &str| {
            let answer = call(&dirs, Action::Add, &subject, &json!({"type": kind}));
            answer.map_err(|error| with_causes(&error))
        };
        assert_eq!(call("echoes"), Ok(Some(json!({"said": "ADD c /n eth0"}))));
        assert_eq!(call("quiet"), Ok(None));
        assert_eq!(call("looks"), Ok(Some(json!({}))));
        assert_eq!(call("fails"), Err("plugin fails, ADD: no: really".into()));
        assert_eq!(call("breaks"), Err("plugin breaks, ADD: exit status: 3: oh".into()));
        assert!(call("missing").unwrap_err().starts_with("plugin missing, ADD: not found in /nowhere, "));
    }
}
