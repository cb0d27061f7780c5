//! Whether there is a program to execute, before a container is made for it.
//!
//! The runtime checks too, but some of it too late: it finds out that a file is no binary after it has reported that
//! the container runs, and the container ends with exit code 1. What cannot be judged from
//! outside (a program in a mount that does not exist yet, an interpreter registered with
//! `binfmt_misc`) is left to the runtime.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::users::User;
use crate::error::Error;
use crate::rootfs_dir::{Found, RootfsDir};

/// What is at a path, as far as executing it goes.
enum Verdict {
    Executable,
    Missing,
    /// It is there, and cannot be executed for this reason.
    NotExecutable(&'static str),
    /// It is in no format that the kernel knows. execvp(3) does not look for another then.
    UnknownFormat,
    /// Whatever it is, the container will see something else there.
    Hidden,
}

/// What of a process decides whether its program can be executed.
pub(crate) struct Subject<'a> {
    pub(crate) program: Option<&'a str>,
    pub(crate) cwd: &'a Path,
    pub(crate) path: &'a str,
    pub(crate) user: &'a User,
}

/// Checks the program of `process`. `mounts` are the places of those that `within` does not show.
pub(crate) fn check(within: &RootfsDir, process: &Subject<'_>, mounts: &[PathBuf]) -> Result<(), Error> {
    let Some(program) = process.program else {
        return Ok(());
    };
    let on_path = !program.contains('/');
    for candidate in candidates(program, process) {
        match judge(within, &candidate, process, mounts) {
            Verdict::Executable | Verdict::Hidden => return Ok(()),
            // Looked up on PATH, what is missing or forbidden is passed over, as execvp(3) does.
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

fn judge(within: &RootfsDir, path: &Path, process: &Subject<'_>, mounts: &[PathBuf]) -> Verdict {
    let hidden = |path: &Path| mounts.iter().any(|mount| path.starts_with(mount));
    if hidden(path) {
        return Verdict::Hidden;
    }
    let found = match within.find(path) {
        Ok(Some(found)) => found,
        Ok(None) => return Verdict::Missing,
        Err(_) => return Verdict::Hidden,
    };
    if !mounts.is_empty() && within.path_of(&found).is_none_or(|path| hidden(&path)) {
        return Verdict::Hidden;
    }
    if found.is(FileType::Directory) {
        return Verdict::NotExecutable("is a directory");
    }
    if !found.is(FileType::RegularFile) {
        return Verdict::NotExecutable("is no regular file");
    }
    if !may_execute(&found, process.user) {
        return Verdict::NotExecutable("permission denied: it is not executable");
    }
    if has_known_format(&found) { Verdict::Executable } else { Verdict::UnknownFormat }
}

/// Root may execute what anyone may.
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

/// With interpreters registered for other formats, the kernel alone can say. So for a file we cannot
/// read.
fn has_known_format(found: &Found) -> bool {
    let Ok(start) = found.read(4) else { return true };
    start.starts_with(b"\x7fELF") || start.starts_with(b"#!") || others_are_registered()
}

fn others_are_registered() -> bool {
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
        let within = RootfsDir::open(dir.path()).unwrap();
        let user = users::resolve(&within, Some(user), &Ids::new(None)).unwrap();
        let path = "/usr/local/bin:/usr/bin:/bin";
        let subject = Subject { program: Some(program), cwd: Path::new("/"), path, user: &user };
        check(&within, &subject, mounts).err().map(|error| StartFailure::from(error).kind)
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
        if !others_are_registered() {
            assert_eq!(kind("/bin/garbage", "0:0", &[]), Some(StartFailureKind::NotExecutable));
            assert_eq!(kind("garbage", "0:0", &[]), Some(StartFailureKind::NotExecutable));
        }
        assert_eq!(kind("/bin/private", "0:0", &[]), None);
        assert_eq!(kind("/bin/private", "1000:1000", &[]), Some(StartFailureKind::NotExecutable));
    }

    #[test]
    fn what_a_mount_will_bring_is_not_judged() {
        let mount = PathBuf::from("/mnt");
        assert_eq!(kind("/mnt/tool", "0:0", std::slice::from_ref(&mount)), None);
        assert_eq!(kind("mounted", "0:0", std::slice::from_ref(&mount)), None);
        assert_eq!(kind("/bin/plain", "0:0", &[mount]), Some(StartFailureKind::NotExecutable));
    }
}
