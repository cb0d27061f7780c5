//! Exits as messages: one for each, exactly once, also when the executor stops before it has seen the end.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use actix::{Actor, Recipient};
use executor_core::lifecycle::{Cancel, ExitReason, ExitStatus};
use executor_core::{ContainerSpec, Error, ExecSpec, Executor, ExitNotice};
use executor_sim::{Fault, Program, SimRuntime};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};

struct Collector(UnboundedSender<ExitNotice>);

impl Actor for Collector {
    type Context = actix::Context<Self>;
}

impl actix::Handler<ExitNotice> for Collector {
    type Result = ();

    fn handle(&mut self, notice: ExitNotice, _: &mut actix::Context<Self>) {
        self.0.unbounded_send(notice).unwrap();
    }
}

fn collector() -> (Recipient<ExitNotice>, UnboundedReceiver<ExitNotice>) {
    let (sender, receiver) = unbounded();
    (Collector(sender).start().recipient(), receiver)
}

fn on_a_system(test: impl AsyncFnOnce()) {
    actix::System::new().block_on(test());
}

fn undead() -> SimRuntime {
    SimRuntime::new()
        .program("undead", Program::forever().fault(Fault::KillRefused(u32::MAX)))
        .program("ok", Program::new().exits(3))
}

#[test]
fn an_end_that_was_not_seen_is_sent_as_lost() {
    on_a_system(async || {
        let executor = Executor::builder(undead()).build().unwrap();
        let (own, mut received) = collector();
        let (all, mut all_received) = collector();
        executor.notify_exits(all).unwrap();
        let container = executor.run(ContainerSpec::host(["undead"])).await.unwrap();
        container.started().await.unwrap();
        let exec = container.exec(ExecSpec::new(["undead"])).await.unwrap();
        exec.started().await.unwrap();
        container.notify_exit(own.clone());
        exec.notify_exit(own.clone());
        executor.shutdown(Cancel::now(), Duration::from_millis(20)).await;
        let mut processes = Vec::new();
        for _ in 0..2 {
            let notice = received.next().await.unwrap();
            assert_eq!((notice.exit.status, &notice.exit.reason), (ExitStatus::Unknown, &ExitReason::Lost));
            // As those are answered that wait for it.
            assert!(notice.exit.started_at.is_some(), "{notice:?}");
            processes.push(notice.process.process.to_string());
        }
        processes.sort();
        assert_eq!(processes, ["exec-1", "init"]);
        let notice = all_received.next().await.unwrap();
        assert_eq!((&notice.process.container, &notice.exit.reason), (container.id(), &ExitReason::Lost));
        // Asked for when all is over.
        container.notify_exit(own.clone());
        exec.notify_exit(own.clone());
        assert_eq!(received.next().await.unwrap().exit, container.wait().await);
        assert_eq!(received.next().await.unwrap().exit, exec.wait().await);
        assert!(matches!(executor.notify_exits(own), Err(Error::Stopped)));
        drop((container, exec, executor));
        assert!(received.try_recv().is_err() && all_received.try_recv().is_err(), "an exit came twice");
    });
}

#[test]
fn a_slow_actor_gets_every_exit() {
    on_a_system(async || {
        let executor = Executor::builder(undead()).build().unwrap();
        let (all, received) = collector();
        executor.notify_exits(all).unwrap();
        // The actor lives on this thread, which is held up meanwhile. Its mailbox holds sixteen messages.
        let runner = executor.clone();
        let run = async move {
            let runs = (0..5000).map(|_| runner.run(ContainerSpec::host(["ok"])));
            let handles = futures::future::try_join_all(runs).await.unwrap();
            futures::future::join_all(handles.iter().map(|handle| handle.wait())).await;
        };
        std::thread::spawn(|| futures::executor::block_on(run)).join().unwrap();
        let notices: Vec<_> = received.take(5000).collect().await;
        assert!(notices.iter().all(|notice| notice.exit.status == ExitStatus::Code(3)));
        let mut ids: Vec<_> = notices.into_iter().map(|notice| notice.process.container).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 5000);
        executor.shutdown(Cancel::now(), Duration::from_secs(10)).await;
    });
}

/// An actor that holds the executor, and is told of exits: a scheduler.
struct Scheduler {
    _executor: Executor,
    _alive: UnboundedSender<()>,
}

impl Actor for Scheduler {
    type Context = actix::Context<Self>;
}

impl actix::Handler<ExitNotice> for Scheduler {
    type Result = ();

    fn handle(&mut self, _: ExitNotice, _: &mut actix::Context<Self>) {}
}

#[test]
fn a_shutdown_frees_an_actor_that_holds_the_executor() {
    on_a_system(async || {
        let executor = Executor::builder(undead()).build().unwrap();
        let (alive, mut gone) = unbounded();
        let scheduler = Scheduler { _executor: executor.clone(), _alive: alive }.start();
        executor.notify_exits(scheduler.recipient()).unwrap();
        executor.run(ContainerSpec::host(["ok"])).await.unwrap().released().await.unwrap();
        executor.shutdown(Cancel::now(), Duration::from_secs(10)).await;
        drop(executor);
        assert_eq!(gone.next().await, None, "the actor has ended");
    });
}

#[test]
fn a_drain_that_a_shutdown_cuts_short_is_an_error() {
    on_a_system(async || {
        let executor = Executor::builder(undead()).build().unwrap();
        executor.run(ContainerSpec::host(["undead"])).await.unwrap().started().await.unwrap();
        let drain = executor.drain();
        let shutdown = executor.shutdown(Cancel::now(), Duration::from_millis(20));
        let (drained, report) = futures::future::join(drain, shutdown).await;
        assert!(matches!(drained, Err(Error::Stopped)), "{drained:?}");
        assert_eq!(report.late.len(), 1);
    });
}
