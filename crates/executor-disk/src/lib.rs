//! The one way to the files below an executor's root directory.
//!
//! ```text
//!  path ──▶ trust: each directory on the way is checked ──▶ Dir: an open directory
//!                                                             ├──▶ Dir, File: one name at a time, by openat2(2)
//!                                                             └──▶ tree: a whole directory is removed
//! ```
//! A path is resolved once, when the root is opened. After that, everything is reached from an open directory by a single
//! name, without following a link and without crossing a mount. So nobody can make us touch another file by renaming a
//! directory or by putting a link in its place.
//!
//! # Example
//! An ordinary user without `$XDG_RUNTIME_DIR` has the root `/tmp/longshore-1000`. Another user was there first:
//!
//! - With a directory of his own, or a link: [`Dir::open_checked`] fails. The owner is not 1000.
//! - With nothing: `/tmp` belongs to root and has the sticky bit. Once our directory exists, only we can rename it.
//!
//! Paths remain in three places. A [`Dir`] knows its path for messages, and for programs that take paths only, such as the
//! runtime. [`read_regular`] takes that of a file which is not below a root. System calls that take paths only get [`Dir::by_descriptor`].

mod dir;
pub mod faults;
mod lock;
pub mod mount_table;
mod outside;
mod tree;
mod trust;

pub use dir::{Dir, give, write};
pub use lock::lock_within;
pub use outside::read_regular;
