//! A container's usage, read from the files of its cgroups. On v1, each hierarchy has its own files. On v2,
//! one directory has all of them. If a file does not exist, its value is unknown.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use executor_core::lifecycle::{IoUsage, Pressure, SeenKills, Stall, Usage};

use super::may_have;
use crate::procfs;

/// The files of a cgroup in all hierarchies.
struct Files<'a> {
    dirs: &'a BTreeSet<PathBuf>,
    /// Why a file that may exist was not read.
    short: Cell<Option<io::Error>>,
}

impl Files<'_> {
    fn text(&self, file: &str) -> Option<String> {
        // Opening only files that may exist matters: there are ten hierarchies and thirty files, and an exit
        // waits for them.
        let mut dirs = self.dirs.iter().filter(|dir| may_have(dir, file));
        dirs.find_map(|dir| match procfs::present(fs::read_to_string(dir.join(file))) {
            Ok(text) => text,
            Err(error) => {
                self.short.set(Some(error));
                None
            }
        })
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    fn value(&self, file: &str, key: &str) -> Option<u64> {
        keyed(&self.text(file)?, key)
    }
}

/// The usage of the cgroup in these directories. An error if there are too few resources to read it.
pub(super) fn read(dirs: &BTreeSet<PathBuf>, seen: &mut SeenKills) -> io::Result<Usage> {
    let files = Files { dirs, short: Cell::new(None) };
    let usage = usage(&files);
    if let Some(error) = files.short.take() {
        return Err(error);
    }
    let oom_kills = seen.see(oom_kills(dirs.iter().map(PathBuf::as_path))?);
    Ok(Usage { oom_kills, ..usage })
}

fn usage(files: &Files<'_>) -> Usage {
    let (nanos, micros) = (Duration::from_nanos, Duration::from_micros);
    let number = |file| files.number(file);
    let value = |file, key| files.value(file, key);
    // On a hybrid host, the unused v2 hierarchy has a cpu.stat as well. v1 counts throttling in nanoseconds.
    let v1_throttled = value("cpu.stat", "throttled_time").map(nanos);
    let swap_v1 = || number("memory.memsw.usage_in_bytes")?.checked_sub(number("memory.usage_in_bytes")?);
    Usage {
        cpu: number("cpuacct.usage").map(nanos).or_else(|| value("cpu.stat", "usage_usec").map(micros)),
        cpu_user: number("cpuacct.usage_user")
            .map(nanos)
            .or_else(|| value("cpu.stat", "user_usec").map(micros)),
        cpu_system: number("cpuacct.usage_sys")
            .map(nanos)
            .or_else(|| value("cpu.stat", "system_usec").map(micros)),
        cpu_throttled: v1_throttled.or_else(|| value("cpu.stat", "throttled_usec").map(micros)),
        memory: number("memory.usage_in_bytes").or_else(|| number("memory.current")),
        memory_peak: number("memory.max_usage_in_bytes").or_else(|| number("memory.peak")),
        swap: swap_v1().or_else(|| number("memory.swap.current")),
        oom_kills: 0,
        pids: number("pids.current"),
        pids_peak: number("pids.peak"),
        io: io_v1(files).or_else(|| files.text("io.stat").map(|text| io_v2(&text))),
        pressure: pressure(files),
        network: None,
    }
}

/// The counters of processes that were killed for lack of memory, by the inode of each cgroup in these directories. A cgroup
/// of v1 does not count those below it, so they have theirs. Empty if there are none.
///
/// # Errors
/// When there are too few resources to read one.
pub(crate) fn oom_kills<'a>(dirs: impl Iterator<Item = &'a Path>) -> io::Result<BTreeMap<u64, u64>> {
    let mut counters = BTreeMap::new();
    for dir in dirs.filter(|dir| may_have(dir, "memory.events")) {
        let mut v1 = vec![dir.to_owned()];
        while let Some(dir) = v1.pop() {
            if let Some(counter) = oom_counter(&dir, "memory.oom_control")? {
                counters.extend(inode(&dir)?.map(|inode| (inode, counter)));
                v1.extend(dirs_in(&dir)?);
            }
        }
        if counters.is_empty()
            && let Some(counter) = oom_counter(dir, "memory.events")?
        {
            counters.extend(inode(dir)?.map(|inode| (inode, counter)));
        }
        if !counters.is_empty() {
            break;
        }
    }
    Ok(counters)
}

/// Where the processes of a cgroup are killed together, the kernel kills the first of them twice, and counts that. It tells
/// how often from Linux 5.17 on. See `oom_kill_process` in `mm/oom_kill.c`.
fn oom_counter(dir: &Path, file: &str) -> io::Result<Option<u64>> {
    let text = procfs::present(fs::read_to_string(dir.join(file)))?;
    Ok(text.and_then(|text| {
        let twice = keyed(&text, "oom_group_kill").unwrap_or_default();
        Some(keyed(&text, "oom_kill")?.saturating_sub(twice))
    }))
}

fn inode(dir: &Path) -> io::Result<Option<u64>> {
    Ok(procfs::present(fs::metadata(dir))?.map(|meta| meta.ino()))
}

/// The cgroups right below this one. A directory has a link from each.
fn dirs_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    if procfs::present(fs::metadata(dir))?.is_none_or(|meta| meta.nlink() <= 2) {
        return Ok(Vec::new());
    }
    let entries = procfs::present(fs::read_dir(dir))?.into_iter().flatten();
    let mut dirs = Vec::new();
    for entry in entries {
        let entry = procfs::present(entry)?.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.extend(entry.map(|entry| entry.path()));
    }
    Ok(dirs)
}

/// The number after `key` in a file of lines `key number`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

/// Parses lines `major:minor Read number`. From Linux 5.19 on, there are lines only if a limit is set.
/// Without lines the usage is unknown.
fn io_v1(files: &Files<'_>) -> Option<IoUsage> {
    let sums = |file: &str| {
        let text = files.text(&format!("blkio.throttle.{file}_recursive"))?;
        let sum = |operation: &str| -> Option<u64> {
            let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            let of_it = lines.filter(|fields| fields.get(1) == Some(&operation));
            let numbers: Vec<u64> = of_it.filter_map(|fields| fields.get(2)?.parse().ok()).collect();
            (!numbers.is_empty()).then(|| numbers.into_iter().sum())
        };
        Some((sum("Read")?, sum("Write")?))
    };
    let ((read_bytes, write_bytes), (reads, writes)) = (sums("io_service_bytes")?, sums("io_serviced")?);
    Some(IoUsage { read_bytes, write_bytes, reads, writes })
}

/// Parses lines `major:minor rbytes=number wbytes=number …`.
fn io_v2(text: &str) -> IoUsage {
    let sum = |key: &str| {
        let fields = text.split_whitespace().filter_map(|field| field.strip_prefix(key)?.strip_prefix('='));
        fields.filter_map(|number| number.parse::<u64>().ok()).sum()
    };
    IoUsage { read_bytes: sum("rbytes"), write_bytes: sum("wbytes"), reads: sum("rios"), writes: sum("wios") }
}

fn pressure(files: &Files<'_>) -> Option<Pressure> {
    let stall = |resource: &str| Some(stall(&files.text(&format!("{resource}.pressure"))?));
    let pressure = Pressure { cpu: stall("cpu"), memory: stall("memory"), io: stall("io") };
    (pressure != Pressure::default()).then_some(pressure)
}

/// Parses lines `some avg10=… total=microseconds`.
fn stall(text: &str) -> Stall {
    let total = |kind: &str| {
        let line = text.lines().find(|line| line.split(' ').next() == Some(kind))?;
        let total = line.split(' ').find_map(|field| field.strip_prefix("total="))?;
        total.parse().ok().map(Duration::from_micros)
    };
    Stall { some: total("some").unwrap_or_default(), full: total("full").unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trees of `tests/cgroups`: what a container's directories held on a host of each kind.
    fn tree(kind: &str) -> Usage {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cgroups").join(kind);
        let entries: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
        let dirs = if entries.iter().all(|path| path.is_dir()) {
            entries.into_iter().collect()
        } else {
            [root].into()
        };
        super::read(&dirs, &mut SeenKills::default()).unwrap()
    }

    #[test]
    fn recorded_trees_of_each_kind() {
        let millis = |number: u64| Some(Duration::from_micros(number));
        let v2 = tree("v2");
        assert_eq!(
            (v2.cpu, v2.cpu_user, v2.cpu_system),
            (millis(1_500_250), millis(1_000_200), millis(500_050))
        );
        assert_eq!((v2.cpu_throttled, v2.memory, v2.memory_peak), (millis(70_000), Some(4096), Some(8192)));
        assert_eq!((v2.swap, v2.oom_kills, v2.pids, v2.pids_peak), (Some(512), 1, Some(2), Some(5)));
        assert_eq!(v2.io, Some(IoUsage { read_bytes: 4196, write_bytes: 8192, reads: 3, writes: 2 }));
        let stall =
            |some, full| Stall { some: Duration::from_micros(some), full: Duration::from_micros(full) };
        assert_eq!(
            v2.pressure,
            Some(Pressure { cpu: Some(stall(1500, 0)), memory: Some(stall(20, 10)), io: Some(stall(7, 5)) })
        );

        for (kind, pressure) in [("v1", false), ("hybrid", true)] {
            let usage = tree(kind);
            assert!(usage.cpu > Some(Duration::from_millis(50)), "{kind}: {usage:?}");
            let both = usage.cpu_user.unwrap() + usage.cpu_system.unwrap();
            assert!(both > Duration::from_millis(50) && both < usage.cpu.unwrap() * 2, "{kind}: {usage:?}");
            assert!(usage.memory_peak >= usage.memory && usage.memory > Some(0), "{kind}: {usage:?}");
            assert!(usage.pids_peak >= usage.pids && usage.pids == Some(2), "{kind}: {usage:?}");
            let io = IoUsage { read_bytes: 4096, write_bytes: 2 << 20, reads: 1, writes: 2 };
            assert_eq!(usage.io, (kind == "v1").then_some(io), "{kind}");
            assert_eq!(usage.pressure.is_some(), pressure, "{kind}");
            assert_eq!(usage.oom_kills, 0, "{kind}");
        }
        assert_eq!(read(&BTreeSet::new(), &mut SeenKills::default()).unwrap(), Usage::default());
    }

    #[test]
    fn kills_below_a_cgroup_of_v1_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = SeenKills::default();
        let mut count = || seen.see(oom_kills([dir.path()].into_iter()).unwrap());
        assert_eq!(count(), 0);
        fs::write(dir.path().join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
            .unwrap();
        assert_eq!(count(), 2);
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/memory.oom_control"), "oom_kill 0\n").unwrap();
        fs::write(dir.path().join("a/b/memory.oom_control"), "oom_kill 3\n").unwrap();
        assert_eq!(count(), 5);
        let read =
            |seen: &mut SeenKills| read(&BTreeSet::from([dir.path().to_owned()]), seen).unwrap().oom_kills;
        assert_eq!(read(&mut SeenKills::default()), 5);
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert_eq!(read(&mut SeenKills::default()), 2);
        assert_eq!(count(), 5, "what was seen");
    }

    #[test]
    fn the_first_of_a_group_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let events = "low 0\nhigh 0\nmax 60\noom 1\noom_kill 3\noom_group_kill 1\n";
        fs::write(dir.path().join("memory.events"), events).unwrap();
        let counters = oom_kills([dir.path()].into_iter()).unwrap();
        assert_eq!(counters.into_values().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn pressure_of_what_has_a_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("io.pressure"), "some avg10=0.00 total=7\n").unwrap();
        let io = Stall { some: Duration::from_micros(7), full: Duration::ZERO };
        let usage = read(&BTreeSet::from([dir.path().to_owned()]), &mut SeenKills::default()).unwrap();
        assert_eq!(usage.pressure, Some(Pressure { io: Some(io), ..Pressure::default() }));
    }
}
