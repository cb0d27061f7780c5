//! Another program in the place of a keeper's.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use executor_core::lifecycle::ExitStatus;
use executor_host::keeper::{KeeperError, KeptProgram, Started};
use executor_host::memory_file;

use crate::stage::{descriptors_of, kill, run};

fn in_memory(program: &[u8]) -> OwnedFd {
    let mut file = File::from(memory_file::create("other").unwrap());
    file.write_all(program).unwrap();
    memory_file::seal(&file).unwrap()
}

#[test]
fn children_records_and_descriptors_are_kept_while_a_child_writes() {
    run(|stage| {
        let pid = stage.keeper().pid();
        let (mut ours, theirs) = std::io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let args = ["sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); done"].map(OsStr::new);
        let inherited = [null.as_fd(), theirs.as_fd(), null.as_fd()];
        let program = KeptProgram::Path(OsStr::new("/bin/sh"));
        let started = Started { program, args: &args, variables: &[], inherited: &inherited };
        let writer = stage.keeper().start_process(&started).unwrap();
        drop(theirs);
        stage.keeper().hold("c.stdout", &ours).unwrap();
        let before = stage.ended(&stage.sh("exit 8"));
        let reader = std::thread::spawn(move || {
            let mut said = String::new();
            ours.read_to_string(&mut said).unwrap();
            said
        });
        let descriptors = descriptors_of(&pid.to_string());
        for _ in 0..20 {
            stage.keeper().upgrade().unwrap();
        }
        assert!(stage.keeper().is_alive() && stage.keeper().is_current());
        assert_eq!((stage.keeper().pid(), descriptors_of(&pid.to_string())), (pid, descriptors));
        assert_eq!(stage.keeper().records(0).unwrap(), [before]);
        assert_eq!(stage.keeper().held().unwrap(), ["c.stdout"]);
        let after = stage.ended(&stage.sh("exit 9"));
        assert_eq!((after.status, after.number), (ExitStatus::Code(9), before.number + 1));
        // It has read nothing of the pipe that it holds.
        kill(writer.pid);
        let record = stage.ended(&writer);
        assert!(record.was_spawned, "{record:?}");
        stage.keeper().release("").unwrap();
        let said = reader.join().unwrap();
        let complete = said.rsplit_once('\n').unwrap().0;
        assert!(complete.lines().enumerate().all(|(index, line)| line == index.to_string()));
        assert!(complete.lines().count() > 1000);
    });
}

#[test]
fn a_program_that_cannot_go_on_is_refused_before() {
    run(|stage| {
        let pid = stage.pid.to_string();
        let before = descriptors_of(&pid);
        let records = stage.ended(&stage.sh("exit 1"));
        let no_program = stage.keeper().upgrade_to(&in_memory(b"no program"));
        assert!(matches!(no_program, Err(KeeperError::Keeper { .. })), "{no_program:?}");
        let other = stage.keeper().upgrade_to(&in_memory(&std::fs::read("/bin/false").unwrap()));
        assert!(matches!(other, Err(KeeperError::State)), "{other:?}");
        let unsealed = File::open("/bin/true").unwrap().into();
        assert!(matches!(stage.keeper().upgrade_to(&unsealed), Err(KeeperError::Refused { .. })));
        assert_eq!(stage.keeper().records(0).unwrap(), [records]);
        assert_eq!(descriptors_of(&pid), before);
        stage.ended(&stage.sh("exit 1"));
    });
}
