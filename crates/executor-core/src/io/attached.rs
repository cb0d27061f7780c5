//! Outputs with any number of readers: the last bytes are kept in a buffer. Each reader has its own position, and is
//! sent the number of the bytes that it has missed.

use std::collections::VecDeque;

use futures::Stream;
use tokio::sync::watch;

use super::CHUNK;

/// How many chunks are kept as they came, before small ones are joined.
const MANY: usize = 64;

/// A reader of a shared output. It reads first what is kept of the past, then what follows. It never blocks the
/// process.
#[derive(Debug)]
pub struct Attached {
    buffer: watch::Receiver<ReplayBuffer>,
    at: u64,
}

/// What a reader of a shared output gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// The next bytes.
    Bytes(Vec<u8>),
    /// The reader was too slow or attached too late, and has missed bytes.
    Gap {
        /// How many bytes it has missed.
        missed: u64,
    },
}

impl Attached {
    pub(super) const fn from_start(buffer: watch::Receiver<ReplayBuffer>) -> Self {
        Self { buffer, at: 0 }
    }

    /// The next chunk. `None` at the end.
    ///
    /// # Cancel safety
    /// No bytes are lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Chunk> {
        let at = self.at;
        let Ok(buffer) = self.buffer.wait_for(|buffer| buffer.ended || buffer.length() > at).await else {
            // The writer is gone. What it wrote may not have been read.
            return self.read();
        };
        drop(buffer);
        self.read()
    }

    fn read(&mut self) -> Option<Chunk> {
        let buffer = self.buffer.borrow();
        let chunk = buffer.read(self.at)?;
        self.at += match &chunk {
            Chunk::Bytes(bytes) => bytes.len() as u64,
            Chunk::Gap { missed } => *missed,
        };
        Some(chunk)
    }

    /// Makes a stream of it.
    pub fn into_stream(self) -> impl Stream<Item = Chunk> + Send {
        futures::stream::unfold(self, |mut attached| async move {
            attached.next().await.map(|chunk| (chunk, attached))
        })
    }
}

/// The last bytes of an output.
#[derive(Debug, Default)]
pub(super) struct ReplayBuffer {
    chunks: VecDeque<Vec<u8>>,
    /// How many bytes came before the first one that is kept, how many are kept, and how many may be.
    before: u64,
    kept: usize,
    limit: usize,
    ended: bool,
}

impl ReplayBuffer {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Marks the end of the output.
    pub(super) const fn end(&mut self) {
        self.ended = true;
    }

    const fn length(&self) -> u64 {
        self.before + self.kept as u64
    }

    /// Adds a chunk and removes the oldest bytes. The last chunk stays even if it exceeds the limit. When many are kept, small
    /// ones are joined, so that a program that writes single bytes costs no more memory and time than another.
    pub(super) fn write(&mut self, mut chunk: Vec<u8>) {
        self.kept += chunk.len();
        let most = CHUNK.min(self.limit / MANY);
        let is_many = self.chunks.len() >= MANY;
        match self.chunks.back_mut() {
            Some(last) if is_many && last.len() + chunk.len() <= most => last.append(&mut chunk),
            Some(_) | None => {
                chunk.shrink_to_fit();
                self.chunks.push_back(chunk);
            }
        }
        while self.kept > self.limit && self.chunks.len() > 1 {
            let excess = self.kept - self.limit;
            let Some(oldest) = self.chunks.front_mut() else { return };
            let gone = excess.min(oldest.len());
            if gone == oldest.len() {
                self.chunks.pop_front();
            } else {
                oldest.drain(..gone);
            }
            self.kept -= gone;
            self.before += gone as u64;
        }
    }

    fn read(&self, at: u64) -> Option<Chunk> {
        if at < self.before {
            return Some(Chunk::Gap { missed: self.before - at });
        }
        let mut begins = self.before;
        for chunk in &self.chunks {
            let ends = begins + chunk.len() as u64;
            if at < ends {
                let from = usize::try_from(at - begins).unwrap_or_default();
                return Some(Chunk::Bytes(chunk[from..].to_vec()));
            }
            begins = ends;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(limit: usize) -> (watch::Sender<ReplayBuffer>, watch::Receiver<ReplayBuffer>) {
        watch::channel(ReplayBuffer::new(limit))
    }

    fn bytes(text: &str) -> Option<Chunk> {
        Some(Chunk::Bytes(text.into()))
    }

    #[test]
    fn single_bytes_cost_as_much_as_others() {
        futures::executor::block_on(async {
            let (sender, buffer) = buffer(1 << 16);
            for number in 0..100_000_u32 {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.extend_from_slice(&number.to_le_bytes()[..1]);
                sender.send_modify(|buffer| buffer.write(chunk));
            }
            sender.send_modify(ReplayBuffer::end);
            let (count, memory) = {
                let buffer = buffer.borrow();
                (buffer.chunks.len(), buffer.chunks.iter().map(Vec::capacity).sum::<usize>())
            };
            assert!(count <= 3 * MANY && memory <= 2 << 16, "{count} chunks, {memory} bytes");
            let (mut reader, mut at) = (Attached::from_start(buffer), 0);
            while let Some(chunk) = reader.next().await {
                match chunk {
                    Chunk::Gap { missed } => at += missed,
                    Chunk::Bytes(bytes) => {
                        assert!(
                            bytes.iter().zip(at..).all(|(byte, number)| *byte == number.to_le_bytes()[0])
                        );
                        at += bytes.len() as u64;
                    }
                }
            }
            assert_eq!(at, 100_000);
        });
    }

    #[test]
    fn readers_come_and_go_and_the_slow_one_is_told_of_its_gap() {
        futures::executor::block_on(async {
            let (sender, buffer) = buffer(6);
            let write = |text: &str| sender.send_modify(|buffer| buffer.write(text.into()));
            let attach = || Attached::from_start(buffer.clone());
            let mut early = attach();
            write("abc");
            assert_eq!(early.next().await, bytes("abc"));
            write("def");
            let mut second = attach();
            assert_eq!(second.next().await, bytes("abc"), "what is kept of the past comes first");
            write("ghi");
            assert_eq!(early.next().await, bytes("def"));
            write("jkl");
            assert_eq!(second.next().await, Some(Chunk::Gap { missed: 3 }));
            assert_eq!(second.next().await, bytes("ghi"));
            drop(second);
            let mut late = attach();
            assert_eq!(late.next().await, Some(Chunk::Gap { missed: 6 }));
            write("longer than is kept");
            sender.send_modify(ReplayBuffer::end);
            drop(sender);
            assert_eq!(late.next().await, Some(Chunk::Gap { missed: 6 }));
            for reader in [&mut late, &mut attach()] {
                while let Some(chunk) = reader.next().await {
                    assert!(
                        matches!(chunk, Chunk::Gap { .. }) || Some(chunk) == bytes("longer than is kept")
                    );
                }
                assert_eq!(reader.next().await, None);
            }
        });
    }
}
