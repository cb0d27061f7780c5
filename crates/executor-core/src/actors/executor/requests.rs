//! What the executor is asked, and what its containers report to it.

use actix::{ActorContext, AsyncContext, Context, Handler, MessageResult, ResponseFuture};
use executor_lifecycle::registry::RegistryEvent;
use executor_lifecycle::{ContainerId, Exit};
use futures::FutureExt;
use tokio::sync::oneshot;

use super::{ExecutorActor, Registered};
use crate::Error;
use crate::messages::{
    ContainerLost, Detach, Drain, ExitOf, Get, List, Prepare, Released, Run, RunAccepted, Shutdown, Stop,
    Subscribe, TakeAdopted, Unclaimed,
};

impl Handler<Run> for ExecutorActor {
    type Result = ResponseFuture<Result<RunAccepted, Error>>;

    fn handle(&mut self, run: Run, context: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.run(run, reply, context);
        async move { answer.await.unwrap_or(Err(Error::Stopped)) }.boxed()
    }
}

impl Handler<Prepare> for ExecutorActor {
    type Result = ResponseFuture<Result<(), Error>>;

    fn handle(&mut self, Prepare { spec, count }: Prepare, context: &mut Context<Self>) -> Self::Result {
        let answer = self.keep_ready(&spec, count, context);
        async move { answer.await.unwrap_or(Err(Error::Stopped)) }.boxed()
    }
}

impl Handler<Get> for ExecutorActor {
    type Result = MessageResult<Get>;

    fn handle(&mut self, Get(id): Get, _: &mut Context<Self>) -> Self::Result {
        let visible = self.containers.get(&id).filter(|_| self.registry.is_visible(&id));
        MessageResult(visible.map(Registered::parts))
    }
}

impl Handler<ExitOf> for ExecutorActor {
    type Result = MessageResult<ExitOf>;

    fn handle(&mut self, ExitOf(id): ExitOf, _: &mut Context<Self>) -> Self::Result {
        let visible = self.containers.get(&id).filter(|_| self.registry.is_visible(&id));
        MessageResult(match visible {
            Some(registered) => Ok(registered.hub.snapshot().exit),
            None => self.registry.exit_of(&id).cloned().map(Some).ok_or(Error::NotFound { id }),
        })
    }
}

impl Handler<List> for ExecutorActor {
    type Result = MessageResult<List>;

    fn handle(&mut self, _: List, _: &mut Context<Self>) -> Self::Result {
        let visible = self.registry.visible().filter_map(|id| self.containers.get(id));
        MessageResult(visible.map(|registered| registered.hub.snapshot()).collect())
    }
}

impl Handler<Released> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, Released { event }: Released, context: &mut Context<Self>) {
        let exit =
            self.containers.get(&event.container).and_then(|registered| registered.hub.snapshot().exit);
        let exit = exit.unwrap_or_else(|| Exit::lost(None, event.at));
        self.note_failure(&event.container, &exit);
        self.take(RegistryEvent::Released(event, exit), context);
    }
}

impl Handler<TakeAdopted> for ExecutorActor {
    type Result = MessageResult<TakeAdopted>;

    fn handle(&mut self, _: TakeAdopted, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.hand_out_adopted())
    }
}

impl Handler<Detach> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, _: Detach, _: &mut Context<Self>) {
        self.detach();
    }
}

impl Handler<ContainerLost> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, ContainerLost(id): ContainerLost, context: &mut Context<Self>) {
        self.take(RegistryEvent::Lost(id), context);
    }
}

impl Handler<Unclaimed> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, Unclaimed(token): Unclaimed, context: &mut Context<Self>) {
        self.take(RegistryEvent::Unclaimed(token), context);
    }
}

impl Handler<Stop> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        context.terminate();
    }
}

impl Handler<Subscribe> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, Subscribe(subscriber): Subscribe, _: &mut Context<Self>) {
        let (events, present) = (self.bus.view().subscribe(), self.world.present.clone());
        actix_rt::spawn(async move {
            events.send_to(subscriber).await;
            drop(present);
        });
    }
}

impl Handler<Drain> for ExecutorActor {
    type Result = ResponseFuture<Result<(), Error>>;

    fn handle(&mut self, _: Drain, context: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.drains.push(reply);
        self.refuse_kept_ready();
        self.take(RegistryEvent::Drain, context);
        answer.map(|drained| drained.map_err(|_| Error::Stopped)).boxed()
    }
}

impl Handler<Shutdown> for ExecutorActor {
    type Result = ResponseFuture<Vec<ContainerId>>;

    fn handle(&mut self, shutdown: Shutdown, context: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.shutdowns.push(reply);
        self.refuse_kept_ready();
        context.run_later(shutdown.deadline, |executor, context| {
            executor.take(RegistryEvent::DeadlinePassed, context)
        });
        self.take(RegistryEvent::Shutdown(shutdown.cancel, shutdown.deadline), context);
        answer.map(Result::unwrap_or_default).boxed()
    }
}
