//! Output on the real runtime: with the exit, under any executor of futures, after the executor's end; in bulk every byte, in
//! order, in bounded memory, with the speed printed beside that of a plain pipe, and not asserted.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::io::Read;
use std::process::{Command, Stdio as Std};
use std::time::{Duration, Instant};

use longshore::{Chunk, ContainerSpec, Error, ExecSpec, ExitReason, Stdio};
use longshore_tests::{HUNG, amount, on_bare_stage, on_stage, shell};

/// How much is written in bulk: a gibibyte.
fn bulk() -> u64 {
    amount(1 << 30)
}

fn writer() -> String {
    format!("head -c {} /dev/zero", bulk())
}

/// Memory of this process that is not backed by files, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn plain_pipe() -> Duration {
    let began = Instant::now();
    let mut child = Command::new("sh").args(["-c", &writer()]).stdout(Std::piped()).spawn().unwrap();
    let (mut pipe, mut chunk, mut all) = (child.stdout.take().unwrap(), vec![0; 64 << 10], 0);
    while let Ok(read @ 1..) = pipe.read(&mut chunk) {
        all += read as u64;
    }
    child.wait().unwrap();
    assert_eq!(all, bulk());
    began.elapsed()
}

#[test]
fn output_in_bulk() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (mut ratios, before) = (Vec::new(), memory());
        for _ in 0..3 {
            let plain = plain_pipe();
            let container = executor.run(shell(&writer()).piped()).await.unwrap();
            let mut stdout = container.io().take_stdout().unwrap();
            container.started().await.unwrap();
            let (began, mut all, mut most) = (Instant::now(), 0, 0);
            while let Some(chunk) = stdout.next_chunk().await {
                assert!(chunk.iter().all(|byte| *byte == 0) || all > 1 << 20);
                all += chunk.len() as u64;
                if all % (64 << 20) < chunk.len() as u64 {
                    most = most.max(memory());
                }
            }
            assert_eq!(all, bulk());
            assert!(container.wait().await.is_success());
            assert!(most < before + (32 << 20), "{} MiB more", (most - before) >> 20);
            ratios.push(plain.as_secs_f64() / began.elapsed().as_secs_f64());
        }
        println!("1 GiB through stdout, speed to that of a plain pipe: {ratios:.2?}");
        stage.finish(executor).await;
    });
}

#[test]
fn hostile_output() {
    on_stage(async |stage| {
        let executor = stage.executor();
        // Bytes of every kind, in lines without an end, to a reader who looks at the end of it only.
        let mut spec = shell("head -c 33554432 /dev/urandom; head -c 33554432 /dev/zero");
        spec.process.stdio.stdout = Stdio::Shared { replay: 1 << 20 };
        let before = memory();
        let container = executor.run(spec).await.unwrap();
        assert!(container.wait().await.is_success(), "a reader who is not there holds nobody back");
        let mut late = container.io().attach_stdout().unwrap();
        let (mut missed, mut read) = (0, 0);
        while let Some(chunk) = late.next().await {
            match chunk {
                Chunk::Gap { missed: bytes } => missed += bytes,
                Chunk::Bytes(bytes) => read += bytes.len() as u64,
            }
        }
        assert_eq!(missed + read, 64 << 20);
        assert!(read <= 1 << 20 && missed > 0);
        assert!(memory() < before + (32 << 20));
        stage.finish(executor).await;
    });
}

/// Two megabytes to each stream, more than any pipe holds.
const TWO_MEGABYTES: &str = "head -c 2000000 /dev/zero | tee /dev/stderr";

/// documented-hang: whoever waited for the exit before reading waited for ever.
#[test]
fn output_larger_than_a_pipe_comes_with_the_exit() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(shell(TWO_MEGABYTES).piped()).await.unwrap();
        let output = tokio::time::timeout(HUNG, container.output()).await.unwrap().unwrap();
        assert!(output.exit.is_success());
        assert_eq!((output.stdout.len(), output.stderr.len()), (2_000_000, 2_000_000));
        assert_eq!((output.stdout_dropped, output.stderr_dropped), (0, 0));
        assert!(matches!(container.output().await, Err(Error::NoOutput { .. })), "it was taken");

        let container = executor.run(shell(TWO_MEGABYTES).piped()).await.unwrap();
        let output =
            tokio::time::timeout(HUNG, container.output_with_limit(1_500_000)).await.unwrap().unwrap();
        assert!(output.exit.is_success(), "it was not held back: {}", output.exit);
        assert_eq!((output.stdout.len(), output.stderr.len()), (1_500_000, 1_500_000));
        assert_eq!((output.stdout_dropped, output.stderr_dropped), (500_000, 500_000));
        stage.finish(executor).await;
    });
}

#[test]
fn output_of_an_exec_comes_with_its_exit() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(shell("exec sleep 1000")).await.unwrap();
        let spec = ExecSpec::new(["sh", "-c", TWO_MEGABYTES]);
        let exec = container.exec(spec.clone().piped()).await.unwrap();
        let output = tokio::time::timeout(HUNG, exec.output()).await.unwrap().unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (2_000_000, 2_000_000));

        let mut shared = spec;
        shared.stdio.stdout = Stdio::Shared { replay: 1 << 20 };
        let exec = container.exec(shared).await.unwrap();
        let output = tokio::time::timeout(HUNG, exec.output_with_limit(1000)).await.unwrap().unwrap();
        assert!(output.exit.is_success());
        assert_eq!((output.stdout.len() as u64 + output.stdout_dropped, output.stderr.len()), (2_000_000, 0));

        let exec = container.exec(ExecSpec::new(["true"])).await.unwrap();
        let error = exec.output().await.unwrap_err();
        assert!(error.to_string().contains(".piped()"), "{error}");
        drop(container.cancel(longshore::Cancel::now()));
        stage.finish(executor).await;
    });
}

#[test]
fn output_closes_an_input_and_says_what_did_not_start() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = ContainerSpec::host(["cat"]).piped();
        spec.process.stdio.stdin = Stdio::Pipe;
        let container = executor.run(spec).await.unwrap();
        let output = tokio::time::timeout(HUNG, container.output()).await.unwrap().unwrap();
        assert!(output.exit.is_success() && output.stdout.is_empty());

        let container = executor.run(ContainerSpec::host(["no-such-program"]).piped()).await.unwrap();
        let output = container.output().await.unwrap();
        assert!(matches!(output.exit.reason, ExitReason::StartFailed(_)), "{}", output.exit);
        assert_eq!((&*output.stdout_lossy(), &*output.stderr_lossy()), ("", ""));
        stage.finish(executor).await;
    });
}

#[test]
fn tokio_reads_and_copies() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = shell("cat; head -c 2000000 /dev/zero").piped();
        spec.process.stdio.stdin = Stdio::Pipe;
        let container = executor.run(spec).await.unwrap();
        let mut stdin = container.io().take_stdin().unwrap();
        let mut stdout = container.io().take_stdout().unwrap();
        stdin.write_all(b"hello").await.unwrap();
        stdin.shutdown().await.unwrap();
        let mut hello = [0; 5];
        stdout.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        assert_eq!(tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await.unwrap(), 2_000_000);
        assert!(container.wait().await.is_success());
        stage.finish(executor).await;
    });
}

#[test]
fn futures_reads_and_copies_without_a_runtime() {
    use futures::executor::block_on;
    use futures::{AsyncReadExt, AsyncWriteExt};
    on_bare_stage(|stage| {
        let executor = stage.executor();
        block_on(async {
            let mut spec = shell("cat; head -c 2000000 /dev/zero").piped();
            spec.process.stdio.stdin = Stdio::Pipe;
            let container = executor.run(spec).await.unwrap();
            let mut stdin = container.io().take_stdin().unwrap();
            let mut stdout = container.io().take_stdout().unwrap();
            stdin.write_all(b"hello").await.unwrap();
            stdin.close().await.unwrap();
            let mut hello = [0; 5];
            stdout.read_exact(&mut hello).await.unwrap();
            assert_eq!(&hello, b"hello");
            assert_eq!(futures::io::copy(stdout, &mut futures::io::sink()).await.unwrap(), 2_000_000);
            assert!(container.wait().await.is_success());
        });
        block_on(stage.finish(executor));
    });
}

#[test]
fn what_was_written_is_read_after_the_executor_has_stopped() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(shell("head -c 60000 /dev/zero; echo done >&2").piped()).await.unwrap();
        let (stdout, stderr) = (container.io().take_stdout().unwrap(), container.io().take_stderr().unwrap());
        assert!(container.wait().await.is_success());
        executor.shutdown(longshore::Cancel::now(), HUNG).await;
        assert_eq!(stdout.read_to_end().await.len(), 60_000);
        assert_eq!(stderr.read_to_end().await, b"done\n");
        stage.finish(executor).await;
    });
}
