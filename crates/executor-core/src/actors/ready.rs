//! Containers that are kept ready: what the executor does for them. See [`executor_lifecycle::ready`] for what it decides.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use executor_lifecycle::ready::{Pool, PoolEffect, PoolEvent};
use executor_lifecycle::{ContainerId, Effects, StartFailure, StartFailureKind};
use tokio::sync::oneshot;

use super::ExecutorActor;
use crate::io::{self, Connected, Streams};
use crate::messages::{Forget, ProcessStreams};
use crate::{ContainerSpec, Error};

/// All of an executor.
#[derive(Default)]
pub(super) struct Pools {
    pools: HashMap<u64, Kept>,
    last: u64,
}

/// The containers of one specification.
struct Kept {
    spec: Arc<ContainerSpec>,
    machine: Pool,
    /// Our ends of the streams of those that are being made or ready.
    streams: HashMap<ContainerId, Connected>,
    releasing: usize,
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
    failure: Option<StartFailure>,
}

/// A container that was kept ready and is to be started.
pub(super) struct FromPool {
    pub(super) id: ContainerId,
    pub(super) streams: ProcessStreams,
    pub(super) ours: Streams,
    /// Whose it was.
    pub(super) pool: u64,
}

impl Pools {
    /// How many containers there are, being made and released included.
    pub(super) fn len(&self) -> usize {
        self.pools.values().map(|kept| kept.machine.count() + kept.releasing).sum()
    }

    pub(super) fn have(&self, id: &ContainerId) -> bool {
        self.pools.values().any(|kept| kept.streams.contains_key(id))
    }

    fn find(&self, spec: &ContainerSpec) -> Option<u64> {
        self.pools.iter().find_map(|(number, kept)| (*kept.spec == *spec).then_some(*number))
    }
}

impl ExecutorActor {
    /// From now on keeps `count` containers of this specification ready; the answer comes when they are, or one
    /// could not be made.
    pub(super) fn keep_ready(
        &mut self,
        spec: &ContainerSpec,
        count: usize,
        context: &mut Context<Self>,
    ) -> oneshot::Receiver<Result<(), Error>> {
        let spec = spec.as_kept_ready();
        let number = self.pools.find(&spec).unwrap_or_else(|| {
            self.pools.last += 1;
            let kept = Kept {
                spec: Arc::new(spec),
                machine: Pool::default(),
                streams: HashMap::new(),
                releasing: 0,
                waiting: Vec::new(),
                failure: None,
            };
            self.pools.pools.insert(self.pools.last, kept);
            self.pools.last
        });
        let (answer, answered) = oneshot::channel();
        if let Some(kept) = self.pools.pools.get_mut(&number) {
            kept.waiting.push(answer);
        }
        self.on_ready(number, PoolEvent::Want(count), context);
        answered
    }

    /// Nothing is kept ready any more.
    pub(super) fn keep_nothing_ready(&mut self, context: &mut Context<Self>) {
        for number in self.pools.pools.keys().copied().collect::<Vec<_>>() {
            let waiting = self.pools.pools.get_mut(&number).map(|kept| std::mem::take(&mut kept.waiting));
            for answer in waiting.into_iter().flatten() {
                let _caller_gone = answer.send(Err(Error::ShuttingDown));
            }
            self.on_ready(number, PoolEvent::Want(0), context);
        }
    }

    /// A container for a run of this specification, if one is ready.
    pub(super) fn take_ready(
        &mut self,
        spec: &ContainerSpec,
        context: &mut Context<Self>,
    ) -> Option<FromPool> {
        if self.pools.pools.is_empty() || spec.id.is_some() {
            return None;
        }
        let pool = self.pools.find(&spec.as_kept_ready())?;
        let next = |executor: &Self| executor.pools.pools.get(&pool)?.machine.next().cloned();
        while let Some(id) = next(self).filter(|id| !self.world.runtime.is_ready(id)) {
            tracing::warn!(container = %id, "a container that was kept ready has ended");
            self.on_ready(pool, PoolEvent::Dead(id), context);
        }
        let id = self.on_ready(pool, PoolEvent::Take, context)?;
        let Connected { stdio: _, copiers, streams: ours, shared } =
            self.pools.pools.get_mut(&pool)?.streams.remove(&id)?;
        let streams = ProcessStreams { copiers, shared, ..ProcessStreams::default() };
        Some(FromPool { id, streams, ours, pool })
    }

    /// What was taken runs, or never will.
    pub(super) fn ready_begun(&mut self, pool: u64, context: &mut Context<Self>) {
        self.on_ready(pool, PoolEvent::Begun, context);
    }

    /// Answers with the one that is given away, if that is what comes of it.
    fn on_ready(
        &mut self,
        number: u64,
        event: PoolEvent,
        context: &mut Context<Self>,
    ) -> Option<ContainerId> {
        let effects = self.pools.pools.get_mut(&number)?.machine.step(event).unwrap_or_else(|refused| {
            tracing::trace!(%refused, "kept ready");
            Effects::none()
        });
        let mut given = None;
        for effect in effects {
            match effect {
                PoolEffect::Create => self.create_ready(number, context),
                PoolEffect::Give(id) => given = Some(id),
                PoolEffect::Release(id) => self.release_ready(number, id, context),
            }
        }
        self.settle(number);
        given
    }

    /// Tells who is to be told, and gives up what is over.
    fn settle(&mut self, number: u64) {
        if let Some(kept) = self.pools.pools.get_mut(&number) {
            kept.answer();
            if kept.machine.is_over() && kept.releasing == 0 {
                self.pools.pools.remove(&number);
            }
        }
        self.count();
    }

    fn create_ready(&mut self, number: u64, context: &mut Context<Self>) {
        let Some(kept) = self.pools.pools.get_mut(&number) else { return };
        let (id, spec) = (crate::executor::generated_id(), Arc::clone(&kept.spec));
        let connected = io::connect(spec.process.stdio.clone(), spec.process.terminal);
        let stdio = connected.map(|mut connected| {
            let stdio = std::mem::take(&mut connected.stdio);
            kept.streams.insert(id.clone(), connected);
            stdio
        });
        let (runtime, own) = (Arc::clone(&self.world.runtime), id.clone());
        let made = async move {
            let stdio = stdio.map_err(|error| {
                StartFailure::new(StartFailureKind::NoResources, format!("cannot make a pipe: {error}"))
            })?;
            runtime.prepare(&own, spec).await?;
            runtime.create(&own, stdio).await
        };
        context.spawn(apart(made).into_actor(self).map(move |made, executor, context| {
            let broken = || StartFailure::new(StartFailureKind::RuntimeBroken, "the runtime panicked");
            let event = match made.unwrap_or_else(|| Err(broken())) {
                Ok(()) => PoolEvent::Created(id),
                Err(failure) => {
                    tracing::warn!(container = %id, %failure, "a container cannot be kept ready");
                    if let Some(kept) = executor.pools.pools.get_mut(&number) {
                        kept.failure = Some(failure);
                    }
                    PoolEvent::CreateFailed(id)
                }
            };
            executor.on_ready(number, event, context);
        }));
    }

    fn release_ready(&mut self, number: u64, id: ContainerId, context: &mut Context<Self>) {
        let Some(kept) = self.pools.pools.get_mut(&number) else { return };
        kept.streams.remove(&id);
        kept.releasing += 1;
        let (runtime, own) = (Arc::clone(&self.world.runtime), id.clone());
        let released = apart(async move { runtime.release(&own).await });
        context.spawn(released.into_actor(self).map(move |left, executor, _| {
            if left.as_ref().is_none_or(|left| !left.is_empty()) {
                tracing::warn!(container = %id, ?left, "not all of a container that was kept ready could be removed");
            }
            // It may have ended by itself, which nobody has asked for.
            executor.world.reaper.do_send(Forget(id));
            if let Some(kept) = executor.pools.pools.get_mut(&number) {
                kept.releasing -= 1;
            }
            executor.settle(number);
        }));
    }
}

/// In a task of its own: a runtime that panics is not the end of the executor. `None` is all that is known of it.
async fn apart<T: 'static>(work: impl Future<Output = T> + 'static) -> Option<T> {
    actix_rt::spawn(work).await.ok()
}

impl Kept {
    /// Tells those who wait how it went, once there is something to tell.
    fn answer(&mut self) {
        if !self.machine.is_settled() {
            return;
        }
        let failure = if self.machine.is_full() { None } else { self.failure.take() };
        for answer in self.waiting.drain(..) {
            let _caller_gone =
                answer.send(failure.clone().map_or(Ok(()), |failure| Err(Error::NotReady(failure))));
        }
    }
}
