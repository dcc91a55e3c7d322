//! Records of the nodes that the kernel knows: number, lookups, kernel file handle.
//!
//! ```text
//! record: id (0: free) | lookups | type, length, mode, seal | handle bytes ...
//! ```
//! Records stand in chunks of 4 KiB. The directory has one word for each chunk: the shard to which it belongs, or 0. A
//! node's shard follows from its id. So a successor reads the directory alone before it serves, and looks at the records of
//! a shard when it first needs one of them, or in the background ([`NodeRecords::index_all`]).
//!
//! A record that was found and not yet asked for is *dormant*: [`crate::node::Nodes`] has no node for it. It wakes when the
//! kernel names it.
//!
//! Invariants:
//! 1. An id has one record that counts. Where an inode number is reused, the old record is marked first, then the new one
//!    written with the lookups of the old, then the old one freed; of two the one without the mark counts.
//! 2. The seal covers what does not change. Lookups stand alone: they change with every reply.
//! 3. A slot is written only by who owns it, from [`NodeRecords::claim`] until [`NodeRecords::release`].
//!
//! Lock order: shard, then the list of free chunks; both below all locks of `node.rs`.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::board::{Board, Grown};
use super::header::Shape;
use super::layout::{CHUNKS, DIRECTORY, NODES, PAGE, open_number, seal, sealed_number};
use crate::node::{Found, NodeId};
use crate::sys::handle::{HANDLE_MAX, KernelHandle};
use crate::sys::shared_map::SharedMap;
use crate::sys::stat::{FileKind, Stat};

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

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// The kernel's number.
    pub id: NodeId,
    /// The file underneath; `None` where the backing file system has no handles.
    pub handle: Option<KernelHandle>,
    /// Kind of file and permissions when it was first seen; the kind does not change.
    pub mode: u16,
}

impl NodeRecord {
    /// What is to be kept of an inode.
    pub fn of(id: NodeId, found: &Found) -> Self {
        Self {
            id,
            handle: found.handle,
            // The kind and the permissions: never more than 16 bits.
            mode: u16::try_from(found.stat.mode & 0xffff).unwrap_or(0),
        }
    }

    /// The inode, seen again.
    pub fn found(&self, stat: Stat) -> Found {
        Found {
            stat,
            handle: self.handle,
            held: None,
        }
    }

    /// Its kind of file.
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode.into())
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
    dormant: HashMap<u64, Slot>,
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
    pub fn claim(&self, record: &NodeRecord) -> io::Result<Slot> {
        let mut shard = self.shard(record.id).lock();
        self.index(&mut shard);
        let Some(slot) = shard.dormant.remove(&record.id.get()) else {
            return self.write(&mut shard, record, 0);
        };
        let known = self.read(slot);
        if known.is_some_and(|known| known.handle == record.handle) {
            return Ok(slot);
        }
        self.supersede(&mut shard, slot, record).inspect_err(|_| {
            shard.dormant.insert(record.id.get(), slot);
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

    /// A dormant record.
    pub fn dormant(&self, id: NodeId) -> Option<NodeRecord> {
        let mut shard = self.shard(id).lock();
        self.index(&mut shard);
        let slot = *shard.dormant.get(&id.get())?;
        self.read(slot)
    }

    /// Lookups of a dormant record.
    #[cfg(test)]
    pub(crate) fn dormant_lookups(&self, id: NodeId) -> u64 {
        let mut shard = self.shard(id).lock();
        self.index(&mut shard);
        let slot = shard.dormant.get(&id.get()).copied();
        slot.map_or(0, |slot| self.lookups(slot).load(Ordering::Acquire))
    }

    /// The kernel drops lookups of a node; where its record is dormant it is enough to change that. Says whether it was.
    pub fn forget_dormant(&self, id: NodeId, count: u64) -> bool {
        let mut shard = self.shard(id).lock();
        self.index(&mut shard);
        let Some(slot) = shard.dormant.get(&id.get()).copied() else {
            return false;
        };
        let lookups = self.lookups(slot);
        let left = lookups.load(Ordering::Acquire).saturating_sub(count);
        lookups.store(left, Ordering::Release);
        if left == 0 {
            shard.dormant.remove(&id.get());
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
        let Some(other) = shard.dormant.get(&record.id.get()).copied() else {
            shard.dormant.insert(id, slot);
            return true;
        };
        if self.is_superseded(slot) {
            word.store(0, Ordering::Release);
            return false;
        }
        shard.dormant.insert(id, slot);
        self.vacate(shard, other);
        true
    }

    fn is_superseded(&self, slot: Slot) -> bool {
        self.map.word(self.at(slot) + 2).load(Ordering::Relaxed) & SUPERSEDED << 8 != 0
    }

    fn read(&self, slot: Slot) -> Option<NodeRecord> {
        let at = self.at(slot);
        let id = self.map.word(at).load(Ordering::Acquire);
        let word = self.map.word(at + 2).load(Ordering::Relaxed);
        let shape = word & u64::from(u32::MAX) & !(SUPERSEDED << 8);
        let [kind, length, ..] = shape.to_le_bytes();
        let length = usize::from(length);
        if length > self.handle_bytes || self.seal_of(at, id, shape) != word >> 32 {
            return None;
        }
        let mut bytes = [0; HANDLE_MAX];
        let bytes = bytes.get_mut(..length)?;
        self.map.load_bytes(at + HEAD, bytes);
        Some(NodeRecord {
            id: NodeId::new(id),
            handle: KernelHandle::from_parts(i32::from(kind), bytes),
            mode: u16::try_from(shape >> 16).ok()?,
        })
    }

    fn write(&self, shard: &mut Shard, record: &NodeRecord, owed: u64) -> io::Result<Slot> {
        let too_long = || io::Error::from_raw_os_error(libc::EOVERFLOW);
        let (kind, bytes) = match &record.handle {
            Some(handle) => (handle.handle_type(), handle.bytes()),
            None => (0, &[][..]),
        };
        let kind = u8::try_from(kind).map_err(|_| too_long())?;
        let length = u8::try_from(bytes.len())
            .ok()
            .filter(|_| bytes.len() <= self.handle_bytes)
            .ok_or_else(too_long)?;
        let slot = self.take_place(shard, record.id)?;
        let at = self.at(slot);
        let shape = u64::from(kind) | u64::from(length) << 8 | u64::from(record.mode) << 16;
        let mut padded = [0; HANDLE_MAX];
        if let Some(start) = padded.get_mut(..bytes.len()) {
            start.copy_from_slice(bytes);
        }
        let id = record.id.get();
        self.map.store_bytes(
            at + HEAD,
            padded.get(..self.handle_bytes).unwrap_or(&padded),
        );
        self.map.word(at + 1).store(owed, Ordering::Relaxed);
        let sealed = shape | self.seal_of(at, id, shape) << 32;
        self.map.word(at + 2).store(sealed, Ordering::Relaxed);
        self.map.word(at).store(id, Ordering::Release);
        Ok(slot)
    }

    /// Half a seal: it shares a word with what it covers.
    fn seal_of(&self, at: usize, id: u64, shape: u64) -> u64 {
        let mut sum = seal(KIND, &[id, shape]);
        for word in 0..self.handle_bytes / 8 {
            sum = seal(
                sum,
                &[self.map.word(at + HEAD + word).load(Ordering::Relaxed)],
            );
        }
        sum >> 32
    }

    fn vacate(&self, shard: &mut Shard, slot: Slot) {
        self.map.word(self.at(slot)).store(0, Ordering::Release);
        let (chunk, place) = parts_of(slot);
        if let Some(taken) = shard.chunks.get_mut(&chunk) {
            *taken &= !(1 << place);
        }
        shard.hint = shard.hint.min(chunk);
    }

    fn clear(&self, shard: &mut Shard, slot: Slot) {
        self.vacate(shard, slot);
        // The last chunk goes when it is empty; new records take the first free places, so chunks do get empty.
        while shard.chunks.len() > 1
            && let Some(last) = shard.chunks.last_entry().filter(|last| *last.get() == 0)
        {
            let chunk = last.remove_entry().0;
            self.give_chunk_back(chunk);
        }
    }

    fn take_place(&self, shard: &mut Shard, id: NodeId) -> io::Result<Slot> {
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

#[cfg(test)]
mod tests {
    use super::super::layout::{FIXED, TOTAL};
    use super::*;
    use quota::VeId;

    const SHAPE: Shape = Shape {
        ve: VeId::new(101),
        handle_bytes: 16,
    };

    fn map() -> Arc<SharedMap> {
        let map = SharedMap::create(c"test", TOTAL).unwrap();
        map.allocate(0, FIXED).unwrap();
        Arc::new(map)
    }

    fn record(id: u64, generation: u8) -> NodeRecord {
        NodeRecord {
            id: NodeId::new(id),
            handle: KernelHandle::from_parts(1, &[7, generation, 9, 1, 1, 1, 1, 2]),
            mode: 0o100_644,
        }
    }

    fn counted(records: &NodeRecords, record: NodeRecord) -> Slot {
        let slot = records.claim(&record).unwrap();
        records.lookups(slot).fetch_add(1, Ordering::AcqRel);
        slot
    }

    fn adopt(map: &Arc<SharedMap>) -> NodeRecords {
        NodeRecords::adopt(map.clone(), SHAPE)
    }

    #[test]
    fn a_successor_finds_what_the_kernel_knows() {
        let map = map();
        let records = NodeRecords::create(map.clone(), SHAPE);
        let slots: Vec<_> = (2..20_000)
            .map(|id| (id, counted(&records, record(id, 1))))
            .collect();
        for (id, slot) in slots.iter().filter(|(id, _)| id % 3 == 0) {
            records.release(*slot, NodeId::new(*id));
        }
        let next = adopt(&map);
        assert_eq!(
            next.dormant_count(),
            0,
            "nothing is read before it is needed"
        );
        for (id, _) in slots {
            let expected = (id % 3 != 0).then(|| record(id, 1));
            assert_eq!(next.dormant(NodeId::new(id)), expected, "{id}");
        }
        let slot = next.claim(&record(4, 1)).unwrap();
        assert_eq!(next.lookups(slot).load(Ordering::Relaxed), 1);
        assert_eq!(next.dormant(NodeId::new(4)), None, "it is awake");
        assert_eq!(next.damaged(), 0);
    }

    #[test]
    fn places_and_chunks_are_used_again() {
        let map = map();
        let records = NodeRecords::create(map.clone(), SHAPE);
        for _ in 0..5 {
            let slots: Vec<_> = (2..40_000)
                .map(|id| (id, counted(&records, record(id, 1))))
                .collect();
            for (id, slot) in slots {
                records.release(slot, NodeId::new(id));
            }
        }
        let used = records.chunks.lock().next;
        assert!(size(used) < 40_000 / 90 + SHARDS, "{used} chunks");
        let left = map.word(DIRECTORY.start).load(Ordering::Relaxed);
        let free = records.chunks.lock().list.len();
        assert!(free + SHARDS >= size(used), "{free} of {used}, {left}");
    }

    #[test]
    fn a_dormant_record_is_forgotten_without_waking() {
        let map = map();
        let records = NodeRecords::create(map.clone(), SHAPE);
        let slot = records.claim(&record(9, 1)).unwrap();
        records.lookups(slot).store(5, Ordering::Relaxed);
        let next = adopt(&map);
        let id = NodeId::new(9);
        assert!(next.forget_dormant(id, 4) && next.dormant(id).is_some());
        assert!(next.forget_dormant(id, 1) && next.dormant(id).is_none());
        assert!(!next.forget_dormant(id, 1));
        assert_eq!(adopt(&map).dormant(id), None);
    }

    #[test]
    fn a_reused_number_takes_the_lookups_over() {
        let map = map();
        let records = NodeRecords::create(map.clone(), SHAPE);
        let old = counted(&records, record(9, 1));
        let new = records.replace(old, &record(9, 2)).unwrap();
        assert_eq!(records.lookups(new).load(Ordering::Relaxed), 1);
        let next = adopt(&map);
        assert_eq!(next.dormant(NodeId::new(9)), Some(record(9, 2)));
        let third = next.claim(&record(9, 3)).unwrap();
        assert_eq!(next.lookups(third).load(Ordering::Relaxed), 1);
        assert_eq!(adopt(&map).dormant(NodeId::new(9)), Some(record(9, 3)));
    }

    /// The process dies after each store of a replacement.
    #[test]
    fn of_two_records_the_newer_counts() {
        for newer_first in [false, true] {
            let map = map();
            let records = NodeRecords::create(map.clone(), SHAPE);
            let id = NodeId::new(9);
            let blocker = counted(&records, record(9, 9));
            let old = counted(&records, record(9, 1));
            if newer_first {
                // The new record will stand before the old one.
                records.release(blocker, id);
            }
            let shape = map.word(records.at(old) + 2);
            shape.fetch_or(SUPERSEDED << 8, Ordering::Relaxed);
            if !newer_first {
                records.release(blocker, id);
                let mut shard = records.shard(id).lock();
                shard.hint = 0;
                *shard.chunks.values_mut().next().unwrap() |= 1;
            }
            assert_eq!(
                NodeRecords::adopt(copy(&map), SHAPE).dormant(id),
                Some(record(9, 1)),
                "marked, but alone"
            );
            let mut shard = records.shard(id).lock();
            records.write(&mut shard, &record(9, 2), 1).unwrap();
            drop(shard);
            let next = adopt(&map);
            assert_eq!(next.dormant(id), Some(record(9, 2)));
            assert_eq!(next.dormant_count(), 1);
        }
    }

    fn copy(map: &SharedMap) -> Arc<SharedMap> {
        let copy = self::map();
        let used = [0..FIXED, DIRECTORY.start..DIRECTORY.start + PAGE];
        let nodes = NODES.start..NODES.start + 100 * PAGE;
        for index in used.into_iter().chain([nodes]).flatten() {
            let word = map.word(index).load(Ordering::Relaxed);
            copy.word(index).store(word, Ordering::Relaxed);
        }
        copy
    }

    #[test]
    fn any_flipped_bit_loses_a_record_or_changes_nothing() {
        let map = map();
        let records = NodeRecords::create(map.clone(), SHAPE);
        let slot = counted(&records, record(77, 1));
        let at = records.at(slot);
        for word in [0, 2, 3, 4] {
            for bit in 0..64 {
                let copy = copy(&map);
                copy.word(at + word).fetch_xor(1 << bit, Ordering::Relaxed);
                let next = NodeRecords::adopt(copy, SHAPE);
                let found = next.dormant(NodeId::new(77));
                if word == 2 && bit == 15 {
                    assert_eq!(
                        found,
                        Some(record(77, 1)),
                        "the mark counts only beside another"
                    );
                } else {
                    assert_eq!(found, None, "word {word}, bit {bit}");
                }
                next.index_all(&mut || true);
                assert!(next.dormant_count() <= 1);
            }
        }
    }

    #[test]
    fn a_damaged_directory_loses_chunks_and_says_so() {
        let map = map();
        let records = NodeRecords::create(map.clone(), SHAPE);
        counted(&records, record(77, 1));
        map.word(DIRECTORY.start).fetch_xor(1, Ordering::Relaxed);
        let next = adopt(&map);
        assert_eq!(next.dormant(NodeId::new(77)), None);
        assert_eq!(next.damaged(), 1);
    }

    #[test]
    fn a_handle_that_does_not_fit_is_refused() {
        let records = NodeRecords::create(map(), SHAPE);
        let long = NodeRecord {
            handle: KernelHandle::from_parts(1, &[1; 24]),
            ..record(3, 1)
        };
        let error = records.claim(&long).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOVERFLOW));
    }
}
