//! Refusals, faults, and what an administrative verb says when it worked.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::subject::Subject;
use crate::usage::Resource;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DenyReason {
    /// It would have passed the hard limit.
    HardLimit,
    /// It would have ended above the soft limit, and the time for that is over.
    GraceExpired,
    /// The account could not be read from the store, so nobody knows whether it fits.
    AccountUnavailable,
}

/// A refusal: not a fault, the answer to a request that does not fit.
///
/// # Source
/// Every reason is `EDQUOT` to the caller, as in OpenVZ kernel `fs/quota/vzdquota/vzdq_ops.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{subject}: no {resource} left: {used} of {limit} used ({reason:?})")]
pub struct Denied {
    /// Whose account refused.
    pub subject: Subject,
    /// For want of what.
    pub resource: Resource,
    /// What is charged to the account, in bytes or inodes.
    pub used: u64,
    /// The limit that decided; the soft one where its grace is over.
    pub limit: u64,
    /// Why.
    pub reason: DenyReason,
}

/// Why a verb that needs the store, or an administrator's order, was not carried out. Nothing changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The store is empty.
    #[error("the VE has no quota record")]
    NoRecord,
    /// The store has a record, and a new one would overwrite it.
    #[error("the VE has a quota record already")]
    RecordExists,
    /// The first level demands soft <= hard.
    #[error("soft limit {soft} above hard limit {hard} for {resource} of the VE")]
    SoftAboveHard {
        /// Of which resource.
        resource: Resource,
        /// The soft limit, in bytes or inodes.
        soft: u64,
        /// The hard limit.
        hard: u64,
    },
    /// The path of the private area cannot be stored.
    #[error("path of the private area is not UTF-8: {}", .0.display())]
    PrivateNotUtf8(PathBuf),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EngineError {
    /// Whether the store is damaged, so that salvage is the remedy.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_damage())
    }
}

/// What an administrative verb did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[must_use]
pub enum Changed {
    /// Nothing: everything was so already.
    No,
    /// What was asked for is durable and in force.
    Yes,
}

impl Changed {
    /// Whether something was changed.
    pub const fn is_yes(self) -> bool {
        matches!(self, Self::Yes)
    }
}
