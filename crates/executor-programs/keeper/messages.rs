//! The bodies of messages: see `wire`.

use crate::wire::{LOG_NAME_LIMIT, MOST_DESCRIPTORS, MOST_ROTATIONS, NONE, Reader, Reason, Writer, is_name};

/// A process, which no other process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// When it was started, in clock ticks since boot. Zero for any: the last one with this pid.
    pub start: u64,
}

impl Process {
    /// Reads one.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let pid = reader.u32()?;
        (reader.u32()? == 0).then_some(())?;
        Some(Self { pid, start: reader.u64()? })
    }

    /// Writes it.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.pid);
        writer.u32(0);
        writer.u64(self.start);
    }

    /// Whether it is this one, or may be.
    pub fn is(&self, other: &Self) -> bool {
        self.pid == other.pid && (self.start == other.start || self.start == 0)
    }
}

/// How a child of the keeper's has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its number: the first record of a keeper has 1.
    pub number: u64,
    /// The process.
    pub process: Process,
    /// Its wait status.
    pub status: i32,
    /// [`HAS_EXECUTED`], [`WAS_SPAWNED`], [`IS_MARKED`].
    pub flags: u32,
    /// When it was reaped, in nanoseconds since 1970.
    pub at: u64,
    /// The time of the processor that it and the children that it has waited for have used, in microseconds: by themselves, and
    /// by the kernel for them.
    pub times: [u64; 2],
    /// The most memory that it has had, in KiB.
    pub memory: u64,
}

/// It has executed a program.
pub const HAS_EXECUTED: u32 = 1;
/// The keeper has spawned it. Any other was left behind by one of those.
pub const WAS_SPAWNED: u32 = 2;
/// A client has asked to keep its record.
pub const IS_MARKED: u32 = 4;

impl Record {
    /// The bytes of a [`Record`].
    pub const SIZE: usize = 64;

    /// Reads one.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (number, process) = (reader.u64()?, Process::read(reader)?);
        let (status, flags) = (i32::from_ne_bytes(reader.bytes(4)?.try_into().ok()?), reader.u32()?);
        let (at, times) = (reader.u64()?, [reader.u64()?, reader.u64()?]);
        Some(Self { number, process, status, flags, at, times, memory: reader.u64()? })
    }

    /// Writes it.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.u64(self.number);
        self.process.write(writer);
        writer.bytes(&self.status.to_ne_bytes());
        writer.u32(self.flags);
        for number in [self.at, self.times[0], self.times[1], self.memory] {
            writer.u64(number);
        }
    }
}

/// The answer to `Hello`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// The keeper's protocol.
    pub protocol: u32,
    /// The keeper's pid.
    pub pid: u32,
    /// Identifies the keeper's program.
    pub program: u64,
    /// How many records there are.
    pub records: u32,
    /// How many descriptors are held.
    pub held: u32,
    /// Whether there are children: 1 or 0.
    pub has_children: u32,
}

impl Welcome {
    /// Reads it. What a later keeper adds is ignored.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (protocol, pid, program) = (reader.u32()?, reader.u32()?, reader.u64()?);
        let (records, held, has_children) = (reader.u32()?, reader.u32()?, reader.u32()?);
        Some(Self { protocol, pid, program, records, held, has_children })
    }

    /// Writes it.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.protocol);
        writer.u32(self.pid);
        writer.u64(self.program);
        writer.u32(self.records);
        writer.u32(self.held);
        writer.u32(self.has_children);
    }
}

/// What is to be executed.
#[derive(Clone, Copy, Debug)]
pub struct Spawn<'a> {
    /// The index of the descriptor that is executed, or [`NONE`]: then the first text is a path.
    pub program: u32,
    /// How many arguments there are, the name included.
    pub args: u32,
    /// How many variables the environment has.
    pub variables: u32,
    /// What `oom_score_adj` the process gets. `i32::MIN` for the keeper's.
    pub oom_score: i32,
    /// Its umask, or [`NONE`] for the keeper's.
    pub umask: u32,
    /// Its soft and hard limit of descriptors.
    pub descriptors: [u64; 2],
    /// The indices of the descriptors that become its 0, 1, 2…, four bytes each.
    pub inherited: &'a [u8],
    /// The path, the arguments and the variables, each with a NUL at its end.
    pub texts: &'a [u8],
}

impl<'a> Spawn<'a> {
    /// Reads it, and checks it against the number of descriptors that came with it.
    pub fn parse(body: &'a [u8], descriptors: usize) -> Result<Self, Reason> {
        let spawn = Self::read(&mut Reader(body)).ok_or(Reason::Malformed)?;
        let is_there = |index: u32| usize::try_from(index).is_ok_and(|index| index < descriptors);
        let inherited_are_there = spawn.inherited().all(is_there);
        if !inherited_are_there || spawn.program != NONE && !is_there(spawn.program) {
            return Err(Reason::Descriptors);
        }
        let wanted = u64::from(spawn.args) + u64::from(spawn.variables) + 1;
        let texts = spawn.texts.iter().filter(|byte| **byte == 0).count() as u64;
        let is_complete = spawn.texts.last() == Some(&0) && spawn.args > 0;
        if is_complete && texts == wanted { Ok(spawn) } else { Err(Reason::Malformed) }
    }

    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let (program, args, variables) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let inherited = usize::try_from(reader.u32()?).ok()?;
        let oom_score = i32::from_ne_bytes(reader.bytes(4)?.try_into().ok()?);
        let (umask, descriptors) = (reader.u32()?, [reader.u64()?, reader.u64()?]);
        let is_allowed = (3..=MOST_DESCRIPTORS).contains(&inherited);
        let inherited = reader.bytes(is_allowed.then_some(inherited)? * 4)?;
        Some(Self { program, args, variables, oom_score, umask, descriptors, inherited, texts: reader.0 })
    }

    /// Writes the part before the texts.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.program);
        writer.u32(self.args);
        writer.u32(self.variables);
        writer.u32((self.inherited.len() / 4) as u32);
        writer.bytes(&self.oom_score.to_ne_bytes());
        writer.u32(self.umask);
        writer.u64(self.descriptors[0]);
        writer.u64(self.descriptors[1]);
        writer.bytes(self.inherited);
    }

    /// The bytes of the part before the texts.
    pub fn size(&self) -> usize {
        40 + self.inherited.len()
    }

    /// The indices of the descriptors that become 0, 1, 2…
    pub fn inherited(&self) -> impl Iterator<Item = u32> + 'a {
        self.inherited.as_chunks().0.iter().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// Under which number it has the descriptor that is executed.
    pub fn program_number(&self) -> u32 {
        ((self.inherited.len() / 4) as u32).max(5)
    }
}

/// A pipe that is held, and the file that its contents go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log<'a> {
    /// The form of the file: 0 as it is, 1 docker's `json-file`, 2 Kubernetes' CRI.
    pub form: u32,
    /// 1 for stdout, 2 for stderr.
    pub stream: u32,
    /// The most bytes of the file. Zero if there is no limit.
    pub limit: u64,
    /// How many former files there are beside it.
    pub rotations: u32,
    /// The name of the pipe.
    pub pipe: &'a [u8],
    /// The name of the file.
    pub file: &'a [u8],
}

impl<'a> Log<'a> {
    /// Reads it. `None` if a value is not one of those above, or a name is none.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let (form, stream, limit) = (reader.u32()?, reader.u32()?, reader.u64()?);
        let (rotations, length) = (reader.u32()?, usize::try_from(reader.u32()?).ok()?);
        let (pipe, file) = (reader.bytes(length)?, reader.0);
        let is_file = (1..=LOG_NAME_LIMIT).contains(&file.len())
            && !file.iter().any(|byte| matches!(byte, 0 | b'/'))
            && !matches!(file, b"." | b"..");
        let is_known = form <= 2 && matches!(stream, 1 | 2) && rotations <= MOST_ROTATIONS;
        (is_file && is_known && is_name(pipe)).then_some(Self { form, stream, limit, rotations, pipe, file })
    }

    /// Writes it.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.form);
        writer.u32(self.stream);
        writer.u64(self.limit);
        writer.u32(self.rotations);
        writer.u32(self.pipe.len() as u32);
        writer.bytes(self.pipe);
        writer.bytes(self.file);
    }
}
