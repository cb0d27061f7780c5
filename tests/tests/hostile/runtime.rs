//! What a container can do to the runtime that starts it, and to the streams of the command.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use longshore::{Cancel, ContainerHandle, ContainerSpec, ExecSpec};
use longshore_tests::{HUNG, on_stage, sleeper};
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
            assert!(asked.elapsed() < Duration::from_secs(5), "{came_of_it}: {:?}", asked.elapsed());
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
