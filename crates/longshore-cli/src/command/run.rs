//! `longshore run`: one container, from start to released.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use longshore::runtime::{Cni, check_free_descriptors};
use longshore::{Cancel, ContainerHandle, Executor, Exit, ExitReason, Sandbox, Signal, Stdio, StdioSpec};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::Instrument;

use super::args::{Global, Run, Streams};
use super::plain::plain;
use super::relay::Relay;
use super::status::{self, Asked, Failure};
use super::{events, output_file, terminal, trace};

/// How long the output of a program is still copied that was ended from outside.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// How long the end of everything may take, after the program's own.
const RELEASE: Duration = Duration::from_secs(30);

/// How many file descriptors a tokio runtime needs that listens for signals.
const RUNTIME_DESCRIPTORS: usize = 8;

pub(crate) fn run(global: &Global, arguments: Box<Run>) -> Result<ExitCode, Failure> {
    check_free_descriptors(RUNTIME_DESCRIPTORS).map_err(no_files)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(no_files)?;
    let span = tracing::info_span!("longshore run");
    runtime.block_on(supervise(global, *arguments).instrument(span))
}

async fn supervise(global: &Global, arguments: Run) -> Result<ExitCode, Failure> {
    let mut spec = arguments.spec()?;
    let mut signals = terminations()?;
    let log = arguments.events.as_deref().map(open_log).transpose()?;
    let executor = executor(global)?;

    let has_terminal = spec.process.terminal.is_some();
    let (stdio, mut relay) = streams(&arguments, has_terminal).map_err(no_files)?;
    spec.process.stdio = stdio;
    spec.telemetry.traceparent = trace::traceparent();
    let logged = log.map(|out| events::write(executor.events(), out)).transpose().map_err(no_files)?;
    let mut asked = Asked {
        time_limit: spec.process.time_limit,
        grace: arguments.grace,
        memory: spec.resources.memory,
        ..Asked::default()
    };

    let container = executor.run(spec).await?;
    let restore = has_terminal.then(|| terminal::Restore::make_raw(arguments.interactive));
    let restore = restore.transpose().map_err(no_files)?;
    let copied = has_terminal.then(|| terminal::copy(&container)).transpose().map_err(no_files)?;
    let exit = wait(&container, &mut relay, &mut signals, &mut asked).await;
    if let Some(copied) = copied {
        tokio::select! {
            _panicked = copied => {}
            () = hurried(&exit, &mut signals) => {}
        }
    }
    drop(restore);
    let copied = relay.finish(hurried(&exit, &mut signals)).await;
    shut_down(&executor).await;
    if let Some(logged) = logged {
        // Whoever reads them may be slow. A signal ends the wait.
        tokio::select! {
            _written = logged => {}
            _signal = signals.recv() => {}
        }
    }
    let (code, sentence) = status::of(exit, &asked);
    if let Some(sentence) = sentence {
        eprintln!("longshore: {}", plain(sentence));
    }
    Ok(match copied {
        Ok(()) => code,
        Err(error) => status::lost_output(&error, code),
    }
    .into())
}

fn no_files(error: io::Error) -> Failure {
    Failure::new(error.to_string(), status::MORE_FILES)
}

/// The program's streams, and what copies between them and ours.
fn streams(arguments: &Run, has_terminal: bool) -> io::Result<(StdioSpec, Relay)> {
    let stdin = |passed| if arguments.interactive { passed } else { Stdio::Null };
    let (stdin, stdout, stderr) = match (has_terminal, arguments.stdio) {
        (true, _) => (stdin(Stdio::Pipe), Stdio::Pipe, Stdio::Null),
        (false, Streams::Inherit) => (stdin(Stdio::Inherit), Stdio::Inherit, Stdio::Inherit),
        (false, Streams::Pipe) => return Relay::new(arguments.interactive),
    };
    Ok((StdioSpec { stdin, stdout, stderr }, Relay::default()))
}

/// Completes when a slow reader is not waited for any longer: at a signal, or soon if the program has not ended by itself.
async fn hurried(exit: &Exit, signals: &mut mpsc::Receiver<Signal>) {
    let soon = async {
        match exit.reason {
            ExitReason::Normal => std::future::pending().await,
            _ => tokio::time::sleep(LAST_OUTPUT).await,
        }
    };
    tokio::select! {
        _any = signals.recv() => {}
        () = soon => {}
    }
}

/// Ends the executor, and prints what it could not remove.
async fn shut_down(executor: &Executor) {
    let report = executor.shutdown(Cancel::now(), RELEASE).await;
    for left in report.left {
        eprintln!("longshore: {}: could not be removed; `longshore sweep` tries again", plain(left));
    }
}

/// How soon the same signal comes again if it is sent once to the command and once to its process group, as timeout(1) does.
const SAME_SIGNAL: Duration = Duration::from_millis(200);

/// Waits for the end. The first signal cancels with grace, a later one kills.
async fn wait(
    container: &ContainerHandle,
    relay: &mut Relay,
    signals: &mut mpsc::Receiver<Signal>,
    asked: &mut Asked,
) -> Exit {
    let ended = container.wait();
    let started = container.started();
    tokio::pin!(ended, started);
    let mut starting = true;
    let mut last: Option<(Signal, Instant)> = None;
    loop {
        tokio::select! {
            biased;
            outcome = &mut started, if starting => {
                starting = false;
                if outcome.is_ok() {
                    relay.start();
                }
            }
            exit = &mut ended => return exit,
            Some(signal) = signals.recv() => {
                let now = Instant::now();
                if last.is_some_and(|(other, at)| other == signal && now - at < SAME_SIGNAL) {
                    continue;
                }
                last = Some((signal, now));
                asked.hurried = asked.interrupted.is_some();
                let cancel = if asked.hurried { Cancel::now() } else { Cancel::with_grace(asked.grace) };
                asked.interrupted = asked.interrupted.or(Some(signal));
                drop(container.cancel(cancel));
            }
        }
    }
}

/// Ctrl-C, SIGTERM and SIGHUP, as they come.
fn terminations() -> Result<mpsc::Receiver<Signal>, Failure> {
    let (sender, receiver) = mpsc::channel(8);
    for (kind, number) in [
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::hangup(), Signal::HUP),
    ] {
        let mut stream = signal(kind).map_err(no_files)?;
        let sender = sender.clone();
        tokio::spawn(
            async move { while stream.recv().await.is_some() && sender.send(number).await.is_ok() {} },
        );
    }
    Ok(receiver)
}

pub(crate) fn executor(global: &Global) -> Result<Executor, Failure> {
    let mut cni = Cni::default();
    if let Some(configs) = &global.cni_configs {
        cni = cni.configs(configs);
    }
    if !global.cni_plugins.is_empty() {
        cni = cni.plugins(global.cni_plugins.iter().cloned());
    }
    let mut runtime = longshore::runc_with(Sandbox::cni(cni));
    if let Some(command) = &global.runtime {
        runtime = runtime.runtime(command);
    }
    let root = global.root.clone().unwrap_or_else(longshore::default_root);
    let executor = Executor::builder(runtime.build()?).root(root).build()?;
    for swept in executor.swept() {
        tracing::info!(container = swept.container, killed = swept.killed, left = ?swept.left, "swept");
    }
    Ok(executor)
}

fn open_log(path: &Path) -> Result<Box<dyn Write + Send>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stderr()));
    }
    let file = output_file::create(path);
    let file = file.map_err(|error| {
        Failure::new(
            format!("--events {}: {error}", path.display()),
            "name a file of your own, or a FIFO with a reader",
        )
    })?;
    Ok(Box::new(file))
}
