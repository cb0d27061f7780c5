//! What can be seen without running a container.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use longshore::runtime::{
    CANDIDATES, Dir, KernelRelease, check_free_descriptors, default_cgroup_parent, find_runtime, has_init,
    known_vulnerabilities,
};
use longshore::{BoxError, with_causes};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{PidfdFlags, geteuid, getpid, pidfd_open};

use super::Verdict;
use crate::command::args::Global;
use crate::command::status::{DELEGATE, OWN_ROOT, remedy_of_system, root_cannot_be_used};

/// Which cgroup hierarchies are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CgroupMode {
    V1,
    Hybrid,
    V2,
    None,
}

/// In the order in which `run` depends on them.
pub(super) fn all(global: &Global) -> Vec<(&'static str, Verdict)> {
    vec![
        ("user", user()),
        ("runtime", runtime(global.runtime.as_deref())),
        ("root", root(&global.root())),
        ("subreaper", subreaper()),
        ("pidfd", pidfd()),
        ("cgroups", cgroups()),
        ("overlay", overlay()),
        ("user namespaces", user_namespaces()),
        ("id maps", id_maps()),
        ("init", init()),
        ("pivot_root", pivot_root(global.no_pivot)),
    ]
}

fn init() -> Verdict {
    match has_init() {
        true => Verdict::Fine("the program is not process 1, unless --no-init is given".into()),
        false => Verdict::Limited(
            "this build has no process 1 of its own: the program is process 1".into(),
            "build it where there is a static C library",
        ),
    }
}

fn pivot_root(is_avoided: bool) -> Verdict {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match (root_is_ramdisk(&mounts), is_avoided) {
        (false, _) => Verdict::Fine("the root of this machine is no ramdisk".into()),
        (true, true) => Verdict::Fine("not used, because of --no-pivot".into()),
        (true, false) => Verdict::Missing(
            "the root of this machine is a ramdisk, where it is refused".into(),
            "give --no-pivot, to `run` too",
        ),
    }
}

/// The last of several mounts is the one on top.
fn root_is_ramdisk(mountinfo: &str) -> bool {
    let mut kinds = mountinfo.lines().rev().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        (mount.split(' ').nth(4) == Some("/")).then(|| source.split(' ').next())?
    });
    kinds.next() == Some("rootfs")
}

fn user() -> Verdict {
    match geteuid() {
        uid if uid.is_root() => Verdict::Fine("root".into()),
        uid => Verdict::Limited(
            format!("uid {}: containers run in a user namespace, with this user as their root", uid.as_raw()),
            "as root they also have overlays, selectors of mounts and CNI networks",
        ),
    }
}

/// As an executor opens it, but nothing is made. A missing one is fine if it could be made.
fn root(path: &Path) -> Verdict {
    let writable = match Dir::open_checked(path) {
        Ok(root) => accessat(CWD, root.path(), Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let there = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
            accessat(CWD, there, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        }
        Err(error) => return Verdict::Missing(root_cannot_be_used(path, &error.to_string()), OWN_ROOT),
    };
    match writable {
        Ok(()) => Verdict::Fine(path.display().to_string()),
        Err(errno) => {
            let error = std::io::Error::from(errno);
            Verdict::Missing(root_cannot_be_used(path, &error.to_string()), OWN_ROOT)
        }
    }
}

fn runtime(named: Option<&str>) -> Verdict {
    let candidates = named.map_or_else(|| CANDIDATES.to_vec(), |named| vec![named]);
    let program = match find_runtime(&candidates) {
        Ok(program) => program,
        Err(error) => {
            return Verdict::Missing(error.to_string(), "install runc, or name a runtime with --runtime");
        }
    };
    match version(&program) {
        Ok(Some(version)) if version.starts_with("crun") && cgroup_mode() == CgroupMode::Hybrid => {
            Verdict::Missing(
                format!("{version} ({}) refuses hosts with hybrid cgroups", program.display()),
                "use runc, or hide /sys/fs/cgroup/unified in a mount namespace of your own",
            )
        }
        Ok(Some(version)) => match vulnerable(&version) {
            Some(verdict) => verdict,
            None => Verdict::Fine(format!("{version} ({})", program.display())),
        },
        Ok(None) => Verdict::Missing(
            format!(
                "{} is not an OCI runtime: it answers neither --version nor features as one",
                program.display()
            ),
            "name runc, crun or youki with --runtime",
        ),
        Err(error) => {
            let cause = with_causes(&*error);
            let remedy = remedy_of_system(&*error).unwrap_or("reinstall it, or name another");
            Verdict::Missing(format!("{}: {cause}", program.display()), remedy)
        }
    }
}

/// A distribution fixes vulnerabilities without a new version, so a known one is not a failure.
fn vulnerable(version: &str) -> Option<Verdict> {
    let known = known_vulnerabilities(version);
    // Those that were fixed together are in one pair of parentheses.
    let together = known.chunk_by(|one, other| one.fixed_in == other.fixed_in).filter_map(|group| {
        let names: Vec<_> = group.iter().map(|one| one.cve).collect();
        Some(format!("{} (fixed in {})", names.join(", "), group.first()?.fixed_in.join(", ")))
    });
    let together: Vec<_> = together.collect();
    let what = format!("{version} has, unless your distribution has fixed it: {}", together.join(", "));
    (!known.is_empty()).then_some(Verdict::Limited(what, "update it, or look into its package's changelog"))
}

/// How many file descriptors are needed to call a runtime.
const DESCRIPTORS: usize = 16;

/// The version of the program. `None` if it is not an OCI runtime.
fn version(program: &Path) -> Result<Option<String>, BoxError> {
    // tokio panics if it has too few when it listens for its first signal.
    check_free_descriptors(DESCRIPTORS)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let runc = longshore::runc().runtime(program.to_string_lossy()).build()?;
    runtime.block_on(async {
        let version = runc.command_line().version().await?;
        // An unknown runtime may print any version, but only a runtime answers `features`.
        let is_runtime = names_a_runtime(&version)
            || runc
                .command_line()
                .features()
                .await
                .is_ok_and(|features| !features.oci_version_max.is_empty());
        Ok(is_runtime.then_some(version))
    })
}

/// Whether the first line of `--version` is that of a known runtime, as in `runc version 1.1.12`.
fn names_a_runtime(version: &str) -> bool {
    let mut words = version.split_whitespace();
    let name = words.next().unwrap_or_default();
    CANDIDATES.contains(&name) && words.next() == Some("version")
}

fn cgroup_mode() -> CgroupMode {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mode_of(&mounts)
}

fn mode_of(mounts: &str) -> CgroupMode {
    let has = |kind| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => CgroupMode::Hybrid,
        (true, false) => CgroupMode::V1,
        (false, true) => CgroupMode::V2,
        (false, false) => CgroupMode::None,
    }
}

fn cgroups() -> Verdict {
    let kind = match cgroup_mode() {
        CgroupMode::V1 => "v1",
        CgroupMode::Hybrid => "v1 with an unused v2 beside it (hybrid)",
        CgroupMode::V2 => "v2",
        CgroupMode::None => {
            return Verdict::Missing("not mounted".into(), "mount them at /sys/fs/cgroup");
        }
    };
    match default_cgroup_parent() {
        Ok(Some(parent)) if parent.is_empty() => Verdict::Fine(kind.into()),
        Ok(Some(parent)) => Verdict::Fine(format!("{kind}, delegated to this user at {parent}")),
        Ok(None) => Verdict::Limited(
            format!("{kind}, and none delegated to this user: no limits, pause or usage"),
            DELEGATE,
        ),
        Err(error) => Verdict::Missing(format!("/proc/self/mountinfo: {error}"), "mount /proc"),
    }
}

fn subreaper() -> Verdict {
    match rustix::process::set_child_subreaper(Some(getpid())) {
        Ok(()) => Verdict::Fine("this process can adopt what runtimes leave behind".into()),
        Err(error) => {
            Verdict::Missing(format!("prctl: {error}"), "allow PR_SET_CHILD_SUBREAPER in the seccomp filter")
        }
    }
}

fn pidfd() -> Verdict {
    if let Err(error) = pidfd_open(getpid(), PidfdFlags::empty()) {
        return Verdict::Missing(format!("pidfd_open: {error}"), "use Linux 5.4 or later");
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if KernelRelease::of(&release) >= KernelRelease::new(6, 15) {
        return Verdict::Fine(format!("Linux {release} gives the exit status of any process"));
    }
    Verdict::Limited(
        format!("Linux {release} gives exit statuses to parents only"),
        "from 6.15 on a foreign waitpid(-1) cannot hide one",
    )
}

fn overlay() -> Verdict {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay") {
        return Verdict::Fine("--rootfs host works".into());
    }
    Verdict::Limited("the kernel has no overlay: --rootfs host does not work".into(), "modprobe overlay")
}

fn user_namespaces() -> Verdict {
    let number = |file: &str| fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok());
    match (number("/proc/sys/user/max_user_namespaces"), number("/proc/sys/kernel/unprivileged_userns_clone"))
    {
        (None, _) => Verdict::Limited("the kernel has none".into(), "id mappings need CONFIG_USER_NS"),
        (Some(0), _) => {
            Verdict::Limited("switched off".into(), "sysctl user.max_user_namespaces=15000 switches them on")
        }
        (Some(_), Some(0)) => Verdict::Limited(
            "for root only".into(),
            "sysctl kernel.unprivileged_userns_clone=1 gives them to all",
        ),
        (Some(most), _) => Verdict::Fine(format!("up to {most}")),
    }
}

fn id_maps() -> Verdict {
    let tools = find_runtime(&["newuidmap"]).is_ok() && find_runtime(&["newgidmap"]).is_ok();
    let ranges =
        |file| fs::read_to_string(file).is_ok_and(|text: String| text.lines().any(|line| !line.is_empty()));
    match (tools, ranges("/etc/subuid") && ranges("/etc/subgid")) {
        (true, true) => Verdict::Fine("newuidmap, newgidmap, /etc/subuid and /etc/subgid are there".into()),
        (false, _) => Verdict::Limited(
            "no newuidmap and newgidmap".into(),
            "with the package uidmap an ordinary user's containers have more users than their root",
        ),
        (true, false) => Verdict::Limited(
            "no ranges in /etc/subuid and /etc/subgid".into(),
            "with usermod --add-subuids and --add-subgids an ordinary user's containers have more users than root",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_mode_is_what_is_mounted() {
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n";
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(mode_of(v1), CgroupMode::V1);
        assert_eq!(mode_of(v2), CgroupMode::V2);
        assert_eq!(mode_of(&format!("{v1}{v2}")), CgroupMode::Hybrid);
        assert_eq!(mode_of("proc /proc proc rw 0 0\n"), CgroupMode::None);
    }

    #[test]
    fn runtimes_are_known_by_their_version() {
        assert!(names_a_runtime("runc version 1.1.12"));
        assert!(names_a_runtime("crun version 1.8"));
        assert!(names_a_runtime("youki version 0.3.3"));
        for other in ["", "true (GNU coreutils) 9.1", "version runc", "runc"] {
            assert!(!names_a_runtime(other), "{other:?}");
        }
    }

    #[test]
    fn a_vulnerable_runtime_is_a_note() {
        let Some(Verdict::Limited(what, _)) = vulnerable("runc version 1.1.5+ds1") else {
            panic!("none is known")
        };
        assert!(
            what.ends_with(
                "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 (fixed in 1.2.8, 1.3.3, 1.4.0-rc.3)"
            )
        );
        let start = "runc version 1.1.5+ds1 has, unless your distribution has fixed it: CVE-2024-21626 (fixed in 1.1.12), ";
        assert!(what.starts_with(start), "{what}");
        assert_eq!(vulnerable("runc version 1.5.3"), None);
        assert_eq!(vulnerable("crun version 1.8.1"), None);
    }

    #[test]
    fn ramdisk_root() {
        let ramdisk = "1 1 0:2 / / rw - rootfs rootfs rw\n22 1 0:5 / /proc rw - proc proc rw\n";
        assert!(root_is_ramdisk(ramdisk));
        assert!(!root_is_ramdisk(&format!("{ramdisk}30 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n")));
        assert!(!root_is_ramdisk("30 1 8:1 / /mnt rw - rootfs none rw\n") && !root_is_ramdisk(""));
    }
}
