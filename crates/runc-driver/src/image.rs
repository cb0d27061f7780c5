//! A sealed copy of the runtime's program in memory, which makes starts faster.
//!
//! runc and crun protect their program from containers. Before they enter a container, they check that they
//! were executed from a file that cannot be written. If not, they make a copy or a mount, and execute
//! themselves again. They accept a sealed file in memory. If that is in huge pages, it is mapped with a few
//! page faults, while a Go program usually takes hundreds. docs/adr/0011 has the measurements.
//!
//! The copy is made after a few calls of the runtime, on a thread that no call waits for. It is made again if
//! the program has changed on disk, which the host checks at each call. If it cannot be made or executed, the
//! program itself is used.
//!
//! All containers share the copy, and a container can get hold of it: a program `#!/proc/self/exe` is the
//! runtime. Its contents are sealed. But root in the container may open it for writing or change its mode, and
//! then it is not executed any more. So another copy is made later, after twice the time of the last one.
#![expect(unsafe_code, reason = "a mapping that is never read, made and removed again")]

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use executor_host::{FileIdentity, Image, ImageFate, RUNTIMES, memory_file};
use rustix::fs::ftruncate;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::lock;

/// How many calls are made before the copy is made, which takes ten milliseconds.
const CALLS: u32 = 4;

const HUGE_PAGE: usize = 2 << 20;

/// How long no copy is made after the first one that could not be executed. The time doubles with each, up to a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// From `asm-generic/mman-common.h`. libc does not have it yet.
const MADV_COLLAPSE: libc::c_int = 25;

/// The largest program that is copied. Every runtime is smaller.
const LARGEST: u64 = 256 << 20;

/// A sealed copy of a program.
#[derive(Debug)]
struct Sealed {
    of: FileIdentity,
    file: OwnedFd,
}

/// The copy of one driver's runtime.
#[derive(Debug)]
pub(crate) struct Images {
    program: PathBuf,
    calls: AtomicU32,
    pause: Mutex<Duration>,
    /// What the last copy was made of, kept open for the same reason as [`hold`].
    source: Mutex<Option<File>>,
    state: Mutex<ImageState>,
}

#[derive(Debug)]
enum ImageState {
    NotYet,
    UnderWay,
    Sealed(Sealed),
    /// The last copy could not be executed.
    NotBefore(Instant),
    /// The program cannot be copied.
    Never,
}

impl Images {
    pub(crate) fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            calls: AtomicU32::new(0),
            pause: Mutex::new(FIRST_PAUSE),
            source: Mutex::default(),
            state: Mutex::new(ImageState::NotYet),
        }
    }

    /// The copy, if it exists by now. The host checks that the program has not changed since.
    pub(crate) fn image(self: &Arc<Self>) -> Option<(Image, OwnedFd)> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let mut state = lock(&self.state);
        match &*state {
            ImageState::Sealed(sealed) => {
                // The child replaces its file descriptors 0 to 2. If no descriptor is left, the program
                // itself is executed.
                let file = fcntl_dupfd_cloexec(&sealed.file, 3).ok()?;
                return Some((Image { fd: 0, of: sealed.of }, file));
            }
            ImageState::NotYet if calls >= CALLS => {}
            ImageState::NotBefore(time) if Instant::now() >= *time => {}
            ImageState::NotYet | ImageState::NotBefore(_) | ImageState::UnderWay | ImageState::Never => {
                return None;
            }
        }
        *state = ImageState::UnderWay;
        drop(state);
        let own = Arc::clone(self);
        let make = move || {
            let made = own.make();
            *lock(&own.state) = made;
        };
        // If no thread can be started, no copy is ever made.
        let _no_thread = thread::Builder::new().name("longshore-image".into()).spawn(make);
        None
    }

    fn make(&self) -> ImageState {
        match Sealed::make(&self.program) {
            Ok((sealed, source)) => {
                *lock(&self.source) = Some(source);
                ImageState::Sealed(sealed)
            }
            Err(error) => {
                let program = self.program.display();
                tracing::debug!(%program, %error, "the runtime is not copied to memory");
                ImageState::Never
            }
        }
    }

    /// Takes note of whether the copy was executed.
    pub(crate) fn note_fate(&self, fate: ImageFate) {
        let mut state = lock(&self.state);
        // Another call may have reported the same before.
        if !matches!(*state, ImageState::Sealed(_)) {
            return;
        }
        match fate {
            ImageFate::None | ImageFate::Executed => {}
            ImageFate::Outdated => *state = ImageState::NotYet,
            ImageFate::Unfit => {
                let mut pause = lock(&self.pause);
                let program = self.program.display();
                tracing::warn!(%program, ?pause, "the runtime's copy in memory cannot be executed any more");
                *state = Instant::now().checked_add(*pause).map_or(ImageState::Never, ImageState::NotBefore);
                *pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }
}

impl Sealed {
    /// Also returns the program's file.
    fn make(program: &Path) -> io::Result<(Self, File)> {
        let unfit = |why| io::Error::new(ErrorKind::Unsupported, why);
        // An unknown program may look for files beside its own.
        let name = program.canonicalize()?;
        if !RUNTIMES.iter().any(|known| name.file_name().is_some_and(|name| name == *known)) {
            return Err(unfit("it is not known whether it can be executed from another place"));
        }
        let mut source = File::open(program)?;
        let meta = source.metadata()?;
        let mut magic = [0; 4];
        if meta.len() > LARGEST || source.read_exact_at(&mut magic, 0).is_err() || magic != *b"\x7fELF" {
            return Err(unfit("it is a script, or larger than any runtime"));
        }
        let mut file = File::from(memory_file::create("longshore-runtime")?);
        // Whole huge pages. The zeros behind the program's end are ignored.
        let length = usize::try_from(meta.len()).map_err(io::Error::other)?.next_multiple_of(HUGE_PAGE);
        ftruncate(&file, u64::try_from(length).map_err(io::Error::other)?)?;
        io::copy(&mut source, &mut file)?;
        if let Err(error) = move_to_huge_pages(&file, length) {
            tracing::debug!(%error, "the runtime is not in huge pages");
        }
        Ok((Self { of: FileIdentity::of(&meta), file: memory_file::seal(&file)? }, source))
    }
}

/// Opens the program on the disk for reading, so that the kernel grants no write lease: containers can reach it by
/// `/proc/self/exe`, and a lease would stop whoever executes it for 45 seconds.
pub(crate) fn hold(program: &Path) -> io::Result<File> {
    // It may be a FIFO, which is nothing to wait for.
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(program)
}

/// Has the kernel move a file in memory to huge pages (Linux 6.1), by `madvise` on a mapping.
fn move_to_huge_pages(file: &File, length: usize) -> io::Result<()> {
    let room = length + HUGE_PAGE;
    // SAFETY: the kernel chooses the address, so nothing is overwritten.
    let reserved = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            room,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    }?;
    let aligned = reserved.map_addr(|address| address.next_multiple_of(HUGE_PAGE));
    // SAFETY: `length` bytes from the next huge page on are inside the reserved range, and there is no reference to it.
    let gathered = unsafe {
        mmap(aligned, length, ProtFlags::READ, MapFlags::SHARED | MapFlags::FIXED, file, 0)
            .map(|mapped| libc::madvise(mapped, length, MADV_COLLAPSE))
    };
    let error = io::Error::last_os_error();
    // SAFETY: the whole range is ours, and is not used any more.
    unsafe { munmap(reserved, room) }?;
    match gathered? {
        0 => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    /// Calls until there is an image, or none can be made.
    fn image_of(images: &Arc<Images>) -> Option<(Image, OwnedFd)> {
        let calls = images.calls.load(Ordering::Relaxed);
        for _ in calls..CALLS {
            assert!(images.image().is_none(), "so soon");
        }
        while matches!(*lock(&images.state), ImageState::UnderWay) {
            thread::yield_now();
        }
        images.image()
    }

    fn program(dir: &Path, name: &str, from: &Path) -> PathBuf {
        let program = dir.join(name);
        fs::copy(from, &program).unwrap();
        program
    }

    fn path(file: &OwnedFd) -> PathBuf {
        format!("/proc/self/fd/{}", file.as_raw_fd()).into()
    }

    #[test]
    fn an_image_is_the_program_until_that_changes() {
        let dir = tempfile::tempdir().unwrap();
        let runc = program(dir.path(), "runc", Path::new("/bin/echo"));
        let images = Arc::new(Images::new(&runc));
        let (image, file) = image_of(&images).expect("an image");
        let said = Command::new(path(&file)).arg("hello").output().unwrap();
        assert_eq!(said.stdout, b"hello\n");
        let written =
            fs::OpenOptions::new().write(true).open(path(&file)).and_then(|mut file| file.write_all(b"x"));
        assert!(written.is_err());
        assert_eq!(image.of, FileIdentity::of(&fs::metadata(&runc).unwrap()));
        images.note_fate(ImageFate::Executed);
        assert!(images.image().is_some());

        fs::remove_file(&runc).unwrap();
        program(dir.path(), "runc", Path::new("/bin/true"));
        images.note_fate(ImageFate::Outdated);
        assert!(images.image().is_none(), "it has changed");
        let (_, changed) = image_of(&images).unwrap();
        assert_eq!(Command::new(path(&changed)).arg("hello").output().unwrap().stdout, b"");
    }

    #[test]
    fn an_image_that_was_spoilt_is_made_again_less_and_less_often() {
        let dir = tempfile::tempdir().unwrap();
        let images = Arc::new(Images::new(&program(dir.path(), "runc", Path::new("/bin/true"))));
        for pause in [1, 2, 4] {
            assert!(image_of(&images).is_some());
            images.note_fate(ImageFate::Unfit);
            // Another call of the same image reports it as well.
            images.note_fate(ImageFate::Unfit);
            assert_eq!(*lock(&images.pause), Duration::from_secs(2 * pause));
            assert!(images.image().is_none(), "so soon");
            let mut state = lock(&images.state);
            let ImageState::NotBefore(time) = &mut *state else { panic!("it is made again") };
            let left = time.saturating_duration_since(Instant::now());
            assert!(left > Duration::ZERO && left <= Duration::from_secs(pause), "{left:?}");
            *time = Instant::now();
            drop(state);
            assert!(images.image().is_none(), "it is under way");
        }
    }

    #[test]
    fn only_known_programs_are_put_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let none = |program: &Path| image_of(&Arc::new(Images::new(program))).is_none();
        assert!(none(&program(dir.path(), "wrapper", Path::new("/bin/echo"))));
        let script = dir.path().join("runc");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(none(&script));
        assert!(none(Path::new("/nowhere/runc")));
    }
}
