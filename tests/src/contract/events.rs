//! Events and exits, for handles and for actors.

use std::sync::mpsc;
use std::thread;

use actix::{Actor, Recipient, System};
use futures::StreamExt;
use longshore::{Cancel, ContainerSpec, EventKind, Executor, ExitNotice, Notice, Stdio};

use super::{exec, run};
use crate::sleeper;

pub(super) async fn late_subscribers_get_a_snapshot(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    let pid = container.started().await.ok();
    let mut events = container.events();
    let Some(Notice::Snapshot(snapshot)) = events.next().await else { panic!("no snapshot") };
    assert_eq!((snapshot.seq, snapshot.pid), (2, pid));
    let exit = container.cancel(Cancel::now()).await;
    let Some(Notice::Event(event)) = events.next().await else { panic!("no event") };
    assert_eq!((event.seq, event.kind), (3, EventKind::Exited { exit: exit.clone() }));
    assert!(matches!(events.next().await, Some(Notice::Event(_))), "Released");
    assert_eq!(events.next().await, None);

    let mut later = container.events();
    let Some(Notice::Snapshot(snapshot)) = later.next().await else { panic!("no snapshot") };
    assert_eq!((snapshot.seq, snapshot.exit), (4, Some(exit)));
    assert_eq!(later.next().await, None);
}

/// An actor of the embedder. It forwards the messages that it receives.
struct Subscriber<M>(futures::channel::mpsc::UnboundedSender<M>);

/// A message that subscribers receive.
trait Received: actix::Message<Result = ()> + Send + Unpin + 'static {}

impl Received for Notice {}

impl Received for ExitNotice {}

impl<M: Received> Actor for Subscriber<M> {
    type Context = actix::Context<Self>;
}

impl<M: Received> actix::Handler<M> for Subscriber<M> {
    type Result = ();

    fn handle(&mut self, message: M, _: &mut Self::Context) {
        drop(self.0.unbounded_send(message));
    }
}

type Elsewhere = Option<(System, thread::JoinHandle<()>)>;

/// Starts it on the system of this thread, or on one of its own, which [`stop_subscriber`] ends.
fn start_subscriber<M: Received>(subscriber: Subscriber<M>) -> (Recipient<M>, Elsewhere) {
    if System::is_registered() {
        return (subscriber.start().recipient(), None);
    }
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        let system = System::new();
        let address = system.block_on(async { subscriber.start() });
        drop(sender.send((address.recipient(), System::current())));
        drop(system.run());
    });
    let Ok((recipient, system)) = receiver.recv() else { panic!("no system") };
    (recipient, Some((system, thread)))
}

fn stop_subscriber(elsewhere: Elsewhere) {
    if let Some((system, thread)) = elsewhere {
        system.stop();
        assert!(thread.join().is_ok());
    }
}

pub(super) async fn actors_can_subscribe(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    let (sender, recorded) = futures::channel::mpsc::unbounded();
    let (recipient, elsewhere) = start_subscriber(Subscriber(sender));
    assert!(container.subscribe(recipient).await.is_ok());
    container.cancel(Cancel::now()).await;
    let recorded: Vec<_> = futures::StreamExt::collect(recorded).await;
    stop_subscriber(elsewhere);
    assert!(matches!(recorded.first(), Some(Notice::Snapshot(_))), "{recorded:?}");
    let Some(Notice::Event(last)) = recorded.last() else { panic!("{recorded:?}") };
    assert!(matches!(last.kind, EventKind::Released { .. }), "{recorded:?}");
}

/// Notices are requested before the end, after it, and after the release; for a container, an exec, and all containers.
pub(super) async fn actors_are_sent_each_exit_once(executor: &Executor) {
    let (sender, mut received) = futures::channel::mpsc::unbounded();
    let (recipient, elsewhere) = start_subscriber(Subscriber(sender));
    let (all_sender, mut all_received) = futures::channel::mpsc::unbounded();
    let (all, all_elsewhere) = start_subscriber(Subscriber(all_sender));
    assert!(executor.notify_exits(all).is_ok());
    let container = run(executor, ContainerSpec::host(["cat"]).stdin(Stdio::Pipe)).await;
    container.notify_exit(recipient.clone());
    let exec = exec(&container, "exit 5").await;
    exec.notify_exit(recipient.clone());
    let first = received.next().await;
    assert_eq!(
        first.map(|notice| (notice.process, notice.exit)),
        Some((exec.id().clone(), exec.wait().await))
    );
    drop(container.io().take_stdin());
    let exit = container.wait().await;
    container.notify_exit(recipient.clone());
    assert!(container.released().await.is_ok());
    container.notify_exit(recipient.clone());
    exec.notify_exit(recipient);
    for expected in [container.id(), container.id(), container.id()] {
        let Some(notice) = received.next().await else { panic!("no exit") };
        assert_eq!((&notice.process.container, &notice.exit), (expected, &exit));
    }
    assert_eq!(received.next().await.map(|notice| notice.process), Some(exec.id().clone()));
    // The recipients are gone with what they waited for: nothing comes twice.
    stop_subscriber(elsewhere);
    let once = all_received.next().await;
    assert_eq!(
        once.map(|notice| (notice.process.container, notice.exit)),
        Some((container.id().clone(), exit))
    );
    let failed = run(executor, ContainerSpec::host(["no-such-program"])).await.wait().await;
    assert_eq!(all_received.next().await.map(|notice| notice.exit), Some(failed));
    assert!(all_received.try_recv().is_err(), "an exit came twice");
    stop_subscriber(all_elsewhere);
}
