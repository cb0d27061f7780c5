use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use executor_core::lifecycle::{StartFailure, StartFailureKind};
use serde_json::{Value, json};

use super::*;
use crate::ids::Ids;
use crate::process::users;
use crate::rootfs_dir::RootfsDir;

const FOUND: Option<StartFailureKind> = None;
const NOT_FOUND: Option<StartFailureKind> = Some(StartFailureKind::NotFound);
const NOT_EXECUTABLE: Option<StartFailureKind> = Some(StartFailureKind::NotExecutable);

/// A program of this machine, with a loader if it has a name. The table of segments follows the header, then the name.
fn elf(loader: &str) -> Vec<u8> {
    let mut elf = fs::read("/proc/self/exe").unwrap();
    elf.truncate(64);
    let segments = u16::from(!loader.is_empty()) + 1;
    elf[32..40].copy_from_slice(&64_u64.to_ne_bytes());
    elf[54..56].copy_from_slice(&56_u16.to_ne_bytes());
    elf[56..58].copy_from_slice(&segments.to_ne_bytes());
    let mut table = vec![0; 56 * usize::from(segments)];
    table[0] = 1;
    if !loader.is_empty() {
        table[56] = 3;
        table[56 + 8..56 + 16].copy_from_slice(&(64 + 112_u64).to_ne_bytes());
        table[56 + 32..56 + 40].copy_from_slice(&(loader.len() as u64 + 1).to_ne_bytes());
    }
    [elf, table, loader.as_bytes().to_vec(), vec![0]].concat()
}

/// A root file system with a program of each kind.
fn files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8], mode| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("bin/elf", &elf(""), 0o755);
    write("bin/dynamic", &elf("/lib/loader"), 0o755);
    write("lib/loader", &elf(""), 0o755);
    write("bin/unloaded", &elf("/lib/missing"), 0o755);
    write("bin/misloaded", &elf("/usr/bin/script"), 0o755);
    write("bin/cut", &elf("/lib/loader")[..100], 0o755);
    write("bin/magic", b"\x7fELF", 0o755);
    write("bin/object", &[&elf("")[..16], &[1], &elf("")[17..]].concat(), 0o755);
    write("bin/garbage", b"\0\0\0\0", 0o755);
    let mut foreign = elf("");
    foreign[18] ^= 0xff;
    write("bin/foreign", &foreign, 0o755);
    write("usr/bin/script", b"#!/bin/elf -x\n", 0o755);
    write("bin/missing", b"#! /bin/nothing\n", 0o755);
    write("bin/crlf", b"#!/bin/elf\r\necho\r\n", 0o755);
    write("bin/nameless", b"#! \t\n", 0o755);
    write("bin/to-dir", b"#!/bin\n", 0o755);
    write("bin/to-plain", b"#!/bin/plain\n", 0o755);
    write("bin/long", format!("#!/{}\n", "x".repeat(300)).as_bytes(), 0o755);
    write("bin/long-argument", format!("#!/bin/elf {}\n", "x".repeat(300)).as_bytes(), 0o755);
    write("bin/without-an-end", b"#!/bin/elf", 0o755);
    write("bin/s1", b"#!/bin/elf\n", 0o755);
    for (script, of) in [(2, 1), (3, 2), (4, 3), (5, 4), (6, 5)] {
        write(&format!("bin/s{script}"), format!("#!/bin/s{of}\n").as_bytes(), 0o755);
    }
    write("bin/plain", &elf(""), 0o644);
    write("bin/private", &elf(""), 0o700);
    write("sbin/elf2", &elf(""), 0o755);
    fs::set_permissions(dir.path().join("sbin"), fs::Permissions::from_mode(0o750)).unwrap();
    write("volume/tool", &elf(""), 0o755);
    write("volume/plain", &elf(""), 0o644);
    write("first/elf", &elf(""), 0o644);
    write("second/elf/x", b"", 0o644);
    write("third/elf", &elf(""), 0o700);
    write("fourth/elf", b"#!/bin/nothing\n", 0o755);
    symlink("/mnt/tool", dir.path().join("bin/mounted")).unwrap();
    dir
}

struct Case<'a> {
    user: &'a str,
    cwd: &'a str,
    path: &'a str,
    overrides: bool,
    mounts: Value,
}

const DEFAULT: Case<'_> = Case {
    user: "0:0",
    cwd: "/",
    path: "/usr/local/bin:/usr/bin:/bin",
    overrides: true,
    mounts: Value::Null,
};

/// The kind of the failure, or the path that was put in place of the program.
fn judged(program: &str, case: &Case<'_>) -> (Option<StartFailureKind>, Option<PathBuf>) {
    let dir = files();
    let view = RootfsDir::open(dir.path()).unwrap();
    let text = case.mounts.to_string().replace("VOLUME", &dir.path().join("volume").display().to_string());
    let mounts: Value = serde_json::from_str(&text).unwrap();
    let seen = ContainerFiles::of(&view).with_mounts(mounts.as_array().into_iter().flatten()).unwrap();
    let user = users::resolve(&view, Some(case.user), &Ids::new(None)).unwrap();
    let rights = Rights { overrides: case.overrides, searches: false };
    let (cwd, path) = (Path::new(case.cwd), case.path);
    match check(&seen, &Subject { program, cwd, path, user: &user, rights }) {
        Ok(found) => (None, found),
        Err(error) => (Some(StartFailure::from(error).kind), None),
    }
}

fn kind(program: &str, case: &Case<'_>) -> Option<StartFailureKind> {
    judged(program, case).0
}

#[test]
fn programs_by_path_and_name() {
    for (program, expected) in [
        ("elf", FOUND),
        ("/bin/elf", FOUND),
        ("bin/elf", FOUND),
        ("../bin/elf", FOUND),
        ("script", FOUND),
        ("dynamic", FOUND),
        ("nope", NOT_FOUND),
        ("/nope", NOT_FOUND),
        ("/bin/elf/x", NOT_FOUND),
        ("/bin", NOT_EXECUTABLE),
        ("/bin/plain", NOT_EXECUTABLE),
        ("plain", NOT_EXECUTABLE),
        ("/bin/private", FOUND),
    ] {
        assert_eq!(kind(program, &DEFAULT), expected, "{program}");
    }
}

#[test]
fn interpreters_loaders_and_lengths() {
    if format::has_registered() {
        return;
    }
    let foreign = if format::others_are_known() { NOT_EXECUTABLE } else { FOUND };
    for (program, expected) in [
        ("unloaded", NOT_FOUND),
        ("misloaded", NOT_EXECUTABLE),
        ("cut", NOT_EXECUTABLE),
        ("magic", NOT_EXECUTABLE),
        ("object", NOT_EXECUTABLE),
        ("garbage", foreign),
        ("foreign", foreign),
        ("missing", NOT_FOUND),
        ("crlf", NOT_FOUND),
        ("nameless", NOT_EXECUTABLE),
        ("to-dir", NOT_EXECUTABLE),
        ("to-plain", NOT_EXECUTABLE),
        ("long", NOT_EXECUTABLE),
        ("long-argument", FOUND),
        ("without-an-end", FOUND),
        ("s5", FOUND),
        ("s6", NOT_EXECUTABLE),
    ] {
        assert_eq!(kind(&format!("/bin/{program}"), &DEFAULT), expected, "{program}");
    }
}

#[test]
fn the_users_rights_decide() {
    let ann = Case { user: "1000:1000", overrides: false, ..DEFAULT };
    for (program, expected) in
        [("/bin/private", NOT_EXECUTABLE), ("/sbin/elf2", NOT_EXECUTABLE), ("/bin/elf", FOUND)]
    {
        assert_eq!(kind(program, &ann), expected, "{program}");
        assert_eq!(kind(program, &Case { user: "0:0", overrides: false, ..DEFAULT }), FOUND, "{program}");
        assert_eq!(kind(program, &Case { user: "1000:0", overrides: true, ..DEFAULT }), FOUND, "{program}");
    }
    // The group of the directory may search it.
    assert_eq!(kind("/sbin/elf2", &Case { user: "1000:0", ..ann }), FOUND);
}

#[test]
fn path_is_read_as_execvp_reads_it() {
    let ann = |path| Case { user: "1000:1000", overrides: false, path, ..DEFAULT };
    let bin = Some(PathBuf::from("/bin/elf"));
    for (path, expected) in [
        ("/first:/bin", (FOUND, None)),
        ("/second:/bin", (FOUND, None)),
        ("/nowhere:/bin", (FOUND, None)),
        // The runtime would try those.
        ("/third:/bin", (FOUND, bin.clone())),
        ("/fourth:/bin", (FOUND, bin.clone())),
        ("/first", (NOT_EXECUTABLE, None)),
        ("/first:/nowhere", (NOT_EXECUTABLE, None)),
        ("/nowhere:/second", (NOT_EXECUTABLE, None)),
        ("/fourth", (NOT_FOUND, None)),
        ("/nowhere", (NOT_FOUND, None)),
        ("", (NOT_FOUND, None)),
    ] {
        assert_eq!(judged("elf", &ann(path)), expected, "{path}");
    }
    // An empty element is the working directory, and so is what a relative one begins at.
    for (cwd, path) in
        [("/bin", ""), ("/bin", "/nowhere:"), ("/", "bin"), ("/bin", ":/usr/bin"), ("/bin", ".")]
    {
        let case = Case { cwd, ..ann(path) };
        let (failed, found) = judged("elf", &case);
        assert_eq!(failed, FOUND, "{path}");
        let real = found.unwrap().components().collect::<PathBuf>();
        assert_eq!(real, Path::new("/bin/elf"), "{path}");
    }
}

#[test]
fn programs_are_seen_where_mounts_show_them() {
    let with = |mounts| Case { mounts, ..DEFAULT };
    let bind =
        |options| json!([{"destination": "/mnt", "type": "bind", "source": "VOLUME", "options": options}]);
    let other = |kind| json!([{"destination": "/bin", "type": kind, "source": kind}]);
    for (program, mounts, expected) in [
        ("/mnt/tool", bind(json!(["rbind"])), FOUND),
        ("mounted", bind(json!(["rbind"])), FOUND),
        ("/mnt/nope", bind(json!(["rbind"])), NOT_FOUND),
        ("/mnt/plain", bind(json!(["rbind"])), NOT_EXECUTABLE),
        ("/mnt/tool", bind(json!(["rbind", "noexec"])), NOT_EXECUTABLE),
        ("/mnt/tool", bind(json!(["rbind", "noexec", "exec"])), FOUND),
        ("/mnt/nope", bind(json!(["rbind", "idmap"])), FOUND),
        ("/bin/elf", other("tmpfs"), NOT_FOUND),
        ("/bin/nope", other("nfs"), FOUND),
        ("/proc/self/exe", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]), FOUND),
        (
            "/bin/deep/tool",
            json!([
                {"destination": "/bin", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/bin/deep", "type": "bind", "source": "VOLUME", "options": ["bind"]},
            ]),
            FOUND,
        ),
        (
            "/a/b/tool",
            json!([{"destination": "/a/b/tool", "type": "bind", "source": "VOLUME/tool", "options": ["bind"]}]),
            FOUND,
        ),
    ] {
        assert_eq!(kind(program, &with(mounts.clone())), expected, "{program} {mounts}");
    }
}
