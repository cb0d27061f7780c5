//! Copying from one file descriptor to another. Ours may be non-blocking, because whoever shares them with us may have made
//! them so: then the kernel is asked to wait.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags};
use rustix::io::{Errno, ioctl_fionread};
use rustix::pipe::{SpliceFlags, splice};

use super::super::background::{is_background, wait_to_read, wait_to_write};

/// How long a pipe is read after the end of the program, if another process holds it open.
const DRAIN: Duration = Duration::from_secs(1);

/// How often a full pipe is copied from before it is looked whether the program has ended.
const ROUNDS: u32 = 16;

/// How much is copied at once.
const CHUNK: usize = super::PIPE;

/// Copies a pipe to its end, or until a second after `ended` is closed. What is in the pipe then is copied as well. `owes` is
/// set while there is something that is not written.
pub(super) fn output(
    pipe: &impl AsFd,
    out: &impl AsFd,
    ended: &impl AsFd,
    owes: &AtomicBool,
) -> io::Result<()> {
    let mut mover = Mover::new(pipe.as_fd(), out.as_fd());
    let mut deadline: Option<Instant> = None;
    loop {
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            return mover.copy_rest();
        }
        let mut both = [PollFd::new(pipe, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        // The end is waited for once.
        let (fds, timeout) = match deadline {
            None => (&mut both[..], None),
            Some(deadline) => (&mut both[..1], Timespec::try_from(deadline - now).ok()),
        };
        poll_for(fds, timeout)?;
        let [readable, has_ended] = both.each_ref().map(|fd| !fd.revents().is_empty());
        owes.store(readable, Ordering::Relaxed);
        if readable {
            // A few times, before the end is looked for.
            for _ in 0..ROUNDS {
                match mover.copy_some(usize::MAX)? {
                    Some(0) => return Ok(()),
                    Some(_) => {}
                    None => break,
                }
            }
        }
        if has_ended && deadline.is_none() {
            deadline = Some(Instant::now() + DRAIN);
        }
    }
}

/// Copies stdin to the program's until one of both ends. An error if stdin cannot be read.
pub(super) fn input(from: &impl AsFd, pipe: &impl AsFd) -> io::Result<()> {
    // Of a terminal and a socket, the kernel would keep the program's pipe locked while it waits for them.
    if is_pipe(from.as_fd()) {
        super::enlarge(from);
        loop {
            match move_some(from.as_fd(), pipe.as_fd()) {
                Ok(1..) => {}
                // The program reads no more, or stdin was closed from the beginning: see `unopened`.
                Err(error) if ends_input(&error) => return Ok(()),
                ended => return ended.map(drop),
            }
        }
    }
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = read_input(from, &mut chunk)?;
        if read == 0 || write_all(pipe, chunk.get(..read).unwrap_or_default()).is_err() {
            return Ok(());
        }
    }
}

fn ends_input(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PIPE | Errno::BADF))
}

/// Reads some bytes of stdin, and waits for them. 0 is the end, also of a terminal that has vanished.
pub(in super::super) fn read_input(from: &impl AsFd, chunk: &mut [u8]) -> io::Result<usize> {
    let is_device = || {
        let kind = rustix::fs::fstat(from).map(|stat| FileType::from_raw_mode(stat.st_mode));
        kind == Ok(FileType::CharacterDevice)
    };
    match read(from, chunk) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) && is_device() => Ok(0),
        read => read,
    }
}

/// Has the kernel move some bytes from pipe to pipe, and waits for them. 0 is the end.
fn move_some(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<usize> {
    loop {
        match splice(from, None, to, None, super::PIPE, SpliceFlags::MOVE) {
            // One of both is not ready.
            Err(Errno::AGAIN) if ioctl_fionread(from)? == 0 => wait(from, PollFlags::IN)?,
            Err(Errno::AGAIN) => wait(to, PollFlags::OUT)?,
            Err(Errno::INTR) => {}
            moved => return Ok(moved?),
        }
    }
}

/// Reads some bytes, and waits for them. 0 is the end.
fn read(from: &impl AsFd, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        wait_to_read(from);
        match rustix::io::read(from, &mut *chunk) {
            // It has become a job in the background since.
            Err(Errno::IO) if is_background(from) => {}
            Err(Errno::AGAIN) => wait(from.as_fd(), PollFlags::IN)?,
            Err(Errno::INTR) => {}
            read => return Ok(read?),
        }
    }
}

/// Writes all of it, and waits for a slow reader.
pub(in super::super) fn write_all(out: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        wait_to_write(out);
        match rustix::io::write(out, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::AGAIN) => wait(out.as_fd(), PollFlags::OUT)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait(fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
    poll_for(&mut [PollFd::from_borrowed_fd(fd, flags)], None).map(drop)
}

/// Waits for at most `timeout`, or without end. A signal ends no wait: it begins again. Returns how many are ready.
pub(super) fn poll_for(fds: &mut [PollFd<'_>], timeout: Option<Timespec>) -> io::Result<usize> {
    loop {
        match poll(fds, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            polled => return Ok(polled?),
        }
    }
}

fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Moves bytes out of a pipe.
struct Mover<'a> {
    pipe: BorrowedFd<'a>,
    out: BorrowedFd<'a>,
    /// Set unless the kernel moves them itself.
    buffer: Option<Vec<u8>>,
}

impl<'a> Mover<'a> {
    /// The kernel moves them from pipe to pipe. While it moves them to anything else, it keeps the pipe locked: if nobody
    /// reads a terminal or a socket, the program then waits for the lock of its pipe, and not even SIGKILL ends it.
    fn new(pipe: BorrowedFd<'a>, out: BorrowedFd<'a>) -> Self {
        // To one that cannot be written, it would refuse to move nothing.
        let is_open = rustix::fs::fcntl_getfl(out).is_ok_and(|flags| !(flags & OFlags::RWMODE).is_empty());
        let buffer = if is_open && is_pipe(out) { None } else { Some(vec![0; CHUNK]) };
        super::enlarge(out);
        Self { pipe, out, buffer }
    }

    /// Copies at most `limit` bytes. `None` if the pipe is empty, 0 if it has ended.
    fn copy_some(&mut self, limit: usize) -> io::Result<Option<usize>> {
        loop {
            if let Some(buffer) = &mut self.buffer {
                return copy_by(buffer, self.pipe, self.out, limit);
            }
            let at_once = limit.min(super::PIPE);
            match splice(self.pipe, None, self.out, None, at_once, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
            {
                Ok(moved) => return Ok(Some(moved)),
                // One of both is not ready.
                Err(Errno::AGAIN) if ioctl_fionread(self.pipe)? == 0 => return Ok(None),
                Err(Errno::AGAIN) => wait(self.out, PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => self.buffer = Some(vec![0; CHUNK]),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Copies what is in the pipe now.
    fn copy_rest(&mut self) -> io::Result<()> {
        let mut left = usize::try_from(ioctl_fionread(self.pipe)?).unwrap_or(usize::MAX);
        while left > 0 {
            match self.copy_some(left)? {
                None | Some(0) => return Ok(()),
                Some(moved) => left = left.saturating_sub(moved),
            }
        }
        Ok(())
    }
}

/// The same as a read and a write. We are the pipe's only reader, so what is in it does not go away.
fn copy_by(
    buffer: &mut [u8],
    pipe: BorrowedFd<'_>,
    out: BorrowedFd<'_>,
    limit: usize,
) -> io::Result<Option<usize>> {
    let mut fds = [PollFd::from_borrowed_fd(pipe, PollFlags::IN)];
    if poll_for(&mut fds, Some(Timespec::default()))? == 0 {
        return Ok(None);
    }
    let length = buffer.len().min(limit);
    let chunk = buffer.get_mut(..length).unwrap_or_default();
    let read = read(&pipe, chunk)?;
    write_all(&out, chunk.get(..read).unwrap_or_default())?;
    Ok(Some(read))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write, pipe};
    use std::thread;

    #[test]
    fn a_non_blocking_reader_gets_everything() {
        let (from, mut program) = pipe().unwrap();
        let (mut reader, out) = pipe().unwrap();
        rustix::io::ioctl_fionbio(&out, true).unwrap();
        let (ended, running) = pipe().unwrap();
        let copying = thread::spawn(move || output(&from, &out, &ended, &AtomicBool::default()));
        let writing = thread::spawn(move || {
            program.write_all(&vec![7; 1 << 20]).unwrap();
            drop(running);
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, vec![7; 1 << 20]);
        writing.join().unwrap();
        copying.join().unwrap().unwrap();
    }

    /// It is held open by another process, which writes on and on.
    #[test]
    fn a_pipe_that_is_held_open_is_not_read_for_ever() {
        let (from, mut held) = pipe().unwrap();
        held.write_all(b"before").unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let (ended, running) = pipe().unwrap();
        drop(running);
        let begun = Instant::now();
        let writing = thread::spawn(move || while held.write_all(b"x").is_ok() {});
        let owes = AtomicBool::default();
        output(&from, &file, &ended, &owes).unwrap();
        assert!(begun.elapsed() >= DRAIN && begun.elapsed() < 10 * DRAIN, "{:?}", begun.elapsed());
        drop(from);
        writing.join().unwrap();
        use std::io::Seek;
        file.rewind().unwrap();
        let mut start = [0; 6];
        file.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"before");
    }

    #[test]
    fn the_callers_pipe_is_enlarged_unless_its_size_was_chosen() {
        use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};
        let (from, program) = pipe().unwrap();
        drop(program);
        for (size, expected) in [(64 << 10, super::super::PIPE), (16 << 10, 16 << 10)] {
            let (_reader, out) = pipe().unwrap();
            fcntl_setpipe_size(&out, size).unwrap();
            let (ended, _running) = pipe().unwrap();
            output(&from, &out, &ended, &AtomicBool::default()).unwrap();
            assert_eq!(fcntl_getpipe_size(&out), Ok(expected));
        }
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let (from, mut program) = pipe().unwrap();
        program.write_all(b"text").unwrap();
        drop(program);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (ended, _running) = pipe().unwrap();
        let owes = AtomicBool::default();
        assert_eq!(output(&from, &full, &ended, &owes).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(owes.into_inner());
    }
}
