//! The journal of a container: the processes that it has had, on disk. A sweep kills them if their executor
//! is dead.
//!
//! Cgroups list most of them. The journal also lists those that are in no cgroup, as when this user may make
//! none.
//!
//! The journal is a file in the container's own directory, with one line for each process. Pids are reused,
//! so each line also has what distinguishes its process from every other process with the same pid.
//!
//! A container may have thousands of execs. When the journal has become twice as long as it was, the lines of processes that
//! have ended are removed from it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use executor_core::lifecycle::{HostPid, ProcessId, Signal};
use executor_disk::Dir;
use serde::Deserialize;

use rustix::io::Errno;

use crate::{Error, Result, lock, pidfd, procfs};

const FILE: &str = "journal";

/// Its name while it is written anew.
const NEW: &str = "journal.new";

/// No lines are removed from a shorter journal: some hundred lines.
const SHORT: u64 = 4 << 10;

/// The most bytes of a journal that are read: some ten million lines.
const READ_LIMIT: u64 = 1 << 30;

/// The most bytes of the runtime's own state that are read. A large filter makes it a megabyte.
pub(crate) const STATE_LIMIT: u64 = 16 << 20;

/// The writer of a container's journal.
#[derive(Debug)]
pub struct Journal {
    /// The length at which lines are removed. Locked while the file is written.
    full: Mutex<u64>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { full: Mutex::new(SHORT) }
    }
}

impl Journal {
    /// Records that the process `pid` belongs to the container in `dir`. A process that is gone is not an error.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&self, dir: &Dir, process: &ProcessId, pid: HostPid) -> Result<()> {
        let identity = pidfd::open(pid).ok().and_then(|pidfd| identity(pid, &pidfd));
        let Some(line) = identity.map(|identity| format!("{identity} {process}\n")) else { return Ok(()) };
        let mut full = lock(&self.full);
        // One write for the whole line. If the machine stops meanwhile, the line is incomplete and is ignored.
        let written = dir.append(FILE).and_then(|file| {
            executor_disk::write(&file, &dir.path_of(FILE), line.as_bytes())?;
            Ok(file.metadata()?.len())
        });
        let length = written.map_err(Error::file("write", &dir.path_of(FILE)))?;
        if length > *full {
            let rest = remove_ended(dir).unwrap_or_else(|error| {
                tracing::debug!(dir = %dir.path().display(), %error, "a journal was not shortened");
                length
            });
            *full = SHORT.max(rest.saturating_mul(2));
        }
        Ok(())
    }
}

/// Removes the lines of processes that have ended. Returns the journal's length.
fn remove_ended(dir: &Dir) -> io::Result<u64> {
    let mut rest = dir.read_text(FILE, READ_LIMIT)?;
    rest = rest.split_inclusive('\n').filter(|line| !has_ended(line)).collect();
    let replaced = dir.replace(FILE, NEW, rest.as_bytes());
    if replaced.is_err() {
        let _may_not_exist = dir.remove_file(NEW);
    }
    replaced.map(|()| u64::try_from(rest.len()).unwrap_or(u64::MAX))
}

/// Whether the process of a line is known to have ended. One that cannot be looked at counts as alive.
fn has_ended(line: &str) -> bool {
    let Some(pid) = parse_line(line) else { return true };
    match pidfd::open(pid) {
        Ok(pidfd) => identity(pid, &pidfd).is_some_and(|known| !is_of(line, &known)),
        Err(error) => error.raw_os_error() == Some(Errno::SRCH.raw_os_error()),
    }
}

/// Kills the recorded processes that are still alive, and returns their pidfds.
pub(crate) fn kill(dir: &Dir) -> Vec<OwnedFd> {
    let journal = match dir.read_text(FILE, READ_LIMIT) {
        Ok(journal) => journal,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                let file = dir.path_of(FILE);
                tracing::warn!(file = %file.display(), %error, "the processes in a journal were not killed");
            }
            return Vec::new();
        }
    };
    let alive = journal.split_inclusive('\n').filter_map(open_if_alive);
    alive.filter(|pidfd| pidfd::send(pidfd, Signal::KILL).is_ok()).collect()
}

/// Opens the process of a line, unless it has exited or is exiting.
fn open_if_alive(line: &str) -> Option<OwnedFd> {
    let pid = parse_line(line)?;
    let pidfd = pidfd::open(pid).ok()?;
    let is_alive = is_of(line, &identity(pid, &pidfd)?) && !procfs::Stat::of(pid)?.is_ending();
    is_alive.then_some(pidfd)
}

/// A process in a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its pid.
    pub pid: HostPid,
    /// Its start, in clock ticks since boot.
    pub start: u64,
    /// Whether it has not ended. Its pid may be another process's if it has.
    pub is_alive: bool,
}

/// The processes of a container, by their names: `init`, or the id of an exec. Of several that have had a name, the last one.
///
/// # Errors
/// When the journal cannot be read, or a line that is complete has no meaning.
pub fn processes(dir: &Dir) -> Result<BTreeMap<String, Recorded>> {
    let text = match dir.read_text(FILE, READ_LIMIT) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        text => text.map_err(Error::file("read", &dir.path_of(FILE)))?,
    };
    let mut all = BTreeMap::new();
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let malformed = || io::Error::new(ErrorKind::InvalidData, "a line has no meaning");
        let parsed = parse_process(line).ok_or_else(malformed);
        let (name, recorded) = parsed.map_err(Error::file("read", &dir.path_of(FILE)))?;
        all.insert(name, recorded);
    }
    Ok(all)
}

fn parse_process(line: &str) -> Option<(String, Recorded)> {
    let pid = parse_line(line)?;
    let mut fields = line.trim_end().split(' ').skip(1);
    let start = fields.next()?.parse().ok()?;
    let name = fields.nth(2)?.to_owned();
    let is_alive = open_if_alive(line).is_some();
    Some((name, Recorded { pid, start, is_alive }))
}

/// Whether a line is of the process with this identity.
fn is_of(line: &str, identity: &str) -> bool {
    line.strip_prefix(identity).is_some_and(|rest| rest.starts_with([' ', '\n']))
}

/// The pid of a line. `None` if the line is incomplete.
pub(crate) fn parse_line(line: &str) -> Option<HostPid> {
    procfs::parse_pid(line.strip_suffix('\n')?.split(' ').next()?)
}

/// Kills the init that is recorded in the runtime's own state, if it is still alive. runc writes `state.json`
/// before the program runs, crun writes `status`. Both contain the start time in clock ticks.
pub(crate) fn kill_init(state: &Dir) -> Option<OwnedFd> {
    let read = |file: &str| parse_init(&state.read(file, STATE_LIMIT).ok()?);
    let (pid, start) = read("state.json").or_else(|| read("status"))?;
    let pidfd = pidfd::open(pid).ok()?;
    let stat = procfs::Stat::of(pid)?;
    let is_alive = stat.start == start && !stat.is_ending();
    (is_alive && pidfd::send(&pidfd, Signal::KILL).is_ok()).then_some(pidfd)
}

/// The pid and the start time of the init in runc's `state.json`, or in crun's `status`.
pub(crate) fn parse_init(json: &[u8]) -> Option<(HostPid, u64)> {
    #[derive(Deserialize)]
    struct Init {
        #[serde(alias = "init_process_pid")]
        pid: u32,
        #[serde(alias = "init_process_start", rename = "process-start-time")]
        start: u64,
    }
    let init: Init = serde_json::from_slice(json).ok()?;
    Some((HostPid::new(init.pid)?, init.start))
}

/// The line of a process, without its name: its pid, its start time in clock ticks since boot, the inode of its pidfd (unique
/// from Linux 6.9 on, the same for all before), and the boot id.
///
/// The pidfd was opened first. If the pid has been reused since, `/proc` describes the later process, and the
/// line matches neither.
fn identity(pid: HostPid, pidfd: &OwnedFd) -> Option<String> {
    let start = procfs::Stat::of(pid)?.start;
    let inode = rustix::fs::fstat(pidfd.as_fd()).ok()?.st_ino;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{pid} {start} {inode} {}", boot.trim()))
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
        let state = Dir::open_checked(dir.path()).unwrap();
        let (mut init, pid) = sleeper();
        let start = procfs::Stat::of(pid).unwrap().start;
        assert!(kill_init(&state).is_none());
        for (file, pid_key, start_key) in [
            ("state.json", "init_process_pid", "init_process_start"),
            ("status", "pid", "process-start-time"),
        ] {
            let write = |start: u64| {
                let json = serde_json::json!({ pid_key: pid.get(), start_key: start });
                fs::write(dir.path().join(file), json.to_string()).unwrap();
            };
            write(start + 1);
            assert!(kill_init(&state).is_none(), "a stranger");
            if file == "status" {
                write(start);
                assert!(kill_init(&state).is_some());
                assert!(!init.wait().unwrap().success());
                assert!(kill_init(&state).is_none(), "it is gone");
            } else {
                fs::remove_file(dir.path().join(file)).unwrap();
            }
        }
    }

    #[test]
    fn stale_pid() {
        let dir = tempfile::tempdir().unwrap();
        let (own, journal) = (Dir::open_checked(dir.path()).unwrap(), dir.path().join(FILE));
        let (mut stranger, pid) = sleeper();
        Journal::default().record(&own, &ProcessId::Init, pid).unwrap();
        let line = fs::read_to_string(&journal).unwrap();
        // The same pid with another start time, with another pidfd, and after another boot; and an incomplete
        // line, as a crash leaves it.
        let mut strangers = String::new();
        for field in 1..4 {
            let mut fields: Vec<_> = line.trim().split(' ').collect();
            fields[field] = "7";
            strangers += &format!("{}\n", fields.join(" "));
        }
        fs::write(&journal, strangers + line.trim()).unwrap();
        assert!(kill(&own).is_empty());
        assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");

        fs::write(&journal, &line).unwrap();
        assert_eq!(kill(&own).len(), 1);
        assert!(!stranger.wait().unwrap().success());
        assert!(kill(&own).is_empty(), "it is gone");
        Journal::default().record(&own, &ProcessId::Init, pid).unwrap();
        assert_eq!(fs::read_to_string(&journal).unwrap(), line);
    }

    #[test]
    fn processes_that_have_ended_are_removed_from_a_long_journal() {
        let dir = tempfile::tempdir().unwrap();
        let (own, file) = (Dir::open_checked(dir.path()).unwrap(), dir.path().join(FILE));
        let (journal, length) = (Journal::default(), || fs::metadata(&file).unwrap().len());
        let (mut first, pid) = sleeper();
        journal.record(&own, &ProcessId::Init, pid).unwrap();
        let line = fs::read_to_string(&file).unwrap();
        let (mut ended, gone) = sleeper();
        while length() <= SHORT {
            journal.record(&own, &ProcessId::Init, gone).unwrap();
        }
        assert!(fs::read_to_string(&file).unwrap().contains(&format!("\n{gone} ")), "it is alive");
        ended.kill().unwrap();
        ended.wait().unwrap();
        let (mut last, pid) = sleeper();
        for _ in 0..200 {
            journal.record(&own, &ProcessId::Init, pid).unwrap();
        }
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(&line), "a process that is alive is kept");
        assert!(!text.contains(&format!("\n{gone} ")), "{text}");
        assert!(!dir.path().join(NEW).exists());
        assert!(kill(&own).len() > 1);
        first.wait().unwrap();
        last.wait().unwrap();
    }
}
