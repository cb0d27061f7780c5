//! The ids of a container: which ids of the host they are, and which of them own the files that are made for it.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use executor_core::{ContainerSpec, IdMap, IdRange, Rootfs};
use rustix::process::{getegid, geteuid};

/// Whether this process is an ordinary user's: it may not mount, and not make device nodes.
pub(crate) fn rootless() -> bool {
    !geteuid().is_root()
}

/// A user and a group of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    pub(crate) const ROOT: Self = Self { uid: 0, gid: 0 };

    /// Changes the owner of a file that we have made. For an ordinary user the file has the right owner already.
    pub(crate) fn give(self, file: impl AsFd) -> io::Result<()> {
        if rootless() || self == Self::ROOT {
            return Ok(());
        }
        executor_disk::give(file, self.uid, self.gid)
    }
}

/// The ids of a container.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    /// How they map to ids of the host. `None` without a user namespace: they are the host's own.
    pub(crate) map: Option<IdMap>,
    /// What the container's root is on the host.
    pub(crate) root: Owner,
}

impl Ids {
    /// The ids of a container of this specification.
    ///
    /// An ordinary user is root in his containers. He also has his subordinate ids there, if newuidmap(1) and newgidmap(1)
    /// are installed. In a temporary view of the host he does not: he could not remove files there that other ids own.
    pub(crate) fn of(spec: &ContainerSpec) -> Self {
        match &spec.id_map {
            Some(map) => Self::new(Some(map.clone())),
            None if rootless() => Self::new(Some(own(spec.rootfs != Rootfs::Host && has_helpers()))),
            None => Self::new(None),
        }
    }

    pub(crate) fn new(map: Option<IdMap>) -> Self {
        let mut ids = Self { map, root: Owner::ROOT };
        ids.root = ids.on_the_host(0, 0);
        ids
    }

    /// What a user and a group of the container are on the host.
    pub(crate) fn on_the_host(&self, uid: u32, gid: u32) -> Owner {
        let map = self.map.as_ref();
        Owner {
            uid: map.and_then(|map| map.host_uid(uid)).unwrap_or(uid),
            gid: map.and_then(|map| map.host_gid(gid)).unwrap_or(gid),
        }
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

/// The first range that subuid(5) has for the user. In the container it begins at 1.
fn subordinate_ids(uid: u32, name: Option<&str>, text: &str) -> Option<IdRange> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let (host, size) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let is_ours = Some(owner) == name || owner.parse() == Ok(uid);
        (is_ours && size > 0).then_some(IdRange { container: 1, host, size })
    })
}

/// Whether the programs are installed that may map more ids than the user's own.
fn has_helpers() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    found("newuidmap") && found("newgidmap")
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
    fn who_is_in_a_range_is_another_on_the_host() {
        let map = IdMap::both(vec!["0:1000:1".parse().unwrap(), "1:100000:99".parse().unwrap()]);
        let ids = Ids::new(Some(map));
        assert_eq!(ids.on_the_host(7, 8), Owner { uid: 100_006, gid: 100_007 });
        assert_eq!(ids.root, Owner { uid: 1000, gid: 1000 });
        assert_eq!(Ids::new(None).on_the_host(7, 8), Owner { uid: 7, gid: 8 });
    }
}
