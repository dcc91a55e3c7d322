//! Places for records: chunks are taken and given back by shards, places within them by records.

use std::io;
use std::sync::atomic::Ordering;

use super::super::board::Grown;
use super::super::layout::{CHUNKS, DIRECTORY, NODES, PAGE, sealed_number};
use super::{NodeRecords, Shard, Slot, directory_kind, parts_of, shard_of, size, slot_of};
use crate::id::NodeId;

impl NodeRecords {
    pub(super) fn vacate(&self, shard: &mut Shard, slot: Slot) {
        self.map.word(self.at(slot)).store(0, Ordering::Release);
        let (chunk, place) = parts_of(slot);
        if let Some(taken) = shard.chunks.get_mut(&chunk) {
            *taken &= !(1 << place);
        }
        shard.hint = shard.hint.min(chunk);
    }

    pub(super) fn clear(&self, shard: &mut Shard, slot: Slot) {
        self.vacate(shard, slot);
        // The last chunk goes when it is empty; new records take the first free places, so chunks do get empty.
        while shard.chunks.len() > 1
            && let Some(last) = shard.chunks.last_entry().filter(|last| *last.get() == 0)
        {
            let chunk = last.remove_entry().0;
            self.give_chunk_back(chunk);
        }
    }

    pub(super) fn take_place(&self, shard: &mut Shard, id: NodeId) -> io::Result<Slot> {
        let full = u128::MAX >> (128 - self.places());
        let hint = shard.hint;
        let found = shard
            .chunks
            .range_mut(hint..)
            .find(|(_, taken)| **taken != full);
        let (chunk, taken) = match found {
            Some((chunk, taken)) => (*chunk, taken),
            None => {
                let chunk = self.take_chunk(id)?;
                (chunk, shard.chunks.entry(chunk).or_insert(0))
            }
        };
        let place = taken.trailing_ones();
        *taken |= 1 << place;
        shard.hint = chunk;
        Ok(slot_of(chunk, place))
    }

    fn take_chunk(&self, id: NodeId) -> io::Result<u32> {
        let mut chunks = self.chunks.lock();
        let chunk = match chunks.list.pop() {
            Some(chunk) => chunk,
            None if size(chunks.next) >= CHUNKS => {
                return Err(io::Error::from_raw_os_error(libc::ENOMEM));
            }
            None => {
                if size(chunks.next) >= chunks.directory_pages * PAGE {
                    let page = DIRECTORY.start + chunks.directory_pages * PAGE;
                    self.map.allocate(page, PAGE)?;
                    chunks.directory_pages += 1;
                }
                chunks.next += 1;
                self.board.set_grown(Grown::Chunks, chunks.next);
                chunks.next - 1
            }
        };
        if let Err(error) = self.map.allocate(NODES.start + size(chunk) * PAGE, PAGE) {
            chunks.list.push(chunk);
            return Err(error);
        }
        drop(chunks);
        let shard = u32::try_from(shard_of(id.get())).unwrap_or(0);
        self.map.word(DIRECTORY.start + size(chunk)).store(
            sealed_number(directory_kind(chunk), shard),
            Ordering::Release,
        );
        Ok(chunk)
    }

    fn give_chunk_back(&self, chunk: u32) {
        let entry = self.map.word(DIRECTORY.start + size(chunk));
        entry.store(0, Ordering::Release);
        // One that keeps its room is used again.
        let _ = self.map.free(NODES.start + size(chunk) * PAGE, PAGE);
        self.chunks.lock().list.push(chunk);
    }
}
