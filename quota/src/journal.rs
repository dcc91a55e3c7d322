//! What remembers, outside this process, the inodes that were touched since the last commit.
//!
//! The stored totals are those of the last commit. After the process died, the inodes that the journal names are
//! looked at again, and the totals corrected by the difference ([`crate::recovery`]).
//!
//! Rules for an implementation:
//! 1. [`Journal::settle`] is called in one step with the change of the totals, and [`Journal::rotate`] when none is under
//!    way; none of the two may block for long, and no method may change totals but [`Journal::carry`].
//! 2. What was begun and has not ended when [`Journal::rotate`] is called belongs to the new epoch as well, and is
//!    remembered there when [`Journal::carry`] has returned, or when anything of it changes, whichever comes first.
//! 3. Nothing is forgotten before [`Journal::committed`]: a commit that failed may be durable or not.
//! 4. One that cannot remember any more says so ([`Journal::is_sound`]), and leaves word of it for the next process.

mod file;
mod format;
mod image;

use serde::{Deserialize, Serialize};

use crate::inode::{Charged, InodeId};
use crate::request::Change;
use crate::subject::VeId;

pub use file::FileJournal;
pub use image::{Image, Unusable};

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

/// To what a journal belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The VE.
    pub ve: VeId,
    /// The boot of the host, without which memory is lost, and the private area, without which file handles mean nothing. At
    /// most 64 bytes count.
    pub boot: String,
    /// A number of the journal's own, which the store names as long as the journal counts.
    pub session: u64,
}

/// A name that is about to be made: where the journal says so, and a number that it gives once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntentSlot {
    pub(crate) place: usize,
    pub(crate) number: u64,
}

/// Remembers touched inodes beyond the life of the process.
pub trait Journal: Send + Sync {
    /// These inodes may change from now on; with each, what the totals hold for it.
    fn begin(&self, touched: &[(InodeId, Option<Charged>)]);

    /// A new inode may appear under this name, where there is none now.
    fn intend(&self, parent: &InodeId, name: &[u8]) -> Option<IntentSlot> {
        let _ = (parent, name);
        None
    }

    /// The totals are about to take these changes in. One of them may be the inode that was made under a name; returns
    /// whether the end of that is remembered with the change, so that [`Journal::end`] need not hear of it.
    fn settle(&self, changes: &[Change], intent: Option<IntentSlot>) -> bool;

    /// What was begun for these inodes has ended; the name that was to be made is made, or never will be.
    fn end(&self, touched: &[InodeId], intent: Option<IntentSlot>) {
        let _ = (touched, intent);
    }

    /// A recount found that an inode occupies something else than the totals hold, and is about to replace them.
    fn restate(&self, inode: &InodeId, charged: Option<Charged>) {
        let _ = (inode, charged);
    }

    /// The commit with this number holds everything up to now; what follows is not in it.
    fn rotate(&self, epoch: Epoch);

    /// Takes what goes on over into the epoch that has begun. Called once after each [`Journal::rotate`], before the
    /// commit is made, while everybody works on.
    fn carry(&self) {}

    /// The commit with this number is durable: what came before its [`Journal::rotate`] may be forgotten.
    fn committed(&self, epoch: Epoch);

    /// What lies below has lost something: what is remembered does not say any more what the totals miss.
    fn distrust(&self) {}

    /// Whether all that was said is remembered.
    fn is_sound(&self) -> bool {
        true
    }

    /// Whether a commit soon would keep it small.
    fn wants_commit(&self) -> bool {
        false
    }
}

/// Remembers nothing: for tools that change no files, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoJournal;

impl Journal for NoJournal {
    fn begin(&self, _touched: &[(InodeId, Option<Charged>)]) {}

    fn settle(&self, _changes: &[Change], _intent: Option<IntentSlot>) -> bool {
        true
    }

    fn rotate(&self, _epoch: Epoch) {}

    fn committed(&self, _epoch: Epoch) {}

    fn is_sound(&self) -> bool {
        false
    }
}
