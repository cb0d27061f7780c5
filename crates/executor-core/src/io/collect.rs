//! Collects the output of a process, up to a limit, and its exit.

use std::borrow::Cow;
use std::io;

use executor_lifecycle::Exit;

use super::{Attached, CHUNK, Chunk, Io, Output};

/// How many bytes of each stream are kept if the caller gives no limit.
pub(crate) const DEFAULT_LIMIT: usize = 16 << 20;

/// The output of a process, and its exit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessOutput {
    /// What it wrote to stdout, up to the limit. Empty if stdout could not be read.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr, up to the limit. Empty if stderr could not be read.
    pub stderr: Vec<u8>,
    /// Its exit.
    pub exit: Exit,
    /// How many bytes of stdout are missing: those over the limit, and those missed of a shared output.
    pub stdout_dropped: u64,
    /// How many bytes of stderr are missing.
    pub stderr_dropped: u64,
}

impl ProcessOutput {
    /// What it wrote to stdout, as text. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub fn stdout_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// What it wrote to stderr, as text; see [`stdout_lossy`](Self::stdout_lossy).
    pub fn stderr_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }
}

/// The outputs of a process that can be read.
pub(crate) struct Sources {
    stdout: Option<Source>,
    stderr: Option<Source>,
}

enum Source {
    Pipe(Output),
    Shared(Attached),
}

/// What was read of one stream.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    dropped: u64,
}

impl Io {
    /// Takes the outputs that can be read, and closes an input that was not taken. `None` if no output can be read.
    pub(crate) fn take_sources(&self) -> Option<Sources> {
        let source = |pipe: Option<Output>, shared: Option<Attached>| {
            pipe.map(Source::Pipe).or_else(|| shared.map(Source::Shared))
        };
        let stdout = source(self.take_stdout(), self.attach_stdout());
        let stderr = source(self.take_stderr(), self.attach_stderr());
        if stdout.is_none() && stderr.is_none() {
            return None;
        }
        drop(self.take_stdin());
        Some(Sources { stdout, stderr })
    }
}

impl Sources {
    /// Reads both to their ends while it waits for the exit. Keeps `limit` bytes of each.
    pub(crate) async fn collect(
        self,
        limit: usize,
        exit: impl Future<Output = Exit>,
    ) -> io::Result<ProcessOutput> {
        let (stdout, stderr) = (Source::collect(self.stdout, limit), Source::collect(self.stderr, limit));
        let (stdout, stderr, exit) = futures::join!(stdout, stderr, exit);
        let (stdout, stderr) = (stdout?, stderr?);
        Ok(ProcessOutput {
            stdout: stdout.bytes,
            stderr: stderr.bytes,
            exit,
            stdout_dropped: stdout.dropped,
            stderr_dropped: stderr.dropped,
        })
    }
}

impl Source {
    async fn collect(source: Option<Self>, limit: usize) -> io::Result<Kept> {
        let mut kept = Kept::default();
        match source {
            Some(Self::Pipe(mut output)) => {
                while kept.bytes.len() < limit && output.read_onto(&mut kept.bytes).await? > 0 {}
                kept.cut(limit);
                let mut unwanted = Vec::with_capacity(CHUNK);
                while let read @ 1.. = output.read_onto(&mut unwanted).await? {
                    kept.dropped += read as u64;
                    unwanted.clear();
                }
            }
            Some(Self::Shared(mut attached)) => {
                while let Some(chunk) = attached.next().await {
                    match chunk {
                        Chunk::Bytes(bytes) => kept.add(&bytes, limit),
                        Chunk::Gap { missed } => kept.dropped += missed,
                    }
                }
            }
            None => {}
        }
        Ok(kept)
    }
}

impl Kept {
    fn add(&mut self, bytes: &[u8], limit: usize) {
        let room = limit - self.bytes.len();
        let (wanted, unwanted) = bytes.split_at(bytes.len().min(room));
        self.bytes.extend_from_slice(wanted);
        self.dropped += unwanted.len() as u64;
    }

    fn cut(&mut self, limit: usize) {
        self.dropped += self.bytes.len().saturating_sub(limit) as u64;
        self.bytes.truncate(limit);
    }
}
