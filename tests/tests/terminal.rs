//! Terminals on the real runtime: sizes, tails, ends, and the command on a terminal of the user's.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use longshore::{
    Cancel, ContainerHandle, ContainerSpec, ExecId, ExecSpec, ExitReason, ExitStatus, Output,
    StartFailureKind, Stdio, TerminalSize,
};
use longshore_tests::{on_stage, patience, sleeper, text};

fn on_terminal(script: &str) -> ContainerSpec {
    let mut spec = ContainerSpec::host(["sh", "-c", script]).piped();
    spec.process.stdio.stdin = Stdio::Pipe;
    spec.process.terminal = Some(TerminalSize { rows: 40, columns: 100 });
    spec
}

/// Reads until this has come.
async fn expect(output: &mut Output, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) {
        let chunk = tokio::time::timeout(longshore_tests::HUNG, output.next_chunk()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("{text:?} does not come after {all:?}"));
        all += &String::from_utf8_lossy(
            &chunk.unwrap_or_else(|| panic!("the end, not {text:?}, after {all:?}")),
        );
    }
    all
}

fn output(container: &ContainerHandle) -> Output {
    container.io().take_stdout().unwrap()
}

#[test]
fn tty_size() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let script = "stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.01; done";
        let container = executor.run(on_terminal(script)).await.unwrap();
        let mut stdout = output(&container);
        assert_eq!(
            expect(&mut stdout, "ready").await,
            "40 100\r\nready\r\n",
            "the size is there before the start"
        );
        container.resize(TerminalSize { rows: 10, columns: 20 }).await.unwrap();
        assert!(expect(&mut stdout, "\n").await.starts_with("10 20"), "SIGWINCH is seen inside");

        // An exec's own terminal, resized before it has started: the last size counts.
        let mut spec = ExecSpec::new(["sh", "-c", "sleep 0.2; stty size; tty; ls -l /proc/self/fd"]).piped();
        spec.terminal = Some(TerminalSize::default());
        let exec = container.exec(spec).await.unwrap();
        for rows in [1, 2, 33] {
            exec.resize(TerminalSize { rows, columns: 44 }).await.unwrap();
        }
        let all = text(exec.io().take_stdout().unwrap().read_to_end().await);
        assert!(all.starts_with("33 44\r\n/dev/pts/"), "{all}");
        assert!(exec.wait().await.is_success());
        assert!(exec.io().take_stderr().is_none(), "a terminal is one stream");
        container.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// A size that is asked for before the program runs is what the program finds: of a run, of one that is held at created,
/// of an exec, and of one that was kept ready.
#[test]
fn resize_before_start() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let small = TerminalSize { rows: 34, columns: 12 };
        let sized = || {
            let mut spec = on_terminal("stty size");
            spec.process.terminal = Some(TerminalSize { rows: 24, columns: 80 });
            spec
        };
        let held = executor.run(on_terminal("sleep 1000")).await.unwrap();
        held.started().await.unwrap();
        for _ in 0..10 {
            let container = executor.run(sized()).await.unwrap();
            container.resize(small).await.unwrap();
            assert_eq!(text(output(&container).read_to_end().await), "34 12\r\n", "of a run");

            let created = executor.create(sized()).await.unwrap();
            created.created().await.unwrap();
            created.resize(TerminalSize { rows: 1, columns: 1 }).await.unwrap();
            created.resize(small).await.unwrap();
            created.start().await.unwrap();
            assert_eq!(text(output(&created).read_to_end().await), "34 12\r\n", "of what was created");

            // crun makes an exec's terminal without a size, and does not wait for one.
            let script = if longshore_tests::on_runc() { "stty size" } else { "sleep 0.2; stty size" };
            let mut spec = ExecSpec::new(["sh", "-c", script]).piped();
            spec.terminal = Some(TerminalSize { rows: 24, columns: 80 });
            // A terminal that the program has for its stdin as well.
            let exec = held.exec(spec).await.unwrap();
            exec.resize(small).await.unwrap();
            let said = text(exec.io().take_stdout().unwrap().read_to_end().await);
            assert_eq!(said, "34 12\r\n", "of an exec");
        }
        executor.prepare(sized(), 1).await.unwrap();
        let ready = executor.run(sized()).await.unwrap();
        assert_eq!(text(output(&ready).read_to_end().await), "24 80\r\n", "it ran when the run was answered");
        executor.prepare(sized(), 0).await.unwrap();
        held.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// An exec on a terminal, and another of its id: the size goes to the terminal that is there now.
#[test]
fn resize_of_an_exec_whose_id_comes_again() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let held = executor.run(sleeper()).await.unwrap();
        held.started().await.unwrap();
        for rows in 1..=5 {
            let mut spec = ExecSpec::new(["stty", "size"]).piped();
            spec.terminal = Some(TerminalSize { rows: 24, columns: 80 });
            let exec = held.exec(spec.id(ExecId::new("x").unwrap())).await.unwrap();
            exec.resize(TerminalSize { rows, columns: 7 }).await.unwrap();
            let said = text(exec.io().take_stdout().unwrap().read_to_end().await);
            assert_eq!(said, format!("{rows} 7\r\n"));
            assert!(exec.wait().await.is_success());
        }
        held.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

#[test]
fn tty_tail() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(on_terminal("stty -onlcr; seq 1 200000")).await.unwrap();
        let mut stdout = output(&container);
        let mut all = Vec::new();
        while let Some(chunk) = stdout.next_chunk().await {
            all.extend(chunk);
            if all.len() < 1 << 20 {
                tokio::time::sleep(Duration::from_millis(1)).await; // a slow reader
            }
        }
        let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(all.len(), expected.len());
        assert_eq!(text(all), expected);
        assert!(container.wait().await.is_success());
        stage.finish(executor).await;
    });
}

#[test]
fn tty_never_ends() {
    on_stage(async |stage| {
        let executor = stage.executor();
        // Nobody but the program holds the slave: its end is the end of the output.
        let container = executor.run(on_terminal("echo bye; exit 3")).await.unwrap();
        assert_eq!(text(output(&container).read_to_end().await), "bye\r\n");
        assert_eq!(container.wait().await.status, ExitStatus::Code(3));

        // What an exec leaves behind on its terminal is hung up when nobody reads it any more.
        let container = executor.run(sleeper()).await.unwrap();
        let mut spec = ExecSpec::new(["sh", "-c", "(trap '' HUP; sleep 1000) & echo left"]).piped();
        spec.terminal = Some(TerminalSize::default());
        let exec = container.exec(spec).await.unwrap();
        assert!(exec.wait().await.is_success());
        assert_eq!(text(exec.io().take_stdout().unwrap().read_to_end().await), "left\r\n");
        container.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// Which ends of a terminal are dropped, in order. The handle that resizes is kept.
#[derive(Clone, Copy, Debug)]
enum Drops {
    Output,
    OutputThenInput,
    InputThenOutput,
}

/// Drops ends of a terminal whose program has said that it is ready. Returns the end that is still held.
async fn drop_ends(io: &longshore::Io, drops: Drops) -> Option<longshore::Input> {
    let (input, mut output) = (io.take_stdin().unwrap(), io.take_stdout().unwrap());
    expect(&mut output, "ready").await;
    let held = match drops {
        Drops::Output => Some(input),
        Drops::OutputThenInput => None,
        Drops::InputThenOutput => {
            drop(input);
            None
        }
    };
    drop(output);
    held
}

async fn ended(what: String, exit: impl Future<Output = longshore::Exit>) -> ExitStatus {
    let exit = tokio::time::timeout(Duration::from_secs(10), exit).await;
    exit.unwrap_or_else(|_| panic!("{what}: it is still alive")).status
}

/// A terminal whose output is dropped is hung up, whether or not its input is held, and whatever its program does.
#[test]
fn hang_up() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let held = executor.run(sleeper()).await.unwrap();
        let handler = "trap 'exit 7' HUP;";
        for drops in [Drops::Output, Drops::OutputThenInput, Drops::InputThenOutput] {
            for busy in ["sleep 0.02", "echo more", "read line"] {
                let what = format!("{busy}, {drops:?}");
                let script = format!("echo ready; while :; do {busy}; done");
                let run = executor.run(on_terminal(&format!("{handler} {script}"))).await.unwrap();
                let input = drop_ends(run.io(), drops).await;
                assert_eq!(ended(what.clone(), run.wait()).await, ExitStatus::Code(7), "{what}");
                if let Some(mut input) = input {
                    input.write_all("late").await.unwrap_err();
                }
                // An exec needs no handler: it is not process 1.
                let by_default = ExitStatus::Signal(longshore::Signal::HUP);
                for (handler, status) in [(handler, ExitStatus::Code(7)), ("", by_default)] {
                    let mut spec = ExecSpec::new(["sh", "-c", &format!("{handler} {script}")]).piped();
                    spec.stdio.stdin = Stdio::Pipe;
                    let exec = held.exec(spec.terminal(TerminalSize::default())).await.unwrap();
                    let _input = drop_ends(exec.io(), drops).await;
                    assert_eq!(ended(what.clone(), exec.wait()).await, status, "{handler} {what}");
                }
            }
        }
        held.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

#[test]
fn input_and_its_end_reach_the_program_on_a_terminal() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(on_terminal("stty -echo; echo ready; cat; echo end")).await.unwrap();
        let (mut stdin, mut stdout) = (container.io().take_stdin().unwrap(), output(&container));
        expect(&mut stdout, "ready\r\n").await;
        stdin.write_all("hello\n").await.unwrap();
        expect(&mut stdout, "hello\r\n").await;
        drop(stdin);
        expect(&mut stdout, "end\r\n").await;
        assert!(container.wait().await.is_success());
        drop(stdout);

        // Ctrl-C is a signal inside.
        let script = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.01; done";
        let container = executor.run(on_terminal(script)).await.unwrap();
        let (mut stdin, mut stdout) = (container.io().take_stdin().unwrap(), output(&container));
        expect(&mut stdout, "ready\r\n").await;
        stdin.write_all("\x03").await.unwrap();
        expect(&mut stdout, "interrupted").await;
        assert_eq!(container.wait().await.status, ExitStatus::Code(5));
        drop((stdin, stdout));
        stage.finish(executor).await;
    });
}

#[test]
fn console_socket() {
    on_stage(async |stage| {
        // A root whose sockets' paths are longer than a socket's path can be.
        let runtime = longshore_tests::runtime_under_test(longshore::runc()).build().unwrap();
        let root = stage.root().join("x".repeat(100));
        let executor = longshore::Executor::builder(runtime).root(&root).build().unwrap();
        let container = executor.run(on_terminal("tty")).await.unwrap();
        assert!(text(output(&container).read_to_end().await).starts_with("/dev/pts/"));
        assert_eq!(
            executor.shutdown(Cancel::now(), longshore_tests::HUNG).await,
            longshore::ShutdownReport::default()
        );
        drop(executor);

        // A runtime that says the process runs, and hands over no terminal.
        let wrapper = stage.wrapper(
            "args=(); while [ $# -gt 0 ]; do if [ \"$1\" = --console-socket ]; then shift; else args+=(\"$1\"); fi; shift; done\n\
             bundle=; for ((i=0; i<${#args[@]}; i++)); do [ \"${args[i]}\" = --bundle ] && bundle=${args[i+1]}; done\n\
             [ -n \"$bundle\" ] && sed -i 's/\"terminal\":true/\"terminal\":false/' \"$bundle/config.json\"\n\
             exec $RUNC \"${args[@]}\"",
        );
        let executor = stage.executor_on(longshore::runc().runtime(wrapper.display().to_string()));
        let container = executor.run(on_terminal("sleep 1000")).await.unwrap();
        let exit = container.wait().await;
        let ExitReason::StartFailed(failure) = exit.reason else { panic!("{exit:?}") };
        assert_eq!(failure.kind, StartFailureKind::RuntimeBroken, "{failure}");
        assert!(failure.message.contains("terminal"), "{failure}");
        stage.finish(executor).await;
    });
}

/// A terminal of a user's, with a person at it.
struct User {
    master: std::fs::File,
    seen: std::sync::mpsc::Receiver<Vec<u8>>,
    slave: std::fs::File,
}

impl User {
    fn sit_down(rows: u16, columns: u16) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = std::fs::File::options().read(true).write(true).open(name).unwrap();
        let master = std::fs::File::from(master);
        let (mut reader, (sender, seen)) = (master.try_clone().unwrap(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = std::io::Read::read(&mut reader, &mut chunk) {
                drop(sender.send(chunk[..read].to_vec()));
            }
        });
        let user = Self { master, seen, slave };
        user.resize(rows, columns);
        user
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
    }

    /// Whether the terminal hands on keys as they are.
    fn is_raw(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.slave).unwrap().local_modes;
        !modes.contains(rustix::termios::LocalModes::ICANON)
    }

    /// What is typed before may be lost when the modes change.
    fn waits_until_raw(&self) {
        let deadline = std::time::Instant::now() + longshore_tests::HUNG;
        while !self.is_raw() {
            assert!(std::time::Instant::now() < deadline, "the terminal is not made raw");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn types(&mut self, keys: &str) {
        std::io::Write::write_all(&mut self.master, keys.as_bytes()).unwrap();
    }

    /// Returns everything until then.
    fn sees(&self, text: &str) -> String {
        let mut all = String::new();
        while !all.contains(text) {
            let chunk = self.seen.recv_timeout(longshore_tests::HUNG);
            let chunk = chunk.unwrap_or_else(|_| panic!("{text:?} is not seen after {all:?}"));
            all += &String::from_utf8_lossy(&chunk);
        }
        all
    }

    /// The command as a shell would start it: with the terminal as its own.
    fn starts(&self, root: &std::path::Path, args: &[&str]) -> std::process::Child {
        self.starts_program(longshore_tests::command::longshore(root).args(args))
    }

    fn starts_program(&self, program: &std::process::Command) -> std::process::Child {
        let stdio = || std::process::Stdio::from(self.slave.try_clone().unwrap());
        let mut command = std::process::Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(program.get_program()).args(program.get_args());
        command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap()
    }
}

#[test]
fn the_command_on_a_terminal_of_the_users() {
    longshore_tests::on_bare_stage(|stage| {
        let mut user = User::sit_down(30, 90);
        assert!(!user.is_raw());
        let mut command = user.starts(&stage.root(), &["run", "-it", "-e", "PS1=ready> ", "--", "sh"]);
        user.sees("ready> ");
        assert!(user.is_raw());
        user.types("stty size\n");
        user.sees("30 90");
        user.resize(20, 70);
        user.types("sleep 0.1; stty size\n");
        user.sees("20 70");
        // It says when it runs: until then the shell may be the one that is interrupted.
        user.types("sh -c 'echo up$((1)); exec sleep 1000'\n");
        user.sees("up1\r\n");
        // Ctrl-C ends the sleep inside, and not the command outside.
        user.types("\x03");
        user.sees("ready> ");
        user.types("echo $((6 * 7)); exit 7\n");
        user.sees("42\r\n");
        assert_eq!(command.wait().unwrap().code(), Some(7));
        assert!(!user.is_raw(), "the terminal was not restored");

        // However it ends.
        for (args, keys) in [
            (&["run", "-it", "--timeout", "300ms", "--grace", "0s", "--", "sleep", "1000"][..], ""),
            (&["run", "-it", "--", "no-such-program"], ""),
            (&["run", "-it", "--", "cat"], "\x04"),
        ] {
            let mut command = user.starts(&stage.root(), args);
            if !keys.is_empty() {
                user.waits_until_raw();
                user.types(keys);
            }
            assert!(command.wait().is_ok());
            assert!(!user.is_raw(), "{args:?}: the terminal was not restored");
        }

        // Output through -t without -i, and without a terminal to begin with.
        let output = std::process::Command::new(longshore_tests::command::program())
            .arg("--root")
            .arg(stage.root())
            .args(["run", "-t", "--", "sh", "-c", "tty; stty size; echo e >&2"])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert_eq!(text(output.stdout), "/dev/pts/0\r\n24 80\r\ne\r\n");
        assert_eq!((text(output.stderr), output.status.code()), (String::new(), Some(0)));
        drop(user);
        stage.check();
    });
}

/// Without `-t`, a program has no hold of the user's terminal. With `-t` alone, it writes to it as it is, and does not read it.
#[test]
fn keystrokes_left_terminal_and_cr_cr() {
    longshore_tests::on_bare_stage(|stage| {
        let mut user = User::sit_down(30, 90);
        let settings = |user: &User| {
            let now = rustix::termios::tcgetattr(&user.slave).unwrap();
            (now.input_modes, now.output_modes, now.local_modes)
        };
        let before = settings(&user);
        let greedy =
            "for fd in 0 1 2; do [ -t $fd ] && echo terminal $fd; done; stty -echo <&1; stty -echo <&2
            timeout 2 head -c 1 <&1; timeout 2 head -c 1 <&2; echo done";
        for options in [&[][..], &["-i"]] {
            let mut command =
                user.starts(&stage.root(), &[&["run"], options, &["--", "sh", "-c", greedy]].concat());
            let said = user.sees("done");
            assert!(!said.contains("terminal"), "{said}");
            assert_eq!(command.wait().unwrap().code(), Some(0));
            assert!(settings(&user) == before, "the program has set the terminal");
        }
        user.types("for the shell\n");
        let mut line = [0; 64];
        let read = std::io::Read::read(&mut user.slave, &mut line).unwrap();
        assert_eq!(&line[..read], b"for the shell\n", "the program has read what was typed");

        let mut command = user.starts(&stage.root(), &["run", "-t", "--", "sh", "-c", "echo one; echo two"]);
        let said = user.sees("two\r\n");
        assert!(said.ends_with("one\r\ntwo\r\n"), "{said:?}");
        assert_eq!(command.wait().unwrap().code(), Some(0));
        assert!(settings(&user) == before, "the terminal was not restored");

        // What is typed meanwhile is not shown amid its output, and is there for the next reader.
        let script = "echo up; while [ ! -e /mnt/go ]; do sleep 0.05; done; echo done";
        let volume = format!("{}:/mnt", stage.path("").display());
        let mut command = user.starts(&stage.root(), &["run", "-t", "-v", &volume, "--", "sh", "-c", script]);
        user.sees("up\r\n");
        user.types("typed\n");
        std::fs::write(stage.path("go"), "").unwrap();
        assert_eq!(user.sees("done\r\n"), "done\r\n");
        assert_eq!(command.wait().unwrap().code(), Some(0));
        assert!(settings(&user) == before, "the terminal was not restored");
        let read = std::io::Read::read(&mut user.slave, &mut line).unwrap();
        assert_eq!(&line[..read], b"typed\n");
        drop(user);
        stage.check();
    });
}

/// A shell with jobs, at a terminal. It has the command as `$L`.
fn shell_with_jobs(user: &User, root: &std::path::Path) -> std::process::Child {
    let longshore = longshore_tests::command::longshore(root);
    let words = std::iter::once(longshore.get_program()).chain(longshore.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let mut bash = std::process::Command::new("env");
    bash.args(["PS1=ready> ", "HISTFILE=", &format!("L={} run --grace 1s", words.join(" "))]);
    bash.args(["bash", "--norc", "--noprofile", "--noediting", "-i"]);
    let shell = user.starts_program(&bash);
    user.sees("ready> ");
    shell
}

/// A job in the background is not stopped by what the command does with the terminal: a signal ends its container.
#[test]
fn background_jobs_end_at_a_signal() {
    longshore_tests::on_bare_stage(|stage| {
        let mut user = User::sit_down(30, 90);
        let mut shell = shell_with_jobs(&user, &stage.root());
        for (round, options) in ["-i", "-it", "-t", ""].into_iter().enumerate() {
            user.types(&format!("$L {options} -- sh -c 'echo up$((1 + {round})); exec sleep 1000' &\n"));
            user.sees(&format!("up{}", 1 + round));
            // What is typed is the shell's: the command may have read it if it was to.
            user.types("kill %1; wait %1; echo code=$?\n");
            user.sees("code=143");
            assert!(!user.is_raw(), "{options}");
        }
        // The program's output waits, as after `stty tostop` a job would.
        let started = longshore_tests::patience(Duration::from_secs(1)).as_secs();
        user.types(&format!("stty tostop; $L -i -- sh -c 'echo hidden$((1)); exec sleep 1000' & sleep {started}; kill %1; wait %1; echo code=$?\n"));
        let said = user.sees("code=143");
        assert!(!said.contains("hidden1"), "{said}");
        user.types("exit\n");
        shell.wait().unwrap();
        drop(user);
        stage.check();
    });
}

/// In the background, the terminal is as the shell wants it. In the foreground, it is the program's.
#[test]
fn a_job_that_is_fetched_from_the_background_has_the_terminal() {
    longshore_tests::on_bare_stage(|stage| {
        let mut user = User::sit_down(30, 90);
        let mut shell = shell_with_jobs(&user, &stage.root());
        user.types("$L -it -e PS1='inside> ' -- sh &\n");
        user.sees("inside> ");
        assert!(!user.is_raw());
        user.types("fg\n");
        user.waits_until_raw();
        user.types("echo $((6 * 7)); exit 7\n");
        user.sees("42\r\n");
        user.sees("ready> ");
        assert!(!user.is_raw(), "the terminal was not restored");
        user.types("echo code=$?\n");
        user.sees("code=7");

        // timeout(1) in a script makes a group of its own, which is in the background.
        user.types("sh -c \"timeout 1 $L -it -- sh; echo code=\\$?\"\n");
        user.sees("code=124");
        user.types("exit\n");
        shell.wait().unwrap();
        drop(user);
        stage.check();
    });
}

/// There is no shell inside that would continue a program: Ctrl-Z does not stop it. It may read at once.
#[test]
fn suspended() {
    longshore_tests::on_bare_stage(|stage| {
        let mut user = User::sit_down(30, 90);
        for round in 0..3 {
            let mut command = user.starts(&stage.root(), &["run", "-it", "head", "-n", "2"]);
            user.waits_until_raw();
            user.types(&format!("first{round}\r"));
            user.sees(&format!("first{round}\r\nfirst{round}\r\n"));
            user.types("\u{1a}");
            user.sees("^Z");
            user.types(&format!("second{round}\r"));
            user.sees(&format!("second{round}\r\nsecond{round}\r\n"));
            assert_eq!(command.wait().unwrap().code(), Some(0));
        }
        drop(user);
        stage.check();
    });
}

/// A reader of the command's that never reads. The program is ended by signals and by its timeout, and so is the command.
#[test]
fn a_terminals_reader_that_never_reads() {
    longshore_tests::on_bare_stage(|stage| {
        let start = |options: &[&str]| {
            let mut command = longshore_tests::command::longshore(&stage.root());
            command.args(["run", "-t"]).args(options).args(["--", "yes"]);
            command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
            let (mut stdout, mut some) = (child.stdout.take().unwrap(), [0; 1]);
            std::io::Read::read_exact(&mut stdout, &mut some).unwrap();
            (child, stdout, std::time::Instant::now())
        };
        let (mut child, stdout, _) = start(&["--grace", "1000s", "--no-init"]);
        let pid = rustix::process::Pid::from_child(&child);
        let mut signals = 0;
        while child.try_wait().unwrap().is_none() {
            assert!(signals < 3, "three signals do not end it");
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            signals += 1;
            // Two at once are one.
            let next = std::time::Instant::now() + patience(Duration::from_millis(1500));
            while child.try_wait().unwrap().is_none() && std::time::Instant::now() < next {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        assert_eq!(child.wait().unwrap().code(), Some(137));
        drop(stdout);

        let limit = patience(Duration::from_secs(2));
        let (mut child, stdout, begun) =
            start(&["--timeout", &format!("{}s", limit.as_secs()), "--grace", "0s"]);
        while child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < limit * 5, "the timeout does not end it");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(child.wait().unwrap().code(), Some(124));
        drop(stdout);
        stage.check();
    });
}
