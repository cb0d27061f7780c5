//! What both sides run on: one root file system, one configuration, one runtime.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longshore::{ContainerSpec, Executor, Mount, Rootfs, Sandbox, Seccomp, ShutdownReport};
use serde_json::Value;
use tempfile::TempDir;

use crate::Done;

/// A directory for everything, the runtime, and an executor.
pub(crate) struct Ground {
    dir: TempDir,
    pub(crate) runtime: PathBuf,
    pub(crate) executor: Executor,
}

impl Ground {
    pub(crate) fn new(kick: bool) -> Done<Self> {
        let dir = TempDir::with_prefix("longshore-bench-")?;
        let rootfs = dir.path().join("rootfs");
        for name in ["etc", "usr", "proc", "dev", "sys"] {
            fs::create_dir_all(rootfs.join(name))?;
        }
        for name in ["etc/hosts", "etc/resolv.conf"] {
            fs::write(rootfs.join(name), "")?;
        }
        for name in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(Path::new("usr").join(name), rootfs.join(name))?;
        }
        let runtime = longshore::find_runtime(&longshore::CANDIDATES)?;
        let runc = longshore::runc().cgroup_kick(kick).build()?;
        let executor = Executor::builder(runc).root(dir.path().join("root")).build()?;
        Ok(Self { dir, runtime, executor })
    }

    /// A container of a program, with everything at its default.
    pub(crate) fn spec(&self, args: &[&str]) -> ContainerSpec {
        let mut spec = ContainerSpec::new(Rootfs::Dir(self.dir.path().join("rootfs")), args.iter().copied());
        spec.mounts.push(Mount::bind("/usr", "/usr").read_only());
        spec
    }

    /// The same without a filter for system calls, which costs the runtime the most.
    pub(crate) fn minimal(&self, args: &[&str]) -> ContainerSpec {
        ContainerSpec { seccomp: Seccomp::Unconfined, ..self.spec(args) }
    }

    /// A bundle for the bare runtime, with the configuration that ours has for it.
    pub(crate) fn bundle(&self, name: &str, spec: &ContainerSpec) -> Done<Bundle> {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir)?;
        let mut config: Value = serde_json::from_str(&Sandbox::preview(&name.parse()?, spec)?)?;
        // Files of ours, which it has not.
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.retain(|mount| {
                !["/etc/hosts", "/etc/resolv.conf"].contains(&mount["destination"].as_str().unwrap_or(""))
            });
        }
        config["linux"]["cgroupsPath"] = format!("/longshore-bench/{name}").into();
        fs::write(dir.join("config.json"), config.to_string())?;
        Ok(Bundle {
            runtime: self.runtime.clone(),
            state: self.dir.path().join("raw"),
            dir,
            name: name.to_owned(),
        })
    }

    pub(crate) async fn leave(self) -> Done {
        let report = self.executor.shutdown(Duration::from_secs(60)).await;
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _not_there = fs::remove_dir(hierarchy.path().join("longshore-bench"));
        }
        if report == ShutdownReport::default() { Ok(()) } else { Err(format!("{report:?}").into()) }
    }
}

/// A container in the hands of the bare runtime.
#[derive(Clone)]
pub(crate) struct Bundle {
    runtime: PathBuf,
    state: PathBuf,
    dir: PathBuf,
    name: String,
}

impl Bundle {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(&self.state).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env_remove("NOTIFY_SOCKET");
        command
    }

    fn call(&self, args: &[&str]) -> Done<Duration> {
        let begun = Instant::now();
        let status = self.command(args).status()?;
        if status.success() { Ok(begun.elapsed()) } else { Err(format!("{args:?}: {status}").into()) }
    }

    fn dir(&self) -> &str {
        self.dir.to_str().unwrap_or_default()
    }

    /// `run` in the foreground, from the call to its end.
    pub(crate) fn run(&self, number: usize) -> Done<Duration> {
        self.call(&["run", "--bundle", self.dir(), &format!("{}-{number}", self.name)])
    }

    pub(crate) fn start(&self) -> Done {
        self.call(&["run", "--detach", "--bundle", self.dir(), &self.name]).map(drop)
    }

    pub(crate) fn exec(&self, args: &[&str]) -> Done<Duration> {
        self.call(&[&["exec", &self.name], args].concat())
    }

    pub(crate) fn end(&self) -> Done {
        self.call(&["delete", "--force", &self.name]).map(drop)
    }
}
