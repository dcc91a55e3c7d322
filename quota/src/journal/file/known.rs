//! What a journal knows of the inodes it names: what the totals hold for each now, and how many operations may change it.
//!
//! When an epoch begins, all of it belongs to the one before. What is still pinned must be named in the new epoch too,
//! with what the totals held when that began; it is carried over a stride at a time ([`Known::stride`]), or earlier,
//! before anything changes it ([`Known::touch`]).
//!
//! Invariant: an inode is in one of the two maps; in `present` exactly those with a record of the present epoch.                 (pure)

use std::collections::HashMap;

use crate::inode::{Charged, InodeId};

use crate::journal::Epoch;
use crate::journal::format::Entry;

/// Some of the inodes.
#[derive(Debug, Default)]
pub(super) struct Known {
    epoch: Epoch,
    present: HashMap<InodeId, Inode>,
    /// Of the epoch before, and not carried over yet.
    earlier: HashMap<InodeId, Inode>,
}

/// One inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inode {
    /// What the totals hold now.
    pub(super) charged: Option<Charged>,
    /// How many operations may still change it.
    pub(super) pins: u32,
}

/// An inode that is named for the first time in an epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    pub(super) inode: InodeId,
    /// What the totals hold for it.
    pub(super) held: Option<Charged>,
    /// What is known of it from now on.
    pub(super) known: Inode,
    /// The intent that led to it.
    pub(super) ends: Option<u64>,
}

/// Whether an inode is named in the present epoch.
#[derive(Debug)]
pub(super) enum Touched<'a> {
    /// It has a record.
    Named(&'a mut Inode),
    /// It gets one now; `entry` must be written before anything changes.
    Carried(&'a mut Inode, Entry),
    /// It is not known: see [`Known::insert`].
    Unknown,
}

impl Known {
    /// Finds an inode, and takes it over into the present epoch.
    pub(super) fn touch(&mut self, inode: &InodeId) -> Touched<'_> {
        let Some(earlier) = self.earlier.remove(inode).filter(|found| found.pins > 0) else {
            return match self.present.get_mut(inode) {
                Some(found) => Touched::Named(found),
                None => Touched::Unknown,
            };
        };
        let entry = Entry {
            inode: *inode,
            charged: earlier.charged,
            epoch: self.epoch,
            ends: None,
        };
        Touched::Carried(self.present.entry(*inode).or_insert(earlier), entry)
    }

    /// Takes an inode in that is named for the first time; what is to be written for it.
    pub(super) fn insert(&mut self, first: First) -> Entry {
        self.present.insert(first.inode, first.known);
        Entry {
            inode: first.inode,
            charged: first.held,
            epoch: self.epoch,
            ends: first.ends,
        }
    }

    /// One operation on an inode has ended.
    pub(super) fn unpin(&mut self, inode: &InodeId) {
        let found = match self.present.get_mut(inode) {
            Some(found) => Some(found),
            None => self.earlier.get_mut(inode),
        };
        if let Some(found) = found {
            found.pins = found.pins.saturating_sub(1);
        }
    }

    /// Begins an epoch.
    pub(super) fn rotate(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        let present = std::mem::take(&mut self.present);
        if self.earlier.is_empty() {
            self.earlier = present;
        } else {
            self.earlier.extend(present);
        }
    }

    /// Carries over up to so many inodes, and forgets those that nobody may change; what is to be written for them, or
    /// `None` where there is nothing left to do.
    pub(super) fn stride(&mut self, length: usize) -> Option<Vec<Entry>> {
        if self.earlier.is_empty() {
            // Gives the memory back, too.
            self.earlier = HashMap::new();
            return None;
        }
        // While it is small: to move what is there already into more room takes time.
        let coming = self.earlier.len();
        self.present.reserve(coming);
        let mut entries = Vec::with_capacity(length.min(coming));
        for (inode, known) in self.earlier.extract_if(|_, _| true).take(length) {
            if known.pins > 0 {
                self.present.insert(inode, known);
                let (charged, epoch) = (known.charged, self.epoch);
                entries.push(Entry {
                    inode,
                    charged,
                    epoch,
                    ends: None,
                });
            }
        }
        Some(entries)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.present = HashMap::new();
        self.earlier = HashMap::new();
    }
}
