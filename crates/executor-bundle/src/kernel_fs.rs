//! Which mounts would give a sandboxed container the host's kernel: its /proc, /sys, /dev, cgroups and the like, and its
//! disks.
//!
//! The runtime masks parts of `/proc` and `/sys`, at these paths only. The same file system at another path has no masks.
//! So a sandbox gets no second one, neither new nor bound from the host, except where nothing can be written.
//!
//! With procfs, reading is enough: /proc/PID/root leads to the mounts of another process, and these are writable. So a
//! sandbox gets no procfs of the host at all, but for single files. In a user namespace without the host's root, the kernel
//! refuses these links, and it may be read.
//!
//! A source is recognized by what it is, not by its name: by the kind of file system that its path leads to, and by what
//! is mounted below it. If somebody else can change the path meanwhile, give the part that changes as a selector: it is
//! resolved once, and what was checked is what is mounted.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use executor_core::{ContainerSpec, Mount, MountSource, Security};
use executor_disk::mount_table::{self, Mount as Mounted};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, openat2, statfs};
use rustix::io::Errno;

use crate::error::Error;
use crate::ids::Ids;
use crate::mount_entry::read_only_below;

/// Kinds of file systems that show or change the kernel, as `/proc/filesystems` names them.
const KINDS: [&str; 22] = [
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "resctrl",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "sysfs",
    "tracefs",
    "xenfs",
];

/// The same kinds, as statfs(2) names them; see linux/magic.h. devtmpfs has the number of tmpfs, and others have none.
const MAGICS: [u64; 19] = [
    0x6c6f_6f70, // binder
    0x4249_4e4d, // binfmt_misc
    0xcafe_4a11, // bpf
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6265_6570, // configfs
    0x6462_6720, // debugfs
    0x1cd1,      // devpts
    0xde5e_81e4, // efivarfs
    0x6573_5543, // fusectl
    0x6e66_7364, // nfsd
    0x6e73_6673, // nsfs
    PROC,
    0x6165_676c, // pstore
    0x0765_5821, // resctrl
    0x7363_6673, // securityfs
    0xf97c_ff8c, // selinuxfs
    0x6265_6572, // sysfs
    0x7472_6163, // tracefs
];

/// Files below /proc that may be replaced, as lxcfs does: they show less than those of the kernel.
const REPLACEABLE: [&str; 8] =
    ["cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime"];

/// Files of /proc that say something about the machine and nothing about its processes. Others have masks, block, or lead to
/// a process.
const HARMLESS: [&str; 18] = [
    "cgroups",
    "cmdline",
    "cpuinfo",
    "devices",
    "diskstats",
    "filesystems",
    "loadavg",
    "meminfo",
    "misc",
    "modules",
    "partitions",
    "stat",
    "swaps",
    "uptime",
    "version",
    "version_signature",
    "vmstat",
    "zoneinfo",
];

/// The number of procfs.
const PROC: u64 = 0x9fa0;

/// The number of tmpfs, which devtmpfs has as well.
const TMPFS: u64 = 0x0102_1994;

/// Refuses a mount that would give a sandbox the host's kernel. `source` is the file or directory of a bind mount that was
/// found.
pub(crate) fn check(
    spec: &ContainerSpec,
    ids: &Ids,
    requested: &Mount,
    source: Option<&Path>,
) -> Result<(), Error> {
    if spec.security == Security::Insecure {
        return Ok(());
    }
    let destination = normal(&requested.destination);
    let wrong = match (&requested.source, source) {
        (MountSource::FileSystem { kind, source }, _) => match on_device(kind, source)? {
            Some(why) => Some(why),
            None => new(requested, kind, &destination),
        },
        (MountSource::Bind { .. }, Some(source)) => {
            bound(requested, source, ids)?.or_else(|| over(requested, &destination))
        }
        (_, _) => over(requested, &destination),
    };
    wrong.map_or(Ok(()), |why| refuse(requested, &why))
}

/// Refuses a mount whose destination leads by links, in the root file system or in a volume, to a place that is the
/// container's own. `point` is that place. The destination as it is named has been checked by [`check`].
pub(crate) fn check_point(spec: &ContainerSpec, destination: &Path, point: &Path) -> Result<(), Error> {
    if spec.security == Security::Insecure || destination == point {
        return Ok(());
    }
    for requested in spec.mounts.iter().filter(|mount| normal(&mount.destination) == destination) {
        let wrong = if let MountSource::FileSystem { kind, .. } = &requested.source {
            new(requested, kind, point)
        } else {
            over(requested, point)
        };
        if let Some(why) = wrong {
            return refuse(requested, &format!("it leads to {}: {why}", point.display()));
        }
    }
    Ok(())
}

fn refuse(requested: &Mount, why: &str) -> Result<(), Error> {
    Err(Error::field("mount", format!("{requested}: {why}, unless the container is insecure")))
}

/// Refuses a root directory that is, or has below it, the host's kernel. What the container's own file systems will cover
/// does not matter.
pub(crate) fn check_root(spec: &ContainerSpec, root: &Path) -> Result<(), Error> {
    if spec.security == Security::Insecure {
        return Ok(());
    }
    let magic = statfs(root).map_err(Error::io("stat", root))?.f_type.cast_unsigned();
    if MAGICS.contains(&magic) {
        let why = format!("{} is in one of the host's kernel file systems", root.display());
        return Err(Error::field("rootfs", format!("{why}, unless the container is insecure")));
    }
    let covered = |point: &Path| ["proc", "sys", "dev"].iter().any(|own| point.starts_with(root.join(own)));
    let mounts = mount_table::mounts().map_err(Error::io("list the mounts below", root))?;
    let below = kernel_below(root, &mounts).into_iter().find(|mounted| !covered(&mounted.point));
    match below {
        None => Ok(()),
        Some(Mounted { kind, point, .. }) => {
            let why = format!("{}: the host's {kind} is mounted at {}", root.display(), point.display());
            Err(Error::field("rootfs", format!("{why}; unmount it, unless the container is insecure")))
        }
    }
}

/// Kinds of file systems that are on the host's disks, although their source is no block device.
const ON_DISKS: [&str; 5] = ["bcachefs", "jffs2", "ubifs", "yaffs2", "zfs"];

/// What is wrong with a file system on a device of the host. The runtime mounts it with the rights of the host's root.
fn on_device(kind: &str, source: &str) -> Result<Option<String>, Error> {
    let table = Path::new("/proc/filesystems");
    let known = fs::read_to_string(table).map_err(Error::io("read", table))?;
    let needs_device =
        ON_DISKS.contains(&kind) || known.lines().any(|line| line.strip_prefix('\t') == Some(kind));
    // A kind whose module is not loaded yet is not in the list.
    let is_device = || fs::metadata(source).is_ok_and(|meta| meta.file_type().is_block_device());
    Ok((needs_device || is_device()).then(|| {
        format!("{kind} is on a device of the host, and a sandbox cannot have it; mount it on the host and bind it")
    }))
}

/// A new file system. At the usual place it has the usual masks.
fn new(requested: &Mount, kind: &str, destination: &Path) -> Option<String> {
    let at = |place: &str| destination == Path::new(place);
    let is_usual = match kind {
        "proc" => at("/proc"),
        "sysfs" => at("/sys") && requested.read_only,
        "cgroup" | "cgroup2" => at("/sys/fs/cgroup") && requested.read_only,
        _ => false,
    };
    if is_usual {
        return None;
    }
    // Every devpts is empty.
    match KINDS.contains(&kind) && kind != "devpts" {
        true => Some(format!("a {kind} there has no masks, and a sandbox cannot have it")),
        false => over(requested, destination),
    }
}

/// What is wrong with the source of a bind mount.
fn bound(requested: &Mount, source: &Path, ids: &Ids) -> Result<Option<String>, Error> {
    let failed = || Error::file::<io::Error>("mount source", source);
    let open = OFlags::PATH | OFlags::CLOEXEC;
    let opened = match openat2(CWD, source, open, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Ok(opened) => opened,
        // The runtime would follow the link as another process, to something else.
        Err(Errno::LOOP) if source.exists() => {
            let why =
                "a link of /proc leads to it, and what is there depends on who follows it; give its own path";
            return Ok(Some(why.into()));
        }
        Err(error) => return Err(failed()(error.into())),
    };
    let source = Source::of(&opened, source).map_err(failed())?;
    Ok(match requested.read_only && read_only_below().is_some() {
        true => source.wrong_to_read().filter(|_| !ids.spare_host_root()),
        false => source.wrong_to_write(requested.read_only),
    })
}

/// The source of a bind mount, as far as it may be a part of the host's kernel.
struct Source {
    path: PathBuf,
    /// Whether it is a device or a socket. A device is what its node says, wherever that is. What may be done with it is for
    /// the container's cgroup to say.
    is_node: bool,
    /// Whether it is a part of procfs that shows processes.
    is_of_processes: bool,
    is_kernel: bool,
    has_devices: bool,
    /// The kernel file systems that are mounted below it.
    below: Vec<Mounted>,
}

impl Source {
    fn of(opened: &OwnedFd, path: &Path) -> io::Result<Self> {
        let (stat, path) = (fstat(opened)?, path.canonicalize()?);
        let (kind, magic) = (FileType::from_raw_mode(stat.st_mode), fstatfs(opened)?.f_type.cast_unsigned());
        let is_dir = kind == FileType::Directory;
        let mounts = if is_dir || magic == TMPFS { mount_table::mounts()? } else { Vec::new() };
        let is_devtmpfs = |mounted: &Mounted| mounted.kind == "devtmpfs" && mounted.device == stat.st_dev;
        let is_memory = ["/dev/shm", "/dev/hugepages"].iter().any(|memory| path.starts_with(memory));
        Ok(Self {
            is_node: matches!(kind, FileType::CharacterDevice | FileType::BlockDevice | FileType::Socket),
            is_of_processes: magic == PROC && !is_harmless(&stat),
            is_kernel: MAGICS.contains(&magic),
            has_devices: !is_memory
                && (path.starts_with("/dev") || magic == TMPFS && mounts.iter().any(is_devtmpfs)),
            below: if is_dir { kernel_below(&path, &mounts) } else { Vec::new() },
            path,
        })
    }

    /// What is wrong if the container may only read it, and all that is below.
    fn wrong_to_read(&self) -> Option<String> {
        if self.is_node {
            return None;
        }
        let below = self.below.iter().find(|mounted| mounted.kind == "proc").map(|mounted| &mounted.point);
        let at = if self.is_of_processes { Some(&self.path) } else { below };
        at.map(|at| of_processes(at))
    }

    /// What is wrong if the container may write to it, or to what is below. `asked_to_read` if only the kernel is in the way
    /// of making that read-only.
    fn wrong_to_write(&self, asked_to_read: bool) -> Option<String> {
        let only = match asked_to_read {
            true => "which this kernel cannot make read-only with all that is below (Linux 5.12 can)",
            false => "which a sandbox may only read (ro)",
        };
        match self.below.first() {
            _ if self.is_node => None,
            _ if self.is_of_processes => Some(of_processes(&self.path)),
            _ if self.is_kernel => Some(format!("it is one of the host's kernel file systems, {only}")),
            _ if self.has_devices => Some(format!("it has the host's devices, {only}; add single ones")),
            Some(Mounted { kind, point, .. }) if kind == "proc" => Some(of_processes(point)),
            Some(Mounted { kind, point, .. }) => {
                Some(format!("the host's {kind} is below it at {}, {only}", point.display()))
            }
            None => None,
        }
    }
}

/// Whether file systems of this kind show or change the kernel.
pub(crate) fn is_kernel_kind(kind: &str) -> bool {
    KINDS.contains(&kind)
}

/// Whether a file is on one of the kernel's file systems. Their regular files may block, or have no end.
pub(crate) fn is_kernel(file: impl AsFd) -> io::Result<bool> {
    Ok(MAGICS.contains(&fstatfs(file)?.f_type.cast_unsigned()))
}

/// Whether a file is on a procfs. One that cannot be looked at is not.
pub(crate) fn is_proc(file: impl AsFd) -> bool {
    fstatfs(file).is_ok_and(|found| found.f_type.cast_unsigned() == PROC)
}

/// What is wrong with the host's procfs at a path.
fn of_processes(at: &Path) -> String {
    format!(
        "it shows the host's {}, and the /proc/PID/root of a process leads to the files of other containers, to write as well \
         (ro does not help). Bind directories without a proc, or single files such as /proc/cpuinfo with ro; an id map without \
         the host's root may read it",
        at.display()
    )
}

/// Whether a file of procfs is one that shows nothing of processes.
fn is_harmless(file: &Stat) -> bool {
    HARMLESS.iter().filter_map(|name| rustix::fs::stat(Path::new("/proc").join(name)).ok()).any(|harmless| {
        (harmless.st_dev, harmless.st_ino, harmless.st_mode) == (file.st_dev, file.st_ino, file.st_mode)
    })
}

/// The host's kernel file systems that are mounted at or below a directory. Names of namespaces do not count: `/run` has some,
/// and to enter one takes rights that a sandbox does not have.
fn kernel_below(dir: &Path, mounts: &[Mounted]) -> Vec<Mounted> {
    let is_below = |mounted: &&Mounted| {
        KINDS.contains(&mounted.kind.as_str())
            && mounted.kind != "nsfs"
            && mounted.point.starts_with(dir)
            && mount_table::is_visible(mounted, mounts)
    };
    mounts.iter().filter(is_below).cloned().collect()
}

/// What is wrong with the place of a mount that is not a kernel file system. The runtime makes `/proc`, `/sys` and `/dev`,
/// and masks parts of them.
fn over(requested: &Mount, destination: &Path) -> Option<String> {
    let is_bind = matches!(requested.source, MountSource::Bind { .. });
    // A file system of another size or mode may be asked for there: the runtime makes the devices in it.
    let is_new = matches!(requested.source, MountSource::Tmpfs | MountSource::FileSystem { .. });
    let is_usual =
        is_new && destination == Path::new("/dev") && normal(&requested.destination) == destination;
    if !is_usual && ["/dev", "/sys"].iter().any(|own| destination == Path::new(own)) {
        return Some(format!("{} is the container's own", destination.display()));
    }
    let in_proc = destination.strip_prefix("/proc").ok()?;
    let is_replaceable = is_bind && REPLACEABLE.iter().any(|name| in_proc == Path::new(name));
    (!is_replaceable).then(|| "/proc is the container's own".into())
}

/// A destination without `.` and repeated slashes. It has no `..`.
fn normal(destination: &Path) -> PathBuf {
    destination.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(mount: Mount) -> Option<String> {
        let spec = ContainerSpec::host(["true"]);
        let source = mount.host_path().map(Path::to_owned);
        check(&spec, &Ids::new(None), &mount, source.as_deref()).err().map(|error| error.to_string())
    }

    #[test]
    fn second_proc() {
        for kind in KINDS {
            let mount = Mount::file_system(kind, kind, "/x");
            assert_eq!(refused(mount.clone()).is_none(), kind == "devpts", "{kind}");
            let mut insecure = ContainerSpec::host(["true"]);
            insecure.security = Security::Insecure;
            assert!(check(&insecure, &Ids::new(None), &mount, None).is_ok());
        }
        let said = refused(Mount::file_system("proc", "proc", "/p")).unwrap();
        assert!(said.starts_with("mount: proc proc:/p: ") && said.contains("insecure"), "{said}");
        for fine in [
            Mount::file_system("proc", "proc", "/proc/").option("hidepid=2"),
            Mount::file_system("sysfs", "sysfs", "/sys").read_only(),
            Mount::file_system("mqueue", "mqueue", "/m"),
            Mount::tmpfs("/run"),
        ] {
            assert_eq!(refused(fine), None);
        }
        assert!(refused(Mount::file_system("sysfs", "sysfs", "/sys")).is_some());
        assert!(refused(Mount::file_system("cgroup", "cgroup", "/sys/fs/cgroup")).is_some());
    }

    #[test]
    fn disks_of_the_host() {
        let known = fs::read_to_string("/proc/filesystems").unwrap();
        let on_disks = known.lines().filter_map(|line| line.strip_prefix('\t'));
        for kind in on_disks.chain(ON_DISKS) {
            let said = refused(Mount::file_system(kind, "/dev/vda", "/x")).unwrap();
            assert!(said.contains("a device of the host") && said.contains("insecure"), "{said}");
        }
        for kind in ["nfs", "cifs", "9p", "overlay", "mqueue", "ramfs"] {
            assert_eq!(refused(Mount::file_system(kind, "server:/x", "/x")), None, "{kind}");
        }
    }

    #[test]
    fn sources_are_known_by_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc/sys", &link).unwrap();
        for source in [Path::new("/proc"), Path::new("/sys"), Path::new("/dev"), Path::new("/"), &link] {
            let said = refused(Mount::bind(source, "/x")).unwrap();
            assert!(said.contains("insecure"), "{said}");
            let is_proc = !["/sys", "/dev"].map(Path::new).contains(&source);
            let read_only = refused(Mount::bind(source, "/x").read_only());
            assert_eq!(read_only.is_some_and(|said| said.contains("/proc")), is_proc, "{}", source.display());
        }
        for name in ["cpuinfo", "meminfo", "version"] {
            let source = Path::new("/proc").join(name);
            assert_eq!(refused(Mount::bind(&source, "/x").read_only()), None, "{name}");
            assert!(refused(Mount::bind(&source, "/x")).is_some(), "{name}");
        }
        for source in ["kcore", "kmsg", "1/root", "self/environ", "thread-self", "mounts", "sys", "fs"] {
            let source = Path::new("/proc").join(source);
            assert!(refused(Mount::bind(&source, "/x").read_only()).is_some(), "{}", source.display());
        }
        for (source, destination) in [
            ("/dev/null", "/dev/x"),
            ("/dev/shm", "/dev/shm"),
            ("/etc", "/x"),
            ("/etc/passwd", "/proc/cpuinfo"),
        ] {
            assert_eq!(refused(Mount::bind(source, destination)), None, "{source}");
        }
        for over in ["/proc", "/proc/sys", "/proc/cpuinfo/x", "/sys", "/dev/", "/./dev"] {
            assert!(refused(Mount::bind("/etc", over).read_only()).is_some(), "{over}");
        }
        for over in ["/sys", "/proc", "/proc/cpuinfo"] {
            assert!(refused(Mount::tmpfs(over)).is_some(), "{over}");
            assert!(refused(Mount::file_system("devpts", "devpts", over)).is_some(), "{over}");
        }
        assert_eq!(refused(Mount::tmpfs("/dev")), None);
    }

    #[test]
    fn points_that_links_lead_to() {
        let refused = |mount: Mount, point: &str| {
            let mut spec = ContainerSpec::host(["true"]).mount(mount);
            let said = check_point(&spec, Path::new("/to"), Path::new(point)).err();
            spec.security = Security::Insecure;
            assert!(check_point(&spec, Path::new("/to"), Path::new(point)).is_ok());
            said.map(|error| error.to_string())
        };
        for point in ["/proc", "/proc/1", "/proc/sys/kernel", "/sys", "/dev"] {
            for mount in [
                Mount::bind("/etc", "/./to"),
                Mount::tmpfs("/to"),
                Mount::file_system("mqueue", "mqueue", "/to"),
            ] {
                let said = refused(mount, point).unwrap();
                assert!(
                    said.contains(&format!("it leads to {point}: ")) && said.contains("insecure"),
                    "{said}"
                );
            }
        }
        for point in ["/proc/cpuinfo", "/dev/shm", "/to", "/etc"] {
            assert_eq!(refused(Mount::bind("/etc/passwd", "/to"), point), None, "{point}");
        }
    }
}
