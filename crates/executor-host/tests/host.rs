//! The host in this process, on real children.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executor_core::lifecycle::{ExitStatus, HostPid, Signal, SignalScope};
use executor_core::{ChildFd, ChildStdio, Delivery};
use executor_host::{
    CallEnd, Command, Event, FileIdentity, HostClient, Image, ImageFate, OsError, Parent, ProcessEnd,
    ProcessHost, Request, StdioSource, Token,
};
use futures::StreamExt;

mod calls;

use calls::{anywhere, process, said, sh};

#[tokio::test]
async fn a_call_has_its_environment_its_group_and_its_streams() {
    let host = HostClient::local().unwrap();
    let script =
        "echo $OURS $HOME; ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat; echo $$; exit 7";
    let (said, ended) = said(&host, sh(script)).await;
    let words: Vec<_> = said.split_whitespace().collect();
    let [ours, group, pid] = *words else { panic!("{said}") };
    assert_eq!((ours, group, ended), ("1", pid, CallEnd::Ended(ExitStatus::Code(7))));
    let error = host.spawn(Command { program: "/nowhere".into(), ..sh("") }, None, &ChildStdio::default());
    let error = error.await.err().unwrap();
    assert_eq!(error.to_string(), "execute /nowhere");
    assert_eq!(error.io().unwrap().kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_call_that_is_overdue_or_given_up_is_killed() {
    let host = HostClient::local().unwrap();
    let call = host.spawn(sh("sleep 1000"), None, &ChildStdio::default()).await.unwrap();
    assert_eq!(call.wait(Duration::from_millis(1), std::future::pending()).await, CallEnd::Overdue);
    let call = host.spawn(sh("sleep 1000"), None, &ChildStdio::default()).await.unwrap();
    assert_eq!(call.wait(Duration::from_secs(60), async {}).await, CallEnd::Abandoned);
    assert_eq!(call.ended().await, ExitStatus::Signal(Signal::KILL));
}

#[tokio::test]
async fn a_program_in_memory_is_executed_while_it_is_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    std::fs::copy("/bin/echo", &program).unwrap();
    let of = FileIdentity::of(&std::fs::metadata(&program).unwrap());
    let image = |path: &str| (Image { fd: 0, of }, OwnedFd::from(std::fs::File::open(path).unwrap()));
    let host = HostClient::local().unwrap();
    let command = || Command { program: program.clone().into(), args: vec!["x".into()], ..sh("") };
    for (image, fate) in [("/bin/true", ImageFate::Executed), ("/etc/passwd", ImageFate::Unfit)]
        .map(|(path, fate)| (image(path), fate))
    {
        let call = host.spawn(command(), Some(image), &ChildStdio::default()).await.unwrap();
        assert_eq!((call.image(), call.ended().await), (fate, ExitStatus::Code(0)));
    }
    std::fs::copy("/bin/true", &program).unwrap();
    let call = host.spawn(command(), Some(image("/bin/true")), &ChildStdio::default()).await.unwrap();
    assert_eq!(call.image(), ImageFate::Outdated);
}

/// A child of the test's own is adopted as if a runtime had left it.
fn child(script: &str) -> (std::process::Child, HostPid) {
    let child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
    let pid = HostPid::new(child.id()).unwrap();
    (child, pid)
}

fn ended_with(status: ExitStatus) -> ProcessEnd {
    ProcessEnd { status, oom: None, has_executed: Some(true), at: None }
}

async fn adopted(host: &HostClient, pid: HostPid) -> impl Future<Output = ExitStatus> {
    let ended = host.adopt(process(1), pid, Parent::Us, anywhere()).await.unwrap().ended();
    async { ended.await.status }
}

#[tokio::test]
async fn exits_are_exact_and_signals_end_with_them() {
    let host = HostClient::local().unwrap();
    let mut exits = host.exits();
    let (_child, pid) = child("exec sleep 1000");
    let ended = adopted(&host, pid).await;
    let term = Signal::new(15).unwrap();
    let signal = || host.signal(process(1), term, SignalScope::Process);
    assert_eq!(signal().await.unwrap(), Delivery::Sent);
    assert_eq!(ended.await, ExitStatus::Signal(term));
    assert_eq!(exits.next().await.unwrap(), (process(1), ended_with(ExitStatus::Signal(term))));
    assert_eq!(signal().await.unwrap(), Delivery::Gone);
    assert_eq!(host.kill(process(1), None, Vec::new()).await.unwrap(), Delivery::Gone);
}

#[tokio::test]
async fn the_waits_and_children_of_the_embedder() {
    let host = HostClient::local().unwrap();
    let (mut thief, pid) = child("sleep 0.05; exit 5");
    let ended = adopted(&host, pid).await;
    // A thread of the embedder waits for it, and it is not killed.
    let stolen = tokio::task::spawn_blocking(move || thief.wait().map(|status| status.code()));
    let status = ended.await;
    let stolen = stolen.await.unwrap();
    match stolen {
        // Before Linux 6.15 it cannot be known.
        Ok(_) => assert!([ExitStatus::Code(5), ExitStatus::Unknown].contains(&status), "{status}"),
        Err(_) => assert_eq!(status, ExitStatus::Code(5)),
    }
    let (mut own, _) = child("exit 3");
    host.reap_orphans(executor_host::Containers::Of("nobody".into())).unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while !std::fs::read_to_string(format!("/proc/{}/stat", own.id())).unwrap().contains(") Z") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    host.thaw(Vec::new()).await.unwrap();
    assert_eq!(own.wait().unwrap().code(), Some(3));
}

#[tokio::test]
async fn closing_ends_everything_and_executes_nothing_more() {
    let host = HostClient::local().unwrap();
    let (_child, pid) = child("trap '' TERM; while :; do sleep 1; done");
    let ended = adopted(&host, pid).await;
    let call = host.spawn(sh("sleep 1000"), None, &ChildStdio::default()).await.unwrap();
    host.close(Duration::from_secs(10)).unwrap();
    assert_eq!(ended.await, ExitStatus::Signal(Signal::KILL));
    assert_eq!(call.ended().await, ExitStatus::Signal(Signal::KILL));
    assert!(host.spawn(sh("exit 0"), None, &ChildStdio::default()).await.is_err());
}

#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<Request>>>);

impl ProcessHost for Recorded {
    fn request(&self, request: Request, _: Vec<OwnedFd>) {
        self.0.lock().unwrap().push(request);
    }
}

#[test]
fn a_request_enters_the_host_before_its_method_returns() {
    let host = Recorded::default();
    let client = HostClient::connect(|sink| {
        drop(sink);
        Ok(Box::new(host.clone()))
    })
    .unwrap();
    let (init, signal) = (process(1), Signal::KILL);
    drop(client.signal(init.clone(), signal, SignalScope::Group));
    drop(client.kill(init.clone(), None, vec!["/a".into()]));
    drop(client.thaw(vec!["/b".into()]));
    let requests = std::mem::take(&mut *host.0.lock().unwrap());
    let [
        Request::Signal { process, scope: SignalScope::Group, .. },
        Request::Kill { .. },
        Request::Thaw { .. },
    ] = requests.as_slice()
    else {
        panic!("{requests:?}")
    };
    assert_eq!(*process, init);
    // The host is gone: that is the answer, and not silence.
    let answer = futures::executor::block_on(client.thaw(Vec::new()));
    assert!(matches!(answer, Err(executor_host::Error::HostGone)));
    assert!(client.close(Duration::from_secs(60)).is_err());
}

#[test]
fn what_crosses_the_seam_can_be_written_and_read() {
    use std::os::unix::ffi::OsStringExt;
    let odd = std::ffi::OsString::from_vec(vec![b'/', 0xff]);
    let image = Some(Image { fd: 1, of: FileIdentity { file: (1, 2), size: 3, changed: (4, 5) } });
    let command = Command { args: vec![odd.clone()], image, stdio: [StdioSource::Fd(0); 3], ..sh("") };
    for request in [
        Request::Spawn { call: executor_host::CallId(1), command },
        Request::Thaw { token: Token(1), dirs: vec![odd] },
        Request::Adopt {
            token: Token(2),
            process: process(1),
            pid: HostPid::new(7).unwrap(),
            parent: Parent::Call(executor_host::CallId(1)),
            members: anywhere(),
        },
    ] {
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    }
    for event in [
        Event::Exited { process: process(1), end: ended_with(ExitStatus::Signal(Signal::KILL)) },
        Event::Failed { token: Token(3), error: OsError(24) },
    ] {
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}

#[tokio::test]
async fn an_exit_is_held_until_the_start_is_known_and_a_disowned_one_is_not_reported() {
    let host = HostClient::local().unwrap();
    let mut exits = host.exits();
    for script in ["exec sleep 1000", "exit 3"] {
        let (_child, pid) = child(script);
        let adopted = host.adopt(process(1), pid, Parent::Us, anywhere()).await.unwrap();
        adopted.disown(Duration::from_secs(10)).await;
    }
    // The name is free.
    let (_child, pid) = child("exit 4");
    let adopted = host.adopt(process(1), pid, Parent::Us, anywhere()).await.unwrap();
    assert_eq!(adopted.ended().await, ended_with(ExitStatus::Code(4)));
    host.thaw(Vec::new()).await.unwrap();
    assert!(
        futures::FutureExt::now_or_never(exits.next()).is_none(),
        "it is not known whether it has started"
    );
    adopted.report();
    assert_eq!(exits.next().await.unwrap(), (process(1), ended_with(ExitStatus::Code(4))));
}

#[tokio::test]
async fn a_call_that_outlives_its_client_is_no_zombie() {
    let (mut ours, theirs) = std::io::pipe().unwrap();
    let mut pid = String::new();
    {
        let host = HostClient::local().unwrap();
        let stdout = ChildFd::Fd(Arc::new(OwnedFd::from(theirs)));
        let stdio = ChildStdio { stdout, ..ChildStdio::default() };
        let _call = host.spawn(sh("echo $$; exec sleep 0.2"), None, &stdio).await.unwrap();
    }
    // To the end: it holds the pipe until it has ended.
    ours.read_to_string(&mut pid).unwrap();
    let stat = format!("/proc/{}", pid.trim());
    tokio::time::timeout(Duration::from_secs(10), async {
        while std::fs::exists(&stat).unwrap() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}
