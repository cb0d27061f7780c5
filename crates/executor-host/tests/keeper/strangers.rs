//! Who and what the keeper refuses.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use executor_host::keeper::{Keeper, KeeperError};
use executor_programs::wire::{self, ANSWER, ERROR, HEADER, Header, PROTOCOL, Reader, Reason};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};

use crate::stage::{Stage, descriptors_of, run, within};

/// A client that sends what it wants.
struct Raw(OwnedFd);

impl Raw {
    fn connect(path: &Path) -> rustix::io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    fn of(stage: &Stage) -> Self {
        Self::connect(&stage.temporary.path().join("keeper")).unwrap()
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, flags).map(drop)
    }

    fn receive(&self) -> rustix::io::Result<Vec<u8>> {
        let mut bytes = vec![0; 1 << 17];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let count = recvmsg(&self.0, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Sends a message and returns the answer's kind, or why it was refused.
    fn ask(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<u16, Reason> {
        self.send(bytes, fds).unwrap();
        let answer = self.receive().unwrap();
        let header = Header::parse(&answer).unwrap();
        assert_eq!(answer.len(), HEADER + header.length as usize);
        if header.kind != ERROR {
            return Ok(header.kind);
        }
        Err(Reason::new(Reader(&answer[HEADER..]).u32().unwrap()).unwrap())
    }
}

fn message(kind: u16, body: &[u8], descriptors: u32) -> Vec<u8> {
    let header = Header { protocol: PROTOCOL, kind, token: 1, length: body.len() as u32, descriptors };
    [&header.bytes(), body].concat()
}

fn hello() -> Vec<u8> {
    message(wire::HELLO, &u32::from(PROTOCOL).to_ne_bytes(), 0)
}

#[test]
fn messages_that_are_none_are_refused_and_the_connection_stays() {
    run(|stage| {
        stage.disconnect_and_keep();
        let (raw, null) = (Raw::of(stage), File::open("/dev/null").unwrap());
        assert_eq!(raw.ask(&message(wire::RECORDS, &[0; 8], 0), &[]), Err(Reason::NotGreeted));
        // A client of a later protocol can greet it, and have it upgraded.
        let later = Header { protocol: 9, kind: wire::HELLO, token: 1, length: 4, descriptors: 0 };
        assert_eq!(raw.ask(&[&later.bytes()[..], &[9, 0, 0, 0]].concat(), &[]), Ok(wire::HELLO | ANSWER));
        let later = Header { kind: wire::UPGRADE, length: 0, descriptors: 0, ..later };
        assert_eq!(raw.ask(&later.bytes(), &[]), Err(Reason::Descriptors));
        assert_eq!(raw.ask(&hello(), &[]), Ok(wire::HELLO | ANSWER));
        let pid = Keeper::connect(&stage.dir).map(drop);
        assert!(matches!(pid, Err(KeeperError::Taken { pid }) if pid.get() == std::process::id()));
        let keeper = stage.pid.to_string();
        let before = stage.descriptors;
        within(|| descriptors_of(&keeper) == before);
        let many = vec![null.as_fd(); 253];
        let long = vec![1; (64 << 10) + 1];
        let other = Header { protocol: 2, kind: wire::RECORDS, token: 1, length: 8, descriptors: 0 };
        let cases: &[(&[u8], &[BorrowedFd<'_>], Reason)] = &[
            (b"x", &[], Reason::Malformed),
            (&[0; 24], &many[..1], Reason::Malformed),
            (&[0xff; 100], &many, Reason::Malformed),
            (&long, &many[..2], Reason::Malformed),
            (&[&message(wire::HOLD, &[], 0)[..], &long].concat(), &[], Reason::Length),
            (&message(wire::RECORDS, &[0; 8], 0)[..20], &[], Reason::Malformed),
            (&message(wire::RECORDS, &[0; 8], 0)[..30], &[], Reason::Length),
            (&message(wire::RECORDS, &[0; 8], 1), &[], Reason::Descriptors),
            (&message(wire::RECORDS, &[0; 8], 0), &many[..1], Reason::Descriptors),
            (&message(wire::RECORDS, &[0; 9], 0), &[], Reason::Malformed),
            (&[&other.bytes()[..], &[0; 8]].concat(), &[], Reason::Protocol),
            (&message(0, &[], 0), &[], Reason::Kind),
            (&message(77, &[1; 500], 3), &many[..3], Reason::Kind),
            (&message(wire::HOLD, b"name", 0), &[], Reason::Descriptors),
            (&message(wire::HOLD, &[b'n'; 201], 1), &many[..1], Reason::Malformed),
            (&message(wire::TAKE, b"name", 0), &[], Reason::NoSuchName),
            (&message(wire::SPAWN, &[0; 40], 0), &[], Reason::Malformed),
            (&message(wire::SPAWN, &[0xff; 60], 253), &many, Reason::Malformed),
            (&message(wire::SPAWN_FROM, &100_u64.to_ne_bytes(), 1), &many[..1], Reason::Malformed),
            (&message(wire::SPAWN_FROM, &u64::MAX.to_ne_bytes(), 1), &many[..1], Reason::Length),
            (&message(wire::UPGRADE, &[], 1), &many[..1], Reason::Malformed),
            (&message(wire::UPGRADE, &[], 0), &[], Reason::Descriptors),
            (&message(wire::FORGET, &[0; 7], 0), &[], Reason::Malformed),
            (&message(wire::MARK, &[1; 16], 0), &[], Reason::Malformed),
        ];
        for (number, (bytes, fds, reason)) in cases.iter().enumerate() {
            assert_eq!(raw.ask(bytes, fds), Err(*reason), "case {number}");
            within(|| descriptors_of(&keeper) == before);
        }
        assert_eq!(raw.ask(&message(wire::RECORDS, &[0; 8], 0), &[]), Ok(wire::RECORDS | ANSWER));
        drop(raw);
        stage.connect();
    });
}

/// A random message, which is often almost right.
fn random(random: &mut impl FnMut() -> usize) -> (Vec<u8>, usize) {
    let kinds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 99];
    let kind = kinds[random() % kinds.len()];
    let length = [0, 4, 8, 16, 40, 52, 60, 100, 1000][random() % 9];
    let body: Vec<u8> = (0..length).map(|_| [0, 0, 0, 1, 3, 255, random() as u8][random() % 7]).collect();
    let fds = [0, 0, 1, 2, 3, 20][random() % 6];
    let mut message = message(kind, &body, fds as u32);
    if random().is_multiple_of(4) {
        let index = random() % message.len();
        message[index] = random() as u8;
    }
    if random().is_multiple_of(8) {
        message.truncate(random() % message.len().max(1) + 1);
    }
    (message, fds)
}

#[test]
fn random_messages_end_nothing() {
    run(|stage| {
        // It does not exit by itself, whatever is forgotten.
        let child = stage.sh("exec sleep 1000");
        stage.disconnect();
        let null = File::open("/dev/null").unwrap();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as usize
        };
        let mut raw = Raw::of(stage);
        raw.ask(&hello(), &[]).unwrap();
        let mut answered = 0;
        for _ in 0..20_000 {
            let (message, fds) = random(&mut next);
            let sent = raw.send(&message, &vec![null.as_fd(); fds]);
            match sent.and_then(|()| raw.receive()) {
                Ok(answer) if !answer.is_empty() => answered += 1,
                _ => {
                    raw = Raw::of(stage);
                    raw.ask(&hello(), &[]).unwrap();
                }
            }
        }
        assert!(answered > 19_000, "{answered}");
        drop(raw);
        stage.connect();
        assert_eq!(stage.keeper().pid(), stage.pid);
        stage.keeper().release("").unwrap();
        crate::stage::kill(child.pid);
        stage.ended(&child);
        drop(child);
        let numbers: Vec<_> = stage.keeper().records(0).unwrap().iter().map(|one| one.number).collect();
        stage.keeper().forget(&numbers).unwrap();
        within(|| descriptors_of(&stage.pid.to_string()) <= stage.descriptors);
    });
}

#[test]
fn a_client_that_does_not_read_is_hung_up() {
    run(|stage| {
        stage.disconnect_and_keep();
        let raw = Raw::of(stage);
        raw.ask(&hello(), &[]).unwrap();
        let sent = (0..1_000_000).find_map(|_| match raw.send(&message(wire::RECORDS, &[0; 8], 0), &[]) {
            // Our own buffer is full: the keeper is behind.
            Err(Errno::AGAIN) => {
                std::thread::yield_now();
                None
            }
            Err(error) => Some(error),
            Ok(()) => None,
        });
        assert!(matches!(sent, Some(Errno::PIPE | Errno::CONNRESET)), "{sent:?}");
        drop(raw);
        stage.connect();
        stage.ended(&stage.sh("exit 0"));
    });
}

const PATH: &str = "LONGSHORE_TEST_KEEPER_SOCKET";

/// Does something only in the process that the test below executes.
#[test]
fn the_other_user_of_the_test() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let raw = Raw::connect(Path::new(&path));
    let Ok(raw) = raw else { std::process::exit(10) };
    let _closed = raw.send(&hello(), &[]);
    let is_empty = raw.receive().is_ok_and(|answer| !answer.is_empty());
    std::process::exit(if is_empty { 12 } else { 11 });
}

#[test]
fn another_user_is_refused_without_a_word() {
    run(|stage| {
        let dir = stage.temporary.path();
        let socket = dir.join("keeper");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&socket), 0o600);
        let nobody = || {
            let mut nobody = Command::new("/proc/self/exe");
            nobody.args(["--exact", "strangers::the_other_user_of_the_test"]).env(PATH, &socket);
            nobody.uid(65534).gid(65534).output().unwrap().status.code()
        };
        assert_eq!(nobody(), Some(10), "it cannot connect");
        for (path, mode) in [(dir, 0o755), (&*socket, 0o666)] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        let before = descriptors_of(&stage.pid.to_string());
        assert_eq!(nobody(), Some(11), "it is hung up");
        within(|| descriptors_of(&stage.pid.to_string()) == before);
        // The client has not noticed.
        stage.ended(&stage.sh("exit 0"));
    });
}

const OWN_DIR: &str = "LONGSHORE_TEST_KEEPER_OWN_DIR";

/// Does something only in the process that the test below executes.
#[test]
fn the_ordinary_user_of_the_test() {
    let Some(dir) = std::env::var_os(OWN_DIR) else { return };
    let dir = executor_disk::Dir::open_checked(Path::new(&dir)).unwrap();
    let keeper = Keeper::start(&dir, None).unwrap();
    let process = crate::stage::sh(&keeper, "exit 7");
    let record = crate::stage::ended(&keeper, process.pid, Some(process.start));
    assert_eq!(record.status, executor_core::lifecycle::ExitStatus::Code(7));
    keeper.upgrade().unwrap();
    assert_eq!(keeper.records(0).unwrap(), [record]);
    keeper.quit().unwrap();
    std::process::exit(33);
}

#[test]
fn an_ordinary_user_has_a_keeper_too() {
    run(|_| {
        let temporary = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(temporary.path(), Some(65534), Some(65534)).unwrap();
        let mut nobody = Command::new("/proc/self/exe");
        nobody.args(["--exact", "strangers::the_ordinary_user_of_the_test", "--nocapture"]);
        let output = nobody.env(OWN_DIR, temporary.path()).uid(65534).gid(65534).output().unwrap();
        assert_eq!(output.status.code(), Some(33), "{output:?}");
    });
}
