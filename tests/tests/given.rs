//! What a container is given beside its root file system, on the real runtime: secrets and devices.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio as ProcessStdio;

use longshore::{Device, DeviceRights, ExecSpec, IdMap, IdRange, Mount, StartFailureKind};
use longshore_tests::command::longshore;
use longshore_tests::{on_bare_stage, on_stage, says, shell, sleeper, start_failure};

const SECRET: &str = "correct horse battery staple";

/// Every file below a directory, without those on a file system that is mounted there.
fn files(dir: &Path, device: u64, found: &mut Vec<PathBuf>) {
    use std::os::unix::fs::MetadataExt;
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        if meta.is_dir() && meta.dev() == device {
            files(&entry.path(), device, found);
        } else if meta.is_file() {
            found.push(entry.path());
        }
    }
}

fn mounts_of(kind: &str, below: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let ours = fields.filter(|fields| fields[2] == kind && Path::new(fields[1]).starts_with(below));
    ours.map(|fields| fields[1].to_owned()).collect()
}

#[test]
fn a_secret_is_read_and_never_on_a_disk() {
    on_stage(async |stage| {
        use std::os::unix::fs::MetadataExt;
        let executor = stage.executor();
        let secret = |mode| Mount::secret(SECRET, "/run/token", mode, (0, 7));
        assert!(!format!("{:?}", secret(0o440)).contains("horse"));
        let script = "stat -c '%a %u %g' /run/token; cat /run/token; (echo x > /run/token) 2>/dev/null || echo; \
                      grep -c ' /run/token ramfs ro' /proc/self/mounts";
        assert_eq!(
            says(&executor, shell(script).mount(secret(0o440))).await,
            format!("440 0 7\n{SECRET}\n1\n")
        );
        let container = executor.run(sleeper().mount(secret(0o400))).await.unwrap();
        container.started().await.unwrap();
        let own = stage.root().join("containers").join(container.id().as_str());
        assert_eq!(mounts_of("ramfs", &own), [own.join("secrets").display().to_string()]);
        let mut found = Vec::new();
        files(&own, fs::metadata(&own).unwrap().dev(), &mut found);
        for file in found {
            let text = fs::read(&file).unwrap();
            let holds_it = text.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!holds_it, "{} holds the secret", file.display());
        }
        let exec = container.exec(ExecSpec::new(["grep", "-q", "horse", "/run/token"])).await.unwrap();
        assert!(exec.wait().await.is_success());
        container.cancel(longshore::Cancel::now()).await;
        container.released().await.unwrap();
        assert_eq!(mounts_of("ramfs", &stage.root()), Vec::<String>::new());
        stage.finish(executor).await;
    });
}

#[test]
fn a_secret_belongs_to_the_containers_users() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let range = IdRange { container: 0, host: 100_000, size: 65_536 };
        let secret = Mount::secret(SECRET, "/token", 0o400, (1000, 1000));
        let mut spec = shell("stat -c '%a %u %g' /token; cat /token").mount(secret).user("1000:1000");
        spec.id_map = Some(IdMap { uids: vec![range], gids: vec![range] });
        assert_eq!(says(&executor, spec).await, format!("400 1000 1000\n{SECRET}"));
        let other = shell("cat /token 2>&1 | grep -c denied")
            .mount(Mount::secret(SECRET, "/token", 0o400, (1000, 1000)))
            .user("1001:1001");
        assert_eq!(says(&executor, other).await, "1\n");
        stage.finish(executor).await;
    });
}

/// The command is killed; what it mounted is gone after a sweep.
#[test]
fn a_sweep_takes_secrets_along() {
    on_bare_stage(|stage| {
        let token = stage.path("token");
        fs::write(&token, SECRET).unwrap();
        let secret = format!("{}:/run/token:444", token.display());
        let mut command = longshore(&stage.root());
        command.args(["run", "--secret", &secret, "--", "sh", "-c", "cat /run/token; sleep 1000"]);
        let mut command = command.stdout(ProcessStdio::piped()).spawn().unwrap();
        let mut said = vec![0; SECRET.len()];
        std::io::Read::read_exact(command.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(said, SECRET.as_bytes());
        assert_eq!(mounts_of("ramfs", &stage.root()).len(), 1);
        command.kill().unwrap();
        command.wait().unwrap();
        drop(command);
        let swept = longshore_tests::command::call(&stage.root(), &["sweep"]);
        assert_eq!(swept.code, Some(0), "{swept:?}");
        assert_eq!(mounts_of("ramfs", &stage.root()), Vec::<String>::new());
        stage.check();
    });
}

#[test]
fn a_device_has_the_rights_that_it_is_given() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let script = "for how in '<' '>'; do (eval \"exec 3$how/dev/other\") 2>/dev/null && echo opened || echo refused; done; \
                      stat -c '%t %T' /dev/other 2>/dev/null";
        let device =
            |rights| shell(script).device(Device::node("/dev/loop-control", rights).at("/dev/other"));
        assert_eq!(says(&executor, device(DeviceRights::READ)).await, "opened\nrefused\na ed\n");
        assert_eq!(says(&executor, device(DeviceRights::READ_WRITE)).await, "opened\nopened\na ed\n");
        let none = shell("(exec 3</dev/loop-control) 2>/dev/null || echo none");
        assert_eq!(says(&executor, none).await, "none\n");
        for wrong in ["/dev/no-such", "/etc/passwd"] {
            let spec = shell("true").device(wrong.parse().unwrap());
            let failure = start_failure(&executor, spec).await;
            assert_eq!(failure.kind, StartFailureKind::BadConfig, "{failure}");
            assert!(failure.message.contains(wrong), "{failure}");
        }
        stage.finish(executor).await;
    });
}
