//! The ports: what an executor calls, each translated into work of [`DriverState`] or a request to the host.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use executor_core::lifecycle::{
    ContainerId, ExecId, HostPid, Leftover, OomKill, ProcessId, ProcessRef, RawExit, Signal, SignalScope,
    StartFailure, StartFailureKind, TerminalSize, Usage,
};
use executor_core::metrics::RuntimeCalls;
use executor_core::{
    BoxFuture, BoxStream, ChildStdio, ContainerSpec, Delivery, ExecSpec, ExitSource, Kept, Kill, Resources,
    Runtime, RuntimeError, StreamKind, Swept,
};
use executor_host::cgroup::PATIENCE;
use executor_host::{Adopted, Root};
use futures::{FutureExt, StreamExt, future, stream};

use super::container::stem;
use super::launch::LaunchKind;
use super::pools::Pool;
use super::{CALL_DEADLINE, DriverState, Mode, OpenedRoot, Runc, gone};
use crate::oci::RuntimeParts;
use crate::{Error, lock};

impl Runtime for Runc {
    fn open(&self, root: &Path) -> std::result::Result<Vec<Swept>, RuntimeError> {
        let shared = &self.shared;
        let failed = |source: Error| RuntimeError::Root { root: root.to_owned(), source: source.into() };
        if shared.opened.get().is_some() {
            let taken = std::io::Error::other("this driver has a root already");
            return Err(RuntimeError::Root { root: root.to_owned(), source: taken.into() });
        }
        let (own, swept) = Root::open(root, &*shared.bundles).map_err(|error| failed(error.into()))?;
        match shared.mode {
            Mode::Detached => shared.host().subreap(true).map_err(|error| failed(error.into()))?,
            Mode::Foreground => {}
        }
        shared.enter(own);
        Ok(swept)
    }

    fn open_kept(&self, root: &Path, name: &str) -> std::result::Result<Kept, RuntimeError> {
        self.open_as_kept(root, name)
    }

    fn adopt(&self, id: &ContainerId, processes: Vec<(ProcessId, HostPid)>) {
        self.shared.adopt_kept(id, processes);
    }

    fn hold(&self, process: &ProcessRef, stream: StreamKind, end: BorrowedFd<'_>) {
        self.shared.hold_end(process, stream, end);
    }

    fn unhold(&self, process: &ProcessRef, stream: StreamKind) {
        self.shared.unhold_end(process, stream);
    }

    fn detach(&self) {
        self.shared.detach();
    }

    fn prepare(
        &self,
        id: &ContainerId,
        spec: Arc<ContainerSpec>,
    ) -> BoxFuture<'static, std::result::Result<(), StartFailure>> {
        let preparation = self.shared.begin_preparation(id);
        let prepared = Arc::clone(&self.shared).prepare(id.clone(), spec, preparation);
        self.shared.with_kick(prepared)
    }

    fn create(
        &self,
        id: &ContainerId,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, std::result::Result<HostPid, StartFailure>> {
        let shared = Arc::clone(&self.shared);
        let Some(start) = shared.begin_start(id, ProcessId::Init) else { return unprepared(id) };
        self.shared.with_kick(async move { shared.create(&start, stdio).await.map(reported) })
    }

    fn start(&self, id: &ContainerId) -> BoxFuture<'static, std::result::Result<(), StartFailure>> {
        let shared = Arc::clone(&self.shared);
        // Its terminal was received when it was created.
        let container = shared.container(id).ok();
        let Some(start) = container.and_then(|container| container.register_start(ProcessId::Init)) else {
            return unprepared(id);
        };
        async move { shared.start_created(&start).await }.boxed()
    }

    fn run(
        &self,
        id: &ContainerId,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, std::result::Result<HostPid, StartFailure>> {
        let shared = Arc::clone(&self.shared);
        let Some(start) = shared.begin_start(id, ProcessId::Init) else { return unprepared(id) };
        self.shared.with_kick(async move {
            let started = shared.launch_init(&start, LaunchKind::Run, stdio).await;
            started.map(reported)
        })
    }

    fn exec(
        &self,
        id: &ContainerId,
        exec: ExecId,
        spec: ExecSpec,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, std::result::Result<HostPid, StartFailure>> {
        let shared = Arc::clone(&self.shared);
        let Some(start) = shared.begin_start(id, ProcessId::Exec(exec)) else {
            return future::ready(Err(gone(format!("there is no container {id}")))).boxed();
        };
        let file = format!("{}.json", stem(&start.process));
        self.shared.with_kick(async move {
            let (worker, container, path) = (Arc::clone(&shared), Arc::clone(&start.container), file.clone());
            let process = start.process.clone();
            let program = spec.args.first().cloned().unwrap_or_default();
            let write = move || worker.write_process(&container, &process, spec, &path);
            if let Err(failure) = shared.work(Pool::Bundles, write).await {
                let own = Arc::clone(&start.container);
                let remove = move || own.reservation.open().map(|dir| dir.remove_file(file));
                let _left_to_release = shared.pools.run(Pool::Bundles, remove).await;
                return Err(failure);
            }
            shared.launch(&start, LaunchKind::Exec { process: file, program }, stdio).await.map(reported)
        })
    }

    fn abandon(&self, process: &ProcessRef) {
        if let Ok(container) = self.shared.container(&process.container) {
            container.abandon(&process.process);
        }
    }

    fn signal(
        &self,
        process: &ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) -> BoxFuture<'static, std::result::Result<Delivery, RuntimeError>> {
        let host = self.shared.host();
        let sent = match scope {
            SignalScope::Process | SignalScope::Group => host.signal(process.clone(), signal, scope),
            SignalScope::Container => match self.shared.container(&process.container) {
                Ok(container) => host.signal_all(container.members(), signal),
                Err(error) => return future::ready(Err(error.of("signal", process))).boxed(),
            },
        };
        let process = process.clone();
        async move {
            sent.await.map_err(|error| RuntimeError::failed(format!("send {signal} to"), process, error))
        }
        .boxed()
    }

    fn resize(&self, process: &ProcessRef, size: TerminalSize) -> std::result::Result<(), RuntimeError> {
        // A released container has no terminals.
        let Ok(container) = self.shared.container(&process.container) else { return Ok(()) };
        let resized = container.resize(&process.process, size);
        resized.map_err(|error| RuntimeError::failed("resize", process, error))
    }

    fn kill(
        &self,
        process: &ProcessRef,
        how: Kill,
    ) -> BoxFuture<'static, std::result::Result<Delivery, RuntimeError>> {
        let Kill { everything, thaw } = how;
        let (mut members, mut freezers) = (None, Vec::new());
        if let Ok(container) = self.shared.container(&process.container) {
            members = everything.then(|| container.members());
            freezers = if thaw { container.freezers() } else { Vec::new() };
        }
        let killed = self.shared.host().kill(process.clone(), members, freezers);
        let process = process.clone();
        async move { killed.await.map_err(|error| RuntimeError::failed("kill", process, error)) }.boxed()
    }

    fn kill_remaining(&self, id: &ContainerId) -> BoxFuture<'static, ()> {
        let Ok(container) = self.shared.container(id) else { return future::ready(()).boxed() };
        let (members, freezers) = (container.members(), container.freezers());
        let ended = self.shared.host().end_all(id.clone(), members, freezers, PATIENCE);
        let id = id.clone();
        async move {
            if let Err(error) = ended.await {
                tracing::warn!(container = %id, %error, "what is left in a container was not killed");
            }
        }
        .boxed()
    }

    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, std::result::Result<(), RuntimeError>> {
        self.call("pause", id, |runtime, id| runtime.pause(id))
    }

    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, std::result::Result<(), RuntimeError>> {
        self.call("resume", id, |runtime, id| runtime.resume(id))
    }

    fn thaw(&self, id: &ContainerId) -> BoxFuture<'static, std::result::Result<(), RuntimeError>> {
        let id = id.clone();
        let container = match self.shared.container(&id) {
            Ok(container) => container,
            Err(error) => return future::ready(Err(error.of("thaw", &id))).boxed(),
        };
        let thawed = self.shared.host().thaw(container.freezers());
        async move { thawed.await.map_err(|error| RuntimeError::failed("thaw", id, error)) }.boxed()
    }

    fn processes(
        &self,
        id: &ContainerId,
    ) -> BoxFuture<'static, std::result::Result<Vec<HostPid>, RuntimeError>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move {
            let failed = |error: Error| error.of("list the processes of", &id);
            let container = shared.container(&id).map_err(failed)?;
            let listed = shared.pools.run(Pool::Reads, move || container.processes()).await;
            let unread = |error| RuntimeError::failed("list the processes of", &id, error);
            Ok(listed.map_err(failed)?.map_err(unread)?.into_iter().collect())
        }
        .boxed()
    }

    fn usage(&self, id: &ContainerId) -> BoxFuture<'static, std::result::Result<Usage, RuntimeError>> {
        const OP: &str = "read the usage of";
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move {
            let failed = |error: Error| error.of(OP, &id);
            let container = shared.container(&id).map_err(failed)?;
            let own = Arc::clone(&container);
            let has_ended = shared.pools.run(Pool::Reads, move || own.has_ended()).await;
            let unread = |error| RuntimeError::failed(OP, &id, error);
            if has_ended.map_err(failed)?.map_err(unread)? {
                return Err(RuntimeError::not_running(OP, &id));
            }
            shared.usage(container).await.map_err(failed)
        }
        .boxed()
    }

    fn update(
        &self,
        id: &ContainerId,
        resources: &Resources,
    ) -> BoxFuture<'static, std::result::Result<(), RuntimeError>> {
        Arc::clone(&self.shared).update(id.clone(), resources.clone()).boxed()
    }

    fn release(&self, id: &ContainerId) -> BoxFuture<'static, Vec<Leftover>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move { shared.release(&id).await }.boxed()
    }

    fn close(&self) -> Vec<Leftover> {
        let shared = &self.shared;
        if let Some(kick) = &shared.kick {
            kick.stop();
        }
        if shared.is_detached() {
            return shared.leave_kept();
        }
        let has_ended = shared.pools.close(CALL_DEADLINE);
        if let Err(error) = shared.host().close(CALL_DEADLINE) {
            tracing::warn!(%error, "not all processes could be killed");
        }
        // What work that does not end has made is still used. Other preparations were given up.
        let (preparing, mut left) = if has_ended { Default::default() } else { shared.left_in_preparation() };
        let mut rest: Vec<_> = lock(&shared.containers).values().cloned().collect();
        rest.retain(|container| !preparing.contains(&container.reservation.id));
        left.extend(rest.iter().flat_map(|container| shared.release_now(container)));
        left.extend(shared.quit_keeper());
        if let Some(opened) = shared.opened.get() {
            left.extend(opened.root.close(&*shared.bundles));
            if shared.mode == Mode::Detached
                && !shared.is_kept()
                && let Err(error) = shared.host().subreap(false)
            {
                tracing::warn!(%error, "this process stays a subreaper");
            }
        }
        left
    }
}

impl ExitSource for Runc {
    fn exits(&self) -> BoxStream<'static, (ProcessRef, RawExit)> {
        let shared = Arc::clone(&self.shared);
        if let (Mode::Detached, Ok(opened)) = (shared.mode, shared.opened())
            && let Err(error) = shared.host().reap_orphans(opened.root.containers())
        {
            tracing::error!(%error, "orphans are reaped only when their container is released");
        }
        shared.replace_keepers();
        let exits = stream::select(shared.host().exits(), shared.lost.take());
        let with_usage = move |(process, end)| Arc::clone(&shared).exit(process, end);
        // Unordered, so that no exit waits for the usage of another container.
        exits.map(with_usage).buffer_unordered(usize::MAX).boxed()
    }

    fn oom_kills(&self) -> BoxStream<'static, (ContainerId, OomKill)> {
        self.shared.host().oom_kills()
    }
}

/// Has the exit of a started process reported from now on. Returns its pid.
fn reported((pid, adopted): (HostPid, Adopted)) -> HostPid {
    adopted.report();
    pid
}

impl DriverState {
    /// From now on it works for the executor of this root.
    pub(super) fn enter(&self, root: Root) {
        let (state, mark) = (root.runtime_state().path().to_owned(), root.mark().to_owned());
        let calls = RuntimeCalls::register();
        self.pools.measure();
        let host = self.host().clone();
        let command_line = self.command_line.with_root(&root, host.clone(), calls.clone());
        let parts = RuntimeParts { command_line: command_line.clone(), host, state, mark };
        let runtime = (self.make_runtime)(parts);
        let _first = self.opened.set(OpenedRoot { root, command_line, runtime, calls });
    }
}

fn unprepared<T: Send + 'static>(
    id: &ContainerId,
) -> BoxFuture<'static, std::result::Result<T, StartFailure>> {
    let message = format!("the container {id} is not prepared");
    future::ready(Err(StartFailure::new(StartFailureKind::RuntimeBroken, message))).boxed()
}
