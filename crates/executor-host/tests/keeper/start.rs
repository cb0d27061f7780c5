//! How a keeper is started, where it is, and how quick it answers.

use std::fs;
use std::time::Instant;

use executor_disk::Dir;
use executor_host::cgroup::place::keeper_path;
use executor_host::keeper::Keeper;
use executor_host::procfs::Stat;

use crate::stage::{is_alive, run, start, within};

#[test]
fn it_is_nobodys_child_and_in_cgroups_of_its_own() {
    run(|stage| {
        let own = Stat::of(executor_host::procfs::own_pid()).unwrap();
        let stat = Stat::of(stage.pid).unwrap();
        assert_eq!((stat.session, stat.group), (stage.pid.get(), stage.pid.get()));
        assert_ne!(stat.session, own.session);
        assert!(!fs::read_to_string("/proc/thread-self/children").unwrap().contains(&stage.pid.to_string()));
        let path = keeper_path("", "0123456789ab");
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open_checked(temporary.path()).unwrap();
        let before = Instant::now();
        let keeper = Keeper::start(&dir, Some(&path)).unwrap();
        println!("started in {:?}", before.elapsed());
        let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", keeper.pid())).unwrap();
        let is_own = |line: &&str| line.ends_with(&path);
        assert!(cgroups.lines().filter(is_own).count() + 1 >= cgroups.lines().count(), "{cgroups}");
        let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", keeper.pid())).unwrap();
        // Without CAP_SYS_RESOURCE, a score cannot be lowered.
        let is_permitted = {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << 24) != 0
        };
        assert_eq!(score.trim() == "-999", is_permitted);
        // Only SIGKILL and SIGSTOP end or stop it.
        let raw = rustix::process::Pid::from_raw(keeper.pid().get() as i32).unwrap();
        for signal in
            [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::HUP]
        {
            rustix::process::kill_process(raw, signal).unwrap();
        }
        let process = start(&keeper, &["sh", "-c", "cat /proc/self/cgroup; exit 2"], &[]).unwrap();
        crate::stage::ended(&keeper, process.pid, Some(process.start));
        let pid = keeper.pid();
        let left = keeper.quit().unwrap();
        assert!(left.is_empty(), "{left:?}");
        within(|| !is_alive(pid));
        let is_left = |hierarchy: &str| fs::exists(format!("/sys/fs/cgroup/{hierarchy}{path}")).unwrap();
        assert!(!["memory", "pids", "unified", "systemd"].iter().any(|hierarchy| is_left(hierarchy)));
        executor_host::cgroup::Cgroups::at("/longshore/0123456789ab").remove();
    });
}

#[test]
fn how_long_calls_take() {
    run(|stage| {
        let process = stage.sh("exec sleep 1000");
        let per_call = |count: u32, call: &mut dyn FnMut()| {
            let before = Instant::now();
            (0..count).for_each(|_| call());
            before.elapsed() / count
        };
        let record = per_call(10_000, &mut || {
            stage.keeper().record(process.pid, None).unwrap();
        });
        let held = per_call(10_000, &mut || drop(stage.keeper().held().unwrap()));
        println!("record {record:?}, held {held:?}");
        let execute = per_call(500, &mut || drop(start(stage.keeper(), &["sh", "-c", ":"], &[]).unwrap()));
        println!("execute {execute:?}");
        crate::stage::kill(process.pid);
        within(|| crate::stage::children_of(stage.keeper()).is_empty());
    });
}
