//! The containers that another executor has left: taken up when the actor starts, before any request.

use std::sync::Arc;

use actix::Context;
use executor_lifecycle::container::{Container as Machine, Inheritance};
use executor_lifecycle::process::Inherited;
use executor_lifecycle::registry::{RegistryEvent, RequestToken};
use executor_lifecycle::{ContainerId, HostPid, ProcessId};

use super::{ExecutorActor, Registered, above};
use crate::actors::container::{AdoptedContainer, AdoptedProcess, Container};
use crate::events::Hub;
use crate::history::{Past, PastContainer};
use crate::io::{self, Connected, SharedOutputs, Streams};
use crate::kept::KeptContainer;
use crate::messages::{ProcessStreams, RunAccepted};
use crate::metrics::StartKind;
use crate::{ContainerSpec, StdioSpec};

/// Requests of handles have later tokens: at a shutdown, what was taken up ends first.
const ADOPTED: RequestToken = RequestToken(0);

/// What another executor has left.
#[derive(Default)]
pub(crate) struct Left {
    pub(crate) past: Past,
    pub(crate) containers: Vec<KeptContainer>,
}

impl ExecutorActor {
    pub(super) fn take_up(&mut self, left: Left, context: &mut Context<Self>) {
        let Left { mut past, containers } = left;
        for (id, exit) in std::mem::take(&mut past.remembered) {
            self.take(RegistryEvent::Remembered(id, exit), context);
        }
        for kept in containers {
            match past.containers.remove(&kept.id) {
                Some(published) => self.adopt(kept, published, context),
                // It was kept ready, and nobody knows of it.
                None => self.release_unknown(kept.id),
            }
        }
        // Nothing exists of it: it was just registered, or just released.
        for (id, published) in past.containers {
            let kept = KeptContainer {
                id,
                spec: ContainerSpec::template(),
                executed: Default::default(),
                is_frozen: false,
                streams: Default::default(),
            };
            self.adopt(kept, published, context);
        }
    }

    fn release_unknown(&self, id: ContainerId) {
        let released = self.world.runtime.release(&id);
        actix_rt::spawn(async move {
            let left = released.await;
            tracing::info!(container = %id, ?left, "a container that was kept ready was released");
        });
    }

    fn adopt(&mut self, kept: KeptContainer, published: PastContainer, context: &mut Context<Self>) {
        let KeptContainer { id, mut spec, executed, is_frozen, mut streams } = kept;
        let PastContainer { events, notes, labels, .. } = published;
        if let Some(labels) = labels {
            spec.labels = labels;
        }
        let inheritance = Inheritance {
            executed,
            cancelled: notes
                .iter()
                .filter(|(_, note)| note.is_cancelled())
                .map(|(id, _)| id.clone())
                .collect(),
            is_start_wanted: notes.get(&ProcessId::Init).is_some_and(|note| note.is_armed),
            is_frozen,
            events,
        };
        let now = self.world.clock.now();
        let (machine, effects, processes) = Machine::adopted(now, id.clone(), spec.traits(), &inheritance);
        self.world.runtime.adopt(&id, with_pids(&processes));
        let mut of_init = (Streams::default(), SharedOutputs::default());
        let mut adopted = Vec::new();
        for (process, how) in processes {
            let is_init = process == ProcessId::Init;
            let stdio = if is_init { spec.process.stdio.clone() } else { StdioSpec::default() };
            let connected = io::reconnect(&stdio, streams.remove(&process).unwrap_or_default());
            let Connected { stdio, ends, streams: mut ours, shared } = connected;
            if is_init {
                of_init = (std::mem::take(&mut ours), shared.clone());
            }
            let note = notes.get(&process).cloned().unwrap_or_default();
            let streams = ProcessStreams { stdio, ends, shared };
            adopted.push(AdoptedProcess { id: process, how, note, streams, ours });
        }
        let hub =
            Hub::new(id.clone(), spec.labels.clone(), self.bus.clone(), StartKind::Run, self.world.clock);
        hub.restore(&inheritance.events);
        self.take(RegistryEvent::Adopted(id.clone(), ADOPTED), context);
        let (spec, span) = (Arc::new(spec), tracing::info_span!("adopted", container = %id));
        let container = AdoptedContainer {
            id: id.clone(),
            spec: Arc::clone(&spec),
            machine,
            effects,
            processes: adopted,
            span,
        };
        let address = Container::adopt(container, self.world.clone(), above(context), Arc::clone(&hub));
        let (ours, shared) = of_init;
        self.adopted.push(id.clone());
        self.containers.insert(id, Registered { address, hub, shared, spec, ours, pool: None });
    }

    /// The containers that were taken up and are not released, for their first handles.
    pub(super) fn hand_out_adopted(&mut self) -> Vec<RunAccepted> {
        let adopted = std::mem::take(&mut self.adopted);
        let accepted = adopted.into_iter().filter_map(|id| {
            let registered = self.containers.get_mut(&id)?;
            let ours = std::mem::take(&mut registered.ours);
            Some(RunAccepted { parts: registered.parts(), id, ours })
        });
        accepted.collect()
    }
}

/// The processes whose exit is to come.
fn with_pids(processes: &[(ProcessId, Inherited)]) -> Vec<(ProcessId, HostPid)> {
    let pids = processes.iter().filter_map(|(process, how)| match how {
        Inherited::Created { pid } | Inherited::Running { pid, .. } => Some((process.clone(), *pid)),
        Inherited::Interrupted => None,
    });
    pids.collect()
}
