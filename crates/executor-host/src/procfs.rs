//! Reading `/proc`: processes, their cgroups and namespaces.

use std::fs;
use std::io::{self, Read};

use executor_core::lifecycle::{HostPid, NetworkUsage, StartFailureKind};

/// A part of `/proc/<pid>/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its name.
    pub comm: String,
    /// `R`, `S`, `D`, `Z`…
    pub state: char,
    /// The pid of its parent.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// How many threads it has.
    pub threads: u64,
    /// When it was started, in clock ticks since boot.
    pub start: u64,
    pub(crate) flags: u64,
}

/// From linux/sched.h: the process is exiting.
const PF_EXITING: u64 = 4;

/// The same: it was forked and has executed nothing since. Process accounting has it as AFORK.
pub(crate) const PF_FORKNOEXEC: u64 = 0x40;

impl Stat {
    /// The stat of a process. `None` if there is no such process, or it cannot be read.
    pub fn of(pid: HostPid) -> Option<Self> {
        Self::read(pid).ok().flatten()
    }

    /// The stat of a process. `None` if there is no such process.
    ///
    /// # Errors
    /// When it cannot be read, as for lack of file descriptors. Nothing is known of the process then.
    pub fn read(pid: HostPid) -> io::Result<Option<Self>> {
        let stat = present(fs::read(format!("/proc/{pid}/stat")))?;
        Ok(stat.and_then(|stat| parse_stat(&String::from_utf8_lossy(&stat))))
    }

    /// Whether it has executed a program since it was forked. Also known of a process that has exited and is not reaped.
    pub const fn has_executed(&self) -> bool {
        self.flags & PF_FORKNOEXEC == 0
    }

    /// Whether it has exited or is exiting.
    pub const fn is_ending(&self) -> bool {
        self.state == 'Z' || self.state == 'X' || self.flags & PF_EXITING != 0
    }
}

/// What was read, or `None` if it does not exist or cannot be read in its state. An error if there are too few resources to
/// read it: then it may exist.
pub(crate) fn present<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if StartFailureKind::of_io(&error) == Some(StartFailureKind::NoResources) => Err(error),
        Err(_) => Ok(None),
    }
}

/// The name is in parentheses and may contain any character, parentheses included.
pub(crate) fn parse_stat(stat: &str) -> Option<Stat> {
    let (before, after) = stat.rsplit_once(") ")?;
    let comm = before.split_once('(')?.1.to_owned();
    let mut fields = after.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let flags = fields.nth(2)?.parse().ok()?;
    let threads = fields.nth(10)?.parse().ok()?;
    let start = fields.nth(1)?.parse().ok()?;
    Some(Stat { comm, state, parent, group, session, threads, start, flags })
}

/// The children of this process, including zombies and the orphans that it got as a subreaper.
pub fn children() -> Vec<HostPid> {
    children_of_all_threads("self")
}

/// The children of a process, whichever of its threads has started them: `process` is its pid, or `self`.
pub(crate) fn children_of_all_threads(process: &str) -> Vec<HostPid> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(parse_pid).collect::<Vec<_>>()).collect()
}

/// The children of the first thread of another process.
pub(crate) fn children_of(pid: HostPid) -> Vec<HostPid> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(parse_pid).collect()
}

/// The first child of a process that is still alive: of those that its first thread has started, then of those that it got.
pub fn first_child(pid: HostPid) -> Option<HostPid> {
    children_of(pid).into_iter().next()
}

/// The process of a thread, if that still exists. The first thread of a process has the same pid.
pub(crate) fn process_of(thread: HostPid) -> Option<HostPid> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    parse_pid(status.lines().find_map(|line| line.strip_prefix("Tgid:"))?)
}

/// All processes that this process can see.
pub fn processes() -> impl Iterator<Item = HostPid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| parse_pid(entry.file_name().to_str()?))
}

/// Parses a pid in digits, which spaces may surround.
pub fn parse_pid(text: &str) -> Option<HostPid> {
    text.trim().parse().ok().and_then(HostPid::new)
}

/// The paths of a process's cgroups, one in each hierarchy.
pub fn cgroups_of(pid: HostPid) -> impl Iterator<Item = String> {
    let list = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let paths = list.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(str::to_owned);
    paths.collect::<Vec<_>>().into_iter()
}

/// Whether a process is in this cgroup, or below it, in any hierarchy. Zombies are in v2 hierarchies only.
pub fn is_in_cgroup(pid: HostPid, cgroup: &str) -> bool {
    cgroups_of(pid).any(|path| is_at_or_below(&path, cgroup))
}

/// Whether a path in `/proc/<pid>/cgroup` is `cgroup` or below it. The kernel appends ` (deleted)` to some
/// paths.
pub fn is_at_or_below(path: &str, cgroup: &str) -> bool {
    let below = path.strip_prefix(cgroup);
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest.starts_with(' '))
}

/// This process's pid.
#[expect(clippy::expect_used, reason = "the kernel numbers processes from 1 on")]
pub fn own_pid() -> HostPid {
    HostPid::new(std::process::id()).expect("a process has a pid")
}

/// Whether a process is in a pid namespace below this process's. Zombies are, too.
pub fn is_in_nested_pid_namespace(pid: HostPid) -> bool {
    let depth = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        pids.map_or(0, |pids| pids.split_whitespace().count())
    };
    depth(&pid.to_string()) > depth("self")
}

/// The processes in the pid namespace of `init`. None if that is this process's own.
pub fn in_pid_namespace_of(init: HostPid) -> impl Iterator<Item = HostPid> {
    let namespace = |pid: HostPid| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let of_init = namespace(init).filter(|_| is_in_nested_pid_namespace(init));
    processes().filter(move |pid| of_init.is_some() && namespace(*pid) == of_init)
}

/// Whether a process has this process's user, and is in the same pid and user namespaces.
pub fn is_like_us(pid: HostPid) -> bool {
    let namespace = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let process = pid.to_string();
    let is_same = |kind: &str| {
        let theirs = namespace(&process, kind);
        theirs.is_some() && theirs == namespace("self", kind)
    };
    let owner = fs::metadata(format!("/proc/{pid}")).map(|meta| std::os::unix::fs::MetadataExt::uid(&meta));
    owner.is_ok_and(|uid| uid == rustix::process::geteuid().as_raw()) && is_same("pid") && is_same("user")
}

/// The most bytes of an environment that are read. A process can make its own gigabytes long.
const ENVIRONMENT_LIMIT: u64 = 256 << 10;

/// Whether a process was executed with this environment variable, among the first 256 KiB of its environment.
/// `variable` has the form `NAME=value`.
pub fn has_variable(pid: HostPid, variable: &str) -> bool {
    let mut environ = Vec::new();
    let opened = fs::File::open(format!("/proc/{pid}/environ"));
    if opened.and_then(|file| file.take(ENVIRONMENT_LIMIT).read_to_end(&mut environ)).is_err() {
        return false;
    }
    contains_variable(&environ, variable)
}

/// Whether an environment, as in `/proc/<pid>/environ`, has this variable.
pub(crate) fn contains_variable(environ: &[u8], variable: &str) -> bool {
    environ.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}

/// The traffic of the interfaces in the network namespace of a process.
pub fn network_usage(pid: HostPid) -> Option<NetworkUsage> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    Some(NetworkUsage::of_interfaces(&text))
}

/// The process that has the exclusive flock on the file with this device and inode. The kernel lists both, the device in
/// hexadecimal digits.
pub(crate) fn flock_holder(device: u64, inode: u64) -> Option<HostPid> {
    let wanted = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = *fields else { return None };
        if file == wanted { parse_pid(pid) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_parentheses() {
        let stat = parse_stat("42 (a) b (c)) S 7 41 40 0 -1 4194308 0 0 0 0 0 0 0 0 20 0 1 0 815 0").unwrap();
        let comm = "a) b (c)".into();
        assert_eq!(
            stat,
            Stat {
                comm,
                state: 'S',
                parent: 7,
                group: 41,
                session: 40,
                threads: 1,
                start: 815,
                flags: 0x40_0004
            }
        );
        assert_eq!(parse_stat("42 (x"), None);
    }

    #[test]
    fn this_process_is_found() {
        let own = HostPid::new(std::process::id()).unwrap();
        assert!(processes().any(|pid| pid == own));
        assert_eq!(Stat::of(own).map(|stat| stat.parent), Some(std::os::unix::process::parent_id()));
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(children().contains(&HostPid::new(child.id()).unwrap()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
