//! The runtime's program in memory: what a runtime does with itself at every start, done once.
//!
//! runc and crun do not let a container get at their program. Before they enter one they see to it that they are
//! executed from something that cannot be written, and where they are not, they make a copy or a mount and execute
//! themselves again. A sealed file in memory, they say themselves, will do. From huge pages it is also mapped with
//! a handful of page faults, where a Go program has hundreds. docs/adr/0011 has the measurements.
//!
//! The file is made once the runtime has been called a few times, on a thread that is nobody's critical path, and
//! again when the program has changed on disk. Where it cannot be made or executed the program is.
#![expect(unsafe_code, reason = "a mapping that nobody reads, made and taken away again")]

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::thread;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::{CANDIDATES, lock};

/// Calls of the runtime before it is worth the ten milliseconds.
const CALLS: u32 = 4;

const HUGE_PAGE: usize = 2 << 20;

/// As `asm-generic/mman-common.h` has it; no library has yet.
const MADV_COLLAPSE: libc::c_int = 25;

/// More than any runtime has.
const LARGEST: u64 = 256 << 20;

/// The images in this process: executors share them.
static IMAGES: Mutex<Vec<Weak<Image>>> = Mutex::new(Vec::new());

/// A program, sealed.
pub(super) struct Image {
    of: Identity,
    file: OwnedFd,
}

/// Which program, as it is now.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

/// The image of one executor's runtime.
#[derive(Default)]
pub(super) struct Images {
    calls: u32,
    made: Arc<Mutex<Made>>,
}

#[derive(Default)]
enum Made {
    #[default]
    NotYet,
    UnderWay,
    Image(Arc<Image>),
    /// This program is no good for it.
    Never(Identity),
}

impl Images {
    /// What to execute in place of `program`, when there is such by now.
    pub(super) fn of(&mut self, program: &Path) -> Option<Arc<Image>> {
        self.calls = self.calls.saturating_add(1);
        let now = Identity::of(&fs::metadata(program).ok()?);
        let mut made = lock(&self.made);
        match &*made {
            Made::Image(image) if image.of == now => return Some(Arc::clone(image)),
            Made::Never(program) if *program == now => return None,
            Made::UnderWay => return None,
            Made::NotYet if self.calls < CALLS => return None,
            Made::NotYet | Made::Image(_) | Made::Never(_) => {}
        }
        *made = Made::UnderWay;
        drop(made);
        let (program, made) = (program.to_owned(), Arc::clone(&self.made));
        let make = move || {
            let image = Image::shared(&program, now);
            *lock(&made) = image.map_or_else(
                |error| {
                    tracing::debug!(program = %program.display(), %error, "it is executed as it is");
                    Made::Never(now)
                },
                Made::Image,
            );
        };
        // Without a thread nothing is made, ever: the machine has other worries.
        let _no_thread = thread::Builder::new().name("longshore-image".into()).spawn(make);
        None
    }

    /// It could not be executed.
    pub(super) fn is_no_good(&self, image: &Image) {
        *lock(&self.made) = Made::Never(image.of);
    }
}

impl Image {
    /// One that another executor has made, or a new one.
    fn shared(program: &Path, identity: Identity) -> io::Result<Arc<Self>> {
        let mut images = lock(&IMAGES);
        images.retain(|image| image.strong_count() > 0);
        if let Some(image) = images.iter().filter_map(Weak::upgrade).find(|image| image.of == identity) {
            return Ok(image);
        }
        let image = Arc::new(Self::make(program)?);
        images.push(Arc::downgrade(&image));
        Ok(image)
    }

    fn make(program: &Path) -> io::Result<Self> {
        let unfit = |why| io::Error::new(ErrorKind::Unsupported, why);
        // Others may look for what they need beside their own file.
        let name = program.canonicalize()?;
        if !CANDIDATES.iter().any(|known| name.file_name().is_some_and(|name| name == *known)) {
            return Err(unfit("nobody knows whether it can be executed from elsewhere"));
        }
        let mut source = File::open(program)?;
        let meta = source.metadata()?;
        let mut magic = [0; 4];
        if meta.len() > LARGEST || source.read_exact_at(&mut magic, 0).is_err() || magic != *b"\x7fELF" {
            return Err(unfit("it is a script, or larger than any runtime"));
        }
        let mut file = File::from(sealable()?);
        // Huge pages only: zeros behind a program's end are not looked at.
        let length = usize::try_from(meta.len()).map_err(io::Error::other)?.next_multiple_of(HUGE_PAGE);
        ftruncate(&file, u64::try_from(length).map_err(io::Error::other)?)?;
        io::copy(&mut source, &mut file)?;
        if let Err(error) = gather(&file, length) {
            tracing::debug!(%error, "the runtime is not in huge pages");
        }
        // Those that runc asks for, exactly.
        fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        Ok(Self { of: Identity::of(&meta), file: file.into() })
    }

    /// Its path, for a child of this process.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

impl Identity {
    fn of(meta: &Metadata) -> Self {
        let (file, changed) = ((meta.dev(), meta.ino()), (meta.ctime(), meta.ctime_nsec()));
        Self { file, size: meta.size(), changed }
    }
}

/// A kernel before 6.3 knows no `MFD_EXEC`, one after it may insist on it.
fn sealable() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = match memfd_create("longshore-runtime", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create("longshore-runtime", flags)?,
        made => made?,
    };
    // In a child, 0 to 2 are others.
    Ok(fcntl_dupfd_cloexec(made, 3)?)
}

/// Has the kernel move a file in memory to huge pages (Linux 6.1). It is asked by way of a mapping.
fn gather(file: &File, length: usize) -> io::Result<()> {
    let room = length + HUGE_PAGE;
    // SAFETY: at an address that the kernel chooses; there is nothing to be overwritten.
    let reserved = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            room,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    }?;
    let aligned = reserved.map_addr(|address| address.next_multiple_of(HUGE_PAGE));
    // SAFETY: `length` bytes from the next huge page on lie in what was just reserved, and nobody has a reference to it.
    let gathered = unsafe {
        mmap(aligned, length, ProtFlags::READ, MapFlags::SHARED | MapFlags::FIXED, file, 0)
            .map(|mapped| libc::madvise(mapped, length, MADV_COLLAPSE))
    };
    let error = io::Error::last_os_error();
    // SAFETY: ours as a whole, and not used any more.
    unsafe { munmap(reserved, room) }?;
    match gathered? {
        0 => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    /// Calls until there is an image, or none is to be had.
    fn image_of(images: &mut Images, program: &Path) -> Option<Arc<Image>> {
        for _ in 0..CALLS {
            assert!(images.of(program).is_none(), "so soon");
        }
        while matches!(*lock(&images.made), Made::UnderWay) {
            thread::yield_now();
        }
        images.of(program)
    }

    fn program(dir: &Path, name: &str, from: &Path) -> PathBuf {
        let program = dir.join(name);
        fs::copy(from, &program).unwrap();
        program
    }

    #[test]
    fn an_image_is_the_program_until_that_changes() {
        let dir = tempfile::tempdir().unwrap();
        let runc = program(dir.path(), "runc", Path::new("/bin/echo"));
        let (mut one, mut other) = (Images::default(), Images::default());
        let image = image_of(&mut one, &runc).expect("an image");
        let said = Command::new(image.path()).arg("hello").output().unwrap();
        assert_eq!(said.stdout, b"hello\n");
        assert!(
            fs::OpenOptions::new()
                .write(true)
                .open(image.path())
                .and_then(|mut file| file.write(b"x"))
                .is_err()
        );
        assert!(Arc::ptr_eq(&image, &image_of(&mut other, &runc).unwrap()), "it is shared");

        fs::remove_file(&runc).unwrap();
        program(dir.path(), "runc", Path::new("/bin/true"));
        assert!(one.of(&runc).is_none(), "it has changed");
        let changed = loop {
            if let Some(image) = one.of(&runc) {
                break image;
            }
        };
        assert_eq!(Command::new(changed.path()).arg("hello").output().unwrap().stdout, b"");
        one.is_no_good(&changed);
        assert!(one.of(&runc).is_none());
    }

    #[test]
    fn only_known_programs_are_put_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let wrapper = program(dir.path(), "wrapper", Path::new("/bin/echo"));
        assert!(image_of(&mut Images::default(), &wrapper).is_none());
        let script = dir.path().join("runc");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(image_of(&mut Images::default(), &script).is_none());
        assert!(Images::default().of(Path::new("/nowhere/runc")).is_none());
    }
}
