//! The kernel's log, `/dev/kmsg`. The OOM killer writes these records, all in one go, and the last before the process can
//! exit:
//!
//! ```text
//! 6,502,228804223,-;oom-kill:constraint=CONSTRAINT_MEMCG,…,oom_memcg=/a,task_memcg=/a/b,task=perl,pid=812,uid=0
//! 3,503,228804239,-;Memory cgroup out of memory: Killed process 812 (perl) total-vm:110284kB, …
//! 6,504,228804300,-;Tasks in /a are going to be killed due to memory.oom.group set
//! 3,505,228804310,-;Memory cgroup out of memory: Killed process 813 (cat) total-vm:2416kB, …
//! ```
//! The first comes with ten kills in five seconds at most, for the whole host. The third is there for `memory.oom.group`
//! only; then the first process comes twice. Pids are those of the host's pid namespace. A process that shares the memory
//! of one that is killed, as after vfork, is killed without a record.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use executor_core::lifecycle::HostPid;
use rustix::fs::{OFlags, makedev};
use rustix::io::Errno;

/// The longest record, escapes included.
const RECORD: usize = 8192;

/// How many records are read at once. The rest is lost to us, as if the kernel had overwritten it.
const AT_ONCE: usize = 16384;

/// A second record of a process within this time, in microseconds, is about the same kill.
const SAME_KILL: u64 = 1_000_000;

/// How many past kills are compared with a new one.
const COMPARED: usize = 64;

/// The link of `/proc/self/ns/pid` in the first pid namespace. The number is fixed, `PROC_PID_INIT_INO`.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// A kill, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoggedKill {
    pub(crate) pid: HostPid,
    /// The memory cgroup of the process, and text that may follow it.
    pub(crate) cgroup: Option<String>,
    /// A cgroup that the process is probably in or below, because that was being killed as a whole.
    pub(crate) group: Option<String>,
}

/// What the log has since it was read last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogNews {
    pub(crate) kills: Vec<LoggedKill>,
    /// Whether records were lost.
    pub(crate) is_incomplete: bool,
    /// Whether the log cannot be read any more.
    pub(crate) has_ended: bool,
}

/// The log, from the moment when it was opened.
pub(crate) struct KernelLog {
    file: File,
    reader: KillReader,
}

impl KernelLog {
    /// Opens the log at its end.
    ///
    /// # Errors
    /// When it may not be read, or is not the kernel's log, or its pids are not those of this process's pid namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let namespace = std::fs::read_link("/proc/self/ns/pid")?;
        if namespace.to_str() != Some(FIRST_NAMESPACE) {
            return Err(io::Error::other("this process is not in the pid namespace of the log"));
        }
        let no_waiting = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let mut file = OpenOptions::new().read(true).custom_flags(no_waiting).open("/dev/kmsg")?;
        let meta = file.metadata()?;
        // Some containers have another device of this name.
        if !meta.file_type().is_char_device() || meta.rdev() != makedev(1, 11) {
            return Err(io::Error::other("/dev/kmsg is not the kernel's log"));
        }
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, reader: KillReader::default() })
    }

    /// Reads what is new. Does not wait.
    pub(crate) fn read(&mut self) -> LogNews {
        let mut news = LogNews::default();
        let mut record = [0; RECORD];
        for _ in 0..AT_ONCE {
            match self.file.read(&mut record) {
                Ok(0) => {
                    tracing::debug!("the kernel's log has ended");
                    return LogNews { is_incomplete: true, has_ended: true, ..news };
                }
                Ok(length) => {
                    let record = record.get(..length).unwrap_or_default();
                    news.kills.extend(self.reader.read(&String::from_utf8_lossy(record)));
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => return news,
                    Some(Errno::INTR) => {}
                    // It was overwritten before we have read it. The next record is the oldest that there is.
                    Some(Errno::PIPE) => news.is_incomplete = true,
                    _ => {
                        tracing::debug!(%error, "the kernel's log cannot be read");
                        return LogNews { is_incomplete: true, has_ended: true, ..news };
                    }
                },
            }
        }
        // Not even the end is known to be reached.
        let _at_the_end = self.file.seek(SeekFrom::End(0));
        LogNews { is_incomplete: true, ..news }
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Puts the records of a kill together.
#[derive(Clone, Debug, Default)]
pub(crate) struct KillReader {
    /// The process that was chosen, and its cgroup. Its kill is the next record of one.
    chosen: Option<(HostPid, String)>,
    /// The cgroup whose processes are being killed together.
    group: Option<String>,
    /// The last kills, with their time in microseconds.
    last: VecDeque<(HostPid, u64)>,
}

impl KillReader {
    /// Takes the next record. Returns a kill if that is one, and has not come before.
    pub(crate) fn read(&mut self, record: &str) -> Option<LoggedKill> {
        let (head, rest) = record.split_once(';')?;
        let text = rest.lines().next()?;
        let mut fields = head.split(',');
        let prefix: u32 = fields.next()?.parse().ok()?;
        let at: u64 = fields.nth(1)?.parse().ok()?;
        // What processes write to the log has a facility. The kernel's own is 0.
        if prefix >> 3 != 0 {
            return None;
        }
        if text.starts_with("oom-kill:") {
            (self.chosen, self.group) = (parse_chosen(text), None);
        } else if let Some(group) = parse_group(text) {
            self.group = Some(group.to_owned());
        } else if text.contains("OOM victim ") && text.contains(" is already exiting") {
            self.chosen = None;
        } else if let Some(pid) = parse_killed(text) {
            return self.killed(pid, at);
        }
        None
    }

    fn killed(&mut self, pid: HostPid, at: u64) -> Option<LoggedKill> {
        let kill = match (self.chosen.take(), &self.group) {
            // The record of the kill may name another thread of the process, if its first one has exited.
            (Some((pid, cgroup)), _) => LoggedKill { pid, cgroup: Some(cgroup), group: None },
            (None, group) => LoggedKill { pid, cgroup: None, group: group.clone() },
        };
        let is_same =
            |(pid, before): &(HostPid, u64)| *pid == kill.pid && at.saturating_sub(*before) < SAME_KILL;
        if self.last.iter().any(is_same) {
            return None;
        }
        self.last.push_front((kill.pid, at));
        self.last.truncate(COMPARED);
        Some(kill)
    }
}

/// Parses `oom-kill:constraint=…,oom_memcg=…,task_memcg=…,task=…,pid=…,uid=…`. The name of the process and the names of
/// cgroups below a container's own may contain anything but `/` and a line feed, the names of these fields too. So the pid is
/// looked for from the end, and the first cgroup with a `/` is the kernel's. The cgroup of the process is at or below the one
/// that has run out of memory, if it was not the whole host.
fn parse_chosen(text: &str) -> Option<(HostPid, String)> {
    const HOST: &str = ",global_oom,task_memcg=";
    const LIMITED: &str = ",oom_memcg=";
    const CGROUP: &str = ",task_memcg=";
    let (front, _uid) = text.rsplit_once(",uid=")?;
    let (front, pid) = front.rsplit_once(",pid=")?;
    let pid = pid.parse().ok().and_then(HostPid::new)?;
    let after = |key: &str| {
        let at = front.find(&format!("{key}/"))?;
        Some((at, front.get(at + key.len()..)?))
    };
    let (of_host, of_limit) = (after(HOST), after(LIMITED));
    match (of_host, of_limit) {
        (Some((host, cgroup)), limit) if limit.is_none_or(|(limit, _)| host < limit) => {
            Some((pid, cgroup.to_owned()))
        }
        (_, None) => None,
        (_, Some((_, cgroups))) => {
            let splits = cgroups.match_indices(CGROUP);
            let mut splits =
                splits.filter_map(|(at, _)| Some((cgroups.get(..at)?, cgroups.get(at + CGROUP.len()..)?)));
            let (_, cgroup) = splits.find(|(limited, cgroup)| cgroup.starts_with(*limited))?;
            Some((pid, cgroup.to_owned()))
        }
    }
}

/// Parses `Tasks in … are going to be killed due to memory.oom.group set`.
fn parse_group(text: &str) -> Option<&str> {
    text.strip_prefix("Tasks in ")?.strip_suffix(" are going to be killed due to memory.oom.group set")
}

/// Parses `Memory cgroup out of memory: Killed process 812 (perl) …`, and the same of the whole host.
fn parse_killed(text: &str) -> Option<HostPid> {
    const CAUSES: [&str; 4] = [
        "",
        "Memory cgroup out of memory: ",
        "Out of memory: ",
        "Out of memory (oom_kill_allocating_task): ",
    ];
    let (cause, rest) = text.split_once("Killed process ")?;
    let (pid, name) = rest.split_once(' ')?;
    let is_kill = CAUSES.contains(&cause) && name.starts_with('(');
    pid.parse().ok().filter(|_| is_kill).and_then(HostPid::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded on Linux 6.18: two processes in one cgroup, one after the other.
    const RECORDS: &str = include_str!("../../tests/kmsg/v1-6.18.log");

    fn kills(records: &[&str]) -> Vec<(u32, Option<String>)> {
        let mut reader = KillReader::default();
        let kills = records.iter().filter_map(|record| reader.read(record));
        kills.map(|kill| (kill.pid.get(), kill.cgroup.or(kill.group))).collect()
    }

    fn chosen(cgroups: &str, name: &str, pid: u32) -> String {
        format!(
            "6,1,1,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,{cgroups},task={name},pid={pid},uid=0\n"
        )
    }

    fn killed(pid: u32, at: u64) -> String {
        format!(
            "3,2,{at},-;Memory cgroup out of memory: Killed process {pid} (perl) total-vm:110284kB, UID:0\n"
        )
    }

    #[test]
    fn records_of_a_real_kernel() {
        let records: Vec<_> = RECORDS.split_inclusive('\n').collect();
        let cgroup = Some("/oomtest12267,task=perl".to_owned());
        assert_eq!(kills(&records), [(12272, cgroup.clone()), (12273, cgroup)]);
    }

    #[test]
    fn a_kill_without_the_record_before_it_has_no_cgroup() {
        assert_eq!(kills(&[&killed(7, 1)]), [(7, None)]);
        let of_the_host = "3,2,1,-;Out of memory: Killed process 9 (x) total-vm:1kB\n";
        let old = "3,2,1,-;Killed process 8 (x) total-vm:1kB\n";
        assert_eq!(kills(&[of_the_host, old]), [(9, None), (8, None)]);
        let exiting = "6,1,1,-;Memory cgroup out of memory: OOM victim 7 (x) is already exiting. Skip killing the task\n";
        let seven = chosen("oom_memcg=/a,task_memcg=/a", "x", 7);
        assert_eq!(kills(&[&seven, exiting, &killed(8, 1)]), [(8, None)]);
    }

    #[test]
    fn a_group_is_killed_and_each_of_it_once() {
        let group = "6,3,9,-;Tasks in /a are going to be killed due to memory.oom.group set\n";
        let first = chosen("oom_memcg=/a,task_memcg=/a/b", "perl", 7);
        let records = [&*first, &killed(7, 1), group, &killed(7, 2), &killed(8, 3), &killed(9, 4)];
        let a = Some("/a".to_owned());
        assert_eq!(kills(&records), [(7, Some("/a/b,task=perl".into())), (8, a.clone()), (9, a)]);
        // A pid can be used again later.
        assert_eq!(kills(&[&killed(7, 1), &killed(7, 2_000_000)]), [(7, None), (7, None)]);
    }

    #[test]
    fn another_thread_stands_for_its_process() {
        let first = chosen("oom_memcg=/a,task_memcg=/a", "perl", 7);
        assert_eq!(kills(&[&first, &killed(11, 1)]), [(7, Some("/a,task=perl".into()))]);
    }

    #[test]
    fn names_decide_nothing() {
        let hostile = chosen("oom_memcg=/a,task_memcg=/b,task_memcg=/a,task_memcg=/b", "x,pid=1,uid=0", 7);
        assert_eq!(kills(&[&hostile, &killed(7, 1)])[0].0, 7);
        assert!(kills(&[&hostile, &killed(7, 1)])[0].1.as_ref().unwrap().starts_with("/a,task_memcg=/b,"));
        let in_a_name =
            chosen("oom_memcg=/a/,global_oom,task_memcg=,task_memcg=/a/,global_oom,task_memcg=", "x", 7);
        assert!(kills(&[&in_a_name, &killed(7, 1)])[0].1.as_ref().unwrap().starts_with("/a/,"));
        let global = "6,1,1,-;oom-kill:constraint=CONSTRAINT_NONE,global_oom,task_memcg=/a/,global_oom,task_memcg=/b,task=x,pid=7,uid=0\n";
        assert!(kills(&[global, &killed(7, 1)])[0].1.as_ref().unwrap().starts_with("/a/,"));
        for other in [
            "12,1,1,-;Memory cgroup out of memory: Killed process 7 (perl) total-vm:1kB\n",
            "6,1,1,-;x Killed process 7 (perl) total-vm:1kB\n",
            "6,1,1,-;Killed process 7 perl\n",
            "6,1,1,-;Killed process 0 (perl)\n",
            "Killed process 7 (perl)\n",
            "",
        ] {
            assert_eq!(kills(&[other]), [], "{other:?}");
        }
    }
}
