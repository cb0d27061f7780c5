//! The mounts of this process's mount namespace, as `/proc/self/mountinfo` lists them; see proc(5).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number in the mount namespace.
    pub id: u32,
    /// The number of the mount that it is on.
    pub parent: u32,
    /// The directory of its file system that is mounted: `/` unless it is a bind mount.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The kernel's name of its kind.
    pub kind: String,
    /// What it is called in place of a device.
    pub source: PathBuf,
    /// Its device, as stat(2) has it.
    pub device: u64,
    /// Options of the file system itself, such as the controllers of a cgroup hierarchy.
    pub super_options: String,
}

/// All mounts, in the order in which they were made.
///
/// # Errors
/// When the list cannot be read.
pub fn mounts() -> io::Result<Vec<Mount>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse_mount).collect())
}

/// The mount points at or below `dir`, the latest first.
///
/// # Errors
/// When the list cannot be read.
pub fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let points = mounts()?.into_iter().map(|mount| mount.point);
    let mut below: Vec<_> = points.filter(|point| point.starts_with(dir)).collect();
    below.reverse();
    Ok(below)
}

/// Whether a path leads to this mount. It does not if another one was mounted over it.
pub fn is_visible(mount: &Mount, all: &[Mount]) -> bool {
    // What covers the mount that one is on covers it too, unless that mount is covered by this one itself.
    let (mut current, mut steps) = (mount, 0);
    let mut covered_by = 0;
    while steps <= all.len() {
        if is_covered(current, covered_by, all) {
            return false;
        }
        let Some(on) = all.iter().find(|other| other.id == current.parent && other.id != current.id) else {
            break;
        };
        covered_by = if current.point == on.point { current.id } else { 0 };
        (current, steps) = (on, steps + 1);
    }
    true
}

/// Whether a mount other than `except` covers this one: it is on this one, at the same point, or it is on the same mount and
/// at a directory above this one. An earlier mount above this one would be the one that this one is on.
fn is_covered(mount: &Mount, except: u32, all: &[Mount]) -> bool {
    let may_cover = |other: &&Mount| ![mount.id, mount.parent, except].contains(&other.id);
    all.iter().filter(may_cover).any(|other| {
        let over_it = other.parent == mount.id && other.point == mount.point;
        let above_it = other.parent == mount.parent && mount.point.starts_with(&other.point);
        over_it || above_it
    })
}

/// Parses a line: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
pub fn parse_mount(line: &[u8]) -> Option<Mount> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || text(fields.next()?).parse().ok();
    let (id, parent) = (number()?, number()?);
    let device = text(fields.next()?);
    let (major, minor) = device.split_once(':')?;
    let mut path = || fields.next().map(|field| PathBuf::from(OsString::from_vec(unescaped(field))));
    let (root, point) = (path()?, path()?);
    let mut of_file_system = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = text(of_file_system.next()?);
    let source = OsString::from_vec(unescaped(of_file_system.next()?)).into();
    let super_options = text(of_file_system.next()?);
    let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    Some(Mount { id, parent, root, point, kind, source, device, super_options })
}

/// The kernel writes a space, a tab, a newline and a backslash as `\` and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_escapes() {
        let line = br"36 35 98:1 /mnt1 /mnt\0402\134x rw,noatime master:1 - cgroup cgroup rw,cpu,cpuacct";
        let device = rustix::fs::makedev(98, 1);
        let (kind, super_options) = ("cgroup".to_owned(), "rw,cpu,cpuacct".to_owned());
        let (root, point) = ("/mnt1".into(), r"/mnt 2\x".into());
        let source = "cgroup".into();
        let mount = Mount { id: 36, parent: 35, root, point, kind, source, device, super_options };
        assert_eq!(parse_mount(line), Some(mount));
        assert_eq!(parse_mount(b""), None);
        assert!(mounts().unwrap().iter().any(|mount| mount.point == Path::new("/proc")));
    }

    #[test]
    fn what_was_mounted_over_is_not_seen() {
        let mount = |id, parent, point: &str| Mount {
            id,
            parent,
            root: "/".into(),
            point: point.into(),
            kind: String::new(),
            source: PathBuf::new(),
            device: 0,
            super_options: String::new(),
        };
        let seen = |all: &[Mount]| -> Vec<u32> {
            all.iter().filter(|mount| is_visible(mount, all)).map(|mount| mount.id).collect()
        };
        let (root, x, below) = (mount(1, 1, "/"), mount(2, 1, "/x"), mount(3, 2, "/x/y"));
        assert_eq!(seen(&[root.clone(), x.clone(), below.clone()]), [1, 2, 3]);
        // A second one at the same place, and what is below the first one.
        assert_eq!(seen(&[root.clone(), x.clone(), below.clone(), mount(4, 2, "/x")]), [1, 4]);
        // One above it, mounted later.
        assert_eq!(seen(&[root.clone(), mount(2, 1, "/a/b"), mount(3, 1, "/a")]), [1, 3]);
        // The one that covers may have something below it.
        assert_eq!(seen(&[root, x, mount(4, 2, "/x"), mount(5, 4, "/x/y")]), [1, 4, 5]);
    }
}
