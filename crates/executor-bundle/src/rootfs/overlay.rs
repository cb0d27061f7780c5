//! Overlays.
//!
//! mount(2) takes the paths of all layers in one page, and ignores what is beyond it: an overlay would be without its lowest
//! layers. So each layer is given by itself, which the kernel can since Linux 6.7. A path that is too long for that, or has a
//! character with a meaning, is given by its descriptor. Earlier kernels get all in one value, by their descriptors, if they are few; or
//! one text, with descriptors if it is long; and if it is too long even then, that is an error.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use executor_core::UpperLayer;
use executor_disk::Dir;
use executor_disk::faults::{Op, change};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, mount,
};

use crate::error::Error;
use crate::mount_entry::{attach, by_descriptor};

/// The longest text of options that mount(2) reads.
const PAGE: usize = 4095;

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
        mounted.map_err(Error::io::<io::Error>("mount an overlay at", &dir.path_of(point)))
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
        let (mut text, mut opened) = (self.options(), Vec::new());
        if text.len() > PAGE {
            text = self.short_options(&mut opened)?;
        }
        if text.len() > PAGE {
            let why =
                format!("{} layers are more than this kernel takes (Linux 6.7 takes 500)", self.lower.len());
            return Err(io::Error::other(why));
        }
        change(Op::Mount, dir.path(), point)?;
        Ok(mount("longshore", dir.by_descriptor(point), "overlay", flags, CString::new(text)?.as_c_str())?)
    }

    /// The options with the layers by their descriptors, which are added to `opened`.
    fn short_options(&self, opened: &mut Vec<OwnedFd>) -> rustix::io::Result<String> {
        let mut open = |layer: &Path| Ok(opened_layer(layer, opened)?.display().to_string());
        let lower = self.lower.iter().map(|layer| open(layer)).collect::<rustix::io::Result<Vec<_>>>()?;
        Ok(options(&lower, &open(&self.upper.dir)?, &open(&self.upper.work)?))
    }
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

    #[test]
    fn paths_do_not_end_options() {
        assert_eq!(split_options(r"a,lowerdir=/x\,y:/z,b"), ["a", r"lowerdir=/x\,y:/z", "b"]);
        assert_eq!(escaped(Path::new(r"/a,b:c\d")), r"/a\,b\:c\\d");
    }
}
