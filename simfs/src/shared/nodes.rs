//! Records of the nodes that the kernel knows: number, lookups, kernel file handle.
//!
//! ```text
//! record: id (0: free) | lookups | type, length, mode, seal | handle bytes ...
//! ```
//! Records stand in chunks of 4 KiB. The directory has one word for each chunk: the shard to which it belongs, or 0. A
//! node's shard follows from its id. So a successor reads the directory alone before it serves, and looks at the records of
//! a shard when it first needs one of them, or in the background ([`NodeRecords::index_all`]).
//!
//! A record for which [`crate::node::Nodes`] has no node is *dormant*: it was found and not yet asked for, or its node was put to
//! rest. It wakes when the kernel names it.
//!
//! Invariants:
//! 1. An id has one record that counts. Where an inode number is reused, the old record is marked first, then the new one
//!    written with the lookups of the old, then the old one freed; of two the one without the mark counts.
//! 2. The seal covers what does not change. Lookups stand alone: they change with every reply.
//! 3. A slot is written only by who owns it, from [`NodeRecords::claim`] until [`NodeRecords::release`].
//!
//! Lock order: shard, then the list of free chunks; both below all locks of `node.rs`.

mod places;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::board::{Board, Grown};
use super::header::Shape;
use super::layout::{CHUNKS, DIRECTORY, NODES, PAGE, open_number};
use crate::id::NodeId;
use crate::sys::shared_map::SharedMap;

pub use record::NodeRecord;

/// Shards; each has one chunk at least once it has a node, so few of them.
const SHARDS: usize = 64;
/// Words before the handle.
const HEAD: usize = 3;
/// In the length byte: a newer record has taken this one's place.
const SUPERSEDED: u64 = 0x80;
const KIND: u64 = 0x500;

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

/// A record for a node that comes into use.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Its place.
    pub slot: Slot,
    /// What [`NodeRecords::lay_down`] was told of the node that went.
    pub is_cached: bool,
}

/// A record that waits for its node.
#[derive(Clone, Copy, Debug)]
struct Dormant {
    slot: Slot,
    /// Not known to a successor.
    is_cached: bool,
}

impl Dormant {
    fn of_predecessor(slot: Slot) -> Self {
        Self {
            slot,
            is_cached: false,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub struct NodeRecords {
    map: Arc<SharedMap>,
    board: Board,
    handle_bytes: usize,
    shards: Vec<Mutex<Shard>>,
    chunks: Mutex<FreeChunks>,
    damaged: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    /// Chunks of a predecessor that were not looked at yet.
    unread: Vec<u32>,
    /// Which records of each chunk are taken, a bit each.
    chunks: BTreeMap<u32, u128>,
    /// No chunk below this one has a free place.
    hint: u32,
    dormant: HashMap<u64, Dormant>,
}

impl Shard {
    /// Takes a record out of those that are dormant. Their table gives memory back when few are left.
    fn take_dormant(&mut self, id: NodeId) -> Option<Dormant> {
        let dormant = self.dormant.remove(&id.get())?;
        let left = self.dormant.len();
        if left < self.dormant.capacity() / 8 {
            self.dormant.shrink_to(left * 2);
        }
        Some(dormant)
    }
}

#[derive(Debug, Default)]
struct FreeChunks {
    list: Vec<u32>,
    next: u32,
    directory_pages: usize,
}

impl NodeRecords {
    pub(super) fn create(map: Arc<SharedMap>, shape: Shape) -> Self {
        Self {
            board: Board::new(map.clone()),
            map,
            handle_bytes: shape.handle_bytes,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            chunks: Mutex::default(),
            damaged: AtomicUsize::new(0),
        }
    }

    /// Takes over: reads the directory only.
    pub(super) fn adopt(map: Arc<SharedMap>, shape: Shape) -> Self {
        let mut records = Self::create(map, shape);
        let all = u32::try_from(CHUNKS).unwrap_or(u32::MAX);
        let used = records.board.grown(Grown::Chunks).unwrap_or(all).min(all);
        let chunks = records.chunks.get_mut();
        chunks.next = used;
        chunks.directory_pages = size(used).div_ceil(PAGE);
        for chunk in (0..used).rev() {
            let word = records.map.word(DIRECTORY.start + size(chunk));
            let shard = open_number(directory_kind(chunk), word.load(Ordering::Acquire));
            let shard = shard.and_then(|shard| records.shards.get_mut(size(shard)));
            match shard {
                Some(shard) => shard.get_mut().unread.push(chunk),
                None => {
                    if word.swap(0, Ordering::Relaxed) != 0 {
                        *records.damaged.get_mut() += 1;
                    }
                    chunks.list.push(chunk);
                }
            }
        }
        records
    }

    /// Records, and chunks of them, that were found damaged so far and left out.
    pub fn damaged(&self) -> usize {
        self.damaged.load(Ordering::Relaxed)
    }

    /// The record for a node that comes into use: the dormant one with its lookups, or a new one with none.
    ///
    /// # Errors
    /// EOVERFLOW for a handle that does not fit; ENOMEM and the like where no memory is left.
    pub fn claim(&self, record: &NodeRecord) -> io::Result<Claim> {
        let mut shard = self.shard(record.id).lock();
        self.index(&mut shard);
        let new = |slot| Claim {
            slot,
            is_cached: false,
        };
        let Some(dormant) = shard.take_dormant(record.id) else {
            return self.write(&mut shard, record, 0).map(new);
        };
        let Dormant { slot, is_cached } = dormant;
        let known = self.read(slot);
        if known.is_some_and(|known| known.handle == record.handle) {
            return Ok(Claim { slot, is_cached });
        }
        let superseded = self.supersede(&mut shard, slot, record).map(new);
        superseded.inspect_err(|_| {
            shard.dormant.insert(record.id.get(), dormant);
        })
    }

    /// An inode number was reused: a new record with the lookups of the old one, which is freed.
    ///
    /// # Errors
    /// As [`Self::claim`]; the old one stays then.
    pub fn replace(&self, old: Slot, record: &NodeRecord) -> io::Result<Slot> {
        let mut shard = self.shard(record.id).lock();
        self.supersede(&mut shard, old, record)
    }

    fn supersede(&self, shard: &mut Shard, old: Slot, record: &NodeRecord) -> io::Result<Slot> {
        let shape = self.map.word(self.at(old) + 2);
        let owed = self.lookups(old).load(Ordering::Acquire);
        shape.fetch_or(SUPERSEDED << 8, Ordering::AcqRel);
        let slot = self.write(shard, record, owed).inspect_err(|_| {
            shape.fetch_and(!(SUPERSEDED << 8), Ordering::AcqRel);
        })?;
        self.clear(shard, old);
        Ok(slot)
    }

    /// The node of this record goes: from now on the record is dormant. `is_cached` is kept for who claims it again.
    pub fn lay_down(&self, id: NodeId, slot: Slot, is_cached: bool) {
        let dormant = Dormant { slot, is_cached };
        self.shard(id).lock().dormant.insert(id.get(), dormant);
    }

    /// A dormant record.
    pub fn dormant(&self, id: NodeId) -> Option<NodeRecord> {
        let mut shard = self.shard(id).lock();
        self.index(&mut shard);
        self.read(shard.dormant.get(&id.get())?.slot)
    }

    /// Lookups of a dormant record.
    #[cfg(test)]
    pub(crate) fn dormant_lookups(&self, id: NodeId) -> u64 {
        let mut shard = self.shard(id).lock();
        self.index(&mut shard);
        let dormant = shard.dormant.get(&id.get());
        dormant.map_or(0, |dormant| {
            self.lookups(dormant.slot).load(Ordering::Acquire)
        })
    }

    /// Changes the lookups of a node whose record is dormant, under its shard's lock; it goes with the last. Says whether it
    /// was.
    pub fn change_dormant(&self, id: NodeId, change: &mut dyn FnMut(u64) -> u64) -> bool {
        let mut shard = self.shard(id).lock();
        self.index(&mut shard);
        let Some(&Dormant { slot, .. }) = shard.dormant.get(&id.get()) else {
            return false;
        };
        let lookups = self.lookups(slot);
        let left = change(lookups.load(Ordering::Acquire));
        lookups.store(left, Ordering::Release);
        if left == 0 {
            shard.take_dormant(id);
            self.clear(&mut shard, slot);
        }
        true
    }

    /// The lookups that the kernel holds on a node.
    pub fn lookups(&self, slot: Slot) -> &AtomicU64 {
        self.map.word(self.at(slot) + 1)
    }

    /// Frees the record of a node that nobody needs any more.
    pub fn release(&self, slot: Slot, id: NodeId) {
        let mut shard = self.shard(id).lock();
        self.clear(&mut shard, slot);
    }

    /// Looks at all records of the predecessor that were not looked at yet, a shard at a time; `between` is called without a
    /// lock and says whether to go on.
    pub fn index_all(&self, between: &mut dyn FnMut() -> bool) {
        for shard in &self.shards {
            self.index(&mut shard.lock());
            if !between() {
                return;
            }
        }
    }

    /// Dormant records of the shards that were looked at.
    pub fn dormant_count(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().dormant.len())
            .sum()
    }

    fn index(&self, shard: &mut Shard) {
        while let Some(chunk) = shard.unread.pop() {
            shard.chunks.insert(chunk, 0);
            for place in 0..self.places() {
                if self.take_in(shard, slot_of(chunk, place))
                    && let Some(taken) = shard.chunks.get_mut(&chunk)
                {
                    *taken |= 1 << place;
                }
            }
        }
    }

    /// Takes a predecessor's record in as dormant; says whether its place is taken now.
    fn take_in(&self, shard: &mut Shard, slot: Slot) -> bool {
        let word = self.map.word(self.at(slot));
        let id = word.load(Ordering::Acquire);
        if id == 0 {
            return false;
        }
        let own = self.shards.get(shard_of(id));
        let is_own = own.is_some_and(|own| std::ptr::eq(own.data_ptr(), shard));
        let Some(record) = self.read(slot).filter(|_| is_own) else {
            self.damaged.fetch_add(1, Ordering::Relaxed);
            word.store(0, Ordering::Release);
            return false;
        };
        if self.lookups(slot).load(Ordering::Acquire) == 0 {
            // It was there for the daemon's own sake.
            word.store(0, Ordering::Release);
            return false;
        }
        let Some(&Dormant { slot: other, .. }) = shard.dormant.get(&record.id.get()) else {
            shard.dormant.insert(id, Dormant::of_predecessor(slot));
            return true;
        };
        if self.is_superseded(slot) {
            word.store(0, Ordering::Release);
            return false;
        }
        shard.dormant.insert(id, Dormant::of_predecessor(slot));
        self.vacate(shard, other);
        true
    }

    fn shard(&self, id: NodeId) -> &Mutex<Shard> {
        self.shards
            .get(shard_of(id.get()))
            .unwrap_or_else(|| unreachable!("the number of a shard is below their count"))
    }

    /// Records of a chunk; at most 128.
    fn places(&self) -> u32 {
        u32::try_from(PAGE / self.record_words()).unwrap_or(0)
    }

    fn record_words(&self) -> usize {
        HEAD + self.handle_bytes / 8
    }

    fn at(&self, slot: Slot) -> usize {
        let (chunk, place) = parts_of(slot);
        NODES.start + size(chunk) * PAGE + size(place) * self.record_words()
    }
}

fn shard_of(id: u64) -> usize {
    let mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    usize::try_from(mixed).unwrap_or(0) % SHARDS
}

fn slot_of(chunk: u32, place: u32) -> Slot {
    Slot(chunk * 128 + place)
}

fn parts_of(slot: Slot) -> (u32, u32) {
    (slot.0 / 128, slot.0 % 128)
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn directory_kind(chunk: u32) -> u64 {
    KIND + 1 + u64::from(chunk)
}
