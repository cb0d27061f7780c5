//! The processes a container has had, on disk, for whoever has to end them when their executor cannot.
//!
//! Cgroups show most of them; the journal shows those that are in none, as where no cgroups may be made.
//! It is one line for each process, in the container's own directory, and goes with it. A pid alone says
//! nothing about tomorrow: beside it stand what tells its process from every other that has it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use executor_core::lifecycle::{HostPid, Signal};
use serde::Deserialize;

use crate::{Error, Result, pidfd, procfs};

const FILE: &str = "journal";

/// Writes down that the process `pid` belongs to the container in `dir`. One that is gone is no error.
///
/// # Errors
/// When it cannot be written.
pub fn record(dir: &Path, pid: HostPid) -> Result<()> {
    let Some(line) = pidfd::open(pid).ok().and_then(|pidfd| identity(pid, &pidfd)) else { return Ok(()) };
    // One write: a line is there as a whole or, when the machine stops here, cannot be read.
    let file = dir.join(FILE);
    let written = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&file)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    written.map_err(Error::file("write", &file))
}

/// Kills those in the journal that still are who they were, and are not about to end anyway; answers with
/// their pidfds.
pub(crate) fn kill(dir: &Path) -> Vec<OwnedFd> {
    let journal = fs::read_to_string(dir.join(FILE)).unwrap_or_default();
    let same = |line: &str| {
        let pid = procfs::parse_pid(line.split(' ').next()?)?;
        let pidfd = pidfd::open(pid).ok()?;
        let lives = identity(pid, &pidfd)? == line && !procfs::Stat::of(pid)?.is_ending();
        lives.then_some(pidfd)
    };
    let there = journal.split_inclusive('\n').filter_map(same);
    there.filter(|pidfd| pidfd::send(pidfd, Signal::KILL).is_ok()).collect()
}

/// Kills the init that a runtime's own state names, if it still is who it was and is not about to end anyway. runc
/// writes `state.json` before the program runs, crun `status`; both have the start in clock ticks.
pub(crate) fn kill_init(state: &Path) -> Option<OwnedFd> {
    #[derive(Deserialize)]
    struct Init {
        #[serde(alias = "init_process_pid")]
        pid: u32,
        #[serde(alias = "init_process_start", rename = "process-start-time")]
        start: u64,
    }
    let read = |file: &str| serde_json::from_slice(&fs::read(state.join(file)).ok()?).ok();
    let init: Init = read("state.json").or_else(|| read("status"))?;
    let (pid, start) = (HostPid::new(init.pid)?, init.start);
    let pidfd = pidfd::open(pid).ok()?;
    let stat = procfs::Stat::of(pid)?;
    let lives = stat.start == start && !stat.is_ending();
    (lives && pidfd::send(&pidfd, Signal::KILL).is_ok()).then_some(pidfd)
}

/// The line of a process: its pid, its start in clock ticks since the system's, the inode of its pidfd
/// (from Linux 6.9 on never given twice; before, the same for all), and which run of the system that is.
///
/// The pidfd was opened first: if what `/proc` says is of another process by now, no line can match it.
fn identity(pid: HostPid, pidfd: &OwnedFd) -> Option<String> {
    let start = procfs::Stat::of(pid)?.start;
    let inode = rustix::fs::fstat(pidfd.as_fd()).ok()?.st_ino;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{pid} {start} {inode} {}\n", boot.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper() -> (Child, HostPid) {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = HostPid::new(child.id()).unwrap();
        (child, pid)
    }

    #[test]
    fn an_init_is_known_by_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let (mut init, pid) = sleeper();
        let start = procfs::Stat::of(pid).unwrap().start;
        assert!(kill_init(dir.path()).is_none());
        for (file, pid_key, start_key) in [
            ("state.json", "init_process_pid", "init_process_start"),
            ("status", "pid", "process-start-time"),
        ] {
            let write = |start: u64| {
                let json = serde_json::json!({ pid_key: pid.get(), start_key: start });
                fs::write(dir.path().join(file), json.to_string()).unwrap();
            };
            write(start + 1);
            assert!(kill_init(dir.path()).is_none(), "a stranger");
            if file == "status" {
                write(start);
                assert!(kill_init(dir.path()).is_some());
                assert!(!init.wait().unwrap().success());
                assert!(kill_init(dir.path()).is_none(), "it is gone");
            } else {
                fs::remove_file(dir.path().join(file)).unwrap();
            }
        }
    }

    #[test]
    fn stale_pid() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join(FILE);
        let (mut stranger, pid) = sleeper();
        record(dir.path(), pid).unwrap();
        let line = fs::read_to_string(&journal).unwrap();
        // The same pid at another time, of another pidfd, in another run of the system; and what a crash
        // has left of a line.
        let mut strangers = String::new();
        for field in 1..4 {
            let mut fields: Vec<_> = line.trim().split(' ').collect();
            fields[field] = "7";
            strangers += &format!("{}\n", fields.join(" "));
        }
        fs::write(&journal, strangers + line.trim()).unwrap();
        assert!(kill(dir.path()).is_empty());
        assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");

        fs::write(&journal, &line).unwrap();
        assert_eq!(kill(dir.path()).len(), 1);
        assert!(!stranger.wait().unwrap().success());
        assert!(kill(dir.path()).is_empty(), "it is gone");
        record(dir.path(), pid).unwrap();
        assert_eq!(fs::read_to_string(&journal).unwrap(), line);
    }
}
