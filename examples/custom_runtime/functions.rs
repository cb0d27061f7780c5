//! A runtime whose programs are functions of yours, run as tasks: both ports, in sixty lines.

use std::{collections::HashMap, sync::Arc, sync::Mutex};

use futures::{FutureExt, future::ready};
use longshore::runtime::*;
use longshore::*;
use tokio::task::AbortHandle;

/// From arguments to an exit code.
pub(crate) type Program = fn(Vec<String>) -> BoxFuture<'static, u8>;
type Sent = BoxFuture<'static, Result<Delivery, RuntimeError>>;
type Prepared = BoxFuture<'static, Result<(), StartFailure>>;
type Started = BoxFuture<'static, Result<HostPid, StartFailure>>;

#[derive(Default)]
pub(crate) struct Functions {
    pub(crate) programs: HashMap<&'static str, Program>,
    specs: Mutex<HashMap<ContainerId, Arc<ContainerSpec>>>,
    tasks: Mutex<HashMap<ProcessRef, AbortHandle>>,
    exits: ExitQueue,
}

impl Functions {
    fn spawn(&self, process: ProcessRef, args: Vec<String>) -> Started {
        let Some(program) = args.first().and_then(|name| self.programs.get(name.as_str())) else {
            return ready(Err(StartFailure::new(StartFailureKind::NotFound, "no such function"))).boxed();
        };
        let (task, exits) = (tokio::spawn(program(args)), self.exits.clone());
        self.tasks.lock().expect("nothing panics").insert(process.clone(), task.abort_handle());
        tokio::spawn(async move {
            let status = task.await.map_or(ExitStatus::Signal(Signal::KILL), ExitStatus::Code);
            exits.send(process, RawExit::with(status));
        });
        ready(HostPid::new(std::process::id()).ok_or_else(|| unreachable!("we have a pid"))).boxed()
    }
}

impl Runtime for Functions {
    fn prepare(&self, id: &ContainerId, spec: Arc<ContainerSpec>) -> Prepared {
        self.specs.lock().expect("nothing panics").insert(id.clone(), spec);
        ready(Ok(())).boxed()
    }
    fn run(&self, id: &ContainerId, _: ChildStdio) -> Started {
        let args = self.specs.lock().expect("nothing panics").get(id).map(|spec| spec.process.args.clone());
        self.spawn(ProcessRef::init(id.clone()), args.unwrap_or_default())
    }
    fn exec(&self, id: &ContainerId, exec: ExecId, spec: ExecSpec, _: ChildStdio) -> Started {
        self.spawn(ProcessRef::exec(id.clone(), exec), spec.args)
    }
    fn abandon(&self, _: &ProcessRef) {}
    fn signal(&self, _: &ProcessRef, _: Signal, _: SignalScope) -> Sent {
        ready(Ok(Delivery::Sent)).boxed()
    }
    fn kill(&self, process: &ProcessRef, _: Kill) -> Sent {
        self.tasks.lock().expect("nothing panics").get(process).map(AbortHandle::abort);
        ready(Ok(Delivery::Sent)).boxed()
    }
    fn processes(&self, _: &ContainerId) -> BoxFuture<'static, Result<Vec<HostPid>, RuntimeError>> {
        ready(Ok(Vec::new())).boxed()
    }
    fn release(&self, id: &ContainerId) -> BoxFuture<'static, Vec<Leftover>> {
        self.tasks.lock().expect("nothing panics").retain(|process, _| process.container != *id);
        self.specs.lock().expect("nothing panics").remove(id);
        ready(Vec::new()).boxed()
    }
    fn close(&self) -> Vec<Leftover> {
        self.tasks.lock().expect("nothing panics").values().for_each(AbortHandle::abort);
        Vec::new()
    }
}

impl ExitSource for Functions {
    fn exits(&self) -> BoxStream<'static, (ProcessRef, RawExit)> {
        self.exits.take()
    }
}
