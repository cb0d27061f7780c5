//! The streams of the command, and its signals, as a shell and its pipelines use them.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use longshore_tests::command::{Outcome, call, longshore};
use longshore_tests::{HUNG, on_bare_stage, patience};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// Waits for the end of the command, which nothing may hold.
fn ends(child: &mut Child, what: &str) -> ExitStatus {
    let deadline = Instant::now() + HUNG;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "{what}: the command does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Both ends of something that takes no more bytes, because nobody reads it.
enum Unread {
    Pipe(PipeReader),
    Terminal(File),
}

fn full_pipe() -> (Unread, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // One of the default size would be enlarged, and would not be full any more.
    rustix::pipe::fcntl_setpipe_size(&writer, 16 << 10).unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (Unread::Pipe(reader), writer.into())
}

fn terminal() -> (Unread, Stdio) {
    let (master, slave) = pseudo_terminal();
    (Unread::Terminal(master), slave.into())
}

fn hung_up() -> File {
    pseudo_terminal().1
}

fn pseudo_terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = File::options().read(true).write(true).open(name).unwrap();
    (master.into(), slave)
}

impl Drop for Unread {
    fn drop(&mut self) {
        match self {
            Self::Pipe(pipe) => assert!(rustix::io::ioctl_fionread(&*pipe).unwrap() > 0),
            // What was written before the first that did not fit.
            Self::Terminal(master) => assert!(master.read(&mut [0; 1]).unwrap() > 0),
        }
    }
}

/// Nobody reads what the command prints, whether it is the program's output, a sentence of the command's, or its log. The
/// container ends all the same, and a signal ends the command.
#[test]
fn a_signal_ends_the_wait_for_any_reader() {
    on_bare_stage(|stage| {
        type Make = fn() -> (Unread, Stdio);
        let chatty = &["--", "sh", "-c", "seq 1 5000; seq 1 5000 >&2"][..];
        let cases: [(&str, Make, &[&str], &str, i32); 7] = [
            ("the output, to a terminal", terminal, chatty, "", 125),
            ("the output, to a pipe", full_pipe, chatty, "", 125),
            ("endless output, to a terminal", terminal, &["--", "yes"], "", 143),
            ("endless output, to a pipe", full_pipe, &["--", "yes"], "", 143),
            ("a sentence, to a pipe", full_pipe, &["--", "no-such-program"], "", 127),
            ("a log, to a pipe", full_pipe, &["--", "sleep", "1000"], "trace", 143),
            ("a log, to a terminal", terminal, &["--", "sleep", "1000"], "trace", 143),
        ];
        for (what, make, program, log, code) in cases {
            let (_unread, out) = make();
            let longshore = longshore(&stage.root());
            // Its stdout and its stderr are one file.
            let mut command = Command::new("sh");
            command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(longshore.get_program());
            command.args(longshore.get_args()).args(["run", "--grace", "100ms"]).args(program);
            command.env("LONGSHORE_LOG", log).stdin(Stdio::null()).stdout(out);
            let mut child = command.spawn().unwrap();
            drop(command);
            interrupt(&mut child, what, code);
        }
        stage.check();
    });
}

fn interrupt(child: &mut Child, what: &str, code: i32) {
    std::thread::sleep(patience(Duration::from_secs(1)));
    assert_eq!(child.try_wait().unwrap(), None, "{what}: it does not wait for its reader");
    kill(pid(child), Signal::SIGTERM).unwrap();
    assert_eq!(ends(child, what).code(), Some(code), "{what}");
}

/// The command with a program whose lines are read.
struct Program {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Program {
    fn start(root: &Path, options: &[&str], script: &str) -> Self {
        let mut command = longshore(root);
        command.arg("run").args(options).args(["--", "sh", "-c", script]);
        // As a job of this process.
        Self::of(command.process_group(0))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill(pid(&self.child), signal).unwrap();
    }

    /// Its further lines, and the code.
    fn rest(mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (rest, ends(&mut self.child, "the rest").code())
    }
}

/// Whether a process is stopped, as its shell sees it.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
}

fn stops(child: &Child) {
    let deadline = Instant::now() + HUNG;
    while !is_stopped(child.id()) {
        assert!(Instant::now() < deadline, "it does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A program that asks to end politely gets the signal itself, then SIGTERM, then SIGKILL.
#[test]
fn the_same_signal_then_term_then_kill() {
    on_bare_stage(|stage| {
        for signal in [Signal::SIGINT, Signal::SIGHUP] {
            let grace = patience(Duration::from_secs(2));
            let options = ["--grace", &format!("{}s", grace.as_secs())];
            let script = "trap 'echo INT' INT; trap 'echo HUP' HUP; trap 'echo TERM' TERM; echo ready;
                while :; do sleep 0.02; done";
            let mut program = Program::start(&stage.root(), &options, script);
            assert_eq!(program.line(), "ready");
            let begun = Instant::now();
            program.signal(signal);
            assert_eq!(program.line(), signal.as_str().trim_start_matches("SIG"));
            assert_eq!(program.line(), "TERM");
            assert!(begun.elapsed() >= grace / 2, "{:?}", begun.elapsed());
            assert_eq!(program.rest(), (String::new(), Some(137)));
            assert!(begun.elapsed() >= grace, "{:?}", begun.elapsed());
        }
        stage.check();
    });
}

/// As systemd does with `SendSIGHUP=yes`: that is one request, which has its grace.
#[test]
fn term_and_hup_together() {
    on_bare_stage(|stage| {
        let script = "trap 'sleep 0.5; exit 4' TERM HUP; echo ready; while :; do sleep 0.02; done";
        let mut program = Program::start(&stage.root(), &[], script);
        assert_eq!(program.line(), "ready");
        program.signal(Signal::SIGTERM);
        program.signal(Signal::SIGHUP);
        let (rest, code) = program.rest();
        assert_eq!((rest.as_str(), code), ("", Some(4)));
        stage.check();
    });
}

/// A file system that does not answer holds up the preparation of a container: signals and the timeout end the command.
#[test]
fn a_file_system_that_does_not_answer() {
    on_bare_stage(|stage| {
        let dir = stage.path("hangs");
        std::fs::create_dir(&dir).unwrap();
        let longshore = longshore(&stage.root());
        // The kernel waits for a server that never reads its requests, until descriptor 3 is closed.
        let script = "exec 3<>/dev/fuse && mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 hangs \"$0\" && \"$@\"";
        let start = |options: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(["--mount", "bash", "-c", script]).arg(&dir).arg(longshore.get_program());
            command.args(longshore.get_args()).arg("run").args(options);
            command.args(["-v", &format!("{}:/x", dir.display()), "--", "true"]);
            command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        for (options, signal, code) in [
            (&["--timeout", "1s"][..], None, 124),
            (&[], Some(Signal::SIGTERM), 143),
            (&[], Some(Signal::SIGINT), 130),
        ] {
            let mut child = start(options);
            let begun = Instant::now();
            if let Some(signal) = signal {
                std::thread::sleep(patience(Duration::from_secs(1)));
                nix::sys::signal::killpg(pid(&child), signal).unwrap();
            }
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            let ended = ends(&mut child, "the command");
            // bash ends by the signal as well.
            let ended =
                ended.code().or(std::os::unix::process::ExitStatusExt::signal(&ended).map(|n| 128 + n));
            assert_eq!(ended, Some(code), "{said}");
            assert!(begun.elapsed() < patience(Duration::from_secs(20)), "{:?}", begun.elapsed());
            assert!(said.contains("a file system may not answer"), "{said}");
        }
        let swept = call(&stage.root(), &["sweep"]);
        // Each run sweeps what the former has left.
        assert_eq!((swept.code, swept.stdout.lines().count()), (Some(0), 1), "{swept:?}");
        stage.check();
    });
}

/// As Ctrl-Z does with a job: the command stops, and its container does not run while it is stopped.
#[test]
fn stopped_and_continued() {
    on_bare_stage(|stage| {
        let script = "trap 'exit 7' TERM; echo ready; while :; do echo x >> count; sleep 0.01; done";
        let dir = stage.path("shared");
        std::fs::create_dir(&dir).unwrap();
        let volume = format!("{}:/shared", dir.display());
        let mut program = Program::start(&stage.root(), &["-v", &volume, "-w", "/shared"], script);
        assert_eq!(program.line(), "ready");
        let count = || std::fs::metadata(dir.join("count")).map_or(0, |file| file.len());
        for _ in 0..3 {
            program.signal(Signal::SIGTSTP);
            stops(&program.child);
            let before = count();
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(count(), before, "the container goes on");
            program.signal(Signal::SIGCONT);
            let deadline = Instant::now() + HUNG;
            while count() == before {
                assert!(Instant::now() < deadline, "the container does not go on");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // A stopped job is ended by both signals, as a shell sends them.
        program.signal(Signal::SIGTSTP);
        stops(&program.child);
        program.signal(Signal::SIGTERM);
        program.signal(Signal::SIGCONT);
        assert_eq!(program.rest(), (String::new(), Some(7)));
        stage.check();
    });
}

/// SIGCONT right after SIGTSTP, as job control has it: the command goes on.
#[test]
fn continued_at_once() {
    on_bare_stage(|stage| {
        let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let mut program = Program::start(&stage.root(), &[], script);
        assert_eq!(program.line(), "ready");
        for _ in 0..20 {
            program.signal(Signal::SIGTSTP);
            program.signal(Signal::SIGCONT);
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(patience(Duration::from_millis(300)));
        assert!(!is_stopped(program.child.id()), "nobody continues it any more");
        program.signal(Signal::SIGTERM);
        assert_eq!(program.rest(), (String::new(), Some(7)));
        stage.check();
    });
}

/// The kernel stops no group of processes that no shell could continue, as the only program of a terminal. So do we.
#[test]
fn the_only_program_of_a_terminal() {
    on_bare_stage(|stage| {
        let longshore = longshore(&stage.root());
        // With a session of its own, and no shell in it.
        let mut command = Command::new("setsid");
        command.arg(longshore.get_program()).args(longshore.get_args());
        let script = "trap 'exit 7' TERM; while echo x; do sleep 0.01; done";
        let mut program = Program::of(command.args(["run", "--", "sh", "-c", script]));
        for _ in 0..3 {
            assert_eq!(program.line(), "x");
            program.signal(Signal::SIGTSTP);
            std::thread::sleep(patience(Duration::from_millis(300)));
            assert!(!is_stopped(program.child.id()));
        }
        for _ in 0..100 {
            assert_eq!(program.line(), "x");
        }
        program.signal(Signal::SIGTERM);
        assert_eq!(program.rest().1, Some(7));
        stage.check();
    });
}

/// A container that is being started cannot be frozen: the command stops as soon as it runs, and its program with it.
#[test]
fn stopped_while_it_starts() {
    on_bare_stage(|stage| {
        let began = stage.path("began");
        let slow = format!("touch {}; sleep 1; exec $RUNC \"$@\"", began.display());
        let slow = stage.wrapper(&slow);
        let mut command = Command::new(longshore_tests::command::program());
        command.arg("--root").arg(stage.root()).args(["--runtime", slow.to_str().unwrap()]);
        let script = "trap 'exit 7' TERM; while echo x; do sleep 0.01; done";
        command.args(["run", "--", "sh", "-c", script]);
        let mut program = Program::of(command.process_group(0));
        let deadline = Instant::now() + HUNG;
        while !began.exists() {
            assert!(Instant::now() < deadline, "it does not start");
            std::thread::sleep(Duration::from_millis(1));
        }
        program.signal(Signal::SIGTSTP);
        stops(&program.child);
        let unread = || rustix::io::ioctl_fionread(program.lines.get_ref()).unwrap();
        let before = unread();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(unread(), before, "the program goes on");
        program.signal(Signal::SIGCONT);
        assert_eq!(program.line(), "x");
        program.signal(Signal::SIGTERM);
        assert_eq!(program.rest().1, Some(7));
        stage.check();
    });
}

/// Nothing can look after a container whose command was killed: it runs until the next executor on the root removes it.
#[test]
fn kill_9_of_the_command() {
    on_bare_stage(|stage| {
        let mut program = Program::start(&stage.root(), &[], "echo ready; exec sleep 1000");
        assert_eq!(program.line(), "ready");
        program.signal(Signal::SIGKILL);
        assert_eq!(program.rest().1, None);
        let swept = call(&stage.root(), &["sweep"]);
        assert_eq!(swept.code, Some(0), "{swept:?}");
        assert!(swept.stdout.contains("killed"), "{swept:?}");
        // The next run does so, too.
        let mut program = Program::start(&stage.root(), &[], "echo ready; exec sleep 1000");
        assert_eq!(program.line(), "ready");
        program.signal(Signal::SIGKILL);
        assert_eq!(program.rest().1, None);
        assert_eq!(call(&stage.root(), &["run", "--", "true"]).code, Some(0));
        stage.check();
    });
}

/// Signals to the command that interrupt what it does at any moment: no output is lost, nothing ends.
#[test]
fn signals_while_it_copies() {
    on_bare_stage(|stage| {
        let file = stage.path("output");
        let mut command = longshore(&stage.root());
        let script = "trap '' USR1 USR2 ALRM; for i in $(seq 400); do echo $i; sleep 0.005; done";
        command.args(["run", "--", "bash", "-c", script]).stdout(File::create(&file).unwrap());
        let mut child = command.spawn().unwrap();
        drop(command);
        while std::fs::metadata(&file).unwrap().len() == 0 {
            assert_eq!(child.try_wait().unwrap(), None);
        }
        let status = loop {
            for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM] {
                kill(pid(&child), signal).unwrap();
            }
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
        };
        let lines = std::fs::read_to_string(&file).unwrap();
        assert_eq!((status.code(), lines.lines().count()), (Some(0), 400));
        stage.check();
    });
}

/// Whoever ended the program, or the wait for its reader: what was not read is told.
#[test]
fn output_that_is_not_read() {
    on_bare_stage(|stage| {
        let said = "output of the program is lost: its reader has not read it";
        for (options, script, code, is_lost) in [
            (&["--timeout", "1s"][..], "seq 1 200000; exec sleep 1000", 124, true),
            (&["--memory", "32m", "--no-init"], "seq 1 200000; exec tail /dev/zero", 137, false),
        ] {
            let mut command = longshore(&stage.root());
            // A slow machine needs longer to fill the pipes.
            let timeout = format!("{}s", patience(Duration::from_secs(1)).as_secs());
            let options = options.iter().map(|option| option.replace("1s", &timeout));
            command.arg("run").args(options).args(["--", "sh", "-c", script]);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(patience(Duration::from_secs(5)));
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), stderr.contains(said)), (Some(code), is_lost), "{stderr}");
            assert_eq!(output.stdout.len() < 1_288_894, is_lost);
        }
        // Nobody reads either.
        let mut command = longshore(&stage.root());
        command.args(["run", "--timeout", "1s", "--", "sh", "-c", "yes >&2 & yes"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        assert_eq!(ends(&mut child, "two readers that do not read").code(), Some(124));
        assert!(begun.elapsed() < patience(Duration::from_secs(15)), "{:?}", begun.elapsed());
        drop((child, command));
        // Nor the events.
        let (reader, writer) = full_pipe();
        let mut command = longshore(&stage.root());
        let events = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&std::io::stdin()));
        command.args(["run", "--timeout", "1s", "--events", &events, "--", "sleep", "1000"]);
        let mut child = command.stdin(writer).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        assert_eq!(ends(&mut child, "events that nobody reads").code(), Some(124));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("events are lost: its reader has not read it"), "{said}");
        drop((child, reader));
        stage.check();
    });
}

/// A reader that has gone ends the program as it ends one in a pipeline of a shell: by SIGPIPE, if it writes and does not
/// handle it, also as process 1.
#[test]
fn broken_pipes_of_a_shell() {
    on_bare_stage(|stage| {
        let longshore = longshore(&stage.root());
        let words = std::iter::once(longshore.get_program()).chain(longshore.get_args());
        let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
        for (program, reader, code) in [
            ("yes", "head -1", "141"),
            ("--init -- yes", "head -1", "141"),
            ("--no-init -- yes", "head -1", "141"),
            ("--no-init -- cat /dev/zero", "head -c 1", "141"),
            // It does not write. Its child does, and the first argument of its call is 1.
            ("--no-init -- perl -e \"$SLEEPER\"", "head -1", "5"),
            ("cat /dev/zero", "head -c 1", "141"),
            ("sh -c 'while echo x; do :; done'", "head -1", "141"),
            ("sh -c 'exec yes >&2' 2>&1", "head -1", "141"),
            // Its child is ended. It goes on.
            ("sh -c 'yes; exit 5'", "head -1", "5"),
            ("sh -c 'trap \"\" PIPE; yes 2>/dev/null; exit 6'", "head -1", "6"),
            // They write no more.
            ("seq 1 3", "true", "0"),
            ("sh -c 'echo x; exit 3'", "true", "3"),
        ] {
            let script =
                format!("{} run {program} | {reader} >/dev/null; echo ${{PIPESTATUS[0]}}", words.join(" "));
            let sleeper = "use Time::HiRes qw(clock_nanosleep CLOCK_MONOTONIC); fork or exec 'yes';
                clock_nanosleep(CLOCK_MONOTONIC, 5e8); exit 5";
            let mut bash = Command::new("bash");
            let said =
                bash.env("SLEEPER", sleeper).args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), code, "{script}: {said:?}");
            assert!(said.stderr.is_empty(), "{script}: {said:?}");
        }
        stage.check();
    });
}

/// A file that is there, and whose first page is not.
#[test]
fn a_stdin_that_cannot_be_read_is_said() {
    on_bare_stage(|stage| {
        let run = |stdin: File, script: &str| {
            let mut command = longshore(&stage.root());
            command.args(["run", "-i", "--", "sh", "-c", script]).stdin(stdin);
            Outcome::from(command.output().unwrap())
        };
        let unreadable = || File::open("/proc/self/mem").unwrap();
        let said = "longshore: input of the program is lost: stdin: Input/output error (os error 5); give it a file or a pipe that can be read, or leave out -i\n";
        let outcome = run(unreadable(), "cat; echo end");
        assert_eq!(
            (outcome.stdout.as_str(), outcome.stderr.as_str(), outcome.code),
            ("end\n", said, Some(125))
        );
        let outcome = run(unreadable(), "cat; exit 3");
        assert_eq!((outcome.stderr.as_str(), outcome.code), (said, Some(3)));
        // It can only be written.
        let write_only = File::options().write(true).open("/dev/null").unwrap();
        assert!(run(write_only, "cat").stderr.contains("stdin: Bad file descriptor"));
        assert_eq!(run(File::open("/dev/null").unwrap(), "cat").code, Some(0));
        // A terminal that has vanished has ended.
        let outcome = run(hung_up(), "cat; echo end");
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str(), outcome.code), ("end\n", "", Some(0)));
        stage.check();
    });
}

/// A program that closes its streams and runs on: their reader sees the end, and their writer that nobody reads.
#[test]
fn the_end_of_a_stream_is_passed_on() {
    use std::io::{Read, Write};
    on_bare_stage(|stage| {
        for init in [&["--init"][..], &["--no-init"]] {
            let mut command = longshore(&stage.root());
            command.args(["run", "-i", "--grace", "0s"]).args(init);
            command.args(["--", "sh", "-c", "echo a; exec <&- >&-; sleep 1000"]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut text = String::new();
            child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "a\n");
            let mut stdin = child.stdin.take().unwrap();
            let broken =
                std::iter::repeat_with(|| stdin.write_all(&[b'x'; 4096])).find_map(Result::err).unwrap();
            assert_eq!(broken.kind(), std::io::ErrorKind::BrokenPipe);
            assert!(child.try_wait().unwrap().is_none(), "it runs on");
            rustix::process::kill_process(
                rustix::process::Pid::from_child(&child),
                rustix::process::Signal::TERM,
            )
            .unwrap();
            child.wait().unwrap();
        }
        stage.check();
    });
}
