//! What a keeper and its client send to each other. Both sides compile this file: it is pure, and needs no allocator.
//!
//! ```text
//!  message = header (24 bytes) + body + descriptors      at most 64 KiB, one packet of a SEQPACKET socket
//!  header  = magic u32, protocol u16, kind u16, token u64, length of the body u32, number of descriptors u32
//! ```
//! Numbers have the byte order of the machine, which both sides share. Each request has one answer with the same token: its
//! kind with [`ANSWER`] set, or [`ERROR`]. `Hello` and `Upgrade`, and their answers, stay as they are in every protocol, so that
//! a newer library can replace an older keeper.

/// The first bytes of each message.
pub const MAGIC: u32 = 0x314b_534c;
/// The protocol that this file describes.
pub const PROTOCOL: u16 = 1;
/// The most bytes of a message.
pub const MESSAGE_LIMIT: usize = 64 << 10;
/// The bytes of a header.
pub const HEADER: usize = 24;
/// The most descriptors of a message, which is the kernel's own limit.
pub const MOST_DESCRIPTORS: usize = 253;
/// The most bytes of a name under which a descriptor is held.
pub const NAME_LIMIT: usize = 200;
/// The most bytes of a `Spawn` in a file in memory: the kernel takes no more arguments.
pub const SPAWN_LIMIT: usize = 6 << 20;
/// The bit of an answer's kind.
pub const ANSWER: u16 = 0x8000;
/// The kind of an answer that refuses. Its body is a [`Reason`] and a number.
pub const ERROR: u16 = 0xffff;
/// No descriptor, no value.
pub const NONE: u32 = u32::MAX;

/// `Hello`: the number of the client's protocol. Answer: a [`Welcome`](crate::messages::Welcome).
pub const HELLO: u16 = 1;
/// `Upgrade` with a program in memory. The answer comes from the new program.
pub const UPGRADE: u16 = 2;
/// `Spawn`: a [`Spawn`](crate::messages::Spawn), with descriptors. Answer: pid u32, unused u32, start u64, with the pidfd.
pub const SPAWN: u16 = 3;
/// The same, whose body is in a sealed file in memory: the first descriptor, of that many bytes u64.
pub const SPAWN_FROM: u16 = 4;
/// `Record`: a [`Process`](crate::messages::Process). Answer: [`ALIVE`], [`UNKNOWN`] or [`ENDED`] u32, unused u32, a
/// [`Record`](crate::messages::Record).
pub const RECORD: u16 = 5;
/// `Records`: those after this number u64. Answer: how many u32, whether there are more u32, [`Record`](crate::messages::Record)s.
pub const RECORDS: u16 = 6;
/// `Forget`: the numbers of records, u64 each. Answer: how many were there u32.
pub const FORGET: u16 = 7;
/// `Mark`: a [`Process`](crate::messages::Process) whose record is dropped last. Answer: nothing.
pub const MARK: u16 = 8;
/// `Hold`: a name, with a descriptor. Answer: nothing.
pub const HOLD: u16 = 9;
/// `Take`: a name. Answer: nothing, with a duplicate of the descriptor.
pub const TAKE: u16 = 10;
/// `Held`: from this index u32 on. Answer: how many u32, whether there are more u32, names with their length u8 before each.
pub const HELD: u16 = 11;
/// `Release`: the beginning of names. Answer: how many were released u32.
pub const RELEASE: u16 = 12;
/// `Quit`. Answer: nothing. Refused if there are children.
pub const QUIT: u16 = 13;
/// `Log`: a [`Log`](crate::messages::Log), with a directory. Answer: nothing.
pub const LOG: u16 = 14;
/// `Logged`: the name of a pipe. Answer: how many bytes were written u64, whether that is all u32, the last errno u32.
pub const LOGGED: u16 = 15;

/// The most bytes of a log file's name.
pub const LOG_NAME_LIMIT: usize = 48;
/// The most former files beside a log file.
pub const MOST_ROTATIONS: u32 = 1000;

/// The process is a child of the keeper's and has not ended.
pub const ALIVE: u32 = 1;
/// The process is no child of the keeper's, and there is no record of it.
pub const UNKNOWN: u32 = 2;
/// There is a record.
pub const ENDED: u32 = 3;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// It is no message, or its body is not that of its kind.
    Malformed = 1,
    /// It has more than [`MESSAGE_LIMIT`] bytes, or another length than its header says.
    Length = 2,
    /// There is no such request.
    Kind = 3,
    /// It is of another protocol. The number is the keeper's.
    Protocol = 4,
    /// `Hello` comes first.
    NotGreeted = 5,
    /// There is another client. The number is its pid.
    Taken = 6,
    /// There are more descriptors than are allowed, fewer than the header says, or too few for the request.
    Descriptors = 7,
    /// No descriptor has this name.
    NoSuchName = 8,
    /// A descriptor has this name.
    NameTaken = 9,
    /// There are children.
    HasChildren = 10,
    /// The system has refused. The number is the errno.
    System = 11,
    /// The new program cannot read this keeper's state.
    State = 12,
}

impl Reason {
    /// The reason with this number.
    pub fn new(number: u32) -> Option<Self> {
        use Reason as R;
        let all = [
            R::Malformed,
            R::Length,
            R::Kind,
            R::Protocol,
            R::NotGreeted,
            R::Taken,
            R::Descriptors,
            R::NoSuchName,
            R::NameTaken,
            R::HasChildren,
            R::System,
            R::State,
        ];
        all.into_iter().find(|reason| *reason as u32 == number)
    }
}

/// The header of a message, but for its magic number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The sender's protocol.
    pub protocol: u16,
    /// What it is.
    pub kind: u16,
    /// Identifies the request and its answer.
    pub token: u64,
    /// The bytes of the body.
    pub length: u32,
    /// The number of descriptors.
    pub descriptors: u32,
}

impl Header {
    /// Reads the header of a message.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let mut reader = Reader(message);
        (reader.u32()? == MAGIC).then_some(())?;
        let (protocol, kind) = (reader.u16()?, reader.u16()?);
        Some(Self { protocol, kind, token: reader.u64()?, length: reader.u32()?, descriptors: reader.u32()? })
    }

    /// The bytes of the header.
    pub fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut writer = Writer::new(&mut bytes);
        writer.u32(MAGIC);
        writer.bytes(&self.protocol.to_ne_bytes());
        writer.bytes(&self.kind.to_ne_bytes());
        writer.u64(self.token);
        writer.u32(self.length);
        writer.u32(self.descriptors);
        bytes
    }
}

/// Reads numbers and bytes, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next bytes.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// The next number of 16 bits.
    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_ne_bytes(self.bytes(2)?.try_into().ok()?))
    }

    /// The next number of 32 bits.
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.bytes(4)?.try_into().ok()?))
    }

    /// The next number of 64 bits.
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.bytes(8)?.try_into().ok()?))
    }

    /// The next text, which ends with a NUL. The NUL is part of what is returned.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        self.bytes(end + 1)
    }
}

/// Writes numbers and bytes, one after the other. What has no room is left out.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// Writes to the beginning of `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes there is room for.
    pub fn room(&self) -> usize {
        self.buffer.len() - self.len
    }

    /// Writes bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if let Some(place) = self.buffer.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    /// Writes a number of 32 bits.
    pub fn u32(&mut self, number: u32) {
        self.bytes(&number.to_ne_bytes());
    }

    /// Writes a number of 64 bits.
    pub fn u64(&mut self, number: u64) {
        self.bytes(&number.to_ne_bytes());
    }
}

/// Whether a descriptor can be held under this name.
pub fn is_name(name: &[u8]) -> bool {
    (1..=NAME_LIMIT).contains(&name.len())
}
