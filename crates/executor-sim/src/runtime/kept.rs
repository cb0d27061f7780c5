//! What outlives a simulated executor: everything here. An executor that has crashed changes nothing any more.
//!
//! Each executor that opens the runtime is an incarnation. What one of them asks for is carried out while it is the latest: what an
//! earlier one had asked for stays as it was at that moment.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use executor_core::lifecycle::{ContainerId, HostPid, ProcessId, ProcessRef, StartFailure, StartFailureKind};
use executor_core::{BoxFuture, Kept, KeptContainer, KeptStreams, Ledger, RuntimeError, StreamKind};
use futures::{FutureExt, future};

use super::{Shared, SimRuntime};
use crate::lock;
use crate::timeline::What;

/// What executors of one name have recorded.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<String>>);

/// The ends of pipes that are held.
pub(super) type Held = BTreeMap<(ProcessRef, StreamKind), OwnedFd>;

struct SimLedger {
    lines: Lines,
    incarnation: u64,
    shared: Arc<Shared>,
}

impl SimLedger {
    /// What a crashed executor writes is not written.
    fn change(&self, change: impl FnOnce(&mut String)) {
        if *self.shared.incarnation.borrow() == self.incarnation {
            change(&mut lock(&self.lines.0));
        }
    }
}

/// What an executor that has crashed gets.
pub(super) trait Fenced {
    fn fenced() -> Self;
}

impl Fenced for () {
    fn fenced() {}
}

impl<T> Fenced for Vec<T> {
    fn fenced() -> Self {
        Self::new()
    }
}

impl<T> Fenced for Result<T, StartFailure> {
    fn fenced() -> Self {
        Err(StartFailure::new(StartFailureKind::RuntimeBroken, CRASHED))
    }
}

impl<T> Fenced for Result<T, RuntimeError> {
    fn fenced() -> Self {
        Err(RuntimeError::failed("do anything for", "an executor", CRASHED))
    }
}

const CRASHED: &str = "the executor has crashed";

/// The answer to an executor that has crashed.
pub(super) fn fenced<T: Fenced + Send + 'static>() -> BoxFuture<'static, T> {
    future::ready(T::fenced()).boxed()
}

impl Ledger for SimLedger {
    fn is_taken_over(&self) -> bool {
        *self.shared.incarnation.borrow() != self.incarnation
    }

    fn append(&self, lines: &str) -> io::Result<()> {
        self.change(|text| text.push_str(lines));
        Ok(())
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        Ok(lock(&self.lines.0).clone().into_bytes())
    }

    fn replace(&self, lines: &str) -> io::Result<()> {
        self.change(|text| lines.clone_into(text));
        Ok(())
    }
}

impl SimRuntime {
    /// Ends the executor that uses this runtime, as SIGKILL ends its process: nothing that it asks for from now on is done. What
    /// runs, runs on. The next executor of the same name takes it up; see [`Sim::crash_embedder`](crate::Sim::crash_embedder).
    pub fn crash(&self) {
        self.shared.incarnation.send_modify(|incarnation| *incarnation += 1);
        self.shared.timeline.push(What::Crashed);
        lock(&self.shared.state).open = None;
    }

    /// Whether it is the latest executor that asks, or nobody has opened this clone: it is a test's.
    pub(super) fn is_current(&self) -> bool {
        self.incarnation.get().is_none_or(|own| *own == *self.shared.incarnation.borrow())
    }

    /// Whether the executor that opens the runtime next is the latest one.
    pub(crate) fn next_is_current(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        let next = *shared.incarnation.borrow() + 1;
        move || *shared.incarnation.borrow() == next
    }

    /// From now on, only what is asked of this clone is done.
    pub(super) fn begin_incarnation(&self) -> u64 {
        self.shared.incarnation.send_modify(|incarnation| *incarnation += 1);
        *self.incarnation.get_or_init(|| *self.shared.incarnation.borrow())
    }

    /// The same work, which stops where it is when its executor crashes.
    pub(super) fn while_current<T: Fenced + Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> BoxFuture<'static, T> {
        let Some(own) = self.incarnation.get().copied() else { return work.boxed() };
        let mut incarnation = self.shared.incarnation.subscribe();
        async move {
            tokio::select! {
                biased;
                _ = incarnation.wait_for(|now| *now != own) => T::fenced(),
                done = work => done,
            }
        }
        .boxed()
    }

    pub(super) fn open_as_kept(&self, name: &str) -> Result<Kept, RuntimeError> {
        let mut state = lock(&self.shared.state);
        if state.open.as_deref() == Some(name) {
            return Err(RuntimeError::failed("take the name", name, "an executor that lives has it"));
        }
        state.open = Some(name.to_owned());
        let lines = state.ledgers.entry(name.to_owned()).or_default().clone();
        let incarnation = self.begin_incarnation();
        self.shared.processes.renew_exits();
        self.shared.timeline.begin();
        let ledger = Arc::new(SimLedger { lines, incarnation, shared: Arc::clone(&self.shared) });
        let containers = state.containers.iter().filter_map(|(id, bundle)| {
            let spec = bundle.spec.as_ref()?.as_ref().clone();
            let executed = self.shared.processes.executed(id);
            let is_frozen = self.shared.processes.is_container_frozen(id);
            Some(KeptContainer {
                id: id.clone(),
                spec,
                executed,
                is_frozen,
                streams: streams_of(&state.held, id),
            })
        });
        let containers = containers.collect();
        Ok(Kept { swept: Vec::new(), ledger, containers, unadopted: Vec::new() })
    }

    /// Reports the exits of the past, and ends what a start has half made.
    pub(super) fn adopt_kept(&self, id: &ContainerId, processes: &[(ProcessId, HostPid)]) {
        let of = |process: &ProcessId| ProcessRef { container: id.clone(), process: process.clone() };
        let adopted: Vec<_> = processes.iter().map(|(process, _)| of(process)).collect();
        self.shared.processes.remove_others(id, &adopted);
        for process in &adopted {
            self.shared.processes.report_again(process);
        }
    }

    pub(super) fn hold_end(&self, process: &ProcessRef, stream: StreamKind, end: BorrowedFd<'_>) {
        if let Ok(end) = end.try_clone_to_owned() {
            lock(&self.shared.state).held.insert((process.clone(), stream), end);
        }
    }
}

fn streams_of(held: &Held, id: &ContainerId) -> BTreeMap<ProcessId, KeptStreams> {
    let mut all = BTreeMap::<_, KeptStreams>::new();
    for ((process, stream), end) in held.iter().filter(|((process, _), _)| process.container == *id) {
        let streams = all.entry(process.process.clone()).or_default();
        let end = end.try_clone().ok();
        match stream {
            StreamKind::Stdin => streams.stdin = end,
            StreamKind::Stdout => streams.stdout = end,
            StreamKind::Stderr => streams.stderr = end,
        }
    }
    all
}
