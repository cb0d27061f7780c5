//! What handles, and the executor, ask of a container.

use actix::{Context, Handler, MessageResult, ResponseFuture};
use executor_lifecycle::container::ContainerEvent;
use executor_lifecycle::{HostPid, ProcessId, Refusal, Refused, Usage};
use futures::{FutureExt, TryFutureExt, future};
use tokio::sync::oneshot;

use super::{Container, Incoming, Work};
use crate::messages::{
    Cancel, Create, End, Exec, FindProcess, ListProcesses, Pause, ProcessParts, ProcessView, ReadUsage,
    Remove, RequestError, Resize, Resume, SampleUsage, Signal, Start, Subscribe, Unclaimed, Update,
};
use crate::usage;

impl Container {
    fn freeze_request(
        &mut self,
        request: ContainerEvent,
        context: &mut Context<Self>,
    ) -> ResponseFuture<Result<(), RequestError>> {
        let (reply, answer) = oneshot::channel();
        match self.on(request, context) {
            Ok(()) => self.freeze_replies.push(reply),
            Err(refused) => return future::ready(Err(refused.into())).boxed(),
        }
        let gone = Refusal::Exited.from_state(self.machine.state());
        async move { answer.await.unwrap_or(Err(gone.into())) }.boxed()
    }
}

impl Handler<Create> for Container {
    type Result = ();

    fn handle(&mut self, _: Create, context: &mut Context<Self>) {
        self.take(ContainerEvent::Create, context);
    }
}

impl Handler<Start> for Container {
    type Result = Result<(), Refused>;

    fn handle(&mut self, Start(terms): Start, context: &mut Context<Self>) -> Self::Result {
        let terms = terms.unwrap_or_else(|| self.spec.terms());
        self.on(ContainerEvent::Start(terms), context)?;
        self.hub.meter.start_requested();
        Ok(())
    }
}

impl Handler<Exec> for Container {
    type Result = Result<ProcessParts, Refused>;

    fn handle(&mut self, exec: Exec, context: &mut Context<Self>) -> Self::Result {
        let Exec { spec, streams, token, span } = exec;
        let id = spec.id.clone();
        let view = ProcessView { traits: spec.traits(), ..ProcessView::default() };
        let (terms, token) = (Some(spec.terms()), Some(token));
        let work = Work { exec: Some(spec), streams };
        self.incoming = Some(Incoming { work, view, terms, token, span });
        let accepted = self.on(ContainerEvent::Exec(id), context);
        self.incoming = None;
        accepted?;
        let parts = self.added.take().and_then(|exec| self.parts(&ProcessId::Exec(exec)));
        parts.ok_or_else(|| Refusal::Stale.from_state(self.machine.state()))
    }
}

impl Handler<FindProcess> for Container {
    type Result = MessageResult<FindProcess>;

    /// The last of this id: one that has not ended, if there is one.
    fn handle(&mut self, FindProcess(exec): FindProcess, _: &mut Context<Self>) -> Self::Result {
        let process = ProcessId::Exec(exec);
        let ended = || self.ended.iter().rev().find(|parts| parts.id.process == process).cloned();
        MessageResult(self.parts(&process).or_else(ended))
    }
}

impl Handler<Cancel> for Container {
    type Result = ();

    fn handle(&mut self, Cancel(cancel): Cancel, context: &mut Context<Self>) {
        self.take(ContainerEvent::Cancel(cancel), context);
    }
}

impl Handler<End> for Container {
    type Result = ();

    fn handle(&mut self, End(cancel): End, context: &mut Context<Self>) {
        self.take(ContainerEvent::End(cancel), context);
    }
}

impl Handler<Remove> for Container {
    type Result = Result<(), Refused>;

    fn handle(&mut self, _: Remove, context: &mut Context<Self>) -> Self::Result {
        self.on(ContainerEvent::Remove, context)
    }
}

impl Handler<Unclaimed> for Container {
    type Result = ();

    fn handle(&mut self, Unclaimed(token): Unclaimed, _: &mut Context<Self>) {
        let unclaimed = self.processes.iter().find(|(_, supervised)| supervised.token == Some(token));
        if let Some((process, _)) = unclaimed {
            self.command(process, Cancel(executor_lifecycle::Cancel::now()));
        }
    }
}

impl Handler<Resize> for Container {
    type Result = Result<(), Refused>;

    fn handle(&mut self, Resize(size): Resize, context: &mut Context<Self>) -> Self::Result {
        self.on(ContainerEvent::Resize(size), context)
    }
}

impl Handler<Signal> for Container {
    type Result = Result<(), Refused>;

    fn handle(&mut self, Signal(signal, scope): Signal, context: &mut Context<Self>) -> Self::Result {
        self.on(ContainerEvent::Signal(signal, scope), context)
    }
}

impl Handler<Pause> for Container {
    type Result = ResponseFuture<Result<(), RequestError>>;

    fn handle(&mut self, _: Pause, context: &mut Context<Self>) -> Self::Result {
        self.freeze_request(ContainerEvent::Pause, context)
    }
}

impl Handler<Resume> for Container {
    type Result = ResponseFuture<Result<(), RequestError>>;

    fn handle(&mut self, _: Resume, context: &mut Context<Self>) -> Self::Result {
        self.freeze_request(ContainerEvent::Resume, context)
    }
}

impl Handler<ListProcesses> for Container {
    type Result = ResponseFuture<Result<Vec<HostPid>, RequestError>>;

    fn handle(&mut self, _: ListProcesses, context: &mut Context<Self>) -> Self::Result {
        match self.on(ContainerEvent::ListProcesses, context) {
            Ok(()) => self.world.runtime.processes(&self.id).map_err(RequestError::from).boxed(),
            Err(refused) => future::ready(Err(refused.into())).boxed(),
        }
    }
}

impl Handler<ReadUsage> for Container {
    type Result = ResponseFuture<Result<Usage, RequestError>>;

    fn handle(&mut self, _: ReadUsage, context: &mut Context<Self>) -> Self::Result {
        match self.on(ContainerEvent::ReadUsage, context) {
            Ok(()) => {
                let kills = self.machine.oom_kills();
                let usage = self.world.runtime.usage(&self.id).map_err(RequestError::from);
                usage.map_ok(move |usage| Usage { oom_kills: usage.oom_kills.max(kills), ..usage }).boxed()
            }
            Err(refused) => future::ready(Err(refused.into())).boxed(),
        }
    }
}

impl Handler<Update> for Container {
    type Result = ResponseFuture<Result<(), RequestError>>;

    fn handle(&mut self, Update(resources): Update, context: &mut Context<Self>) -> Self::Result {
        match self.on(ContainerEvent::Update, context) {
            Ok(()) => self.world.runtime.update(&self.id, &resources).map_err(RequestError::from).boxed(),
            Err(refused) => future::ready(Err(refused.into())).boxed(),
        }
    }
}

impl Handler<SampleUsage> for Container {
    type Result = MessageResult<SampleUsage>;

    fn handle(&mut self, SampleUsage { every }: SampleUsage, _: &mut Context<Self>) -> Self::Result {
        MessageResult(usage::sample(self.world.clone(), self.id.clone(), self.hub.view(), every))
    }
}

impl Handler<Subscribe> for Container {
    type Result = ();

    fn handle(&mut self, Subscribe(subscriber): Subscribe, _: &mut Context<Self>) {
        let (events, present) = (self.hub.view().subscribe(), self.world.present.clone());
        actix_rt::spawn(async move {
            events.send_to(subscriber).await;
            drop(present);
        });
    }
}
