//! What the keeper starts, and how it has ended.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use executor_core::lifecycle::{ExitStatus, HostPid, Signal};
use executor_host::keeper::{KeeperError, KeptProgram, Recorded, Started};

use crate::stage::{children_of, descriptors_of, ended, run, start, within};

#[test]
fn exits_are_exact_and_have_their_time() {
    run(|stage| {
        let before = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        for (script, status) in [
            ("exit 0", ExitStatus::Code(0)),
            ("exit 255", ExitStatus::Code(255)),
            ("exit 137", ExitStatus::Code(137)),
            ("kill -KILL $$", ExitStatus::Signal(Signal::KILL)),
            ("kill -TERM $$", ExitStatus::Signal(Signal::new(15).unwrap())),
            ("kill -34 $$", ExitStatus::Signal(Signal::new(34).unwrap())),
        ] {
            let process = stage.sh(script);
            let record = stage.ended(&process);
            assert_eq!((record.status, record.pid), (status, process.pid), "{script}");
            assert!(record.has_executed && record.was_spawned);
            let at = record.at.since_epoch();
            assert!(before <= at && at <= SystemTime::UNIX_EPOCH.elapsed().unwrap());
            assert!(record.memory > 100 << 10, "{record:?}");
        }
        let records = stage.keeper().records(0).unwrap();
        assert_eq!(records.iter().map(|record| record.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(stage.keeper().records(4).unwrap().len(), 2);
        assert_eq!(stage.keeper().forget(&[2, 3, 77]).unwrap(), 2);
        let left: Vec<_> = stage.keeper().records(0).unwrap().iter().map(|record| record.number).collect();
        assert_eq!(left, [1, 4, 5, 6]);
        let busy = stage.sh("i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done");
        assert!(stage.ended(&busy).times[0] > Duration::from_millis(5));
    });
}

#[test]
fn a_process_is_alive_ended_or_unknown() {
    run(|stage| {
        let process = stage.sh("read line; sleep 1000");
        let process = match stage.keeper().record(process.pid, Some(process.start)).unwrap() {
            // stdin is /dev/null: it sleeps.
            Recorded::Alive => process,
            other @ (Recorded::Ended(_) | Recorded::Unknown) => panic!("{other:?}"),
        };
        assert_eq!(stage.keeper().record(process.pid, Some(process.start + 1)).unwrap(), Recorded::Unknown);
        assert_eq!(stage.keeper().record(HostPid::new(1).unwrap(), None).unwrap(), Recorded::Unknown);
        assert!(matches!(stage.keeper().quit(), Err(KeeperError::HasChildren)));
        crate::stage::kill(process.pid);
        let record = stage.ended(&process);
        assert_eq!(record.status, ExitStatus::Signal(Signal::KILL));
        // `sleep` has executed in a process of its own, which is the keeper's now.
        let orphans = children_of(stage.keeper());
        orphans.iter().for_each(|orphan| crate::stage::kill(*orphan));
        for orphan in orphans {
            let record = ended(stage.keeper(), orphan, None);
            assert!(!record.was_spawned);
        }
    });
}

#[test]
fn orphans_are_reaped_and_recorded() {
    run(|stage| {
        // Subshells that are forked and never execute anything.
        let process = stage.sh(
            "for i in 1 2 3; do ( ( i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 9 ) & ) ; done",
        );
        assert_eq!(stage.ended(&process).status, ExitStatus::Code(0));
        let orphans = || {
            let records = stage.keeper().records(0).unwrap();
            records.into_iter().filter(|record| !record.was_spawned).collect::<Vec<_>>()
        };
        within(|| orphans().len() == 3);
        assert!(orphans().iter().all(|orphan| !orphan.has_executed && orphan.status == ExitStatus::Code(9)));
    });
}

#[test]
#[ignore = "it takes minutes"]
fn there_are_only_so_many_records_and_the_oldest_orphans_go() {
    run(|stage| {
        let first = stage.ended(&stage.sh("exit 1"));
        let script = "i=0; while [ $i -lt 66000 ]; do ( : & ); i=$((i+1)); done";
        let flood = stage.sh(script);
        let is_alive = || crate::stage::is_alive(flood.pid);
        while is_alive() {
            std::thread::sleep(Duration::from_secs(1));
        }
        within(|| children_of(stage.keeper()).is_empty());
        let records = stage.keeper().records(0).unwrap();
        assert!((60_000..=65_536).contains(&records.len()), "{}", records.len());
        assert_eq!(records.first(), Some(&first));
        assert_eq!(records.last().map(|record| record.number), Some(66_002));
        assert!(records.is_sorted_by_key(|record| record.number));
        assert!(records.iter().any(|record| record.pid == flood.pid));
        let numbers: Vec<_> = records.iter().map(|record| record.number).collect();
        assert_eq!(stage.keeper().forget(&numbers).unwrap(), records.len());
    });
}

#[test]
fn a_process_has_its_group_its_signals_its_limits_and_its_descriptors() {
    run(|stage| {
        let (mut ours, theirs) = std::io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let script = "cut -d' ' -f5 /proc/$$/stat; echo $$; ulimit -n; cat /proc/self/oom_score_adj; umask; pwd;
        for fd in /proc/$$/fd/*; do [ -e $fd ] && echo -n ${fd##*/},; done; echo; grep -E '^Sig(Blk|Ign)' /proc/self/status; echo $A $HOME.";
        let args = ["sh", "-c", script].map(OsStr::new);
        let inherited = [null.as_fd(), theirs.as_fd(), null.as_fd(), theirs.as_fd()];
        let variables = [b"PATH=/usr/bin:/bin".to_vec(), b"A=b c".to_vec()];
        let program = KeptProgram::Path(OsStr::new("/bin/sh"));
        let started = Started { program, args: &args, variables: &variables, inherited: &inherited };
        let process = stage.keeper().start_process(&started).unwrap();
        drop(theirs);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        let lines: Vec<_> = said.lines().collect();
        let pid = process.pid.to_string();
        let limit =
            rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap().to_string();
        let score = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_eq!(lines[..4], [pid.as_str(), &pid, &limit, score.trim()]);
        assert_eq!(lines[5..7], ["/", "0,1,2,3,"]);
        assert_eq!(lines[7..], ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "b c ."]);
        stage.ended(&process);
    });
}

#[test]
fn a_program_in_memory_and_more_arguments_than_fit_into_a_message() {
    run(|stage| {
        let null = File::open("/dev/null").unwrap();
        let echo = File::open("/bin/echo").unwrap();
        let (mut ours, theirs) = std::io::pipe().unwrap();
        let long = "x".repeat(100_000);
        let args: Vec<&OsStr> = ["any name", &long, &long, "y"].map(OsStr::new).to_vec();
        let inherited = [null.as_fd(), theirs.as_fd(), null.as_fd()];
        let program = KeptProgram::File(echo.as_fd());
        let started = Started { program, args: &args, variables: &[], inherited: &inherited };
        let process = std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut said = vec![0; 200_004];
                ours.read_exact(&mut said).unwrap();
                said
            });
            let process = stage.keeper().start_process(&started).unwrap();
            assert!(reader.join().unwrap() == format!("{long} {long} y\n").into_bytes());
            process
        });
        assert_eq!(stage.ended(&process).status, ExitStatus::Code(0));
    });
}

#[test]
fn why_a_program_was_not_executed() {
    run(|stage| {
        let null = File::open("/dev/null").unwrap();
        let inherited = [null.as_fd(), null.as_fd(), null.as_fd()];
        let errno = |program: KeptProgram<'_>, args: &[&str]| {
            let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
            let started = Started { program, args: &args, variables: &[], inherited: &inherited };
            let KeeperError::Keeper { source, .. } = stage.keeper().start_process(&started).unwrap_err()
            else {
                panic!("no errno")
            };
            source.raw_os_error().unwrap()
        };
        assert_eq!(errno(KeptProgram::Path(OsStr::new("/nowhere")), &["a"]), 2);
        assert_eq!(errno(KeptProgram::Path(OsStr::new("/etc/passwd")), &["a"]), 13);
        assert_eq!(errno(KeptProgram::File(null.as_fd()), &["a"]), 13);
        let too_long = "x".repeat(200_000);
        assert_eq!(errno(KeptProgram::Path(OsStr::new("/bin/true")), &["a", &too_long]), 7);
        assert_eq!(stage.keeper().records(0).unwrap(), []);
        assert_eq!(children_of(stage.keeper()), []);
    });
}

#[test]
fn a_keeper_without_descriptors_reaps_and_accepts() {
    run(|stage| {
        let keeper = rustix::process::Pid::from_raw(stage.pid.get() as i32);
        let children: Vec<_> = (0..3).map(|_| stage.sh("kill -STOP $$; exit 6")).collect();
        let null = File::open("/dev/null").unwrap();
        let number = |name: &str| name.parse::<u64>().unwrap();
        let numbers = fs::read_dir(format!("/proc/{}/fd", stage.pid)).unwrap().flatten();
        let highest = numbers.map(|entry| number(&entry.file_name().to_string_lossy())).max().unwrap();
        let maximum = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let limit = rustix::process::prlimit(
            keeper,
            rustix::process::Resource::Nofile,
            rustix::process::Rlimit { current: Some(highest + 1), maximum },
        );
        let limit = limit.unwrap();
        let refused = (0..100).find_map(|number| stage.keeper().hold(&number.to_string(), &null).err());
        assert!(matches!(refused, Some(KeeperError::Refused { .. })), "{refused:?}");
        for child in &children {
            within(|| executor_host::procfs::Stat::of(child.pid).is_some_and(|stat| stat.state == 'T'));
            let pid = rustix::process::Pid::from_raw(child.pid.get() as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
            let record = stage.ended(child);
            assert!(record.has_executed && record.was_spawned && record.start == child.start, "{record:?}");
        }
        assert!(start(stage.keeper(), &["sh"], &[]).is_err());
        stage.reconnect();
        rustix::process::prlimit(keeper, rustix::process::Resource::Nofile, limit).unwrap();
        stage.keeper().hold("one", &null).unwrap();
        stage.keeper().release("").unwrap();
    });
}

#[test]
fn a_thousand_rounds_leave_no_descriptor() {
    run(|stage| {
        let pid = stage.keeper().pid().to_string();
        stage.ended(&stage.sh(""));
        let before = descriptors_of(&pid);
        for round in 0..1000 {
            let process = start(stage.keeper(), &["sh", "-c", "exit 4"], &[]).unwrap();
            let record = stage.ended(&process);
            assert_eq!((record.status, record.number), (ExitStatus::Code(4), round + 2));
            let name = format!("c{round}.stdout");
            stage.keeper().hold(&name, process.pidfd.unwrap()).unwrap();
            drop(stage.keeper().take(&name).unwrap());
            assert_eq!(stage.keeper().release(&name).unwrap(), 1);
            stage.keeper().forget(&[record.number]).unwrap();
        }
        assert_eq!(descriptors_of(&pid), before);
    });
}
