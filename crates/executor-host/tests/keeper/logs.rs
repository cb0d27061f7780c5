//! Log files that the keeper writes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use executor_disk::Dir;
use executor_host::keeper::{
    Keeper, KeeperError, KeptProcess, KeptProgram, LogFile, LogForm, LogStream, Started,
};

use crate::stage::{Stage, kill, run, within};

fn shell(keeper: &Keeper, script: &str, streams: [&OwnedFd; 2]) -> KeptProcess {
    let null = File::open("/dev/null").unwrap();
    let args = ["sh", "-c", script].map(OsStr::new);
    let inherited = [null.as_fd(), streams[0].as_fd(), streams[1].as_fd()];
    let program = KeptProgram::Path(OsStr::new("/bin/sh"));
    let variables = [b"PATH=/usr/bin:/bin".to_vec()];
    let started = Started { program, args: &args, variables: &variables, inherited: &inherited };
    keeper.start_process(&started).unwrap()
}

/// A pipe that is held under this name and logged. Returns its end for writing.
fn logged(stage: &Stage, name: &str, stream: LogStream, file: &LogFile<'_>) -> OwnedFd {
    let (ours, theirs) = std::io::pipe().unwrap();
    stage.keeper().hold(name, &ours).unwrap();
    stage.keeper().log(name, stream, file).unwrap();
    theirs.into()
}

fn wait_until_complete(stage: &Stage, name: &str) -> u64 {
    within(|| stage.keeper().logged(name).unwrap().is_complete);
    stage.keeper().logged(name).unwrap().bytes
}

fn logs() -> (tempfile::TempDir, Dir) {
    let temporary = tempfile::tempdir().unwrap();
    let dir = Dir::open_checked(temporary.path()).unwrap();
    (temporary, dir)
}

/// What is in a log and its former files, the oldest first.
fn all(dir: &Path, name: &str) -> Vec<Vec<u8>> {
    let former = (1..).map(|age| fs::read(dir.join(format!("{name}.{age}")))).map_while(Result::ok);
    let mut files: Vec<_> = former.collect();
    files.reverse();
    files.push(fs::read(dir.join(name)).unwrap());
    files
}

#[test]
fn raw_files_are_rotated_and_no_byte_is_lost() {
    run(|stage| {
        let (temporary, dir) = logs();
        let file = LogFile { dir: &dir, name: "log", form: LogForm::Raw, limit: 100_000, rotations: 1000 };
        let theirs = logged(stage, "c.stdout", LogStream::Stdout, &file);
        let script = "i=0; while [ $i -lt 100000 ]; do echo line $i; i=$((i+1)); done";
        let process = shell(stage.keeper(), script, [&theirs, &theirs]);
        drop(theirs);
        // Replacing the program in the middle changes nothing.
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(10));
            stage.keeper().upgrade().unwrap();
        }
        stage.ended(&process);
        let bytes = wait_until_complete(stage, "c.stdout");
        let files = all(temporary.path(), "log");
        let expected: String = (0..100_000).map(|number| format!("line {number}\n")).collect();
        assert!(files.concat() == expected.as_bytes(), "{} bytes", files.concat().len());
        assert_eq!(bytes, expected.len() as u64);
        assert!(files.len() > 10 && files.iter().rev().skip(1).all(|file| file.len() == 100_000));
        stage.keeper().release("c.").unwrap();
    });
}

#[test]
fn only_so_many_former_files_are_kept() {
    run(|stage| {
        let (temporary, dir) = logs();
        for (name, rotations, kept) in [("none", 0, 1), ("two", 2, 3)] {
            let file = LogFile { dir: &dir, name, form: LogForm::Cri, limit: 1000, rotations };
            let mut theirs = File::from(logged(stage, name, LogStream::Stderr, &file));
            for number in 0..200 {
                writeln!(theirs, "line {number}").unwrap();
            }
            drop(theirs);
            wait_until_complete(stage, name);
            let files = all(temporary.path(), name);
            assert_eq!(files.len(), kept);
            assert!(files.iter().all(|file| file.len() <= 1000 && file.ends_with(b"\n")));
            let text = String::from_utf8(files.concat()).unwrap();
            assert!(text.ends_with("stderr F line 199\n"), "{text}");
            // They go on without a gap.
            let first: usize = text.lines().next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
            let numbers = text.lines().map(|line| line.rsplit_once("line ").unwrap().1.to_owned());
            assert!(numbers.eq((first..200).map(|number| number.to_string())));
        }
        assert_eq!(stage.keeper().release("").unwrap(), 2);
    });
}

#[test]
fn both_streams_are_in_a_file_as_docker_and_kubernetes_have_it() {
    run(|stage| {
        let (temporary, dir) = logs();
        let script = r#"printf 'a "b" \\ \t\001\n'; sleep 0.1; echo e >&2; sleep 0.1; printf 'é\377\n'; sleep 0.1
            printf 'pro'; sleep 0.1; printf 'mpt\n\n'; head -c 40000 /dev/zero | tr '\0' x; printf 'no newline'"#;
        for (name, form) in [("json", LogForm::Json), ("cri", LogForm::Cri)] {
            let file = LogFile { dir: &dir, name, form, limit: 0, rotations: 0 };
            let (stdout, stderr) = (format!("{name}.1"), format!("{name}.2"));
            let ends = [
                logged(stage, &stdout, LogStream::Stdout, &file),
                logged(stage, &stderr, LogStream::Stderr, &file),
            ];
            let process = shell(stage.keeper(), script, [&ends[0], &ends[1]]);
            drop(ends);
            stage.ended(&process);
            wait_until_complete(stage, &stdout);
            wait_until_complete(stage, &stderr);
        }
        assert_eq!(stage.keeper().release("").unwrap(), 4);
        let json = fs::read_to_string(temporary.path().join("json")).unwrap();
        let values: Vec<serde_json::Value> =
            json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let text = |stream: &str| {
            let of = values.iter().filter(|value| value["stream"] == stream);
            of.map(|value| value["log"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let (long, rest) = ("x".repeat(16384), "x".repeat(40000 - 2 * 16384) + "no newline");
        let lines = ["a \"b\" \\ \t\u{1}\n", "é\u{fffd}\n", "prompt\n", "\n", &long, &long, &rest];
        assert_eq!(text("stdout"), lines);
        assert_eq!(text("stderr"), ["e\n"]);
        assert!(json.lines().nth(1).unwrap().starts_with(r#"{"log":"e\n","stream":"stderr","time":"2"#));
        let times: Vec<_> = values.iter().map(|value| value["time"].as_str().unwrap()).collect();
        assert!(times.is_sorted() && times.iter().all(|time| time.len() == 30 && time.ends_with('Z')));
        let cri = fs::read(temporary.path().join("cri")).unwrap();
        let tags = cri.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
            let words: Vec<_> = line.splitn(4, |byte| *byte == b' ').collect();
            (String::from_utf8(words[1].to_vec()).unwrap(), words[2][0], words[3].len())
        });
        let out = |tag, len| ("stdout".to_owned(), tag, len);
        let expected = [
            out(b'F', 10),
            ("stderr".to_owned(), b'F', 1),
            out(b'F', 3),
            out(b'F', 6),
            out(b'F', 0),
            out(b'P', 16384),
            out(b'P', 16384),
            out(b'F', 7242),
        ];
        assert_eq!(tags.collect::<Vec<_>>(), expected);
    });
}

#[test]
fn what_cannot_be_a_log_is_refused() {
    run(|stage| {
        let (_temporary, dir) = logs();
        let null = File::open("/dev/null").unwrap();
        let (ours, _theirs) = std::io::pipe().unwrap();
        stage.keeper().hold("null", &null).unwrap();
        stage.keeper().hold("pipe", &ours).unwrap();
        let file = LogFile { dir: &dir, name: "log", form: LogForm::Raw, limit: 0, rotations: 0 };
        let log = |pipe: &str, file: &LogFile<'_>| stage.keeper().log(pipe, LogStream::Stdout, file);
        assert!(matches!(log("null", &file), Err(KeeperError::Refused { .. })));
        assert!(matches!(log("other", &file), Err(KeeperError::NoSuchName)));
        for name in ["", ".", "..", "a/b", &"n".repeat(49)] {
            let refused = log("pipe", &LogFile { name, ..file });
            assert!(matches!(refused, Err(KeeperError::Refused { .. })), "{name:?}: {refused:?}");
        }
        dir.make_dir("directory", 0o700).unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
        for name in ["directory", "link"] {
            assert!(matches!(log("pipe", &LogFile { name, ..file }), Err(KeeperError::Keeper { .. })));
        }
        assert!(matches!(stage.keeper().logged("pipe"), Err(KeeperError::NoSuchName)));
        log("pipe", &file).unwrap();
        assert!(matches!(log("pipe", &file), Err(KeeperError::NameTaken)));
        assert_eq!(stage.keeper().release("").unwrap(), 2);
        within(|| crate::stage::descriptors_of(&stage.pid.to_string()) == stage.descriptors);
    });
}

/// Unmounts what a test has mounted, also if it fails.
struct Mounted<'a>(&'a str);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _failed = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A small file system, which is full before the program has written all.
#[test]
fn a_full_disk_stops_the_program_and_loses_nothing() {
    run(|stage| {
        let temporary = tempfile::tempdir().unwrap();
        let mount =
            |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).status().unwrap().success();
        let path = temporary.path().to_str().unwrap();
        if !mount(&["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", path]) {
            return;
        }
        let _mounted = Mounted(path);
        for (name, form) in [("raw", LogForm::Raw), ("cri", LogForm::Cri)] {
            let dir = Dir::open_checked(temporary.path()).unwrap();
            let file = LogFile { dir: &dir, name, form, limit: 0, rotations: 0 };
            let theirs = logged(stage, name, LogStream::Stdout, &file);
            let script = "i=0; while [ $i -lt 150000 ]; do echo line $i; i=$((i+1)); done";
            let process = shell(stage.keeper(), script, [&theirs, &theirs]);
            drop((theirs, dir));
            within(|| stage.keeper().logged(name).unwrap().error.is_some());
            assert!(crate::stage::is_alive(process.pid), "it waits");
            assert!(mount(&["mount", "-o", "remount,size=32m", path]));
            stage.ended(&process);
            wait_until_complete(stage, name);
            let text = fs::read_to_string(temporary.path().join(name)).unwrap();
            let lines = text.lines().map(|line| line.rsplit_once("line ").unwrap().1.to_owned());
            assert!(lines.eq((0..150_000).map(|number| number.to_string())), "{}", text.len());
            stage.keeper().release("").unwrap();
            fs::remove_file(temporary.path().join(name)).unwrap();
            assert!(mount(&["mount", "-o", "remount,size=64k", path]));
        }
    });
}

#[test]
fn a_raw_log_is_at_least_half_as_fast_as_a_pipe() {
    const SIZE: u64 = 1 << 30;
    run(|stage| {
        let script = format!("exec head -c {SIZE} /dev/zero");
        let (mut ours, theirs) = std::io::pipe().unwrap();
        let theirs: OwnedFd = theirs.into();
        let before = Instant::now();
        let process = shell(stage.keeper(), &script, [&theirs, &theirs]);
        drop(theirs);
        let (mut buffer, mut read) = (vec![0; 64 << 10], 0);
        while let Ok(count @ 1..) = ours.read(&mut buffer) {
            read += count as u64;
        }
        let plain = before.elapsed();
        assert_eq!(read, SIZE);
        stage.ended(&process);
        let (_temporary, dir) = logs();
        let file = LogFile { dir: &dir, name: "log", form: LogForm::Raw, limit: 64 << 20, rotations: 1 };
        let theirs = logged(stage, "c.stdout", LogStream::Stdout, &file);
        let before = Instant::now();
        let process = shell(stage.keeper(), &script, [&theirs, &theirs]);
        drop(theirs);
        stage.ended(&process);
        assert_eq!(wait_until_complete(stage, "c.stdout"), SIZE);
        let logged = before.elapsed();
        println!("a gibibyte through a pipe: {plain:?}, to a log: {logged:?}");
        stage.keeper().release("").unwrap();
    });
}

#[test]
fn a_log_goes_on_without_an_embedder() {
    run(|stage| {
        let (temporary, dir) = logs();
        let file = LogFile { dir: &dir, name: "log", form: LogForm::Cri, limit: 0, rotations: 0 };
        let theirs = logged(stage, "c.stdout", LogStream::Stdout, &file);
        let script = "while :; do echo a line; sleep 0.01; done";
        let process = shell(stage.keeper(), script, [&theirs, &theirs]);
        drop(theirs);
        stage.disconnect();
        let lines = || fs::read_to_string(temporary.path().join("log")).unwrap().lines().count();
        within(|| lines() > 10);
        stage.connect();
        kill(process.pid);
        stage.ended(&process);
        // `sleep` has the pipe as well.
        let bytes = wait_until_complete(stage, "c.stdout");
        assert_eq!(bytes, 7 * lines() as u64);
        stage.keeper().release("").unwrap();
    });
}
