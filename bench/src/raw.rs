//! The bare runtime, as somebody would call it by hand.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::Done;

/// A container in the hands of the bare runtime.
#[derive(Clone)]
pub(crate) struct Bundle {
    pub(crate) runtime: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
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

    fn pid_file(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// `run` in the foreground, from the call to its end.
    pub(crate) fn run(&self, number: usize) -> Done<Duration> {
        self.call(&["run", "--bundle", self.dir(), &format!("{}-{number}", self.name)])
    }

    /// `run` in the foreground, left running.
    pub(crate) fn monitor(&self, number: usize) -> Done<Child> {
        Ok(self.command(&["run", "--bundle", self.dir(), &format!("{}-{number}", self.name)]).spawn()?)
    }

    /// `run --detach`, from the call to its end: the container runs then.
    pub(crate) fn start(&self) -> Done<Duration> {
        let pid = self.pid_file();
        let pid = pid.to_str().unwrap_or_default();
        self.call(&["run", "--detach", "--pid-file", pid, "--bundle", self.dir(), &self.name])
    }

    /// `create` beforehand, then `start`, from its call to the end of the container's program.
    pub(crate) fn create_and_start(&self) -> Done<Duration> {
        let pid = self.pid_file();
        let pid = pid.to_str().unwrap_or_default();
        self.call(&["create", "--pid-file", pid, "--bundle", self.dir(), &self.name])?;
        let init = self.init()?;
        std::thread::sleep(Duration::from_millis(20));
        let begun = Instant::now();
        self.call(&["start", &self.name])?;
        wait(&init)?;
        let time = begun.elapsed();
        self.end()?;
        Ok(time)
    }

    pub(crate) fn exec(&self, args: &[&str]) -> Done<Duration> {
        self.call(&[&["exec", &self.name], args].concat())
    }

    /// Kills and removes one that is left running, and reaps its init: it is this process's, an executor's, child.
    pub(crate) fn end(&self) -> Done {
        let init = self.init();
        self.call(&["delete", "--force", &self.name])?;
        // One that was waited for is no process any more.
        init.map_or(Ok(()), |init| wait(&init))
    }

    pub(crate) fn end_one(&self, number: usize) -> Done {
        self.call(&["delete", "--force", &format!("{}-{number}", self.name)]).map(drop)
    }

    fn init(&self) -> Done<OwnedFd> {
        let pid: i32 = fs::read_to_string(self.pid_file())?.trim().parse()?;
        Ok(pidfd_open(Pid::from_raw(pid).ok_or("no pid")?, PidfdFlags::empty())?)
    }
}

/// Waits for the end of a child and reaps it; what was reaped before has ended.
fn wait(child: &OwnedFd) -> Done {
    use std::os::fd::AsFd;
    match waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED) {
        Ok(_) => Ok(()),
        Err(error)
            if io::Error::from(error).raw_os_error() == Some(rustix::io::Errno::CHILD.raw_os_error()) =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
