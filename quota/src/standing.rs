//! Whether the stored totals are the last word.

use crate::journal::Epoch;

/// How far the stored totals can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// They hold everything: nobody has had the VE in service since.
    #[default]
    Final,
    /// A mount is in service, or ended without a last commit: what they miss is in its journal.
    Journaled {
        /// The number of the journal.
        session: u64,
        /// The last commit of the mount.
        epoch: Epoch,
    },
    /// Nobody knows what they miss: they must be counted anew.
    Unknown {
        /// The number of the journal that is being written all the same.
        session: u64,
    },
}
