//! Facts from a container's processes: what has become of them, and of the actors that are in charge of them.

use actix::{Context, Handler};
use executor_lifecycle::container::ContainerEvent;
use executor_lifecycle::{ProcessId, ProcessRef};

use super::{Container, owner};
use crate::actors::process::Process;
use crate::messages::{Created, Exited, LaunchEnded, OomKilled, ProcessLost, Started, StillAlive};

impl Handler<Created> for Container {
    type Result = ();

    fn handle(&mut self, Created { pid }: Created, context: &mut Context<Self>) {
        self.take(ContainerEvent::InitCreated { pid }, context);
    }
}

impl Handler<Started> for Container {
    type Result = ();

    fn handle(&mut self, Started { process, pid }: Started, context: &mut Context<Self>) {
        self.take(ContainerEvent::ProcessStarted { process, pid }, context);
    }
}

impl Handler<Exited> for Container {
    type Result = ();

    fn handle(&mut self, Exited { process, exit }: Exited, context: &mut Context<Self>) {
        self.take(ContainerEvent::ProcessExited { process: process.clone(), exit: exit.clone() }, context);
        // Handles that wait for the release find the id free.
        if let Some(supervised) = self.processes.get(&process) {
            supervised.exit_recipients.publish(&exit);
            supervised.view.send_modify(|view| view.exit = Some(exit));
        }
        if process != ProcessId::Init {
            self.bury(&process);
        }
    }
}

impl Handler<OomKilled> for Container {
    type Result = ();

    fn handle(&mut self, OomKilled(kill): OomKilled, context: &mut Context<Self>) {
        self.take(ContainerEvent::OomKilled(kill), context);
    }
}

impl Handler<StillAlive> for Container {
    type Result = ();

    fn handle(&mut self, StillAlive(process): StillAlive, context: &mut Context<Self>) {
        self.take(ContainerEvent::StillAlive(process), context);
    }
}

impl Handler<ProcessLost> for Container {
    type Result = ();

    fn handle(&mut self, ProcessLost(process): ProcessLost, context: &mut Context<Self>) {
        let Some(lost) = self.processes.get_mut(&process) else {
            return;
        };
        tracing::error!(container = %self.id, %process, "the actor of a process failed; the process is ended");
        let id = ProcessRef { container: self.id.clone(), process };
        lost.address = Process::replace(id, self.world.clone(), owner(context), lost.view.clone());
    }
}

impl Handler<LaunchEnded> for Container {
    type Result = ();

    /// The actor that asked the runtime is gone; its replacement takes the answer.
    fn handle(&mut self, ended: LaunchEnded, _: &mut Context<Self>) {
        self.command(&ended.process.clone(), ended);
    }
}
