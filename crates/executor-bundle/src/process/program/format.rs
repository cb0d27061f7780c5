//! What the kernel makes of a file that it is to execute: a script, a native program, or neither.
//!
//! The rules are those of Linux: fs/binfmt_script.c, fs/binfmt_elf.c.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::rootfs_dir::Found;

/// How many scripts in a row the kernel follows.
pub(super) const MOST_SCRIPTS: u32 = 5;

/// How much of a file the kernel looks at, and with it the longest first line of a script.
const LINE: usize = 256;

/// The sizes of an ELF header and of an entry in its table, of the table at most, and of the loader's name.
const HEADER: usize = 64;
const ENTRY: usize = 56;
const TABLE: usize = 65_536;
const NAME: u64 = 4096;

const PT_INTERP: u32 = 3;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;

/// Machines, by the name that the kernel has for them, and as ELF numbers them.
const MACHINES: [(&str, u16); 5] =
    [("x86_64", 62), ("aarch64", 183), ("riscv64", 243), ("ppc64le", 21), ("s390x", 22)];

/// Names of machines, for the sentence.
const NAMES: [(u16, &str); 11] = [
    (3, "i386"),
    (8, "mips"),
    (20, "ppc"),
    (21, "ppc64"),
    (22, "s390"),
    (40, "arm"),
    (62, "x86_64"),
    (94, "xtensa"),
    (183, "aarch64"),
    (243, "riscv"),
    (258, "loongarch"),
];

/// Where other formats are registered.
const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";

/// The format of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A program of this machine.
    Native,
    /// The same, with a loader.
    Loaded(PathBuf),
    /// A script, with its interpreter.
    Script(PathBuf),
    /// No format of this kernel's own. It may be registered.
    Foreign(String),
    /// It looks like one of the kernel's own, and is none.
    Broken(String),
    /// It cannot be read, or is what this kernel may know or not.
    Unknown,
}

impl Format {
    pub(super) fn of(file: &Found) -> Self {
        let Ok(start) = file.read_at(0, LINE) else { return Self::Unknown };
        if start.starts_with(b"#!") {
            return script(&start);
        }
        if start.starts_with(b"\x7fELF") {
            return elf(&start, |at, length| file.read_at(at, length)).unwrap_or(Self::Unknown);
        }
        Self::Foreign("neither a binary nor a script that begins with #!".to_owned())
    }
}

/// A script's interpreter. The kernel ends its name at a space, a tab or a zero.
fn script(start: &[u8]) -> Format {
    let mut line = start.get(2..).unwrap_or_default();
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let is_end = |byte: &u8| matches!(byte, b' ' | b'\t' | 0);
    let end = line.iter().position(|byte| *byte == b'\n');
    line = line.get(..end.unwrap_or(line.len())).unwrap_or_default();
    let begin = line.iter().position(|byte| !is_blank(byte)).unwrap_or(line.len());
    let words = line.get(begin..).unwrap_or_default();
    let stop = words.iter().position(is_end);
    // A name that goes on behind what the kernel reads is not used. A shorter file ends it.
    if end.is_none() && stop.is_none() && start.len() >= LINE {
        return Format::Broken(format!("the first line has more than {LINE} bytes"));
    }
    let name = words.get(..stop.unwrap_or(words.len())).unwrap_or_default();
    if name.is_empty() {
        return Format::Broken("its first line names no interpreter".to_owned());
    }
    Format::Script(Path::new(OsStr::from_bytes(name)).to_owned())
}

/// A program in ELF. `start` may be shorter than a header: what is missing counts as zeros.
fn elf(start: &[u8], read: impl Fn(u64, usize) -> io::Result<Vec<u8>>) -> io::Result<Format> {
    let mut header = [0; HEADER];
    header.iter_mut().zip(start).for_each(|(into, from)| *into = *from);
    let Some(native) = native() else { return Ok(Format::Unknown) };
    let (is_64, machine) = (header[4] == 2, u16_at(&header, 18));
    if machine != native || !is_64 && start.len() >= HEADER {
        return Ok(if start.len() < HEADER { cut_off() } else { of_machine(machine, native) });
    }
    if ![ET_EXEC, ET_DYN].contains(&u16_at(&header, 16)) {
        return Ok(Format::Broken("it is no program, as object files are".to_owned()));
    }
    let (entry, entries) = (usize::from(u16_at(&header, 54)), usize::from(u16_at(&header, 56)));
    let size = entry * entries;
    if entry != ENTRY || size == 0 || size > TABLE {
        return Ok(Format::Broken("its table of segments is none".to_owned()));
    }
    let table = read(u64_at(&header, 32), size)?;
    if table.len() < size {
        return Ok(cut_off());
    }
    let Some(segment) = table.chunks_exact(ENTRY).find(|entry| u32_at(entry, 0) == PT_INTERP) else {
        return Ok(Format::Native);
    };
    let length = u64_at(segment, 32);
    if !(2..=NAME).contains(&length) {
        return Ok(Format::Broken("the name of its loader is none".to_owned()));
    }
    let name = read(u64_at(segment, 8), usize::try_from(length).unwrap_or_default())?;
    Ok(match name.iter().position(|byte| *byte == 0) {
        Some(end) if name.len() as u64 == length && name.ends_with(&[0]) => {
            Format::Loaded(OsStr::from_bytes(name.get(..end).unwrap_or_default()).into())
        }
        Some(_) | None => cut_off(),
    })
}

fn cut_off() -> Format {
    Format::Broken("it is cut off".to_owned())
}

/// A program of another machine, or with another size of words. A kernel may also execute those of its machine's smaller brothers, and 64-bit ones with 32-bit
/// pointers.
fn of_machine(machine: u16, native: u16) -> Format {
    if machine == native || matches!((native, machine), (62, 3) | (183, 40) | (21, 20)) {
        return Format::Unknown;
    }
    let named = |number| NAMES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name);
    let other = named(machine).map_or_else(|| format!("machine {machine}"), str::to_owned);
    Format::Foreign(format!("it is for {other}, and this machine is {}", named(native).unwrap_or("another")))
}

/// This kernel's machine. `None` if it is none of those that we know.
fn native() -> Option<u16> {
    let name = rustix::system::uname();
    let machine = name.machine().to_str().ok()?;
    MACHINES.iter().find(|(known, _)| *known == machine).map(|(_, number)| *number)
}

/// Whether other formats than the kernel's own are registered.
pub(super) fn has_registered() -> bool {
    let entries = fs::read_dir(REGISTERED).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name != "register" && name != "status")
}

/// Whether it is known that no other formats are registered: the list can be seen, or the kernel has none. In a container the
/// list of the host may be hidden.
pub(super) fn others_are_known() -> bool {
    let list = Path::new(REGISTERED);
    !list.exists() || list.join("status").exists()
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..at + N).and_then(|bytes| bytes.try_into().ok());
    found.unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        /// Whatever is in a file, it has a format.
        #[test]
        fn anything(mut bytes: Vec<u8>, machine in any::<bool>(), rest: Vec<u8>) {
            bytes.resize(bytes.len().max(64), 0);
            bytes[..5].copy_from_slice(b"\x7fELF\x02");
            if let (true, Some(native)) = (machine, super::native()) {
                bytes[16..20].copy_from_slice(&[2_u16.to_ne_bytes(), native.to_ne_bytes()].concat());
                bytes[54..58].copy_from_slice(&[56_u16.to_ne_bytes(), 1_u16.to_ne_bytes()].concat());
            }
            let read = |_, length: usize| Ok(rest.iter().copied().chain([0; 64]).take(length).collect());
            prop_assert!(super::elf(&bytes, read).is_ok());
            super::script(&[b"#!", &rest[..]].concat());
        }
    }
}
