//! An executor that crashes at any moment, and the next one, which takes up what it has left.

use std::time::Duration;

use executor_sim::{SimRuntime, Simulation};
use futures::future::join_all;
use longshore::{
    Cancel, ContainerSpec, Event, EventKind, ExecSpec, ExitReason, ExitStatus, KeepExited, Notice,
    StartFailureKind,
};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_container_outlives_its_executor() {
    Simulation::new(SimRuntime::new()).keep().run(async |sim| {
        let spec =
            ContainerSpec::host(["sh", "-c", "sleep 5; exit 3"]).id("c".parse().unwrap()).label("job", "7");
        let container = sim.executor.run(spec).await.unwrap();
        container.started().await.unwrap();
        sim.passes(millis(1000)).await;
        let executor = sim.crash_embedder();
        assert!(matches!(container.wait().await.reason, ExitReason::Lost));
        let adopted = executor.adopted().await.unwrap();
        let [container] = adopted.as_slice() else { panic!("{adopted:?}") };
        assert_eq!((container.snapshot().labels["job"].as_str(), container.snapshot().seq), ("7", 2));
        assert_eq!(container.spec().process.args[0], "sh");
        let exec = container.exec(ExecSpec::new(["sh", "-c", "exit 4"])).await.unwrap();
        assert_eq!(exec.wait().await.status, ExitStatus::Code(4));
        let exit = container.wait().await;
        assert_eq!((exit.status, exit.reason.clone()), (ExitStatus::Code(3), ExitReason::Normal));
        assert_eq!(exit.exited_at.since(exit.started_at.unwrap()), Duration::from_secs(5));
        assert!(executor.adopted().await.unwrap().is_empty(), "once");
    });
}

#[test]
fn what_happened_meanwhile_is_told() {
    Simulation::new(SimRuntime::new()).keep().run(async |sim| {
        let kept = ContainerSpec::host(["sh", "-c", "sleep 1; exit 3"]).keep_exited(KeepExited::UntilRemoved);
        let container = sim.executor.run(kept.id("kept".parse().unwrap())).await.unwrap();
        container.started().await.unwrap();
        let limited = ContainerSpec::host(["sleep", "60"]).time_limit(Duration::from_secs(5), Cancel::now());
        let limited = sim.executor.run(limited.id("limited".parse().unwrap())).await.unwrap();
        limited.started().await.unwrap();
        let held =
            sim.executor.create(ContainerSpec::host(["true"]).id("held".parse().unwrap())).await.unwrap();
        held.created().await.unwrap();
        sim.runtime.crash();
        sim.passes(Duration::from_secs(2)).await;
        let executor = sim.crash_embedder();
        let exit = executor.get(&"kept".parse().unwrap()).await.unwrap().wait().await;
        assert_eq!(exit.status, ExitStatus::Code(3));
        executor.get(&"kept".parse().unwrap()).await.unwrap().remove().await.unwrap();
        let limited = executor.get(&"limited".parse().unwrap()).await.unwrap().wait().await;
        assert!(matches!(limited.reason, ExitReason::TimedOut { .. }), "{limited:?}");
        let took = limited.exited_at.since(limited.started_at.unwrap());
        assert!((millis(5000)..millis(5010)).contains(&took), "{took:?}");
        let held = executor.get(&"held".parse().unwrap()).await.unwrap();
        held.start().await.unwrap();
        assert!(held.wait().await.is_success());
    });
}

/// Its events, and a cursor that survives.
#[test]
fn a_subscriber_gets_each_event_once() {
    Simulation::explore(
        0..30,
        || Simulation::new(SimRuntime::new()).keep(),
        async |sim| {
            let mut seen: Vec<Event> = Vec::new();
            let mut executor = sim.executor.clone();
            for crash in 0..4_u64 {
                let mut events = executor.events_since(seen.last().map_or(0, |event| event.number)).unwrap();
                for job in 0..3 {
                    let id = format!("c-{crash}-{job}").parse().unwrap();
                    let spec =
                        ContainerSpec::host(["sh", "-c", &format!("sleep 0.0{crash}; exit {job}")]).id(id);
                    drop(executor.run(spec).await.unwrap());
                }
                let until = tokio::time::sleep(millis(crash * 7 + 3));
                tokio::pin!(until);
                loop {
                    tokio::select! {
                        () = &mut until => break,
                        Some(Notice::Event(event)) = events.next() => seen.push(event),
                    }
                }
                executor = sim.crash_embedder();
            }
            let mut events = executor.events_since(seen.last().map_or(0, |event| event.number)).unwrap();
            executor.drain().await.unwrap();
            while seen.iter().filter(|event| matches!(event.kind, EventKind::Released { .. })).count() < 12 {
                let Some(Notice::Event(event)) = events.next().await else { panic!("a gap") };
                seen.push(event);
            }
            let numbers: Vec<_> = seen.iter().map(|event| event.number).collect();
            assert_eq!(numbers, (1..=seen.len() as u64).collect::<Vec<_>>());
            for event in &seen {
                let EventKind::Exited { exit } = &event.kind else { continue };
                let code: u8 = event.container.as_str().rsplit('-').next().unwrap().parse().unwrap();
                match &exit.reason {
                    ExitReason::Normal => assert_eq!(exit.status, ExitStatus::Code(code), "{event:?}"),
                    ExitReason::StartFailed(failure) => {
                        assert_eq!(failure.kind, StartFailureKind::Interrupted)
                    }
                    other @ (ExitReason::Lost | _) => panic!("{other:?}"),
                }
            }
        },
    );
}

/// Everything at once, with faults. The simulation checks its promises: an exit once, no start twice, numbers without a gap,
/// everything released.
#[test]
fn crashes_in_the_midst_of_everything() {
    Simulation::explore(
        0..200,
        || Simulation::new(SimRuntime::new()).keep().faults(0.1),
        async |sim| {
            let mut random = fastrand::Rng::with_seed(sim.runtime.timeline().records().len() as u64);
            let mut executor = sim.executor.clone();
            for _ in 0..5 {
                let time = millis(random.u64(0..60));
                let lives = (0..4).map(|_| {
                    let (executor, mut random) = (executor.clone(), random.fork());
                    async move {
                        let script = ["sleep 0.03", "exit 3", "sleep 60", "sleep 0.005; exit 7"];
                        let spec = ContainerSpec::host(["sh", "-c", script[random.usize(0..4)]]);
                        let Ok(container) = executor.run(spec).await else { return };
                        for _ in 0..random.u8(0..4) {
                            match random.u8(0..5) {
                                0 => drop(container.exec(ExecSpec::new(["sleep", "0.01"])).await),
                                1 => drop(container.pause().await),
                                2 => drop(container.resume().await),
                                3 => drop(container.cancel(Cancel::with_grace(millis(20))).await),
                                _ => tokio::time::sleep(millis(random.u64(0..15))).await,
                            }
                        }
                    }
                });
                let _until = tokio::time::timeout(time, join_all(lives)).await;
                executor = sim.crash_embedder();
            }
            for container in executor.adopted().await.unwrap() {
                drop(container.resume().await);
                container.cancel(Cancel::now()).await;
            }
        },
    );
}
