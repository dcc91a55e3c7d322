//! Commits too large for one piece of the database's log, made atomic by writing them twice.
//!
//! The database recycles its log in segments and syncs it weakly, so at most [`MAX_APPLY`] bytes go between two
//! syncs. A larger commit is laid out first, one staged entry per change, then marked complete, then applied, then
//! cleared; each step in durable pieces. The mark is the moment at which the commit happened.
//!
//! The crash cases:
//! 1. before the mark: [`finish`] finds entries without a mark, and clears them: nothing happened;
//! 2. after the mark, while applying: [`finish`] applies all entries again (puts and removals may be repeated);
//! 3. while clearing: the mark goes first, so case 1 clears the rest of a commit that is applied.

use std::mem;

use super::record::{self, Reader, Record, RecordError, Writer, key};
use super::sled::MAX_APPLY;
use super::{Batch, Op, Store, StoreError};

/// The part number of the mark.
const MARK: u32 = 0;
/// Staged entries read at a time.
const WINDOW: usize = 256;
/// The part number of the first change.
const FIRST: u32 = 1;

/// Makes every change of the batch; atomic, durable when it returns.
pub(super) fn commit(db: &dyn Store, batch: &Batch) -> Result<(), StoreError> {
    if batch.is_empty() {
        return Ok(());
    }
    if batch.size() <= MAX_APPLY {
        return db.commit(batch);
    }
    let mut part = MARK;
    let mut staged = Vec::with_capacity(batch.len());
    for op in batch.ops() {
        part = part.saturating_add(FIRST);
        let key = key::staged(part);
        let value = record::encode(&key, &StagedOp(op.clone()));
        staged.push(Op::Put { key, value });
    }
    apply_in_pieces(db, staged)?;
    let mark = key::staged(MARK);
    let value = record::encode(&mark, &StagedMark { parts: part });
    db.commit(&Batch::from_iter([Op::Put { key: mark, value }]))?;
    finish(db)
}

/// Brings a commit under way to its end, or takes it back when it was not marked.
pub(super) fn finish(db: &dyn Store) -> Result<(), StoreError> {
    let mark = key::staged(MARK);
    if let Some(value) = db.get(&mark)? {
        let StagedMark { parts } =
            record::decode(&mark, &value).map_err(|error| error.at(&mark))?;
        let applied = apply_staged(db)?;
        if applied != parts {
            let what = format!("{applied} of {parts} parts of a commit are there");
            return Err(StoreError::damaged_key(what, &mark));
        }
        db.commit(&Batch::from_iter([Op::Remove { key: mark }]))?;
    }
    clear(db)
}

/// Applies all staged entries in order, and says how many there were.
fn apply_staged(db: &dyn Store) -> Result<u32, StoreError> {
    let mut next = FIRST;
    loop {
        let entries = db.scan(key::STAGED_PREFIX, &key::staged(next), WINDOW)?;
        if entries.is_empty() {
            return Ok(next.saturating_sub(FIRST));
        }
        let mut ops = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if key != key::staged(next) {
                return Err(StoreError::damaged_key(
                    "a part of a commit is missing",
                    &key,
                ));
            }
            let StagedOp(op) = record::decode(&key, &value).map_err(|error| error.at(&key))?;
            ops.push(op);
            next = next.saturating_add(1);
        }
        apply_in_pieces(db, ops)?;
    }
}

fn clear(db: &dyn Store) -> Result<(), StoreError> {
    loop {
        let entries = db.scan(key::STAGED_PREFIX, key::STAGED_PREFIX, WINDOW)?;
        if entries.is_empty() {
            return Ok(());
        }
        apply_in_pieces(
            db,
            entries
                .into_iter()
                .map(|(key, _)| Op::Remove { key })
                .collect(),
        )?;
    }
}

/// Applies changes in order, in durable pieces that need not be atomic together.
fn apply_in_pieces(db: &dyn Store, ops: Vec<Op>) -> Result<(), StoreError> {
    let mut piece = Vec::new();
    let mut size = 0_usize;
    for op in ops {
        size = size.saturating_add(op.size());
        if size > MAX_APPLY && !piece.is_empty() {
            size = op.size();
            db.commit(&mem::take(&mut piece).into_iter().collect())?;
        }
        piece.push(op);
    }
    if piece.is_empty() {
        Ok(())
    } else {
        db.commit(&piece.into_iter().collect())
    }
}

/// One change of a commit under way.
#[derive(Debug)]
struct StagedOp(Op);

/// Payload of a staged change.
/// ```text
/// 0  kind u8: 0 remove, 1 put | 1  key length u32 | 5  key | value, to the end
/// ```
impl Record for StagedOp {
    const FORMAT: u8 = 1;

    fn write(&self, out: &mut Writer) {
        let (kind, key, value) = match &self.0 {
            Op::Remove { key } => (0, key, &[][..]),
            Op::Put { key, value } => (1, key, value.as_slice()),
        };
        out.u8(kind);
        // Longer keys do not exist; a wrong length would be found by the reader.
        out.u32(u32::try_from(key.len()).unwrap_or(u32::MAX));
        out.raw(key);
        out.raw(value);
    }

    fn read(_format: u8, input: &mut Reader<'_>) -> Result<Self, RecordError> {
        let kind = input.u8()?;
        let len = usize::try_from(input.u32()?);
        let key = input
            .take(len.map_err(|_| RecordError::Field {
                field: "key length",
            })?)?
            .to_vec();
        match kind {
            0 => Ok(Self(Op::Remove { key })),
            1 => Ok(Self(Op::Put {
                key,
                value: input.rest().to_vec(),
            })),
            _ => Err(RecordError::Field { field: "kind" }),
        }
    }
}

/// Says that all parts of a commit are there.
#[derive(Debug)]
struct StagedMark {
    parts: u32,
}

/// Payload of the mark.
/// ```text
/// 0  number of parts u32
/// ```
impl Record for StagedMark {
    const FORMAT: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u32(self.parts);
    }

    fn read(_format: u8, input: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            parts: input.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;

    /// Removes the odd ones of these keys and changes all others: larger than two pieces.
    const KEYS: u32 = 600;

    fn key(id: u32) -> Vec<u8> {
        format!("k{id:04}").into_bytes()
    }

    fn batch(version: u8) -> Batch {
        let ops = (0..KEYS).map(|id| match (version, id % 2) {
            (2, 1) => Op::Remove { key: key(id) },
            _ => Op::Put {
                key: key(id),
                value: vec![version; 400],
            },
        });
        ops.collect()
    }

    /// The version that the store shows, if it shows one version only, and nothing is left of the commit.
    fn version(store: &MemoryStore) -> Option<u8> {
        let entries = store.entries();
        let version = entries.first()?.1.first().copied()?;
        let expected = MemoryStore::new();
        expected.commit(&batch(1)).unwrap();
        if version == 2 {
            expected.commit(&batch(2)).unwrap();
        }
        (entries == expected.entries()).then_some(version)
    }

    #[test]
    fn a_large_commit_that_stops_after_any_step_happened_or_did_not() {
        let mut seen = Vec::new();
        for steps in 0.. {
            let store = MemoryStore::new();
            commit(&store, &batch(1)).unwrap();
            assert_eq!(version(&store), Some(1));
            store.stop_after(steps);
            let done = commit(&store, &batch(2)).is_ok();
            let after = store.crash();
            finish(&after).unwrap();
            let found = version(&after).expect("one whole version");
            seen.push(found);
            assert!(!done || found == 2, "an acknowledged commit is lost");
            if done {
                break;
            }
        }
        assert!(seen.len() > 10 && seen.is_sorted());
        assert_eq!((seen.first(), seen.last()), (Some(&1), Some(&2)));
    }

    #[test]
    fn no_piece_is_larger_than_the_log_allows() {
        struct Bounded(MemoryStore);
        impl Store for Bounded {
            fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
                self.0.get(key)
            }
            fn scan(
                &self,
                prefix: &[u8],
                from: &[u8],
                limit: usize,
            ) -> Result<Vec<super::super::Entry>, StoreError> {
                self.0.scan(prefix, from, limit)
            }
            fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
                assert!(batch.size() <= MAX_APPLY, "{} bytes", batch.size());
                self.0.commit(batch)
            }
        }
        let store = Bounded(MemoryStore::new());
        commit(&store, &batch(1)).unwrap();
        commit(&store, &batch(2)).unwrap();
        assert_eq!(version(&store.0), Some(2));
    }

    #[test]
    fn a_lost_part_of_a_marked_commit_is_damage() {
        let store = MemoryStore::new();
        let key = key::staged(MARK);
        let value = record::encode(&key, &StagedMark { parts: 3 });
        store
            .commit(&Batch::from_iter([Op::Put { key, value }]))
            .unwrap();
        assert!(finish(&store).is_err_and(|error| error.is_damage()));
    }
}
