//! Correcting the totals after a mount that ended without its last commit.
//!
//! Each inode that the journal names is looked at, and the totals take in the difference to what they held for it; so is
//! each name that was being made. The time depends on the number of these, not on that of the files.
//!
//! Invariant: totals of the last commit + what is returned = what the inodes occupy now.

use std::collections::HashMap;
use std::io;

use crate::inode::{Charged, InodeId};
use crate::journal::{Epoch, Image};
use crate::request::Change;

/// Looks at the inodes of a private area.
pub trait Look {
    /// What an inode occupies; `None` where it is gone.
    ///
    /// # Errors
    /// Where that cannot be said.
    fn inode(&self, inode: &InodeId) -> io::Result<Option<Charged>>;

    /// The inode under a name, and what it occupies; `None` where there is none.
    ///
    /// # Errors
    /// Where that cannot be said.
    fn name(&self, parent: &InodeId, name: &[u8]) -> io::Result<Option<(InodeId, Charged)>>;
}

/// What the totals of this commit miss, going by the journal: one change for each inode that was touched, also where
/// it is what it was.
///
/// # Errors
/// The first look that failed; the VE must be recounted then.
pub fn missed(image: &Image, epoch: Epoch, look: &dyn Look) -> io::Result<Vec<Change>> {
    let mut touched = image.touched_since(epoch);
    let mut made = HashMap::new();
    for (parent, name) in image.intents() {
        // One that has a record was settled, or was there before.
        if let Some((inode, charged)) = look.name(parent, name)?
            && !touched.contains_key(&inode)
        {
            made.insert(inode, charged);
        }
    }
    touched.extend(made.keys().map(|&inode| (inode, None)));
    let change = |(inode, before)| {
        let after = match made.get(&inode) {
            Some(&charged) => Some(charged),
            None => look.inode(&inode)?,
        };
        Ok(Change {
            inode,
            before,
            after,
        })
    };
    touched.into_iter().map(change).collect()
}
