//! The `longshore` command as a user meets it: exit codes, sentences, streams, signals, leftovers.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use longshore::{EventOrder, Notice};
use longshore_tests::command::{Outcome, call, longshore};
use longshore_tests::{Stage, on_bare_stage, patience};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn sh(stage: &Stage, script: &str) -> Outcome {
    call(&stage.root(), &["run", "--", "sh", "-c", script])
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Starts a container whose program says `ready`, and waits for that.
fn start(stage: &Stage, options: &[&str], script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = longshore(&stage.root());
    command.arg("run").args(options).args(["--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, stdout)
}

#[test]
fn streams_and_codes_are_the_programs_own() {
    on_bare_stage(|stage| {
        let outcome = sh(&stage, "echo out; echo err >&2; exit 3");
        assert_eq!(outcome, Outcome { code: Some(3), stdout: "out\n".into(), stderr: "err\n".into() });
        for (options, script, code) in [
            (&[][..], "exit 0", 0),
            (&[], "exit 255", 255),
            (&[], "kill -TERM $$", 143),
            (&[], "kill -KILL $$", 137),
            // Process 1 is not ended by signals from within; `sh` goes on and ends well.
            (&["--no-init"], "kill -TERM $$", 0),
            (&["--no-init"], "kill -KILL $$", 0),
        ] {
            let args = [&["run"], options, &["--", "sh", "-c", script]].concat();
            let outcome = call(&stage.root(), &args);
            assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(code), ""), "{script}");
        }
        stage.check();
    });
}

#[test]
fn stdin_is_passed_on_only_when_asked_for() {
    on_bare_stage(|stage| {
        for (options, expected) in [(vec!["-i"], "hello"), (vec![], "")] {
            let mut command = longshore(&stage.root());
            command.arg("run").args(options).args(["--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(b"hello").unwrap();
            let outcome = Outcome::from(child.wait_with_output().unwrap());
            assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), expected));
        }
        stage.check();
    });
}

/// What looks familiar from other commands that run containers.
#[test]
fn words() {
    on_bare_stage(|stage| {
        let file = stage.path("variables");
        fs::write(&file, "# ours\nCOLOUR=red\nSIZE=1\n").unwrap();
        fs::create_dir(stage.path("a,b")).unwrap();
        fs::write(stage.path("a,b/file"), "with a comma\n").unwrap();
        let mount = format!("\"src={}\",dst=/mnt,ro", stage.path("a,b").display());
        let cid = stage.path("cid");
        let options = [
            "--rm",
            "--name",
            "named",
            "--network",
            "none",
            "-m",
            "-1",
            "--pids-limit",
            "-1",
            "--cpus",
            "-1",
            "--timeout",
            "0",
            "--env-file",
            file.to_str().unwrap(),
            "-e",
            "SIZE=2",
            "--mount",
            &mount,
            "--tmpfs",
            "/srv:size=1m,exec",
            "--shm-size",
            "1.5m",
            "--sysctl",
            "net.core.somaxconn=77",
            "--label",
            "team=blue",
            "--cidfile",
            cid.to_str().unwrap(),
        ];
        let script = "echo $COLOUR $SIZE; cat /mnt/file /proc/sys/net/core/somaxconn; \
            grep -E ' /(srv|dev/shm) ' /proc/self/mounts | cut -d ' ' -f 2,4 | sed s/,inode64// | sort";
        let outcome = call(&stage.root(), &[&["run"], &options[..], &["sh", "-c", script]].concat());
        let expected = "red 2\nwith a comma\n77\n\
            /dev/shm rw,nosuid,nodev,noexec,relatime,size=1536k\n/srv rw,nosuid,nodev,relatime,size=1024k\n";
        assert_eq!((outcome.stdout.as_str(), outcome.code), (expected, Some(0)), "{outcome:?}");
        assert_eq!(fs::read_to_string(cid).unwrap(), "named");
        let config = call(&stage.root(), &["spec", "--label", "team=blue", "true"]).stdout;
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["annotations"]["io.longshore.label.team"], "blue");
        let outcome = call(&stage.root(), &["run", "--privileged", "sh", "-c", "test -w /sys"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        stage.check();
    });
}

/// A program that does not handle SIGTERM is ended by it, and the sentence says that.
#[test]
fn pid1_ignores() {
    on_bare_stage(|stage| {
        let timed = |options: &[&str], script: &str| {
            let args =
                [&["run", "--timeout", "1s", "--grace", "60s"], options, &["sh", "-c", script]].concat();
            let begun = Instant::now();
            let outcome = call(&stage.root(), &args);
            (outcome.code, outcome.stderr, begun.elapsed())
        };
        let (code, said, took) = timed(&[], "exec sleep 40");
        assert_eq!(code, Some(124));
        assert!(said.contains("was over, and SIGTERM ended the program;"), "{said}");
        assert!(took < Duration::from_secs(30), "{took:?}");
        let (_, said, _) = timed(&["--stop-signal", "USR1"], "exec sleep 40");
        assert!(said.contains("was over, and SIGUSR1 ended the program;"), "{said}");
        let (_, said, _) = timed(&[], "trap 'exit 7' TERM; while :; do sleep 0.01; done");
        assert!(said.contains("and the program ended with exit code 7;"), "{said}");
        let (_, said, _) = timed(&["--quiet"], "exec sleep 40");
        assert_eq!(said, "");
        let is_ours = |options: &[&str]| {
            let read = call(&stage.root(), &[&["run"], options, &["cat", "/proc/1/cmdline"]].concat());
            read.stdout.starts_with("/dev/longshore-init\0")
        };
        assert_eq!((is_ours(&[]), is_ours(&["--no-init"])), (true, false));
        stage.check();
    });
}

/// Keys are passed on from a terminal only. Of a pipe, the program would wait for the end for ever.
#[test]
fn tty_piped_stdin() {
    on_bare_stage(|stage| {
        // A specification asks for a terminal, too.
        let spec = stage.path("spec.json");
        fs::write(&spec, call(&stage.root(), &["spec", "--json", "-t", "cat"]).stdout).unwrap();
        for words in [&["-it", "cat"][..], &["-i", "--spec", spec.to_str().unwrap()]] {
            let mut command = longshore(&stage.root());
            command.arg("run").args(words);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            drop(command);
            let outcome = Outcome::from(child.wait_with_output().unwrap());
            assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(125), ""));
            let sentence =
                "longshore: stdin is no terminal, and -t with -i passes on the keys of one; leave out -t";
            assert!(outcome.stderr.starts_with(sentence), "{}", outcome.stderr);
        }
        stage.check();
    });
}

#[test]
fn term_variable() {
    on_bare_stage(|stage| {
        for (own, options, expected) in [
            (Some("vt220"), &[][..], "vt220"),
            (None, &[], "xterm"),
            (Some("vt220"), &["-e", "TERM=dumb"], "dumb"),
        ] {
            let mut command = longshore(&stage.root());
            command.args(["run", "-t"]).args(options).args(["sh", "-c", "echo $TERM"]).stdin(Stdio::null());
            match own {
                Some(term) => command.env("TERM", term),
                None => command.env_remove("TERM"),
            };
            let outcome = Outcome::from(command.output().unwrap());
            assert_eq!(outcome.stdout.trim_end(), expected, "{outcome:?}");
        }
        stage.check();
    });
}

/// Where a run fails, so does the doctor, and says which step it was.
#[test]
fn doctor_says() {
    on_bare_stage(|stage| {
        let call = |action: &[&str]| {
            let mut command = std::process::Command::new("unshare");
            command.args(["-Ur", longshore_tests::command::program().to_str().unwrap(), "--root"]);
            Outcome::from(command.arg(stage.path("new/root")).args(action).output().unwrap())
        };
        let run = call(&["run", "true"]);
        assert_eq!((run.code, run.stderr.lines().count()), (Some(125), 1), "{run:?}");
        let doctor = call(&["doctor"]);
        assert_eq!(doctor.code, Some(1), "{doctor:?}");
        let sentence = doctor.stderr.strip_prefix("longshore: containers cannot be run here: ").unwrap();
        let why = run.stderr.lines().last().unwrap().rsplit("; ").next().unwrap();
        assert!(sentence.trim_end().ends_with(why), "{sentence} {run:?}");
        let json: Value = serde_json::from_str(&call(&["doctor", "--json"]).stdout).unwrap();
        let first = json["first_failure"].as_str().unwrap();
        assert!(json["works"] == false && sentence.starts_with(first), "{json} {sentence}");
        stage.check();
    });
}

/// When stdout and stderr go to the same place, their order there is the program's.
#[test]
fn one_place_for_both_streams_keeps_their_order() {
    on_bare_stage(|stage| {
        let file = fs::File::create(stage.path("both")).unwrap();
        let script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done";
        let mut command = longshore(&stage.root());
        command.args(["run", "--", "sh", "-c", script]);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        assert!(command.status().unwrap().success());
        drop(command);
        let expected: String = (1..=5).map(|i| format!("out {i}\nerr {i}\n")).collect();
        assert_eq!(fs::read_to_string(stage.path("both")).unwrap(), expected);
        stage.check();
    });
}

#[test]
fn options_reach_the_container() {
    on_bare_stage(|stage| {
        fs::create_dir(stage.path("shared")).unwrap();
        fs::write(stage.path("shared/file"), "from the host\n").unwrap();
        let volume = format!("{}:/mnt:ro", stage.path("shared").display());
        let outcome = call(
            &stage.root(),
            &[
                "run",
                "--id",
                "named",
                "-e",
                "COLOUR=red",
                "-w",
                "/tmp",
                "-u",
                "nobody",
                "-v",
                &volume,
                "--hostname",
                "ship",
                "--read-only",
                "--cpus",
                "0.5",
                "--pids",
                "64",
                "--memory",
                "64m",
                "--",
                "sh",
                "-c",
                "echo $COLOUR $PWD $(id -un) $(hostname); cat /mnt/file; touch /x || true; touch /mnt/x || true; ls /sys/class/net",
            ],
        );
        assert_eq!(outcome.stdout, "red /tmp nobody ship\nfrom the host\nlo\n");
        assert_eq!(outcome.stderr.matches("Read-only file system").count(), 2, "{}", outcome.stderr);
        let links = |options: &[&str]| {
            let args = [&["run"], options, &["--", "readlink", "/proc/self/ns/net"]].concat();
            call(&stage.root(), &args).stdout
        };
        let host = fs::read_link("/proc/self/ns/net").unwrap();
        assert_eq!(links(&["--net", "host"]).trim(), host.to_str().unwrap());
        assert_ne!(links(&[]).trim(), host.to_str().unwrap());
        stage.check();
    });
}

#[test]
fn limits_are_enforced() {
    on_bare_stage(|stage| {
        let root = stage.root();
        let outcome = call(&root, &["run", "--memory", "32m", "--", "tail", "/dev/zero"]);
        assert_eq!(outcome.code, Some(137));
        let sentence = "longshore: out of memory: the kernel killed the program at its limit of 32 MiB; raise --memory\n";
        assert_eq!(outcome.stderr, sentence);
        let forks = "for i in 1 2 3 4 5 6 7 8; do sleep 0 & done; wait";
        let outcome = call(&root, &["run", "--pids", "4", "--", "sh", "-c", forks]);
        assert!(outcome.stderr.contains("Cannot fork"), "{outcome:?}");
        stage.check();
    });
}

#[test]
fn a_timeout_says_so() {
    on_bare_stage(|stage| {
        let script = "trap 'exit 7' TERM; while :; do sleep 0.01; done";
        let timeout = format!("{:?}", patience(Duration::from_millis(500)));
        let outcome = call(&stage.root(), &["run", "--timeout", &timeout, "--", "sh", "-c", script]);
        assert_eq!(outcome.code, Some(124));
        let sentence = format!(
            "longshore: the timeout of {timeout} was over, and the program ended with exit code 7; give it more with --timeout\n"
        );
        assert_eq!(outcome.stderr, sentence);
        let limit = format!("{:?}", patience(Duration::from_millis(300)));
        let options = ["run", "--timeout", &limit, "--grace", "100ms", "--no-init", "--", "sleep", "1000"];
        let outcome = call(&stage.root(), &options);
        assert_eq!(outcome.code, Some(124));
        let sentence =
            "the program did not end within 100ms of SIGTERM and was killed with SIGKILL; give it more";
        assert!(outcome.stderr.contains(sentence), "{}", outcome.stderr);
        let at_once =
            call(&stage.root(), &["run", "--timeout", &limit, "--grace", "0", "--", "sleep", "1000"]);
        assert!(at_once.stderr.contains("was over, and the program was killed with SIGKILL;"), "{at_once:?}");
        stage.check();
    });
}

#[test]
fn ctrl_c_cancels_with_grace_and_a_second_one_kills() {
    on_bare_stage(|stage| {
        for number in [Signal::INT, Signal::TERM] {
            let (child, _stdout) =
                start(&stage, &[], "trap 'exit 9' INT TERM; echo ready; while :; do sleep 0.01; done");
            signal(&child, number);
            let outcome = Outcome::from(child.wait_with_output().unwrap());
            assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(9), ""));
        }
        let (mut child, stdout) =
            start(&stage, &["--grace", "1000s"], "trap '' INT TERM; echo ready; exec sleep 1000");
        signal(&child, Signal::INT);
        // The two must not arrive as one: the first is taken when the second is sent.
        let asked = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(asked.elapsed() < Duration::from_secs(30), "a second Ctrl-C does not kill");
            std::thread::sleep(Duration::from_millis(20));
            signal(&child, Signal::INT);
        }
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(137));
        drop(stdout);
        stage.check();
    });
}

#[test]
fn bad_input_is_one_clear_sentence_and_nothing_is_made() {
    on_bare_stage(|stage| {
        let root = stage.root();
        let cases: [(&[&str], i32, &str); 48] = [
            (&["run"], 125, "args: there is no command to run"),
            (&["run", "--", ""], 125, "args: the command is an empty word"),
            (&["run", "--id", "..", "--", "true"], 125, "an id begins with a letter or a digit"),
            (&["run", "--id", "a/b", "--", "true"], 125, "not '/'"),
            (&["run", "--rootfs", "/no/such/dir", "--", "true"], 125, "rootfs: /no/such/dir: No such file"),
            (&["run", "--rootfs", "/", "--", "true"], 125, "the host's own root"),
            (
                &["run", "--runtime", "no-such-runtime", "--", "true"],
                125,
                "cannot find an OCI runtime: no-such-runtime is not on PATH",
            ),
            (
                &["run", "-u", "no-such-user", "--", "true"],
                125,
                "\"no-such-user\" is not in the container's /etc/passwd",
            ),
            (&["run", "-w", "relative", "--", "true"], 125, "cwd: \"relative\" is not an absolute path"),
            (&["run", "-v", "/no/such:/x", "--", "true"], 125, "mount source: /no/such: No such file"),
            (&["run", "--memory", "1k", "--", "true"], 125, "memory: less than 6 MiB"),
            (&["run", "--cpus", "0.001", "--", "true"], 125, "cpus: give a number of CPUs"),
            (&["run", "--cpus=-2", "--", "true"], 125, "cpus: give a number of CPUs"),
            (&["run", "--memory", "-2", "--", "true"], 125, "-1 is no limit"),
            (&["run", "--network", "bridge", "true"], 125, "there is no bridge of ours"),
            (&["run", "-v", "/usr:/x:rshared", "true"], 125, "rshared: what the container mounts there"),
            (&["run", "--config", "/dev/zero", "true"], 125, "config: /dev/zero: cannot be read"),
            (&["run", "-d", "true"], 125, "the command waits for the program"),
            (&["run", "-p", "80:80", "true"], 125, "--net host has the ports of this machine"),
            (
                &["run", "--env-file", "/no/such", "true"],
                125,
                "--env-file /no/such: No such file or directory (os error 2); name a file that you may read",
            ),
            (&["run", "--ulimit", "nofile=10", "true"], 125, "too many open files; give another --ulimit"),
            (
                &["run", "--ulimit", "as=1000000", "true"],
                125,
                "cannot allocate memory; give another --ulimit",
            ),
            (
                &["run", "-u", "1000", "--ulimit", "nproc=1", "true"],
                125,
                "(os error 11); give another --ulimit",
            ),
            (
                &["run", "--pids", "1", "true"],
                125,
                "true: Resource temporarily unavailable (os error 11); raise --pids",
            ),
            (&["run", "-m", "64", "true"], 125, "can start; give another --memory, as in 64m"),
            (
                &["run", "--rootfs", "alpine:3", "sh"],
                125,
                "put a root file system there, or give another --rootfs",
            ),
            (&["run", "--layer", "alpine:3", "sh"], 125, "or give another --layer (there are no images)"),
            (&["run", "ubuntu:22.04"], 127, "not found on the container's PATH; check its name"),
            (&["run", "docker.io/x:1", "sh"], 127, "no such file in the container; check its name"),
            (&["run", "-v", "vol:/data", "true"], 125, "(there are no volumes by name)"),
            (
                &["run", "--runtime", "/bin/true", "true"],
                125,
                "it is no OCI runtime; name another one with --runtime",
            ),
            (&["run", "--it", "sh"], 125, "unexpected argument '--it' found; is it -it?"),
            (&["run", "--name", "", "true"], 125, "'--name <ID>'"),
            (&["run", "-e", "", "true"], 125, "that is no variable's name"),
            (&["run", "--sysctl", "vm.swappiness=1", "true"], 125, "--sysctl vm.swappiness: "),
            (&["run", "--cidfile", "/dev/null", "true"], 125, "--cidfile /dev/null: File exists"),
            (&["run", "--cpuset-cpus", "77", "--", "true"], 125, "--cpuset-cpus must name CPUs"),
            (&["run", "--cpuset-mems", "9", "--", "true"], 125, "--cpuset-mems must name memory nodes"),
            (&["run", "-u", "4294967295", "--", "true"], 125, "give --user numbers from 0"),
            (&["ps"], 125, "unrecognized subcommand 'ps'; a call of `longshore run` is one container"),
            (&["exec", "x", "sh"], 125, "start others from it"),
            (&["logs", "x"], 125, "redirect it"),
            (&["kill", "x"], 125, "send that process a signal"),
            (&["pull", "x"], 125, "there are no images"),
            (&["run", "--net", "cni:no-such", "--", "true"], 125, "choose another network with --net"),
            (&["run", "--", "no-such-program"], 127, "no-such-program: not found"),
            (&["run", "--", "/etc/passwd"], 126, "/etc/passwd: permission denied"),
            (
                &["run", "--events", "/no/such/dir/file", "--", "true"],
                125,
                "--events /no/such/dir/file: No such file",
            ),
        ];
        // crun goes on without the files that it cannot open, and fails for another reason.
        let is_for_all = |args: &[&str]| longshore_tests::on_runc() || !args.contains(&"nofile=10");
        for (args, code, text) in cases.into_iter().filter(|(args, ..)| is_for_all(args)) {
            let outcome = call(&root, args);
            assert_eq!(outcome.code, Some(code), "{args:?}: {outcome:?}");
            assert!(outcome.stderr.starts_with("longshore: "), "{args:?}: {}", outcome.stderr);
            let (said, text) = (outcome.stderr.to_lowercase(), text.to_lowercase());
            assert!(said.contains(&text), "{args:?}: {}", outcome.stderr);
            assert_eq!(outcome.stderr.lines().count(), 1, "{args:?}: {}", outcome.stderr);
            assert!(outcome.stderr.contains("; "), "there is nothing on what to do: {}", outcome.stderr);
        }
        stage.check();
    });
}

#[test]
fn a_taken_id_is_left_alone() {
    on_bare_stage(|stage| {
        let (child, mut stdout) = start(
            &stage,
            &["--id", "mine"],
            "trap 'echo still here; exit 0' TERM; echo ready; while :; do sleep 0.01; done",
        );
        let outcome = call(&stage.root(), &["run", "--id", "mine", "--", "true"]);
        assert_eq!(outcome.code, Some(125));
        assert!(outcome.stderr.contains("the container id mine is taken"), "{}", outcome.stderr);
        assert_eq!(
            call(&stage.root(), &["sweep"]).stdout,
            format!("nothing to sweep in {}\n", stage.root().display())
        );
        signal(&child, Signal::TERM);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "still here\n");
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
        drop(stdout);
        stage.check();
    });
}

#[test]
fn events_are_json_lines_in_order() {
    on_bare_stage(|stage| {
        let file = stage.path("events");
        let outcome = call(
            &stage.root(),
            &["run", "--id", "told", "--events", file.to_str().unwrap(), "--", "sh", "-c", "exit 3"],
        );
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(3), ""));
        let text = fs::read_to_string(file).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let names: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(names, ["registered", "started", "exited", "released"]);
        for (seq, line) in (1..).zip(&lines) {
            assert_eq!((line["seq"].as_u64(), line["container"].as_str()), (Some(seq), Some("told")));
            assert!(line["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{line}");
        }
        assert_eq!(lines[2]["exit"]["status"]["code"], 3);
        let mut order = EventOrder::default();
        for line in text.lines() {
            let Notice::Event(event) = serde_json::from_str(line).unwrap() else { panic!("{line}") };
            assert_eq!(order.check(&event), Ok(()));
        }
        assert!(order.is_complete());
        let on_stderr = call(&stage.root(), &["run", "--events", "-", "--", "true"]);
        assert_eq!(on_stderr.stderr.lines().count(), 4);
        stage.check();
    });
}

#[test]
fn spec_prints_what_run_would_use_and_makes_nothing() {
    on_bare_stage(|stage| {
        let outcome = call(&stage.root(), &["spec", "--hostname", "ship", "--memory", "64m", "--", "sh"]);
        let config: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(
            (config["hostname"].as_str(), config["process"]["args"][0].as_str()),
            (Some("ship"), Some("sh"))
        );
        assert_eq!(config["linux"]["resources"]["memory"]["limit"], 64 << 20);
        assert!(!stage.root().exists());
        stage.check();
    });
}

/// What `spec` prints is read again: the specification by `run --spec`, the configuration by `run --config`.
#[test]
fn what_spec_prints_can_be_run() {
    on_bare_stage(|stage| {
        let root = stage.root();
        let volume = format!("{}:/mnt:ro", stage.path("").display());
        let script = "echo $COLOUR $(hostname) $(id -un) $PWD; cat /etc/hosts | grep -c localhost; touch /mnt/x || true";
        let options = [
            "-e",
            "COLOUR=red",
            "--hostname",
            "ship",
            "-u",
            "nobody",
            "-w",
            "/tmp",
            "-v",
            &volume,
            "--pids",
            "64",
        ];
        let expected = call(&root, &[&["run"], &options[..], &["sh", "-c", script]].concat());
        assert_eq!(expected.stdout, "red ship nobody /tmp\n2\n");

        let spec = stage.path("spec.json");
        let printed = call(&root, &[&["spec", "--json"], &options[..], &["sh", "-c", script]].concat());
        fs::write(&spec, printed.stdout).unwrap();
        assert_eq!(call(&root, &["run", "--spec", spec.to_str().unwrap()]), expected);
        let mut from_stdin = longshore(&root);
        from_stdin.args(["run", "--spec", "-", "--hostname", "boat"]).stdin(fs::File::open(&spec).unwrap());
        let outcome = Outcome::from(from_stdin.output().unwrap());
        drop(from_stdin);
        assert_eq!(outcome.stdout, "red boat nobody /tmp\n2\n");

        let bundle = stage.path("bundle");
        fs::create_dir(&bundle).unwrap();
        let printed = call(&root, &[&["spec", "-t"], &options[..], &["sh", "-c", script]].concat());
        fs::write(bundle.join("config.json"), printed.stdout).unwrap();
        let bundle = bundle.to_str().unwrap();
        assert_eq!(call(&root, &["run", "--config", bundle, "--rootfs", "host"]), expected);
        stage.check();
    });
}

#[test]
fn a_wrong_specification_is_one_sentence_with_its_field_and_line() {
    on_bare_stage(|stage| {
        let file = stage.path("spec.json");
        let path = file.to_str().unwrap();
        for (text, expected) in [
            (
                "{\n  \"process\": {\"args\": [\"true\"],\n    \"cwd\": 5}}",
                "process.cwd: invalid type: integer `5`",
            ),
            ("{\n\n  \"process\": {\"arg\": []}}", "process.arg: unknown field `arg`"),
            ("{\n\n  \"resources\": {\"memory\": -1}}", "resources.memory: invalid value"),
            ("{\n\n  \"rootfs\": ", "EOF while parsing a value"),
            ("{}\n\n{}", "trailing characters"),
        ] {
            fs::write(&file, text).unwrap();
            let outcome = call(&stage.root(), &["run", "--spec", path, "true"]);
            assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(125), 1), "{outcome:?}");
            assert!(outcome.stderr.contains(path) && outcome.stderr.contains(expected), "{}", outcome.stderr);
            assert!(outcome.stderr.contains("at line 3 column "), "{}", outcome.stderr);
        }
        let missing = call(&stage.root(), &["run", "--spec", "/no/such/spec.json"]);
        assert!(missing.stderr.contains("--spec /no/such/spec.json: No such file"), "{}", missing.stderr);
        let both = call(&stage.root(), &["run", "-i", "--spec", "-", "cat"]);
        assert!(both.stderr.contains("leave out -i"), "{}", both.stderr);
        stage.check();
    });
}

#[test]
fn the_first_word_is_the_program() {
    on_bare_stage(|stage| {
        let outcome = call(&stage.root(), &["run", "--pids", "64", "echo", "hi", "--pids", "-x"]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "hi --pids -x\n"), "{outcome:?}");
        let outcome = call(&stage.root(), &["run", "--", "echo", "hi", "--"]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "hi --\n"), "{outcome:?}");
        stage.check();
    });
}

#[test]
fn doctor_says_that_containers_can_be_run() {
    on_bare_stage(|stage| {
        let outcome = call(&stage.root(), &["doctor"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stdout.contains("ok   run              `true` ran in a container"), "{outcome:?}");
        assert_eq!(outcome.stderr, "");
        let json: Value = serde_json::from_str(&call(&stage.root(), &["doctor", "--json"]).stdout).unwrap();
        assert_eq!((&json["works"], &json["first_failure"]), (&Value::from(true), &Value::Null));
        for check in ["runtime", "cgroups", "subreaper", "pidfd", "overlay", "user namespaces", "id maps"] {
            assert!(outcome.stdout.contains(check), "{check} is not checked: {}", outcome.stdout);
        }
        let mut doctor = std::process::Command::new(longshore_tests::command::program());
        let outcome =
            Outcome::from(doctor.args(["--runtime", "no-such-runtime", "doctor"]).output().unwrap());
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stdout.contains("FAIL runtime"), "{}", outcome.stdout);
        assert!(
            outcome.stdout.contains("skip run              not tried, because of: runtime"),
            "{outcome:?}"
        );
        let sentence = "longshore: containers cannot be run here: runtime: cannot find an OCI runtime";
        assert!(outcome.stderr.starts_with(sentence), "{}", outcome.stderr);
        let mut doctor = std::process::Command::new(longshore_tests::command::program());
        let outcome = Outcome::from(doctor.args(["--runtime", "/bin/true", "doctor"]).output().unwrap());
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stdout.contains("/bin/true is not an OCI runtime"), "{}", outcome.stdout);
        stage.check();
    });
}

/// What an executor refuses as its root, `doctor` does as well, in the same words, and it makes nothing.
#[test]
fn doctor_refuses_a_root_that_run_refuses() {
    on_bare_stage(|stage| {
        let (open, link) = (stage.path("open"), stage.path("link"));
        fs::create_dir(&open).unwrap();
        fs::create_dir(open.join("root")).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink("/", &link).unwrap();
        fs::write(stage.path("file"), "").unwrap();
        for root in [&open, &open.join("root"), &open.join("new"), &link, &stage.path("file/x")] {
            let run = call(root, &["run", "--", "true"]);
            let said = run.stderr.strip_prefix("longshore: ").unwrap().trim_end();
            let path = root.to_str().unwrap();
            assert!(said.matches(path).count() <= 1, "{said}");
            let doctor = call(root, &["doctor"]);
            let line = doctor.stdout.lines().find(|line| line[5..].starts_with("root ")).unwrap();
            assert_eq!((run.code, doctor.code), (Some(125), Some(1)), "{said} {line}");
            assert!(line.starts_with("FAIL"), "{line}");
            assert!(line.ends_with(said), "{line}\n{said}");
        }
        let new = stage.path("new/root");
        let doctor = call(&new, &["doctor"]);
        assert_eq!(doctor.code, Some(0), "{doctor:?}");
        assert!(doctor.stdout.contains(&format!("ok   root             {}\n", new.display())), "{doctor:?}");
        assert!(!stage.path("new").exists());
        stage.check();
    });
}

#[test]
fn a_sweep_refuses_what_it_does_not_use() {
    on_bare_stage(|stage| {
        let outcome = call(&stage.root(), &["sweep", "--runtime", "runc"]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(125), ""));
        assert_eq!(outcome.stderr, "longshore: a sweep uses no runtime; leave out --runtime\n");
        let help = call(&stage.root(), &["sweep", "--help"]).stdout;
        assert!(
            help.contains("--root") && !help.contains("--runtime") && !help.contains("--no-pivot"),
            "{help}"
        );
        let outcome = call(&stage.root(), &["sweep", "--cni-plugins", "/no/such"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        stage.check();
    });
}

/// What is written to a stream that was closed is lost, as it is for any program.
#[test]
fn closed_streams() {
    on_bare_stage(|stage| {
        let lost = "longshore: output of the program is lost: stdout or stderr is closed; send it to a file, or to /dev/null\n";
        for (closed, script, code, said) in [
            (">&-", "echo hi", 125, lost),
            (">&-", "echo hi; exit 3", 3, lost),
            (">&-", "exit 0", 0, ""),
            ("2>&-", "echo hi >&2", 125, ""),
            ("<&-", "cat", 0, ""),
            ("<&- >&- 2>&-", "echo hi", 125, ""),
            // Both are /dev/null by now, and only one of them can be written.
            (">&- 2>/dev/null", "echo hi", 125, ""),
        ] {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", &format!("exec \"$0\" --root \"$1\" run -i -- sh -c '{script}' {closed}")]);
            shell.arg(longshore_tests::command::program()).arg(stage.root());
            let outcome = Outcome::from(shell.output().unwrap());
            assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(code), said), "{closed} {script}");
        }
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "exec \"$0\" --root \"$1\" run --stdio inherit sh -c 'echo hi; exit $?' >&-"]);
        shell.arg(longshore_tests::command::program()).arg(stage.root()).stderr(Stdio::null());
        let status = shell.status().unwrap();
        assert_eq!(status.code(), Some(1), "it is passed on as it is");
        stage.check();
    });
}

/// With few file descriptors, the limit is named, wherever it is met.
#[test]
fn few_files() {
    on_bare_stage(|stage| {
        for files in [9, 16, 22, 26, 28, 30, 32] {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", &format!("ulimit -n {files}; exec \"$0\" --root \"$1\" run true")]);
            let root = stage.root();
            let outcome =
                Outcome::from(shell.arg(longshore_tests::command::program()).arg(root).output().unwrap());
            let is_said = outcome.stderr.trim_end().ends_with("; raise the limit of open files (ulimit -n)");
            assert!(outcome.code == Some(0) || is_said, "{files}: {outcome:?}");
        }
        stage.check();
    });
}

/// The program lives on when the kernel kills a child of it, and fails: the user is told why.
#[test]
fn a_child_without_memory_is_told() {
    on_bare_stage(|stage| {
        for (script, code, said) in [
            (
                "tail /dev/zero; exit 3",
                3,
                "longshore: 1 of the program's processes was killed for lack of memory; raise --memory\n",
            ),
            (
                "tail /dev/zero; exit 0",
                0,
                "longshore: 1 of the program's processes was killed for lack of memory; raise --memory\n",
            ),
            ("exit 3", 3, ""),
        ] {
            let run = ["run", "--memory", "32m"];
            let program = ["--", "sh", "-c", script];
            let quiet = call(&stage.root(), &[&run[..], &["--quiet"], &program].concat());
            assert_eq!((quiet.code, quiet.stderr.contains("longshore:")), (Some(code), false), "{quiet:?}");
            let outcome = call(&stage.root(), &[&run[..], &program].concat());
            assert_eq!(outcome.code, Some(code), "{script}: {outcome:?}");
            let ours = outcome.stderr.lines().filter(|line| line.starts_with("longshore: "));
            assert_eq!(ours.map(|line| format!("{line}\n")).collect::<String>(), said, "{script}");
        }
        stage.check();
    });
}

/// Under systemd, stdout and stderr are sockets. In a user namespace, root is nobody.
#[test]
fn events_to_a_socket_and_through_roots_links() {
    on_bare_stage(|stage| {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut command = longshore(&stage.root());
        command.args(["run", "--events", "/dev/stdout", "--", "true"]);
        command.stdout(std::os::fd::OwnedFd::from(theirs)).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        drop(command);
        let mut events = String::new();
        std::io::Read::read_to_string(&mut &ours, &mut events).unwrap();
        let outcome = Outcome::from(child.wait_with_output().unwrap());
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        assert_eq!(events.lines().count(), 4, "{events}");

        let socket = stage.path("socket");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let outcome = call(&stage.root(), &["run", "--events", socket.to_str().unwrap(), "--", "true"]);
        assert!(outcome.stderr.contains("it is a socket"), "{}", outcome.stderr);
        drop((ours, listener));

        // The path goes through a link of somebody without an id there.
        let link = stage.path("link");
        std::os::unix::fs::symlink(stage.path(""), &link).unwrap();
        // Where the build is, an ordinary user may not get to.
        let program = stage.path("longshore");
        fs::copy(longshore_tests::command::program(), &program).unwrap();
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65533", "--regid=65533", "--clear-groups", "unshare", "-r"]);
        command.arg(&program).args(["run", "--events"]).arg(link.join("none/file")).args(["--", "true"]);
        fs::set_permissions(stage.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        let outcome = Outcome::from(command.output().unwrap());
        assert!(outcome.stderr.contains("No such file"), "{}", outcome.stderr);
        stage.check();
    });
}

/// The embedder is killed at any moment: the next start sweeps what it left, and only that.
#[test]
fn driver_killed() {
    on_bare_stage(|stage| {
        let (survivor, mut stdout) = start(
            &stage,
            &["--id", "survivor"],
            "trap 'echo alive; exit 0' TERM; echo ready; while :; do sleep 0.01; done",
        );
        for delay in (0..50).step_by(5) {
            let mut command = longshore(&stage.root());
            command.args(["run", "--id", "victim", "--", "sleep", "1000"]);
            let mut child = command.stderr(Stdio::null()).spawn().unwrap();
            // When it is killed is what varies here.
            std::thread::sleep(Duration::from_millis(delay));
            child.kill().unwrap();
            child.wait().unwrap();
            // Sometimes `sweep` does it, sometimes the next run of the same id.
            let next: &[&str] = match delay % 10 {
                0 => &["sweep"],
                _ => &["run", "--id", "victim", "--", "true"],
            };
            let outcome = call(&stage.root(), next);
            assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "killed after {delay} ms");
            assert!(!stage.root().join("containers/victim").exists());
        }
        signal(&survivor, Signal::TERM);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "alive\n", "a stranger's container was swept");
        assert!(survivor.wait_with_output().unwrap().status.success());
        drop(stdout);
        stage.check();
    });
}

/// Where nobody reads what the command says, its exit code is what it would be.
#[test]
fn stderr_gone() {
    on_bare_stage(|stage| {
        let code = |args: &[&str], stderr: &str| {
            let mut command = longshore_tests::command::longshore(&stage.root());
            let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
            command.args(args).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
            match stderr {
                "full" => command.stderr(full),
                _ => {
                    let (reader, writer) = std::io::pipe().unwrap();
                    drop(reader);
                    command.stderr(writer)
                }
            };
            command.status().unwrap().code()
        };
        for stderr in ["full", "closed"] {
            assert_eq!(code(&["run", "--", "/nosuch"], stderr), Some(127), "{stderr}");
            assert_eq!(code(&["run", "--bogus"], stderr), Some(125), "{stderr}");
            assert_eq!(
                code(&["run", "--timeout", "300ms", "--", "sleep", "4"], stderr),
                Some(124),
                "{stderr}"
            );
            assert_eq!(code(&["run", "--config", "/nosuch", "--", "x"], stderr), Some(125), "{stderr}");
        }
        stage.check();
    });
}

/// Flags with a truth, options of a volume, and other words as docker reads them.
#[test]
fn words_of_docker() {
    on_bare_stage(|stage| {
        let root = stage.root();
        let bom = stage.path("bom");
        fs::write(&bom, "\u{feff}COLOUR=red\n").unwrap();
        for (args, expected) in [
            (&["--rm=true", "--init=false", "sh", "-c", "echo $$"][..], "1\n"),
            (
                &["-v", "/usr:/d:rw,nosuid,nodev", "sh", "-c", "grep -c ' /d .*nosuid,nodev' /proc/mounts"],
                "1\n",
            ),
            (&["-u", "0:", "id", "-u"], "0\n"),
            (&["-u", ":7", "sh", "-c", "echo $(id -u) $(id -g) $(id -G)"], "0 7 7\n"),
            (&["--shm-size", "0", "sh", "-c", "grep -c ' /dev/shm .*size=65536k' /proc/mounts"], "1\n"),
            (&["--env-file", bom.to_str().unwrap(), "sh", "-c", "echo $COLOUR"], "red\n"),
            (
                &[
                    "--cap-add",
                    "all",
                    "sh",
                    "-c",
                    "grep -c 'CapEff:.*00000000a80425fb' /proc/self/status; true",
                ],
                "0\n",
            ),
        ] {
            let outcome = call(&root, &[&["run"], args].concat());
            assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), expected), "{args:?}: {outcome:?}");
        }
        let outcome = call(&root, &["run", "-h", "web", "true"]);
        assert_eq!(outcome.code, Some(125), "{outcome:?}");
        assert!(outcome.stderr.contains("--hostname"), "{outcome:?}");
        let missing = stage.path("no/such");
        let outcome = call(&root, &["spec", "--bundle", missing.to_str().unwrap(), "true"]);
        assert!(outcome.code == Some(125) && outcome.stderr.contains("No such file"), "{outcome:?}");
        assert!(!stage.path("no").exists());
        stage.check();
    });
}

/// What is to be done is about what is wrong.
#[test]
fn remedies() {
    on_bare_stage(|stage| {
        let root = stage.root();
        let profile = stage.path("profile.json");
        fs::write(&profile, r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#).unwrap();
        let links = stage.path("links");
        fs::create_dir(&links).unwrap();
        std::os::unix::fs::symlink("loop", links.join("loop")).unwrap();
        let volume = format!("{}:/links", links.display());
        for (args, code, text) in [
            (&["-w", "/etc/passwd", "true"][..], 125, "/etc/passwd is not a directory; "),
            (&["--seccomp", profile.to_str().unwrap(), "true"], 125, "; the profile of --seccomp"),
            (&["-v", &volume, "/links/loop"], 126, "too many links"),
            (&["--no-init", "-v", &volume, "/links/loop"], 126, "too many links"),
            (&["-v", "/usr:/d", "-v", "/etc:/d/", "true"], 125, "two mounts are to be there"),
        ] {
            let outcome = call(&root, &[&["run"], args].concat());
            assert!(outcome.code == Some(code) && outcome.stderr.contains(text), "{args:?}: {outcome:?}");
        }
        let by_shell = |before: &str, after: &str| {
            let command = longshore(&root);
            let words: Vec<_> =
                command.get_args().map(|word| format!("'{}'", word.to_str().unwrap())).collect();
            let line = format!(
                "{before} {} {} run {after}",
                command.get_program().to_str().unwrap(),
                words.join(" ")
            );
            Outcome::from(std::process::Command::new("sh").args(["-c", &line]).output().unwrap())
        };
        let outcome = by_shell("ulimit -f 400;", "true");
        assert!(outcome.stderr.contains("(ulimit -f)"), "{outcome:?}");
        let outcome = by_shell("", "-i cat </tmp");
        assert!(outcome.code == Some(125) && outcome.stderr.contains("stdin is a directory"), "{outcome:?}");
        assert_eq!(by_shell("env -i", "true").code, Some(0), "without a PATH");
        stage.check();
    });
}

/// A directory that was there before, with something else in it, is a root whose mode stays as it is.
#[test]
fn a_root_keeps_its_mode() {
    on_bare_stage(|stage| {
        let root = stage.path("theirs");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let mode = || fs::metadata(&root).unwrap().permissions().mode() & 0o7777;
        let names = || {
            let entries = fs::read_dir(&root).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        for before in [0o755, 0o700] {
            fs::set_permissions(&root, fs::Permissions::from_mode(before)).unwrap();
            let calls =
                [&["run", "--", "true"][..], &["doctor"], &["sweep"], &["run", "--", "sh", "-c", "exit 0"]];
            for args in calls {
                assert_eq!(call(&root, args).code, Some(0), "{args:?}");
                assert_eq!((mode(), names()), (before, vec!["file".to_owned()]), "{args:?}");
            }
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(root.join("containers"), "").unwrap();
        assert_eq!(call(&root, &["run", "--", "true"]).code, Some(125));
        assert_eq!((mode(), names().len()), (0o755, 2));
        stage.check();
    });
}
