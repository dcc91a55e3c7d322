//! The identity of an inode as the journal names it, and what the totals hold for it.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::subject::Owner;
use crate::usage::Usage;

/// Identity of a file underneath: inode number and kernel file handle, kept in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InodeId {
    ino: u64,
    handle_type: i32,
    length: u8,
    handle: [u8; InodeId::HANDLE_MAX],
}

impl InodeId {
    /// Most bytes of a kernel handle that fit.
    pub const HANDLE_MAX: usize = 40;

    /// An identity; an empty handle is none, and one longer than [`Self::HANDLE_MAX`] is treated as none: the
    /// inode number must do then.
    ///
    /// # Source
    /// `name_to_handle_at(2)`. Handles of ext4, xfs and btrfs have 8 to 40 bytes.
    pub fn new(ino: u64, handle_type: i32, handle: &[u8]) -> Self {
        let none = Self {
            ino,
            handle_type: 0,
            length: 0,
            handle: [0; Self::HANDLE_MAX],
        };
        let mut inline = none.handle;
        let (Some(target), Ok(length)) =
            (inline.get_mut(..handle.len()), u8::try_from(handle.len()))
        else {
            return none;
        };
        if length == 0 {
            return none;
        }
        target.copy_from_slice(handle);
        Self {
            handle_type,
            length,
            handle: inline,
            ..none
        }
    }

    /// The inode number.
    pub const fn ino(&self) -> u64 {
        self.ino
    }

    /// Type and bytes of the kernel handle, where there is one.
    pub fn handle(&self) -> Option<(i32, &[u8])> {
        let bytes = self.handle.get(..usize::from(self.length))?;
        (!bytes.is_empty()).then_some((self.handle_type, bytes))
    }
}

/// Of the bytes that count only: an identity is looked for with every change.
impl Hash for InodeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.ino);
        if let Some((_, handle)) = self.handle() {
            state.write(handle);
        }
    }
}

impl fmt::Debug for InodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InodeId")
            .field("ino", &self.ino)
            .field("handle", &self.handle())
            .finish()
    }
}

/// What the totals hold for one inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Charged {
    /// To whom.
    pub owner: Owner,
    /// How much.
    pub usage: Usage,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_kept_whole_or_not_at_all() {
        let handle = [7u8; InodeId::HANDLE_MAX];
        assert_eq!(InodeId::new(1, 3, &handle).handle(), Some((3, &handle[..])));
        assert_eq!(
            InodeId::new(1, 3, &[7; InodeId::HANDLE_MAX + 1]).handle(),
            None
        );
        assert_eq!(InodeId::new(1, 3, &[7; 300]).handle(), None);
        assert_eq!(InodeId::new(9, 3, &[]), InodeId::new(9, 4, &[]));
        assert_eq!(InodeId::new(9, 3, &[]).ino(), 9);
    }
}
