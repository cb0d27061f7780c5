//! One call of a CNI plugin: a program that is told what to do by its environment and stdin, and answers in JSON.

use std::env;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

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

/// For whom it is done.
#[derive(Clone, Debug)]
pub(crate) struct Subject<'a> {
    /// CNI's name of the attachment, which is ours.
    pub(crate) id: &'a str,
    pub(crate) namespace: PathBuf,
    pub(crate) interface: &'a str,
}

/// Calls the plugin that `config` is for. `None` is an empty answer.
pub(crate) fn call(
    dirs: &[PathBuf],
    action: Action,
    subject: &Subject<'_>,
    config: &Value,
) -> Result<Option<Value>, String> {
    let kind = config["type"].as_str().unwrap_or_default();
    let failed = |why: &str| format!("plugin {kind}, {}: {why}", action.name());
    let program = dirs.iter().map(|dir| dir.join(kind)).find(|file| file.is_file()).ok_or_else(|| {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        failed(&format!("it is in none of {}", dirs.join(", ")))
    })?;
    let mut command = Command::new(&program);
    command
        .env("CNI_COMMAND", action.name())
        .env("CNI_CONTAINERID", subject.id)
        .env("CNI_NETNS", &subject.namespace)
        .env("CNI_IFNAME", subject.interface)
        .env("CNI_PATH", env::join_paths(dirs).unwrap_or_default())
        .env_remove("CNI_ARGS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&error.to_string()))?;
    let answer = converse(&mut child, config.to_string());
    let ended = child.wait().map_err(|error| failed(&error.to_string()))?;
    let (stdout, stderr) = answer.map_err(|why| failed(&why))?;
    let json = serde_json::from_slice::<Value>(&stdout).ok();
    if ended.success() {
        return Ok(json);
    }
    let words = json.as_ref().and_then(|error| {
        let details = error["details"].as_str().filter(|details| !details.is_empty());
        Some(match (error["msg"].as_str()?, details) {
            (message, Some(details)) => format!("{message}: {details}"),
            (message, None) => message.to_owned(),
        })
    });
    let words = words.unwrap_or_else(|| format!("{ended}: {}", String::from_utf8_lossy(&stderr).trim()));
    Err(failed(&words))
}

/// Tells it what to do and reads what it says, both ways at once. It is killed when it takes too long.
fn converse(child: &mut Child, told: String) -> Result<(Vec<u8>, Vec<u8>), String> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let teller = thread::spawn(move || {
        // Who does not read it says so by its exit code.
        let _closed = stdin.map(|mut stdin| stdin.write_all(told.as_bytes()));
    });
    let read = |stream: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _partly = stream.map(|mut stream| stream.read_to_end(&mut bytes));
            bytes
        })
    };
    let (stdout, stderr) =
        (read(stdout.map(|out| Box::new(out) as _)), read(stderr.map(|err| Box::new(err) as _)));
    let late = ends_late(child);
    if late {
        let _gone = child.kill();
    }
    drop(teller.join());
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    match late {
        true => Err(format!("no answer within {DEADLINE:?}; it was killed")),
        false => Ok((stdout, stderr)),
    }
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
    use serde_json::json;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_plugin_is_told_and_answers() {
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
        let dirs = [PathBuf::from("/nowhere"), dir.path().to_owned()];
        let subject = Subject { id: "c", namespace: "/n".into(), interface: "eth0" };
        let call = |kind: &str| call(&dirs, Action::Add, &subject, &json!({"type": kind}));
        assert_eq!(call("echoes"), Ok(Some(json!({"said": "ADD c /n eth0"}))));
        assert_eq!(call("quiet"), Ok(None));
        assert_eq!(call("fails"), Err("plugin fails, ADD: no: really".into()));
        assert_eq!(call("breaks"), Err("plugin breaks, ADD: exit status: 3: oh".into()));
        assert!(call("missing").unwrap_err().starts_with("plugin missing, ADD: it is in none of /nowhere, "));
    }
}
