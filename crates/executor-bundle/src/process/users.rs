//! Users and groups, looked up in the root file system's own `/etc/passwd` and `/etc/group`.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::Error;
use crate::ids::{self, Ids};
use crate::rootfs_dir::{RootfsDir, Unreadable};

/// The user and the groups of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, including the primary one.
    pub(crate) groups: BTreeSet<u32>,
    pub(crate) home: Option<String>,
}

/// A line of passwd(5).
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Account<'_> {
    fn home(&self) -> Option<String> {
        Some(self.home.to_owned()).filter(|home| home.starts_with('/'))
    }
}

/// A line of group(5).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl User {
    /// An error if the container's id map does not have the user or the primary group. Other groups that it does not have
    /// are left out.
    fn confine(&mut self, ids: &Ids) -> Result<(), Error> {
        let Some(map) = &ids.map else { return Ok(()) };
        if map.host_uid(self.uid).is_none() {
            let why = format!("the user {} is not in the container's id map", self.uid);
            return Err(Error::field("user", why));
        }
        if map.host_gid(self.gid).is_none() {
            let why = format!("the group {} is not in the container's id map", self.gid);
            return Err(Error::field("user", why));
        }
        self.groups.retain(|group| map.host_gid(*group).is_some());
        if ids::rootless() {
            // The kernel refuses setgroups(2) if only one id is mapped, and runc refuses it to every ordinary user.
            self.groups.clear();
        }
        Ok(())
    }

    /// The same user with the ids of the host, to compare with the owners of files. Root stays 0: what it may execute does
    /// not depend on a file's owner.
    pub(crate) fn on_the_host(&self, ids: &Ids) -> Self {
        let owner = ids.on_the_host(self.uid, self.gid);
        let groups = self.groups.iter().map(|group| ids.on_the_host(0, *group).gid).collect();
        Self { uid: if self.uid == 0 { 0 } else { owner.uid }, gid: owner.gid, groups, home: None }
    }
}

/// Looks up `user`, `uid`, `user:group` or `uid:gid`. Absent means root.
///
/// A number needs no entry in the files. Without a group, the primary group is that of the user's entry, or 0 if there is
/// none, and the supplementary groups are those that list the user as a member. With a group there are no others. Ids that
/// the container does not have are refused.
pub(crate) fn resolve(rootfs: &RootfsDir, user: Option<&str>, ids: &Ids) -> Result<User, Error> {
    let mut user = in_container(rootfs, user.unwrap_or("0"))?;
    // The kernel takes the last number for "as it is", so that a process would stay root.
    if [user.uid, user.gid].contains(&u32::MAX) || user.groups.contains(&u32::MAX) {
        return Err(Error::field("user", format!("{} is no id: uids and gids must be in range", u32::MAX)));
    }
    user.confine(ids)?;
    Ok(user)
}

/// The user and the group. As with docker, each is absent if it is empty: `1000:` is `1000`, and `:wheel` is root with another
/// group.
fn parts(user: &str) -> (&str, Option<&str>) {
    let (name, group) = user.split_once(':').unwrap_or((user, ""));
    (if name.is_empty() { "0" } else { name }, Some(group).filter(|group| !group.is_empty()))
}

fn in_container(rootfs: &RootfsDir, user: &str) -> Result<User, Error> {
    let (name, group) = parts(user);
    if let (Ok(uid), Some(Ok(gid))) = (name.parse(), group.map(str::parse)) {
        // Only the home is looked up, so that a passwd that cannot be read does no harm.
        let passwd = read(rootfs, "/etc/passwd").unwrap_or_default();
        let account = accounts(&passwd).find(|account| account.uid == uid);
        return Ok(User { uid, gid, groups: [gid].into(), home: account.and_then(|account| account.home()) });
    }
    look_up(user, &read(rootfs, "/etc/passwd")?, || read(rootfs, "/etc/group"))
}

/// The same, from the text of the files. `/etc/group` is read only if it is needed.
pub(crate) fn look_up(
    user: &str,
    passwd: &str,
    read_group: impl Fn() -> Result<String, Error>,
) -> Result<User, Error> {
    let (name, group) = parts(user);
    let by_name = accounts(passwd).find(|account| account.name == name);
    let account = by_name.or_else(|| accounts(passwd).find(|account| name.parse() == Ok(account.uid)));
    let (uid, primary) = match (&account, name.parse()) {
        (Some(account), _) => (account.uid, account.gid),
        (None, Ok(uid)) => (uid, 0),
        (None, Err(_)) => {
            return Err(Error::field("user", format!("{name:?} is not in the container's /etc/passwd")));
        }
    };
    let (gid, mut groups) = match (group, &account) {
        (Some(group), _) => (group_id(group, read_group)?, BTreeSet::new()),
        (None, Some(account)) => (primary, groups_of(account.name, &read_group()?)),
        (None, None) => (primary, BTreeSet::new()),
    };
    groups.insert(gid);
    let home = account.and_then(|account| account.home());
    Ok(User { uid, gid, groups, home })
}

fn group_id(group: &str, read_group: impl Fn() -> Result<String, Error>) -> Result<u32, Error> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let known = groups(&read_group()?).find(|known| known.name == group).map(|known| known.gid);
    known.ok_or_else(|| {
        Error::field("user", format!("the group {group:?} is not in the container's /etc/group"))
    })
}

fn groups_of(name: &str, text: &str) -> BTreeSet<u32> {
    let of = groups(text).filter(|group| group.members.split(',').any(|member| member == name));
    of.map(|group| group.gid).collect()
}

/// The text of a file. Empty if it does not exist: such a container has no names.
fn read(rootfs: &RootfsDir, path: &str) -> Result<String, Error> {
    match rootfs.read(Path::new(path)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(Unreadable::Missing) => Ok(String::new()),
        Err(Unreadable::Unsuitable(why)) => {
            Err(Error::field("user", format!("the container's {path} cannot be read: {why}")))
        }
        Err(Unreadable::Failed(error)) => {
            Err(Error::io("user: cannot read the container's", Path::new(path))(error))
        }
    }
}

/// The accounts in passwd(5). Malformed lines are skipped, as by the C library.
fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Account { name, uid, gid, home: fields.nth(1)? })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(passwd: Option<&str>, group: Option<&str>) -> (tempfile::TempDir, RootfsDir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        for (file, text) in [("etc/passwd", passwd), ("etc/group", group)] {
            text.into_iter().for_each(|text| std::fs::write(dir.path().join(file), text).unwrap());
        }
        let rootfs = RootfsDir::open(dir.path()).unwrap();
        (dir, rootfs)
    }

    fn user(uid: u32, gid: u32, groups: &[u32], home: Option<&str>) -> Result<User, String> {
        Ok(User { uid, gid, groups: groups.iter().copied().collect(), home: home.map(str::to_owned) })
    }

    #[test]
    fn names_numbers_and_groups() {
        let passwd = "nonsense\nroot:x:0:0:root:/root:/bin/sh\nann:x:1000:100::/home/ann:/bin/sh\n";
        let group = "root:x:0:\nusers:x:100:\nwheel:x:10:root,ann\n:::\nann:x:55:bob\n";
        let (_dir, rootfs) = root(Some(passwd), Some(group));
        let resolved =
            |text: Option<&str>| resolve(&rootfs, text, &Ids::new(None)).map_err(|error| error.to_string());
        assert_eq!(resolved(None), user(0, 0, &[0, 10], Some("/root")));
        assert_eq!(resolved(Some("ann")), user(1000, 100, &[10, 100], Some("/home/ann")));
        assert_eq!(resolved(Some("1000")), user(1000, 100, &[10, 100], Some("/home/ann")));
        assert_eq!(resolved(Some("ann:wheel")), user(1000, 10, &[10], Some("/home/ann")));
        assert_eq!(resolved(Some("ann:7")), user(1000, 7, &[7], Some("/home/ann")));
        assert_eq!(resolved(Some("7:8")), user(7, 8, &[8], None));
        assert_eq!(resolved(Some("1000:7")), user(1000, 7, &[7], Some("/home/ann")));
        assert_eq!(resolved(Some("7")), user(7, 0, &[0], None));
        assert_eq!(resolved(Some("1000:")), resolved(Some("1000")));
        assert_eq!(resolved(Some(":wheel")), user(0, 10, &[10], Some("/root")));
        for (unknown, error) in [
            ("bob", "user: \"bob\" is not in the container's /etc/passwd"),
            ("-1", "user: \"-1\" is not in the container's /etc/passwd"),
            ("4294967296", "user: \"4294967296\" is not in the container's /etc/passwd"),
            ("ann:nobody", "user: the group \"nobody\" is not in the container's /etc/group"),
        ] {
            assert_eq!(resolved(Some(unknown)), Err(error.to_owned()));
        }
    }

    #[test]
    fn a_root_without_passwd_has_numbers_only() {
        let (_dir, rootfs) = root(None, None);
        assert_eq!(resolve(&rootfs, None, &Ids::new(None)).unwrap().uid, 0);
        assert!(resolve(&rootfs, Some("root"), &Ids::new(None)).is_err());
    }

    #[test]
    fn ids_outside_the_map_are_refused() {
        let ranges = vec!["0:1000:1".parse().unwrap(), "1:100000:99".parse().unwrap()];
        let ids = Ids::new(Some(executor_core::IdMap::both(ranges)));
        let user = |uid, gid| User { uid, gid, groups: [gid, 500].into(), home: None };
        let mut inside = user(7, 8);
        inside.confine(&ids).unwrap();
        assert_eq!(inside.groups, [8].into());
        let on_the_host = User { uid: 100_006, gid: 100_007, groups: [100_007].into(), home: None };
        assert_eq!(inside.on_the_host(&ids), on_the_host);
        assert!(user(100, 0).confine(&ids).is_err());
        assert!(user(0, 100).confine(&ids).is_err());
    }
}
