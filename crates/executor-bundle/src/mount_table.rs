//! The mounts of this process's mount namespace, as `/proc/self/mountinfo` lists them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

const TABLE: &str = "/proc/self/mountinfo";

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// The kernel's name of its kind.
    pub(crate) kind: String,
    /// Its device, as stat(2) has it.
    pub(crate) device: u64,
}

/// All mounts, in the order in which they were made.
pub(crate) fn read() -> Result<Vec<Mounted>, Error> {
    let table = fs::read(TABLE).map_err(Error::io("read", Path::new(TABLE)))?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// Parses one line: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let point = unescaped(fields.nth(1)?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mounted {
        point: OsString::from_vec(point).into(),
        kind: String::from_utf8_lossy(kind).into_owned(),
        device: rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?),
    })
}

/// A space, a tab, a newline and a backslash are written as `\040` and the like.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).filter(|_| *first == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { more.get(3..).unwrap_or_default() } else { more };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_escapes() {
        let line =
            br"36 35 98:1 /mnt1 /mnt\0402\134x rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let device = rustix::fs::makedev(98, 1);
        assert_eq!(parse(line), Some(Mounted { point: r"/mnt 2\x".into(), kind: "ext3".into(), device }));
        assert_eq!(parse(b""), None);
        assert!(read().unwrap().iter().any(|mounted| mounted.point == Path::new("/proc")));
    }
}
