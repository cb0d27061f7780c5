//! The whole actor system under random requests, in random orders, with random faults, against a small
//! model of what may come of each process. What is promised of every container is checked besides, at
//! the end of each simulation.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test may fail")]

use std::time::Duration;

use executor_core::lifecycle::{
    Cancel, CancelCause, ContainerId, Exit, ExitReason, ExitStatus, Refusal, Refused, Signal,
    StartFailureKind,
};
use executor_core::{ContainerHandle, ContainerSpec, Error, ExecSpec, KeepExited, ProcessHandle};
use executor_sim::{Program, Sim, SimRuntime, Simulation};
use proptest::prelude::*;

/// A program, and what it does when nobody disturbs it.
#[derive(Clone, Copy, Debug)]
enum Does {
    Exit { after: u64, code: u8 },
    RunForever { heeds_term: bool },
    NotExist,
}

#[derive(Clone, Debug)]
enum Op {
    Run { id: u8, does: Does },
    Create { id: u8, does: Does, keep: u64 },
    Start { id: u8 },
    Remove { id: u8 },
    Exec { id: u8, does: Does },
    CancelContainer { id: u8, grace: u64 },
    CancelExec { number: usize, grace: u64 },
    Signal { id: u8 },
    Pause { id: u8 },
    Resume { id: u8 },
    Pass { time: u64 },
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        4 => (0..200u64, any::<u8>()).prop_map(|(after, code)| Does::Exit { after, code }),
        3 => any::<bool>().prop_map(|heeds_term| Does::RunForever { heeds_term }),
        1 => Just(Does::NotExist),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let (id, grace) = (|| 0..4u8, || prop_oneof![Just(0), 1..300u64]);
    prop_oneof![
        4 => (id(), does()).prop_map(|(id, does)| Op::Run { id, does }),
        2 => (id(), does(), 0..300u64).prop_map(|(id, does, keep)| Op::Create { id, does, keep }),
        2 => id().prop_map(|id| Op::Start { id }),
        1 => id().prop_map(|id| Op::Remove { id }),
        4 => (id(), does()).prop_map(|(id, does)| Op::Exec { id, does }),
        2 => (id(), grace()).prop_map(|(id, grace)| Op::CancelContainer { id, grace }),
        2 => (0..8usize, grace()).prop_map(|(number, grace)| Op::CancelExec { number, grace }),
        1 => id().prop_map(|id| Op::Signal { id }),
        1 => id().prop_map(|id| Op::Pause { id }),
        1 => id().prop_map(|id| Op::Resume { id }),
        3 => (0..400u64).prop_map(|time| Op::Pass { time }),
    ]
}

impl Does {
    fn args(self) -> Vec<String> {
        let script = match self {
            Self::Exit { after, code } => {
                format!("sleep {}; exit {code}", Duration::from_millis(after).as_secs_f64())
            }
            Self::RunForever { heeds_term: true } => "trap 'exit 99' TERM; exec forever".into(),
            Self::RunForever { heeds_term: false } => "trap '' TERM; exec forever".into(),
            Self::NotExist => return vec!["nothing".into()],
        };
        vec!["sh".into(), "-c".into(), script.replace("exec forever", "while :; do sleep 1000; done")]
    }

    /// Whether this end is its own.
    fn ends_like(self, status: ExitStatus) -> bool {
        matches!(self, Self::Exit { code, .. } if status == ExitStatus::Code(code))
    }
}

/// What was asked for about a process.
#[derive(Clone, Copy, Debug)]
struct Request {
    does: Does,
    cancelled: bool,
    hung_up: bool,
    /// It is held at created until this is so.
    started: bool,
    /// For an exec, everything was asked of its container too.
    container: Option<usize>,
}

/// Everything that ran, and a model of it.
#[derive(Default)]
struct Run {
    containers: Vec<(ContainerHandle, Request)>,
    execs: Vec<(ProcessHandle, Request)>,
    faults: bool,
}

impl Run {
    /// The last container of this id.
    fn last(&mut self, id: u8) -> Option<(usize, &mut (ContainerHandle, Request))> {
        let name = name(id);
        self.containers.iter_mut().enumerate().rev().find(|(_, (container, _))| *container.id() == name)
    }

    async fn perform(&mut self, sim: &Sim, op: Op) {
        let cancel = |grace| match grace {
            0 => Cancel::now(),
            grace => Cancel::with_grace(Duration::from_millis(grace)),
        };
        match op {
            Op::Run { id, does } => {
                let released =
                    self.last(id).is_none_or(|(_, (container, _))| container.snapshot().left.is_some());
                match sim.executor.run(ContainerSpec::host(does.args()).id(name(id))).await {
                    Ok(container) => {
                        let asked = Request {
                            does,
                            cancelled: false,
                            hung_up: false,
                            started: true,
                            container: None,
                        };
                        self.containers.push((container, asked));
                    }
                    Err(Error::IdTaken { .. }) => assert!(!released, "{id} was released"),
                    Err(error) => panic!("{error}"),
                }
            }
            Op::Create { id, does, keep } => {
                let released =
                    self.last(id).is_none_or(|(_, (container, _))| container.snapshot().left.is_some());
                let keep = match keep {
                    0 => KeepExited::No,
                    1 => KeepExited::UntilRemoved,
                    time => KeepExited::For(Duration::from_millis(time)),
                };
                let spec = ContainerSpec::host(does.args()).id(name(id)).keep_exited(keep);
                match sim.executor.create(spec).await {
                    Ok(container) => {
                        let asked = Request {
                            does,
                            cancelled: false,
                            hung_up: false,
                            started: false,
                            container: None,
                        };
                        self.containers.push((container, asked));
                    }
                    Err(Error::IdTaken { .. }) => assert!(!released, "{id} was released"),
                    Err(error) => panic!("{error}"),
                }
            }
            Op::Start { id } => {
                if let Some((_, (container, asked))) = self.last(id) {
                    match container.start().await {
                        Ok(()) => {
                            assert!(!std::mem::replace(&mut asked.started, true), "it was started twice")
                        }
                        Err(Error::Refused { refused, .. }) => match refused.reason {
                            Refusal::Started => assert!(asked.started),
                            Refusal::Cancelled => assert!(asked.cancelled),
                            // Its exit need not be published yet.
                            Refusal::Stopped | Refusal::StoppedWithError { .. } => {}
                            _ => panic!("{refused:?}"),
                        },
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            Op::Remove { id } => {
                if let Some((_, (container, _))) = self.last(id) {
                    let exited = container.snapshot().exit.is_some();
                    assert!(container.remove().await.is_ok() >= exited, "what has exited can be removed");
                }
            }
            Op::Exec { id, does } => {
                let Some((number, (container, asked))) = self.last(id) else { return };
                let (cancelled, ended) = (asked.cancelled, container.snapshot().exit.is_some());
                match container.exec(ExecSpec::new(does.args())).await {
                    Ok(exec) => {
                        assert!(!cancelled && !ended, "it was taken by a container that is over");
                        let asked = Request {
                            does,
                            cancelled: false,
                            hung_up: false,
                            started: true,
                            container: Some(number),
                        };
                        self.execs.push((exec, asked));
                    }
                    Err(Error::Refused { refused: Refused { reason: Refusal::Cancelled, .. }, .. }) => {
                        assert!(cancelled)
                    }
                    Err(Error::Refused { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Op::CancelContainer { id, grace } => {
                if let Some((_, (container, asked))) = self.last(id) {
                    drop(container.cancel(cancel(grace)));
                    asked.cancelled = true;
                }
            }
            Op::CancelExec { number, grace } => {
                if let Some((exec, asked)) = self.execs.get_mut(number) {
                    drop(exec.cancel(cancel(grace)));
                    asked.cancelled = true;
                }
            }
            Op::Signal { id } => {
                if let Some((_, (container, asked))) = self.last(id) {
                    asked.hung_up |= container.signal(Signal::HUP).await.is_ok();
                }
            }
            Op::Pause { id } => {
                if let Some((_, (container, _))) = self.last(id) {
                    drop(container.pause().await);
                }
            }
            Op::Resume { id } => {
                if let Some((_, (container, _))) = self.last(id) {
                    drop(container.resume().await);
                }
            }
            Op::Pass { time } => sim.passes(Duration::from_millis(time)).await,
        }
    }

    /// Checks that each end is one that can have come of what was asked.
    async fn check(self) {
        for (number, (container, asked)) in self.containers.iter().enumerate() {
            let exit = container.wait().await;
            self.check_exit(&asked.does, *asked, &exit, false);
            for (exec, asked) in self.execs.iter().filter(|(_, asked)| asked.container == Some(number)) {
                let ended = exec.wait().await;
                let container = self.containers[number].1;
                let all = Request { cancelled: asked.cancelled || container.cancelled, ..*asked };
                self.check_exit(&asked.does, all, &ended, true);
            }
        }
    }

    fn check_exit(&self, does: &Does, asked: Request, exit: &Exit, exec: bool) {
        let explained = match &exit.reason {
            // With its init, a pid namespace ends; the kernel may be seen to do it before we do.
            ExitReason::Normal => {
                does.ends_like(exit.status) || (exec && exit.status == ExitStatus::Signal(Signal::KILL))
            }
            ExitReason::Cancelled { cause: CancelCause::Requested, .. } => asked.cancelled,
            ExitReason::Cancelled { cause: CancelCause::ContainerExited, .. } => exec,
            ExitReason::Cancelled { cause: CancelCause::Shutdown, .. } => true,
            ExitReason::StartFailed(failure) => match failure.kind {
                StartFailureKind::NotFound => matches!(does, Does::NotExist),
                StartFailureKind::ContainerGone => exec,
                _ => self.faults,
            },
            ExitReason::Cancelled { cause: CancelCause::TimedOut | CancelCause::Abandoned, .. }
            | ExitReason::TimedOut { .. }
            | ExitReason::OutOfMemory
            | ExitReason::Lost
            | _ => false,
        };
        assert!(explained, "{asked:?} ended like this: {exit:?}");
        if let (Does::Exit { after, .. }, ExitReason::Normal, Some(started_at), false) =
            (does, &exit.reason, exit.started_at, exec || self.faults)
        {
            // The start may have been told late, but not by more than the simulator's longest delay.
            let least = Duration::from_millis(after.saturating_sub(40));
            assert!(exit.exited_at.since(started_at) >= least, "it ended too soon: {exit:?}");
        }
        let ran = !matches!(exit.reason, ExitReason::StartFailed(_)) && exit.status != ExitStatus::Unknown;
        // What is held at created has an init that can be killed, and a status for it.
        let never_started = exit.started_at.is_none() && exit.status == ExitStatus::Signal(Signal::KILL);
        assert!(ran == exit.started_at.is_some() || never_started && !exec, "{exit:?}");
        assert!(asked.started || exit.started_at.is_none(), "it was not to be started: {exit:?}");
    }
}

fn name(id: u8) -> ContainerId {
    ContainerId::new(format!("c{id}")).unwrap()
}

proptest! {
    #[test]
    fn every_end_has_its_reason(
        ops in prop::collection::vec(op(), 1..40),
        seed in any::<u64>(),
        faults in prop_oneof![Just(0.0), Just(0.15)],
    ) {
        Simulation::new(SimRuntime::new().program("nothing-else", Program::new())).seed(seed).faults(faults).run(
            async |sim| {
                let mut run = Run { faults: faults > 0.0, ..Run::default() };
                for op in ops {
                    run.perform(sim, op).await;
                }
                // What runs for ever ends with the executor.
                sim.executor.shutdown(Cancel::now(), Duration::from_secs(600)).await;
                run.check().await;
            },
        );
    }
}
