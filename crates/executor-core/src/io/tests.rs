use std::fs::File;
use std::io::Write;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use actix_rt::System;
use futures::executor::block_on;
use tokio::time::Instant;

use super::*;

/// Between an executor's thread that has opened the ends and its end.
struct Opened {
    thread: JoinHandle<()>,
    stop: tokio::sync::oneshot::Sender<()>,
}

impl Opened {
    fn new(mut ends: PipeEnds) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (opened, is_open) = mpsc::channel();
        let thread = thread::spawn(move || {
            System::new().block_on(async {
                ends.open_input();
                ends.open_outputs(std::future::pending);
                opened.send(()).unwrap();
                stopped.await.unwrap_or_default();
            });
        });
        is_open.recv().unwrap();
        Self { thread, stop }
    }

    fn stop(self) {
        drop(self.stop);
        self.thread.join().unwrap();
    }
}

fn piped() -> Connected {
    connect(StdioSpec { stdin: Stdio::Pipe, stdout: Stdio::Pipe, stderr: Stdio::Null }, None).unwrap()
}

/// The process's end.
fn theirs(fd: &ChildFd) -> File {
    let ChildFd::Fd(fd) = fd else { panic!("no pipe") };
    fd.try_clone().unwrap().into()
}

/// Runs on virtual time.
fn on_an_executors_thread(test: impl Future<Output = ()>) {
    System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    })
    .block_on(test);
}

#[test]
fn what_is_in_the_pipe_is_read_when_the_executor_has_stopped() {
    let Connected { stdio, ends, mut streams, .. } = piped();
    let (mut held, output) = (theirs(&stdio.stdout), streams.stdout.take().unwrap());
    let executor = Opened::new(ends);
    held.write_all(&[b'x'; 40_000]).unwrap();
    executor.stop();
    assert_eq!(block_on(output.read_to_end()).len(), 40_000, "and what holds the pipe is not waited for");
    let mut input = streams.stdin.take().unwrap();
    assert_eq!(block_on(input.write_all("x")).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn who_reads_while_the_executor_stops_gets_the_end() {
    let Connected { stdio, ends, mut streams, .. } = piped();
    let mut output = streams.stdout.take().unwrap();
    let executor = Opened::new(ends);
    theirs(&stdio.stdout).write_all(b"first").unwrap();
    let (read, has_read) = mpsc::channel();
    let reader = thread::spawn(move || {
        read.send(block_on(output.next_chunk())).unwrap();
        read.send(block_on(output.next_chunk())).unwrap();
    });
    assert_eq!(has_read.recv().unwrap(), Some(b"first".to_vec()));
    executor.stop();
    assert_eq!(has_read.recv().unwrap(), None);
    reader.join().unwrap();
}

#[test]
fn what_writes_for_ever_after_the_process_has_ended_is_cut_off() {
    on_an_executors_thread(async {
        let Connected { stdio, ends, mut streams, .. } = piped();
        let mut held = theirs(&stdio.stdout);
        rustix::io::ioctl_fionbio(&held, true).unwrap();
        let (begun, output) = (Instant::now(), streams.stdout.take().unwrap());
        ends.open_outputs(|| std::future::ready(true));
        // Each read makes room for more: without a cut there is always something to read.
        futures::pin_mut!(output);
        let (mut all, mut written) = (0, held.write(&[b'x'; 1 << 20]).unwrap());
        while let Some(chunk) = futures::StreamExt::next(&mut output).await {
            all += chunk.len();
            if begun.elapsed().is_zero() {
                tokio::time::advance(std::time::Duration::from_secs(2)).await;
            }
            written += held.write(&[b'x'; 1 << 20]).unwrap();
        }
        assert!(all < written, "{all} of {written}");
        assert!(all >= 64 << 10, "what was in the pipe is delivered");
    });
}

#[test]
fn a_pipe_that_something_else_holds_ends_a_second_after_the_process() {
    on_an_executors_thread(async {
        let Connected { stdio, ends, mut streams, .. } = piped();
        let (begun, output) = (Instant::now(), streams.stdout.take().unwrap());
        ends.open_outputs(|| std::future::ready(true));
        theirs(&stdio.stdout).write_all(b"last").unwrap();
        assert_eq!(output.read_to_end().await, b"last");
        assert_eq!(begun.elapsed().as_secs(), 1);
    });
}

#[test]
fn nothing_is_read_before_it_runs_and_of_what_never_ran() {
    on_an_executors_thread(async {
        let Connected { stdio, mut ends, mut streams, .. } = piped();
        theirs(&stdio.stdout).write_all(b"the runtime complains").unwrap();
        ends.open_input();
        let (mut output, mut input) = (streams.stdout.take().unwrap(), streams.stdin.take().unwrap());
        assert!(futures::poll!(std::pin::pin!(output.next_chunk())).is_pending());
        input.write_all("typed ahead").await.unwrap();
        drop(ends);
        assert_eq!(output.read_to_end().await, b"");
        assert_eq!(input.write_all("x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn an_input_that_something_else_holds_is_broken_when_the_process_has_ended() {
    on_an_executors_thread(async {
        let Connected { stdio, mut ends, mut streams, .. } = piped();
        let _held = theirs(&stdio.stdin);
        let mut input = streams.stdin.take().unwrap();
        ends.open_input();
        ends.open_outputs(async || {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            true
        });
        let begun = Instant::now();
        let written = input.write_all(vec![b'x'; 1 << 20]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(begun.elapsed().as_secs(), 5);
    });
}

#[test]
fn both_libraries_traits_are_there() {
    on_an_executors_thread(async {
        let Connected { stdio, mut ends, mut streams, .. } = piped();
        let (mut output, mut input) = (streams.stdout.take().unwrap(), streams.stdin.take().unwrap());
        ends.open_input();
        ends.open_outputs(std::future::pending::<bool>);
        let mut echo = theirs(&stdio.stdin);
        let mut four = [0; 4];
        {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            input.write_all(b"abcd").await.unwrap();
            std::io::Read::read_exact(&mut echo, &mut four).unwrap();
            theirs(&stdio.stdout).write_all(&four).unwrap();
            output.read_exact(&mut four).await.unwrap();
            assert_eq!(&four, b"abcd");
            input.flush().await.unwrap();
        }
        {
            use futures::{AsyncReadExt, AsyncWriteExt};
            input.write_all(b"efgh").await.unwrap();
            std::io::Read::read_exact(&mut echo, &mut four).unwrap();
            theirs(&stdio.stdout).write_all(&four).unwrap();
            output.read_exact(&mut four).await.unwrap();
            assert_eq!(&four, b"efgh");
            input.close().await.unwrap();
        }
        assert_eq!(input.write_all("x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(stdio);
        assert_eq!(std::io::Read::read(&mut echo, &mut four).unwrap(), 0, "the end of the input");
        assert_eq!(output.next_chunk().await, None);
    });
}

#[test]
fn who_reads_no_more_is_seen_by_the_writer() {
    on_an_executors_thread(async {
        let Connected { stdio, ends, streams, .. } = piped();
        ends.open_outputs(std::future::pending::<bool>);
        let mut held = theirs(&stdio.stdout);
        held.write_all(b"x").unwrap();
        drop(streams);
        assert_eq!(held.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}
