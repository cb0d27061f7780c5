//! `longshore run`: one container, from start to released.

use std::io::{self, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use longshore::runtime::{Cni, check_free_descriptors};
use longshore::{
    Cancel, ContainerHandle, Executor, Exit, ExitReason, Leftover, Sandbox, Seccomp, Signal, Stdio, StdioSpec,
};
use tokio::runtime::Runtime;
use tracing::Instrument;

use super::args::{DefaultInit, Global, Run, Streams};
use super::cid_file::CidFile;
use super::ending::Ending;
use super::ordinary::{self, LoweredOomScore, Unmapped};
use super::plain::say;
use super::refused::Refused;
use super::relay::copy::write_all;
use super::relay::{NotRead, Relay};
use super::remark::Remark;
use super::shortage::Limited;
use super::signals::{Received, Signals, block_those_of_terminals};
use super::status::{self, Asked, Code, Failure};
use super::{events, job, output_file, terminal, trace};

/// How long the output of a program is still copied that was ended from outside.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// How long the end of everything may take, after the program's own.
pub(crate) const RELEASE: Duration = Duration::from_secs(30);

/// The same if the program was never started and is wanted no more: what prepares it may wait for a file system that does not
/// answer.
const UNSTARTED_RELEASE: Duration = Duration::from_secs(10);

/// The same after a second signal.
const HURRIED_RELEASE: Duration = Duration::from_secs(3);

/// How many file descriptors a tokio runtime needs that listens for signals.
pub(crate) const RUNTIME_DESCRIPTORS: usize = 8;

pub(crate) fn run(global: &Global, arguments: Box<Run>) -> Result<ExitCode, Failure> {
    // Before there is another thread.
    block_those_of_terminals().map_err(no_files)?;
    check_free_descriptors(RUNTIME_DESCRIPTORS).map_err(no_files)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(no_files)?;
    let span = tracing::info_span!("longshore run");
    let mut signals = None;
    let ended = runtime.block_on(supervise(global, *arguments, &mut signals).instrument(span));
    let (code, patience) = match &ended {
        Ok(ended) => (ended.code, ended.patience),
        Err(failure) => (failure.code, None),
    };
    end_at_a_signal(runtime, signals, code, patience);
    let ended = ended?;
    ended.sentences.iter().for_each(say);
    Ok(ended.code.into())
}

/// What there is left to say, and to return.
struct Ended {
    code: Code,
    sentences: Vec<String>,
    /// How long a reader of the sentences is waited for.
    patience: Option<Duration>,
}

/// From now on, this process ends with its code at a signal, or after `patience`: it may wait for a reader of stderr.
fn end_at_a_signal(runtime: Runtime, signals: Option<Signals>, code: Code, patience: Option<Duration>) {
    // It is not dropped: a thread of it may be writing to a reader that never reads.
    let runtime = ManuallyDrop::new(runtime);
    let Some(mut signals) = signals else { return };
    let watch = move || {
        runtime.block_on(async {
            let over = async {
                match patience {
                    Some(patience) => tokio::time::sleep(patience).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = signals.hurry() => {}
                () = over => {}
            }
        });
        std::process::exit(code.0.into());
    };
    let _without_a_thread_it_waits = thread::Builder::new().name("signals".into()).spawn(watch);
}

async fn supervise(
    global: &Global,
    arguments: Run,
    listening: &mut Option<Signals>,
) -> Result<Ended, Failure> {
    let mut spec = arguments.spec(DefaultInit::Yes)?;
    let has_terminal = spec.process.terminal.is_some();
    if has_terminal && arguments.interactive && !io::stdin().is_terminal() {
        return Err(Refused::NoTerminal.into());
    }
    ordinary::check(&spec)?;
    let signals = listening.insert(Signals::listen(has_terminal).map_err(no_files)?);
    let log = arguments.events.as_deref().map(open_log).transpose()?;
    let executor = executor(global)?;

    let (stdio, relay) = streams(&arguments, has_terminal).map_err(no_files)?;
    spec.process.stdio = stdio;
    spec.telemetry.traceparent = trace::traceparent();
    let logged = log.map(|out| events::write(executor.events(), out)).transpose().map_err(no_files)?;
    let mut asked = Asked {
        time_limit: spec.process.time_limit,
        memory: spec.resources.memory,
        pids: spec.resources.pids.filter(|pids| *pids != u64::MAX),
        limited: Limited::by(&spec.process.ulimits),
        has_init: spec.init,
        cancel: arguments.cancel(),
        has_parent: spec.cgroup_parent.is_some(),
        has_profile: matches!(spec.seccomp, Some(Seccomp::Profile(_))),
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
    let input = relay.input_error();
    let (exit, copied) = follow(&container, terminal, relay, signals, &mut asked).await?;
    let (left, is_stuck) = end_of_all(executor, &exit, signals).await;
    let mut written = Ok(());
    // The last event does not come from what is stuck.
    if let Some(logged) = logged.filter(|_| !is_stuck) {
        // Whoever reads them may be slow.
        tokio::select! {
            biased;
            result = logged => written = result.unwrap_or(Ok(())),
            () = hurried(&exit, signals) => written = Err(NotRead.into()),
        }
    }
    let patience = last_output(&exit).or(signals.have_ended().then_some(LAST_OUTPUT));
    let (mut code, mut sentences) = answer(exit, copied, left, &asked, arguments.quiet);
    if let Some(why) = input.get() {
        let (changed, sentence) = status::lost_input(why, code);
        code = changed;
        sentences.push(sentence);
    }
    if let Err(error) = written {
        let (changed, sentence) = status::lost_events(&error, code);
        code = changed;
        sentences.push(sentence);
    }
    Ok(Ended { code, sentences, patience })
}

/// The command's exit code, and what there is to say about an end, unless nobody asked.
fn answer(
    exit: Exit,
    copied: io::Result<()>,
    mut sentences: Vec<String>,
    asked: &Asked,
    quiet: bool,
) -> (Code, Vec<String>) {
    let did_run = matches!(
        exit.reason,
        ExitReason::Normal
            | ExitReason::Cancelled { .. }
            | ExitReason::TimedOut { .. }
            | ExitReason::OutOfMemory
    );
    let (code, sentence) = status::of(exit, asked);
    sentences.extend(sentence.filter(|_| !(quiet && did_run)));
    match copied {
        Ok(()) => (code, sentences),
        Err(error) => {
            let (code, sentence) = status::lost_output(&error, code);
            sentences.push(sentence);
            (code, sentences)
        }
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
    let restore = terminal.map(|interactive| terminal::Restore::make_raw(interactive, container));
    let restore = restore.transpose().map_err(no_files)?;
    let copied =
        terminal.map(|_| terminal::copy(container, relay.input_error())).transpose().map_err(no_files)?;
    let exit = wait(container, &mut relay, restore.as_ref(), signals, asked).await;
    let shown = match copied {
        None => Ok(()),
        Some(copied) => copied.finish(hurried(&exit, signals)).await,
    };
    drop(restore);
    let copied = relay.finish(hurried(&exit, signals)).await;
    Ok((exit, shown.and(copied)))
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
        match last_output(exit) {
            None => std::future::pending().await,
            Some(patience) => tokio::time::sleep(patience).await,
        }
    };
    tokio::select! {
        () = signals.hurry() => {}
        () = soon => {}
    }
}

/// How long readers are waited for. As any program does, one that has ended by itself waits until they have read.
fn last_output(exit: &Exit) -> Option<Duration> {
    match exit.reason {
        ExitReason::Normal | ExitReason::StartFailed(_) | ExitReason::OutOfMemory => None,
        ExitReason::Cancelled { .. } | ExitReason::TimedOut { .. } | ExitReason::Lost | _ => {
            Some(LAST_OUTPUT)
        }
    }
}

/// Ends the executor. Returns what there is to say about what it could not remove, and whether something does not end.
async fn end_of_all(executor: Executor, exit: &Exit, signals: &mut Signals) -> (Vec<String>, bool) {
    let is_unwanted = exit.started_at.is_none()
        && matches!(exit.reason, ExitReason::Cancelled { .. } | ExitReason::TimedOut { .. });
    let hurried = async {
        signals.hurry().await;
        tokio::time::sleep(HURRIED_RELEASE).await;
    };
    let stuck = async {
        let patience = if is_unwanted { UNSTARTED_RELEASE } else { 2 * RELEASE };
        tokio::select! {
            () = hurried => {}
            () = tokio::time::sleep(patience) => {}
        }
    };
    tokio::select! {
        report = executor.shutdown(Cancel::now(), RELEASE) => {
            let remark = |left: Leftover| Remark::Left { what: left.to_string() }.to_string();
            (report.left.into_iter().map(remark).collect(), false)
        }
        () = stuck => {
            // Dropping it would wait.
            std::mem::forget(executor);
            (vec![Remark::Stuck.to_string()], true)
        }
    }
}

/// Waits for the end, and does what signals ask for.
async fn wait(
    container: &ContainerHandle,
    relay: &mut Relay,
    terminal: Option<&terminal::Restore>,
    signals: &mut Signals,
    asked: &mut Asked,
) -> Exit {
    let ended = container.wait();
    let started = container.started();
    tokio::pin!(ended, started);
    let mut starting = true;
    let mut stops = false;
    let mut ending = Ending::new(asked.cancel);
    loop {
        tokio::select! {
            biased;
            outcome = &mut started, if starting => {
                starting = false;
                if let Ok(init) = outcome {
                    relay.start((!asked.has_init).then_some(init));
                    if stops {
                        job::stop(container, terminal, signals).await;
                    }
                }
            }
            exit = &mut ended => {
                (asked.interrupted, asked.hurried) = (ending.first(), ending.is_hurried());
                return exit;
            }
            () = relay.broken() => {
                asked.broken_pipe = true;
                drop(container.cancel(Cancel::now()));
            }
            () = until(ending.next_deadline()) => {
                if let Some(signal) = ending.tick(Instant::now()) {
                    pass_on(container, signal);
                }
            }
            received = signals.next() => match received {
                Received::PassOn(signal) => pass_on(container, signal),
                Received::End(signal) => {
                    if let Some(cancel) = ending.received(signal, Instant::now()) {
                        drop(container.cancel(cancel));
                    }
                }
                // A container that is being started cannot be frozen.
                Received::Stop if starting => stops = true,
                Received::Stop => job::stop(container, terminal, signals).await,
                Received::Continued if starting => stops = false,
                Received::Continued => terminal.into_iter().for_each(terminal::Restore::take_again),
            },
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
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
struct Patient<T>(T);

impl<T: AsFd> Write for Patient<T> {
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
        return Ok(Box::new(Patient(io::stderr())));
    }
    let file = output_file::create(path);
    let file = file.map_err(|error| Refused::Events { file: path.to_owned(), why: error.to_string() })?;
    Ok(Box::new(Patient(file)))
}
