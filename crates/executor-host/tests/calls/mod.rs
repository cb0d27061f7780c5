//! Calls of a host, and what they write. For the tests of both hosts.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, ExecId, ProcessRef};
use executor_core::{ChildFd, ChildStdio};
use executor_host::{CallEnd, Command, HostClient, Members, StdioSource};

pub(crate) fn sh(script: &str) -> Command {
    Command {
        program: "/bin/sh".into(),
        image: None,
        args: vec!["-c".into(), script.into()],
        env: vec![("PATH".into(), std::env::var_os("PATH").unwrap()), ("OURS".into(), "1".into())],
        stdio: [StdioSource::Null; 3],
    }
}

pub(crate) fn process(number: u64) -> ProcessRef {
    ProcessRef::exec(ContainerId::new("c").unwrap(), ExecId::numbered(number))
}

pub(crate) fn anywhere() -> Members {
    Members::Cgroup { path: String::new(), dirs: Vec::new() }
}

/// What a call writes, and how it ends.
pub(crate) async fn said(host: &HostClient, command: Command) -> (String, CallEnd) {
    let (mut ours, theirs) = std::io::pipe().unwrap();
    let stdio = ChildStdio { stdout: ChildFd::Fd(Arc::new(OwnedFd::from(theirs))), ..ChildStdio::default() };
    let call = host.spawn(command, None, &stdio).await.unwrap();
    drop(stdio);
    let ended = call.wait(Duration::from_secs(10), std::future::pending()).await;
    let mut said = String::new();
    ours.read_to_string(&mut said).unwrap();
    (said, ended)
}
