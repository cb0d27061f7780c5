//! Checks that a container's program exists and can be executed, before the container is made.
//!
//! The runtime checks this too, but partly too late: if the file is not a binary, the runtime has already reported that the
//! container runs, and the container ends with exit code 1. Some programs cannot be checked from outside and are left to
//! the runtime: those in a mount that does not exist yet, and those with an interpreter registered with `binfmt_misc`.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::users::User;
use crate::error::Error;
use crate::rootfs_dir::{Found, RootfsDir};

/// Whether the file at a path can be executed.
enum Verdict {
    Executable,
    Missing,
    /// It exists, and cannot be executed for this reason.
    NotExecutable(&'static str),
    /// The kernel does not know its format. execvp(3) stops its search at such a file.
    UnknownFormat,
    /// It cannot be judged: the container will see something else at this path.
    Hidden,
}

/// The parts of a process that decide whether its program can be executed.
pub(crate) struct Subject<'a> {
    pub(crate) program: Option<&'a str>,
    pub(crate) cwd: &'a Path,
    pub(crate) path: &'a str,
    pub(crate) user: &'a User,
}

/// Checks the program of `process`. `mounts` are the paths where mounts will be, whose files `rootfs` does not show.
pub(crate) fn check(rootfs: &RootfsDir, process: &Subject<'_>, mounts: &[PathBuf]) -> Result<(), Error> {
    let Some(program) = process.program else {
        return Ok(());
    };
    let on_path = !program.contains('/');
    for candidate in candidates(program, process) {
        match judge(rootfs, &candidate, process, mounts) {
            Verdict::Executable | Verdict::Hidden => return Ok(()),
            // On PATH, files that are missing or not executable are skipped, as by execvp(3).
            Verdict::Missing => {}
            Verdict::NotExecutable(_) if on_path => {}
            Verdict::NotExecutable(why) => {
                return Err(Error::NotExecutable { program: program.to_owned(), why });
            }
            Verdict::UnknownFormat => {
                let why = "exec format error: neither a binary nor a script that begins with #!";
                return Err(Error::NotExecutable { program: program.to_owned(), why });
            }
        }
    }
    let why = match (mounts.is_empty(), on_path) {
        (false, _) => return Ok(()),
        (true, true) => "not found on the container's PATH",
        (true, false) => "no such file in the container",
    };
    Err(Error::NotFound { program: program.to_owned(), why })
}

fn candidates(program: &str, process: &Subject<'_>) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![process.cwd.join(program)];
    }
    process
        .path
        .split(':')
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| Path::new(dir).join(program))
        .collect()
}

fn judge(rootfs: &RootfsDir, path: &Path, process: &Subject<'_>, mounts: &[PathBuf]) -> Verdict {
    let is_hidden = |path: &Path| mounts.iter().any(|mount| path.starts_with(mount));
    if is_hidden(path) {
        return Verdict::Hidden;
    }
    let found = match rootfs.find(path) {
        Ok(Some(found)) => found,
        Ok(None) => return Verdict::Missing,
        Err(_) => return Verdict::Hidden,
    };
    if !mounts.is_empty() && rootfs.path_of(&found).is_none_or(|path| is_hidden(&path)) {
        return Verdict::Hidden;
    }
    if found.is(FileType::Directory) {
        return Verdict::NotExecutable("is a directory");
    }
    if !found.is(FileType::RegularFile) {
        return Verdict::NotExecutable("is not a regular file");
    }
    if !may_execute(&found, process.user) {
        return Verdict::NotExecutable("permission denied: it is not executable");
    }
    if has_known_format(&found) { Verdict::Executable } else { Verdict::UnknownFormat }
}

/// Whether the file's mode lets this user execute it. For root, one execute bit is enough.
fn may_execute(found: &Found, user: &User) -> bool {
    let stat = &found.stat;
    let bits = match (user.uid, user.gid) {
        (0, _) => 0o111,
        (uid, _) if uid == stat.st_uid => 0o100,
        (_, gid) if gid == stat.st_gid || user.groups.contains(&stat.st_gid) => 0o010,
        _ => 0o001,
    };
    stat.st_mode & bits != 0
}

/// Whether the kernel may know the file's format. If we cannot read the file, or interpreters are registered for other
/// formats, only the kernel knows: then the answer is yes.
fn has_known_format(found: &Found) -> bool {
    let Ok(start) = found.read(4) else { return true };
    start.starts_with(b"\x7fELF") || start.starts_with(b"#!") || has_registered_formats()
}

fn has_registered_formats() -> bool {
    let entries = fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name != "register" && name != "status")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Ids;
    use crate::process::users;
    use executor_core::lifecycle::{StartFailure, StartFailureKind};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn kind(program: &str, user: &str, mounts: &[PathBuf]) -> Option<StartFailureKind> {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8], mode| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("bin/elf", b"\x7fELF...", 0o755);
        write("usr/bin/script", b"#!/bin/sh\n", 0o755);
        write("bin/garbage", b"\0\0\0\0", 0o755);
        write("bin/plain", b"\x7fELF", 0o644);
        write("bin/private", b"\x7fELF", 0o700);
        symlink("/mnt/tool", dir.path().join("bin/mounted")).unwrap();
        let rootfs = RootfsDir::open(dir.path()).unwrap();
        let user = users::resolve(&rootfs, Some(user), &Ids::new(None)).unwrap();
        let path = "/usr/local/bin:/usr/bin:/bin";
        let subject = Subject { program: Some(program), cwd: Path::new("/"), path, user: &user };
        check(&rootfs, &subject, mounts).err().map(|error| StartFailure::from(error).kind)
    }

    #[test]
    fn not_found_and_not_executable() {
        for (program, expected) in [
            ("elf", None),
            ("/bin/elf", None),
            ("bin/elf", None),
            ("../bin/elf", None),
            ("script", None),
            ("nope", Some(StartFailureKind::NotFound)),
            ("/nope", Some(StartFailureKind::NotFound)),
            ("/bin/elf/x", Some(StartFailureKind::NotFound)),
            ("/bin", Some(StartFailureKind::NotExecutable)),
            ("/bin/plain", Some(StartFailureKind::NotExecutable)),
            ("plain", Some(StartFailureKind::NotFound)),
        ] {
            assert_eq!(kind(program, "0:0", &[]), expected, "{program}");
        }
        if !has_registered_formats() {
            assert_eq!(kind("/bin/garbage", "0:0", &[]), Some(StartFailureKind::NotExecutable));
            assert_eq!(kind("garbage", "0:0", &[]), Some(StartFailureKind::NotExecutable));
        }
        assert_eq!(kind("/bin/private", "0:0", &[]), None);
        assert_eq!(kind("/bin/private", "1000:1000", &[]), Some(StartFailureKind::NotExecutable));
    }

    #[test]
    fn programs_in_mounts_are_not_judged() {
        let mount = PathBuf::from("/mnt");
        assert_eq!(kind("/mnt/tool", "0:0", std::slice::from_ref(&mount)), None);
        assert_eq!(kind("mounted", "0:0", std::slice::from_ref(&mount)), None);
        assert_eq!(kind("/bin/plain", "0:0", &[mount]), Some(StartFailureKind::NotExecutable));
    }
}
