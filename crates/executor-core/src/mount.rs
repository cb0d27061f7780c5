//! What is mounted into a container in addition to its root file system.

mod once;
mod words;

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::spec::{absolute, invalid, no_control, no_nul, word};
use crate::{InvalidSpec, Secret};
use serde::{Deserialize, Serialize};

/// A file system, directory or file that is mounted into a container.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// An absolute path in the container.
    pub destination: PathBuf,
    /// Whether the container may only read it.
    #[serde(default)]
    pub read_only: bool,
    /// Other options, each a word of mount(8): `nosuid`, or `size=64m` for a tmpfs.
    #[serde(default)]
    pub options: Vec<String>,
}

/// What is mounted.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[serde(deny_unknown_fields)]
pub enum MountSource {
    /// A directory or file of the host, with what is mounted below it.
    Bind {
        /// An absolute path on the host.
        path: PathBuf,
        /// If present, only this path below `path` is mounted. Symbolic links in it are resolved as if `path` were
        /// the root directory, even if they change meanwhile.
        #[serde(default)]
        selector: Option<PathBuf>,
    },
    /// An empty file system in memory. It ends with the container. Its mode is 1777 unless an option names another. For an
    /// ordinary user, runc gives it the mode of the directory that it hides.
    Tmpfs,
    /// A file with these bytes, which is never written to a disk. It has no form in JSON: serializing it is an error.
    #[serde(skip)]
    Secret {
        /// The bytes.
        contents: Secret,
        /// The mode of the file, as in `0o400`.
        mode: u32,
        /// Its user, an id of the container.
        uid: u32,
        /// Its group, an id of the container.
        gid: u32,
    },
    /// A file system of another kind.
    FileSystem {
        /// The kernel's name of the kind.
        kind: String,
        /// What mount(2) calls its source.
        source: String,
    },
}

/// The options of a bind mount. All others are options of file systems.
const BIND_OPTIONS: [&str; 22] = [
    "async",
    "atime",
    "dev",
    "diratime",
    "exec",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "relatime",
    "rprivate",
    "rshared",
    "rslave",
    "shared",
    "slave",
    "strictatime",
    "suid",
    "sync",
];

/// Options that decide what a mount is. The other fields say that, and what they say is checked.
const OTHER_MOUNTS: [&str; 8] = ["bind", "move", "rbind", "remount", "ro", "rro", "rrw", "rw"];

impl Mount {
    /// A directory or file of the host, writable.
    pub fn bind(path: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Self {
        Self::new(MountSource::Bind { path: path.into(), selector: None }, destination)
    }

    /// A path below a directory of the host, writable. Symbolic links on the way are resolved as if the directory
    /// were the root directory.
    pub fn bind_below(
        path: impl Into<PathBuf>,
        selector: impl Into<PathBuf>,
        destination: impl Into<PathBuf>,
    ) -> Self {
        let source = MountSource::Bind { path: path.into(), selector: Some(selector.into()) };
        Self::new(source, destination)
    }

    /// A read-only file at `destination` with `contents`. It is never written to a disk: it is on a ramfs that ends
    /// with the container. `mode` is the mode of the file, as in `0o400`; `owner` is its user and group in the
    /// container.
    ///
    /// The container and the user of the executor can read it until the container is released. For an ordinary user,
    /// the root directory must be in memory, as `$XDG_RUNTIME_DIR` is, and the owner must be `(0, 0)`.
    pub fn secret(
        contents: impl Into<Secret>,
        destination: impl Into<PathBuf>,
        mode: u32,
        owner: (u32, u32),
    ) -> Self {
        let (uid, gid) = owner;
        Self::new(MountSource::Secret { contents: contents.into(), mode, uid, gid }, destination).read_only()
    }

    /// A file system of another kind, with what mount(2) calls its source.
    pub fn file_system(
        kind: impl Into<String>,
        source: impl Into<String>,
        destination: impl Into<PathBuf>,
    ) -> Self {
        Self::new(MountSource::FileSystem { kind: kind.into(), source: source.into() }, destination)
    }

    /// An empty file system in memory.
    pub fn tmpfs(destination: impl Into<PathBuf>) -> Self {
        Self::new(MountSource::Tmpfs, destination)
    }

    fn new(source: MountSource, destination: impl Into<PathBuf>) -> Self {
        Self { source, destination: destination.into(), read_only: false, options: Vec::new() }
    }

    /// Adds an option, a word of mount(8).
    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Makes it read-only.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// Reads `type=bind,source=/src,destination=/dst,readonly`: words between commas, most of them a key and
    /// a value.
    ///
    /// Keys are `type` (`bind` when absent), `source` (`src`), `destination` (`dst`, `target`), `selector`;
    /// `readonly` (`ro`) and `rw` need no value. Those of docker are read as well: `bind-propagation=rslave`,
    /// `tmpfs-size=64m`, `tmpfs-mode=1770`. Every other word is an option of the mount. A word with a comma in it is quoted,
    /// as in a line of CSV: `type=bind,"source=/a,b",destination=/c`.
    ///
    /// # Errors
    /// When a path is missing, or does not belong to the type. A word of docker's or podman's that is not taken is answered.
    pub fn from_words(text: &str) -> Result<Self, InvalidSpec> {
        words::read(text)
    }

    pub(crate) fn validate(&self) -> Result<(), InvalidSpec> {
        absolute("mount destination", &self.destination)?;
        // The components are compared, because `/dev/../` is `/`.
        if !self.destination.components().any(|part| matches!(part, Component::Normal(_))) {
            return Err(invalid("mount destination", "/ is the rootfs; mount somewhere below it"));
        }
        if self.destination.components().any(|part| part == Component::ParentDir) {
            return Err(invalid(
                "mount destination",
                format!("{}: leave the .. out", self.destination.display()),
            ));
        }
        match &self.source {
            MountSource::Bind { path, selector } => {
                absolute("mount source", path)?;
                if let Some(selector) = selector {
                    let text = selector.to_str();
                    let text = text.ok_or_else(|| {
                        invalid("mount selector", format!("{} is not UTF-8", selector.display()))
                    })?;
                    no_nul("mount selector", text)?;
                }
                let unknown = |option: &&String| !BIND_OPTIONS.contains(&option.as_str());
                if let Some(option) = self.options.iter().find(unknown) {
                    return Err(invalid("mount option", format!("{option:?} is none of a bind mount")));
                }
            }
            MountSource::Tmpfs => {}
            MountSource::Secret { contents, mode, .. } => self.validate_secret(contents, *mode)?,
            MountSource::FileSystem { kind, source } => {
                word("mount type", kind)?;
                if kind == "bind" {
                    return Err(invalid(
                        "mount type",
                        "a bind mount is a kind of its own, not a file system",
                    ));
                }
                no_control("mount source", source)?;
            }
        }
        self.options.iter().try_for_each(|option| match option.as_str() {
            _ if option.contains(',') => Err(invalid("mount option", format!("{option:?} is more than one"))),
            kind if OTHER_MOUNTS.contains(&kind) => {
                Err(invalid("mount option", format!("{option:?} would make it another mount")))
            }
            _ => word("mount option", option),
        })
    }

    /// Whether it is a [secret](Self::secret), which has no form in JSON.
    pub const fn is_secret(&self) -> bool {
        matches!(self.source, MountSource::Secret { .. })
    }

    fn validate_secret(&self, contents: &Secret, mode: u32) -> Result<(), InvalidSpec> {
        if contents.expose().len() > Secret::MAX_LEN {
            return Err(invalid("mount secret", "longer than 1 MiB"));
        }
        if mode & !0o777 != 0 {
            return Err(invalid("mount secret", format!("{mode:o} is no mode; give one such as 400")));
        }
        if !self.read_only || !self.options.is_empty() {
            return Err(invalid("mount secret", "it is read-only, and has no options"));
        }
        Ok(())
    }

    /// The path on the host that a bind mount shows, without its selector. `None` for other mounts.
    pub fn host_path(&self) -> Option<&Path> {
        match &self.source {
            MountSource::Bind { path, .. } => Some(path),
            MountSource::Tmpfs | MountSource::Secret { .. } | MountSource::FileSystem { .. } => None,
        }
    }
}

impl FromStr for Mount {
    type Err = InvalidSpec;

    /// Reads `SOURCE:DESTINATION`, with options of a bind mount after another colon, such as `ro` or `rw,nosuid`. Whether the paths are absolute is left to
    /// [`ContainerSpec::validate`](crate::ContainerSpec::validate).
    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let parts: Vec<_> = text.split(':').collect();
        let (source, destination, options) = match parts.as_slice() {
            [source, destination] => (source, destination, ""),
            [source, destination, options] => (source, destination, *options),
            _ => return Err(invalid("mount", "give SOURCE:DESTINATION or SOURCE:DESTINATION:ro")),
        };
        if source.is_empty() || destination.is_empty() {
            return Err(invalid("mount", "neither the source nor the destination can be empty"));
        }
        let mut mount = Self::bind(*source, *destination);
        let (mut has_ro, mut has_rw) = (false, false);
        for option in options.split(',').filter(|_| parts.len() > 2) {
            match option {
                "ro" => has_ro = true,
                "rw" => has_rw = true,
                // Hints of docker's for other systems than Linux.
                "cached" | "consistent" | "delegated" => {}
                _ if BIND_OPTIONS.contains(&option) => mount.options.push(option.to_owned()),
                "z" | "Z" => {
                    let why = "set the SELinux label on the host, with chcon, or choose one with --selinux";
                    return Err(invalid("mount", format!("{option:?}: {why}")));
                }
                _ => {
                    let why = "is no option of a mount; give ro or rw, or one such as nosuid";
                    return Err(invalid("mount", format!("{option:?} {why}")));
                }
            }
        }
        if has_ro && has_rw {
            return Err(invalid("mount", "ro and rw: give one of them"));
        }
        mount.read_only = has_ro;
        Ok(mount)
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, read_only, .. } = self;
        match source {
            MountSource::Bind { path, selector: None } => write!(f, "{}", path.display())?,
            MountSource::Bind { path, selector: Some(below) } => {
                write!(f, "{}[{}]", path.display(), below.display())?;
            }
            MountSource::Tmpfs => f.write_str("tmpfs")?,
            MountSource::Secret { .. } => f.write_str("secret")?,
            MountSource::FileSystem { kind, source } => write!(f, "{kind} {source}")?,
        }
        write!(f, ":{}{}", destination.display(), if *read_only { ":ro" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_and_shown_alike() {
        let mount: Mount = "/a:/b:ro".parse().unwrap();
        assert_eq!(mount, Mount::bind("/a", "/b").read_only());
        assert_eq!(mount.to_string(), "/a:/b:ro");
        assert_eq!("/a:/b:rw".parse::<Mount>().unwrap().to_string(), "/a:/b");
        assert_eq!("/a:/b:rw,nosuid".parse(), Ok(Mount::bind("/a", "/b").option("nosuid")));
        assert_eq!("/a:/b:cached,ro".parse(), Ok(Mount::bind("/a", "/b").read_only()));
        for bad in [
            "",
            "/a",
            "/a:",
            ":/b",
            "/a:/b:rx",
            "/a:/b:ro:z",
            "/a:/b:",
            "/a:/b:z",
            "/a:/b:ro,rw",
            "/a:/b:ro,",
        ] {
            assert!(bad.parse::<Mount>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn mounts_are_read_from_words() {
        let read = |text: &str| Mount::from_words(text).map_err(|error| error.why);
        assert_eq!(read("type=bind,src=/a,dst=/b,readonly"), Ok(Mount::bind("/a", "/b").read_only()));
        let mut selected = Mount::bind("/a", "/b");
        selected.source = MountSource::Bind { path: "/a".into(), selector: Some("x/y".into()) };
        assert_eq!(read("source=/a,target=/b,selector=x/y"), Ok(selected));
        let tmpfs = Mount { options: vec!["size=1m".into(), "noexec".into()], ..Mount::tmpfs("/t") };
        assert_eq!(read("type=tmpfs,destination=/t,size=1m,noexec"), Ok(tmpfs));
        assert_eq!(read("type=proc,dst=/p").map(|mount| mount.to_string()), Ok("proc proc:/p".into()));
        assert_eq!(read(r#"type=bind,"src=/a,b",dst=/c"#), Ok(Mount::bind("/a,b", "/c")));
        assert_eq!(read(r#""src=/a ""b""",dst=/c"#), Ok(Mount::bind(r#"/a "b""#, "/c")));
        for bad in [
            "src=/a,dst=/b\nsrc=/c,dst=/d",
            "",
            "type=bind,dst=/b",
            "src=/a",
            "type=tmpfs,src=/a,dst=/b",
            "type=tmpfs,dst=/b,selector=x",
        ] {
            assert!(read(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn what_cannot_be_mounted_is_named() {
        let field = |mount: Mount| mount.validate().err().map(|error| error.field);
        let with = |option: &str| Mount { options: vec![option.into()], ..Mount::bind("/a", "/b") };
        assert_eq!(field(with("nosuid")), None);
        assert_eq!(field(with("size=1m")), Some("mount option"));
        assert_eq!(field(Mount { options: vec!["size=1m".into()], ..Mount::tmpfs("/b") }), None);
        assert_eq!(field(Mount { options: vec!["a,b".into()], ..Mount::tmpfs("/b") }), Some("mount option"));
        // Each of these would turn the tmpfs into a bind mount, or make a read-only one writable.
        for other in OTHER_MOUNTS {
            assert_eq!(field(Mount::tmpfs("/b").option(other)), Some("mount option"), "{other}");
        }
        assert_eq!(field(Mount::file_system("bind", "/proc", "/b")), Some("mount type"));
        for bad in ["/", "//", "/.", "/b/../..", "b"] {
            assert_eq!(field(Mount::bind("/a", bad)), Some("mount destination"), "{bad}");
        }
    }
}
