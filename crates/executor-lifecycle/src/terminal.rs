//! The size of a terminal.

use serde::{Deserialize, Serialize};

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// The number of lines.
    pub rows: u16,
    /// The number of characters in each line.
    pub columns: u16,
}

impl Default for TerminalSize {
    /// 24 lines of 80 characters, the size of the terminals of old.
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}
