//! Every example, as its readers run it: on the simulator, as an ordinary user without a runtime on the
//! path; and with `--real` on runc, with a count of what is left.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use longshore_tests::command::example;
use longshore_tests::on_bare_stage;

/// Each example, and what its output says of what it shows.
const EXAMPLES: [(&str, &[&str]); 8] = [
    (
        "custom_runtime",
        &["count: exit code 3", "wait: cancelled, killed by SIGKILL", "0 containers are left"],
    ),
    ("fanout_cancel", &["root.1.1  exit code 0", "root.2.1  exit code 7", "11 of 13 were cancelled"]),
    ("hello", &["hello from a container", ": exit code 3"]),
    ("message_probe", &["sleep 3600                cancelled", "exit 3                    exit code 3"]),
    (
        "pipeline",
        &[
            "passed with objects of sources\")",
            "what still ran is cancelled",
            "Err(\"COMPILE: exit code 1\")",
        ],
    ),
    ("recover", &["pack: it goes on", "test: exit code 3", "4 jobs have run once each; failed: [\"test\"]"]),
    ("scheduler", &["cancelled, killed by SIGKILL", "40 jobs done; at most (4, "]),
    ("supervisor", &["it ended: exit code 1", "the health check failed", "try 3\n  it ended: exit code 0"]),
];

fn run(command: &mut Command, says: &[&str]) {
    let output = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    for line in says {
        assert!(stdout.contains(line), "{command:?} does not say {line:?}:\n{stdout}{stderr}");
    }
}

#[test]
fn on_the_simulator_as_anybody() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for (name, says) in EXAMPLES {
        // Where the build is, an ordinary user may not get to.
        let copy = dir.path().join(name);
        std::fs::copy(example(name), &copy).unwrap();
        let mut command = Command::new(copy);
        command.env("PATH", "/nonexistent").current_dir("/");
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        run(&mut command, says);
    }
}

#[test]
fn on_the_real_runtime() {
    on_bare_stage(|stage| {
        for (name, says) in EXAMPLES {
            run(Command::new(example(name)).arg("--real"), says);
        }
        run(&mut Command::new(example("demo")), &["you       exec a program that fails", "nothing is left"]);
        let root = Path::new("/run/longshore");
        for dir in ["containers", "executors"] {
            assert_eq!(std::fs::read_dir(root.join(dir)).map_or(0, Iterator::count), 0, "{dir}");
        }
        stage.check();
    });
}

#[test]
fn each_is_short() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut files = vec![];
    for entry in std::fs::read_dir(examples).unwrap().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => files.extend(std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path())),
            false => files.push(path),
        }
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    assert!(files.len() > EXAMPLES.len(), "{files:?}");
    for file in files {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines < 80, "{} has {lines} lines", file.display());
    }
}
