//! Descriptors that the keeper holds.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use executor_host::keeper::{KeeperError, KeptProgram, Started};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::stage::run;

#[test]
fn a_pipe_is_taken_by_the_next_client_with_what_is_in_it() {
    run(|stage| {
        let (ours, theirs) = std::io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let args = ["sh", "-c", "echo before; kill -STOP $$; echo after"].map(OsStr::new);
        let inherited = [null.as_fd(), theirs.as_fd(), null.as_fd()];
        let program = KeptProgram::Path(OsStr::new("/bin/sh"));
        let started = Started { program, args: &args, variables: &[], inherited: &inherited };
        let process = stage.keeper().start_process(&started).unwrap();
        drop(theirs);
        stage.keeper().hold("c.stdout", &ours).unwrap();
        assert!(matches!(stage.keeper().hold("c.stdout", &ours), Err(KeeperError::NameTaken)));
        for name in ["", &"n".repeat(201)] {
            assert!(matches!(stage.keeper().hold(name, &ours), Err(KeeperError::Refused { .. })), "{name:?}");
        }
        let longest = "n".repeat(200);
        stage.keeper().hold(&longest, &ours).unwrap();
        drop(ours);
        // The embedder goes.
        stage.reconnect();
        assert_eq!(stage.keeper().had().held, 2);
        assert_eq!(stage.keeper().held().unwrap(), ["c.stdout".to_owned(), longest]);
        let pidfd = rustix::process::Pid::from_raw(process.pid.get() as i32).unwrap();
        let mut taken = File::from(stage.keeper().take("c.stdout").unwrap());
        crate::stage::within(|| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
            stat.contains(") T ")
        });
        rustix::process::kill_process(pidfd, rustix::process::Signal::CONT).unwrap();
        let mut said = String::new();
        taken.read_to_string(&mut said).unwrap();
        assert_eq!(said, "before\nafter\n");
        assert!(matches!(stage.keeper().take("d.stdout"), Err(KeeperError::NoSuchName)));
        assert_eq!(stage.keeper().release("c.").unwrap(), 1);
        assert_eq!(stage.keeper().release("").unwrap(), 1);
        stage.ended(&process);
    });
}

#[test]
fn a_terminal_goes_on() {
    run(|stage| {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let args = ["sh", "-c", "stty -echo; echo ready; read line; echo got $line"].map(OsStr::new);
        let inherited = [terminal.as_fd(), terminal.as_fd(), terminal.as_fd()];
        let program = KeptProgram::Path(OsStr::new("/bin/sh"));
        let variables = [b"PATH=/usr/bin:/bin".to_vec()];
        let started = Started { program, args: &args, variables: &variables, inherited: &inherited };
        let process = stage.keeper().start_process(&started).unwrap();
        drop(terminal);
        stage.keeper().hold("c.terminal", &master).unwrap();
        drop(master);
        stage.reconnect();
        let mut taken = File::from(stage.keeper().take("c.terminal").unwrap());
        let mut said = Vec::new();
        while !said.ends_with(b"ready\r\n") {
            let mut byte = [0];
            taken.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        taken.write_all(b"a line\n").unwrap();
        let mut rest = Vec::new();
        // The other end is closed: EIO.
        let _closed = taken.read_to_end(&mut rest);
        assert_eq!(String::from_utf8(rest).unwrap(), "got a line\r\n");
        stage.ended(&process);
        stage.keeper().release("").unwrap();
    });
}

#[test]
fn many_names_are_listed() {
    run(|stage| {
        let null = File::open("/dev/null").unwrap();
        let names: Vec<_> = (0..700).map(|number| format!("{number}.{}", "n".repeat(190))).collect();
        names.iter().for_each(|name| stage.keeper().hold(name, &null).unwrap());
        assert_eq!(stage.keeper().held().unwrap(), names);
        assert_eq!(stage.keeper().release("").unwrap(), 700);
    });
}
