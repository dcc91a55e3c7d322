//! A table of fixed records in shared memory, each found again by a successor.
//!
//! ```text
//! record: id (0: free) | payload ... | seal over all
//! ```
//! Invariants:
//! 1. A record is written before its id, and its id is taken away before anything else of it changes: so a process that
//!    dies half way leaves a whole record or none.
//! 2. Which places are free is known in memory only; a successor finds it out by looking at each place.
//!
//! Lock order: the list of free places is a leaf.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::board::{Board, Grown};
use super::layout::{PAGE, Span, seal};
use crate::sys::shared_map::SharedMap;

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place(u32);

/// A record as a successor finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<const N: usize> {
    /// Where it stands.
    pub place: Place,
    /// Its id, not 0.
    pub id: u64,
    /// What else it says.
    pub payload: [u64; N],
}

/// The table; records carry `N` words beside their id.
#[derive(Debug)]
pub struct Table<const N: usize> {
    map: Arc<SharedMap>,
    board: Board,
    part: Grown,
    span: Span,
    /// Places that were used and are free, and the first that was never used.
    free: Mutex<Free>,
}

/// A place that is taken and has no record yet; free again on drop.
#[derive(Debug)]
#[must_use]
pub struct Room<'a, const N: usize> {
    table: &'a Table<N>,
    place: u32,
}

#[derive(Debug, Default)]
struct Free {
    list: Vec<u32>,
    next: u32,
    /// Pages of the table that have room.
    pages: u32,
}

impl<const N: usize> Table<N> {
    /// Words of a record.
    const WORDS: usize = N + 2;

    /// An empty table in fresh memory.
    pub(super) fn create(map: Arc<SharedMap>, part: Grown, span: Span) -> Self {
        Self {
            board: Board::new(map.clone()),
            map,
            part,
            span,
            free: Mutex::default(),
        }
    }

    /// The table of a predecessor with its records, and how many of those are damaged. Damaged ones are given up.
    pub(super) fn adopt(
        map: Arc<SharedMap>,
        part: Grown,
        span: Span,
    ) -> (Self, Vec<Found<N>>, usize) {
        let table = Self::create(map, part, span);
        let all = table.span.words / PAGE;
        let pages = match table.board.grown(part) {
            Some(pages) => usize::try_from(pages).unwrap_or(all).min(all),
            // How far it reached is lost: then every place is looked at.
            None => all,
        };
        let (mut found, mut damaged) = (Vec::new(), 0);
        let mut free = table.free.lock();
        free.pages = u32::try_from(pages).unwrap_or(0);
        free.next = table.places_in(free.pages);
        for place in (0..free.next).rev() {
            match table.read(Place(place)) {
                Ok(Some(record)) => found.push(record),
                Ok(None) => free.list.push(place),
                Err(()) => {
                    damaged += 1;
                    table.map.word(table.at(place)).store(0, Ordering::Release);
                    free.list.push(place);
                }
            }
        }
        drop(free);
        (table, found, damaged)
    }

    /// Takes a place for one more record.
    ///
    /// # Errors
    /// ENOMEM where the table is full, the kernel's where the host has no memory left.
    pub fn make_room(&self) -> io::Result<Room<'_, N>> {
        let place = self.take_place()?;
        Ok(Room { table: self, place })
    }

    /// Adds a record; `id` is not 0.
    ///
    /// # Errors
    /// As [`Self::make_room`].
    pub fn insert(&self, id: u64, payload: [u64; N]) -> io::Result<Place> {
        Ok(self.make_room()?.put(id, payload))
    }

    fn write(&self, place: u32, id: u64, payload: [u64; N]) -> Place {
        let at = self.at(place);
        for (index, word) in payload.into_iter().enumerate() {
            self.map.word(at + 1 + index).store(word, Ordering::Relaxed);
        }
        self.map
            .word(at + 1 + N)
            .store(self.seal_of(id, &payload), Ordering::Relaxed);
        self.map.word(at).store(id, Ordering::Release);
        Place(place)
    }

    /// Takes a record away.
    pub fn remove(&self, place: Place) {
        self.map.word(self.at(place.0)).store(0, Ordering::Release);
        self.free.lock().list.push(place.0);
    }

    fn read(&self, place: Place) -> Result<Option<Found<N>>, ()> {
        let at = self.at(place.0);
        let id = self.map.word(at).load(Ordering::Acquire);
        if id == 0 {
            return Ok(None);
        }
        let payload =
            std::array::from_fn(|index| self.map.word(at + 1 + index).load(Ordering::Relaxed));
        let expected = self.map.word(at + 1 + N).load(Ordering::Relaxed);
        if self.seal_of(id, &payload) != expected {
            return Err(());
        }
        Ok(Some(Found { place, id, payload }))
    }

    fn seal_of(&self, id: u64, payload: &[u64; N]) -> u64 {
        let kind = u64::try_from(self.span.start).unwrap_or(0);
        seal(seal(kind, &[id]), payload)
    }

    fn at(&self, place: u32) -> usize {
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        self.span
            .start
            .saturating_add(place.saturating_mul(Self::WORDS))
    }

    fn places_in(&self, pages: u32) -> u32 {
        let words = usize::try_from(pages)
            .unwrap_or(usize::MAX)
            .saturating_mul(PAGE);
        u32::try_from(words / Self::WORDS).unwrap_or(u32::MAX)
    }

    fn take_place(&self) -> io::Result<u32> {
        let mut free = self.free.lock();
        if let Some(place) = free.list.pop() {
            return Ok(place);
        }
        if free.next >= self.places_in(free.pages) {
            let page = usize::try_from(free.pages).map_err(io::Error::other)?;
            if (page + 1) * PAGE > self.span.words {
                return Err(io::Error::from_raw_os_error(libc::ENOMEM));
            }
            self.map.allocate(self.span.start + page * PAGE, PAGE)?;
            free.pages += 1;
            self.board.set_grown(self.part, free.pages);
        }
        let place = free.next;
        free.next += 1;
        Ok(place)
    }
}

impl<const N: usize> Room<'_, N> {
    /// Writes the record; `id` is not 0.
    pub fn put(self, id: u64, payload: [u64; N]) -> Place {
        let (table, place) = (self.table, self.place);
        std::mem::forget(self);
        table.write(place, id, payload)
    }
}

impl<const N: usize> Drop for Room<'_, N> {
    fn drop(&mut self) {
        self.table.free.lock().list.push(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{HANDLE_TABLE, NOTIFICATION_TABLE, TOTAL};
    use super::*;

    fn map() -> Arc<SharedMap> {
        let map = SharedMap::create(c"test", TOTAL).unwrap();
        map.allocate(0, super::super::layout::FIXED).unwrap();
        Arc::new(map)
    }

    fn adopt(map: &Arc<SharedMap>) -> (Table<2>, Vec<Found<2>>, usize) {
        Table::adopt(map.clone(), Grown::Handles, HANDLE_TABLE)
    }

    #[test]
    fn a_successor_finds_what_was_left() {
        let map = map();
        let table: Table<2> = Table::create(map.clone(), Grown::Handles, HANDLE_TABLE);
        let places: Vec<_> = (1..=1000)
            .map(|id| table.insert(id, [id * 2, id * 3]).unwrap())
            .collect();
        for place in places.iter().step_by(2) {
            table.remove(*place);
        }
        let (table, found, damaged) = adopt(&map);
        assert_eq!(damaged, 0);
        let ids: std::collections::BTreeSet<_> = found.iter().map(|record| record.id).collect();
        assert_eq!(ids, (1..=1000).filter(|id| id % 2 == 0).collect());
        assert!(found.iter().all(|r| r.payload == [r.id * 2, r.id * 3]));
        let again = table.insert(5000, [0, 0]).unwrap();
        assert!(found.iter().all(|record| record.place != again));
    }

    #[test]
    fn a_damaged_record_is_given_up_and_no_other() {
        let map = map();
        let table: Table<2> = Table::create(map.clone(), Grown::Handles, HANDLE_TABLE);
        for id in 1..=5 {
            table.insert(id, [id, id]).unwrap();
        }
        for word in 0..4 {
            for bit in [0, 31, 63] {
                let at = map.word(HANDLE_TABLE.start + 2 * 4 + word);
                let good = at.fetch_xor(1 << bit, Ordering::Relaxed);
                let first = map.word(HANDLE_TABLE.start + 2 * 4);
                let id = first.load(Ordering::Relaxed);
                let (_, found, damaged) = adopt(&map);
                assert_eq!((found.len(), damaged), (4, 1), "word {word}, bit {bit}");
                first.store(id, Ordering::Relaxed);
                at.store(good, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn how_far_it_reached_may_be_lost() {
        let map = map();
        let table: Table<2> = Table::create(map.clone(), Grown::Handles, HANDLE_TABLE);
        table.insert(7, [1, 2]).unwrap();
        let board = Board::new(map.clone());
        board.set_grown(Grown::Handles, u32::MAX);
        assert_eq!(adopt(&map).1.len(), 1, "an impossible number");
    }

    #[test]
    fn a_full_table_says_so() {
        let table: Table<14> = Table::create(map(), Grown::Notifications, NOTIFICATION_TABLE);
        let mut added = 0_u64;
        while let Ok(_place) = table.insert(added + 1, [0; 14]) {
            added += 1;
        }
        assert_eq!(added, 64);
        let error = table.insert(1, [0; 14]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    }
}
