//! The executor's process is killed, alone or with its keeper, and the next executor takes up what is there.

use executor_lifecycle::container::Inheritance;
use executor_lifecycle::process::{Inherited, ProcessNote};

use super::*;

impl World {
    /// Messages, answers that are under way and whatever the machines knew are gone. What was published, the notes, and what the
    /// kernel knows are there.
    pub(super) fn crash(&mut self, rules: &Rules, with_keeper: bool) {
        self.budget.crashes -= 1;
        self.network.clear();
        self.arrived.clear();
        (self.router, self.registry) = (ExitRouter::default(), Registry::default());
        self.asked = AskedOf { released: self.asked.released, ..AskedOf::default() };
        self.container = None;
        self.kernel_refuses = false;
        // Whoever has removed it, or has shut down, is gone as well.
        self.may_go = self.budget.traits.keep_exited == KeepExited::No;
        let notes: BTreeMap<_, _> =
            self.members.iter().map(|(id, member)| (id.clone(), member.machine.note())).collect();
        // A start that init has not taken note of is as if it had not been asked for: it stays held.
        self.start_asked = notes.get(&ProcessId::Init).is_some_and(|note| note.is_armed);
        for (id, member) in &mut self.members {
            member.crashed();
            let is_unpublished = match id {
                ProcessId::Init => self.published.exit.is_none(),
                ProcessId::Exec(exec) => self.published.execs.contains_key(exec),
            };
            if is_unpublished {
                member.exit = None;
                if with_keeper && let Real::Dead(_) = member.real {
                    member.real = Real::Dead(ExitStatus::Unknown);
                }
            }
        }
        if !self.events.is_empty() {
            self.take_up(rules, &notes);
        }
    }

    fn take_up(&mut self, rules: &Rules, notes: &BTreeMap<ProcessId, ProcessNote>) {
        let is_released = self.events.iter().any(|event| matches!(event.kind, EventKind::Released { .. }));
        if is_released {
            let exit = self.published.exit.clone().expect("it has exited");
            return self.registry(rules, RegistryEvent::Remembered(container_id(), exit));
        }
        let executed = self.members.iter().filter(|(_, member)| member.began);
        let inheritance = Inheritance {
            events: self.events.clone(),
            executed: executed.map(|(id, _)| (id.clone(), pid())).collect(),
            cancelled: notes
                .iter()
                .filter(|(_, note)| note.is_cancelled())
                .map(|(id, _)| id.clone())
                .collect(),
            is_start_wanted: notes.get(&ProcessId::Init).is_some_and(|note| note.is_armed),
            is_frozen: self.frozen,
        };
        self.registry(rules, RegistryEvent::Adopted(container_id(), RequestToken(1)));
        let (container, effects, processes) =
            (rules.adopt)(NOW, container_id(), self.budget.traits, &inheritance);
        self.container = Some(container);
        // What was published of an exec that the user has asked for is all that is known of it.
        let known: BTreeSet<_> = processes.iter().map(|(id, _)| id.clone()).collect();
        self.members
            .retain(|id, member| known.contains(id) || *id == ProcessId::Init || member.exit.is_some());
        for (id, how) in processes {
            let note = notes.get(&id).cloned().unwrap_or_default();
            self.adopt(rules, &id, note, how);
        }
        self.perform_container(rules, effects);
    }

    fn adopt(&mut self, rules: &Rules, id: &ProcessId, note: ProcessNote, how: Inherited) {
        let member = self.member(id);
        member.to_end = note.is_cancelled();
        match how {
            // The driver kills what was half made.
            Inherited::Interrupted => member.real = Real::Never,
            Inherited::Created { .. } => member.remains.pid = Some(pid()),
            Inherited::Running { .. } => {
                (member.remains.pid, member.remains.started_at) = (Some(pid()), Some(NOW));
            }
        }
        let (machine, effects) = (rules.adopt_process)(NOW, member.traits, note, how);
        member.machine = machine;
        if let Real::Dead(status) = member.real {
            let killed = matches!(status, ExitStatus::Signal(_));
            self.network.insert(Completion::Ended(id.clone(), killed));
        }
        self.perform_all(rules, id, effects);
    }
}

impl Member {
    fn crashed(&mut self) {
        self.up.clear();
        self.down.clear();
        self.sizes = 0;
        self.remains = OrphanState::default();
        // The runtime's call is killed. What it has made already is there.
        self.request = None;
        if self.real == Real::Making {
            self.real = Real::Never;
        }
        if self.real == Real::Unasked && self.exit.is_none() {
            self.real = Real::Never;
        }
    }
}
