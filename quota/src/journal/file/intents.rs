//! The places of names that are being made.
//!
//! An intent whose end is written with the record of what was made leaves its place as it is: *void*, not marked free. The
//! record that voids it goes with its epoch, so void places are marked before the chunks of an epoch are used again
//! ([`Intents::clear_void`]), or written over by the next intent.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::inode::InodeId;
use crate::journal::IntentSlot;
use crate::journal::format::{INTENT, INTENTS, Intent, free_place, intent_start};

/// All places.
#[derive(Debug)]
pub(super) struct Intents {
    /// Those that are not in use; the one used last comes first again.
    free: Vec<usize>,
    /// Of the free ones those that are not marked so.
    void: Vec<usize>,
    /// The last number that was given.
    last: u64,
}

impl Default for Intents {
    fn default() -> Self {
        Self {
            free: (0..INTENTS).rev().collect(),
            void: Vec::new(),
            last: 0,
        }
    }
}

impl Intents {
    /// Writes an intent. It stands when this returns, so a void place is never left to nobody.
    pub(super) fn write(
        &mut self,
        file: &File,
        parent: &InodeId,
        name: &[u8],
    ) -> io::Result<IntentSlot> {
        let no_room = || io::Error::other("more operations in flight than it has room for");
        let place = self.free.pop().ok_or_else(no_room)?;
        let number = self.last.saturating_add(1);
        let at = intent_start(place);
        let bytes = Intent::encode(parent, number, name, at).ok_or_else(no_room)?;
        file.write_all_at(&bytes, at)?;
        self.last = number;
        self.void.retain(|&void| void != place);
        Ok(IntentSlot { place, number })
    }

    /// What was to be made never will be, or is known without a record of this file.
    pub(super) fn end(&mut self, file: &File, slot: IntentSlot) -> io::Result<()> {
        mark_free(file, slot.place)?;
        self.free.push(slot.place);
        Ok(())
    }

    /// A record says that it ended.
    pub(super) fn end_by_record(&mut self, slot: IntentSlot) {
        self.void.push(slot.place);
        self.free.push(slot.place);
    }

    /// Marks what is void: before the records that say so may be written over.
    pub(super) fn clear_void(&mut self, file: &File) -> io::Result<()> {
        while let Some(&place) = self.void.last() {
            mark_free(file, place)?;
            self.void.pop();
        }
        Ok(())
    }
}

fn mark_free(file: &File, place: usize) -> io::Result<()> {
    let at = intent_start(place);
    file.write_all_at(&free_place::<INTENT>(at), at)
}
