//! A keeper as the host of a driver: the child table decides here, the parent is there.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, Signal, SignalScope};
use executor_core::{ChildFd, ChildStdio, Delivery};
use executor_host::{CallEnd, Command, FileIdentity, HostClient, Image, ImageFate, Parent};
use futures::StreamExt;

use crate::calls::{anywhere, process, said, sh};
use crate::stage::{Stage, children_of, kill, run, within};

fn with_host(test: impl AsyncFnOnce(&Stage, &HostClient)) {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    run(|stage| {
        let runtime = runtime();
        runtime.block_on(async {
            let host = HostClient::kept(stage.keeper().clone()).unwrap();
            test(stage, &host).await;
        });
        drop(runtime);
        // The host's thread ends a moment after its last client.
        within(|| {
            let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
            let mut names = threads.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
            !names.any(|name| name.starts_with("longshore"))
        });
    });
}

/// A call leaves a process behind, as a runtime does, and says its pid.
async fn left(host: &HostClient, script: &str) -> HostPid {
    let script = format!("setsid sh -c '{script}' >/dev/null & echo $!");
    let (said, ended) = said(host, sh(&script)).await;
    assert_eq!(ended, CallEnd::Ended(ExitStatus::Code(0)));
    HostPid::new(said.trim().parse().unwrap()).unwrap()
}

#[test]
fn a_call_is_the_keepers_child_and_its_exit_is_ours() {
    with_host(async |stage, host| {
        let (said, ended) = said(host, sh("echo $OURS $PPID; exit 7")).await;
        assert_eq!(said, format!("1 {}\n", stage.keeper().pid()));
        assert_eq!(ended, CallEnd::Ended(ExitStatus::Code(7)));
        let nowhere = Command { program: "/nowhere".into(), ..sh("") };
        let error = host.spawn(nowhere, None, &ChildStdio::default()).await.err().unwrap();
        assert_eq!(
            (error.to_string().as_str(), error.io().unwrap().raw_os_error()),
            ("execute /nowhere", Some(2))
        );
        let call = host.spawn(sh("sleep 1000"), None, &ChildStdio::default()).await.unwrap();
        assert_eq!(call.wait(Duration::from_millis(1), std::future::pending()).await, CallEnd::Overdue);
        within(|| children_of(stage.keeper()).is_empty());
        // What nobody can ask for any more is forgotten; the killed `sleep` may be an orphan.
        assert!(stage.keeper().records(0).unwrap().iter().all(|record| !record.was_spawned));
    });
}

#[test]
fn a_program_in_memory_is_executed_while_it_is_the_program() {
    with_host(async |_, host| {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::copy("/bin/echo", &program).unwrap();
        let of = FileIdentity::of(&fs::metadata(&program).unwrap());
        let command = || Command { program: program.clone().into(), args: vec!["x".into()], ..sh("") };
        for (path, fate) in [("/bin/true", ImageFate::Executed), ("/etc/passwd", ImageFate::Unfit)] {
            let image = (Image { fd: 0, of }, OwnedFd::from(fs::File::open(path).unwrap()));
            let call = host.spawn(command(), Some(image), &ChildStdio::default()).await.unwrap();
            assert_eq!((call.image(), call.ended().await), (fate, ExitStatus::Code(0)));
        }
    });
}

#[test]
fn what_a_call_has_left_is_adopted_alive_or_ended() {
    with_host(async |stage, host| {
        let mut exits = host.exits();
        let pid = left(host, "exec sleep 1000").await;
        let adopted = host.adopt(process(1), pid, Parent::Us, anywhere()).await.unwrap();
        let term = Signal::new(15).unwrap();
        let signal = || host.signal(process(1), term, SignalScope::Process);
        assert_eq!(signal().await.unwrap(), Delivery::Sent);
        let end = adopted.ended().await;
        assert_eq!((end.status, end.has_executed), (ExitStatus::Signal(term), Some(true)));
        assert!(end.at.is_some(), "the keeper knows the moment");
        adopted.report();
        assert_eq!(exits.next().await.unwrap(), (process(1), end));
        assert_eq!(signal().await.unwrap(), Delivery::Gone);
        // One that has ended and was reaped before it is adopted.
        let pid = left(host, "exit 42").await;
        within(|| !crate::stage::is_alive(pid));
        let adopted = host.adopt(process(2), pid, Parent::Us, anywhere()).await.unwrap();
        assert_eq!(adopted.ended().await.status, ExitStatus::Code(42));
        // The records are kept for an embedder that comes after us, until the container is forgotten.
        assert_eq!(stage.keeper().records(0).unwrap().len(), 2);
        host.forget(ContainerId::new("c").unwrap());
        host.thaw(Vec::new()).await.unwrap();
        assert_eq!(stage.keeper().records(0).unwrap(), []);
    });
}

#[test]
fn a_hundred_at_once_end_with_their_own_codes() {
    with_host(async |_, host| {
        let call = async |code: u8| {
            let call = host.spawn(sh(&format!("exit {code}")), None, &ChildStdio::default()).await.unwrap();
            assert_eq!(call.ended().await, ExitStatus::Code(code));
        };
        futures::future::join_all((0..100).map(call)).await;
    });
}

#[test]
fn the_keeper_is_killed_and_its_children_go_on() {
    with_host(async |stage, host| {
        let alive = left(host, "sleep 1000; exit 5").await;
        let adopted = host.adopt(process(1), alive, Parent::Us, anywhere()).await.unwrap();
        let (theirs, ours) = std::io::pipe().unwrap();
        let stdio =
            ChildStdio { stdin: ChildFd::Fd(Arc::new(OwnedFd::from(theirs))), ..ChildStdio::default() };
        let call = host.spawn(sh("read line; exit 6"), None, &stdio).await.unwrap();
        kill(stage.keeper().pid());
        within(|| !stage.keeper().is_alive());
        // It goes on.
        within(|| executor_host::procfs::first_child(alive).is_some());
        let sleep = executor_host::procfs::first_child(alive);
        let error = host.spawn(sh(""), None, &ChildStdio::default()).await.err().unwrap();
        assert!(error.to_string().contains("execute"), "{error}");
        drop(ours);
        // From Linux 6.15 on, the kernel tells it.
        let known = |status, code| [ExitStatus::Code(code), ExitStatus::Unknown].contains(&status);
        assert!(known(call.ended().await, 6));
        kill(sleep.unwrap());
        let status = adopted.ended().await.status;
        assert!(known(status, 5), "{status}");
        // Another one takes its place, for every clone.
        let other = executor_host::keeper::Keeper::start(&stage.dir, None).unwrap();
        stage.keeper().replace_by(other);
        assert!(stage.keeper().is_alive());
        assert_eq!(said(host, sh("exit 9")).await.1, CallEnd::Ended(ExitStatus::Code(9)));
    });
}

#[test]
#[ignore = "a measurement"]
fn how_long_a_call_takes() {
    with_host(async |_, kept| {
        let local = HostClient::local().unwrap();
        let truth = Command { program: "/bin/true".into(), args: Vec::new(), ..sh("") };
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..300 {
            for (host, times) in [&local, kept].into_iter().zip(&mut times) {
                let before = std::time::Instant::now();
                let call = host.spawn(truth.clone(), None, &ChildStdio::default()).await.unwrap();
                assert_eq!(call.ended().await, ExitStatus::Code(0));
                times.push(before.elapsed());
            }
        }
        let [local, kept] = times.map(|mut times| {
            times.sort();
            [times[15], times[150], times[285]]
        });
        println!("5 %, median, 95 %: local {local:?}, kept {kept:?}");
    });
}
