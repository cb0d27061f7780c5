//! Bytes that only one container may read. They are not shown, and not written to a disk.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// The contents of a file that a container may read, as a password or a token; see [`Mount::secret`](crate::Mount::secret).
///
/// `Debug` does not show it, and it has no form in JSON. A clone is the same one, and the last one overwrites the bytes when
/// it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// The longest secret, in bytes: it is in memory that cannot be swapped out.
    pub const MAX_LEN: usize = 1 << 20;

    /// The bytes, to write them to where the container reads them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}
