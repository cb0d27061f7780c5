//! Which mounts would give a sandboxed container the host's kernel: its /proc, /sys, /dev, cgroups and the like.
//!
//! The runtime masks parts of `/proc` and `/sys`, at these paths only. The same file system at another path has no masks.
//! So a sandbox gets no second one, neither new nor bound from the host, except where nothing can be written.
//!
//! A source is recognized by what it is, not by its name: by the kind of file system that its path leads to, and by what
//! is mounted below it. If somebody else can change the path meanwhile, give the part that changes as a selector: it is
//! resolved once, and what was checked is what is mounted.

use std::io;
use std::path::{Component, Path, PathBuf};

use executor_core::{ContainerSpec, Mount, MountSource, Security};
use executor_disk::mount_table::{self, Mount as Mounted};
use rustix::fs::{FileType, Mode, OFlags, fstat, fstatfs};

use crate::error::Error;
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
    0x9fa0,      // proc
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

/// The number of tmpfs, which devtmpfs has as well.
const TMPFS: u64 = 0x0102_1994;

/// Refuses a mount that would give a sandbox the host's kernel. `source` is the file or directory of a bind mount that was
/// found.
pub(crate) fn check(spec: &ContainerSpec, requested: &Mount, source: Option<&Path>) -> Result<(), Error> {
    if spec.security == Security::Insecure {
        return Ok(());
    }
    let wrong = match (&requested.source, source) {
        (MountSource::FileSystem { kind, .. }, _) => new(requested, kind),
        (MountSource::Bind { .. }, Some(source)) => bound(requested, source)?.or_else(|| over(requested)),
        (_, _) => over(requested),
    };
    match wrong {
        None => Ok(()),
        Some(why) => {
            Err(Error::field("mount", format!("{requested}: {why}, unless the container is insecure")))
        }
    }
}

/// Refuses a root directory that is, or has below it, the host's kernel. What the container's own file systems will cover
/// does not matter.
pub(crate) fn check_root(spec: &ContainerSpec, root: &Path) -> Result<(), Error> {
    if spec.security == Security::Insecure {
        return Ok(());
    }
    let covered = |point: &Path| ["proc", "sys", "dev"].iter().any(|own| point.starts_with(root.join(own)));
    let below = kernel_below(root)?.into_iter().find(|mounted| !covered(&mounted.point));
    match below {
        None => Ok(()),
        Some(Mounted { kind, point, .. }) => {
            let why = format!("{}: the host's {kind} is mounted at {}", root.display(), point.display());
            Err(Error::field("rootfs", format!("{why}; unmount it, unless the container is insecure")))
        }
    }
}

/// A new file system. At the usual place it has the usual masks.
fn new(requested: &Mount, kind: &str) -> Option<String> {
    let destination = normal(&requested.destination);
    let at = |place: &str| destination == Path::new(place);
    let is_usual = match kind {
        "proc" => at("/proc"),
        "sysfs" => at("/sys") && requested.read_only,
        "cgroup" | "cgroup2" => at("/sys/fs/cgroup") && requested.read_only,
        // Every one is empty.
        "devpts" => true,
        _ => false,
    };
    if is_usual {
        return None;
    }
    match KINDS.contains(&kind) {
        true => Some(format!("a {kind} there has no masks, and a sandbox cannot have it")),
        false => over(requested),
    }
}

/// What is wrong with the source of a bind mount.
fn bound(requested: &Mount, source: &Path) -> Result<Option<String>, Error> {
    let failed = || Error::file::<io::Error>("mount source", source);
    let is_read_only = requested.read_only && read_only_below().is_some();
    if is_read_only {
        return Ok(None);
    }
    let only = match requested.read_only {
        true => "which this kernel cannot make read-only with all that is below (Linux 5.12 can)",
        false => "which a sandbox may only read (ro)",
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::open(source, flags, Mode::empty()).map_err(|error| failed()(error.into()))?;
    let stat = fstat(&opened).map_err(|error| failed()(error.into()))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    // A device is what its node says, wherever that is. What may be done with it is for the container's cgroup to say.
    if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice | FileType::Socket) {
        return Ok(None);
    }
    let magic = fstatfs(&opened).map_err(|error| failed()(error.into()))?.f_type.cast_unsigned();
    if MAGICS.contains(&magic) {
        return Ok(Some(format!("it is one of the host's kernel file systems, {only}")));
    }
    let real = source.canonicalize().map_err(failed())?;
    let is_memory = ["/dev/shm", "/dev/hugepages"].iter().any(|memory| real.starts_with(memory));
    let is_devtmpfs = || {
        let device = stat.st_dev;
        let is_it = |mounted: &Mounted| mounted.kind == "devtmpfs" && mounted.device == device;
        mount_table::mounts().map_err(failed()).map(|all| magic == TMPFS && all.iter().any(is_it))
    };
    if !is_memory && (real.starts_with("/dev") || is_devtmpfs()?) {
        return Ok(Some(format!("it has the host's devices, {only}; add single ones")));
    }
    if kind != FileType::Directory {
        return Ok(None);
    }
    let below = kernel_below(&real)?.into_iter().next();
    Ok(below.map(|Mounted { kind, point, .. }| {
        format!("the host's {kind} is below it at {}, {only}", point.display())
    }))
}

/// The host's kernel file systems that are mounted at or below a directory. Names of namespaces do not count: `/run` has some,
/// and to enter one takes rights that a sandbox does not have.
fn kernel_below(dir: &Path) -> Result<Vec<Mounted>, Error> {
    let all = mount_table::mounts().map_err(Error::io("list the mounts below", dir))?;
    let is_below = |mounted: &&Mounted| {
        KINDS.contains(&mounted.kind.as_str())
            && mounted.kind != "nsfs"
            && mounted.point.starts_with(dir)
            && mount_table::is_visible(mounted, &all)
    };
    Ok(all.iter().filter(is_below).cloned().collect())
}

/// What is wrong with the place of a mount that is not a kernel file system. The runtime makes `/proc`, `/sys` and `/dev`,
/// and masks parts of them.
fn over(requested: &Mount) -> Option<String> {
    let destination = normal(&requested.destination);
    let is_bind = matches!(requested.source, MountSource::Bind { .. });
    if is_bind && ["/dev", "/sys"].iter().any(|own| destination == Path::new(own)) {
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
        check(&spec, &mount, source.as_deref()).err().map(|error| error.to_string())
    }

    #[test]
    fn second_proc() {
        for kind in KINDS {
            let mount = Mount::file_system(kind, kind, "/x");
            assert_eq!(refused(mount.clone()).is_none(), kind == "devpts", "{kind}");
            let mut insecure = ContainerSpec::host(["true"]);
            insecure.security = Security::Insecure;
            assert!(check(&insecure, &mount, None).is_ok());
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
    fn sources_are_known_by_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc/sys", &link).unwrap();
        for source in [Path::new("/proc"), Path::new("/sys"), Path::new("/dev"), Path::new("/"), &link] {
            let said = refused(Mount::bind(source, "/x")).unwrap();
            assert!(said.contains("insecure"), "{said}");
            assert_eq!(refused(Mount::bind(source, "/x").read_only()), None, "{}", source.display());
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
    }
}
