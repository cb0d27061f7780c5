//! Log files: what a program writes to a pipe that is held goes to a file, which is rotated.
//!
//! ```text
//!  pipe ── splice ──▶ file                                            raw
//!  pipe ── tee ──▶ scratch pipe ──▶ lines ──▶ file; then the pipe is read    json, cri
//! ```
//! A byte leaves the pipe after it was written to the file, so nothing is lost while the disk is full: the program blocks, as
//! with any pipe that nobody reads, and the keeper tries again. For the same reason nothing of a log is in this process's memory
//! that an upgrade would have to carry over.

use crate::keeper::Keeper;
use crate::lines::{self, RAW};
use crate::messages::Log;
use crate::requests::{Refusal, system};
use crate::sys::{self, Received, Result};
use crate::table::Table;
use crate::text::{Text, digits};
use crate::wire::{LOG_NAME_LIMIT, Reason, Writer};

/// The most bytes that are moved at once, before anything else is looked at.
const AT_ONCE: usize = 1 << 20;

/// How often a pipe that is closed is looked at before. Its writer may go on, and a pipe has no more than a mebibyte.
const DRAINED: usize = 64;

/// How long the keeper waits before it tries again to write, in nanoseconds.
const PAUSE: u64 = 200_000_000;

/// A log file.
#[derive(Clone, Copy)]
pub struct Sink {
    /// Its number. There are sources with it as long as it is there.
    pub number: u32,
    pub directory: i32,
    /// Open for writing, or -1.
    pub file: i32,
    pub form: u32,
    /// How many former files there are beside it.
    pub rotations: u32,
    /// The most bytes of a file. Zero if there is no limit.
    pub limit: u64,
    pub size: u64,
    /// The identity of the directory.
    pub place: [u64; 2],
    pub len: u8,
    pub name: [u8; LOG_NAME_LIMIT],
    /// When it is tried again after an error, or zero.
    pub retry: u64,
    /// The last error, or zero.
    pub errno: i32,
}

impl Sink {
    pub fn name(&self) -> &[u8] {
        self.name.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The name of the file, or of a former one.
    fn file_name(&self, age: u32) -> Text {
        match age {
            0 => Text::new(&[self.name()]),
            age => Text::new(&[self.name(), b".", digits(u64::from(age)).as_bytes()]),
        }
    }

    /// Opens the file, at its end.
    fn open(&mut self) -> Result<()> {
        if self.file < 0 {
            self.file = sys::open_log(self.directory, self.file_name(0).as_c())?;
            self.size = sys::seek_to_end(self.file)?;
        }
        Ok(())
    }

    /// Gives the file a number, and goes on with an empty one.
    fn rotate(&mut self) -> Result<()> {
        for age in (0..self.rotations).rev() {
            let (from, to) = (self.file_name(age), self.file_name(age + 1));
            match sys::rename(self.directory, from.as_c(), to.as_c()) {
                Ok(()) | Err(sys::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        if self.rotations == 0 {
            sys::unlink(self.directory, self.file_name(0).as_c())?;
        }
        sys::close(self.file);
        self.file = -1;
        self.open()
    }

    /// How many bytes may be written to the file. It is rotated first if that is less than is wanted, unless it is empty.
    fn room(&mut self, wanted: u64) -> Result<u64> {
        self.open()?;
        if self.limit == 0 {
            return Ok(u64::MAX);
        }
        if self.size > 0 && self.size.saturating_add(wanted) > self.limit {
            self.rotate()?;
        }
        Ok(self.limit.saturating_sub(self.size))
    }
}

/// A pipe whose contents go to a log file.
#[derive(Clone, Copy)]
pub struct Source {
    pub pipe: i32,
    pub sink: u32,
    /// 1 for stdout, 2 for stderr.
    pub stream: u32,
    /// Whether there may be something in it.
    pub is_ready: bool,
    /// Whether everything was written and nobody can write to it.
    pub is_at_end: bool,
    /// How many bytes were taken out of it.
    pub taken: u64,
}

/// What there is for log files.
pub struct Logs {
    pub sinks: Table<Sink>,
    pub sources: Table<Source>,
    pub last: u32,
    /// A pipe of our own, and what was read of it. Made for the first log with lines.
    scratch: [i32; 2],
    read: Table<u8>,
    line: Table<u8>,
}

/// What has become of a source.
enum Moved {
    /// There may be more.
    Some,
    /// Nothing more now.
    All,
    /// Nobody can write to the pipe any more, and all was taken out.
    End,
}

impl Logs {
    pub const fn new() -> Self {
        Self {
            sinks: Table::new(),
            sources: Table::new(),
            last: 0,
            scratch: [-1; 2],
            read: Table::new(),
            line: Table::new(),
        }
    }

    /// How long nothing has to be done, in milliseconds. Negative for ever.
    pub fn timeout(&self, now: u64) -> i32 {
        let ready = self.sources.as_slice().iter().filter(|source| source.is_ready);
        let retry = |source: &Source| self.sink(source.sink).map_or(0, |sink| sink.retry);
        let next = ready.map(retry).min();
        next.map_or(-1, |at| (at.saturating_sub(now).div_ceil(1_000_000)).min(60_000) as i32)
    }

    fn sink(&self, number: u32) -> Option<&Sink> {
        self.sinks.as_slice().iter().find(|sink| sink.number == number)
    }

    /// Something was written to a pipe, or its last writer has gone.
    pub fn wake(&mut self, pipe: i32) {
        let sources = self.sources.as_mut_slice().iter_mut();
        sources
            .filter(|source| source.pipe == pipe && !source.is_at_end)
            .for_each(|source| source.is_ready = true);
    }

    /// Moves what there is, a part of each source.
    pub fn work(&mut self) {
        let now = sys::uptime();
        for index in 0..self.sources.as_slice().len() {
            if let Some(source) = self.sources.as_slice().get(index).filter(|source| source.is_ready).copied()
            {
                self.work_on(index, source, now);
            }
        }
    }

    fn work_on(&mut self, index: usize, mut source: Source, now: u64) {
        let sinks = self.sinks.as_slice();
        let Some(at) = sinks.iter().position(|sink| sink.number == source.sink) else { return };
        let Some(mut sink) = sinks.get(at).copied().filter(|sink| sink.retry <= now) else { return };
        let moved =
            if sink.form == RAW { raw(&mut source, &mut sink) } else { self.lines(&mut source, &mut sink) };
        (sink.errno, sink.retry) = match moved {
            Ok(_) => (0, 0),
            Err(errno) => (errno, now + PAUSE),
        };
        match moved {
            Ok(Moved::Some) | Err(_) => {}
            Ok(Moved::All) => source.is_ready = false,
            Ok(Moved::End) => (source.is_ready, source.is_at_end) = (false, true),
        }
        // Nothing is released meanwhile: this is one thread.
        if let Some(place) = self.sinks.as_mut_slice().get_mut(at) {
            *place = sink;
        }
        if let Some(place) = self.sources.as_mut_slice().get_mut(index) {
            *place = source;
        }
    }

    /// Moves whole lines, or parts of long ones.
    fn lines(&mut self, source: &mut Source, sink: &mut Sink) -> Result<Moved> {
        if self.scratch[0] < 0 {
            self.scratch = sys::pipe()?;
        }
        self.read.reserve(2 * lines::LONGEST)?;
        self.line.reserve(lines::MOST)?;
        let before = sys::waiting(source.pipe);
        let copied = match sys::tee(source.pipe, self.scratch[1], 2 * lines::LONGEST) {
            Err(sys::EAGAIN) => return Ok(Moved::All),
            Ok(0) => return Ok(Moved::End),
            copied => copied?,
        };
        let bytes = self.read.buffer().get_mut(..copied).unwrap_or_default();
        let mut count = 0;
        while let Some(rest) = bytes.get_mut(count..).filter(|rest| !rest.is_empty()) {
            count += sys::read(self.scratch[0], rest)?;
        }
        // If nothing can follow, a line is complete without its newline.
        let is_last = sys::poll(source.pipe, 0) & sys::NO_WRITERS != 0 && sys::waiting(source.pipe) <= copied;
        let mut rest = &*bytes;
        // More than what was looked at is in the pipe: its end may be out of reach.
        while let Some(part) = lines::first_part(rest, is_last || copied < before && rest.len() == copied) {
            let mut out = Writer::new(self.line.buffer());
            let is_end = is_last && part.len() == rest.len();
            lines::write(sink.form, source.stream, part, is_end, sys::now(), &mut out);
            let len = out.len();
            put(sink, self.line.buffer().get(..len).unwrap_or_default())?;
            sys::discard(source.pipe, part.len());
            source.taken += part.len() as u64;
            rest = rest.get(part.len()..).unwrap_or_default();
        }
        let has_moved = rest.len() < copied;
        Ok(if has_moved { Moved::Some } else { Moved::All })
    }
}

/// Writes a line. If there is no room for all of it, there is nothing of it in the file.
fn put(sink: &mut Sink, line: &[u8]) -> Result<()> {
    sink.room(line.len() as u64)?;
    let written = sys::write(sink.file, line);
    if written == Ok(line.len()) {
        sink.size += line.len() as u64;
        return Ok(());
    }
    let _cut = sys::truncate(sink.file, sink.size);
    let _back = sys::seek_to_end(sink.file);
    Err(written.err().unwrap_or(sys::ENOSPC))
}

/// Moves bytes as they are.
fn raw(source: &mut Source, sink: &mut Sink) -> Result<Moved> {
    let count = sink.room(1)?.min(AT_ONCE as u64) as usize;
    match sys::splice(source.pipe, sink.file, count) {
        Err(sys::EAGAIN) => Ok(Moved::All),
        Ok(0) => Ok(Moved::End),
        moved => {
            let moved = moved? as u64;
            sink.size += moved;
            source.taken += moved;
            Ok(Moved::Some)
        }
    }
}

impl Keeper {
    /// Has the contents of a pipe written to a file from now on.
    pub fn log(&mut self, body: &[u8], received: &mut Received) -> core::result::Result<(), Refusal> {
        let log = Log::parse(body).ok_or((Reason::Malformed, 0))?;
        let pipe = self.held_as(log.pipe)?.fd;
        if !sys::is_pipe(pipe) {
            return Err((Reason::Malformed, 0));
        }
        if self.logs.sources.as_slice().iter().any(|source| source.pipe == pipe) {
            return Err((Reason::NameTaken, 0));
        }
        let sink = self.sink_of(&log, received)?;
        if log.form == RAW {
            sys::enlarge(pipe, AT_ONCE);
        }
        let source = Source { pipe, sink, stream: log.stream, is_ready: true, is_at_end: false, taken: 0 };
        let added = self.logs.sources.push(source).and_then(|()| self.watch_pipe(pipe));
        added.map_err(|errno| {
            self.end_log(pipe);
            system(errno)
        })
    }

    /// The number of a file that is open already, or is opened here.
    fn sink_of(&mut self, log: &Log<'_>, received: &mut Received) -> core::result::Result<u32, Refusal> {
        let directory = received.as_slice().first().copied().ok_or((Reason::Descriptors, 0))?;
        let place = sys::identity(directory, c".").map_err(system)?;
        let is_same = |sink: &&Sink| sink.place == place && sink.name() == log.file;
        if let Some(sink) = self.logs.sinks.as_slice().iter().find(is_same) {
            let is_alike = (sink.form, sink.limit, sink.rotations) == (log.form, log.limit, log.rotations);
            return if is_alike { Ok(sink.number) } else { Err((Reason::NameTaken, 0)) };
        }
        self.logs.last += 1;
        let mut sink = Sink {
            number: self.logs.last,
            directory,
            file: -1,
            form: log.form,
            rotations: log.rotations,
            limit: log.limit,
            size: 0,
            place,
            len: log.file.len() as u8,
            name: [0; LOG_NAME_LIMIT],
            retry: 0,
            errno: 0,
        };
        sink.name.iter_mut().zip(log.file).for_each(|(place, byte)| *place = *byte);
        sink.open().map_err(system)?;
        self.logs.sinks.push(sink).map_err(|errno| {
            sys::close(sink.file);
            system(errno)
        })?;
        let _kept = received.take(0);
        Ok(sink.number)
    }

    /// How much of a pipe was written.
    pub fn tell_logged(&self, name: &[u8], out: &mut Writer<'_>) -> core::result::Result<(), Refusal> {
        let pipe = self.held_as(name)?.fd;
        let found = self.logs.sources.as_slice().iter().find(|source| source.pipe == pipe);
        let source = found.ok_or((Reason::NoSuchName, 0))?;
        out.u64(source.taken);
        out.u32(u32::from(source.is_at_end));
        out.u32(self.logs.sink(source.sink).map_or(0, |sink| sink.errno as u32));
        Ok(())
    }

    /// Forgets the sources of a pipe that is closed, after what is in it was written, and files that have no source any more.
    pub fn end_log(&mut self, pipe: i32) {
        self.logs.wake(pipe);
        let is_of_it = |source: &Source| source.pipe == pipe;
        for _ in 0..DRAINED {
            let is_going_on = |source: &Source| is_of_it(source) && source.is_ready;
            let Some(source) = self.logs.sources.as_slice().iter().find(|source| is_going_on(source)) else {
                break;
            };
            if self.logs.sink(source.sink).is_none_or(|sink| sink.errno != 0) {
                break;
            }
            self.logs.work();
        }
        if self.logs.sources.as_slice().iter().any(is_of_it) {
            self.unwatch_pipe(pipe);
        }
        self.logs.sources.retain(|source| !is_of_it(source));
        let Logs { sinks, sources, .. } = &mut self.logs;
        let has_source = |sink: &Sink| sources.as_slice().iter().any(|source| source.sink == sink.number);
        sinks.retain(|sink| {
            let is_kept = has_source(sink);
            if !is_kept {
                sys::close(sink.file);
                sys::close(sink.directory);
            }
            is_kept
        });
    }
}
