//! The socket to a keeper: a request goes out, and its answer is waited for.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use executor_programs::wire::{
    ANSWER, ERROR, HEADER, Header, MESSAGE_LIMIT, MOST_DESCRIPTORS, PROTOCOL, Reader, Reason,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};

use super::{KeeperError, Result};

/// How long a call may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// An answer.
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    pub(super) descriptor: Option<OwnedFd>,
}

#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    next: u64,
    is_broken: bool,
}

impl Connection {
    /// Connects to the socket at this path. `None` if nobody listens.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        match retry_on_intr(|| connect(&socket, &SocketAddrUnix::new(path)?)) {
            Ok(()) => Ok(Some(Self { socket, next: 0, is_broken: false })),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a request and waits for its answer.
    pub(super) fn call(
        &mut self,
        op: &'static str,
        kind: u16,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Answer> {
        self.next += 1;
        if HEADER + body.len() > MESSAGE_LIMIT {
            return Err(KeeperError::Refused { reason: Reason::Length });
        }
        if descriptors.len() > MOST_DESCRIPTORS {
            return Err(KeeperError::Refused { reason: Reason::Descriptors });
        }
        let header = Header {
            protocol: PROTOCOL,
            kind,
            token: self.next,
            length: u32::try_from(body.len()).unwrap_or(u32::MAX),
            descriptors: u32::try_from(descriptors.len()).unwrap_or(u32::MAX),
        };
        match self.send(&header.bytes(), body, descriptors) {
            // A keeper that refuses a client has answered before it has closed its end.
            Ok(()) | Err(Errno::PIPE) => {}
            Err(error) if is_of_the_connection(error) => return Err(self.broken(op, error)),
            Err(error) => return Err(KeeperError::System { op, source: error.into() }),
        }
        match self.receive() {
            Ok((answer, descriptor)) => self.parse(op, &header, &answer, descriptor),
            Err(error) => Err(self.broken(op, error)),
        }
    }

    /// Whether nothing else can be asked.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn broken(&mut self, op: &'static str, error: Errno) -> KeeperError {
        self.is_broken = true;
        match error {
            Errno::AGAIN => KeeperError::System { op, source: io::ErrorKind::TimedOut.into() },
            error if is_of_the_connection(error) => KeeperError::Gone,
            error => KeeperError::System { op, source: error.into() },
        }
    }

    /// Reads an answer.
    fn parse(
        &mut self,
        op: &'static str,
        request: &Header,
        answer: &[u8],
        descriptor: Option<OwnedFd>,
    ) -> Result<Answer> {
        let Some(header) = Header::parse(answer) else {
            self.is_broken = true;
            return Err(if answer.is_empty() { KeeperError::Gone } else { KeeperError::Answer });
        };
        let body = answer.get(HEADER..).unwrap_or_default();
        if header.kind == ERROR {
            let mut reader = Reader(body);
            let reason = reader.u32().and_then(Reason::new).ok_or(KeeperError::Answer)?;
            let number = reader.u32().ok_or(KeeperError::Answer)?;
            return Err(KeeperError::refused(op, reason, number));
        }
        if (header.kind, header.token) != (request.kind | ANSWER, request.token) {
            self.is_broken = true;
            return Err(KeeperError::Answer);
        }
        Ok(Answer { body: body.to_vec(), descriptor })
    }

    fn send(&self, header: &[u8], body: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::TOOBIG);
        }
        let parts = [IoSlice::new(header), IoSlice::new(body)];
        retry_on_intr(|| sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL)).map(|_| ())
    }

    /// The next message, with its descriptor. No bytes at the end.
    fn receive(&self) -> rustix::io::Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut bytes = vec![0; MESSAGE_LIMIT];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received =
            retry_on_intr(|| recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC))?;
        let mut descriptors = control.drain().flat_map(|message| {
            let RecvAncillaryMessage::ScmRights(descriptors) = message else { return Vec::new() };
            descriptors.collect()
        });
        let descriptor = descriptors.next();
        drop(descriptors);
        bytes.truncate(received.bytes);
        Ok((bytes, descriptor))
    }
}

/// Whether the other end was closed.
fn is_of_the_connection(error: Errno) -> bool {
    matches!(error, Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)
}
