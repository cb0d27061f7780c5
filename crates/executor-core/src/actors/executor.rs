//! The executor: performs what the registry decides.

mod adopt;
mod requests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Recipient, StreamHandler, WrapFuture,
};
use executor_lifecycle::registry::{
    PoolId, PublishedState, Registry, RegistryEffect, RegistryEvent, RequestToken, RunRequest, StartOutcome,
};
use executor_lifecycle::{ContainerId, Effects, OomKill, Refused};
use tokio::sync::{oneshot, watch};
use tracing::Span;

pub(crate) use self::adopt::Left;
use super::container::{Above, Container};
use super::ready::KeptReady;
use super::{World, apart};
use crate::events::{Bus, Hub};
use crate::executor::generated_id;
use crate::io::{self, Connected, SharedOutputs, Streams};
use crate::messages::{
    ContainerParts, Create, End, Forget, OomKilled, ProcessStreams, Run, RunAccepted, Start,
};
use crate::metrics::StartKind;
use crate::observe::ObservedMessage;
use crate::{ContainerSpec, Error, ExitSource, Snapshot};

/// After a ready container is given to a run, its replacement is made this much later, or when the container exits. Made
/// at once, it would compete with the program's start for the processors.
const FIRST_MOMENTS: Duration = Duration::from_millis(20);

/// The actor; one for each executor. See [`executor_lifecycle::registry`] for its states.
pub struct ExecutorActor {
    pub(super) world: World,
    pub(super) registry: Registry,
    bus: Bus,
    pub(super) containers: BTreeMap<ContainerId, Registered>,
    pub(super) kept_ready: BTreeMap<PoolId, KeptReady>,
    pub(super) last_pool: u64,
    /// What the next `Register` effect is about.
    incoming: Option<Incoming>,
    /// Runs that have no answer yet.
    waiting: HashMap<RequestToken, Waiting>,
    drains: Vec<oneshot::Sender<()>>,
    /// What another executor has left, until a handle asks for it.
    adopted: Vec<ContainerId>,
    shutdowns: Vec<oneshot::Sender<Vec<ContainerId>>>,
    /// The executor's thread waits for this to be dropped or true.
    stopped: watch::Sender<bool>,
}

/// A container of this executor.
pub(super) struct Registered {
    address: Addr<Container>,
    pub(super) hub: Arc<Hub>,
    shared: SharedOutputs,
    spec: Arc<ContainerSpec>,
    /// The callers' ends of its streams, until a handle has them.
    ours: Streams,
    /// The pool it was made for.
    pub(super) pool: Option<PoolId>,
}

/// A container that is to be registered.
struct Incoming {
    spec: ContainerSpec,
    connected: Connected,
    span: Span,
}

/// A run that has no answer yet.
struct Waiting {
    reply: oneshot::Sender<Result<RunAccepted, Error>>,
    /// If the run may get a ready container: a copy of the run, to repeat it if that container is dead.
    again: Option<Run>,
}

impl Registered {
    fn parts(&self) -> ContainerParts {
        let (address, view) = (self.address.downgrade(), self.hub.view());
        ContainerParts { address, view, shared: self.shared.clone(), spec: Arc::clone(&self.spec) }
    }
}

impl ExecutorActor {
    /// Starts it on the kills of `source`.
    pub(crate) fn spawn(
        world: World,
        bus: Bus,
        stopped: watch::Sender<bool>,
        source: &dyn ExitSource,
        left: Left,
    ) -> Addr<Self> {
        let oom_kills = source.oom_kills();
        world.observer_slot.clone().begin(|context| {
            context.add_stream(oom_kills);
            let mut executor = Self {
                world,
                registry: Registry::default(),
                bus,
                containers: BTreeMap::new(),
                kept_ready: BTreeMap::new(),
                last_pool: 0,
                incoming: None,
                waiting: HashMap::new(),
                drains: Vec::new(),
                adopted: Vec::new(),
                shutdowns: Vec::new(),
                stopped,
            };
            executor.take_up(left, context);
            executor
        })
    }

    pub(super) fn on(&mut self, event: RegistryEvent, context: &mut Context<Self>) -> Result<(), Refused> {
        let Self { registry, world, .. } = self;
        let effects = (world.observer_slot)
            .watch_step(event, ObservedMessage::Registry, |event| registry.step(world.clock.now(), event))?;
        self.perform(effects, context);
        Ok(())
    }

    /// For events that have no reply.
    pub(super) fn take(&mut self, event: RegistryEvent, context: &mut Context<Self>) {
        if let Err(refused) = self.on(event, context) {
            tracing::trace!(state = %refused.state, %refused, "registry");
        }
    }

    fn perform(&mut self, effects: Effects<RegistryEffect>, context: &mut Context<Self>) {
        for effect in effects {
            match effect {
                RegistryEffect::Register { id, token, hold } => {
                    if let Some(incoming) = self.incoming.take() {
                        let kind = if hold { StartKind::Create } else { StartKind::Run };
                        self.register(&id, incoming, kind, context);
                        self.answer(&id, token);
                    }
                }
                RegistryEffect::Make(pool) => self.make_ready(pool, context),
                RegistryEffect::Give(id, token) => self.give(&id, token, context),
                RegistryEffect::Answer(id, token) => self.answer(&id, token),
                RegistryEffect::Retry(token) => self.retry(token, context),
                RegistryEffect::End(id, cancel) => self.command(&id, End(cancel)),
                RegistryEffect::ReleaseLost(id) => self.release_lost(id, context),
                RegistryEffect::Publish(event) => {
                    if let Some(registered) = self.containers.get(&event.container) {
                        registered.hub.publish(event);
                    }
                }
                RegistryEffect::Forget(id) => {
                    self.containers.remove(&id);
                    self.world.reaper.do_send(Forget(id));
                }
                RegistryEffect::PoolChanged(pool) => self.answer_kept_ready(pool),
                RegistryEffect::Drained => self.answer_drains(),
                RegistryEffect::Stop(late) => self.stop(&late),
            }
        }
    }

    /// Starts a container's actor, and has the container made.
    fn register(&mut self, id: &ContainerId, incoming: Incoming, kind: StartKind, context: &Context<Self>) {
        let Incoming { mut spec, connected, span } = incoming;
        let Connected { stdio, ends, streams: ours, shared } = connected;
        span.record("container", tracing::field::display(id));
        // The runtime's ends are held by the streams alone: they are closed with them.
        spec.process.stdio = spec.process.stdio.without_files();
        let spec = Arc::new(spec);
        let hub = Hub::new(id.clone(), spec.labels.clone(), self.bus.clone(), kind, self.world.clock);
        let streams = ProcessStreams { stdio, ends, shared: shared.clone() };
        let (world, above, own) = (self.world.clone(), above(context), Arc::clone(&spec));
        let address = Container::spawn(id.clone(), own, streams, span, world, above, Arc::clone(&hub));
        address.do_send(Create);
        match kind {
            StartKind::Run => address.do_send(Start(None)),
            StartKind::Create | StartKind::Ready => {}
        }
        self.containers.insert(id.clone(), Registered { address, hub, shared, spec, ours, pool: None });
    }

    /// The same for a pool: held at created, and invisible. The answer is its events' view.
    pub(super) fn register_ready(
        &mut self,
        id: &ContainerId,
        spec: &ContainerSpec,
        connected: Connected,
        context: &Context<Self>,
    ) {
        let empty = tracing::field::Empty;
        let span = tracing::info_span!("run", container = empty, exit.code = empty);
        self.register(id, Incoming { spec: spec.clone(), connected, span }, StartKind::Ready, context);
    }

    /// If the actor of the container has ended, it has sent `ContainerLost`, and the executor releases the container.
    /// So nothing is lost with the command.
    fn command<M>(&self, id: &ContainerId, command: M)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        Container: Handler<M>,
    {
        if let Some(registered) = self.containers.get(id) {
            registered.address.do_send(command);
        }
    }

    /// Has a run decided on. The answer comes at once, or when the container that it was given runs.
    fn run(
        &mut self,
        run: Run,
        reply: oneshot::Sender<Result<RunAccepted, Error>>,
        context: &mut Context<Self>,
    ) {
        let Run { spec, hold, token, span } = run;
        let connected = match io::connect(spec.process.stdio.clone(), spec.process.terminal) {
            Ok(connected) => connected,
            Err(error) => {
                let _caller_gone = reply.send(Err(Error::Pipe(error)));
                return;
            }
        };
        let pool = if hold { None } else { self.pool_of(&spec) };
        let again = pool.map(|_| Run { spec: spec.clone(), hold, token, span: span.clone() });
        let id = spec.id.clone().unwrap_or_else(generated_id);
        let wanted = RunRequest { token, id: id.clone(), pool, hold };
        self.incoming = Some(Incoming { spec, connected, span });
        self.waiting.insert(token, Waiting { reply, again });
        let refused = self.on(RegistryEvent::Run(wanted), context).err();
        self.incoming = None;
        let Some(refused) = refused else { return };
        if let Some(waiting) = self.waiting.remove(&token) {
            let _caller_gone = waiting.reply.send(Err(Error::of_registry(&refused, id)));
        }
    }

    /// Starts a container that was kept ready, and sees how it fares.
    fn give(&mut self, id: &ContainerId, token: RequestToken, context: &mut Context<Self>) {
        let again = self.waiting.get(&token).and_then(|waiting| waiting.again.as_ref());
        let Some((registered, run)) = self.containers.get(id).zip(again) else { return };
        registered.hub.set_labels(run.spec.labels.clone());
        registered.address.do_send(Start(Some(run.spec.terms())));
        let (view, id) = (registered.hub.view(), id.clone());
        let outcome = async move {
            view.wait_for(|known| known.started_at.is_some() || known.exit.is_some())
                .await
                .map_or(StartOutcome::Cancelled, start_outcome)
        };
        context.spawn(outcome.into_actor(self).map(move |outcome, executor, context| {
            if outcome == StartOutcome::Started {
                executor.wait_for_first_moments(id.clone(), context);
            }
            executor.take(RegistryEvent::GivenStarted(id, outcome), context);
        }));
    }

    fn wait_for_first_moments(&self, id: ContainerId, context: &mut Context<Self>) {
        let view = self.containers.get(&id).map(|registered| registered.hub.view());
        let over = async move {
            if let Some(view) = view {
                let exited = view.wait_for(|known| known.exit.is_some());
                let _runs_on = tokio::time::timeout(FIRST_MOMENTS, exited).await;
            }
        };
        context.spawn(over.into_actor(self).map(move |(), executor, context| {
            executor.take(RegistryEvent::FirstMomentsOver(id), context);
        }));
    }

    fn answer(&mut self, id: &ContainerId, token: RequestToken) {
        let (Some(registered), Some(waiting)) = (self.containers.get_mut(id), self.waiting.remove(&token))
        else {
            return;
        };
        registered.hub.reveal();
        let ours = std::mem::take(&mut registered.ours);
        let accepted = RunAccepted { id: id.clone(), parts: registered.parts(), ours };
        let _caller_gone = waiting.reply.send(Ok(accepted));
    }

    fn retry(&mut self, token: RequestToken, context: &mut Context<Self>) {
        if let Some(Waiting { reply, again: Some(run) }) = self.waiting.remove(&token) {
            tracing::warn!("a container that was kept ready had ended; the run gets another");
            self.run(run, reply, context);
        }
    }

    /// Releasing ends every process of the container.
    fn release_lost(&self, id: ContainerId, context: &mut Context<Self>) {
        tracing::error!(container = %id, "the actor of a container failed; the container is ended");
        let released = apart(self.world.runtime.release(&id));
        let measured = self.world.meters.release(self.world.clock);
        context.spawn(released.into_actor(self).map(move |left, executor, context| {
            measured();
            if let Some(registered) = executor.containers.get(&id) {
                let story = story(registered.hub.snapshot());
                executor.take(RegistryEvent::LostReleased(id, story, left.unwrap_or_default()), context);
            }
        }));
    }

    fn answer_drains(&mut self) {
        for drained in self.drains.drain(..) {
            let _caller_gone = drained.send(());
        }
    }

    /// Ends the actors, and nothing else.
    fn detach(&self) {
        self.world.runtime.detach();
        self.stopped.send_replace(true);
    }

    fn stop(&mut self, late: &[ContainerId]) {
        if late.is_empty() {
            self.answer_drains();
        }
        // What was not drained by the deadline is not drained: those that wait get an error.
        self.drains.clear();
        for shut_down in self.shutdowns.drain(..) {
            let _caller_gone = shut_down.send(late.to_vec());
        }
        self.stopped.send_replace(true);
    }
}

/// What became of a container that was given to a run: it started, or it ended first.
fn start_outcome(known: Snapshot) -> StartOutcome {
    match known.exit {
        Some(exit) if known.started_at.is_none() => StartOutcome::of(&exit),
        Some(_) | None => StartOutcome::Started,
    }
}

fn story(known: Snapshot) -> PublishedState {
    let Snapshot { seq, started_at, execs, exit, .. } = known;
    let execs = execs.into_iter().map(|(exec, pid)| (exec, pid.is_some())).collect();
    PublishedState { seq, started_at, execs, exit }
}

impl StreamHandler<(ContainerId, OomKill)> for ExecutorActor {
    fn handle(&mut self, (id, kill): (ContainerId, OomKill), _: &mut Context<Self>) {
        self.command(&id, OomKilled(kill));
    }

    /// It does not end the executor: a source need not know of kills.
    fn finished(&mut self, _: &mut Context<Self>) {}
}

fn above(context: &Context<ExecutorActor>) -> Above {
    Above {
        released: Recipient::from(context.address()).downgrade(),
        lost: Recipient::from(context.address()).downgrade(),
    }
}

impl Actor for ExecutorActor {
    type Context = Context<Self>;
}
