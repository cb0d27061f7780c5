//! An embedder that may open few files: `few-files before ROOT LIMIT` lowers the limit before it builds its executor,
//! `few-files after ROOT LIMIT…` lowers it to each of these once the executor runs. It tries everything that an embedder
//! does, prints what came of it, and fails if something panicked, hung, or is wrong. When the limit is raised again, the same
//! executor has to work.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, abort};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use longshore::{
    Cancel, ContainerHandle, ContainerSpec, Error, ExecSpec, Executor, Exit, ExitReason, StartFailure,
    StartFailureKind, Stdio, TerminalSize, with_causes,
};
use longshore_tests::leftovers::Leftovers;
use longshore_tests::{patience, runtime_under_test, sleeper};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How long one operation may take.
const LIMIT: Duration = Duration::from_secs(20);

static WRONG: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        WRONG.store(true, Ordering::Relaxed);
        hook(panic);
    }));
    let args: Vec<_> = std::env::args().skip(1).collect();
    let limits = || args[2..].iter().filter_map(|limit| limit.parse().ok());
    let watch = Watch::begin();
    match args.first().map(String::as_str) {
        Some("before") => limits().for_each(|limit| before(&watch, Path::new(&args[1]), limit)),
        Some("after") => after(&watch, Path::new(&args[1]), limits()),
        _ => wrong("arguments", "say before or after, a directory, and limits"),
    }
    if WRONG.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn wrong(what: &str, why: impl Display) {
    WRONG.store(true, Ordering::Relaxed);
    println!("WRONG {what}: {why}");
}

/// Ends this process when an operation takes too long.
struct Watch(Sender<String>);

impl Watch {
    fn begin() -> Self {
        let (sender, operations) = channel();
        std::thread::spawn(move || {
            let mut now = String::from("the start");
            loop {
                match operations.recv_timeout(patience(LIMIT)) {
                    Ok(next) => now = next,
                    Err(RecvTimeoutError::Timeout) => {
                        println!("WRONG {now}: no end within {:?}", patience(LIMIT));
                        abort();
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Self(sender)
    }

    /// Does something with a time limit.
    fn run<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let _ended = self.0.send(what.to_owned());
        block_on(work)
    }
}

fn lower(limit: u64) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum }) {
        wrong("setrlimit", error);
    }
}

fn raise() {
    lower(1024);
}

fn build(root: &Path) -> Result<Executor, Error> {
    Executor::builder(runtime_under_test(longshore::runc()).build()?).root(root).build()
}

/// The limit is there from the beginning.
fn before(watch: &Watch, dir: &Path, limit: u64) {
    let root = dir.join("root");
    lower(limit);
    let built = watch.run("build", async { build(&root) });
    match built {
        Ok(executor) => {
            println!("{limit} build: ok");
            operate(watch, limit, &executor, None);
            raise();
            works(watch, limit, &executor);
            lower(limit);
            end(watch, limit, executor);
        }
        Err(error) => {
            println!("{limit} build: {}", with_causes(&error));
            if !says_why(&with_causes(&error).to_string()) {
                wrong("build", with_causes(&error));
            }
        }
    }
    raise();
    println!("{limit} over");
    match watch.run("build again", async { build(&root) }) {
        Ok(executor) => {
            works(watch, limit, &executor);
            end(watch, limit, executor);
        }
        Err(error) => wrong("build again", with_causes(&error)),
    }
}

/// An executor runs, and its process runs out of files.
fn after(watch: &Watch, dir: &Path, limits: impl Iterator<Item = u64>) {
    let mut before = None;
    for limit in limits {
        let root: PathBuf = dir.join("root");
        let executor = match watch.run("build", async { build(&root) }) {
            Ok(executor) => executor,
            Err(error) => return wrong("build", with_causes(&error)),
        };
        let held = match watch.run("hold", executor.run(sleeper())) {
            Ok(held) => held,
            Err(error) => return wrong("hold", with_causes(&error)),
        };
        let _started = watch.run("started", held.started());
        lower(limit);
        operate(watch, limit, &executor, Some(&held));
        raise();
        works(watch, limit, &executor);
        works_in(watch, limit, &held);
        lower(limit);
        end(watch, limit, executor);
        raise();
        if watch.run("sweep", async { longshore::sweep(&root).map_or(0, |swept| swept.len()) }) > 0 {
            println!("{limit} swept");
        }
        let now = Leftovers::count(dir);
        nothing_new(limit, before.get_or_insert(now), dir);
    }
}

/// Of this process nothing is left. The test counts the cgroups, which may be those of others, at its end.
fn nothing_new(limit: u64, before: &Leftovers, dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let now = Leftovers::count(dir);
        let is_clean = now.processes.is_subset(&before.processes)
            && now.mounts.is_subset(&before.mounts)
            && now.files.is_subset(&before.files)
            && now.descriptors.len() <= before.descriptors.len();
        if is_clean {
            return;
        }
        if Instant::now() > deadline {
            let Leftovers { processes, mounts, files, descriptors, .. } = now;
            let before = &before.descriptors;
            let left = format!("{processes:?} {mounts:?} {files:?} {descriptors:?} was {before:?}");
            return wrong("left", format!("{limit}: {left}"));
        }
        // The kernel finishes some of its work a moment later, and gives no notice.
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn says_why(sentence: &str) -> bool {
    ["Too many open files", "too many open files", "file descriptors"]
        .iter()
        .any(|why| sentence.contains(why))
}

/// Prints a result, which has to be good, or an error for want of files.
fn report<T>(limit: u64, what: &str, result: Result<T, Error>) -> Option<T> {
    let error = match result {
        Ok(done) => {
            println!("{limit} {what}: ok");
            return Some(done);
        }
        Err(error) => error,
    };
    let sentence = with_causes(&error).to_string();
    println!("{limit} {what}: {sentence}");
    let is_known = if let Error::NotReady(failure) = &error {
        is_shortage(failure)
    } else if let Error::NotStarted { exit, .. } = &error {
        is_for_want_of_files(exit)
    } else {
        matches!(error, Error::Pipe(_) | Error::Runtime(_) | Error::Thread(_))
    };
    if !is_known || !says_why(&sentence) {
        wrong(what, format!("{limit}: {sentence}: {error:?}"));
    }
    None
}

fn is_shortage(failure: &StartFailure) -> bool {
    failure.kind == StartFailureKind::NoResources && says_why(&failure.message)
}

fn is_for_want_of_files(exit: &Exit) -> bool {
    matches!(&exit.reason, ExitReason::StartFailed(failure) if is_shortage(failure))
}

/// Prints an exit, which has to be a success, or a start that failed for want of files.
fn ended(limit: u64, what: &str, exit: &Exit) {
    println!("{limit} {what}: {exit}");
    if !exit.is_success() && !is_for_want_of_files(exit) {
        wrong(what, format!("{limit}: {exit:?}"));
    }
}

fn on_terminal() -> ContainerSpec {
    let mut spec = ContainerSpec::host(["tty"]).piped().terminal(TerminalSize::default());
    spec.process.stdio.stdin = Stdio::Pipe;
    spec
}

/// Everything that an embedder does. The program is `true`, which has no need of files itself.
fn operate(watch: &Watch, limit: u64, executor: &Executor, held: Option<&ContainerHandle>) {
    let specs = [
        ("run", ContainerSpec::host(["true"])),
        ("piped run", ContainerSpec::host(["true"]).piped()),
        ("terminal run", on_terminal()),
    ];
    for (what, spec) in specs {
        if let Some(run) = report(limit, what, watch.run(what, executor.run(spec))) {
            ended(limit, what, &watch.run(what, run.wait()));
        }
    }
    if let Some(created) = report(limit, "create", watch.run("create", executor.create(sleeper()))) {
        if watch.run("created", created.created()).is_ok() {
            report(limit, "start", watch.run("start", created.start()));
        }
        let exit = watch.run("cancel", created.cancel(Cancel::now()));
        if !matches!(exit.reason, ExitReason::Cancelled { .. }) {
            ended(limit, "cancel", &exit);
        }
    }
    let ready = ContainerSpec::host(["true"]).env("READY", "1");
    report(limit, "prepare", watch.run("prepare", executor.prepare(ready.clone(), 1)));
    if let Some(run) = report(limit, "ready run", watch.run("ready run", executor.run(ready.clone()))) {
        ended(limit, "ready run", &watch.run("ready run", run.wait()));
    }
    report(limit, "unprepare", watch.run("unprepare", executor.prepare(ready, 0)));
    if let Some(held) = held {
        operate_in(watch, limit, held);
    }
}

fn operate_in(watch: &Watch, limit: u64, held: &ContainerHandle) {
    let execs = [
        ("exec", ExecSpec::new(["true"])),
        ("piped exec", ExecSpec::new(["true"]).piped()),
        ("terminal exec", ExecSpec::new(["tty"]).piped().terminal(TerminalSize::default())),
    ];
    for (what, spec) in execs {
        if let Some(exec) = report(limit, what, watch.run(what, held.exec(spec))) {
            ended(limit, what, &watch.run(what, exec.wait()));
        }
    }
    if let Some(usage) = report(limit, "usage", watch.run("usage", held.usage()))
        && (usage.cpu.is_none() || usage.memory.is_none())
    {
        wrong("usage", format!("{limit}: {usage:?}"));
    }
    if let Some(processes) = report(limit, "processes", watch.run("processes", held.processes()))
        && processes.is_empty()
    {
        wrong("processes", format!("{limit}: none"));
    }
    if report(limit, "pause", watch.run("pause", held.pause())).is_some() {
        report(limit, "resume", watch.run("resume", held.resume()));
    }
}

/// The executor works when there are files again.
fn works(watch: &Watch, limit: u64, executor: &Executor) {
    for (what, spec) in [("later run", ContainerSpec::host(["true"])), ("later terminal", on_terminal())] {
        match watch.run(what, async { Ok::<_, Error>(executor.run(spec).await?.wait().await) }) {
            Ok(exit) if exit.is_success() => {}
            other => wrong(what, format!("{limit}: {other:?}")),
        }
    }
}

fn works_in(watch: &Watch, limit: u64, held: &ContainerHandle) {
    // What could not be resumed is resumed now.
    let _runs = watch.run("later resume", held.resume());
    let spec = ExecSpec::new(["tty"]).piped().terminal(TerminalSize::default());
    match watch.run("later exec", async { Ok::<_, Error>(held.exec(spec).await?.wait().await) }) {
        Ok(exit) if exit.is_success() => {}
        other => wrong("later exec", format!("{limit}: {other:?}")),
    }
}

/// A shutdown ends in time. What could not be removed is said.
fn end(watch: &Watch, limit: u64, executor: Executor) {
    let report = watch.run("shutdown", executor.shutdown(Cancel::now(), LIMIT / 2));
    println!("{limit} shutdown: {report:?}");
    watch.run("drop", async { drop(executor) });
}
