//! Containers that are kept ready: what the executor does for them. See [`executor_lifecycle::ready`] for the policy.

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use executor_lifecycle::container::Phase;
use executor_lifecycle::registry::{PoolId, RegistryEvent};
use executor_lifecycle::{ContainerId, Exit, ExitReason, StartFailure, StartFailureKind};
use tokio::sync::oneshot;

use super::ExecutorActor;
use crate::executor::generated_id;
use crate::{ContainerSpec, Error, io};

/// The containers of one specification that are kept ready.
pub(super) struct KeptReady {
    spec: ContainerSpec,
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
    /// Why the last one could not be made.
    failure: Option<StartFailure>,
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
        let (answer, answered) = oneshot::channel();
        let pool = self.pool_of(spec).unwrap_or_else(|| {
            self.last_pool += 1;
            let kept = KeptReady { spec: spec.as_kept_ready(), waiting: Vec::new(), failure: None };
            self.kept_ready.insert(PoolId(self.last_pool), kept);
            PoolId(self.last_pool)
        });
        if let Some(kept) = self.kept_ready.get_mut(&pool) {
            kept.waiting.push(answer);
        }
        if self.on(RegistryEvent::KeepReady(pool, count), context).is_err() {
            self.refuse_kept_ready();
        }
        answered
    }

    /// The pool that a run of this specification may have a container from.
    pub(super) fn pool_of(&self, spec: &ContainerSpec) -> Option<PoolId> {
        if self.kept_ready.is_empty() || spec.id.is_some() {
            return None;
        }
        let spec = spec.as_kept_ready();
        self.kept_ready.iter().find(|(_, kept)| kept.spec == spec).map(|(pool, _)| *pool)
    }

    /// Nothing is kept ready any more.
    pub(super) fn refuse_kept_ready(&mut self) {
        for answer in self.kept_ready.values_mut().flat_map(|kept| kept.waiting.drain(..)) {
            let _caller_gone = answer.send(Err(Error::ShuttingDown));
        }
    }

    /// Makes a container for a pool: an ordinary one, that is held at created and invisible.
    pub(super) fn make_ready(&mut self, pool: PoolId, context: &mut Context<Self>) {
        let Some(kept) = self.kept_ready.get_mut(&pool) else { return };
        let spec = kept.spec.clone();
        let connected = match io::connect(spec.process.stdio.clone(), spec.process.terminal) {
            Ok(connected) => connected,
            Err(error) => {
                kept.failure =
                    Some(StartFailure::caused_by(StartFailureKind::NoResources, &Error::Pipe(error)));
                return self.take(RegistryEvent::MakeFailed(pool), context);
            }
        };
        let id = generated_id();
        self.register_ready(&id, &spec, connected, context);
        if let Some(registered) = self.containers.get_mut(&id) {
            registered.pool = Some(pool);
        }
        self.take(RegistryEvent::Made(pool, id.clone()), context);
        self.watch_ready(id, Phase::Created, context);
    }

    /// Lets the registry know when a container has come to `phase`, or has ended before.
    fn watch_ready(&self, id: ContainerId, phase: Phase, context: &mut Context<Self>) {
        let Some(view) = self.containers.get(&id).map(|registered| registered.hub.view()) else { return };
        let known = async move { view.wait_for(|known| known.phase >= phase || known.exit.is_some()).await };
        context.spawn(known.into_actor(self).map(move |known, executor, context| {
            match known.and_then(|known| known.exit) {
                None => {
                    executor.take(RegistryEvent::ReadyCreated(id.clone()), context);
                    executor.watch_ready(id, Phase::Exited, context);
                }
                Some(exit) => {
                    tracing::debug!(container = %id, %exit, "a container that was kept ready has ended");
                    executor.note_failure(&id, &exit);
                    executor.take(RegistryEvent::ReadyDied(id), context);
                }
            }
        }));
    }

    /// Keeps why a container that was made for a pool is not ready.
    pub(super) fn note_failure(&mut self, id: &ContainerId, exit: &Exit) {
        let pool = self.containers.get(id).and_then(|registered| registered.pool);
        if let Some(kept) = pool.and_then(|pool| self.kept_ready.get_mut(&pool))
            && exit.started_at.is_none()
        {
            kept.failure = Some(failure_of(exit));
        }
    }

    /// Answers those who wait for a pool, once there is something to say.
    pub(super) fn answer_kept_ready(&mut self, pool: PoolId) {
        let state =
            self.registry.pool(pool).map(|pool| (pool.is_settled(), pool.has_failed() && !pool.is_full()));
        let Some(kept) = self.kept_ready.get_mut(&pool) else { return };
        let (is_settled, has_failed) = state.unwrap_or((true, false));
        if is_settled {
            let lost = || StartFailure::new(StartFailureKind::RuntimeBroken, "the container was lost");
            let failure = has_failed.then(|| kept.failure.take().unwrap_or_else(lost));
            for answer in kept.waiting.drain(..) {
                let _caller_gone =
                    answer.send(failure.clone().map_or(Ok(()), |failure| Err(Error::NotReady(failure))));
            }
        }
        if state.is_none() {
            self.kept_ready.remove(&pool);
        }
    }
}

/// Why a container that ended before it was started could not be kept ready.
fn failure_of(exit: &Exit) -> StartFailure {
    match &exit.reason {
        ExitReason::StartFailed(failure) => failure.clone(),
        ExitReason::Normal
        | ExitReason::Cancelled { .. }
        | ExitReason::TimedOut { .. }
        | ExitReason::OutOfMemory
        | ExitReason::Lost
        | _ => {
            let message = format!("the container ended before it was started: {exit}");
            StartFailure::new(StartFailureKind::ContainerGone, message)
        }
    }
}
