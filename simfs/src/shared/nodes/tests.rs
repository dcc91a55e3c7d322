//! Records over deaths, in memory of their own.

use super::super::layout::{FIXED, TOTAL};
use super::*;
use crate::sys::handle::KernelHandle;
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
    let slot = records.claim(&record).unwrap().slot;
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
    let slot = next.claim(&record(4, 1)).unwrap().slot;
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
    let slot = records.claim(&record(9, 1)).unwrap().slot;
    records.lookups(slot).store(5, Ordering::Relaxed);
    let next = adopt(&map);
    let id = NodeId::new(9);
    assert!(next.change_dormant(id, &mut |known| known - 4) && next.dormant(id).is_some());
    assert!(next.change_dormant(id, &mut |known| known - 1) && next.dormant(id).is_none());
    assert!(!next.change_dormant(id, &mut |known| known));
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
    let third = next.claim(&record(9, 3)).unwrap().slot;
    assert_eq!(next.lookups(third).load(Ordering::Relaxed), 1);
    assert_eq!(adopt(&map).dormant(NodeId::new(9)), Some(record(9, 3)));
}

/// What the kernel has cached is of the one file, and of no other one that gets its number.
#[test]
fn what_was_cached_is_told_of_the_same_file_only() {
    let records = NodeRecords::create(map(), SHAPE);
    let id = NodeId::new(9);
    let slot = counted(&records, record(9, 1));
    for is_cached in [true, false, true] {
        records.lay_down(id, slot, is_cached);
        let claim = records.claim(&record(9, 1)).unwrap();
        assert_eq!((claim.slot, claim.is_cached), (slot, is_cached));
    }
    records.lay_down(id, slot, true);
    assert!(!records.claim(&record(9, 2)).unwrap().is_cached);
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
