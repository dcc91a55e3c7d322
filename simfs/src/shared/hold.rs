//! What is held by number for a node: descriptors in the keeper, backing files in the kernel.

use super::table::{Found, Place};
use crate::id::NodeId;

/// Something that is held by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The keeper's descriptor of an inode whose last name goes, or is gone.
    Pin(u32),
    /// The kernel's number of a backing file.
    Backing(u32),
    /// The keeper's descriptor of an open file that cannot be opened for writing any more.
    Spare(u32),
}

impl Hold {
    /// The id and the second payload word of its record.
    pub(super) fn to_words(self) -> (u64, u64) {
        match self {
            Self::Pin(number) => (u64::from(number) + 1, 1),
            Self::Backing(number) => (u64::from(number) + 1, 2),
            Self::Spare(number) => (u64::from(number) + 1, 3),
        }
    }

    /// Reads a record: what is held, and for which node.
    pub fn of(record: &Found<2>) -> Option<(Self, NodeId)> {
        let [node, kind] = record.payload;
        let number = u32::try_from(record.id.checked_sub(1)?).ok()?;
        let hold = match kind {
            1 => Self::Pin(number),
            2 => Self::Backing(number),
            3 => Self::Spare(number),
            _ => return None,
        };
        Some((hold, NodeId::new(node)))
    }
}

/// A descriptor in the keeper, and the record of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it is held until it is withdrawn"]
pub struct Deposit {
    /// The keeper's number.
    pub number: u32,
    /// The record.
    pub place: Place,
}
