//! What a test may leave behind, counted before and after it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The kernel finishes some of its work (a namespace's end, a file's last close) a moment later.
const SETTLE: Duration = Duration::from_secs(5);

/// Everything there is of the kinds that can leak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Children of this process, zombies included.
    pub processes: BTreeSet<String>,
    /// Longshore's cgroups, in every hierarchy.
    pub cgroups: BTreeSet<PathBuf>,
    /// Mounts below the stage's directory, and the parts of overlays anywhere.
    pub mounts: BTreeSet<String>,
    /// Network namespaces that a process is in.
    pub network_namespaces: BTreeSet<PathBuf>,
    /// Files, not directories, below the root.
    pub files: BTreeSet<PathBuf>,
    /// Open files of this process, by what they are.
    pub descriptors: Vec<String>,
}

impl Leftovers {
    /// Counts what there is now; files and mounts below `stage`. What executors have that live on the stage of another test
    /// program is not counted.
    pub fn count(stage: &Path) -> Self {
        let mut others = executors_elsewhere(stage);
        let (cgroups, namespaces) = (cgroups(), namespaces());
        // Some may have come meanwhile.
        others.append(&mut executors_elsewhere(stage));
        let is_ours = |cgroup: &str| !cgroup.split('/').any(|name| others.contains(name));
        let of_all = |cgroup: &PathBuf| !others.is_empty() && cgroup.ends_with("longshore");
        let ours = cgroups.into_iter().filter(|cgroup| is_ours(&cgroup.to_string_lossy()) && !of_all(cgroup));
        let namespaces = namespaces.into_iter().filter(|(cgroups, _)| cgroups.lines().all(is_ours));
        Self {
            processes: children(),
            cgroups: ours.collect(),
            mounts: mounts(stage),
            network_namespaces: namespaces.map(|(_, namespace)| namespace).collect(),
            files: files(&stage.join("root")),
            descriptors: descriptors(),
        }
    }

    /// Counts what only this process can have left: its children and its open files.
    pub fn count_own() -> Self {
        Self { processes: children(), descriptors: descriptors(), ..Self::default() }
    }

    /// Checks that there is no more than before.
    ///
    /// # Panics
    /// When there is, saying what.
    pub fn assert_nothing_new(&self, stage: &Path) {
        self.assert_covers(|| Self::count(stage));
    }

    /// [`assert_nothing_new`](Self::assert_nothing_new) for what was counted by [`count_own`](Self::count_own).
    ///
    /// # Panics
    /// When there is more, saying what.
    pub fn assert_nothing_new_of_its_own(&self) {
        self.assert_covers(Self::count_own);
    }

    fn assert_covers(&self, count: impl Fn() -> Self) {
        let deadline = Instant::now() + SETTLE;
        let after = loop {
            let after = count();
            if self.covers(&after) || Instant::now() > deadline {
                break after;
            }
            // The kernel gives no notice of what is awaited here.
            thread::sleep(Duration::from_millis(5));
        };
        fn new<T: Ord + Clone>(before: &BTreeSet<T>, after: &BTreeSet<T>) -> BTreeSet<T> {
            after.difference(before).cloned().collect()
        }
        assert_eq!(new(&self.processes, &after.processes), BTreeSet::new(), "processes are left");
        assert_eq!(new(&self.cgroups, &after.cgroups), BTreeSet::new(), "cgroups are left");
        assert_eq!(new(&self.mounts, &after.mounts), BTreeSet::new(), "mounts are left");
        assert_eq!(
            new(&self.network_namespaces, &after.network_namespaces),
            BTreeSet::new(),
            "network namespaces are left"
        );
        assert_eq!(new(&self.files, &after.files), BTreeSet::new(), "files are left");
        assert!(
            after.descriptors.len() <= self.descriptors.len(),
            "file descriptors are left: {:#?} were {:#?}",
            after.descriptors,
            self.descriptors
        );
    }

    fn covers(&self, after: &Self) -> bool {
        after.processes.is_subset(&self.processes)
            && after.cgroups.is_subset(&self.cgroups)
            && after.mounts.is_subset(&self.mounts)
            && after.network_namespaces.is_subset(&self.network_namespaces)
            && after.files.is_subset(&self.files)
            && after.descriptors.len() <= self.descriptors.len()
    }
}

fn entries(dir: impl AsRef<Path>) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(dir).into_iter().flatten().flatten()
}

/// The children of this process, with their pids and names.
pub fn children() -> BTreeSet<String> {
    let lists =
        entries("/proc/self/task").filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids = lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let named = |pid: String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').map_or(pid, |(name, _)| format!("{name})"))
    };
    pids.map(named).collect()
}

/// Our directories in any hierarchy: their names are ours alone.
fn cgroups() -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let hierarchies = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let point = fields.nth(1)?;
        fields.next()?.starts_with("cgroup").then(|| PathBuf::from(point))
    });
    hierarchies.flat_map(|hierarchy| directories(&hierarchy.join("longshore"))).collect()
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    if !dir.is_dir() {
        return Vec::new();
    }
    let below = entries(dir).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut all: Vec<_> = below.flat_map(|entry| directories(&entry.path())).collect();
    all.push(dir.to_owned());
    all
}

/// The executors of others, as of other test programs: `DIR/ROOT/executors/NAME` among the temporary files, dead ones too, and
/// whatever living process has such a file open.
pub(crate) fn executors_elsewhere(stage: &Path) -> BTreeSet<String> {
    let stages = entries(std::env::temp_dir()).filter(|entry| entry.path() != stage);
    let roots = stages.flat_map(|other| entries(other.path()));
    let executors = roots.flat_map(|root| entries(root.path().join("executors")));
    let files = entries("/proc").flat_map(|process| entries(process.path().join("fd")));
    let open = files.filter_map(|file| fs::read_link(file.path()).ok()).filter(|file| {
        !file.starts_with(stage) && file.parent().is_some_and(|dir| dir.ends_with("executors"))
    });
    let names = executors.map(|executor| executor.path()).chain(open);
    names.filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect()
}

/// Those below the stage, and the parts of overlays that are below no other directory of temporary files.
fn mounts(stage: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let stage = stage.to_string_lossy();
    let elsewhere = |line: &str| {
        let point = Path::new(line.split(' ').nth(4).unwrap_or_default());
        point.ancestors().any(|dir| dir.parent() == Some(&std::env::temp_dir()))
    };
    let ours = |line: &&str| line.contains(&*stage) || line.contains(" longshore ") && !elsewhere(line);
    text.lines().filter(ours).map(str::to_owned).collect()
}

/// The network namespace of each process, with its cgroups.
fn namespaces() -> Vec<(String, PathBuf)> {
    let processes = entries("/proc").filter_map(|process| {
        let namespace = fs::read_link(process.path().join("ns/net")).ok()?;
        Some((fs::read_to_string(process.path().join("cgroup")).unwrap_or_default(), namespace))
    });
    processes.collect()
}

fn files(dir: &Path) -> BTreeSet<PathBuf> {
    entries(dir)
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path()),
            _ => [entry.path()].into(),
        })
        .collect()
}

fn descriptors() -> Vec<String> {
    let links = entries("/proc/self/fd").filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut all: Vec<_> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    all.sort();
    all
}
