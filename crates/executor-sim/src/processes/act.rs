//! What a process does: the steps of its program, and what it reads and writes.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, ExitStatus, OomEvidence, ProcessRef, RawExit, Signal};
use executor_core::{BoxFuture, ChildFd, ChildStdio};
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::{Processes, ROUND};
use crate::lock;
use crate::program::Step;

impl Processes {
    /// Runs steps as a process, in a task. If no step ends the process, it ends with `then`; with `None` it goes on.
    pub(super) fn run(
        self: &Arc<Self>,
        process: &ProcessRef,
        stdio: ChildStdio,
        steps: Vec<Step>,
        then: Option<RawExit>,
    ) {
        let (processes, doer) = (Arc::clone(self), process.clone());
        let task = tokio::spawn(async move {
            let ending = processes.act(&doer, &stdio, &steps).await;
            drop(stdio);
            if let Some(ending) = ending.or(then) {
                processes.end(&doer, ending);
            }
        });
        if let Some(alive) = lock(&self.table).alive.get_mut(process) {
            alive.tasks.push(task.abort_handle());
        }
    }

    pub(super) fn act<'a>(
        self: &'a Arc<Self>,
        process: &'a ProcessRef,
        stdio: &'a ChildStdio,
        steps: &'a [Step],
    ) -> BoxFuture<'a, Option<RawExit>> {
        async move {
            for step in steps {
                if let Some(ending) = self.take_step(process, stdio, step).await {
                    return Some(ending);
                }
                self.thawed(&process.container).await;
            }
            None
        }
        .boxed()
    }

    /// Takes one step. Returns an exit if the process ends with it.
    async fn take_step(
        self: &Arc<Self>,
        process: &ProcessRef,
        stdio: &ChildStdio,
        step: &Step,
    ) -> Option<RawExit> {
        match step {
            Step::Sleep(time) => tokio::time::sleep(*time).await,
            Step::Forever => std::future::pending().await,
            Step::Stdout(text) => write(&stdio.stdout, text).await,
            Step::Stderr(text) => write(&stdio.stderr, text).await,
            Step::CopyStdin => copy(&stdio.stdin, &stdio.stdout).await,
            Step::Trap(signal, trap) => {
                if let Some(alive) = lock(&self.table).alive.get_mut(process) {
                    alive.traps.insert(*signal, trap.clone());
                }
            }
            Step::Fork(time) => self.fork(process, stdio.clone(), *time),
            Step::Repeat(steps) => loop {
                if let Some(ending) = self.act(process, stdio, steps).await {
                    return Some(ending);
                }
                tokio::time::sleep(ROUND).await;
            },
            Step::Exit(code) => return Some(RawExit::with(ExitStatus::Code(*code))),
            Step::Die(signal) => {
                self.signal(process, *signal);
                tokio::task::yield_now().await;
            }
            Step::Use(usage) => self.set_usage(&process.container, usage),
            Step::OutOfMemory => {
                let usage = Some(Box::new(self.oom_kill(process, Some(process.process.clone()))));
                let oom = Some(OomEvidence::Killed);
                return Some(RawExit { usage, oom, ..RawExit::with(ExitStatus::Signal(Signal::KILL)) });
            }
            Step::ChildOutOfMemory => {
                self.oom_kill(process, None);
            }
        }
        None
    }

    pub(super) fn fork(self: &Arc<Self>, process: &ProcessRef, stdio: ChildStdio, time: Duration) {
        let child = tokio::spawn(async move {
            tokio::time::sleep(time).await;
            drop(stdio);
        });
        lock(&self.table).forks.entry(process.clone()).or_default().push(child.abort_handle());
    }

    /// Waits while the container is frozen.
    pub(super) async fn thawed(&self, container: &ContainerId) {
        let frozen = lock(&self.table).frozen.get(container).map(watch::Sender::subscribe);
        if let Some(mut frozen) = frozen {
            let _released = frozen.wait_for(|frozen| !frozen).await;
        }
    }
}

/// Writes to an output. If its reader is gone, the text is lost, as if EPIPE were ignored.
async fn write(to: &ChildFd, text: &[u8]) {
    match to {
        ChildFd::Null => {}
        ChildFd::Inherit => drop(std::io::stdout().write_all(text)),
        ChildFd::Fd(fd) => match opened(fd, pipe::Sender::from_owned_fd) {
            Ok(mut pipe) => drop(pipe.write_all(text).await),
            Err(file) => drop(file.map(|mut file| file.write_all(text))),
        },
    }
}

async fn copy(from: &ChildFd, to: &ChildFd) {
    let ChildFd::Fd(fd) = from else { return };
    let mut chunk = vec![0; 64 << 10];
    match opened(fd, pipe::Receiver::from_owned_fd) {
        Ok(mut pipe) => {
            while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
                write(to, &chunk[..read]).await;
            }
        }
        Err(file) => {
            let mut text = Vec::new();
            drop(file.map(|mut file| std::io::Read::read_to_end(&mut file, &mut text)));
            write(to, &text).await;
        }
    }
}

/// A duplicate of `fd` as an end of a pipe, or as a file if it is not a pipe.
fn opened<P>(
    fd: &Arc<OwnedFd>,
    pipe: impl FnOnce(OwnedFd) -> std::io::Result<P>,
) -> Result<P, std::io::Result<File>> {
    let duplicate = || fd.try_clone();
    duplicate().and_then(pipe).map_err(|_| duplicate().map(File::from))
}
