//! The reaper: takes ends from the exit source and gives each to the process that watches.

use std::collections::BTreeMap;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, StreamHandler};
use executor_lifecycle::reaper::{Reaper as Machine, ReaperEffect, ReaperEvent};
use executor_lifecycle::{Ending, ProcessRef};

use super::deliver;
use crate::ExitSource;
use crate::messages::{Ended, Forget, Stop, Watch};
use crate::observe::{Bystander, Taken};

/// The actor; one for each executor. See [`executor_lifecycle::reaper`] for its states.
pub struct Reaper {
    machine: Machine,
    watchers: BTreeMap<ProcessRef, Recipient<Ended>>,
    bystander: Bystander,
}

impl Reaper {
    /// Starts it on the exits of `source`.
    pub(crate) fn start(source: &dyn ExitSource, bystander: &Bystander) -> actix::Addr<Self> {
        let exits = source.exits();
        bystander.begin(|context| {
            context.add_stream(exits);
            Self { machine: Machine::default(), watchers: BTreeMap::new(), bystander: bystander.clone() }
        })
    }

    fn on(&mut self, event: ReaperEvent, context: &mut Context<Self>) {
        let machine = &mut self.machine;
        match self.bystander.watch_step(event, Taken::Reaper, |event| machine.step(event)) {
            Ok(effects) => effects.into_iter().for_each(|effect| self.perform(effect, context)),
            Err(refused) => tracing::trace!(%refused, "reaper"),
        }
    }

    /// An end whose receiver died on the way is an end nobody has asked for yet.
    fn perform(&mut self, ReaperEffect::Deliver(process, ending): ReaperEffect, context: &Context<Self>) {
        if let Some(to) = self.watchers.remove(&process) {
            let reaper = context.address();
            deliver(&to, Ended(ending.clone()), move |_| reaper.do_send(Undelivered(process, ending)));
        }
    }
}

impl Actor for Reaper {
    type Context = Context<Self>;
}

/// From the reaper to itself.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Undelivered(ProcessRef, Ending);

impl Handler<Undelivered> for Reaper {
    type Result = ();

    fn handle(&mut self, Undelivered(process, ending): Undelivered, context: &mut Context<Self>) {
        self.on(ReaperEvent::Ended(process, ending), context);
    }
}

impl StreamHandler<(ProcessRef, Ending)> for Reaper {
    fn handle(&mut self, (process, ending): (ProcessRef, Ending), context: &mut Context<Self>) {
        self.on(ReaperEvent::Ended(process, ending), context);
    }

    /// The source ending does not end the reaper: ends that were kept are still asked for.
    fn finished(&mut self, _: &mut Context<Self>) {}
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
        self.on(ReaperEvent::Watch(process), context);
    }
}

impl Handler<Forget> for Reaper {
    type Result = ();

    fn handle(&mut self, Forget(container): Forget, context: &mut Context<Self>) {
        let watched = self.watchers.range(ProcessRef::all_of(&container));
        for process in watched.map(|(process, _)| process.clone()).collect::<Vec<_>>() {
            self.watchers.remove(&process);
        }
        self.on(ReaperEvent::Forget(container), context);
    }
}
