//! A process that another executor has left, and what that executor has noted of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::end::cancelled;
use super::{CancelStage, Cancelling, Process, ProcessEffect, ProcessTraits, State};
use crate::{Cancel, Effects, ExitReason, HostPid, StartFailure, StartFailureKind, Timestamp};

/// What a later executor has to know of a process, besides the events: its deadlines, and what was sent to it. It is written before
/// the effects of the step that has changed it are performed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessNote {
    /// Its time counts.
    #[serde(default)]
    pub is_armed: bool,
    /// It has a terminal.
    #[serde(default)]
    pub has_terminal: bool,
    /// When its time limit is reached, and the cancel that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) timeout: Option<(Timestamp, Cancel)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cancelling: Option<Cancelling>,
    /// Whether SIGKILL was sent to it.
    #[serde(default)]
    pub(super) sent_sigkill: bool,
    /// Exit codes other than 0 that count as success.
    #[serde(default)]
    pub(super) valid_codes: BTreeSet<u8>,
}

impl ProcessNote {
    /// Whether it was being ended.
    pub const fn is_cancelled(&self) -> bool {
        self.cancelling.is_some()
    }
}

/// How another executor has left a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inherited {
    /// It is created, and its program is not executed.
    Created {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// Its program was executed. It may have ended since.
    Running {
        /// Its pid on the host.
        pid: HostPid,
        /// When it started, as was published.
        started_at: Timestamp,
    },
    /// It was being created or started, or waited for that. Nothing of it runs.
    Interrupted,
}

impl Process {
    /// What a later executor has to know of it.
    pub fn note(&self) -> ProcessNote {
        let Self { is_armed, timeout, cancelling, sent_sigkill, valid_codes, traits, .. } = self;
        let (is_armed, timeout, cancelling) = (*is_armed, *timeout, *cancelling);
        ProcessNote {
            is_armed,
            has_terminal: traits.has_terminal,
            timeout,
            cancelling,
            sent_sigkill: *sent_sigkill,
            valid_codes: valid_codes.clone(),
        }
    }

    /// A process as another executor has left it. Its cancel goes on: a signal that was sent is not sent again.
    pub fn adopted(
        now: Timestamp,
        traits: ProcessTraits,
        note: ProcessNote,
        how: Inherited,
    ) -> (Self, Effects<ProcessEffect>) {
        let ProcessNote { is_armed, has_terminal: _, timeout, cancelling, sent_sigkill, valid_codes } = note;
        let mut process =
            Self { is_armed, timeout, cancelling, sent_sigkill, valid_codes, ..Self::new(traits) };
        let effects = match how {
            Inherited::Interrupted => vec![process.never_ran(now, interrupted(cancelling))],
            Inherited::Created { pid } => {
                process.state = State::Created { pid };
                let kill = cancelling.map(|Cancelling { cancel, .. }| process.kill(now, cancel));
                [ProcessEffect::Watch].into_iter().chain(kill).collect()
            }
            Inherited::Running { pid, started_at } => {
                process.state = State::Running { pid, started_at };
                let pending = match cancelling {
                    Some(Cancelling {
                        cancel,
                        stage: CancelStage::Pending { .. } | CancelStage::Abandoning,
                    }) => Some(process.begin_cancel(now, cancel)),
                    Some(Cancelling {
                        stage: CancelStage::Signalled { .. } | CancelStage::Killed { .. },
                        ..
                    })
                    | None => None,
                };
                [ProcessEffect::Watch].into_iter().chain(pending).collect()
            }
        };
        (process, effects.into())
    }
}

fn interrupted(cancelling: Option<Cancelling>) -> ExitReason {
    match cancelling {
        Some(Cancelling { cancel, stage }) => {
            cancelled(cancel.cause, matches!(stage, CancelStage::Killed { .. }))
        }
        None => ExitReason::StartFailed(StartFailure::new(
            StartFailureKind::Interrupted,
            "the executor ended while it was starting the process",
        )),
    }
}
