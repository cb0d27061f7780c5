//! The client's requests. Whatever a message has in it, it gets one answer, and its descriptors are used or closed.

use crate::PROGRAM;
use crate::keeper::{Client, Held, Keeper, has_children};
use crate::messages::{IS_MARKED, Process, Record, Spawn, WAS_SPAWNED, Welcome};
use crate::sys::{self, Received};
use crate::table::Table;
use crate::text;
use crate::wire::{self, HEADER, Header, NAME_LIMIT, PROTOCOL, Reader, Reason, SPAWN_LIMIT, Writer};

/// A record that is about to be removed.
const IS_FORGOTTEN: u32 = 1 << 31;

/// Why a request is refused, with a number.
pub type Refusal = (Reason, u32);

/// The descriptor of an answer.
enum Sent {
    None,
    /// It is closed when it was sent.
    Given(i32),
    /// It stays held.
    Lent(i32),
}

type Answered = Result<Sent, Refusal>;

pub fn system(errno: i32) -> Refusal {
    (Reason::System, errno as u32)
}

impl Keeper {
    /// Handles a message.
    pub fn handle(&mut self, client: Client, message: &[u8], mut received: Received) {
        let header = Header::parse(message).unwrap_or_default();
        let body = message.get(HEADER..).unwrap_or_default();
        let mut answer = core::mem::replace(&mut self.answer, Table::new());
        let mut out = Writer::new(answer.buffer().get_mut(HEADER..).unwrap_or_default());
        let checked = check(client, message, &header, &received);
        let answered = checked.and_then(|()| self.answer(&header, body, &mut received, &mut out));
        match answered {
            Err(refusal) => self.refuse(client.fd, header.token, refusal),
            Ok(sent) => {
                let (fd, is_given) = match sent {
                    Sent::None => (None, false),
                    Sent::Lent(fd) => (Some(fd), false),
                    Sent::Given(fd) => (Some(fd), true),
                };
                let kind = header.kind | wire::ANSWER;
                let (length, descriptors) = (out.len() as u32, u32::from(fd.is_some()));
                let header = Header { protocol: PROTOCOL, kind, token: header.token, length, descriptors };
                let all = answer.buffer().get_mut(..HEADER + length as usize).unwrap_or_default();
                if let Some(place) = all.get_mut(..HEADER) {
                    place.copy_from_slice(&header.bytes());
                }
                self.say(client.fd, all, fd);
                if let Some(fd) = fd.filter(|_| is_given) {
                    sys::close(fd);
                }
                if kind == wire::QUIT | wire::ANSWER {
                    self.leave();
                }
            }
        }
        self.answer = answer;
    }

    /// Sends an answer. A client that does not read its answers is gone.
    pub fn say(&mut self, to: i32, message: &[u8], fd: Option<i32>) {
        if sys::send(to, message, fd).is_err() && self.client.is_some_and(|client| client.fd == to) {
            self.hang_up();
        }
    }

    /// Answers that something was refused.
    pub fn refuse(&mut self, to: i32, token: u64, (reason, number): Refusal) {
        let header = Header { protocol: PROTOCOL, kind: wire::ERROR, token, length: 8, descriptors: 0 };
        let mut message = [0; HEADER + 8];
        let mut out = Writer::new(&mut message);
        out.bytes(&header.bytes());
        out.u32(reason as u32);
        out.u32(number);
        self.say(to, &message, None);
    }

    fn answer(
        &mut self,
        header: &Header,
        body: &[u8],
        received: &mut Received,
        out: &mut Writer<'_>,
    ) -> Answered {
        let mut reader = Reader(body);
        match header.kind {
            wire::HELLO => self.welcome(out),
            wire::UPGRADE => return Err(self.upgrade(header.token, received)),
            wire::SPAWN => return self.spawn(body, received.as_slice(), out),
            wire::SPAWN_FROM => return self.spawn_from(&mut reader, received.as_slice(), out),
            wire::RECORD => self.tell_record(whole(Process::read(&mut reader), reader)?, out),
            wire::RECORDS => self.tell_records(whole(reader.u64(), reader)?, out),
            wire::FORGET => self.forget(reader, out)?,
            wire::MARK => self.mark(whole(Process::read(&mut reader), reader)?)?,
            wire::HOLD => self.hold(body, received)?,
            wire::TAKE => return self.held_as(body).map(|held| Sent::Lent(held.fd)),
            wire::HELD => self.tell_held(whole(reader.u32(), reader)?, out),
            wire::RELEASE => self.release(body, out)?,
            wire::LOG => self.log(body, received)?,
            wire::LOGGED => self.tell_logged(body, out)?,
            wire::QUIT if has_children() => return Err((Reason::HasChildren, 0)),
            wire::QUIT => {}
            _ => return Err((Reason::Kind, u32::from(header.kind))),
        }
        Ok(Sent::None)
    }

    fn welcome(&mut self, out: &mut Writer<'_>) {
        self.was_greeted = true;
        if let Some(client) = &mut self.client {
            client.was_greeted = true;
        }
        let (records, held) = (self.records.as_slice().len() as u32, self.held.as_slice().len() as u32);
        let (protocol, pid) = (u32::from(PROTOCOL), sys::own_pid());
        let has_children = u32::from(has_children());
        Welcome { protocol, pid, program: PROGRAM, records, held, has_children }.write(out);
    }

    fn spawn(&mut self, body: &[u8], descriptors: &[i32], out: &mut Writer<'_>) -> Answered {
        let spawn = Spawn::parse(body, descriptors.len()).map_err(|reason| (reason, 0))?;
        let started = self.starter.start(&spawn, descriptors).map_err(system)?;
        // It is not reaped yet, so the pid is its own.
        let start = text::start_and_flags(started.pid).map_or(0, |(start, _)| start);
        let process = Process { pid: started.pid, start };
        let _no_memory = self.know(process, WAS_SPAWNED);
        process.write(out);
        Ok(Sent::Given(started.pidfd))
    }

    /// A `Spawn` that is longer than a message.
    fn spawn_from(&mut self, reader: &mut Reader<'_>, fds: &[i32], out: &mut Writer<'_>) -> Answered {
        let length = usize::try_from(whole(reader.u64(), *reader)?).unwrap_or(usize::MAX);
        let (file, descriptors) = fds.split_first().ok_or((Reason::Descriptors, 0))?;
        if length > SPAWN_LIMIT {
            return Err((Reason::Length, 0));
        }
        if length == 0 || !sys::is_sealed(*file) {
            return Err((Reason::Malformed, 0));
        }
        let mut body = Table::new();
        body.reserve(length).map_err(system)?;
        let bytes = body.buffer().get_mut(..length).unwrap_or_default();
        let answered = match sys::read_at(*file, bytes, 0) {
            Ok(count) if count == length => self.spawn(bytes, descriptors, out),
            _ => Err((Reason::Length, 0)),
        };
        body.clear();
        answered
    }

    fn tell_record(&mut self, process: Process, out: &mut Writer<'_>) {
        self.reap();
        let (state, record) = match self.record(process) {
            Some(record) => (wire::ENDED, record),
            None if is_alive(process) => (wire::ALIVE, Record::default()),
            None => (wire::UNKNOWN, Record::default()),
        };
        out.u32(state);
        out.u32(0);
        record.write(out);
    }

    fn tell_records(&mut self, after: u64, out: &mut Writer<'_>) {
        self.reap();
        let all = self.records.as_slice();
        let first = all.partition_point(|record| record.number <= after);
        let rest = all.get(first..).unwrap_or_default();
        let count = rest.len().min((out.room() - 8) / Record::SIZE);
        out.u32(count as u32);
        out.u32(u32::from(count < rest.len()));
        rest.iter().take(count).for_each(|record| record.write(out));
    }

    fn forget(&mut self, mut reader: Reader<'_>, out: &mut Writer<'_>) -> Result<(), Refusal> {
        if !reader.0.len().is_multiple_of(8) {
            return Err((Reason::Malformed, 0));
        }
        let before = self.records.as_slice().len();
        while let Some(number) = reader.u64() {
            let records = self.records.as_mut_slice();
            let found = records.binary_search_by_key(&number, |record| record.number);
            if let Some(record) = found.ok().and_then(|index| records.get_mut(index)) {
                record.flags |= IS_FORGOTTEN;
            }
        }
        // All at once: the rest is moved once.
        self.records.retain(|record| record.flags & IS_FORGOTTEN == 0);
        out.u32((before - self.records.as_slice().len()) as u32);
        Ok(())
    }

    fn mark(&mut self, process: Process) -> Result<(), Refusal> {
        self.reap();
        let records = self.records.as_mut_slice().iter_mut();
        if let Some(record) = records.rev().find(|record| process.is(&record.process)) {
            record.flags |= IS_MARKED;
            return Ok(());
        }
        if !is_alive(process) {
            return Err(system(sys::ECHILD));
        }
        self.know(process, IS_MARKED).map_err(system)
    }

    fn hold(&mut self, name: &[u8], received: &mut Received) -> Result<(), Refusal> {
        if !wire::is_name(name) {
            return Err((Reason::Malformed, 0));
        }
        if self.held_as(name).is_ok() {
            return Err((Reason::NameTaken, 0));
        }
        let mut held = Held { fd: -1, len: name.len() as u8, name: [0; NAME_LIMIT] };
        held.name.iter_mut().zip(name).for_each(|(place, byte)| *place = *byte);
        held.fd = received.take(0).ok_or((Reason::Descriptors, 0))?;
        self.held.push(held).map_err(|errno| {
            sys::close(held.fd);
            system(errno)
        })
    }

    pub fn held_as(&self, name: &[u8]) -> Result<&Held, Refusal> {
        let found = self.held.as_slice().iter().find(|held| held.name() == name);
        found.ok_or((Reason::NoSuchName, 0))
    }

    fn tell_held(&self, first: u32, out: &mut Writer<'_>) {
        let rest = self.held.as_slice().get(first as usize..).unwrap_or_default();
        let count = rest.len().min((out.room() - 8) / (NAME_LIMIT + 1));
        out.u32(count as u32);
        out.u32(u32::from(count < rest.len()));
        for held in rest.iter().take(count) {
            out.bytes(&[held.len]);
            out.bytes(held.name());
        }
    }

    fn release(&mut self, prefix: &[u8], out: &mut Writer<'_>) -> Result<(), Refusal> {
        let mut released = Table::new();
        for held in self.held.as_slice().iter().filter(|held| held.name().starts_with(prefix)) {
            released.push(held.fd).map_err(system)?;
        }
        self.held.retain(|held| !held.name().starts_with(prefix));
        for fd in released.as_slice() {
            self.end_log(*fd);
            sys::close(*fd);
        }
        out.u32(released.as_slice().len() as u32);
        released.clear();
        Ok(())
    }
}

/// What is wrong with a message, whichever request it is.
fn check(client: Client, message: &[u8], header: &Header, received: &Received) -> Result<(), Refusal> {
    let is_of_any_protocol = matches!(header.kind, wire::HELLO | wire::UPGRADE);
    let refusal = if Header::parse(message).is_none() {
        (Reason::Malformed, 0)
    } else if received.was_cut || message.len() != HEADER + header.length as usize {
        (Reason::Length, 0)
    } else if received.lost_descriptors || received.as_slice().len() != header.descriptors as usize {
        (Reason::Descriptors, 0)
    } else if header.protocol != PROTOCOL && !is_of_any_protocol {
        (Reason::Protocol, u32::from(PROTOCOL))
    } else if !client.was_greeted && header.kind != wire::HELLO {
        (Reason::NotGreeted, 0)
    } else {
        return Ok(());
    };
    Err(refusal)
}

/// A body that has nothing else in it.
fn whole<T>(read: Option<T>, rest: Reader<'_>) -> Result<T, Refusal> {
    read.filter(|_| rest.0.is_empty()).ok_or((Reason::Malformed, 0))
}

/// Whether a process is a child of this one's that has not ended.
fn is_alive(process: Process) -> bool {
    let is_it = |(start, _)| process.start == 0 || process.start == start;
    sys::is_child(process.pid) && text::start_and_flags(process.pid).is_some_and(is_it)
}
