//! The ids of a container: which ids of the host they are, and which of them own the files that are made for it.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use executor_core::{ContainerSpec, IdMap, IdRange, ProcessMode, Rootfs, Security};
use rustix::process::{getegid, geteuid};

use crate::error::Error;

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

    /// Refuses a sandbox in which the host's `/proc` belongs to its root: it could change the host's kernel, signal every
    /// process, and reach the files of other containers.
    ///
    /// In a user namespace the kernel refuses that, unless the container's ids include the host's root. A configuration of
    /// the caller's has its own namespaces.
    pub(crate) fn check(&self, spec: &ContainerSpec) -> Result<(), Error> {
        let is_open = spec.process_mode == ProcessMode::NoSandbox && spec.security == Security::Sandbox;
        if !is_open || spec.config.is_some() {
            return Ok(());
        }
        let why = match &self.map {
            None => "the container's root would be root of the host's /proc",
            Some(_) if self.spare_host_root() => return Ok(()),
            Some(_) => "the container's id map includes the host's root, or its group",
        };
        let remedy = "give an id map without it, such as 0:100000:65536, or make the container insecure";
        Err(Error::field("process mode", format!("{why}; {remedy}")))
    }

    /// Whether the container is in a user namespace that has neither the host's root nor its group. The kernel refuses it
    /// what leads to processes outside.
    pub(crate) fn spare_host_root(&self) -> bool {
        let is_root = |range: &IdRange| range.host == 0 && range.size > 0;
        self.map.as_ref().is_some_and(|map| !map.uids.iter().chain(&map.gids).any(is_root))
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

    #[test]
    fn no_sandbox() {
        let mut spec = ContainerSpec::host(["true"]);
        let map = |range: &str| Ids::new(Some(IdMap::both(vec![range.parse().unwrap()])));
        assert!(Ids::new(None).check(&spec).is_ok());
        spec.process_mode = ProcessMode::NoSandbox;
        for (ids, expected) in
            [(Ids::new(None), false), (map("0:0:65536"), false), (map("0:100000:65536"), true)]
        {
            let said = ids.check(&spec).map_err(|error| error.to_string());
            assert_eq!(said.is_ok(), expected, "{said:?}");
            assert!(said.is_ok() || said.is_err_and(|said| said.starts_with("process mode: ")));
        }
        spec.security = Security::Insecure;
        assert!(Ids::new(None).check(&spec).is_ok());
    }
}
