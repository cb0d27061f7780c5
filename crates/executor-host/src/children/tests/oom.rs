//! Which process the OOM killer has killed: records, counters, and pids that are used again.

use executor_core::lifecycle::{OomEvidence, OomKill, ProcessId};

use super::*;
use crate::children::oom::PROGRAM_PATIENCE;
use crate::oom::LoggedKill;

const SIGKILL: ExitStatus = ExitStatus::Signal(Signal::KILL);

impl Stage {
    /// The runtime starts a process in a container with a memory limit.
    fn start_limited(&mut self, process: ProcessRef, pid: u32, has_program: bool) {
        self.ask(0, |_| Request::TrackKills { process: process.clone(), has_program, members: limited() });
        let pid = self.world().add(pid, OWN, |_| {});
        self.adopt(process.clone(), pid, Parent::Us);
        self.ask(0, |_| Request::WatchKills {
            container: process.container,
            has_program,
            members: limited(),
        });
        self.events();
    }

    /// The kernel has killed a process, and says so.
    fn oom_kill(&mut self, pid: u32, cgroup: Option<&str>) {
        self.world().counted += 1;
        if let Some(log) = &mut self.world().log {
            let cgroup = cgroup.map(|cgroup| format!("{cgroup},task=x"));
            log.kills.push(LoggedKill { pid: HostPid::new(pid).unwrap(), cgroup, group: None });
        }
        self.table.log_noticed();
    }

    /// The cgroups fire.
    fn notice(&mut self) {
        for number in self.world().noticed.keys().copied().collect::<Vec<_>>() {
            self.table.ended(self.now, number);
        }
    }

    fn kills(&mut self) -> Vec<OomKill> {
        let kill = |event| {
            let Event::OomKilled { kill, .. } = event else { return None };
            Some(kill)
        };
        self.events().into_iter().filter_map(kill).collect()
    }

    /// The evidence of an exit.
    fn evidence(&mut self, pid: u32, status: ExitStatus) -> OomEvidence {
        self.world().end(pid, status);
        self.settle(RETRY);
        let evidence = |event| {
            let Event::Exited { end, .. } = event else { return None };
            end.oom
        };
        self.events().into_iter().find_map(evidence).unwrap()
    }
}

fn limited() -> Members {
    Members::Cgroup { path: OURS.into(), dirs: vec!["/memory".into()] }
}

fn kill(number: u64, process: Option<ProcessId>, pid: u32) -> OomKill {
    OomKill::new(number).of(process).pid(HostPid::new(pid))
}

fn readable() -> Stage {
    let mut stage = Stage::new();
    stage.world().has_log = true;
    stage
}

#[test]
fn the_process_that_the_log_names_was_killed() {
    let mut stage = readable();
    stage.start_limited(init(), 812, false);
    stage.start_limited(exec(), 813, false);
    stage.oom_kill(813, Some("/above/longshore/e/c/nested"));
    assert_eq!(stage.kills(), [kill(1, Some(exec().process), 813)]);
    assert_eq!(stage.evidence(813, SIGKILL), OomEvidence::Killed);
    // A child, and then somebody else kills init.
    stage.oom_kill(900, Some(OURS));
    assert_eq!(stage.kills(), [kill(2, None, 900)]);
    assert_eq!(stage.evidence(812, SIGKILL), OomEvidence::NotKilled);
}

#[test]
fn a_record_that_is_read_with_the_exit_is_reported_before_it() {
    let mut stage = readable();
    stage.start_limited(init(), 812, false);
    stage.world().counted = 1;
    let logged = LoggedKill { pid: HostPid::new(812).unwrap(), cgroup: None, group: None };
    stage.world().log.as_mut().unwrap().kills.push(logged);
    stage.world().end(812, SIGKILL);
    stage.settle(RETRY);
    let end = crate::seam::ProcessEnd {
        status: SIGKILL,
        oom: Some(OomEvidence::Killed),
        has_executed: Some(true),
        at: None,
    };
    let kill = kill(1, Some(ProcessId::Init), 812);
    assert_eq!(
        stage.events(),
        [Event::OomKilled { container: container(), kill }, Event::Exited { process: init(), end }]
    );
}

#[test]
fn only_kills_since_the_start_and_in_the_container_count() {
    let mut stage = readable();
    stage.start_limited(init(), 812, false);
    stage.oom_kill(813, Some(OURS));
    // The pid of the child that was killed is used again.
    stage.start_limited(exec(), 813, false);
    assert_eq!(stage.evidence(813, SIGKILL), OomEvidence::NotKilled);
    stage.start_limited(exec(), 814, false);
    stage.world().counted -= 1;
    stage.oom_kill(814, Some("/longshore/e/other"));
    assert_eq!(stage.kills(), [], "another container's");
    assert_eq!(stage.evidence(814, SIGKILL), OomEvidence::NotKilled);
}

#[test]
fn a_kill_before_the_pid_is_known_waits_for_it() {
    let mut stage = readable();
    stage.start_limited(init(), 812, false);
    stage.ask(0, |_| Request::TrackKills { process: exec(), has_program: false, members: limited() });
    stage.oom_kill(813, Some(OURS));
    assert_eq!(stage.kills(), []);
    let pid = stage.world().add(813, OWN, |fake| fake.ended = Some(SIGKILL));
    stage.adopt(exec(), pid, Parent::Us);
    assert_eq!(stage.kills(), [kill(1, Some(exec().process), 813)]);
    stage.settle(RETRY);
    // Without its cgroup.
    stage.ask(0, |_| Request::TrackKills { process: exec(), has_program: false, members: limited() });
    stage.oom_kill(814, None);
    assert_eq!(stage.kills(), []);
    let pid = stage.world().add(814, OWN, |fake| fake.ended = Some(SIGKILL));
    stage.adopt(exec(), pid, Parent::Us);
    assert_eq!(stage.kills(), [kill(2, Some(exec().process), 814)]);
    stage.settle(RETRY);
    // A child of an init that is not adopted yet.
    let mut early = readable();
    early.ask(0, |_| Request::TrackKills { process: init(), has_program: false, members: limited() });
    early.oom_kill(900, Some(OURS));
    let pid = early.world().add(812, OWN, |_| {});
    early.adopt(init(), pid, Parent::Us);
    assert_eq!(early.kills(), [kill(1, None, 900)]);
    // One that does not start is waited for no longer.
    stage.ask(0, |_| Request::TrackKills { process: exec(), has_program: false, members: limited() });
    stage.oom_kill(900, Some(OURS));
    assert_eq!(stage.kills(), []);
    stage.ask(0, |_| Request::UntrackKills { process: exec() });
    assert_eq!(stage.kills(), [kill(3, None, 900)]);
    stage.ask(0, |_| Request::TrackKills { process: exec(), has_program: false, members: limited() });
    stage.oom_kill(901, None);
    assert_eq!(stage.kills(), []);
    stage.ask(0, |_| Request::UntrackKills { process: exec() });
    assert_eq!(stage.kills(), [OomKill::new(4)]);
}

#[test]
fn the_program_of_an_init_stands_for_it() {
    let mut stage = readable();
    // Init starts its program later, on a busy machine.
    stage.start_limited(init(), 812, true);
    stage.settle(HANDOVER * 3);
    stage.world().first_children.insert(812, 813);
    stage.settle(RETRY * 3);
    stage.oom_kill(814, Some(OURS));
    assert_eq!(stage.kills(), [kill(1, None, 814)]);
    stage.oom_kill(813, Some(OURS));
    assert_eq!(stage.kills(), [kill(2, Some(ProcessId::Init), 813)]);
    assert_eq!(stage.evidence(812, code(137)), OomEvidence::Killed);

    for (killed, status, expected) in [
        (814, code(137), OomEvidence::NotKilled),
        (814, SIGKILL, OomEvidence::NotKilled),
        (812, SIGKILL, OomEvidence::Killed),
        (813, code(7), OomEvidence::NotKilled),
    ] {
        let mut stage = readable();
        stage.world().first_children.insert(812, 813);
        stage.start_limited(init(), 812, true);
        stage.oom_kill(killed, Some(OURS));
        assert_eq!(stage.evidence(812, status), expected, "{killed} {status}");
    }
    // Its program is not found.
    let mut stage = readable();
    stage.start_limited(init(), 812, true);
    stage.settle(PROGRAM_PATIENCE + RETRY);
    stage.oom_kill(813, Some(OURS));
    assert_eq!(stage.kills(), [kill(1, None, 813)]);
    assert_eq!(stage.evidence(812, code(137)), OomEvidence::Counted(1));
}

#[test]
fn a_code_of_the_programs_own_is_no_kill() {
    let mut stage = Stage::new();
    stage.start_limited(init(), 812, false);
    stage.oom_kill(900, Some(OURS));
    assert_eq!(stage.evidence(812, code(137)), OomEvidence::NotKilled);
}

#[test]
fn without_the_log_the_counters_decide() {
    let mut stage = Stage::new();
    stage.start_limited(init(), 812, false);
    assert!(stage.world().noticed.values().eq([&vec![OsString::from("/memory")]]));
    // Something is killed before the cgroup is watched.
    stage.world().counted = 1;
    stage.ask(0, |_| Request::WatchKills { container: container(), has_program: false, members: limited() });
    assert_eq!(stage.kills(), [OomKill::new(1)]);
    // A notice of v1 comes before the kill.
    stage.notice();
    assert_eq!(stage.kills(), []);
    stage.world().counted = 2;
    stage.settle(Duration::from_millis(20));
    assert_eq!(stage.kills(), [OomKill::new(2)]);
    stage.start_limited(exec(), 813, false);
    assert_eq!(stage.evidence(813, SIGKILL), OomEvidence::Counted(0));
    stage.start_limited(exec(), 814, false);
    stage.world().counted = 3;
    stage.world().end(814, SIGKILL);
    stage.settle(RETRY);
    assert_eq!(stage.events().first().map(|event| matches!(event, Event::OomKilled { .. })), Some(true));
    assert_eq!(stage.evidence(812, SIGKILL), OomEvidence::Counted(3));
}

#[test]
fn records_that_are_missing_are_not_missed() {
    // Overwritten before they were read.
    let mut stage = readable();
    stage.start_limited(init(), 812, false);
    stage.world().log.as_mut().unwrap().is_incomplete = true;
    stage.world().counted = 1;
    stage.table.log_noticed();
    assert_eq!(stage.kills(), [OomKill::new(1)]);
    assert_eq!(stage.evidence(812, SIGKILL), OomEvidence::Counted(1));
    // Never written.
    let mut stage = readable();
    stage.start_limited(init(), 812, false);
    stage.world().counted = 2;
    assert_eq!(stage.evidence(812, SIGKILL), OomEvidence::Counted(2));
    // Without the cgroup, the pid says which process it was, and the counters that there was another.
    let mut stage = readable();
    stage.start_limited(init(), 812, false);
    stage.start_limited(exec(), 813, false);
    stage.oom_kill(900, None);
    assert_eq!(stage.kills(), [OomKill::new(1)]);
    stage.oom_kill(813, None);
    assert_eq!(stage.kills(), [kill(2, Some(exec().process), 813)]);
    assert_eq!(stage.evidence(813, SIGKILL), OomEvidence::Killed);
    assert_eq!(stage.evidence(812, SIGKILL), OomEvidence::NotKilled);
    // It may name a thread, whose process is known while that is exiting.
    let mut stage = readable();
    stage.start_limited(init(), 812, false);
    stage.world().threads.insert(815, 812);
    stage.oom_kill(815, None);
    assert_eq!(stage.kills(), [kill(1, Some(ProcessId::Init), 812)]);
    assert_eq!(stage.evidence(812, SIGKILL), OomEvidence::Killed);
    // The container's cgroup is not known yet.
    let mut stage = readable();
    let nowhere = Members::Cgroup { path: OURS.into(), dirs: Vec::new() };
    stage.ask(0, |_| Request::TrackKills { process: init(), has_program: false, members: nowhere });
    stage.oom_kill(900, None);
    let pid = stage.world().add(812, OWN, |_| {});
    stage.adopt(init(), pid, Parent::Us);
    stage.ask(0, |_| Request::WatchKills { container: container(), has_program: false, members: limited() });
    assert_eq!(stage.kills(), [OomKill::new(1)]);
}

#[test]
fn a_group_is_killed_together() {
    let mut stage = readable();
    stage.start_limited(init(), 812, false);
    stage.start_limited(exec(), 813, false);
    stage.world().counted = 3;
    let logged = |pid, cgroup: Option<&str>, group: Option<&str>| LoggedKill {
        pid: HostPid::new(pid).unwrap(),
        cgroup: cgroup.map(str::to_owned),
        group: group.map(str::to_owned),
    };
    stage.world().log.as_mut().unwrap().kills =
        vec![logged(900, Some(OURS), None), logged(812, None, Some(OURS)), logged(813, None, Some(OURS))];
    stage.table.log_noticed();
    let expected =
        [kill(1, None, 900), kill(2, Some(ProcessId::Init), 812), kill(3, Some(exec().process), 813)];
    assert_eq!(stage.kills(), expected);
    assert_eq!(stage.evidence(813, SIGKILL), OomEvidence::Killed);
    assert_eq!(stage.evidence(812, SIGKILL), OomEvidence::Killed);
}

#[test]
fn a_neighbour_cannot_be_named() {
    let mut stage = readable();
    stage.start_limited(init(), 812, false);
    let other = ProcessRef::init(ContainerId::new("d").unwrap());
    let members = Members::Cgroup { path: "/longshore/e/d".into(), dirs: Vec::new() };
    let own = members.clone();
    stage.ask(0, |_| Request::TrackKills { process: other.clone(), has_program: false, members: own });
    let pid = stage.world().add(820, OWN, |fake| fake.cgroup = "/longshore/e/d");
    stage.ask(0, |token| Request::Adopt { token, process: other, pid, parent: Parent::Us, members });
    stage.events();
    // Container c has made cgroups below its own.
    stage.oom_kill(900, Some("/longshore/e/c/longshore/e/d"));
    assert_eq!(stage.events(), [Event::OomKilled { container: container(), kill: kill(1, None, 900) }]);
}

#[test]
fn the_log_is_open_while_a_container_has_a_limit() {
    let mut stage = readable();
    stage.start_limited(init(), 812, false);
    assert!(stage.world().log.is_some());
    stage.ask(0, |_| Request::Forget { container: container() });
    assert!(stage.world().log.is_none());
    stage.start_limited(init(), 813, false);
    stage.table.leave(0);
    assert!(stage.world().log.is_none());
}

#[test]
fn the_cgroups_take_over_when_the_log_ends() {
    let mut stage = readable();
    stage.start_limited(init(), 812, false);
    assert!(stage.world().noticed.is_empty());
    stage.world().log_has_ended = true;
    stage.table.log_noticed();
    assert_eq!(stage.world().noticed.len(), 1);
    stage.world().counted = 1;
    stage.notice();
    assert_eq!(stage.kills(), [OomKill::new(1)]);
    // It is not registered twice.
    let members = limited();
    stage.ask(0, |_| Request::WatchKills { container: container(), has_program: false, members });
    assert_eq!(stage.world().noticed.len(), 1);
    stage.ask(0, |_| Request::Forget { container: container() });
    assert!(stage.world().noticed.is_empty());
}

#[test]
fn an_exit_reads_the_counters_of_its_own_container() {
    let mut stage = Stage::new();
    stage.start_limited(init(), 812, false);
    let other = ContainerId::new("d").unwrap();
    let members = Members::Cgroup { path: "/longshore/e/d".into(), dirs: vec!["/other".into()] };
    let (process, of_other) = (ProcessRef::init(other.clone()), members.clone());
    stage.ask(0, |_| Request::TrackKills { process, has_program: false, members: of_other });
    stage.ask(0, |_| Request::WatchKills { container: other, has_program: false, members });
    // What is looked at for a while after the start.
    stage.settle(Duration::from_secs(2));
    stage.world().counters_read.borrow_mut().clear();
    assert_eq!(stage.evidence(812, SIGKILL), OomEvidence::Counted(0));
    let read = stage.world().counters_read.take();
    assert!(!read.is_empty() && read.iter().all(|dir| dir == "/memory"), "{read:?}");
    let last = *stage.world().noticed.keys().last().unwrap();
    stage.table.ended(stage.now, last);
    assert_eq!(stage.world().counters_read.take(), [OsString::from("/other")]);
}

#[test]
fn a_limit_that_comes_later_finds_the_program_of_an_init() {
    let mut stage = readable();
    let pid = stage.world().add(812, OWN, |_| {});
    stage.adopt(init(), pid, Parent::Us);
    stage.world().first_children.insert(812, 813);
    let members = limited();
    stage.ask(0, |_| Request::WatchKills { container: container(), has_program: true, members });
    stage.events();
    stage.oom_kill(813, Some(OURS));
    assert_eq!(stage.kills(), [kill(1, Some(ProcessId::Init), 813)]);
    assert_eq!(stage.evidence(812, code(137)), OomEvidence::Killed);
}

#[test]
fn a_count_is_not_made_up() {
    // It cannot be read when the process exits.
    let mut stage = Stage::new();
    stage.start_limited(init(), 812, false);
    stage.world().counted = 1;
    stage.world().out_of_files = true;
    stage.world().end(812, SIGKILL);
    stage.settle(RETRY);
    let end = crate::seam::ProcessEnd { status: SIGKILL, oom: None, has_executed: Some(true), at: None };
    assert_eq!(stage.events(), [Event::Exited { process: init(), end }]);
    // It could not be read before an exec was started: what was killed before is not counted as killed in its time.
    let mut stage = Stage::new();
    stage.start_limited(init(), 812, false);
    stage.world().counted = 1;
    stage.world().out_of_files = true;
    stage.ask(0, |_| Request::TrackKills { process: exec(), has_program: false, members: limited() });
    stage.world().out_of_files = false;
    let pid = stage.world().add(813, OWN, |_| {});
    stage.adopt(exec(), pid, Parent::Us);
    stage.world().end(813, SIGKILL);
    stage.settle(RETRY);
    let end = crate::seam::ProcessEnd { status: SIGKILL, oom: None, has_executed: Some(true), at: None };
    assert_eq!(stage.events().last(), Some(&Event::Exited { process: exec(), end }));
}

#[test]
fn kills_in_a_cgroup_that_is_removed_still_count() {
    let mut stage = Stage::new();
    stage.start_limited(init(), 812, false);
    stage.world().counted = 1;
    stage.notice();
    assert_eq!(stage.kills(), [OomKill::new(1)]);
    // The counter of another cgroup is all that is left.
    stage.world().counted_in = 2;
    stage.notice();
    assert_eq!(stage.kills(), [OomKill::new(2)]);
    assert_eq!(stage.evidence(812, SIGKILL), OomEvidence::Counted(2));
}
