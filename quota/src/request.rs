//! The words of a request: what is wanted of which accounts, and what has become of an inode.

use crate::inode::{Charged, InodeId};
use crate::subject::{Gid, Owner, Uid};
use crate::usage::Usage;

/// The accounts that a want concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// The VE's; not where space only changes its owner.
    pub ve: bool,
    /// A user's.
    pub uid: Option<Uid>,
    /// A group's.
    pub gid: Option<Gid>,
}

impl Accounts {
    /// All three accounts of an owner.
    pub const fn of(owner: Owner) -> Self {
        Self {
            ve: true,
            uid: Some(owner.uid),
            gid: Some(owner.gid),
        }
    }
}

/// An amount that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Of whom.
    pub accounts: Accounts,
    /// How much.
    pub usage: Usage,
}

impl Want {
    /// An amount on all three accounts of an owner.
    pub const fn new(owner: Owner, usage: Usage) -> Self {
        Self {
            accounts: Accounts::of(owner),
            usage,
        }
    }
}

/// One inode before and after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub inode: InodeId,
    /// What the totals hold for it; `None`: it did not exist yet.
    pub before: Option<Charged>,
    /// What they are to hold; `None`: it does not exist any more.
    pub after: Option<Charged>,
}
