//! A directory with a keeper in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use executor_core::lifecycle::HostPid;
use executor_disk::Dir;
use executor_host::keeper::{Keeper, KeeperError, KeeperRecord, KeptProcess, KeptProgram, Recorded, Started};

/// The tests count the descriptors of this process, so they run one after the other.
static ONE: Mutex<()> = Mutex::new(());

pub(crate) struct Stage {
    pub(crate) temporary: tempfile::TempDir,
    pub(crate) dir: Dir,
    keeper: Option<Keeper>,
    /// The keeper's pid.
    pub(crate) pid: HostPid,
    /// How many descriptors it had at its beginning.
    pub(crate) descriptors: usize,
}

/// Runs a test with a keeper, ends that, and counts what is left.
pub(crate) fn run(test: impl FnOnce(&mut Stage)) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // The first use of each opens descriptors that are kept as long as the process.
    drop(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    let first = Stage::new();
    first.keeper().quit().unwrap();
    drop(first);
    let descriptors = descriptors_of("self");
    let mut stage = Stage::new();
    test(&mut stage);
    let pid = stage.keeper().pid();
    if stage.keeper().is_alive() {
        stage.keeper().quit().unwrap();
        assert!(!stage.dir.has("keeper"), "the socket is left");
    }
    assert!(matches!(stage.keeper().records(0), Err(KeeperError::Gone)));
    drop(stage);
    within(|| !is_alive(pid));
    within(|| descriptors_of("self") <= descriptors);
    let children = fs::read_to_string("/proc/thread-self/children").unwrap();
    assert_eq!(children, "", "children of this process are left");
}

impl Stage {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open_checked(temporary.path()).unwrap();
        let keeper = Keeper::start(&dir, None).unwrap();
        let (pid, keeper) = (keeper.pid(), Some(keeper));
        Self { temporary, dir, keeper, pid, descriptors: descriptors_of(&pid.to_string()) }
    }

    /// Another keeper, in the place of one that has gone.
    pub(crate) fn start(&mut self) {
        let keeper = Keeper::start(&self.dir, None).unwrap();
        (self.pid, self.keeper) = (keeper.pid(), Some(keeper));
    }

    pub(crate) fn keeper(&self) -> &Keeper {
        self.keeper.as_ref().unwrap()
    }

    /// Another connection, in the place of this one.
    pub(crate) fn reconnect(&mut self) {
        self.disconnect();
        self.connect();
    }

    pub(crate) fn connect(&mut self) {
        self.keeper = Some(Keeper::connect(&self.dir).unwrap().unwrap());
    }

    pub(crate) fn disconnect(&mut self) {
        self.keeper = None;
    }

    /// Disconnects from a keeper that has something, and so does not exit.
    pub(crate) fn disconnect_and_keep(&mut self) {
        self.ended(&self.sh("exit 0"));
        self.disconnect();
    }

    pub(crate) fn sh(&self, script: &str) -> KeptProcess {
        sh(self.keeper(), script)
    }

    /// The record of a process, once it has ended.
    pub(crate) fn ended(&self, process: &KeptProcess) -> KeeperRecord {
        ended(self.keeper(), process.pid, Some(process.start))
    }
}

impl Drop for Stage {
    /// A test that has failed leaves nothing either.
    fn drop(&mut self) {
        let Some(keeper) = self.keeper.take().filter(|_| std::thread::panicking()) else { return };
        if keeper.is_alive() {
            children_of(&keeper).into_iter().for_each(kill);
            kill(keeper.pid());
        }
    }
}

pub(crate) fn children_of(keeper: &Keeper) -> Vec<HostPid> {
    let pid = keeper.pid();
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| HostPid::new(pid.parse().unwrap()).unwrap()).collect()
}

pub(crate) fn sh(keeper: &Keeper, script: &str) -> KeptProcess {
    start(keeper, &["sh", "-c", script], &[b"PATH=/usr/bin:/bin".to_vec()]).unwrap()
}

pub(crate) fn start(
    keeper: &Keeper,
    args: &[&str],
    variables: &[Vec<u8>],
) -> Result<KeptProcess, KeeperError> {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    let inherited = [null.as_fd(), null.as_fd(), null.as_fd()];
    let program = KeptProgram::Path(OsStr::new("/bin/sh"));
    keeper.start_process(&Started { program, args: &args, variables, inherited: &inherited })
}

pub(crate) fn ended(keeper: &Keeper, pid: HostPid, start: Option<u64>) -> KeeperRecord {
    let mut found = None;
    within(|| {
        if let Recorded::Ended(record) = keeper.record(pid, start).unwrap() {
            found = Some(record);
        }
        found.is_some()
    });
    found.unwrap()
}

/// Waits for something of which the kernel gives no notice.
#[track_caller]
pub(crate) fn within(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "it takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn descriptors_of(process: &str) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// Whether it has not exited. It may be a zombie for as long as process 1 has something else to do.
pub(crate) fn is_alive(pid: HostPid) -> bool {
    executor_host::procfs::Stat::of(pid).is_some_and(|stat| stat.state != 'Z')
}

pub(crate) fn kill(pid: HostPid) {
    let pid = rustix::process::Pid::from_raw(pid.get() as i32).unwrap();
    let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}
