//! Requests whose future is dropped after its first poll: they are carried out, as their documentation says.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use executor_core::lifecycle::container::Phase;
use executor_core::lifecycle::{Cancel, ExitStatus, Signal};
use executor_core::{ContainerSpec, Error, Executor};
use executor_sim::{Program, SimRuntime, Simulation};
use futures::FutureExt;
use futures::executor::block_on;

/// On a thread of its own, which has other work when the request comes.
fn executor() -> Executor {
    let patient = Program::new().exits_on(Signal::HUP, 4).runs_forever();
    Executor::builder(SimRuntime::new().program("patient", patient)).build().unwrap()
}

#[test]
fn a_start_and_a_signal_reach_the_container() {
    let executor = executor();
    block_on(async {
        for _ in 0..200 {
            let container = executor.create(ContainerSpec::host(["patient"])).await.unwrap();
            drop(container.start().now_or_never());
            container.started().await.unwrap();
            drop(container.signal(Signal::HUP).now_or_never());
            assert_eq!(container.wait().await.status, ExitStatus::Code(4));
        }
    });
}

#[test]
fn a_pause_stands_still() {
    let executor = executor();
    block_on(async {
        let container = executor.run(ContainerSpec::host(["patient"])).await.unwrap();
        container.started().await.unwrap();
        drop(container.pause().now_or_never());
        // The next request of the same handle comes after it.
        assert!(container.pause().await.is_err());
        let mut events = container.events();
        while container.snapshot().phase != Phase::Paused {
            events.next().await.unwrap();
        }
        container.cancel(Cancel::now()).await;
    });
}

#[test]
fn a_drain_and_a_shutdown_go_on() {
    let executor = executor();
    block_on(async {
        drop(executor.drain().now_or_never());
        let refused = executor.run(ContainerSpec::host(["patient"])).await;
        assert!(matches!(refused, Err(Error::ShuttingDown)), "{refused:?}");
        drop(executor.shutdown(Cancel::now(), Duration::from_secs(10)).now_or_never());
        while let Ok(left) = executor.list().await {
            assert!(left.is_empty());
        }
    });
}

/// An embedder's test of a shutdown that is too short for its containers.
#[test]
fn a_simulation_may_shut_down_past_the_deadline() {
    let deaf = || Simulation::new(SimRuntime::new().program("deaf", Program::forever()));
    deaf().run(async |sim| {
        let container = sim.executor.run(ContainerSpec::host(["deaf"])).await.unwrap();
        container.started().await.unwrap();
        let cancel = Cancel::with_grace(Duration::from_secs(60));
        let report = sim.executor.shutdown(cancel, Duration::ZERO).await;
        assert_eq!(report.late, [container.id().clone()]);
    });
}
