//! Stubs that are left to the containers of other processes. An extended attribute of the root directory names each, since
//! the processes have nothing else in common: they may use different roots of executors.
//!
//! Ordinary users have names of their own, which a container can change. It gains nothing: a name leads to nothing but the
//! removal of an empty file or directory in its own root file system.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::os::fd::OwnedFd;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};

use super::Stub;
use crate::ids;

/// The most bytes of a list of names, and of a value.
const LIMIT: usize = 64 << 10;

fn prefix() -> &'static str {
    if ids::rootless() { "user.longshore.stub." } else { "trusted.longshore.stub." }
}

/// Leaves a stub. On a file system without such attributes, it stays.
pub(super) fn leave(root: &OwnedFd, stub: &Stub) {
    let mut hash = DefaultHasher::new();
    stub.path.hash(&mut hash);
    let name = format!("{}{:016x}", prefix(), hash.finish());
    if let Ok(value) = serde_json::to_vec(stub) {
        let _stays = fsetxattr(root, name, &value, XattrFlags::empty());
    }
}

/// Takes all that was left. Only who has the exclusive lock may do this.
pub(super) fn take(root: &OwnedFd) -> Vec<Stub> {
    let mut list = vec![0; LIMIT];
    let Ok(length) = flistxattr(root, &mut list) else { return Vec::new() };
    let names = list.get(..length).unwrap_or_default().split(|byte| *byte == 0);
    let names = names.filter(|name| name.starts_with(prefix().as_bytes()));
    names.filter_map(|name| take_one(root, name)).collect()
}

fn take_one(root: &OwnedFd, name: &[u8]) -> Option<Stub> {
    let mut value = vec![0; LIMIT];
    let length = fgetxattr(root, name, &mut value).ok()?;
    fremovexattr(root, name).ok()?;
    let stub: Stub = serde_json::from_slice(value.get(..length)?).ok()?;
    stub.path.file_name().is_some().then_some(stub)
}
