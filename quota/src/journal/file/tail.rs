//! Where the next records of a journal file go: chunks, each of one epoch, by which the file grows and shrinks.
//!
//! Invariant: a chunk is used again only after a commit that made all its records void.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};

use crate::journal::format::{
    CHUNK, CHUNK_RECORDS, CHUNKS_AT, HEADER, Header, INTENT, INTENTS, RECORD,
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
    /// Places of names that are not in use.
    pub(super) free_intents: Vec<usize>,
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
        fallocate(file, FallocateFlags::empty(), 0, as_u64(CHUNKS_AT)?)?;
        let tail = Self {
            identity,
            epoch: Epoch::default(),
            chunks: 0,
            free: BTreeSet::new(),
            current: Vec::new(),
            filled: CHUNK_RECORDS,
            earlier: Vec::new(),
            free_intents: (0..INTENTS).rev().collect(),
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
        let at = chunk_start(chunk)?.saturating_add(as_u64(self.filled * RECORD)?);
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
        file.set_len(chunk_start(self.chunks)?)
    }

    fn new_chunk(&mut self, file: &File) -> io::Result<u32> {
        if let Some(chunk) = self.free.pop_first() {
            return Ok(chunk);
        }
        let chunk = self.chunks;
        let (start, length) = (chunk_start(chunk)?, as_u64(CHUNK)?);
        fallocate(file, FallocateFlags::empty(), start, length)?;
        self.chunks = chunk.saturating_add(1);
        self.write_header(file, true)
            .inspect_err(|_| self.chunks = chunk)?;
        Ok(chunk)
    }
}

/// Where the place of a name starts.
pub(super) fn intent_start(slot: usize) -> io::Result<u64> {
    as_u64(HEADER + slot * INTENT)
}

fn chunk_start(chunk: u32) -> io::Result<u64> {
    Ok(as_u64(CHUNKS_AT)?.saturating_add(u64::from(chunk).saturating_mul(as_u64(CHUNK)?)))
}

fn as_u64(number: usize) -> io::Result<u64> {
    u64::try_from(number).map_err(io::Error::other)
}
