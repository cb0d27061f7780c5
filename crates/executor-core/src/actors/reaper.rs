//! The reaper: takes ends from the exit source and routes each to the process that watches.

use std::collections::BTreeMap;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, StreamHandler};
use executor_lifecycle::exit_router::{ExitRouter as Machine, ExitRouterEffect, ExitRouterEvent};
use executor_lifecycle::{ProcessRef, RawExit};

use super::deliver;
use crate::ExitSource;
use crate::messages::{Ended, Forget, Stop, Watch};
use crate::observe::{ObservedMessage, ObserverSlot};

/// The actor; one for each executor. See [`executor_lifecycle::exit_router`] for its states.
pub struct Reaper {
    machine: Machine,
    watchers: BTreeMap<ProcessRef, Recipient<Ended>>,
    observer_slot: ObserverSlot,
}

impl Reaper {
    /// Starts it on the exits of `source`.
    pub(crate) fn start(source: &dyn ExitSource, observer_slot: &ObserverSlot) -> actix::Addr<Self> {
        let exits = source.exits();
        observer_slot.begin(|context| {
            context.add_stream(exits);
            Self {
                machine: Machine::default(),
                watchers: BTreeMap::new(),
                observer_slot: observer_slot.clone(),
            }
        })
    }

    fn on(&mut self, event: ExitRouterEvent, context: &mut Context<Self>) {
        let machine = &mut self.machine;
        match self.observer_slot.watch_step(event, ObservedMessage::Router, |event| machine.step(event)) {
            Ok(effects) => effects.into_iter().for_each(|effect| self.perform(effect, context)),
            Err(refused) => tracing::trace!(%refused, "reaper"),
        }
    }

    /// If the receiver of an exit ends before it takes it, the exit is kept for the next `Watch`.
    fn perform(
        &mut self,
        ExitRouterEffect::Deliver(process, raw): ExitRouterEffect,
        context: &Context<Self>,
    ) {
        if let Some(to) = self.watchers.remove(&process) {
            let reaper = context.address();
            deliver(&to, Ended(raw.clone()), move |_| reaper.do_send(Undelivered(process, raw)));
        }
    }
}

impl Actor for Reaper {
    type Context = Context<Self>;
}

/// From the reaper to itself.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Undelivered(ProcessRef, RawExit);

impl Handler<Undelivered> for Reaper {
    type Result = ();

    fn handle(&mut self, Undelivered(process, raw): Undelivered, context: &mut Context<Self>) {
        self.on(ExitRouterEvent::Ended(process, raw), context);
    }
}

impl StreamHandler<(ProcessRef, RawExit)> for Reaper {
    fn handle(&mut self, (process, raw): (ProcessRef, RawExit), context: &mut Context<Self>) {
        self.on(ExitRouterEvent::Ended(process, raw), context);
    }

    /// It does not end the reaper: ends that were kept are still asked for.
    fn finished(&mut self, context: &mut Context<Self>) {
        self.on(ExitRouterEvent::SourceEnded, context);
    }
}

impl Handler<Stop> for Reaper {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        context.terminate();
    }
}

impl Handler<Watch> for Reaper {
    type Result = ();

    fn handle(&mut self, Watch { process, to }: Watch, context: &mut Context<Self>) {
        self.watchers.insert(process.clone(), to);
        self.on(ExitRouterEvent::Watch(process), context);
    }
}

impl Handler<Forget> for Reaper {
    type Result = ();

    fn handle(&mut self, Forget(container): Forget, context: &mut Context<Self>) {
        let watched = self.watchers.range(ProcessRef::all_of(&container));
        for process in watched.map(|(process, _)| process.clone()).collect::<Vec<_>>() {
            self.watchers.remove(&process);
        }
        self.on(ExitRouterEvent::Forget(container), context);
    }
}
