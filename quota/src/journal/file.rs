//! A journal in a file that is never synced: the page cache outlives the process, not the host.
//!
//! Which records count: each says what the totals of one commit, its epoch, hold for an inode that was touched after
//! that commit. For a store at epoch S, the record of an inode with the lowest epoch from S on is the right
//! one: the inode was not touched between S and that epoch. Records below S are done with.
//!
//! The crash cases:
//! 1. A record is written before the change that it is for is made, or taken into the totals: an inode that may differ
//!    from the totals is always named.
//! 2. Between `rotate` and the end of the commit the store may be at the old epoch or the new one: the records of both
//!    are there.
//! 3. A write that fails turns the journal unsound, which the header says from then on: a recount is due.
//!
//! Bound: the records of the epochs since the last durable commit. A commit is asked for above [`CROWD`] new ones.
//! Lock order: after the ledger's; a leaf.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use crate::inode::{Charged, InodeId};
use crate::reservation::Change;
use crate::sync::Mutex;

use super::format::{
    CHUNK, CHUNK_RECORDS, CHUNKS_AT, Entry, HEADER, Header, INTENT, INTENTS, Intent, RECORD,
};
use super::{Epoch, Identity, IntentSlot, Journal};

/// New records above which a commit is asked for.
const CROWD: usize = 16_384;
/// Free chunks that stay allocated.
const SPARE_CHUNKS: usize = 16;

/// The journal of a VE in service.
#[derive(Debug)]
pub struct FileJournal {
    file: File,
    identity: Identity,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    epoch: Epoch,
    sound: bool,
    /// The inodes that have a record of this epoch.
    known: HashMap<InodeId, Known>,
    /// New records of this epoch, those carried over not counted.
    fresh: usize,
    /// Chunks in the file.
    chunks: u32,
    free: BTreeSet<u32>,
    /// The chunks of this epoch; the last is being filled.
    current: Vec<u32>,
    /// Records in the last of them.
    filled: usize,
    /// Chunks of earlier epochs that are not committed yet.
    earlier: Vec<(Epoch, Vec<u32>)>,
    free_intents: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// What the totals hold now.
    charged: Option<Charged>,
    /// How many operations may still change it.
    pins: u32,
}

impl FileJournal {
    /// Makes an empty journal; a file that is there already is replaced.
    ///
    /// # Errors
    /// The file system's own.
    pub fn create(path: &Path, identity: Identity) -> io::Result<Self> {
        let _ = std::fs::remove_file(path);
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let length = u64::try_from(CHUNKS_AT).map_err(io::Error::other)?;
        fallocate(&file, FallocateFlags::empty(), 0, length)?;
        let journal = Self {
            file,
            identity,
            state: Mutex::new(State {
                epoch: Epoch::default(),
                sound: true,
                known: HashMap::new(),
                fresh: 0,
                chunks: 0,
                free: BTreeSet::new(),
                current: Vec::new(),
                filled: CHUNK_RECORDS,
                earlier: Vec::new(),
                free_intents: (0..INTENTS).rev().collect(),
            }),
        };
        journal.write_header(0, true)?;
        Ok(journal)
    }

    /// The number by which the store names this journal.
    pub fn session(&self) -> u64 {
        self.identity.session
    }

    fn write_header(&self, chunks: u32, sound: bool) -> io::Result<()> {
        let header = Header {
            identity: self.identity.clone(),
            chunks,
            sound,
        };
        self.file.write_all_at(&header.encode(), 0)
    }

    /// From now on a crash needs a recount. The header's page is allocated, so this write finds room.
    fn give_up(&self, state: &mut State, error: &io::Error) {
        if state.sound {
            tracing::error!(%error, "the journal cannot be kept: after a crash the VE will be recounted");
        }
        state.sound = false;
        state.known = HashMap::new();
        if self.write_header(state.chunks, false).is_err() {
            // An empty file is no journal either.
            let _ = self.file.set_len(0);
        }
    }

    /// Appends records of the present epoch.
    fn append(&self, state: &mut State, entries: &[Entry]) {
        if !state.sound {
            return;
        }
        let mut left = entries;
        while !left.is_empty() {
            let step = match self.append_some(state, left) {
                Ok(step) => step,
                Err(error) => return self.give_up(state, &error),
            };
            left = left.get(step..).unwrap_or_default();
        }
    }

    /// Appends what fits into the chunk at hand; says how many that were.
    fn append_some(&self, state: &mut State, entries: &[Entry]) -> io::Result<usize> {
        if state.filled >= CHUNK_RECORDS {
            let chunk = self.new_chunk(state)?;
            state.current.push(chunk);
            state.filled = 0;
        }
        let count = entries.len().min(CHUNK_RECORDS - state.filled);
        let chunk = state.current.last().copied().unwrap_or(0);
        let at = chunk_start(chunk)?.saturating_add(as_u64(state.filled * RECORD)?);
        match entries {
            [only] => self.file.write_all_at(&only.encode(), at)?,
            several => {
                let bytes: Vec<u8> = several.iter().take(count).flat_map(Entry::encode).collect();
                self.file.write_all_at(&bytes, at)?;
            }
        }
        state.filled += count;
        Ok(count)
    }

    fn new_chunk(&self, state: &mut State) -> io::Result<u32> {
        if let Some(chunk) = state.free.pop_first() {
            return Ok(chunk);
        }
        let chunk = state.chunks;
        fallocate(
            &self.file,
            FallocateFlags::empty(),
            chunk_start(chunk)?,
            as_u64(CHUNK)?,
        )?;
        self.write_header(chunk.saturating_add(1), true)?;
        state.chunks = chunk.saturating_add(1);
        Ok(chunk)
    }

    /// Gives back the room of a burst.
    fn shrink(&self, state: &mut State) {
        let before = state.chunks;
        while state.free.len() > SPARE_CHUNKS
            && let Some(last) = state.chunks.checked_sub(1)
            && state.free.remove(&last)
        {
            state.chunks = last;
        }
        if state.chunks == before || !state.sound {
            return;
        }
        let cut = self
            .write_header(state.chunks, true)
            .and_then(|()| self.file.set_len(chunk_start(state.chunks)?));
        if let Err(error) = cut {
            self.give_up(state, &error);
        }
    }
}

impl Journal for FileJournal {
    fn begin(&self, touched: &[(InodeId, Option<Charged>)]) {
        let mut state = self.state.lock();
        for &(inode, charged) in touched {
            if let Some(known) = state.known.get_mut(&inode) {
                known.pins = known.pins.saturating_add(1);
                continue;
            }
            state.first_touch(inode, Known { charged, pins: 1 });
            let epoch = state.epoch;
            self.append(
                &mut state,
                &[Entry {
                    inode,
                    charged,
                    epoch,
                }],
            );
        }
    }

    fn intend(&self, parent: &InodeId, name: &[u8]) -> Option<IntentSlot> {
        let mut state = self.state.lock();
        if !state.sound {
            return None;
        }
        let free = state.free_intents.pop();
        let (Some(slot), Some(bytes)) = (free, Intent::encode(parent, name)) else {
            self.give_up(
                &mut state,
                &io::Error::other("more operations in flight than it has room for"),
            );
            return None;
        };
        drop(state);
        if let Err(error) = intent_start(slot).and_then(|at| self.file.write_all_at(&bytes, at)) {
            self.give_up(&mut self.state.lock(), &error);
        }
        Some(IntentSlot(slot))
    }

    fn settle(&self, changes: &[Change]) {
        let mut state = self.state.lock();
        for change in changes {
            if let Some(known) = state.known.get_mut(&change.inode) {
                known.charged = change.after;
            } else if change.before != change.after {
                let (inode, charged, epoch) = (change.inode, change.before, state.epoch);
                state.first_touch(
                    inode,
                    Known {
                        charged: change.after,
                        pins: 0,
                    },
                );
                self.append(
                    &mut state,
                    &[Entry {
                        inode,
                        charged,
                        epoch,
                    }],
                );
            }
        }
    }

    fn end(&self, touched: &[InodeId], intent: Option<IntentSlot>) {
        if touched.is_empty() && intent.is_none() {
            return;
        }
        let mut state = self.state.lock();
        for inode in touched {
            if let Some(known) = state.known.get_mut(inode) {
                known.pins = known.pins.saturating_sub(1);
            }
        }
        if let Some(IntentSlot(slot)) = intent {
            match intent_start(slot).and_then(|at| self.file.write_all_at(&[0], at)) {
                Ok(()) => state.free_intents.push(slot),
                Err(error) => self.give_up(&mut state, &error),
            }
        }
    }

    fn restate(&self, inode: &InodeId, charged: Option<Charged>) {
        if let Some(known) = self.state.lock().known.get_mut(inode) {
            known.charged = charged;
        }
    }

    fn rotate(&self, epoch: Epoch) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.epoch, epoch);
        let chunks = std::mem::take(&mut state.current);
        state.earlier.push((before, chunks));
        state.filled = CHUNK_RECORDS;
        state.fresh = 0;
        state.known.retain(|_, known| known.pins > 0);
        let carried: Vec<_> = state
            .known
            .iter()
            .map(|(&inode, known)| Entry {
                inode,
                charged: known.charged,
                epoch,
            })
            .collect();
        self.append(&mut state, &carried);
    }

    fn committed(&self, epoch: Epoch) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let free = &mut state.free;
        state.earlier.retain_mut(|(of, chunks)| {
            let keep = *of >= epoch;
            if !keep {
                free.extend(chunks.drain(..));
            }
            keep
        });
        self.shrink(state);
    }

    fn distrust(&self) {
        let cause = io::Error::other("the private area may have lost writes");
        self.give_up(&mut self.state.lock(), &cause);
    }

    fn is_sound(&self) -> bool {
        self.state.lock().sound
    }

    fn wants_commit(&self) -> bool {
        self.state.lock().fresh > CROWD
    }
}

impl State {
    fn first_touch(&mut self, inode: InodeId, known: Known) {
        if self.sound {
            self.known.insert(inode, known);
            self.fresh = self.fresh.saturating_add(1);
        }
    }
}

fn chunk_start(chunk: u32) -> io::Result<u64> {
    Ok(as_u64(CHUNKS_AT)?.saturating_add(u64::from(chunk).saturating_mul(as_u64(CHUNK)?)))
}

fn intent_start(slot: usize) -> io::Result<u64> {
    as_u64(HEADER + slot * INTENT)
}

fn as_u64(number: usize) -> io::Result<u64> {
    u64::try_from(number).map_err(io::Error::other)
}
