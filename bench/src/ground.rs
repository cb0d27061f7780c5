//! What both sides run on: one root file system, one configuration, one machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore::runtime::{Runc, find_runtime};
use longshore::{ContainerSpec, Executor, Mount, Rootfs, Sandbox, Seccomp, ShutdownReport};
use rustix::fs::statfs;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::raw::Bundle;
use crate::{Done, Without};

/// Where runtimes have their state by default, and where it can be if that is not in memory, as it mostly is.
const IN_MEMORY: [&str; 2] = ["/run", "/dev/shm"];

/// As `linux/magic.h` numbers it.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// A directory for everything.
pub(crate) struct Ground {
    dir: TempDir,
    without: Vec<Without>,
}

/// A runtime, and an executor on it.
pub(crate) struct Side {
    /// The runtime's name.
    pub(crate) name: &'static str,
    pub(crate) version: String,
    program: PathBuf,
    pub(crate) executor: Executor,
    dir: PathBuf,
}

impl Ground {
    pub(crate) fn new(without: Vec<Without>) -> Done<Self> {
        // runc waits for the disk with each pid file that is not in memory.
        let in_memory = |dir: &&str| statfs(*dir).is_ok_and(|found| found.f_type == TMPFS);
        let place = IN_MEMORY.into_iter().find(in_memory).ok_or("neither /run nor /dev/shm is a tmpfs")?;
        let dir = TempDir::with_prefix_in("longshore-bench-", place)?;
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
        Ok(Self { dir, without })
    }

    /// A runtime of this name, if it is here and starts containers here.
    pub(crate) async fn side(&self, name: &'static str) -> Done<Option<Side>> {
        let Ok(program) = find_runtime(&[name]) else { return Ok(None) };
        let runc = self.runtime(name)?;
        let version = runc.command_line().version().await?;
        let executor = Executor::builder(runc).root(self.dir.path().join(name)).build()?;
        let side = Side { name, version, program, executor, dir: self.dir.path().to_owned() };
        let exit = side.executor.run(side.spec(&["true"])).await?.wait().await;
        if exit.is_success() {
            return Ok(Some(side));
        }
        eprintln!("{name} starts no containers here: {exit}");
        side.leave().await?;
        Ok(None)
    }

    fn runtime(&self, name: &str) -> Done<Runc> {
        let has = |part| !self.without.contains(&part);
        Ok(longshore::runc()
            .runtime(name)
            .cgroup_kick(has(Without::Kick))
            .in_memory(has(Without::Image))
            .build()?)
    }
}

impl Side {
    /// A place beside the root file system.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A container of a program, with everything at its default.
    pub(crate) fn spec(&self, args: &[&str]) -> ContainerSpec {
        let mut spec = ContainerSpec::new(Rootfs::Dir(self.dir.join("rootfs")), args.iter().copied());
        spec.mounts.push(Mount::bind("/usr", "/usr").read_only());
        spec
    }

    /// The same without a filter for system calls, which costs the runtime the most.
    pub(crate) fn minimal(&self, args: &[&str]) -> ContainerSpec {
        let mut spec = self.spec(args);
        spec.seccomp = Some(Seccomp::Unconfined);
        spec
    }

    /// A bundle for the bare runtime, with the configuration that ours has for it.
    pub(crate) fn bundle(&self, name: &str, spec: &ContainerSpec) -> Done<Bundle> {
        self.changed_bundle(name, spec, |_| ())
    }

    /// The same with the filter as container engines write it: with every architecture that the profile names.
    pub(crate) fn bundle_of_engines(&self, name: &str, spec: &ContainerSpec) -> Done<Bundle> {
        self.changed_bundle(name, spec, |config| {
            if let Some(all) = config["linux"]["seccomp"]["architectures"].as_array_mut()
                && all.contains(&json!("SCMP_ARCH_X86_64"))
            {
                *all = vec![json!("SCMP_ARCH_X86_64"), json!("SCMP_ARCH_X86"), json!("SCMP_ARCH_X32")];
            }
        })
    }

    fn changed_bundle(
        &self,
        name: &str,
        spec: &ContainerSpec,
        change: impl FnOnce(&mut Value),
    ) -> Done<Bundle> {
        let name = format!("{}-{name}", self.name);
        let dir = self.dir.join(&name);
        fs::create_dir_all(&dir)?;
        let mut config: Value = serde_json::from_str(&Sandbox::preview(&name.parse()?, spec)?)?;
        // Files of ours, which it has not.
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.retain(|mount| {
                !["/etc/hosts", "/etc/resolv.conf"].contains(&mount["destination"].as_str().unwrap_or(""))
            });
        }
        config["linux"]["cgroupsPath"] = format!("/longshore-bench/{name}").into();
        change(&mut config);
        fs::write(dir.join("config.json"), config.to_string())?;
        let state = self.dir.join(format!("{}-raw", self.name));
        Ok(Bundle { runtime: self.program.clone(), state, dir, name })
    }

    pub(crate) async fn leave(self) -> Done {
        let report = self.executor.shutdown(longshore::Cancel::now(), Duration::from_secs(60)).await;
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _not_there = fs::remove_dir(hierarchy.path().join("longshore-bench"));
        }
        if report == ShutdownReport::default() { Ok(()) } else { Err(format!("{report:?}").into()) }
    }
}
