//! The ids of a container with a user namespace: which it has, and who of the host owns what is made for it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use executor_core::lifecycle::StartFailure;
use executor_core::{ContainerSpec, IdMap, IdRange, Rootfs};
use rustix::process::{getegid, geteuid};

use crate::error::{bad, from_io};
use crate::process::users::User;

/// Whether this process may not do what containers of root do.
pub(crate) fn rootless() -> bool {
    !geteuid().is_root()
}

/// The ids of a container; `None` when it has those of the host.
///
/// An ordinary user is root in his containers. Beside himself he has his subordinate ids, where a helper with
/// the right to write such maps is installed; in a throw-away view of the host he has not, for what others than he
/// own of it could not be removed afterwards.
pub(crate) fn of(spec: &ContainerSpec) -> Option<IdMap> {
    match &spec.id_map {
        Some(map) => Some(map.clone()),
        None if rootless() => Some(own(spec.rootfs != Rootfs::Host && has_helpers())),
        None => None,
    }
}

fn own(subordinate: bool) -> IdMap {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let name = fs::read_to_string("/etc/passwd").ok().and_then(|passwd| name_of(uid, &passwd));
    let ranges = |own, file: &str| {
        let mut ranges = vec![IdRange { container: 0, host: own, size: 1 }];
        let text = subordinate.then(|| fs::read_to_string(file).ok()).flatten().unwrap_or_default();
        ranges.extend(subordinate_ids(uid, name.as_deref(), &text));
        ranges
    };
    IdMap { uids: ranges(uid, "/etc/subuid"), gids: ranges(gid, "/etc/subgid") }
}

fn name_of(uid: u32, passwd: &str) -> Option<String> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(2).is_some_and(|field| field.parse() == Ok(uid)))?;
    line.first().map(|name| (*name).to_owned())
}

/// The user's first range in subuid(5), from 1 on in the container.
fn subordinate_ids(uid: u32, name: Option<&str>, text: &str) -> Option<IdRange> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let (host, size) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let is_ours = Some(owner) == name || owner.parse() == Ok(uid);
        (is_ours && size > 0).then_some(IdRange { container: 1, host, size })
    })
}

/// Whether there is who may map more than the user himself.
fn has_helpers() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    found("newuidmap") && found("newgidmap")
}

/// A user and groups that are in the map.
pub(crate) fn check(user: &mut User, map: Option<&IdMap>) -> Result<(), StartFailure> {
    let Some(map) = map else { return Ok(()) };
    if map.host_uid(user.uid).is_none() {
        return Err(bad("user", &format!("the user {} is not in the container's id map", user.uid)));
    }
    if map.host_gid(user.gid).is_none() {
        return Err(bad("user", &format!("the group {} is not in the container's id map", user.gid)));
    }
    user.groups.retain(|group| map.host_gid(*group).is_some());
    if rootless() {
        // The kernel denies setgroups(2) to whoever has mapped nothing but himself, and runc to every ordinary user.
        user.groups.clear();
    }
    Ok(())
}

/// Whom of the host a user and group of the container are.
pub(crate) fn on_the_host(map: Option<&IdMap>, uid: u32, gid: u32) -> (u32, u32) {
    let mapped = |found: Option<u32>, id| if map.is_some() { found.unwrap_or(id) } else { id };
    (mapped(map.and_then(|map| map.host_uid(uid)), uid), mapped(map.and_then(|map| map.host_gid(gid)), gid))
}

/// Gives a file of ours to the container's root.
pub(crate) fn give_to_root(map: Option<&IdMap>, path: &Path) -> Result<(), StartFailure> {
    if map.is_none() || rootless() {
        return Ok(());
    }
    let (uid, gid) = on_the_host(map, 0, 0);
    chown(path, Some(uid), Some(gid)).map_err(|error| from_io("give to the container's root", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_the_users_own() {
        let text = "bob:1:2\nann:100000:65536\nann:300000:65536\n1002:500000:10\nnonsense\n";
        let range = |host, size| Some(IdRange { container: 1, host, size });
        assert_eq!(subordinate_ids(1000, Some("ann"), text), range(100_000, 65_536));
        assert_eq!(subordinate_ids(1002, Some("carl"), text), range(500_000, 10));
        assert_eq!(subordinate_ids(1000, None, text), None);
        assert_eq!(name_of(1000, "root:x:0:0::\nann:x:1000:100::\n").as_deref(), Some("ann"));
    }

    #[test]
    fn who_is_in_no_range_cannot_run() {
        let map = IdMap::both(vec!["0:1000:1".parse().unwrap(), "1:100000:99".parse().unwrap()]);
        let user = |uid, gid| User { uid, gid, groups: [gid, 500].into(), home: None };
        let mut inside = user(7, 8);
        check(&mut inside, Some(&map)).unwrap();
        assert_eq!(inside.groups, [8].into());
        assert_eq!(on_the_host(Some(&map), 7, 8), (100_006, 100_007));
        assert_eq!(on_the_host(None, 7, 8), (7, 8));
        assert!(check(&mut user(100, 0), Some(&map)).is_err());
        assert!(check(&mut user(0, 100), Some(&map)).is_err());
    }
}
