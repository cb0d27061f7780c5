//! The executor: the registry of containers, and the end of them all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, MessageResult, Recipient,
    ResponseFuture, WrapFuture,
};
use executor_lifecycle::{CancelCause, ContainerId, EventKind, Exit};
use futures::FutureExt;
use tokio::sync::watch;

use super::World;
use super::container::{Above, Container, Made};
use super::ready::{FromPool, Pools};
use crate::events::{Bus, Hub};
use crate::executor::generated_id;
use crate::io::SharedOutputs;
use crate::messages::{
    Cancel, ContainerLost, ContainerParts, Forget, Get, List, Prepare, Released, RequestToken, Run,
    RunAccepted, Shutdown, Start, Stop, Unclaimed,
};
use crate::observe::{self, ExecutorTook};
use crate::{Error, StdioSpec};

/// How long another container is not yet made in the place of one that was ready, unless that ends before: the making
/// would take the machine from it in its first moments.
const FIRST_MOMENTS: Duration = Duration::from_millis(20);

/// The actor; one for each executor.
pub struct ExecutorActor {
    pub(super) world: World,
    bus: Bus,
    containers: BTreeMap<ContainerId, Registered>,
    pub(super) pools: Pools,
    draining: bool,
    /// How many containers there are, for those who wait until none is.
    registered: watch::Sender<usize>,
    /// The executor's thread waits for this to be dropped or true.
    stopped: watch::Sender<bool>,
}

/// A container of this executor.
struct Registered {
    address: Addr<Container>,
    hub: Arc<Hub>,
    shared: SharedOutputs,
    /// Also the order they were asked for in: ids that were made up are in no order that lasts.
    claim: RequestToken,
}

impl Registered {
    fn parts(&self) -> ContainerParts {
        let (address, view) = (self.address.downgrade(), self.hub.view());
        ContainerParts { address, view, shared: self.shared.clone() }
    }
}

impl ExecutorActor {
    pub(crate) fn spawn(world: World, bus: Bus, stopped: watch::Sender<bool>) -> Addr<Self> {
        world.observer_slot.clone().begin(|_| {
            let registered = watch::Sender::new(0);
            Self {
                world,
                bus,
                containers: BTreeMap::new(),
                pools: Pools::default(),
                draining: false,
                registered,
                stopped,
            }
        })
    }

    fn show(&self, took: impl FnOnce() -> ExecutorTook) {
        self.world.observer_slot.show(|| observe::ObservedMessage::Executor(took()));
    }

    fn above(context: &Context<Self>) -> Above {
        Above {
            released: Recipient::from(context.address()).downgrade(),
            lost: Recipient::from(context.address()).downgrade(),
        }
    }

    fn unregister(&mut self, id: &ContainerId) {
        self.containers.remove(id);
        self.world.reaper.do_send(Forget(id.clone()));
        self.count();
    }

    pub(super) fn count(&self) {
        self.registered.send_replace(self.containers.len() + self.pools.len());
    }
}

impl Actor for ExecutorActor {
    type Context = Context<Self>;
}

impl Handler<Run> for ExecutorActor {
    type Result = Result<RunAccepted, Error>;

    fn handle(&mut self, run: Run, context: &mut Context<Self>) -> Self::Result {
        let Run { mut spec, streams, ours, claim, span } = run;
        let ready = if self.draining { None } else { self.take_ready(&spec, context) };
        let (id, streams, ours, pool) = match ready {
            Some(FromPool { id, streams, ours, pool }) => (id, streams, ours, Some(pool)),
            None => (spec.id.clone().unwrap_or_else(generated_id), streams, ours, None),
        };
        self.show(|| ExecutorTook::Run(id.clone()));
        if self.draining {
            return Err(Error::ShuttingDown);
        }
        if self.containers.contains_key(&id) || self.pools.have(&id) {
            return Err(Error::IdTaken { id });
        }
        span.record("container", tracing::field::display(&id));
        // The runtime's ends are held by the streams alone: they are closed with them.
        spec.process.stdio = StdioSpec::default();
        let hub = Hub::new(id.clone(), self.bus.clone());
        let shared = streams.shared.clone();
        let above = Self::above(context);
        let made = Made { spec, streams, span, is_ready: pool.is_some() };
        let address = Container::spawn(id.clone(), made, self.world.clone(), above, Arc::clone(&hub));
        address.do_send(Start);
        if let Some(pool) = pool {
            let view = hub.view();
            let begun = async move {
                let _actors_gone = view.wait_for(|known| known.pid.is_some() || known.exit.is_some()).await;
                let exited = view.wait_for(|known| known.exit.is_some());
                let _runs_on = tokio::time::timeout(FIRST_MOMENTS, exited).await;
            };
            let begun = begun.into_actor(self);
            context.spawn(begun.map(move |(), executor, context| executor.ready_begun(pool, context)));
        }
        let registered = Registered { address, hub, shared, claim };
        let parts = registered.parts();
        self.containers.insert(id.clone(), registered);
        self.count();
        Ok(RunAccepted { id, parts, ours })
    }
}

impl Handler<Prepare> for ExecutorActor {
    type Result = ResponseFuture<Result<(), Error>>;

    fn handle(&mut self, Prepare { spec, count }: Prepare, context: &mut Context<Self>) -> Self::Result {
        self.show(|| ExecutorTook::Prepare(count));
        if self.draining {
            return futures::future::ready(Err(Error::ShuttingDown)).boxed();
        }
        let answer = self.keep_ready(&spec, count, context);
        async move { answer.await.unwrap_or(Err(Error::Stopped)) }.boxed()
    }
}

impl Handler<Get> for ExecutorActor {
    type Result = MessageResult<Get>;

    fn handle(&mut self, Get(id): Get, _: &mut Context<Self>) -> Self::Result {
        self.show(|| ExecutorTook::Get(id.clone()));
        MessageResult(self.containers.get(&id).map(Registered::parts))
    }
}

impl Handler<List> for ExecutorActor {
    type Result = MessageResult<List>;

    fn handle(&mut self, _: List, _: &mut Context<Self>) -> Self::Result {
        self.show(|| ExecutorTook::List);
        MessageResult(self.containers.values().map(|parts| parts.hub.snapshot()).collect())
    }
}

impl Handler<Released> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, Released(id): Released, _: &mut Context<Self>) {
        self.show(|| ExecutorTook::Released(id.clone()));
        self.unregister(&id);
    }
}

impl Handler<ContainerLost> for ExecutorActor {
    type Result = ();

    /// Releasing ends every process of the container. Its story is told to the end, so that nobody
    /// waits for ever.
    fn handle(&mut self, ContainerLost(id): ContainerLost, context: &mut Context<Self>) {
        self.show(|| ExecutorTook::ContainerLost(id.clone()));
        let Some(hub) = self.containers.get(&id).map(|lost| Arc::clone(&lost.hub)) else {
            return;
        };
        tracing::error!(container = %id, "the actor of a container failed; the container is ended");
        let released = self.world.runtime.release(&id);
        let (clock, executor) = (self.world.clock, context.address());
        actix_rt::spawn(async move {
            let left = released.await;
            let before = hub.snapshot();
            let exit = Exit::lost(before.started_at, clock.now());
            let execs =
                before.execs.keys().map(|exec| EventKind::ExecExited { exec: *exec, exit: exit.clone() });
            let exited = before.exit.is_none().then(|| EventKind::Exited { exit: exit.clone() });
            let rest = execs.chain(exited).chain([EventKind::Released { left }]);
            for (seq, kind) in (before.seq + 1..).zip(rest) {
                hub.publish(executor_lifecycle::Event { seq, container: id.clone(), at: clock.now(), kind });
            }
            executor.do_send(Released(id));
        });
    }
}

impl Handler<Unclaimed> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, Unclaimed(claim): Unclaimed, _: &mut Context<Self>) {
        self.show(|| ExecutorTook::Unclaimed);
        if let Some(registered) = self.containers.values().find(|registered| registered.claim == claim) {
            let cancel = Cancel(executor_lifecycle::Cancel::now());
            registered.address.do_send(cancel);
        }
    }
}

impl Handler<Stop> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        context.terminate();
    }
}

impl Handler<Shutdown> for ExecutorActor {
    type Result = ResponseFuture<Vec<ContainerId>>;

    fn handle(&mut self, Shutdown { deadline }: Shutdown, context: &mut Context<Self>) -> Self::Result {
        self.show(|| ExecutorTook::Shutdown);
        self.draining = true;
        self.keep_nothing_ready(context);
        let cancel = Cancel(executor_lifecycle::Cancel::now().cause(CancelCause::Shutdown));
        let mut containers: Vec<_> = self.containers.values().collect();
        containers.sort_by_key(|registered| registered.claim);
        for registered in containers {
            registered.address.do_send(cancel);
        }
        let mut registered = self.registered.subscribe();
        let (executor, stopped) = (context.address(), self.stopped.clone());
        async move {
            let empty = registered.wait_for(|containers| *containers == 0).map(drop);
            let _over = tokio::time::timeout(deadline, empty).await;
            let left = executor.send(List).await.unwrap_or_default();
            stopped.send_replace(true);
            left.into_iter().map(|snapshot| snapshot.container).collect()
        }
        .boxed()
    }
}
