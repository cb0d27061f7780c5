//! What a container is given and kept from, looked at from inside it on the real runtime. `docs/behaviour.md` says
//! which requirement is shown by which test.
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use longshore::{
    CgroupParent, ContainerSpec, ExecSpec, ExitStatus, Refusal, Refused, Resources, Seccomp, Security,
    StartFailureKind, Telemetry,
};
use longshore_tests::{
    cgroup_of, on_bare_stage, on_runc, on_stage, says, shell, sleeper, start_failure, text, until,
};

const STATUS: &str = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t\\n' ' '";

#[test]
fn a_sandbox_has_the_usual_rights_and_a_filter() {
    on_stage(async |stage| {
        let executor = stage.executor();
        assert_eq!(
            says(&executor, shell(STATUS)).await,
            "CapEff: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2 "
        );
        let mut spec = shell(STATUS);
        spec.process.no_new_privileges = true;
        spec.process.cap_add = vec!["NET_ADMIN".parse().unwrap()];
        spec.process.cap_drop = vec!["KILL".parse().unwrap(), "CHOWN".parse().unwrap()];
        assert_eq!(says(&executor, spec).await, "CapEff: 00000000a80435da NoNewPrivs: 1 Seccomp: 2 ");
        // Nothing of the host's can be changed, and what tells of it is hidden.
        let script = "for file in /proc/sys/kernel/hostname /sys/kernel/uevent_seqnum /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/pids/cgroup.procs; do
            [ -e $file ] && ( echo x > $file ) 2>/dev/null && echo $file is writable; done; cat /proc/keys /proc/timer_list | wc -c; ls /dev/kmsg 2>&1 | grep -c 'No such'";
        assert_eq!(says(&executor, shell(script)).await, "0\n1\n");
        stage.finish(executor).await;
    });
}

/// A rule of the filter depends on what the container's processes may do.
#[test]
fn the_filter_fits_the_capabilities() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let script = "mkdir /m && mount -t tmpfs none /m 2>/dev/null && echo mounted || echo refused";
        assert_eq!(says(&executor, shell(script)).await, "refused\n");
        let mut able = shell(script);
        able.process.cap_add = vec!["SYS_ADMIN".parse().unwrap()];
        assert_eq!(says(&executor, able).await, "mounted\n");

        // A profile of one's own: everything but making directories.
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}]}"#;
        std::fs::write(stage.path("profile.json"), profile).unwrap();
        let mut own = shell("mkdir /m 2>&1 | grep -c 'Read-only file system'; touch /t && echo made");
        own.seccomp = Some(Seccomp::Profile(stage.path("profile.json")));
        assert_eq!(says(&executor, own).await, "1\nmade\n");
        let mut none = shell("grep ^Seccomp: /proc/self/status | tr -d '\\t\\n'");
        none.seccomp = Some(Seccomp::Unconfined);
        assert_eq!(says(&executor, none).await, "Seccomp:0");
        stage.finish(executor).await;
    });
}

#[test]
fn an_insecure_container_has_every_right_and_device() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        let all = own.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap().to_owned();
        let script = format!(
            "{STATUS}; mkdir /m && mount -t tmpfs none /m && echo mounted; test -c /dev/kmsg && echo kmsg; \
             dir=/sys/fs/cgroup; [ -d $dir/pids ] && dir=$dir/pids; mkdir $dir/below && rmdir $dir/below && echo cgroups; head -c 1 /proc/timer_list | wc -c"
        );
        let mut spec = shell(&script);
        spec.security = Security::Insecure;
        let expected = format!("CapEff: {all} NoNewPrivs: 0 Seccomp: 0 mounted\nkmsg\ncgroups\n1\n");
        assert_eq!(says(&executor, spec).await, expected);
        // A filter that is asked for is there as well.
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}]}"#;
        std::fs::write(stage.path("profile.json"), profile).unwrap();
        for (asked, made) in [
            (Some(Seccomp::Default), "Seccomp:2 made\n"),
            (Some(Seccomp::Profile(stage.path("profile.json"))), "Seccomp:2 "),
            (Some(Seccomp::Unconfined), "Seccomp:0 made\n"),
            (None, "Seccomp:0 made\n"),
        ] {
            let mut spec = shell(
                "grep ^Seccomp: /proc/self/status | tr -d '\\t' | tr '\\n' ' '; mkdir /n 2>/dev/null && echo made || true",
            );
            (spec.security, spec.seccomp) = (Security::Insecure, asked.clone());
            assert_eq!(says(&executor, spec).await, made, "{asked:?}");
        }
        stage.finish(executor).await;
    });
}

#[test]
fn names_are_the_containers_own() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let script =
            "cat /etc/hosts /etc/resolv.conf; hostname; (echo x >> /etc/hosts) 2>/dev/null || echo read-only";
        let mut spec = shell(script);
        spec.hostname = Some("ship".into());
        spec.extra_hosts = vec!["db:10.0.0.7".parse().unwrap()];
        spec.dns.nameservers = vec!["10.9.8.7".parse().unwrap()];
        spec.dns.search = vec!["example.org".into()];
        spec.dns.options = vec!["ndots:3".into()];
        let expected = "127.0.0.1\tlocalhost ship\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.7\tdb\n\
                        nameserver 10.9.8.7\nsearch example.org\noptions ndots:3\nship\nread-only\n";
        assert_eq!(says(&executor, spec.clone()).await, expected);
        // A mount of the caller's takes the place of ours.
        std::fs::write(stage.path("hosts"), "mine\n").unwrap();
        spec.process.args = ["cat", "/etc/hosts"].map(str::to_owned).into();
        spec.mounts.push(format!("{}:/etc/hosts", stage.path("hosts").display()).parse().unwrap());
        assert_eq!(says(&executor, spec).await, "mine\n");
        stage.finish(executor).await;
    });
}

#[test]
fn limits_of_processes() {
    on_stage(async |stage| {
        let executor = stage.executor();
        // Not the number of files: runc before 1.1.12 has an exec begin with the hard limit of these.
        let script = "ulimit -Sc; ulimit -Hc; cat /proc/self/oom_score_adj";
        let mut spec = shell(script);
        spec.process.ulimits = vec!["core=512:1024".parse().unwrap()];
        spec.process.oom_score_adj = Some(321);
        assert_eq!(says(&executor, spec.clone()).await, "1\n2\n321\n");
        // An exec starts from its container's settings.
        spec.process.args = vec!["sleep".into(), "1000".into()];
        let container = executor.run(spec).await.unwrap();
        let exec = container.exec(ExecSpec::new(["sh", "-c", script]).piped()).await.unwrap();
        let stdout = exec.io().take_stdout().unwrap().read_to_end().await;
        // crun gives an exec the score of whoever calls it.
        let score = if on_runc() { 321 } else { 0 };
        assert_eq!(text(stdout), format!("1\n2\n{score}\n"));
        assert!(exec.wait().await.is_success());
        stage.finish(executor).await;
    });
}

#[test]
fn limits_of_each_kind_are_set() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let limits = Resources::default()
            .memory(64 << 20)
            .memory_swap(96 << 20)
            .cpu_quota(20_000)
            .cpu_period(50_000)
            .cpu_shares(512)
            .cpuset_cpus("0")
            .cpuset_mems("0")
            .pids(17);
        let spec = sleeper().resources(limits);
        let container = executor.run(spec).await.unwrap();
        let pid = container.started().await.unwrap();
        let value = |controller: &str, v1: &str, v2: &str| {
            let dir = cgroup_of(pid, controller);
            let file = [v1, v2].map(|file| dir.join(file)).into_iter().find(|file| file.exists()).unwrap();
            std::fs::read_to_string(file).unwrap().trim().to_owned()
        };
        assert_eq!(value("memory", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
        let swap = value("memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
        assert!([96 << 20, 32 << 20].map(|bytes: u64| bytes.to_string()).contains(&swap), "{swap}");
        assert!(["20000", "20000 50000"].contains(&value("cpu", "cpu.cfs_quota_us", "cpu.max").as_str()));
        assert!(["512", "20"].contains(&value("cpu", "cpu.shares", "cpu.weight").as_str()));
        assert_eq!(value("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
        assert_eq!(value("cpuset", "cpuset.mems", "cpuset.mems"), "0");
        assert_eq!(value("pids", "pids.max", "pids.max"), "17");
        stage.finish(executor).await;
    });
}

/// The parent is the caller's: made when it is not there, and gone with the executor only then.
#[test]
fn a_cgroup_parent_of_ones_own() {
    on_stage(async |stage| {
        let names = ["longshore-test-parent", "longshore-test-kept"];
        let hierarchies = || ["memory", "pids", "cpuset"].map(|one| Path::new("/sys/fs/cgroup").join(one));
        let dirs = |name: &str| -> Vec<_> { hierarchies().into_iter().map(|dir| dir.join(name)).collect() };
        let there: Vec<_> = hierarchies().into_iter().filter(|dir| dir.is_dir()).collect();
        there.iter().for_each(|dir| std::fs::create_dir(dir.join(names[1])).unwrap());
        let default = CgroupParent::Path(format!("/{}/below", names[0]));
        let executor = stage.executor_on(stage.runtime().cgroup_parent(default));
        let (mut other, id) = (sleeper(), "in-a-parent".parse().unwrap());
        other.cgroup_parent = Some(format!("/{}", names[1]).parse().unwrap());
        let (made, kept) =
            (executor.run(sleeper().id(id)).await.unwrap(), executor.run(other).await.unwrap());
        for (container, parent) in
            [(&made, format!("/{}/below/longshore/", names[0])), (&kept, format!("/{}/longshore/", names[1]))]
        {
            let pid = container.started().await.unwrap();
            assert!(
                cgroup_of(pid, "pids").to_string_lossy().contains(&parent),
                "{:?}",
                cgroup_of(pid, "pids")
            );
            assert!(container.processes().await.unwrap().contains(&pid));
        }
        drop(kept.cancel(longshore::Cancel::now()).await);
        let id = made.id().clone();
        // As with a dead one: the sweep finds them by what the executor has written down.
        assert_eq!(executor.get(&id).await.unwrap().id(), &id);
        executor.shutdown(longshore::Cancel::now(), Duration::from_secs(10)).await;
        drop((executor, made, kept));
        assert!(dirs(names[0]).iter().all(|dir| !dir.exists()), "a parent that was made is left");
        for dir in dirs(names[1]).iter().filter(|dir| dir.exists()) {
            let below = std::fs::read_dir(dir).unwrap().flatten().filter(|entry| entry.path().is_dir());
            assert_eq!(
                below.map(|entry| entry.file_name()).collect::<Vec<_>>(),
                Vec::<std::ffi::OsString>::new()
            );
            std::fs::remove_dir(dir).unwrap();
        }
        stage.check();
    });
}

#[test]
fn other_codes_may_be_success() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = shell("exit 3");
        spec.process.valid_exit_codes = [3].into();
        let container = executor.run(spec).await.unwrap();
        let exit = container.wait().await;
        assert_eq!((exit.status, exit.is_success()), (ExitStatus::Code(3), true));
        let late = container.exec(ExecSpec::new(["true"])).await.unwrap_err();
        assert!(
            matches!(
                late,
                longshore::Error::Refused { refused: Refused { reason: Refusal::Stopped, .. }, .. }
            ),
            "{late:?}"
        );

        let container = executor.run(sleeper()).await.unwrap();
        let code = |code: u8, valid: &[u8]| {
            let mut exec = ExecSpec::new(["sh", "-c", &format!("exit {code}")]);
            exec.valid_exit_codes = valid.iter().copied().collect::<BTreeSet<_>>();
            let container = container.clone();
            async move { container.exec(exec).await.unwrap().wait().await.is_success() }
        };
        assert_eq!(
            (code(0, &[4]).await, code(4, &[4, 5]).await, code(6, &[4, 5]).await),
            (true, true, false)
        );
        stage.finish(executor).await;
    });
}

#[test]
fn usage_is_sampled_until_the_end() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let script = "head -c 20000000 /dev/zero | tail -c 1 >/dev/null; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; \
                      sleep 1000 & echo done; wait";
        let container = executor.run(shell(script).piped()).await.unwrap();
        let mut samples = container.samples(Duration::from_millis(20)).await;
        container.io().take_stdout().unwrap().next_chunk().await.unwrap();
        let now = container.usage().await.unwrap();
        assert!(now.cpu > Some(Duration::from_millis(20)), "{now:?}");
        assert!(now.memory > Some(0) && now.memory_peak >= now.memory, "{now:?}");
        assert!(now.pids >= Some(2) && now.pids_peak.is_none_or(|peak| peak >= 3), "{now:?}");
        assert_eq!(now.oom_kills, 0);
        assert_eq!(now.network.map(|network| network.sent_bytes), Some(0), "it has a loopback alone");
        let v2 = std::fs::read_to_string("/proc/self/mounts").unwrap().contains(" cgroup2 ");
        if v2 && Path::new("/proc/pressure").exists() {
            let pressure = now.pressure.expect("the kernel tells it");
            let cpu = pressure.cpu.expect("it tells that of a CPU");
            assert!(cpu.some >= cpu.full);
        }
        let exit = container.cancel(longshore::Cancel::now()).await;
        let mut taken = Vec::new();
        while let Some(sample) = samples.next().await {
            taken.push(sample);
        }
        let last = taken.last().unwrap();
        assert_eq!((Some(last.usage), last.at), (exit.usage.map(|usage| *usage), exit.exited_at));
        assert!(
            taken.windows(2).all(|pair| pair[0].at <= pair[1].at && pair[0].usage.cpu <= pair[1].usage.cpu)
        );
        assert!(container.usage().await.is_err(), "it has ended");
        assert!(
            container
                .samples(Duration::from_millis(1))
                .await
                .next()
                .await
                .is_none_or(|sample| sample == *last)
        );
        stage.finish(executor).await;
    });
}

/// Process 1 of ours reaps what is left to it, hands signals on, and ends as the program does.
#[test]
fn an_init_in_front_of_the_program() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let init = |script: &str| {
            let mut spec = shell(script).piped();
            spec.init = true;
            spec
        };
        let said = says(&executor, init("tr '\\0' ' ' </proc/1/cmdline; echo; echo $PPID")).await;
        assert!(said.starts_with("/dev/longshore-init sh -c ") && said.ends_with("\n1\n"), "{said}");
        // An orphan that ends is no zombie.
        let orphans = "(sh -c 'sleep 0.05 & exit' ) ; sleep 0.3; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
        assert_eq!(says(&executor, init(orphans)).await, "0\n");
        for (script, code) in [("exit 7", 7), ("kill -9 $$", 137)] {
            assert_eq!(executor.run(init(script)).await.unwrap().wait().await.status, ExitStatus::Code(code));
        }
        // Without it a program that is process 1 ignores SIGTERM; and the program gets what is sent to process 1.
        let container = executor.run(init("echo up; exec sleep 1000")).await.unwrap();
        container.io().take_stdout().unwrap().next_chunk().await.unwrap();
        container.signal(longshore::Signal::TERM).await.unwrap();
        assert_eq!(container.wait().await.status, ExitStatus::Code(143));
        // It runs where there is no library.
        let mut bare = stage.directory_spec(["sh", "-c", "echo here"]);
        bare.init = true;
        assert_eq!(says(&executor, bare).await, "here\n");
        let failure = start_failure(&executor, {
            let mut spec = init("x");
            spec.process.args = vec!["/no/such".into()];
            spec
        })
        .await;
        assert_eq!(failure.kind, StartFailureKind::NotFound);
        stage.finish(executor).await;
    });
}

/// What a host does not have is not passed over in silence.
#[test]
fn labels_need_a_host_that_knows_them() {
    on_stage(async |stage| {
        let executor = stage.executor();
        if !Path::new("/sys/module/apparmor/parameters/enabled").exists() {
            let mut spec = shell("true");
            spec.apparmor = Some("some-profile".into());
            let failure = start_failure(&executor, spec).await;
            assert_eq!(failure.message, "apparmor: some-profile: this host has no AppArmor");
        }
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            let mut spec = shell("true");
            spec.selinux = Some(longshore::Selinux::Generated);
            assert_eq!(start_failure(&executor, spec).await.message, "selinux: this host has no SELinux");
        }
        stage.finish(executor).await;
    });
}

#[test]
fn traces_have_a_socket_and_a_parent() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let socket = stage.path("otlp.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut spec = shell("test -S /dev/otlp.sock && env | grep -E '^(OTEL|TRACE)' | sort");
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        spec.telemetry =
            Telemetry { socket: Some(socket), traceparent: Some(parent.into()), tracestate: None };
        spec.process.env = vec![("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL".into(), "mine".into())];
        let expected = format!(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=unix:///dev/otlp.sock\nOTEL_EXPORTER_OTLP_TRACES_PROTOCOL=mine\n\
             OTEL_TRACES_EXPORTER=otlp\nTRACEPARENT={parent}\n"
        );
        assert_eq!(says(&executor, spec.clone()).await, expected);
        // Its execs are told the same.
        spec.process.args = vec!["sleep".into(), "1000".into()];
        let container = executor.run(spec).await.unwrap();
        let exec = container.exec(ExecSpec::new(["sh", "-c", "echo $TRACEPARENT"]).piped()).await.unwrap();
        assert_eq!(text(exec.io().take_stdout().unwrap().read_to_end().await), format!("{parent}\n"));
        drop(listener);
        stage.finish(executor).await;
    });
}

/// A caller's own config.json runs as it is: hooks, fields nobody here knows, and all.
#[test]
fn a_configuration_of_the_callers() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let plain = stage.directory_spec(["true"]);
        let longshore::Rootfs::Dir(rootfs) = &plain.rootfs else { panic!("no directory") };
        let bundle = stage.path("bundle");
        std::fs::create_dir(&bundle).unwrap();
        let hook = |name: &str| {
            let out = stage.path(name).display().to_string();
            serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} > {out}")]}])
        };
        let config = serde_json::json!({
            "ociVersion": "1.0.2", "x-unknown": [1], "hostname": "theirs",
            "root": {"path": rootfs},
            "process": {"args": ["sh", "-c", "hostname; id -u; echo $A; grep CapEff /proc/self/status | tr -d '\t'"], "env": ["PATH=/usr/bin:/bin", "A=b"],
                        "cwd": "/", "user": {"uid": 12, "gid": 12}},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                       {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}],
            "hooks": {"createRuntime": hook("created"), "poststop": hook("stopped")},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}]},
        });
        std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let spec = ContainerSpec::from_config(&bundle).unwrap();
        assert_eq!(says(&executor, spec.clone()).await, "theirs\n12\nb\nCapEff:0000000000000000\n");
        until("the hooks", || stage.path("stopped").exists()).await;
        assert!(stage.path("created").exists());
        let mut changed = spec;
        changed.hostname = Some("ours".into());
        changed.process.user = Some("7:7".into());
        assert!(says(&executor, changed).await.starts_with("ours\n7\n"));
        stage.finish(executor).await;
    });
}

/// A device by its CDI name: a fixture whose node is another name for `/dev/null`.
#[test]
fn a_device_by_its_cdi_name() {
    on_bare_stage(|stage| {
        let fixture = serde_json::json!({
            "cdiVersion": "0.6.0", "kind": "example.com/widget",
            "devices": [{"name": "one", "containerEdits": {
                "env": ["WIDGET=one"], "deviceNodes": [{"path": "/dev/widget", "hostPath": "/dev/null"}],
                "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/widget", "options": ["ro", "bind"]}]}}],
        });
        std::fs::create_dir(stage.path("cdi")).unwrap();
        std::fs::write(stage.path("cdi/widget.json"), fixture.to_string()).unwrap();
        let call = |device: &str, script: &str| {
            let mut command = longshore_tests::command::longshore(&stage.root());
            command
                .env("LONGSHORE_CDI_DIRS", stage.path("cdi"))
                .args(["run", "--device", device, "--", "sh", "-c", script]);
            longshore_tests::command::Outcome::from(command.output().unwrap())
        };
        let script = "echo $WIDGET; echo x > /dev/widget && echo written; test -f /widget && echo mounted";
        let outcome = call("example.com/widget=one", script);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("one\nwritten\nmounted\n", ""));
        let missing = call("example.com/widget=two", "true");
        assert_eq!(missing.code, Some(125));
        assert!(missing.stderr.contains("device: example.com/widget=two: "), "{missing:?}");
        stage.check();
    });
}
