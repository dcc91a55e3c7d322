//! Open files by the number that the kernel was given. Directories it opens without asking.
//!
//! Numbers count up and are never reused while the mount lives, so a late request names nothing else. A file that is
//! read by passthrough needs no descriptor here; one is opened on first use. Of each there is a record in
//! [`crate::shared`], from which a successor opens it again.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::error::{FsError, FsResult};
use crate::node::{Node, NodeId};
use crate::open::{Access, IoMode};
use crate::shared::{Found, HandleRoom, Place, Shared};

pub use crate::id::HandleId;

/// An open file.
#[derive(Debug)]
pub struct OpenFile {
    /// What is open.
    pub node: Arc<Node>,
    /// What for.
    pub access: Access,
    /// Whether its writes pass the kernel's cache by.
    pub direct: bool,
    /// Whether the kernel reads from the backing file by itself.
    pub passthrough: bool,
    /// Whether its file could be opened for appending only.
    pub appends: bool,
    /// Whether each change is to be on the disk before it is answered (O_SYNC, O_DSYNC).
    pub sync: bool,
    /// Whether content was changed through it.
    pub changed: AtomicBool,
    /// Opened on first use.
    pub fd: Mutex<Option<Arc<OwnedFd>>>,
}

impl OpenFile {
    /// Whether a mapping of it stores into the backing file unseen.
    pub fn maps_backing(&self) -> bool {
        self.passthrough && self.access == Access::ReadWrite
    }

    /// Content is about to be changed through it.
    pub fn note_change(&self) {
        if !self.is_changed() {
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    /// Whether content was changed through it.
    pub fn is_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    fn kept(&self) -> Kept {
        Kept {
            access: self.access,
            direct: self.direct,
            passthrough: self.passthrough,
            appends: self.appends,
            sync: self.sync,
        }
    }

    /// How it does its I/O.
    pub fn mode(&self) -> IoMode {
        match (self.passthrough, self.direct) {
            (true, _) => IoMode::Passthrough,
            (false, true) => IoMode::Direct,
            (false, false) => IoMode::Cached,
        }
    }
}

/// What a successor must know of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What for.
    pub access: Access,
    /// Whether its writes pass the kernel's cache by.
    pub direct: bool,
    /// Whether the kernel reads from the backing file by itself.
    pub passthrough: bool,
    /// Whether its file could be opened for appending only.
    pub appends: bool,
    /// Whether each change is to be on the disk before it is answered.
    pub sync: bool,
}

impl Kept {
    const FILE: u64 = 1;

    fn to_word(self) -> u64 {
        let access = match self.access {
            Access::Read => 0,
            Access::Write => 1,
            Access::ReadWrite => 2,
        };
        let bits = [self.direct, self.passthrough, self.appends, self.sync].map(u64::from);
        Self::FILE | access << 8 | bits[0] << 16 | bits[1] << 17 | bits[2] << 18 | bits[3] << 19
    }

    fn from_word(word: u64) -> Option<Self> {
        let bit = |bit: u32| word >> bit & 1 == 1;
        let kept = Self {
            access: match word >> 8 & 0xff {
                0 => Access::Read,
                1 => Access::Write,
                2 => Access::ReadWrite,
                _ => return None,
            },
            direct: bit(16),
            passthrough: bit(17),
            appends: bit(18),
            sync: bit(19),
        };
        (kept.to_word() == word).then_some(kept)
    }

    /// Reads the record of a predecessor: number, node and the rest.
    pub fn of(record: &Found<2>) -> Option<(HandleId, NodeId, Self)> {
        let [node, word] = record.payload;
        let kept = Self::from_word(word)?;
        Some((HandleId::new(record.id), NodeId::new(node), kept))
    }
}

/// All that the guest has open.
#[derive(Debug)]
pub struct Handles {
    shared: Arc<Shared>,
    table: DashMap<HandleId, (Arc<OpenFile>, Place)>,
}

impl Handles {
    /// Nothing is open yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            table: DashMap::new(),
        }
    }

    /// Has room for one more; to be asked for before anything is done that cannot be taken back.
    ///
    /// # Errors
    /// ENOMEM where too many are open, or no memory is left.
    pub fn make_room(&self) -> io::Result<HandleRoom<'_>> {
        self.shared.handles().make_room()
    }

    /// Adds an open file; its number is new. `announce` is told it before the record is there: a number without a record can
    /// be taken back, a record whose number nobody told would stay.
    pub fn insert(
        &self,
        room: HandleRoom<'_>,
        open: OpenFile,
        announce: impl FnOnce(HandleId),
    ) -> HandleId {
        let id = self.shared.board().next_handle();
        announce(HandleId::new(id));
        let payload = [open.node.id().get(), open.kept().to_word()];
        let place = room.put(id, payload);
        self.table
            .insert(HandleId::new(id), (Arc::new(open), place));
        HandleId::new(id)
    }

    /// Adds one that a predecessor opened.
    pub fn adopt(&self, id: HandleId, open: OpenFile, place: Place) {
        self.table.insert(id, (Arc::new(open), place));
    }

    /// What a number stands for.
    ///
    /// # Errors
    /// [`FsError::UnknownHandle`] for a number that is not open.
    pub fn get(&self, id: HandleId) -> FsResult<Arc<OpenFile>> {
        match self.table.get(&id) {
            Some(entry) => Ok(entry.0.clone()),
            None => Err(FsError::UnknownHandle(id)),
        }
    }

    /// Takes a number out of use. Its record stays until the caller has undone what the opening did, so that a successor
    /// can do it if the caller cannot: see [`Self::forget`].
    pub fn remove(&self, id: HandleId) -> Option<(Arc<OpenFile>, Place)> {
        self.table.remove(&id).map(|(_, entry)| entry)
    }

    /// Removes the record of a number that is out of use.
    pub fn forget(&self, place: Place) {
        self.shared.handles().remove(place);
    }

    /// The numbers that are in use.
    pub fn ids(&self) -> Vec<HandleId> {
        self.table.iter().map(|entry| *entry.key()).collect()
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_back_and_nothing_else_does() {
        let accesses = [Access::Read, Access::Write, Access::ReadWrite];
        for kept in accesses.map(|access| Kept {
            access,
            direct: access.writes(),
            passthrough: access == Access::ReadWrite,
            appends: access == Access::Write,
            sync: access == Access::ReadWrite,
        }) {
            assert_eq!(Kept::from_word(kept.to_word()), Some(kept));
        }
        for word in [0, 2, 3, 1 | 3 << 8, 1 << 20 | 1, 2 | 1 << 8, u64::MAX] {
            assert_eq!(Kept::from_word(word), None, "{word:x}");
        }
    }
}
