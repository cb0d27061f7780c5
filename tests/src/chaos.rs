//! The chaos test: embedders that do everything at once on a runtime that fails, and are killed at that.
//!
//! ```text
//!  judge ──▶ embedder, round after round, on one root     (shut down, or SIGKILL)
//!    │           └─ lives: runs, execs, signals, cancels… as the seed says, each end checked
//!    ├─────▶ bystander: a container of another root, which must live on
//!    └ after each round: sweep, and count what is left
//! ```
//! A seed gives the same rounds, lives, faults and delays again; what the kernel makes of them in time is
//! its own. [`plan`] is what a seed comes to, [`truth`] what an end may be, [`embedder`] and [`judge`] are
//! the two programs.

pub mod embedder;
pub mod judge;
pub mod plan;
pub mod truth;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What was done, by name, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures(pub BTreeMap<String, u64>);

impl Figures {
    /// Counts something once more.
    pub fn count(&mut self, what: &str) {
        self.add(what, 1);
    }

    fn add(&mut self, what: &str, times: u64) {
        *self.0.entry(what.to_owned()).or_default() += times;
    }

    fn take(&mut self, other: Self) {
        other.0.into_iter().for_each(|(what, times)| self.add(&what, times));
    }
}
