//! An embedder's process that is killed: this program, executed again.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use executor_core::lifecycle::{ExitStatus, HostPid};
use executor_disk::Dir;
use executor_host::keeper::{Keeper, KeeperError};

use crate::stage::{ended, is_alive, kill, run, sh, within};

const DIR: &str = "LONGSHORE_TEST_KEEPER_DIR";

/// Does something only in the process that the tests below execute.
#[test]
fn the_embedder_of_the_other_tests() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Dir::open_checked(Path::new(&dir)).unwrap();
    let keeper = match Keeper::start(&dir, None) {
        Err(KeeperError::Exists) => Keeper::connect(&dir).unwrap().unwrap(),
        started => started.unwrap(),
    };
    let waiting = sh(&keeper, "kill -STOP $$; exit 3");
    let ended_already = sh(&keeper, "exit 4");
    let orphan = sh(&keeper, "sh -c 'kill -STOP $$; exit 5' & exit 0");
    println!("children {} {} {}", waiting.pid, ended_already.pid, orphan.pid);
    loop {
        std::thread::park();
    }
}

/// An embedder, in a process group of its own, and the pids that it has said.
fn embedder(dir: &Path) -> (std::process::Child, Vec<HostPid>) {
    let mut child = Command::new("/proc/self/exe")
        .args(["--exact", "embedder::the_embedder_of_the_other_tests", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    let line = lines.find(|line| line.contains("children ")).unwrap();
    let words = line.split("children ").nth(1).unwrap().split(' ');
    (child, words.map(|word| HostPid::new(word.parse().unwrap()).unwrap()).collect())
}

/// A test that has failed leaves no keeper either.
struct Ended(Dir);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Ok(Some(keeper)) = Keeper::connect(&self.0) {
            crate::stage::children_of(&keeper).into_iter().for_each(kill);
            kill(keeper.pid());
        }
    }
}

fn go_on(pid: HostPid) {
    let pid = rustix::process::Pid::from_raw(pid.get() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
}

fn is_stopped(pid: HostPid) -> bool {
    executor_host::procfs::Stat::of(pid).is_some_and(|stat| stat.state == 'T')
}

#[test]
fn what_ended_without_an_embedder_is_told_to_the_next() {
    run(|stage| {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open_checked(temporary.path()).unwrap();
        let _ended = Ended(dir.try_clone().unwrap());
        let (mut first, pids) = embedder(temporary.path());
        let [waiting, ended_already, orphans_parent] = *pids else { panic!("{pids:?}") };
        // It is somebody's: this process is refused, and told whose.
        let Err(KeeperError::Taken { pid }) = Keeper::connect(&dir) else { panic!("not taken") };
        assert_eq!(pid.get(), first.id());
        // Its whole process group is killed, and its session would be.
        let group = rustix::process::Pid::from_raw(first.id() as i32).unwrap();
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        first.wait().unwrap();
        within(|| is_stopped(waiting));
        go_on(waiting);
        within(|| !is_alive(waiting));
        let keeper = Keeper::connect(&dir).unwrap().unwrap();
        assert_ne!(keeper.pid(), stage.keeper().pid());
        assert!(keeper.had().children && keeper.had().records >= 1, "{:?}", keeper.had());
        for (pid, code) in [(waiting, 3), (ended_already, 4), (orphans_parent, 0)] {
            assert_eq!(ended(&keeper, pid, None).status, ExitStatus::Code(code));
        }
        let children = crate::stage::children_of(&keeper);
        let [orphan] = *children else { panic!("{children:?}") };
        within(|| is_stopped(orphan));
        go_on(orphan);
        let record = ended(&keeper, orphan, None);
        assert_eq!((record.status, record.was_spawned), (ExitStatus::Code(5), false));
        keeper.quit().unwrap();
    });
}

#[test]
fn embedders_are_killed_one_after_the_other() {
    run(|_| {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open_checked(temporary.path()).unwrap();
        let _ended = Ended(dir.try_clone().unwrap());
        let (mut waiting, mut descriptors) = (Vec::new(), None);
        for round in 0..10 {
            let (mut child, pids) = embedder(temporary.path());
            child.kill().unwrap();
            child.wait().unwrap();
            waiting.push(pids[0]);
            let keeper = Keeper::connect(&dir).unwrap().unwrap();
            let now = crate::stage::descriptors_of(&keeper.pid().to_string());
            assert_eq!(*descriptors.get_or_insert(now), now, "in round {round}");
        }
        let keeper = Keeper::connect(&dir).unwrap().unwrap();
        for pid in waiting {
            within(|| is_stopped(pid));
            go_on(pid);
            assert_eq!(ended(&keeper, pid, None).status, ExitStatus::Code(3));
        }
        for orphan in crate::stage::children_of(&keeper) {
            kill(orphan);
        }
        within(|| crate::stage::children_of(&keeper).is_empty());
        keeper.quit().unwrap();
    });
}

#[test]
fn a_keeper_that_has_nothing_left_exits_by_itself() {
    run(|stage| {
        let pid = stage.keeper().pid();
        let process = stage.sh("kill -STOP $$");
        within(|| is_stopped(process.pid));
        stage.disconnect();
        assert!(is_alive(pid));
        go_on(process.pid);
        within(|| !is_alive(process.pid));
        stage.connect();
        let record = stage.ended(&process);
        assert!(matches!(Keeper::start(&stage.dir, None), Err(KeeperError::Exists)));
        stage.disconnect();
        assert!(is_alive(pid), "it has a record");
        stage.connect();
        stage.keeper().forget(&[record.number]).unwrap();
        stage.disconnect();
        within(|| !is_alive(pid) && !stage.dir.has("keeper"));
        assert!(Keeper::connect(&stage.dir).unwrap().is_none());
        // The next one takes the place of the socket, also of one that was left behind.
        std::fs::write(stage.temporary.path().join("keeper"), "").unwrap();
        stage.start();
    });
}
