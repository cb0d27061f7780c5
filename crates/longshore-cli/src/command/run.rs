//! `longshore run`: one container, from start to released.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use longshore::runtime::{Cni, check_free_descriptors};
use longshore::{Cancel, ContainerHandle, Executor, Exit, ExitReason, Sandbox, Signal, Stdio, StdioSpec};
use tracing::Instrument;

use super::args::{DefaultInit, Global, Run, Streams};
use super::cid_file::CidFile;
use super::ordinary::{self, LoweredOomScore, Unmapped};
use super::plain::say;
use super::refused::Refused;
use super::relay::Relay;
use super::relay::copy::write_all;
use super::remark::Remark;
use super::signals::{Received, Signals, block_those_of_terminals};
use super::status::{self, Asked, Code, Failure};
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
    let ended = runtime.block_on(supervise(global, *arguments).instrument(span));
    // A thread of it may be writing to a reader that never reads.
    runtime.shutdown_background();
    ended
}

async fn supervise(global: &Global, arguments: Run) -> Result<ExitCode, Failure> {
    if arguments.tty && arguments.interactive && !io::stdin().is_terminal() {
        return Err(Refused::NoTerminal.into());
    }
    let mut spec = arguments.spec(DefaultInit::Yes)?;
    ordinary::check(&spec)?;
    let has_terminal = spec.process.terminal.is_some();
    // Before there is another thread.
    block_those_of_terminals().map_err(no_files)?;
    let mut signals = Signals::listen(has_terminal).map_err(no_files)?;
    let log = arguments.events.as_deref().map(open_log).transpose()?;
    let executor = executor(global)?;

    let (stdio, relay) = streams(&arguments, has_terminal).map_err(no_files)?;
    spec.process.stdio = stdio;
    spec.telemetry.traceparent = trace::traceparent();
    let logged = log.map(|out| events::write(executor.events(), out)).transpose().map_err(no_files)?;
    let mut asked = Asked {
        time_limit: spec.process.time_limit,
        memory: spec.resources.memory,
        has_init: spec.init,
        cancel: arguments.cancel(),
        unmapped: Unmapped::find(&spec),
        lowered: LoweredOomScore::find(&spec),
        ..Asked::default()
    };

    let cid_file = arguments.cidfile.as_deref().map(CidFile::create).transpose()?;
    let container = executor.run(spec).await?;
    if let Some(file) = cid_file {
        file.write(container.id())?;
    }
    let terminal = has_terminal.then_some(arguments.interactive);
    let (exit, copied) = follow(&container, terminal, relay, &mut signals, &mut asked).await?;
    shut_down(&executor).await;
    if let Some(logged) = logged {
        // Whoever reads them may be slow. A signal ends the wait.
        tokio::select! {
            _written = logged => {}
            () = signals.hurry() => {}
        }
    }
    Ok(answer(exit, copied, &asked, arguments.quiet).into())
}

/// Prints what there is to say about an end, unless nobody asked. Returns the command's exit code.
fn answer(exit: Exit, copied: io::Result<()>, asked: &Asked, quiet: bool) -> Code {
    let did_run = matches!(
        exit.reason,
        ExitReason::Normal
            | ExitReason::Cancelled { .. }
            | ExitReason::TimedOut { .. }
            | ExitReason::OutOfMemory
    );
    let (code, sentence) = status::of(exit, asked);
    if let Some(sentence) = sentence.filter(|_| !(quiet && did_run)) {
        say(sentence);
    }
    match copied {
        Ok(()) => code,
        Err(error) => status::lost_output(&error, code),
    }
}

/// Copies the program's streams until it has ended. `terminal` is whether a terminal of its own is interactive. Returns how the
/// program ended, and whether its output was copied.
async fn follow(
    container: &ContainerHandle,
    terminal: Option<bool>,
    mut relay: Relay,
    signals: &mut Signals,
    asked: &mut Asked,
) -> Result<(Exit, io::Result<()>), Failure> {
    let restore = terminal.map(terminal::Restore::make_raw).transpose().map_err(no_files)?;
    let copied = terminal.map(|_| terminal::copy(container)).transpose().map_err(no_files)?;
    let exit = wait(container, &mut relay, signals, asked).await;
    if let Some(copied) = copied {
        tokio::select! {
            _panicked = copied => {}
            () = hurried(&exit, signals) => {}
        }
    }
    drop(restore);
    let copied = relay.finish(hurried(&exit, signals)).await;
    Ok((exit, copied))
}

fn no_files(error: io::Error) -> Failure {
    Refused::Files { cause: error.to_string() }.into()
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
async fn hurried(exit: &Exit, signals: &mut Signals) {
    let soon = async {
        match exit.reason {
            ExitReason::Normal => std::future::pending().await,
            ExitReason::Cancelled { .. }
            | ExitReason::TimedOut { .. }
            | ExitReason::OutOfMemory
            | ExitReason::StartFailed(_)
            | ExitReason::Lost
            | _ => tokio::time::sleep(LAST_OUTPUT).await,
        }
    };
    tokio::select! {
        () = signals.hurry() => {}
        () = soon => {}
    }
}

/// Ends the executor, and prints what it could not remove.
async fn shut_down(executor: &Executor) {
    let report = executor.shutdown(Cancel::now(), RELEASE).await;
    for left in report.left {
        say(Remark::Left { what: left.to_string() });
    }
}

/// How soon the same signal comes again if it is sent once to the command and once to its process group, as timeout(1) does.
const SAME_SIGNAL: Duration = Duration::from_millis(200);

/// Waits for the end, and does what signals ask for.
async fn wait(
    container: &ContainerHandle,
    relay: &mut Relay,
    signals: &mut Signals,
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
            received = signals.next() => match received {
                Received::PassOn(signal) => pass_on(container, signal),
                Received::End(signal) => {
                    let now = Instant::now();
                    if last.is_none_or(|(other, at)| other != signal || now - at >= SAME_SIGNAL) {
                        last = Some((signal, now));
                        end(container, signal, asked);
                    }
                }
            },
        }
    }
}

/// Cancels with grace, and the second time at once. Ctrl-C is SIGINT for the program too; a hang-up is a request to end.
fn end(container: &ContainerHandle, signal: Signal, asked: &mut Asked) {
    asked.hurried = asked.interrupted.is_some();
    let mut cancel = if asked.hurried { Cancel::now() } else { asked.cancel };
    if signal == Signal::INT && !cancel.is_immediate() {
        cancel.signal = signal;
    }
    asked.interrupted = asked.interrupted.or(Some(signal));
    drop(container.cancel(cancel));
}

/// Tasks begin in the order in which they are spawned, so the signals keep theirs.
fn pass_on(container: &ContainerHandle, signal: Signal) {
    let container = container.clone();
    tokio::spawn(async move {
        let _ended = container.signal(signal).await;
    });
}

/// With the CNI plugins and networks of the command line.
pub(crate) fn sandbox(global: &Global) -> Sandbox {
    let mut cni = Cni::default();
    if let Some(configs) = &global.cni_configs {
        cni = cni.configs(configs);
    }
    if !global.cni_plugins.is_empty() {
        cni = cni.plugins(global.cni_plugins.iter().cloned());
    }
    Sandbox::cni(cni)
}

pub(crate) fn executor(global: &Global) -> Result<Executor, Failure> {
    let mut runtime = longshore::runc_with(sandbox(global));
    if let Some(command) = &global.runtime {
        runtime = runtime.runtime(command);
    }
    runtime = runtime.no_pivot(global.no_pivot);
    let executor = Executor::builder(runtime.build()?).root(global.root()).build()?;
    for swept in executor.swept() {
        tracing::info!(container = swept.container, killed = swept.killed, left = ?swept.left, "swept");
    }
    Ok(executor)
}

/// A file that may be non-blocking, if others share it.
struct Patient(File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_all(&self.0, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open_log(path: &Path) -> Result<Box<dyn Write + Send>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stderr()));
    }
    let file = output_file::create(path);
    let file = file.map_err(|error| Refused::Events { file: path.to_owned(), why: error.to_string() })?;
    Ok(Box::new(Patient(file)))
}
