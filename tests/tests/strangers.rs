//! Inputs of strangers that failed once: the core, the driver, and the signals of the command. Each test has the name of its
//! row in `tests/README.md`.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longshore::{
    Cancel, ContainerSpec, ExecSpec, ExitReason, ExitStatus, IdMap, Mount, Rootfs, Security,
    StartFailureKind, TerminalSize,
};
use longshore_tests::command::{Outcome, call, longshore};
use longshore_tests::soak::{Plan, Sample, soak};
use longshore_tests::{kernel_keeps_exits, on_bare_stage, on_stage, says, shell, sleeper, text};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Of the limits of files one in so many is tried: each, and fewer on a slow machine.
fn stride() -> usize {
    if longshore_tests::amount(4) == 4 { 1 } else { 4 }
}

/// The command, with as many file descriptors as a shell's `ulimit -n` allows.
#[test]
fn emfile() {
    on_bare_stage(|stage| {
        let mut worked = 0;
        for limit in (4..=60).step_by(stride()) {
            for terminal in [&[][..], &["-t"]] {
                let longshore = longshore(&stage.root());
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={limit}:{limit}"));
                command.arg(longshore.get_program()).args(longshore.get_args());
                command.arg("run").args(terminal).args(["--", "true"]);
                let outcome: Outcome = command.stdin(Stdio::null()).output().unwrap().into();
                let is_sentence =
                    outcome.stderr.lines().count() == 1 && outcome.stderr.starts_with("longshore: ");
                match outcome.code {
                    Some(0) => worked += 1,
                    Some(125) => assert!(is_sentence, "{limit} {terminal:?}: {outcome:?}"),
                    _ => panic!("{limit} {terminal:?}: {outcome:?}"),
                }
                let left = fs::read_dir(stage.root()).map_or(0, Iterator::count);
                assert_eq!(left, 0, "{limit} {terminal:?}: {outcome:?}");
            }
        }
        assert!(worked * stride() > 20, "{worked}");
        stage.check();
    });
}

/// A library in a process that has as many file descriptors as its limit allows, from the beginning or once its executor runs:
/// runs, execs, terminals, requests, a shutdown. `few_files` says what is wrong with a result.
#[test]
fn emfile_of_a_library() {
    on_bare_stage(|stage| {
        let dir = stage.path("");
        let try_all = |moment: &str, limits: &[String]| -> String {
            let mut embedder = Command::new(env!("CARGO_BIN_EXE_few_files"));
            let outcome: Outcome = embedder.arg(moment).arg(&dir).args(limits).output().unwrap().into();
            let wrong: Vec<_> = outcome.stdout.lines().filter(|line| line.starts_with("WRONG")).collect();
            assert_eq!(outcome.code, Some(0), "{moment} {limits:?}: {wrong:#?}\n{}", outcome.stderr);
            outcome.stdout
        };
        let limits: Vec<_> = (3..=60).step_by(stride()).map(|limit| limit.to_string()).collect();
        let built = limits.iter().filter(|limit| {
            let said = try_all("before", std::slice::from_ref(*limit));
            said.contains("build: ok")
        });
        let built = built.count();
        assert!((10..50).contains(&(built * stride())), "{built} were built");
        let said = try_all("after", &limits);
        let exits = said.matches(" run: exit code 0").count();
        assert!((60..160).contains(&(exits * stride())), "{exits} runs ended well");
        stage.check();
    });
}

/// timeout(1) sends its signal to the command and to the command's process group. The program has its grace.
#[test]
fn double_term() {
    on_bare_stage(|stage| {
        let mut command = longshore(&stage.root());
        command.args(["run", "--grace", "20s", "--", "sh", "-c"]);
        command.arg("trap 'sleep 0.5; echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done");
        let mut command = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(command.stdout.take().unwrap());
        let mut said = String::new();
        stdout.read_line(&mut said).unwrap();
        let pid = nix::unistd::Pid::from_raw(command.id().try_into().unwrap());
        for _ in 0..2 {
            nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        }
        stdout.read_to_string(&mut said).unwrap();
        drop(stdout);
        assert_eq!((said.as_str(), command.wait().unwrap().code()), ("up\nbye\n", Some(7)));
        stage.check();
    });
}

/// The command, with a program that has said `ready`.
struct Ready(std::process::Child, BufReader<std::process::ChildStdout>);

impl Ready {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let ready = BufReader::new(child.stdout.take().unwrap());
        let mut ready = Self(child, ready);
        ready.says("ready");
        ready
    }

    /// Its next line.
    fn says(&mut self, expected: &str) {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), expected);
    }

    fn signal(&self, number: i32) {
        // Also those that have no name.
        let sent =
            Command::new("kill").arg(format!("-{number}")).arg(self.0.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    fn code(mut self) -> Option<i32> {
        drop(self.1);
        self.0.wait().unwrap().code()
    }
}

/// Every signal that would end the command is the program's: it handles it, or it is process 1 and does not.
#[test]
fn other_signals() {
    on_bare_stage(|stage| {
        use Signal::{
            SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGINT, SIGIO, SIGPROF, SIGPWR, SIGQUIT, SIGSEGV,
            SIGSTKFLT, SIGSYS, SIGTRAP, SIGUSR1, SIGUSR2, SIGVTALRM, SIGWINCH, SIGXCPU, SIGXFSZ,
        };
        let named = [
            SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGSTKFLT, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO,
            SIGPWR, SIGWINCH, SIGABRT, SIGTRAP, SIGSYS, SIGSEGV, SIGBUS, SIGFPE, SIGILL,
        ];
        let real_time = [34, 37, 50, 64];
        let numbers: Vec<i32> = named.into_iter().map(|signal| signal as i32).chain(real_time).collect();
        let names: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let names = names.join(" ");
        let mut command = longshore(&stage.root());
        command.args(["run", "--", "bash", "-c"]);
        command.arg(format!(
            "for n in {names}; do trap \"echo $n\" $n; done; trap 'exit 9' INT; echo ready; while :; do sleep 0.01; done"
        ));
        let mut ready = Ready::start(&mut command);
        for number in &numbers {
            ready.signal(*number);
            ready.says(&number.to_string());
        }
        ready.signal(SIGINT as i32);
        assert_eq!(ready.code(), Some(9));

        let mut command = longshore(&stage.root());
        command.args(["run", "--no-init", "--", "sh", "-c"]);
        command.arg("trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.01; done");
        let mut ready = Ready::start(&mut command);
        for number in &numbers {
            ready.signal(*number);
        }
        ready.signal(Signal::SIGTERM as i32);
        ready.says("bye");
        assert_eq!(ready.code(), Some(9), "a signal without a handler has ended something");
        stage.check();
    });
}

/// The command under nohup, and in the background of a shell without jobs: HUP, or INT, is nothing to it.
#[test]
fn ignored_at_entry() {
    on_bare_stage(|stage| {
        for (name, number) in [("HUP", 1), ("INT", 2), ("USR1", 10), ("SEGV", 11)] {
            let longshore = longshore(&stage.root());
            let mut command = Command::new("sh");
            command.args(["-c", &format!("trap '' {name}; exec \"$@\""), "sh"]);
            command.arg(longshore.get_program()).args(longshore.get_args()).args(["run", "--", "sh", "-c"]);
            command.arg(format!(
                "trap 'echo {name}' {name}; trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"
            ));
            let mut ready = Ready::start(&mut command);
            ready.signal(number);
            ready.signal(Signal::SIGTERM as i32);
            let mut rest = String::new();
            ready.1.read_to_string(&mut rest).unwrap();
            assert_eq!((rest.as_str(), ready.code()), ("", Some(9)), "{name} was not ignored");
        }
        stage.check();
    });
}

/// What ends the command is what the program gets first: SIGINT, SIGTERM or SIGHUP.
#[test]
fn int_first() {
    on_bare_stage(|stage| {
        for (number, code) in [(2, 3), (15, 4), (1, 5)] {
            let mut command = longshore(&stage.root());
            command.args(["run", "--", "sh", "-c"]);
            command.arg("trap 'exit 3' INT; trap 'exit 4' TERM; trap 'exit 5' HUP; echo ready; while :; do sleep 0.01; done");
            let ready = Ready::start(&mut command);
            ready.signal(number);
            assert_eq!(ready.code(), Some(code), "signal {number}");
        }
        let mut command = longshore(&stage.root());
        command.args([
            "run",
            "--grace",
            "100ms",
            "--no-init",
            "--",
            "sh",
            "-c",
            "echo ready; exec sleep 1000",
        ]);
        let mut ready = Ready::start(command.stderr(Stdio::piped()));
        ready.signal(2);
        let mut said = String::new();
        ready.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("did not end within 100ms of SIGINT and was killed"), "{said}");
        assert_eq!(ready.code(), Some(137));
        stage.check();
    });
}

/// Restores the action of a signal when it is dropped.
struct Action(Signal, SigAction);

impl Action {
    fn set(signal: Signal, handler: SigHandler, flags: SaFlags) -> Self {
        let action = SigAction::new(handler, flags, SigSet::empty());
        Self(signal, set_action(signal, &action))
    }
}

impl Drop for Action {
    fn drop(&mut self) {
        set_action(self.0, &self.1);
    }
}

#[expect(unsafe_code, reason = "the action is the default one, none, or one that was set before")]
fn set_action(signal: Signal, action: &SigAction) -> SigAction {
    // SAFETY: no handler is set that was not there.
    unsafe { sigaction(signal, action) }.unwrap()
}

/// What an embedder blocks and ignores is not what its containers block and ignore.
#[test]
fn signal_mask() {
    on_bare_stage(|stage| {
        let _ignored = [Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGPIPE]
            .map(|signal| Action::set(signal, SigHandler::SigIgn, SaFlags::empty()));
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGUSR1);
        blocked.add(Signal::SIGTERM);
        blocked.thread_block().unwrap();
        longshore_tests::runtime().block_on(async {
            let executor = stage.executor();
            let script = "grep -E '^Sig(Blk|Ign):' /proc/self/status";
            // The C library keeps the signals 32 and 33 for itself, and resets neither.
            let own = |said: String| -> Vec<u64> {
                let words = said.split_whitespace().filter_map(|word| u64::from_str_radix(word, 16).ok());
                words.map(|set| set & !(0b11 << 31)).collect()
            };
            assert_eq!(own(says(&executor, shell(script)).await), [0, 0]);
            let container = executor.run(sleeper()).await.unwrap();
            let exec = container.exec(ExecSpec::new(["sh", "-c", script]).piped()).await.unwrap();
            assert_eq!(own(text(exec.io().take_stdout().unwrap().read_to_end().await)), [0, 0]);
            exec.wait().await;
            container.cancel(longshore::Cancel::now()).await;
            executor.shutdown(longshore::Cancel::now(), longshore_tests::HUNG).await;
        });
        blocked.thread_unblock().unwrap();
        stage.check();
    });
}

/// Runs and execs programs that end at once, by a code or a signal. Every exit is exact where the kernel keeps it, and lost
/// otherwise: none is invented.
async fn exits_are_true(executor: &longshore::Executor, rounds: u8) {
    let container = executor.run(sleeper()).await.unwrap();
    let check = |what: &str, exit: &longshore::Exit, expected: ExitStatus| {
        if exit.reason == ExitReason::Lost {
            assert!(!kernel_keeps_exits(), "{what}: {exit:?}");
        } else {
            assert_eq!((&exit.reason, exit.status), (&ExitReason::Normal, expected), "{what}: {exit:?}");
        }
    };
    for round in 0..rounds {
        let (code, by_signal) = (ExitStatus::Code(round), ExitStatus::Signal(longshore::Signal::USR1));
        let run = executor.run(shell(&format!("exit {round}"))).await.unwrap();
        check("run", &run.wait().await, code);
        for (script, expected) in [(format!("exit {round}"), code), ("kill -USR1 $$".to_owned(), by_signal)] {
            let exec = container.exec(ExecSpec::new(["sh", "-c", &script])).await.unwrap();
            check(&script, &exec.wait().await, expected);
        }
    }
    let exec = container.exec(ExecSpec::new(["sh", "-c", "sleep 0.3; exit 9"])).await.unwrap();
    check("later", &exec.wait().await, ExitStatus::Code(9));
    container.cancel(longshore::Cancel::now()).await;
}

/// The embedder ignores SIGCHLD, or wants no zombies: children are reaped by the kernel.
#[test]
fn sigchld() {
    for (handler, flags) in
        [(SigHandler::SigIgn, SaFlags::empty()), (SigHandler::SigDfl, SaFlags::SA_NOCLDWAIT)]
    {
        on_stage(async |stage| {
            let executor = stage.executor();
            let ignored = Action::set(Signal::SIGCHLD, handler, flags);
            exits_are_true(&executor, 10).await;
            drop(ignored);
            stage.finish(executor).await;
        });
    }
}

/// Ends the thief, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `work` while a thread of the embedder waits for any child.
async fn beside_a_thief(work: impl Future<Output = ()>) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use nix::sys::wait::{WaitPidFlag, waitpid};
            while !done.load(Ordering::Relaxed) {
                let _any = waitpid(None, Some(WaitPidFlag::WNOHANG));
                std::thread::yield_now();
            }
        });
        let _stopped = Stop(&done);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work));
    });
}

/// A thread of the embedder waits for any child, and the embedder has said so.
#[test]
fn stolen_wait() {
    on_stage(async |stage| {
        let executor = stage.executor_on(stage.runtime().waits_elsewhere(true));
        beside_a_thief(exits_are_true(&executor, 15)).await;
        stage.finish(executor).await;
    });
}

/// The embedder has not said so: one exit can be lost, by which the theft is noticed, and none later.
#[test]
fn stolen_wait_untold() {
    on_stage(async |stage| {
        let executor = stage.executor();
        beside_a_thief(async {
            let mut lost = 0;
            for code in 0..20 {
                let exit = executor.run(shell(&format!("exit {code}"))).await.unwrap().wait().await;
                // On an older kernel the status of the runtime itself may be stolen: then the start has failed, and says so.
                let of_runtime = matches!(exit.reason, ExitReason::StartFailed(_)) && !kernel_keeps_exits();
                let is_lost = exit.reason == ExitReason::Lost || of_runtime;
                assert!(is_lost || exit.status == ExitStatus::Code(code), "{exit:?}");
                lost += u8::from(is_lost);
            }
            assert!(lost <= 1 || !kernel_keeps_exits(), "{lost} of 20 are lost");
        })
        .await;
        stage.finish(executor).await;
    });
}

/// Shells of the embedder's leave background children behind, which become children of the embedder.
#[test]
fn adopted_orphans() {
    on_stage(async |stage| {
        let age = longshore_tests::patience(std::time::Duration::from_millis(500));
        let executor = stage.executor_on(stage.runtime().reap_others(age));
        let mut own = Command::new("true").spawn().unwrap();
        for _ in 0..longshore_tests::amount(50) {
            assert!(Command::new("sh").args(["-c", "sleep 0.1 &"]).status().unwrap().success());
        }
        assert!(own.wait().unwrap().success(), "it waits in time");
        let zombies = || {
            longshore_tests::leftovers::children().into_iter().filter(|child| child.contains("sleep")).count()
        };
        assert!(zombies() > 0, "this process is a subreaper");
        let since = std::time::Instant::now();
        while zombies() > 0 {
            assert!(since.elapsed() < longshore_tests::HUNG, "{} are left", zombies());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(says(&executor, shell("echo on")).await, "on\n");
        stage.finish(executor).await;
    });
}

/// The root is on a file system that is full, or becomes so.
#[test]
fn full_disk() {
    on_bare_stage(|stage| {
        let disk = stage.path("disk");
        fs::create_dir(&disk).unwrap();
        let root = disk.join("root");
        for (options, fill) in [
            ("size=4k", false),
            ("size=16k", false),
            ("size=64k", false),
            ("nr_inodes=6", false),
            ("size=1m", true),
        ] {
            let data = std::ffi::CString::new(format!("mode=700,{options}")).unwrap();
            rustix::mount::mount(
                "longshore",
                &disk,
                "tmpfs",
                rustix::mount::MountFlags::empty(),
                data.as_c_str(),
            )
            .unwrap();
            if fill {
                let zeros = vec![0; 2 << 20];
                fs::write(disk.join("fill"), zeros).unwrap_err();
            }
            let outcome: Outcome = longshore(&root).args(["run", "--", "true"]).output().unwrap().into();
            let left = fs::read_dir(&root).map_or(0, Iterator::count);
            rustix::mount::unmount(&disk, rustix::mount::UnmountFlags::DETACH).unwrap();
            assert_eq!(left, 0, "{options}: {outcome:?}");
            // crun's state of a container is small.
            if outcome.code == Some(0) && options == "size=64k" {
                continue;
            }
            let says_why = outcome.stderr.contains("space left");
            assert!(says_why && outcome.stderr.lines().count() == 1, "{options}: {outcome:?}");
            assert_eq!(outcome.code, Some(125), "{options}: {outcome:?}");
        }
        stage.check();
    });
}

/// Execs in one container and runs in one process: the same descriptors and threads before and after, and a journal that does not
/// grow with them. Neither does an embedder cost anything that never waits, or keeps every handle.
#[test]
fn exec_fd_leak() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let root = stage.root();
        let mut samples = Vec::new();
        let few = |usual| longshore_tests::amount(usual).max(3);
        let warm = Plan { execs: few(20), runs: few(10), every: few(20) };
        soak(&executor, &root, warm, drop).await.unwrap();
        let plan = Plan { execs: few(300), runs: few(100), every: few(50) };
        soak(&executor, &root, plan, |sample| samples.push(sample)).await.unwrap();
        for what in ["execs", "runs"] {
            let of: Vec<_> = samples.iter().filter(|sample| sample.what == what).collect();
            let first = of[0];
            for sample in &of {
                let (descriptors, threads) = (first.descriptors + 2, first.threads + 4);
                assert!(sample.descriptors <= descriptors && sample.threads <= threads, "{of:#?}");
                assert!(sample.journals <= 5 << 10 && sample.files == first.files, "{of:#?}");
            }
            let grown = of[of.len() - 1].resident.saturating_sub(of[1].resident);
            assert!(grown < 8 << 10, "{grown} KiB more: {of:#?}");
        }

        let held = executor.run(sleeper()).await.unwrap();
        held.started().await.unwrap();
        let before = Sample::take("kept", 0, &root);
        let mut kept = Vec::new();
        for number in 0..longshore_tests::amount(80) {
            let spec = ExecSpec::new(["true"]).piped();
            let spec = if number % 4 == 0 { spec.terminal(TerminalSize::default()) } else { spec };
            kept.push(held.exec(spec).await.unwrap());
        }
        longshore_tests::until("the descriptors of execs that have ended", || {
            Sample::take("kept", 0, &root).descriptors <= before.descriptors + 2
        })
        .await;
        for exec in &kept {
            assert!(exec.wait().await.is_success());
        }
        held.cancel(longshore::Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// The most resident memory of this process since the last call, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    // proc_pid_clear_refs(5): the peak is what there is now.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    peak << 10
}

/// A million writes of one byte to an output that is kept: as much memory as is to be kept, and not as much for each write.
#[test]
fn tape_memory() {
    on_stage(async |stage| {
        const WRITES: usize = 1_000_000;
        let executor = stage.executor();
        for (replay, kept) in [(1 << 20, WRITES), (64 << 10, 64 << 10)] {
            let mut spec = shell(&format!("exec dd if=/dev/zero bs=1 count={WRITES} 2>/dev/null"));
            spec.process.stdio.stdout = longshore::Stdio::Shared { replay };
            peak_memory();
            let before = peak_memory();
            let container = executor.run(spec).await.unwrap();
            let mut reader = container.io().attach_stdout().unwrap();
            assert!(container.wait().await.is_success());
            let began = std::time::Instant::now();
            let (mut read, mut missed) = (0, 0);
            while let Some(chunk) = reader.next().await {
                match chunk {
                    longshore::Chunk::Bytes(bytes) => read += bytes.len(),
                    longshore::Chunk::Gap { missed: more } => missed += usize::try_from(more).unwrap(),
                }
            }
            let grown = peak_memory().saturating_sub(before);
            assert!(grown < (8 << 20) + 2 * replay as u64, "{replay}: {grown} bytes");
            // The last chunk stays even if it exceeds the limit.
            assert!(read + missed == WRITES && read >= kept && read <= kept + (64 << 10), "{read}, {missed}");
            assert!(began.elapsed().as_secs() < 5, "{replay}: {:?}", began.elapsed());
        }
        stage.finish(executor).await;
    });
}

/// Readers that do not read, or read a byte now and then: of events, and of outputs that are written without an end.
#[test]
fn slow_readers_cost_no_memory() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let held = executor.run(sleeper()).await.unwrap();
        held.started().await.unwrap();
        let (mut of_one, mut of_all) = (held.events(), executor.events());
        let mut spec = shell("yes & exec yes >&2").piped();
        spec.process.stdio.stderr = longshore::Stdio::Shared { replay: 64 << 10 };
        let loud = executor.run(spec).await.unwrap();
        let (mut alone, mut shared) = (loud.io().take_stdout().unwrap(), loud.io().attach_stderr().unwrap());
        loud.started().await.unwrap();
        peak_memory();
        let before = peak_memory();
        for _ in 0..120 {
            held.exec(ExecSpec::new(["true"])).await.unwrap().wait().await;
            let mut byte = [0];
            tokio::io::AsyncReadExt::read_exact(&mut alone, &mut byte).await.unwrap();
        }
        let grown = peak_memory().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes");
        loud.cancel(longshore::Cancel::now()).await;
        assert!(matches!(shared.next().await, Some(longshore::Chunk::Gap { missed }) if missed > 1 << 20));
        // What is left in its pipe could be read.
        drop(alone);
        // The last 256 events of a container are kept for a subscriber, and the last 4,096 of an executor.
        assert!(matches!(of_one.next().await, Some(longshore::Notice::Snapshot(_))));
        assert!(matches!(of_one.next().await, Some(longshore::Notice::Gap { missed }) if missed > 60));
        assert!(matches!(of_all.next().await, Some(longshore::Notice::Event(_))));
        held.cancel(longshore::Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// An exec in a container that has as many processes as it may have.
#[test]
fn pids_full() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut refused = 0;
        for limit in [2, 3, 4] {
            let mut spec =
                shell(&format!("for n in $(seq {}); do sleep 1000 & done; echo full; wait", limit - 1));
            spec.resources.pids = Some(limit);
            let container = executor.run(spec.piped()).await.unwrap();
            container.io().take_stdout().unwrap().next_chunk().await.unwrap();
            // The runtime forks before it joins the cgroup or after it, as it comes: it may succeed.
            for _ in 0..8 {
                let exit = container.exec(ExecSpec::new(["true"])).await.unwrap().wait().await;
                if let ExitReason::StartFailed(failure) = &exit.reason {
                    assert_eq!(failure.kind, StartFailureKind::NoResources, "{limit}: {failure:?}");
                    refused += 1;
                } else {
                    // runc reports that the process runs before it executes the program. Without a thread, runc ends with 2.
                    let is_runcs = exit.status == ExitStatus::Code(2);
                    assert!(exit.is_success() || is_runcs, "{limit}: {exit:?}");
                }
            }
            container.cancel(longshore::Cancel::now()).await;
        }
        // crun enters the cgroup when it forks no more.
        let is_crun = longshore_tests::runtime_program().ends_with("crun");
        assert!(refused > 0 || is_crun, "none was refused");
        stage.finish(executor).await;
    });
}

/// Layers without the files that are mounted, in a user namespace.
#[test]
fn idmap_layers() {
    on_stage(async |stage| {
        fs::set_permissions(stage.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let executor = stage.executor();
        let base = stage.directory_spec(["true"]);
        let Rootfs::Dir(layer) = base.rootfs.clone() else { panic!("no directory") };
        let _none = fs::remove_file(layer.join("etc/hosts"));
        let mut spec =
            ContainerSpec::layers([&layer], ["sh", "-c", "grep -c localhost /etc/hosts; stat -c %u /data"]);
        spec.mounts = base.mounts.clone();
        spec.mounts.push(Mount::tmpfs("/data"));
        spec.id_map = Some(IdMap::both(vec!["0:100000:65536".parse().unwrap()]));
        assert_eq!(says(&executor, spec).await, "2\n0\n");
        assert!(!layer.join("etc/hosts").exists() && !layer.join("data").exists(), "the layer was changed");
        stage.finish(executor).await;
    });
}

/// Makes two cgroups in one another below the container's own, freezes both with a process in the inner one, and says so. A freezer of v1
/// may stay at FREEZING until it is written to again.
const FREEZES_A_PART: &str = "set -e
    top=/sys/fs/cgroup; file=cgroup.freeze; frozen=1
    if [ -d $top/freezer ]; then top=$top/freezer; file=freezer.state; frozen=FROZEN; fi
    mkdir $top/outer $top/outer/inner
    sleep 1000 & echo $! > $top/outer/inner/cgroup.procs
    for dir in $top/outer/inner $top/outer; do
        until echo $frozen > $dir/$file
            grep -qE '^(FROZEN|frozen 1)$' $dir/freezer.state $dir/cgroup.events 2>/dev/null
        do sleep 0.01; done
    done
    echo frozen; ";

/// How long what is frozen may keep its container from ending. It was for ever.
const THAWED_WITHIN: Duration = Duration::from_secs(20);

/// An insecure container freezes a part of itself, and exits, or is cancelled with this grace.
fn ends_with_a_frozen_part(rest: &'static str, grace: Option<Duration>) {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = shell(&format!("{FREEZES_A_PART}{rest}")).piped();
        spec.security = Security::Insecure;
        let container = executor.run(spec).await.unwrap();
        let said = container.io().take_stdout().unwrap().next_chunk().await;
        assert_eq!(said.as_deref(), Some(&b"frozen\n"[..]));
        let begun = Instant::now();
        let (exit, expected) = match grace {
            None => (container.wait().await, ExitStatus::Code(3)),
            Some(grace) => {
                let killed = ExitStatus::Signal(longshore::Signal::KILL);
                (container.cancel(Cancel::with_grace(grace)).await, killed)
            }
        };
        assert_eq!(exit.status, expected, "{exit:?}");
        assert_eq!(container.released().await.unwrap(), []);
        assert!(begun.elapsed() < THAWED_WITHIN, "{:?}", begun.elapsed());
        stage.finish(executor).await;
    });
}

#[test]
fn nested_freeze() {
    ends_with_a_frozen_part("exit 3", None);
}

#[test]
fn nested_freeze_cancelled() {
    for grace in [Duration::ZERO, Duration::from_secs(1)] {
        ends_with_a_frozen_part("exec sleep 1000", Some(grace));
    }
}

/// The same when the embedder is killed: the next sweep ends it.
#[test]
fn nested_freeze_swept() {
    on_bare_stage(|stage| {
        let mut command = longshore(&stage.root());
        command.args(["run", "--security", "insecure", "--", "sh", "-c"]);
        command.arg(format!("{FREEZES_A_PART}sleep 1000"));
        let mut command = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(command.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "frozen\n");
        command.kill().unwrap();
        command.wait().unwrap();
        let begun = Instant::now();
        let swept = call(&stage.root(), &["sweep"]);
        assert_eq!(swept.code, Some(0), "{swept:?}");
        assert!(begun.elapsed() < THAWED_WITHIN, "{:?}", begun.elapsed());
        stage.check();
    });
}
