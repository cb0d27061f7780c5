//! Devices of the host in a container.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidSpec;
use crate::spec::{absolute, invalid, word};

/// A device that a container has in addition to the usual ones, such as `/dev/null`.
///
/// As text: `vendor.com/gpu=0` by its CDI name, `/dev/fuse`, `/dev/fuse:/dev/fuse` or `/dev/fuse:/dev/fuse:rw` by its
/// path. As JSON a node is an object, `{"path": "/dev/fuse", "destination": "/dev/fuse", "rights": "rw"}`, and the text is
/// read as well.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "DeviceForm"))]
#[serde(try_from = "DeviceForm", into = "DeviceForm")]
pub enum Device {
    /// The name of a device that a CDI specification describes, as in `vendor.com/gpu=0`.
    Cdi(String),
    /// A character or block device of the host.
    Node {
        /// Its path on the host; links are followed.
        path: PathBuf,
        /// Its path in the container.
        destination: PathBuf,
        /// What the container may do with it.
        rights: DeviceRights,
    },
}

/// What a container may do with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRights {
    /// Read from it.
    pub read: bool,
    /// Write to it.
    pub write: bool,
    /// Make other nodes for it, with mknod(2). runc lets a container make nodes of any device, whatever this says; what
    /// counts for such a node is whether it may be read and written.
    pub mknod: bool,
}

impl DeviceRights {
    /// To read from it.
    pub const READ: Self = Self { read: true, write: false, mknod: false };
    /// To read from it and to write to it.
    pub const READ_WRITE: Self = Self { read: true, write: true, mknod: false };
    /// All of them.
    pub const ALL: Self = Self { read: true, write: true, mknod: true };
}

impl Device {
    /// A device by its CDI name, as in `vendor.com/gpu=0`.
    pub fn cdi(name: impl Into<String>) -> Self {
        Self::Cdi(name.into())
    }

    /// A device by its absolute path, which is the same in the container.
    pub fn node(path: impl Into<PathBuf>, rights: DeviceRights) -> Self {
        let path = path.into();
        Self::Node { destination: path.clone(), path, rights }
    }

    /// Sets the path in the container, an absolute path. It has no effect on a CDI device, whose specification has
    /// the path.
    #[must_use]
    pub fn at(self, destination: impl Into<PathBuf>) -> Self {
        match self {
            Self::Cdi(name) => Self::Cdi(name),
            Self::Node { path, rights, .. } => Self::Node { path, destination: destination.into(), rights },
        }
    }

    pub(crate) fn validate(&self) -> Result<(), InvalidSpec> {
        match self {
            Self::Cdi(name) if name.contains('=') && !name.starts_with('/') => word("device", name),
            Self::Cdi(name) => {
                Err(invalid("device", format!("{name:?}: give a CDI name such as vendor.com/gpu=0")))
            }
            Self::Node { path, destination, rights } => {
                absolute("device", path)?;
                absolute("device", destination)?;
                if destination == Path::new("/") {
                    return Err(invalid("device", "give a path in the container, such as /dev/fuse"));
                }
                let DeviceRights { read, write, mknod } = *rights;
                if read || write || mknod {
                    return Ok(());
                }
                Err(invalid("device", format!("{self}: give rights: r, w, m, or several of them")))
            }
        }
    }
}

impl FromStr for DeviceRights {
    type Err = InvalidSpec;

    /// Reads letters: `r` to read, `w` to write, `m` for mknod(2).
    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let known = !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter));
        if !known {
            return Err(invalid("device", format!("{text:?}: give rights: r, w, m, or several of them")));
        }
        Ok(Self { read: text.contains('r'), write: text.contains('w'), mknod: text.contains('m') })
    }
}

impl fmt::Display for DeviceRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, write, mknod } = *self;
        for (given, letter) in [(read, "r"), (write, "w"), (mknod, "m")] {
            if given {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl FromStr for Device {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        if !text.starts_with('/') {
            let form = || {
                let why = format!(
                    "{text:?}: give a CDI name such as vendor.com/gpu=0, or a path such as /dev/fuse"
                );
                invalid("device", why)
            };
            return if text.contains('=') { Ok(Self::cdi(text)) } else { Err(form()) };
        }
        let parts: Vec<_> = text.split(':').collect();
        let device = match parts.as_slice() {
            [path] => Self::node(*path, DeviceRights::ALL),
            [path, destination] if destination.starts_with('/') => {
                Self::node(*path, DeviceRights::ALL).at(*destination)
            }
            [path, rights] => Self::node(*path, rights.parse()?),
            [path, destination, rights] => Self::node(*path, rights.parse()?).at(*destination),
            _ => return Err(invalid("device", format!("{text:?}: give PATH[:DESTINATION][:RIGHTS]"))),
        };
        device.validate().map(|()| device)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cdi(name) => f.write_str(name),
            Self::Node { path, destination, rights } => {
                write!(f, "{}:{}:{rights}", path.display(), destination.display())
            }
        }
    }
}

/// A device as JSON.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum DeviceForm {
    Text(String),
    Node(NodeForm),
}

/// A device by its path as JSON. A path may hold colons, which the text cannot say.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct NodeForm {
    path: PathBuf,
    destination: PathBuf,
    rights: String,
}

impl TryFrom<DeviceForm> for Device {
    type Error = InvalidSpec;

    fn try_from(form: DeviceForm) -> Result<Self, InvalidSpec> {
        match form {
            DeviceForm::Text(text) => text.parse(),
            DeviceForm::Node(NodeForm { path, destination, rights }) => {
                Ok(Self::Node { path, destination, rights: rights.parse()? })
            }
        }
    }
}

impl From<Device> for DeviceForm {
    fn from(device: Device) -> Self {
        match device {
            Device::Cdi(name) => Self::Text(name),
            Device::Node { path, destination, rights } => {
                Self::Node(NodeForm { path, destination, rights: rights.to_string() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_shown_alike() {
        for (text, shown) in [
            ("vendor.com/gpu=0", "vendor.com/gpu=0"),
            ("/dev/fuse", "/dev/fuse:/dev/fuse:rwm"),
            ("/dev/fuse:rw", "/dev/fuse:/dev/fuse:rw"),
            ("/dev/fuse:/dev/other", "/dev/fuse:/dev/other:rwm"),
            ("/dev/fuse:/dev/other:r", "/dev/fuse:/dev/other:r"),
        ] {
            let device: Device = text.parse().unwrap();
            assert_eq!(device.to_string(), shown);
            assert_eq!(shown.parse(), Ok(device));
        }
        for bad in ["", "fuse", "/dev/fuse:", "/dev/fuse:x", "/dev/fuse:dev:r", "/dev/fuse:/", "/a:/b:r:w"] {
            assert!(bad.parse::<Device>().is_err(), "{bad:?} was taken");
        }
    }
}
