//! Where the next records of a journal file go: chunks, each of one epoch, by which the file grows and shrinks.
//!
//! Invariants:
//! 1. A chunk is used again only after a commit that made all its records void.
//! 2. Each place that the header counts is marked free or holds a record: a chunk is marked before it is counted.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::journal::format::{
    CHUNK_RECORDS, Header, INTENT, INTENTS, RECORD, chunk_start, free_places, intent_start,
    record_start,
};
use crate::journal::{Epoch, Identity};

/// Free chunks that stay allocated in any case.
const SPARE_CHUNKS: usize = 16;

/// The layout of the file.
#[derive(Debug)]
pub(super) struct Tail {
    identity: Identity,
    epoch: Epoch,
    /// Chunks in the file.
    chunks: u32,
    free: BTreeSet<u32>,
    /// The chunks of this epoch; the last is being filled.
    current: Vec<u32>,
    /// Records in the last of them.
    filled: usize,
    /// Chunks of earlier epochs that are not committed yet.
    earlier: Vec<(Epoch, Vec<u32>)>,
}

/// Room for some records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Where it starts.
    pub(super) at: u64,
    /// For how many.
    pub(super) records: usize,
}

impl Tail {
    /// An empty file gets its header.
    pub(super) fn create(file: &File, identity: Identity) -> io::Result<Self> {
        let at = intent_start(0);
        file.write_all_at(&free_places::<INTENT>(INTENTS, at), at)?;
        let tail = Self {
            identity,
            epoch: Epoch::default(),
            chunks: 0,
            free: BTreeSet::new(),
            current: Vec::new(),
            filled: CHUNK_RECORDS,
            earlier: Vec::new(),
        };
        tail.write_header(file, true)?;
        Ok(tail)
    }

    /// Writes the header; its page is allocated, so this finds room.
    pub(super) fn write_header(&self, file: &File, sound: bool) -> io::Result<()> {
        let header = Header {
            identity: self.identity.clone(),
            chunks: self.chunks,
            sound,
        };
        file.write_all_at(&header.encode(), 0)
    }

    /// Takes room for so many records of this epoch, or for as many as fit into the chunk at hand.
    pub(super) fn take(&mut self, file: &File, records: usize) -> io::Result<Room> {
        if self.filled >= CHUNK_RECORDS {
            let chunk = self.new_chunk(file)?;
            self.current.push(chunk);
            self.filled = 0;
        }
        let records = records.min(CHUNK_RECORDS - self.filled);
        let chunk = self.current.last().copied().unwrap_or(0);
        let at = record_start(chunk, self.filled);
        self.filled += records;
        Ok(Room { at, records })
    }

    /// Begins an epoch.
    pub(super) fn rotate(&mut self, epoch: Epoch) {
        let before = std::mem::replace(&mut self.epoch, epoch);
        let chunks = std::mem::take(&mut self.current);
        self.earlier.push((before, chunks));
        self.filled = CHUNK_RECORDS;
    }

    /// What came before this epoch may be forgotten; gives back the room of a burst.
    pub(super) fn committed(&mut self, file: &File, epoch: Epoch, sound: bool) -> io::Result<()> {
        let free = &mut self.free;
        self.earlier.retain_mut(|(of, chunks)| {
            let keep = *of >= epoch;
            if !keep {
                free.extend(chunks.drain(..));
            }
            keep
        });
        let before = self.chunks;
        // What this epoch began with, the next one will, too.
        let spare = self.current.len().max(SPARE_CHUNKS);
        while self.free.len() > spare
            && let Some(last) = self.chunks.checked_sub(1)
            && self.free.remove(&last)
        {
            self.chunks = last;
        }
        if self.chunks == before || !sound {
            return Ok(());
        }
        self.write_header(file, true)?;
        file.set_len(chunk_start(self.chunks))
    }

    fn new_chunk(&mut self, file: &File) -> io::Result<u32> {
        if let Some(chunk) = self.free.pop_first() {
            return Ok(chunk);
        }
        let chunk = self.chunks;
        // Takes the room, too: a record overwrites what is there.
        let at = chunk_start(chunk);
        file.write_all_at(&free_places::<RECORD>(CHUNK_RECORDS, at), at)?;
        self.chunks = chunk.saturating_add(1);
        self.write_header(file, true)
            .inspect_err(|_| self.chunks = chunk)?;
        Ok(chunk)
    }
}
