//! CNI networks, in a network namespace of the test's own: the bridge is not the host's.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use longshore::runtime::Cni;
use longshore::{ContainerSpec, Executor, Mount, Network, Sandbox};
use longshore_tests::{Stage, on_bare_stage, runtime, says, shell, start_failure, text, until};

/// Where Debian has the plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// A test in a network namespace of its thread, which every thread and process that it starts is in as well.
fn on_a_network_of_its_own(test: impl AsyncFnOnce(&Stage) + Send) {
    assert!(Path::new(PLUGINS).join("bridge").exists(), "`cargo xtask test` installs the CNI plugins");
    on_bare_stage(|stage| {
        let done = std::thread::scope(|scope| {
            let on_it = scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                configure(&stage);
                let runtime = runtime();
                runtime.block_on(test(&stage));
                drop(runtime);
            });
            on_it.join()
        });
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
        // Of its addresses, none is taken any more.
        let taken = fs::read_dir(stage.path("addresses/bridged")).into_iter().flatten().flatten();
        let taken: Vec<_> = taken
            .map(|entry| entry.file_name())
            .filter(|name| name.to_string_lossy().starts_with("10."))
            .collect();
        assert_eq!(taken, Vec::<std::ffi::OsString>::new(), "addresses are left");
        stage.check();
    });
}

fn configs(stage: &Stage) -> PathBuf {
    stage.path("net.d")
}

fn configure(stage: &Stage) {
    fs::create_dir(configs(stage)).unwrap();
    let bridged = serde_json::json!({
        "cniVersion": "1.0.0", "name": "bridged",
        "plugins": [{
            "type": "bridge", "bridge": "lsh0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
            "ipam": {"type": "host-local", "subnet": "10.213.0.0/24", "dataDir": stage.path("addresses"),
                     "routes": [{"dst": "0.0.0.0/0"}]},
            "dns": {"nameservers": ["10.213.0.1"], "search": ["bridged.example"]},
        }],
    });
    fs::write(configs(stage).join("10-bridged.conflist"), bridged.to_string()).unwrap();
    let broken = serde_json::json!({"cniVersion": "1.0.0", "name": "broken",
        "plugins": [{"type": "bridge", "bridge": "lsh1", "ipam": {"type": "no-such-plugin"}}]});
    fs::write(configs(stage).join("20-broken.conflist"), broken.to_string()).unwrap();
}

fn executor(stage: &Stage, ready: usize, idle: Duration) -> Executor {
    let cni = Cni::default().configs(configs(stage)).keep_ready(ready, idle);
    stage.executor_on(longshore_tests::runtime_under_test(longshore::runc_with(Sandbox::cni(cni))))
}

fn bridged(mut spec: ContainerSpec) -> ContainerSpec {
    spec.network = Network::Cni { name: Some("bridged".into()) };
    spec.mounts.push(Mount::bind(env!("CARGO_BIN_EXE_peer"), "/peer").read_only());
    spec
}

fn peer(args: &[&str]) -> ContainerSpec {
    bridged(ContainerSpec::host([&["/peer"], args].concat().iter().copied()))
}

/// What is kept on disk of networks.
fn networks(stage: &Stage) -> usize {
    fs::read_dir(stage.root().join("networks")).map_or(0, Iterator::count)
}

#[test]
fn containers_on_a_bridge_reach_one_another() {
    on_a_network_of_its_own(async |stage| {
        let executor = executor(stage, 0, Duration::ZERO);
        let mut server = peer(&["listen", "7000"]).piped();
        server.hostname = Some("server".into());
        let server = executor.run(server).await.unwrap();
        server.io().take_stdout().unwrap().next_chunk().await.unwrap();
        let exec =
            longshore::ExecSpec::new(["sh", "-c", "grep server /etc/hosts; cat /etc/resolv.conf"]).piped();
        let exec = server.exec(exec).await.unwrap();
        let said = text(exec.io().take_stdout().unwrap().read_to_end().await);
        let (hosts, resolv) = said.split_once('\n').unwrap();
        let address = hosts.strip_suffix("\tserver").unwrap();
        assert!(address.starts_with("10.213.0."), "{said}");
        assert!(resolv.starts_with("nameserver 10.213.0.1\nsearch bridged.example\n"), "{said}");

        assert_eq!(says(&executor, peer(&["ask", address, "7000"])).await, "server\n");
        // By a name, too.
        let mut named = peer(&["ask", "db", "7000"]);
        named.extra_hosts = vec![format!("db:{address}").parse().unwrap()];
        assert_eq!(says(&executor, named).await, "server\n");
        // Who is on no network reaches nobody; the loopback is up in both.
        let alone = shell(&format!(
            "(exec 3<>/dev/tcp/{address}/7000) 2>/dev/null && echo reached; cat /sys/class/net/lo/operstate"
        ));
        let mut alone = alone.network(Network::None);
        alone.process.args[0] = "bash".into();
        assert_eq!(says(&executor, alone).await, "unknown\n");
        assert_eq!(
            says(&executor, bridged(shell("cat /sys/class/net/lo/operstate; ls /sys/class/net"))).await,
            "unknown\neth0\nlo\n"
        );

        // What went over it is told, to the end.
        let now = server.usage().await.unwrap().network.unwrap();
        assert!(now.sent_bytes > 0 && now.received_packets > 0, "{now:?}");
        let exit = server.cancel(longshore::Cancel::now()).await;
        let last = exit.usage.unwrap().network.unwrap();
        assert!(last.sent_bytes >= now.sent_bytes && last.received_bytes > 0, "{last:?}");
        server.released().await.unwrap();
        until("the last network", || networks(stage) == 0).await;
        drop((server, exec));
        assert_eq!(
            executor.shutdown(longshore::Cancel::now(), Duration::from_secs(20)).await,
            longshore::ShutdownReport::default()
        );
    });
}

#[test]
fn a_network_that_cannot_be_had_is_told_and_taken_back() {
    on_a_network_of_its_own(async |stage| {
        let executor = executor(stage, 0, Duration::ZERO);
        for (name, text) in [
            (Some("nowhere"), "network nowhere: no configuration of this network in "),
            (Some("broken"), "network broken: plugin bridge, ADD: "),
        ] {
            let mut spec = shell("true");
            spec.network = Network::Cni { name: name.map(str::to_owned) };
            let failure = start_failure(&executor, spec).await;
            assert!(failure.message.starts_with(text), "{}", failure.message);
        }
        // The first there is, where none is named.
        let mut spec = shell("ls /sys/class/net/eth0 >/dev/null && echo first");
        spec.network = Network::Cni { name: None };
        assert_eq!(says(&executor, spec).await, "first\n");
        // A container that does not start gives its network back as well.
        let failure = start_failure(&executor, bridged(ContainerSpec::host(["no-such-program"]))).await;
        assert_eq!(failure.kind, longshore::StartFailureKind::NotFound);
        until("the networks", || networks(stage) == 0).await;
        assert_eq!(
            executor.shutdown(longshore::Cancel::now(), Duration::from_secs(20)).await,
            longshore::ShutdownReport::default()
        );
    });
}

#[test]
fn networks_are_ready_before_they_are_asked_for() {
    on_a_network_of_its_own(async |stage| {
        let executor = executor(stage, 2, longshore_tests::patience(Duration::from_secs(2)));
        let own_address = || bridged(shell("tail -n 1 /etc/hosts | cut -f1"));
        assert_eq!(networks(stage), 0, "nobody has asked");
        let first = says(&executor, own_address()).await;
        until("the pool", || networks(stage) == 2).await;
        let mut seen = vec![first];
        for _ in 0..4 {
            let address = says(&executor, own_address()).await;
            assert!(!seen.contains(&address), "{address} was used before");
            seen.push(address);
        }
        // One that was spoilt while it waited is not given out.
        until("the pool", || networks(stage) == 2).await;
        for entry in fs::read_dir(stage.root().join("networks")).unwrap().flatten() {
            let name = entry.path().join("netns");
            let mut spoilt = Command::new("nsenter");
            spoilt.arg(format!("--net={}", name.display())).args(["ip", "link", "del", "eth0"]);
            assert!(spoilt.status().unwrap().success());
        }
        assert_eq!(
            says(&executor, bridged(shell("ls /sys/class/net/eth0 >/dev/null && echo whole"))).await,
            "whole\n"
        );
        // When nobody asks, none is kept.
        until("the idle pool", || networks(stage) == 0).await;
        // What a shutdown finds ready it takes back.
        says(&executor, own_address()).await;
        until("the pool", || networks(stage) == 2).await;
        assert_eq!(
            executor
                .shutdown(longshore::Cancel::now(), longshore_tests::patience(Duration::from_secs(20)))
                .await,
            longshore::ShutdownReport::default()
        );
        assert_eq!(networks(stage), 0);
    });
}

/// The command killed with a container on a network: the next one takes it back.
#[test]
fn driver_killed_with_networks() {
    on_a_network_of_its_own(async |stage| {
        let mut command = longshore_tests::command::longshore(&stage.root());
        command.arg("--cni-configs").arg(configs(stage)).args(["run", "--net", "cni:bridged", "--"]);
        let mut child =
            command.args(["sh", "-c", "echo up; sleep 1000"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!((line.as_str(), networks(stage)), ("up\n", 1));
        child.kill().unwrap();
        child.wait().unwrap();
        let swept = longshore_tests::command::call(&stage.root(), &["sweep"]);
        assert!(swept.stdout.contains("killed") && swept.stderr.is_empty(), "{swept:?}");
        assert_eq!(networks(stage), 0);
        // An executor that dies with networks that were ready is swept, too; here by way of its directory.
        let executor = executor(stage, 0, Duration::ZERO);
        assert_eq!(executor.swept(), []);
        assert_eq!(
            executor.shutdown(longshore::Cancel::now(), Duration::from_secs(20)).await,
            longshore::ShutdownReport::default()
        );
    });
}

/// What plugins wait for: a pipe with a name, whose readers go on once this is dropped.
struct Hold {
    path: PathBuf,
    _writer: fs::File,
}

impl Hold {
    fn new(path: PathBuf) -> Self {
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let _writer = fs::File::options().read(true).write(true).open(&path).unwrap();
        Self { path, _writer }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        fs::remove_file(&self.path).unwrap();
    }
}

/// A plugin that answers when the test says so; DEL answers at once, or as late where a file says that too.
fn slow_network(stage: &Stage) -> Executor {
    let plugins = stage.path("plugins");
    fs::create_dir(&plugins).unwrap();
    let script = format!(
        r#"#!/bin/sh
wait_for() {{ cat "$1" 2>/dev/null; }}
case "$CNI_COMMAND" in
ADD) wait_for {dir}/hold-add ;;
DEL) echo >> {dir}/dels; wait_for {dir}/hold-del ;;
esac
echo '{{"cniVersion":"1.0.0","ips":[]}}'
"#,
        dir = stage.path("").display()
    );
    for name in ["slow", "loopback"] {
        let file = plugins.join(name);
        let script = if name == "slow" { script.as_str() } else { "#!/bin/sh\necho '{}'\n" };
        fs::write(&file, script).unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let slow = serde_json::json!({"cniVersion": "1.0.0", "name": "slow", "plugins": [{"type": "slow"}]});
    fs::write(configs(stage).join("30-slow.conflist"), slow.to_string()).unwrap();
    let cni = Cni::default().configs(configs(stage)).plugins([plugins]);
    stage.executor_on(longshore_tests::runtime_under_test(longshore::runc_with(Sandbox::cni(cni))))
}

/// While the plugins of eight containers do not answer, and those of one that has exited neither, an unrelated container
/// runs and is released, one is cancelled, and one on the same network exits. By the order of events, not by time.
#[test]
fn slow_plugin() {
    on_a_network_of_its_own(async |stage| {
        let executor = slow_network(stage);
        let slow = |mut spec: ContainerSpec| {
            spec.network = Network::Cni { name: Some("slow".into()) };
            spec
        };
        let networked = executor.run(slow(longshore_tests::sleeper())).await.unwrap();
        networked.started().await.unwrap();
        let mut leaving = slow(shell("read line; exit 4"));
        leaving.process.stdio.stdin = longshore::Stdio::Pipe;
        let leaving = executor.run(leaving).await.unwrap();
        leaving.started().await.unwrap();
        let sleeper = executor.run(longshore_tests::sleeper()).await.unwrap();
        sleeper.started().await.unwrap();

        let holds = ["hold-add", "hold-del"].map(|name| Hold::new(stage.path(name)));
        let mut waiting = Vec::new();
        for _ in 0..8 {
            waiting.push(executor.run(slow(shell("exit 7"))).await.unwrap());
        }
        // Its end is published although its network cannot be taken back, and nothing waits behind it.
        drop(leaving.io().take_stdin());
        assert_eq!(leaving.wait().await.status, longshore::ExitStatus::Code(4));
        until("the plugin is asked to take a network back", || stage.path("dels").exists()).await;
        let unrelated = executor.run(shell("exit 3")).await.unwrap();
        assert_eq!(unrelated.wait().await.status, longshore::ExitStatus::Code(3));
        assert!(unrelated.released().await.unwrap().is_empty());
        assert!(sleeper.cancel(longshore::Cancel::now()).await.usage.is_some());
        assert!(sleeper.released().await.unwrap().is_empty());
        let exec = networked.exec(longshore::ExecSpec::new(["true"])).await.unwrap();
        assert!(exec.wait().await.is_success());
        let exit = networked.cancel(longshore::Cancel::now()).await;
        assert!(exit.usage.is_some_and(|usage| usage.cpu.is_some()), "an exit on that network has its usage");
        assert!(leaving.snapshot().left.is_none() && networked.snapshot().left.is_none());
        assert!(
            waiting.iter().all(|container| container.snapshot().pid.is_none()),
            "they wait for their network"
        );

        drop(holds);
        for container in waiting {
            assert_eq!(container.wait().await.status, longshore::ExitStatus::Code(7));
        }
        assert_eq!(
            executor.shutdown(longshore::Cancel::now(), longshore_tests::HUNG).await,
            longshore::ShutdownReport::default()
        );
    });
}
