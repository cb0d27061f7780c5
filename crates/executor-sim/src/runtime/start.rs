//! How a process is started: what goes wrong, how long it takes, and what happens when the start is abandoned.

use std::sync::Arc;

use executor_core::lifecycle::{HostPid, ProcessRef, StartFailure, StartFailureKind};
use executor_core::{BoxFuture, ChildStdio, Kill};
use tokio::sync::watch;

use super::{Shared, SimRuntime};
use crate::lock;
use crate::program::{Program, StartTrouble};
use crate::simulation::HANG;

/// How far a process is started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    Created,
    Runs,
}

impl SimRuntime {
    pub(super) fn start_process(
        &self,
        process: ProcessRef,
        program: Result<Program, StartFailure>,
        stdio: ChildStdio,
        until: Until,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>> {
        let abandoned = self.may_be_abandoned(&process);
        let shared = Arc::clone(&self.shared);
        self.while_current(async move {
            let answer = shared.start(&process, program, stdio, until, abandoned).await;
            lock(&shared.state).starting.remove(&process);
            answer
        })
    }

    /// From now on the start of this process can be abandoned.
    pub(super) fn may_be_abandoned(&self, process: &ProcessRef) -> watch::Receiver<bool> {
        let (abandon, abandoned) = watch::channel(false);
        lock(&self.shared.state).starting.insert(process.clone(), abandon);
        abandoned
    }
}

impl Shared {
    async fn start(
        &self,
        process: &ProcessRef,
        program: Result<Program, StartFailure>,
        stdio: ChildStdio,
        until: Until,
        mut abandoned: watch::Receiver<bool>,
    ) -> Result<HostPid, StartFailure> {
        let mut program = program?;
        for fault in self.dice.start_faults() {
            program.troubles.add(fault);
        }
        self.dice.take_time().await;
        let ends_first = start_troubles(std::mem::take(&mut program.troubles.start), &mut abandoned).await?;
        let (pid, ended) = match until {
            Until::Created => self.processes.create(process, program, stdio),
            Until::Runs => self.processes.start(process, program, stdio),
        };
        // A process that is only created does not end by itself.
        if ends_first && until == Until::Runs {
            // The runtime answers after the process has ended, or after a minute. If it is abandoned, it kills the process.
            tokio::select! {
                biased;
                _ = ended => {}
                () = tokio::time::sleep(HANG) => {}
                _ = abandoned.wait_for(|abandoned| *abandoned) => drop(self.processes.kill(process, Kill::default())),
            }
        }
        self.dice.take_time().await;
        Ok(pid)
    }
}

/// What goes wrong with a start before the process exists. Returns whether the process's exit is to be seen before the
/// runtime's answer.
async fn start_troubles(
    troubles: Vec<StartTrouble>,
    abandoned: &mut watch::Receiver<bool>,
) -> Result<bool, StartFailure> {
    let was_abandoned = || StartFailure::new(StartFailureKind::RuntimeTimedOut, "the start was abandoned");
    let mut ends_first = false;
    for trouble in troubles {
        match trouble {
            StartTrouble::Slow(time) => tokio::select! {
                biased;
                () = tokio::time::sleep(time) => {}
                _ = abandoned.wait_for(|abandoned| *abandoned) => return Err(was_abandoned()),
            },
            StartTrouble::Fails(failure) => return Err(failure),
            StartTrouble::Hangs => {
                let _sender_gone = abandoned.wait_for(|abandoned| *abandoned).await;
                return Err(was_abandoned());
            }
            StartTrouble::EndsFirst => ends_first = true,
        }
    }
    Ok(ends_first)
}
