//! Another program in the place of this one: the same process, with its children, its records and its descriptors.
//!
//! ```text
//!  Upgrade ──▶ the state is written to memory ──▶ the new program reads it as `--check N`, in a process of its own
//!                                                    ├── it cannot: refused, nothing has changed
//!                                                    └── it can: this process executes it as `--read N`, and it answers
//! ```

use crate::keeper::{Client, DIRECTORY, Held, Keeper, Known, LISTENER};
use crate::logs::{Sink, Source};
use crate::messages::{Process, Record, Spawn};
use crate::process::become_program;
use crate::requests::{Refusal, system};
use crate::sys::{self, Received, Result};
use crate::table::Table;
use crate::text::{Text, digits};
use crate::wire::{self, HEADER, Header, LOG_NAME_LIMIT, NAME_LIMIT, NONE, PROTOCOL, Reader, Reason, Writer};

/// The form of the state that this program writes and reads.
const STATE: u64 = 0x0002_5453_4c4b_534c;

/// How long the new program may take to check the state.
const PATIENCE: i64 = 5000;

const FIXED: usize = 8 * 13;

impl Keeper {
    /// Executes a new program. Comes back only if that was refused.
    pub fn upgrade(&mut self, token: u64, received: &Received) -> Refusal {
        let [program] = *received.as_slice() else { return (Reason::Descriptors, 0) };
        if !sys::is_sealed(program) {
            return (Reason::Malformed, 0);
        }
        self.reap();
        let state = match self.write_state(token) {
            Ok(state) => state,
            Err(errno) => return system(errno),
        };
        let refusal = match self.check(program, state) {
            Err(errno) => system(errno),
            Ok(false) => (Reason::State, 0),
            Ok(true) => {
                self.close_on_exec(false);
                let _set = sys::set_close_on_exec(state, false);
                let number = digits(state as u64);
                let errno = become_program(program, [&Text::new(&[b"--read"]), &number]);
                self.close_on_exec(true);
                system(errno)
            }
        };
        sys::close(state);
        refusal
    }

    /// Whether the new program can read a state.
    fn check(&mut self, program: i32, state: i32) -> Result<bool> {
        let mut inherited = [0; 16];
        let mut indices = Writer::new(&mut inherited);
        [0, 0, 0, 1].into_iter().for_each(|index| indices.u32(index));
        let spawn = Spawn {
            program: 2,
            args: 3,
            variables: 0,
            oom_score: i32::MIN,
            umask: NONE,
            descriptors: self.limit,
            inherited: &inherited,
            texts: b"\0longshore-keeper\0--check\x003\0",
        };
        let started = self.starter.start(&spawn, &[0, state, program])?;
        if sys::poll(started.pidfd, PATIENCE) == 0 {
            sys::kill(started.pidfd);
        }
        while sys::poll(started.pidfd, PATIENCE) == 0 {}
        sys::close(started.pidfd);
        Ok(sys::reap(started.pid)?.status == 0)
    }

    /// Whether the descriptors that the new program needs are closed on execution.
    fn close_on_exec(&self, is_closed: bool) {
        let held = self.held.as_slice().iter().map(|held| held.fd);
        let client = self.client.iter().map(|client| client.fd);
        let directories = self.logs.sinks.as_slice().iter().map(|sink| sink.directory);
        for fd in held.chain(client).chain(directories).chain([LISTENER, DIRECTORY]) {
            let _set = sys::set_close_on_exec(fd, is_closed);
        }
    }

    /// Writes the state to a file in memory.
    fn write_state(&self, token: u64) -> Result<i32> {
        let (known, records, held) = (self.known.as_slice(), self.records.as_slice(), self.held.as_slice());
        let (sinks, sources) = (self.logs.sinks.as_slice(), self.logs.sources.as_slice());
        let logs = sinks.len() * (48 + LOG_NAME_LIMIT) + sources.len() * 24;
        let size =
            FIXED + logs + known.len() * 24 + records.len() * Record::SIZE + held.len() * (NAME_LIMIT + 8);
        let mut memory = Table::new();
        memory.reserve(size)?;
        let mut out = Writer::new(memory.buffer());
        let client = self.client.map_or((u64::MAX, 0), |client| (client.fd as u64, u64::from(client.pid)));
        let counts =
            [known.len(), records.len(), held.len(), sinks.len(), sources.len()].map(|count| count as u64);
        let (last, last_log) = (self.last, u64::from(self.logs.last));
        let fixed = [STATE, token, client.0, client.1, self.limit[0], self.limit[1], last, last_log];
        fixed.into_iter().chain(counts).for_each(|number| out.u64(number));
        for known in known {
            known.process.write(&mut out);
            out.u64(u64::from(known.flags));
        }
        records.iter().for_each(|record| record.write(&mut out));
        for held in held {
            out.u32(held.fd as u32);
            out.u32(u32::from(held.len));
            out.bytes(&held.name);
        }
        write_logs(sinks, sources, &mut out);
        let len = out.len();
        let written = sys::memory_file(c"longshore-keeper-state").and_then(|fd| {
            let bytes = memory.buffer().get(..len).unwrap_or_default();
            write_all(fd, bytes).inspect_err(|_| sys::close(fd))?;
            Ok(fd)
        });
        memory.clear();
        written
    }
}

fn write_all(fd: i32, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let count = sys::write(fd, bytes)?;
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}

/// Reads a state. Returns the keeper, and the token of the request.
pub fn read(fd: i32) -> Result<(Keeper, u64)> {
    let mut memory: Table<u8> = Table::new();
    let mut count = 0;
    loop {
        memory.reserve(count + 4096)?;
        let room = memory.buffer().get_mut(count..).unwrap_or_default();
        match sys::read_at(fd, room, count)? {
            0 => break,
            more => count += more,
        }
    }
    let mut reader = Reader(memory.buffer().get(..count).unwrap_or_default());
    let state = parse(&mut reader);
    let is_whole = reader.0.is_empty();
    memory.clear();
    state.filter(|_| is_whole).ok_or(sys::EINVAL)
}

fn parse(reader: &mut Reader<'_>) -> Option<(Keeper, u64)> {
    (reader.u64()? == STATE).then_some(())?;
    let token = reader.u64()?;
    let (fd, pid) = (reader.u64()?, reader.u64()? as u32);
    let mut keeper = Keeper::new();
    let since = sys::uptime();
    keeper.client = (fd != u64::MAX).then_some(Client { fd: fd as i32, pid, since, was_greeted: true });
    keeper.limit = [reader.u64()?, reader.u64()?];
    (keeper.last, keeper.logs.last) = (reader.u64()?, reader.u64()? as u32);
    keeper.was_greeted = true;
    let [known, records, held] = [reader.u64()?, reader.u64()?, reader.u64()?];
    let [sinks, sources] = [reader.u64()?, reader.u64()?];
    for _ in 0..known {
        let (process, flags) = (Process::read(reader)?, reader.u64()? as u32);
        keeper.known.push(Known { process, flags }).ok()?;
    }
    for _ in 0..records {
        keeper.records.push(Record::read(reader)?).ok()?;
    }
    for _ in 0..held {
        let (fd, len) = (reader.u32()? as i32, u8::try_from(reader.u32()?).ok()?);
        let name = reader.bytes(NAME_LIMIT)?.try_into().ok()?;
        keeper.held.push(Held { fd, len, name }).ok()?;
    }
    for _ in 0..sinks {
        keeper.logs.sinks.push(read_sink(reader)?).ok()?;
    }
    for _ in 0..sources {
        keeper.logs.sources.push(read_source(reader)?).ok()?;
    }
    Some((keeper, token))
}

/// Files are opened again. Where they end is where they go on.
fn write_logs(sinks: &[Sink], sources: &[Source], out: &mut Writer<'_>) {
    for sink in sinks {
        [sink.number, sink.directory as u32, sink.form, sink.rotations]
            .into_iter()
            .for_each(|number| out.u32(number));
        [sink.limit, sink.place[0], sink.place[1], u64::from(sink.len)]
            .into_iter()
            .for_each(|number| out.u64(number));
        out.bytes(&sink.name);
    }
    for source in sources {
        let is_at_end = u32::from(source.is_at_end);
        [source.pipe as u32, source.sink, source.stream, is_at_end]
            .into_iter()
            .for_each(|number| out.u32(number));
        out.u64(source.taken);
    }
}

fn read_sink(reader: &mut Reader<'_>) -> Option<Sink> {
    let [number, directory, form, rotations] = [reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?];
    let (limit, place, len) =
        (reader.u64()?, [reader.u64()?, reader.u64()?], u8::try_from(reader.u64()?).ok()?);
    let name = reader.bytes(LOG_NAME_LIMIT)?.try_into().ok()?;
    let (directory, file, size, retry, errno) = (directory as i32, -1, 0, 0, 0);
    Some(Sink { number, directory, file, form, rotations, limit, size, place, len, name, retry, errno })
}

fn read_source(reader: &mut Reader<'_>) -> Option<Source> {
    let (pipe, sink, stream) = (reader.u32()? as i32, reader.u32()?, reader.u32()?);
    let is_at_end = reader.u32()? == 1;
    Some(Source { pipe, sink, stream, is_ready: !is_at_end, is_at_end, taken: reader.u64()? })
}

/// Goes on as the former program would have, and answers its last request.
pub fn go_on(fd: i32) -> Result<Keeper> {
    let (mut keeper, token) = read(fd)?;
    sys::close(fd);
    keeper.close_on_exec(true);
    keeper.settle()?;
    for source in keeper.logs.sources.as_slice().iter().filter(|source| !source.is_at_end) {
        keeper.watch_pipe(source.pipe)?;
    }
    if let Some(client) = keeper.client {
        let kind = wire::UPGRADE | wire::ANSWER;
        let header = Header { protocol: PROTOCOL, kind, token, length: 0, descriptors: 0 };
        let answer: [u8; HEADER] = header.bytes();
        keeper.say(client.fd, &answer, None);
    }
    Ok(keeper)
}
