//! Overlays.
//!
//! mount(2) takes the paths of all layers in one page, and ignores what is beyond it: an overlay would be without its lowest
//! layers. So each layer is given by itself, which the kernel can since Linux 6.7. A path that is too long for that, or has a
//! character with a meaning, is given by its descriptor. Earlier kernels get all in one value, by their descriptors, if they are few; or
//! one text, with the numbers of descriptors if it is long; and if it is too long even then, that is an error.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use executor_core::UpperLayer;
use executor_disk::Dir;
use executor_disk::faults::{Op, change};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, mount,
};
use rustix::process::chdir;

use crate::error::Error;
use crate::mount_entry::{attach, by_descriptor};

/// The longest text of options that mount(2) reads.
const PAGE: usize = 4095;

/// How many lower layers the kernel takes.
const MOST_LAYERS: usize = 500;

/// The longest value that fsconfig(2) takes.
const VALUE: usize = 255;

/// The layers of an overlay, the uppermost lower one first.
pub(super) struct Layers<'a> {
    pub(super) lower: &'a [&'a Path],
    pub(super) upper: &'a UpperLayer,
}

impl Layers<'_> {
    /// The options of mount(2), with the layers by their paths.
    pub(super) fn options(&self) -> String {
        let lower: Vec<_> = self.lower.iter().map(|layer| escaped(layer)).collect();
        options(&lower, &escaped(&self.upper.dir), &escaped(&self.upper.work))
    }

    /// Mounts the overlay at `point` in `dir`.
    pub(super) fn mount_at(&self, dir: &Dir, point: &str, flags: MountFlags) -> Result<(), Error> {
        let mounted = match self.assemble(flags) {
            // This kernel has no such calls, or does not know single layers; or it may say more to the other call.
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => self.mount_by_text(dir, point, flags),
            Err(error) => Err(error.into()),
            Ok(mounted) => attach(&mounted, dir, point).map_err(io::Error::from),
        };
        if mounted.is_err() && self.lower.len() > MOST_LAYERS {
            let why =
                format!("{} layers are more than the {MOST_LAYERS} that the kernel takes", self.lower.len());
            return Err(Error::field("layer", why));
        }
        mounted.map_err(|error| match self.overlapping().filter(|_| is_loop(&error)) {
            Some(why) => Error::field("layer", why),
            None => Error::io::<io::Error>("mount an overlay at", &dir.path_of(point))(error),
        })
    }

    /// Two layers of which one is the other, or below it. The kernel takes no such overlay.
    fn overlapping(&self) -> Option<String> {
        let upper = [self.upper.dir.as_path(), self.upper.work.as_path()];
        let (above, below) = self.lower.iter().enumerate().find_map(|(number, above)| {
            let others = self.lower.iter().enumerate().filter(|(other, _)| *other != number);
            let mut others = others.map(|(_, below)| *below).chain(upper);
            Some((*above, others.find(|below| below.starts_with(above))?))
        })?;
        Some(match above == below {
            true => format!("{} is given twice", above.display()),
            false => format!("{} is below {}, which is a layer, too", below.display(), above.display()),
        })
    }

    /// Makes the overlay without mounting it.
    pub(super) fn assemble(&self, flags: MountFlags) -> rustix::io::Result<OwnedFd> {
        // They are open until the overlay is made.
        let mut opened = Vec::new();
        let lower = self.lower.iter().map(|layer| Ok(("lowerdir+", value(layer, &mut opened)?)));
        let lower = lower.collect::<rustix::io::Result<Vec<_>>>()?;
        match self.assemble_of(lower, flags) {
            // This kernel does not know single layers. A few fit into one value.
            Err(Errno::INVAL) => {
                let mut open = |layer: &&Path| Ok(opened_layer(layer, &mut opened)?.display().to_string());
                let all = self.lower.iter().map(&mut open).collect::<rustix::io::Result<Vec<_>>>()?.join(":");
                if all.len() > VALUE {
                    return Err(Errno::INVAL);
                }
                self.assemble_of(vec![("lowerdir", all.into())], flags)
            }
            made => made,
        }
    }

    fn assemble_of(&self, lower: Vec<(&str, PathBuf)>, flags: MountFlags) -> rustix::io::Result<OwnedFd> {
        let file_system = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&file_system, "source", "longshore")?;
        let mut opened = Vec::new();
        let upper = value(&self.upper.dir, &mut opened)?;
        let work = value(&self.upper.work, &mut opened)?;
        for (key, value) in lower.into_iter().chain([("upperdir", upper), ("workdir", work)]) {
            fsconfig_set_string(&file_system, key, value)?;
        }
        fsconfig_create(&file_system)?;
        fsmount(&file_system, FsMountFlags::FSMOUNT_CLOEXEC, attributes(flags))
    }

    fn mount_by_text(&self, dir: &Dir, point: &str, flags: MountFlags) -> io::Result<()> {
        change(Op::Mount, dir.path(), point)?;
        let at = dir.by_descriptor(point);
        let mount =
            |text: String| Ok(mount("longshore", &at, "overlay", flags, CString::new(text)?.as_c_str())?);
        let text = self.options();
        if text.len() <= PAGE {
            return mount(text);
        }
        let mut opened = Vec::new();
        let text = self.short_options(&mut opened)?;
        if text.len() > PAGE {
            let why = format!(
                "{} layers are more than this kernel takes (Linux 6.7 takes {MOST_LAYERS})",
                self.lower.len()
            );
            return Err(io::Error::other(why));
        }
        in_dir_of_descriptors(|| mount(text))
    }

    /// The options with the layers by the numbers of their descriptors, which are added to `opened`.
    fn short_options(&self, opened: &mut Vec<OwnedFd>) -> rustix::io::Result<String> {
        let mut open = |layer: &Path| {
            opened_layer(layer, opened)?;
            Ok(opened.last().map_or_else(String::new, |layer| layer.as_raw_fd().to_string()))
        };
        let lower = self.lower.iter().map(|layer| open(layer)).collect::<rustix::io::Result<Vec<_>>>()?;
        Ok(options(&lower, &open(&self.upper.dir)?, &open(&self.upper.work)?))
    }
}

fn is_loop(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// Calls `work` where the numbers of descriptors are paths to what is open: in a thread with a working directory of its own.
fn in_dir_of_descriptors<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_FS)?;
            chdir("/proc/thread-self/fd")?;
            work()
        })?;
        worker.join().unwrap_or_else(|_| Err(io::Error::other("the thread that mounts an overlay panicked")))
    })
}

/// What withholds something of the files, as fsmount(2) has it.
fn attributes(flags: MountFlags) -> MountAttrFlags {
    let all = [
        (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (MountFlags::NOSYMFOLLOW, MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
    ];
    all.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, attribute)| attribute).collect()
}

fn options(lower: &[String], upper: &str, work: &str) -> String {
    format!("lowerdir={},upperdir={upper},workdir={work}", lower.join(":"))
}

/// The path of a layer as fsconfig(2) takes it. If it is opened for that, its descriptor is added to `opened`.
fn value(layer: &Path, opened: &mut Vec<OwnedFd>) -> rustix::io::Result<PathBuf> {
    let bytes = layer.as_os_str().as_bytes();
    let is_plain = bytes.len() <= VALUE && !bytes.iter().any(|byte| br"\,:".contains(byte));
    if is_plain { Ok(layer.to_owned()) } else { opened_layer(layer, opened) }
}

/// Opens a layer. Returns a short path that leads to it.
fn opened_layer(layer: &Path, opened: &mut Vec<OwnedFd>) -> rustix::io::Result<PathBuf> {
    let layer = rustix::fs::open(layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = by_descriptor(&layer);
    opened.push(layer);
    Ok(path)
}

/// Escapes a path in overlay options, where a comma ends an option and a colon ends a path.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        if matches!(character, '\\' | ',' | ':') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

/// Splits mount options at their commas. The commas of a path are escaped.
pub(super) fn split_options(options: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, character) in options.char_indices() {
        if character == ',' && !escaped {
            all.extend(options.get(start..index));
            start = index + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    all.extend(options.get(start..));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a kernel that does not know single layers.
    #[test]
    fn many_layers_in_one_text() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open_checked(temporary.path()).unwrap();
        let layer = |name: &str| {
            let layer = temporary.path().join(format!("a,b:c\\{}", name.repeat(20)));
            std::fs::create_dir(&layer).unwrap();
            layer
        };
        let lower: Vec<_> = (0..300).map(|number| layer(&format!("{number:03}"))).collect();
        std::fs::write(lower.last().unwrap().join("of-the-lowest"), "").unwrap();
        let upper = UpperLayer { dir: layer("upper"), work: layer("work") };
        std::fs::create_dir(temporary.path().join("point")).unwrap();
        let lower: Vec<_> = lower.iter().map(PathBuf::as_path).collect();
        let layers = Layers { lower: &lower, upper: &upper };
        layers.mount_by_text(&dir, "point", MountFlags::NODEV).unwrap();
        let is_there = temporary.path().join("point/of-the-lowest").exists();
        rustix::mount::unmount(dir.path_of("point"), rustix::mount::UnmountFlags::DETACH).unwrap();
        assert!(is_there);
        let few = Layers { lower: &lower[290..], upper: &upper };
        drop(few.assemble(MountFlags::NODEV).unwrap());
    }

    #[test]
    fn paths_do_not_end_options() {
        assert_eq!(split_options(r"a,lowerdir=/x\,y:/z,b"), ["a", r"lowerdir=/x\,y:/z", "b"]);
        assert_eq!(escaped(Path::new(r"/a,b:c\d")), r"/a\,b\:c\\d");
    }
}
