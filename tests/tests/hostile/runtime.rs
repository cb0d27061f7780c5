//! What a container can do to the runtime that starts it, and to the streams of the command.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use longshore::{Cancel, ContainerHandle, ContainerSpec, ExecSpec};
use longshore_tests::command::longshore;
use longshore_tests::{HUNG, on_bare_stage, on_stage, patience, sleeper};
use rustix::io::{FdFlags, fcntl_setfd};

/// Gets hold of the runtime's program when an exec of `/x` makes it run inside, and does to it what `$act` says.
const THIEF: &str = r##"
    $| = 1;
    open(my $x, '>', '/x') or die; print $x "#!/proc/self/exe\n"; close $x; chmod 0755, '/x';
    print "ready\n";
    for (;;) {
        opendir(my $proc, '/proc');
        for my $pid (grep { /^\d+$/ && $_ != $$ } readdir $proc) {
            next unless (readlink("/proc/$pid/exe") // '') =~ m{FILE};
            open(my $runtime, '<', "/proc/$pid/exe") or next;
            select undef, undef, undef, 0.01 while -e "/proc/$pid/exe" && readlink("/proc/$pid/exe");
            my $path = '/proc/self/fd/' . fileno($runtime);
            ACT;
            print "held: ", ($done ? 'done' : "$!"), "\n";
            sleep 1000;
        }
    }
"##;

/// Has the thief get hold of the runtime. Returns what came of it.
async fn stolen(thief: &ContainerHandle) -> String {
    let mut stdout = thief.io().take_stdout().unwrap();
    let mut said = String::new();
    let deadline = Instant::now() + HUNG;
    while !said.contains("held") {
        assert!(Instant::now() < deadline, "the runtime was not seen inside: {said}");
        if said.contains("ready") {
            let exec = thief.exec(ExecSpec::new(["/x"])).await.unwrap();
            exec.wait().await;
        }
        let more = tokio::time::timeout(Duration::from_millis(50), stdout.next_chunk()).await;
        if let Ok(chunk) = more {
            said.push_str(&String::from_utf8_lossy(&chunk.expect("the thief lives on")));
        }
    }
    said
}

/// A program `#!/proc/self/exe` is the runtime, inside the container, which shares the file with all others. `act` is done to
/// that file.
fn steal(act: &str) {
    steal_from(true, act);
    // Its file on the disk, which is executed before there is a copy.
    steal_from(false, act);
}

fn steal_from(memory: bool, act: &str) {
    on_stage(async |stage| {
        let executor = stage.executor_on(stage.runtime().in_memory(memory));
        for _ in 0..6 {
            executor.run(ContainerSpec::host(["true"])).await.unwrap().wait().await;
        }
        let script = THIEF.replace("ACT", act);
        let script = script.replace("FILE", if memory { "memfd:longshore" } else { "^/\\z|runc" });
        let thief = executor.run(ContainerSpec::host(["perl", "-e", &script]).piped()).await.unwrap();
        let came_of_it = stolen(&thief).await;
        for round in 0..5 {
            let asked = Instant::now();
            let exit = executor.run(ContainerSpec::host(["true"])).await.unwrap().wait().await;
            assert!(exit.is_success(), "{came_of_it}, {round}: {exit:?}");
            assert!(
                asked.elapsed() < patience(Duration::from_secs(5)),
                "{came_of_it}: {:?}",
                asked.elapsed()
            );
        }
        thief.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

#[test]
fn image_busy() {
    steal("my $done = open(my $held, '+<', $path)");
}

#[test]
fn image_without_a_mode() {
    steal("my $done = chmod 0, $runtime");
}

#[test]
fn image_of_another_user() {
    steal("my $done = chown(1000, 1000, $runtime) && chmod(04755, $runtime)");
}

/// Who opens a file with a write lease waits until it is given up, 45 seconds at most.
#[test]
fn image_leased() {
    steal(
        "my $done;
         for (1..100) { last if $done = fcntl($runtime, 1024, 1); select undef, undef, undef, 0.01 }",
    );
}

/// An embedder has a directory of the host open, and not close-on-exec.
#[test]
fn descriptors_of_the_embedder() {
    on_stage(async |stage| {
        let directory = File::open("/etc").unwrap();
        fcntl_setfd(&directory, FdFlags::empty()).unwrap();
        let seen = stage.path("seen");
        let script = format!(r#"ls -l /proc/$$/fd >> {}; exec $RUNC "$@""#, seen.display());
        let wrapper = stage.wrapper(&script);
        let wrapped = stage.executor_on(longshore::runc().runtime(wrapper.to_str().unwrap()));
        let real = stage.executor();
        for executor in [&wrapped, &real] {
            let container = executor.run(sleeper()).await.unwrap();
            let list = "for at in /proc/1/fd /proc/self/fd; do for fd in $at/*; do readlink $fd; done; done
                readlink /proc/1/cwd /proc/self/cwd";
            let exec = container.exec(ExecSpec::new(["sh", "-c", list]).piped()).await.unwrap();
            let output = exec.output().await.unwrap().stdout;
            let said = String::from_utf8_lossy(&output);
            assert!(said.ends_with("/\n/\n"), "working directories: {said}");
            let is_of_host = |line: &&str| line.starts_with('/') && !["/", "/dev/null"].contains(line);
            assert_eq!(said.lines().find(is_of_host), None, "{said}");
            container.cancel(Cancel::now()).await;
        }
        let seen = fs::read_to_string(seen).unwrap();
        // As in `lr-x------ 1 root root 64 Nov 28 01:02 0 -> /dev/null`. The script itself is one of bash's.
        let open = seen.lines().filter_map(|line| line.split_once(" -> "));
        let open = open.map(|(start, to)| (start.rsplit(' ').next().unwrap(), to));
        let (first, more): (Vec<_>, Vec<_>) = open.partition(|(fd, _)| ["0", "1", "2"].contains(fd));
        assert!(first.len() >= 6 && first.len() % 3 == 0, "{seen}");
        assert!(more.iter().all(|(_, to)| to.ends_with("/wrapper")), "a runtime has {more:?}");
        drop(directory);
        wrapped.shutdown(Cancel::now(), HUNG).await;
        drop(wrapped);
        stage.finish(real).await;
    });
}

/// The user's files are opened for reading or appending, and belong to the user.
#[test]
fn owned_by_1000_and_reopened() {
    on_bare_stage(|stage| {
        let (input, output) = (stage.path("input"), stage.path("output"));
        fs::write(&input, "typed\n").unwrap();
        fs::write(&output, "before\n").unwrap();
        let appending = || fs::OpenOptions::new().append(true).open(&output).unwrap();
        let overwrite = "cat; for fd in 0 1 2; do echo over > /proc/self/fd/$fd; done 2>/dev/null";
        for script in [overwrite, "id -u"] {
            let mut command = longshore(&stage.root());
            command.args(["run", "-i", "-u", "1000", "--", "sh", "-c", script]);
            command.stdin(File::open(&input).unwrap()).stdout(appending()).stderr(appending());
            assert!(command.status().unwrap().code().is_some());
        }
        assert_eq!(fs::read_to_string(&input).unwrap(), "typed\n");
        let written = fs::read_to_string(&output).unwrap();
        assert!(written.starts_with("before\ntyped\n") && written.ends_with("1000\n"), "{written}");
        for file in [&input, &output] {
            let meta = fs::metadata(file).unwrap();
            assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o644), "{}", file.display());
        }
        // Those who want their own descriptors get them.
        let mut command = longshore(&stage.root());
        command.args(["run", "--stdio", "inherit", "--", "readlink", "/proc/self/fd/1"]);
        assert!(command.stdout(appending()).status().unwrap().success());
        drop(command);
        let written = fs::read_to_string(&output).unwrap();
        assert!(written.ends_with(&format!("{}\n", output.display())), "{written}");
        stage.check();
    });
}

/// As any program, the command waits for its reader. The reader's end may be non-blocking.
#[test]
fn slow_reader_and_nonblocking() {
    on_bare_stage(|stage| {
        for nonblocking in [false, true] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            rustix::io::ioctl_fionbio(&writer, nonblocking).unwrap();
            let mut command = longshore(&stage.root());
            command.args(["run", "--", "seq", "1", "20000"]);
            let mut child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
            drop(command);
            std::thread::sleep(Duration::from_secs(2));
            let mut all = String::new();
            reader.read_to_string(&mut all).unwrap();
            assert_eq!((all.len(), child.wait().unwrap().code()), (108_894, Some(0)), "{nonblocking}");
        }
        stage.check();
    });
}

/// The reader never reads. A signal ends the wait.
#[test]
fn a_reader_that_never_reads() {
    on_bare_stage(|stage| {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = longshore(&stage.root());
        // The output fits into our pipe, so that the program ends.
        command.args(["run", "--", "seq", "1", "60000"]).stdout(writer).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(command);
        std::thread::sleep(longshore_tests::patience(Duration::from_secs(2)));
        assert!(child.try_wait().unwrap().is_none(), "it does not wait");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.starts_with("longshore: output of the program is lost: its reader has not"), "{said}");
        drop(reader);
        stage.check();
    });
}

/// What cannot be written is an error; a reader that has closed its end is none.
#[test]
fn output_that_is_lost() {
    on_bare_stage(|stage| {
        let call = |options: &[&str], script: &str, out: Stdio| {
            let mut command = longshore(&stage.root());
            command.arg("run").args(options).args(["--", "sh", "-c", script]);
            let output = command.stdout(out).stderr(Stdio::piped()).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let run = |script: &str, out: Stdio| call(&[], script, out);
        let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        for options in [&[][..], &["-t"]] {
            let (code, said) = call(options, "echo text", full());
            assert_eq!(code, Some(125), "{options:?} {said}");
            assert!(said.starts_with("longshore: output of the program is lost: No space left"), "{said}");
        }
        assert_eq!(run("echo text; sleep 1; exit 3", full()).0, Some(3));
        assert_eq!(call(&[], "exec yes", full()).0, Some(125), "its output is closed");
        let (code, said) = call(&["--events", "/dev/full"], "exit 0", Stdio::null());
        assert_eq!(code, Some(125), "{said}");
        assert!(said.starts_with("longshore: events are lost: No space left"), "{said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(run("echo text; exit 0", writer.into()), (Some(0), String::new()));
        stage.check();
    });
}

/// Looks at what the processes that enter the container have open, their working and root directories included. A
/// directory that is neither on the container's root file system nor in its `/proc` leads out.
const SPY: &str = r##"
    $| = 1;
    my %inside = map { (stat $_)[0] => 1 } '/', '/proc';
    my (%seen, $end);
    for ($end = time + 3; time < $end;) {
        opendir(my $proc, '/proc');
        for my $pid (grep { /^\d+$/ && $_ != $$ } readdir $proc) {
            for my $link (glob("/proc/$pid/fd/* /proc/$pid/cwd /proc/$pid/root /proc/$pid/exe")) {
                my $to = readlink($link) // next;
                my ($program, $device) = ($link =~ /exe$/, (stat "$link/.")[0]);
                next unless $program || defined $device;
                my $out = !$program && !$inside{$device} ? 'out' : 'in';
                (my $name = $link) =~ s/\d+/N/;
                print "$out $name $to\n" unless $seen{"$out $name $to"}++;
            }
        }
    }
    print "over\n";
"##;

#[test]
fn spied_on_while_entering() {
    for capable in [false, true] {
        on_stage(async |stage| {
            let executor = stage.executor();
            let mut spec = ContainerSpec::host(["perl", "-e", SPY]).piped();
            if capable {
                spec.process.cap_add.push("SYS_PTRACE".parse().unwrap());
            }
            let spy = executor.run(spec).await.unwrap();
            let mut stdout = spy.io().take_stdout().unwrap();
            let mut said = String::new();
            while !said.contains("over") {
                spy.exec(ExecSpec::new(["true"])).await.unwrap().wait().await;
                let more = tokio::time::timeout(Duration::from_millis(1), stdout.next_chunk()).await;
                if let Ok(Some(chunk)) = more {
                    said.push_str(&String::from_utf8_lossy(&chunk));
                }
            }
            assert!(said.contains("in /proc/N/cwd /\n"), "nothing was seen: {said}");
            assert!(!said.lines().any(|line| line.starts_with("out ")), "{said}");
            // Without the capability, not even the runtime itself is seen.
            let runtime =
                said.lines().find(|line| line.contains("longshore-runtime") || line.ends_with("exe /"));
            assert!(capable || runtime.is_none(), "{runtime:?}");
            spy.wait().await;
            stage.finish(executor).await;
        });
    }
}

/// The streams of a process that has none are the host's /dev/null, which root in the container may not change.
#[test]
fn the_hosts_null() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let state = || fs::metadata("/dev/null").map(|meta| (meta.mode(), meta.mtime(), meta.uid())).unwrap();
        let before = state();
        let script = "for fd in 0 1 2; do chmod 600 /proc/self/fd/$fd; touch -d 2001-01-01 /proc/self/fd/$fd; \
                      chown 1 /proc/self/fd/$fd; done; echo x >&1; read line; true";
        let mut spec = longshore_tests::shell(&format!("({script}); sleep 1000"));
        spec.process.stdio = longshore::StdioSpec::default();
        let container = executor.run(spec).await.unwrap();
        let exec = container.exec(ExecSpec::new(["sh", "-c", script])).await.unwrap();
        assert!(exec.wait().await.is_success());
        container.cancel(Cancel::now()).await;
        assert_eq!(state(), before);
        stage.finish(executor).await;
    });
}
