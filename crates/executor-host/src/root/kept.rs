//! An executor that is kept: its name, and what of it outlives its process.
//!
//! ```text
//! <root>/kept/<name>/executor   which executor of the root has the name; its file is marked, so that no sweep takes it for dead
//!                  ├ owner      the process that has it open, for messages
//!                  ├ ledger     what it has published, for its successor
//!                  └ keeper     the socket of the process that is the parent of its containers
//! ```
//! The lock on the executor's file says whether the name is in use. The directory stays when the executor has shut down: the
//! numbers of its events go on.

use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use executor_core::lifecycle::Leftover;
use executor_core::{Ledger, Swept, check_free_descriptors};
use executor_disk::Dir;
use rustix::fs::{FlockOperation, flock, ftruncate};
use rustix::io::Errno;
use uuid::Uuid;

use super::sweep::{parse_mark, parse_record, remove_logs, remove_unfinished, reservations_of};
use super::{
    DESCRIPTORS, KEPT, RECORD_LIMIT, Reservation, Root, RootDirs, is_executor, lock_root, register,
    short_uuid, sweep,
};
use crate::cgroup::place;
use crate::{Bundles, Error, Result, cgroup, lock};

const EXECUTOR: &str = "executor";
const OWNER: &str = "owner";
const LEDGER: &str = "ledger";

/// The first field of the line in an executor's file that has its name.
const KEPT_RECORD: &str = "kept";

/// The most bytes of a ledger that are read.
const LEDGER_LIMIT: u64 = 1 << 30;

/// The longest name.
const NAME_LENGTH: usize = 64;

/// Whether an executor's file says that the executor is kept.
pub(super) fn is_kept(text: &str) -> bool {
    text.lines().any(|line| line.split('\t').next() == Some(KEPT_RECORD))
}

impl Root {
    /// Does as [`open`](Self::open) for the executor of this name. If there was one, it is entered as that one, with what it has
    /// left.
    ///
    /// # Errors
    /// As for [`open`](Self::open). [`Error::NameInUse`] if another process has it, [`Error::NoName`] if it is no name.
    pub fn open_kept(dir: &Path, name: &str, bundles: &dyn Bundles) -> Result<(Self, Vec<Swept>)> {
        if !is_name(name) {
            return Err(Error::NoName { name: name.to_owned() });
        }
        check_free_descriptors(DESCRIPTORS).map_err(Error::file("use", dir))?;
        let root = Dir::make_checked(dir).map_err(Error::file("use", dir))?;
        let root = Arc::new(root);
        cgroup::learn_hierarchies()?;
        let (swept, _by_others) = sweep::sweep_once(&root, bundles)?;
        let entered = enter(Arc::clone(&root), name)?;
        entered.enter(bundles)?;
        Ok((entered, swept))
    }

    /// The directory of what outlives this executor. `None` unless it is kept.
    pub const fn kept(&self) -> Option<&Arc<Dir>> {
        self.kept.as_ref()
    }

    /// The record of an executor that is kept.
    ///
    /// # Errors
    /// When it cannot be opened, or the executor is not kept.
    pub fn ledger(&self) -> Result<LedgerFile> {
        let dir = self.kept.as_ref().ok_or(Error::NotKept)?;
        let file = dir.append(LEDGER).map_err(Error::file("open", &dir.path_of(LEDGER)))?;
        Ok(LedgerFile { dir: Arc::clone(dir), file: Mutex::new(file) })
    }

    /// The containers that it has, those of its predecessor included.
    ///
    /// # Errors
    /// When they cannot be listed. One that cannot be read is an error of its own.
    pub fn reservations(&self) -> Result<Vec<Reservation>> {
        reservations_of(&self.dirs, &self.executor)
    }
}

fn enter(root: Arc<Dir>, name: &str) -> Result<Root> {
    let _root_lock = lock_root(&root)?;
    let entered = enter_locked(Arc::clone(&root), name);
    if entered.is_err() {
        sweep::remove_shared_dirs_if_last(&root);
    }
    entered
}

fn enter_locked(root: Arc<Dir>, name: &str) -> Result<Root> {
    let dirs = Arc::new(RootDirs::make(Arc::clone(&root))?);
    let made = root.open_or_make_dir(KEPT).and_then(|kept| kept.open_or_make_dir(name));
    let kept = made.map_err(Error::file("make", &root.path_of(KEPT).join(name)))?;
    let (executor, mark, lock_file, parents) = match predecessor(&dirs, &kept)? {
        Some((executor, file)) => {
            if let Err(Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
                return Err(in_use(name, &kept));
            }
            let path = dirs.executors.path_of(&executor);
            let text =
                dirs.executors.read_text(&executor, RECORD_LIMIT).map_err(Error::file("read", &path))?;
            let mark = parse_mark(&text).unwrap_or_default().to_owned();
            let parents =
                text.lines().filter_map(parse_record).map(|(parent, _)| parent.to_owned()).collect();
            remove_logs(&dirs.runtime, &executor)?;
            for left in remove_unfinished(&dirs, &executor)? {
                tracing::warn!(%left, "part of a reservation was not removed");
            }
            (executor, mark, file, parents)
        }
        None => {
            let executor = short_uuid();
            let mark = format!("{executor}.{}", Uuid::new_v4().simple());
            let file = register(&dirs, &executor, &mark)?;
            let path = dirs.executors.path_of(&executor);
            let line = format!("{KEPT_RECORD}\t{name}\n");
            executor_disk::write(&file, &path, line.as_bytes()).map_err(Error::file("write", &path))?;
            let written = kept.replace(EXECUTOR, "executor.new", format!("{executor}\n").as_bytes());
            written.map_err(Error::file("write", &kept.path_of(EXECUTOR)))?;
            (executor, mark, file, Default::default())
        }
    };
    let own = format!("{}\n", std::process::id());
    kept.replace(OWNER, "owner.new", own.as_bytes()).map_err(Error::file("write", &kept.path_of(OWNER)))?;
    Ok(Root {
        dirs,
        executor,
        mark,
        parent: place::default_parent(),
        parents: Mutex::new(parents),
        lock_file,
        kept: Some(Arc::new(kept)),
    })
}

/// The executor that has had the name, and its file. `None` if it has shut down.
fn predecessor(dirs: &RootDirs, kept: &Dir) -> Result<Option<(String, File)>> {
    let path = kept.path_of(EXECUTOR);
    let executor = match kept.read_text(EXECUTOR, RECORD_LIMIT) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(Error::file("read", &path))?.trim().to_owned(),
    };
    if !is_executor(&executor) {
        let error = io::Error::new(ErrorKind::InvalidData, "it does not name an executor");
        return Err(Error::file("read", &path)(error));
    }
    match dirs.executors.open_file(&executor, rustix::fs::OFlags::RDWR | rustix::fs::OFlags::APPEND) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        file => file.map(|file| Some((executor, file))).map_err(Error::file("open", &path)),
    }
}

fn in_use(name: &str, kept: &Dir) -> Error {
    let by = kept.read_text(OWNER, RECORD_LIMIT).unwrap_or_default().trim().to_owned();
    Error::NameInUse { name: name.to_owned(), by }
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= NAME_LENGTH && !name.starts_with('.') && name.bytes().all(is_part)
}

/// The record of an executor that is kept, in a file.
#[derive(Debug)]
pub struct LedgerFile {
    dir: Arc<Dir>,
    file: Mutex<File>,
}

impl Ledger for LedgerFile {
    fn append(&self, lines: &str) -> io::Result<()> {
        let mut file = lock(&self.file);
        let before = file.seek(SeekFrom::End(0))?;
        let written = executor_disk::write(&file, &self.dir.path_of(LEDGER), lines.as_bytes());
        if written.is_err() {
            // A part of them may be there.
            ftruncate(file.as_fd(), before)?;
        }
        written
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        self.dir.read(LEDGER, LEDGER_LIMIT)
    }

    fn replace(&self, lines: &str) -> io::Result<()> {
        let mut file = lock(&self.file);
        self.dir.replace(LEDGER, "ledger.new", lines.as_bytes())?;
        *file = self.dir.append(LEDGER)?;
        Ok(())
    }
}

/// What is left of a name when its executor has shut down and nothing of it is to go on: its record.
///
/// # Errors
/// [`Error::NameInUse`] if its executor has not shut down, whether its process lives or not.
pub fn forget_name(dir: &Path, name: &str) -> Result<Vec<Leftover>> {
    let root = Dir::open_checked(dir).map_err(Error::file("use", dir))?;
    let _root_lock = lock_root(&root)?;
    let dirs = RootDirs::make(Arc::new(root.try_clone().map_err(Error::file("use", dir))?))?;
    let path = root.path_of(KEPT).join(name);
    let kept = root.open_dir(KEPT).map_err(Error::file("open", &path))?;
    let own = kept.open_dir(name).map_err(Error::file("open", &path))?;
    if predecessor(&dirs, &own)?.is_some() {
        return Err(in_use(name, &own));
    }
    let left = kept.remove_tree(name, executor_core::lifecycle::LeftoverKind::File);
    sweep::remove_shared_dirs_if_last(&root);
    Ok(left)
}
