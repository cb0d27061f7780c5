//! The requests to a keeper, but for those that start and end one.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use executor_core::lifecycle::HostPid;
use executor_programs::messages::{Process, Record, Spawn, Welcome};
use executor_programs::wire::{self, HEADER, MESSAGE_LIMIT, NONE, Reader, Writer};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::connection::{Answer, Connection};
use super::{Had, Keeper, KeeperError, KeeperRecord, Recorded, Result};
use crate::{lock, memory_file};

/// What a keeper executes.
#[derive(Clone, Copy, Debug)]
pub struct Started<'a> {
    /// The file: a path, or a program in memory.
    pub program: KeptProgram<'a>,
    /// Its name, and its arguments.
    pub args: &'a [&'a OsStr],
    /// Its whole environment, each with a `=`.
    pub variables: &'a [Vec<u8>],
    /// Its descriptors 0, 1, 2… At least three.
    pub inherited: &'a [BorrowedFd<'a>],
}

/// A program that a keeper executes.
#[derive(Clone, Copy, Debug)]
pub enum KeptProgram<'a> {
    /// A path, as the keeper's process sees it.
    Path(&'a OsStr),
    /// An open file.
    File(BorrowedFd<'a>),
}

/// A process that a keeper has started.
#[derive(Debug)]
pub struct KeptProcess {
    /// Its pid.
    pub pid: HostPid,
    /// When it was started, in clock ticks since boot.
    pub start: u64,
    /// Its pidfd. Absent if this process has no number for it.
    pub pidfd: Option<OwnedFd>,
}

impl Keeper {
    pub(super) fn call(
        &self,
        op: &'static str,
        kind: u16,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Answer> {
        let mut shared = lock(&self.shared);
        let Some(connection) = &mut shared.connection else { return Err(KeeperError::Gone) };
        let answer = connection.call(op, kind, body, descriptors);
        if connection.is_broken() {
            shared.connection = None;
        }
        answer
    }

    /// Starts a process as the keeper's child: in a process group of its own, with the default action of every signal, none of
    /// them blocked, and the descriptors that are given. It has the umask of the keeper, and the `oom_score_adj` and the limit of
    /// descriptors of this process.
    ///
    /// # Errors
    /// The system's, if it was not executed; the keeper's.
    pub fn start_process(&self, started: &Started<'_>) -> Result<KeptProcess> {
        let mut descriptors = started.inherited.to_vec();
        let (path, program) = match started.program {
            KeptProgram::Path(path) => (path, NONE),
            KeptProgram::File(file) => {
                descriptors.push(file);
                (OsStr::new(""), u32::try_from(descriptors.len() - 1).unwrap_or(NONE))
            }
        };
        let body = body_of(started, path, program)?;
        let answer = if HEADER + body.len() <= MESSAGE_LIMIT {
            self.call("execute", wire::SPAWN, &body, &descriptors)?
        } else {
            let file = in_memory(&body).map_err(KeeperError::system("put arguments into memory"))?;
            let mut all = vec![file.as_fd()];
            all.extend(descriptors);
            let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
            self.call("execute", wire::SPAWN_FROM, &length.to_ne_bytes(), &all)?
        };
        let process = Process::read(&mut Reader(&answer.body)).ok_or(KeeperError::Answer)?;
        let pid = HostPid::new(process.pid).ok_or(KeeperError::Answer)?;
        Ok(KeptProcess { pid, start: process.start, pidfd: answer.descriptor })
    }

    /// What the keeper knows of a process: of the one with this start, or of the last one with this pid.
    ///
    /// # Errors
    /// The keeper's.
    pub fn record(&self, pid: HostPid, start: Option<u64>) -> Result<Recorded> {
        let answer = self.call("look for a record", wire::RECORD, &process_bytes(pid, start), &[])?;
        let mut reader = Reader(&answer.body);
        let state = reader.u32().ok_or(KeeperError::Answer)?;
        reader.u32().ok_or(KeeperError::Answer)?;
        match state {
            wire::ALIVE => Ok(Recorded::Alive),
            wire::UNKNOWN => Ok(Recorded::Unknown),
            wire::ENDED => Ok(Recorded::Ended(read_record(&mut reader)?)),
            _ => Err(KeeperError::Answer),
        }
    }

    /// All records with a higher number than `after`, the oldest first.
    ///
    /// # Errors
    /// The keeper's.
    pub fn records(&self, after: u64) -> Result<Vec<KeeperRecord>> {
        let (mut records, mut after) = (Vec::new(), after);
        loop {
            let answer = self.call("list records", wire::RECORDS, &after.to_ne_bytes(), &[])?;
            let mut reader = Reader(&answer.body);
            let count = reader.u32().ok_or(KeeperError::Answer)?;
            let has_more = reader.u32().ok_or(KeeperError::Answer)? != 0;
            for _ in 0..count {
                records.push(read_record(&mut reader)?);
            }
            match records.last() {
                Some(last) if has_more && last.number > after => after = last.number,
                _ => return Ok(records),
            }
        }
    }

    /// Forgets the records with these numbers. Returns how many there were.
    ///
    /// # Errors
    /// The keeper's.
    pub fn forget(&self, numbers: &[u64]) -> Result<usize> {
        let mut forgotten = 0;
        for some in numbers.chunks((MESSAGE_LIMIT - HEADER) / 8) {
            let body: Vec<u8> = some.iter().flat_map(|number| number.to_ne_bytes()).collect();
            let answer = self.call("forget records", wire::FORGET, &body, &[])?;
            forgotten += count_in(&answer)?;
        }
        Ok(forgotten)
    }

    /// Has the keeper drop the record of a child after all others, should there ever be too many. For a process that was left
    /// behind by one that the keeper has spawned.
    ///
    /// # Errors
    /// `ECHILD` if it is no child of the keeper's and has no record; the keeper's.
    pub fn mark(&self, pid: HostPid, start: u64) -> Result<()> {
        self.call("mark a process", wire::MARK, &process_bytes(pid, Some(start)), &[]).map(drop)
    }

    /// Gives the keeper a descriptor to hold, under a name of 1 to 200 bytes.
    ///
    /// # Errors
    /// [`KeeperError::NameTaken`]; the keeper's.
    pub fn hold(&self, name: &str, descriptor: impl AsFd) -> Result<()> {
        self.call("hold a descriptor", wire::HOLD, name.as_bytes(), &[descriptor.as_fd()]).map(drop)
    }

    /// A duplicate of a descriptor that the keeper holds.
    ///
    /// # Errors
    /// [`KeeperError::NoSuchName`]; the keeper's.
    pub fn take(&self, name: &str) -> Result<OwnedFd> {
        const OP: &str = "take a descriptor";
        let answer = self.call(OP, wire::TAKE, name.as_bytes(), &[])?;
        // The kernel drops a descriptor that this process has no number for.
        answer.descriptor.ok_or_else(|| KeeperError::system(OP)(Errno::MFILE))
    }

    /// The names of the descriptors that the keeper holds, in the order in which they came.
    ///
    /// # Errors
    /// The keeper's.
    pub fn held(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        loop {
            let first = u32::try_from(names.len()).unwrap_or(u32::MAX);
            let answer = self.call("list descriptors", wire::HELD, &first.to_ne_bytes(), &[])?;
            let mut reader = Reader(&answer.body);
            let count = reader.u32().ok_or(KeeperError::Answer)?;
            let has_more = reader.u32().ok_or(KeeperError::Answer)? != 0;
            for _ in 0..count {
                let length = reader.bytes(1).and_then(<[u8]>::first).ok_or(KeeperError::Answer)?;
                let name = reader.bytes(usize::from(*length)).ok_or(KeeperError::Answer)?;
                names.push(String::from_utf8_lossy(name).into_owned());
            }
            if !has_more || count == 0 {
                return Ok(names);
            }
        }
    }

    /// Has the keeper close every descriptor whose name begins with this. Returns how many there were. What is in a pipe that has a log
    /// file is written before, unless that fails: [`logged`](Self::logged) says whether all is written.
    ///
    /// # Errors
    /// The keeper's.
    pub fn release(&self, prefix: &str) -> Result<usize> {
        count_in(&self.call("release descriptors", wire::RELEASE, prefix.as_bytes(), &[])?)
    }
}

/// Says hello. Returns the keeper's pid, what identifies its program, and what it has.
pub(super) fn greet(connection: &mut Connection) -> Result<(HostPid, u64, Had)> {
    let protocol = u32::from(wire::PROTOCOL);
    let answer = connection.call("greet the keeper", wire::HELLO, &protocol.to_ne_bytes(), &[])?;
    let welcome = Welcome::read(&mut Reader(&answer.body)).ok_or(KeeperError::Answer)?;
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let had = Had {
        records: count(welcome.records),
        held: count(welcome.held),
        children: welcome.has_children != 0,
    };
    Ok((HostPid::new(welcome.pid).ok_or(KeeperError::Answer)?, welcome.program, had))
}

fn read_record(reader: &mut Reader<'_>) -> Result<KeeperRecord> {
    KeeperRecord::new(&Record::read(reader).ok_or(KeeperError::Answer)?)
}

fn count_in(answer: &Answer) -> Result<usize> {
    let count = Reader(&answer.body).u32().and_then(|count| usize::try_from(count).ok());
    count.ok_or(KeeperError::Answer)
}

fn process_bytes(pid: HostPid, start: Option<u64>) -> [u8; 16] {
    let mut bytes = [0; 16];
    Process { pid: pid.get(), start: start.unwrap_or(0) }.write(&mut Writer::new(&mut bytes));
    bytes
}

/// The body of a `Spawn`.
fn body_of(started: &Started<'_>, path: &OsStr, program: u32) -> Result<Vec<u8>> {
    let indices: Vec<u8> = (0..).take(started.inherited.len()).flat_map(u32::to_ne_bytes).collect();
    let limit = getrlimit(Resource::Nofile);
    let count = |number: usize| u32::try_from(number).unwrap_or(NONE);
    let spawn = Spawn {
        program,
        args: count(started.args.len()),
        variables: count(started.variables.len()),
        oom_score: own_oom_score(),
        umask: NONE,
        descriptors: [limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX)],
        inherited: &indices,
        texts: &[],
    };
    let mut body = vec![0; spawn.size()];
    spawn.write(&mut Writer::new(&mut body));
    let args = started.args.iter().map(|arg| arg.as_bytes());
    let texts = [path.as_bytes()].into_iter().chain(args).chain(started.variables.iter().map(Vec::as_slice));
    for text in texts {
        if text.contains(&0) {
            return Err(KeeperError::system("execute")(Errno::INVAL));
        }
        body.extend_from_slice(text);
        body.push(0);
    }
    Ok(body)
}

/// This process's `oom_score_adj`.
fn own_oom_score() -> i32 {
    let score = std::fs::read_to_string("/proc/self/oom_score_adj");
    score.ok().and_then(|score| score.trim().parse().ok()).unwrap_or(i32::MIN)
}

/// A sealed file in memory with these bytes.
fn in_memory(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memory_file::create("longshore-arguments")?);
    file.write_all(bytes)?;
    memory_file::seal(&file)
}
