//! What a container is given and kept from, looked at from inside it on the real runtime. `docs/behaviour.md` says
//! which requirement is shown by which test.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use longshore::{ContainerSpec, ExecSpec, Executor, ExitStatus, Seccomp, Security};
use longshore_tests::{on_stage, shell, text};

/// What a container's script wrote to stdout.
async fn says(executor: &Executor, spec: ContainerSpec) -> String {
    let container = executor.run(spec.piped()).await.unwrap();
    let (stdout, stderr) = (container.io().take_stdout().unwrap(), container.io().take_stderr().unwrap());
    let (stdout, stderr) = futures::join!(stdout.read_to_end(), stderr.read_to_end());
    let exit = container.wait().await;
    assert_eq!(exit.status, ExitStatus::Code(0), "{exit:?}: {}", text(stderr));
    text(stdout)
}

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
        let script = "for file in /proc/sys/kernel/hostname /sys/kernel/uevent_seqnum /sys/fs/cgroup/pids/cgroup.procs; do
            ( echo x > $file ) 2>/dev/null && echo $file is writable; done; cat /proc/keys /proc/timer_list | wc -c; ls /dev/kmsg 2>&1 | grep -c 'No such'";
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
        own.seccomp = Seccomp::Profile(stage.path("profile.json"));
        assert_eq!(says(&executor, own).await, "1\nmade\n");
        let mut none = shell("grep ^Seccomp: /proc/self/status | tr -d '\\t\\n'");
        none.seccomp = Seccomp::Unconfined;
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
             mkdir /sys/fs/cgroup/pids/below && rmdir /sys/fs/cgroup/pids/below && echo cgroups; head -c 1 /proc/timer_list | wc -c"
        );
        let mut spec = shell(&script);
        spec.security = Security::Insecure;
        let expected = format!("CapEff: {all} NoNewPrivs: 0 Seccomp: 0 mounted\nkmsg\ncgroups\n1\n");
        assert_eq!(says(&executor, spec).await, expected);
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
        assert_eq!(text(stdout), "1\n2\n321\n");
        assert!(exec.wait().await.is_success());
        stage.finish(executor).await;
    });
}
