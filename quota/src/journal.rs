//! The seam to what remembers, outside this process, the inodes that were touched since the last commit.
//!
//! The stored totals are those of the last commit. After the process died, the inodes that the journal names are
//! looked at again, and the totals corrected by the difference.
//!
//! Rules for an implementation:
//! 1. Every method but [`Journal::committed`] is called with the ledger locked, so in one order; it must not block and
//!    must not call the engine.
//! 2. What was begun and is not settled when [`Journal::rotate`] is called belongs to the new epoch as well.
//! 3. Nothing is forgotten before [`Journal::committed`]: a commit that failed may be durable or not.

use serde::{Deserialize, Serialize};

use crate::inode::{Charged, InodeId};
use crate::reservation::Change;

/// The number of a commit; each attempt has one of its own, larger than all before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// Wraps a plain number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Remembers touched inodes beyond the life of the process.
pub trait Journal: Send + Sync {
    /// A change was granted that may alter these inodes; with each, what the totals hold for it.
    fn begin(&self, touched: &[(InodeId, Option<Charged>)]);

    /// The totals are about to take these changes in.
    fn settle(&self, changes: &[Change]);

    /// The commit with this number holds everything up to now; what follows is not in it.
    fn rotate(&self, epoch: Epoch);

    /// The commit with this number is durable: what came before its [`Journal::rotate`] may be forgotten.
    fn committed(&self, epoch: Epoch);
}

/// Remembers nothing: for tools that change no files, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoJournal;

impl Journal for NoJournal {
    fn begin(&self, _touched: &[(InodeId, Option<Charged>)]) {}

    fn settle(&self, _changes: &[Change]) {}

    fn rotate(&self, _epoch: Epoch) {}

    fn committed(&self, _epoch: Epoch) {}
}
