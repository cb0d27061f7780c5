//! What the `longshore` command answers by itself: to a full disk, a reader that has gone or is slow, and about a program whose
//! name means something else elsewhere.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longshore_tests::command::{Outcome, call, longshore};
use longshore_tests::{Stage, on_bare_stage};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};

/// Calls that answer on stdout.
const ANSWERS: [&[&str]; 11] = [
    &["spec", "true"],
    &["spec", "--json", "true"],
    &["completion", "bash"],
    &["sweep"],
    &["doctor"],
    &["doctor", "--json"],
    &["--help"],
    &["-h"],
    &["run", "--help"],
    &["help", "run"],
    &["--version"],
];

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: it did not come to that");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An answer that is not complete is a failure, unless its reader has gone.
#[test]
fn full_stdout() {
    on_bare_stage(|stage| {
        for words in ANSWERS {
            let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
            let command = || {
                // A sweep takes no runtime.
                let mut command = Command::new(longshore_tests::command::program());
                command.arg("--root").arg(stage.root()).args(words);
                command
            };
            let outcome = Outcome::from(command().stdout(full).output().unwrap());
            let sentence = "longshore: stdout: No space left on device (os error 28); ";
            assert!(outcome.stderr.starts_with(sentence), "{words:?}: {outcome:?}");
            assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(125), 1), "{words:?}");
            let (reader, closed) = std::io::pipe().unwrap();
            drop(reader);
            let gone = Outcome::from(command().stdout(closed).output().unwrap());
            assert_eq!((gone.code, gone.stderr.as_str()), (Some(0), ""), "{words:?}");
        }
        stage.check();
    });
}

/// A pipe that is full for a moment is waited for, also if it is non-blocking.
#[test]
fn slow_reader_of_an_answer() {
    on_bare_stage(|stage| {
        let whole = call(&stage.root(), &["completion", "bash"]).stdout;
        let (mut reader, out) = std::io::pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(&out, 4096).unwrap();
        rustix::io::ioctl_fionbio(&out, true).unwrap();
        let mut child = longshore(&stage.root()).args(["completion", "bash"]).stdout(out).spawn().unwrap();
        wait_until("a full pipe", || rustix::io::ioctl_fionread(&reader).unwrap() == 4096);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        drop(reader);
        assert!(child.wait().unwrap().success());
        assert!(whole.len() > 4096 && read == whole, "{} of {}", read.len(), whole.len());
        stage.check();
    });
}

/// A `--cidfile` has an id or is not there.
#[test]
fn cidfile_on_a_full_disk() {
    on_bare_stage(|stage| {
        let disk = stage.path("disk");
        fs::create_dir(&disk).unwrap();
        mount("longshore-test", &disk, "tmpfs", MountFlags::empty(), c"size=4k").unwrap();
        fs::write(disk.join("fills"), [0; 4096]).unwrap();
        let file = disk.join("id");
        let outcome = call(&stage.root(), &["run", "--cidfile", file.to_str().unwrap(), "true"]);
        let is_left = file.exists();
        unmount(&disk, UnmountFlags::DETACH).unwrap();
        assert!(outcome.stderr.contains("No space left on device"), "{outcome:?}");
        assert_eq!((outcome.code, is_left), (Some(125), false));
        stage.check();
    });
}

/// What somebody has named is not read as the words of a runtime.
#[test]
fn names_are_no_options() {
    on_bare_stage(|stage| {
        for program in
            ["apparmor_nosuch", "pivot_root_x", "network", "resources", "memory.max", "/no/such/pids.max"]
        {
            let outcome = call(&stage.root(), &["run", "--", program]);
            assert!(outcome.stderr.contains("check its name"), "{program}: {outcome:?}");
            assert_eq!(outcome.code, Some(127), "{program}");
        }
        for option in [
            ["-v", "/no/apparmor:/x"],
            ["-v", "/no/such a pivot_root:/x"],
            ["--rootfs", "/no/memory.max"],
            ["-u", "apparmor"],
            ["-w", "/etc/passwd/cpu.max"],
            ["--seccomp", "/no/network/pids.max"],
        ] {
            let outcome = call(&stage.root(), &["run", option[0], option[1], "true"]);
            let remedies =
                ["; correct that option\n", "(there are no volumes by name)\n", "(there are no images)\n"];
            assert!(remedies.iter().any(|end| outcome.stderr.ends_with(end)), "{option:?}: {outcome:?}");
            assert_eq!(outcome.code, Some(125), "{option:?}");
        }
        stage.check();
    });
}

/// A bundle that could not be made can be tried again.
#[test]
fn bundle_again() {
    on_bare_stage(|stage| {
        let bundle = stage.path("bundle");
        let spec = |more: &[&str]| {
            let words = [&["spec", "--bundle", bundle.to_str().unwrap()], more, &["--", "true"]].concat();
            call(&stage.root(), &words)
        };
        let names = || fs::read_dir(&bundle).into_iter().flatten().count();
        let missing = stage.path("missing").display().to_string();
        for wrong in [
            &["-u", "nosuch"][..],
            &["-v", &format!("{missing}:/x")],
            &["--seccomp", &missing],
            &["--layer", "/usr"],
            &["--selinux"],
        ] {
            let outcome = spec(wrong);
            assert_eq!((outcome.code, names()), (Some(125), 0), "{wrong:?}: {outcome:?}");
        }
        let outcome = spec(&["-u", "1000"]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        // What is there already is kept.
        let made = names();
        let config = fs::read(bundle.join("config.json")).unwrap();
        assert_eq!(spec(&[]).code, Some(125));
        assert!(names() == made && fs::read(bundle.join("config.json")).unwrap() == config);
        stage.check();
    });
}

/// The words of `--mount` that docker has for a tmpfs, and what it says to those that are not taken.
#[test]
fn mount_words() {
    on_bare_stage(|stage| {
        let run = |mount: &str| {
            let script = "stat -c %a /srv; grep -o ' /srv .*' /proc/self/mounts";
            call(&stage.root(), &["run", "--mount", mount, "--", "sh", "-c", script])
        };
        let outcome = run("type=tmpfs,dst=/srv,tmpfs-size=64MiB,tmpfs-mode=1770");
        assert!(
            outcome.stdout.starts_with("1770\n") && outcome.stdout.contains("size=65536k"),
            "{outcome:?}"
        );
        let outcome =
            run("type=bind,src=/usr,dst=/srv,bind-propagation=rslave,readonly=true,consistency=cached");
        assert!(outcome.stdout.contains(" ro,"), "{outcome:?}");
        let outcome = run("type=volume,src=data,dst=/srv");
        assert!(outcome.stderr.contains("there are no volumes: give type=bind"), "{outcome:?}");
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(125), 1));
        stage.check();
    });
}

/// Every field of a profile counts, and one that is not known is refused.
#[test]
fn fields_of_a_seccomp_profile() {
    on_bare_stage(|stage| {
        let profile = stage.path("profile.json");
        let run = |more: &str| {
            let text = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", {more}}}"#);
            fs::write(&profile, text).unwrap();
            let words = ["run", "--seccomp", profile.to_str().unwrap(), "--", "mkdir", "/tmp/x"];
            call(&stage.root(), &words)
        };
        let rule = r#""syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errno": "EXDEV", "comment": ""}]"#;
        let outcome = run(rule);
        assert!(outcome.stderr.contains("Invalid cross-device link"), "{outcome:?}");
        let other = if std::env::consts::ARCH == "x86_64" { "SCMP_ARCH_X86" } else { "SCMP_ARCH_X86_64" };
        let outcome = run(&format!(r#""syscalls": [], "architectures": ["{other}"]"#));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let spec = call(&stage.root(), &["spec", "--seccomp", profile.to_str().unwrap(), "true"]);
        let spec: serde_json::Value = serde_json::from_str(&spec.stdout).unwrap();
        assert_eq!(spec["linux"]["seccomp"]["architectures"], serde_json::json!([other]));
        let fifo = stage.path("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        for file in [fifo.to_str().unwrap(), "/dev/zero"] {
            let outcome = call(&stage.root(), &["run", "--seccomp", file, "true"]);
            assert!(outcome.stderr.contains("it is no regular file"), "{outcome:?}");
        }
        let outcome = run(r#""sycalls": []"#);
        assert!(outcome.stderr.contains("is not a profile: unknown field `sycalls`"), "{outcome:?}");
        assert_eq!(outcome.code, Some(125));
        stage.check();
    });
}

/// A runtime that says when it has made a container, and takes its time then.
fn slow_runtime(stage: &Stage) -> std::path::PathBuf {
    let made = stage.path("made");
    stage.wrapper(&format!(
        r#""$RUNC" "$@"; code=$?; for word in "$@"; do case $word in create|run) : > {}; sleep 1;; esac; done; exit $code"#,
        made.display()
    ))
}

/// A signal leaves no container of the doctor's.
#[test]
fn doctor_interrupted() {
    on_bare_stage(|stage| {
        let runtime = slow_runtime(&stage);
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let mut command = std::process::Command::new(longshore_tests::command::program());
            command.arg("--root").arg(stage.root()).arg("--runtime").arg(&runtime).arg("doctor");
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            wait_until("the container", || stage.path("made").exists());
            kill_process(Pid::from_child(&child), signal).unwrap();
            let outcome = Outcome::from(child.wait_with_output().unwrap());
            assert_eq!(outcome.code, Some(128 + signal.as_raw()), "{outcome:?}");
            fs::remove_file(stage.path("made")).unwrap();
            let left = fs::read_dir(stage.root().join("containers")).into_iter().flatten().count();
            assert_eq!(left, 0);
        }
        stage.check();
    });
}
