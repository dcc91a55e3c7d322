//! How far the kernel's orders to forget nodes were carried out.
//!
//! An order has no answer, so the kernel never sends it again; one may name tens of thousands of nodes. It stands where it
//! was read ([`super::Intake`]), and for each place there a mark here tells which of its entries are done.
//!
//! ```text
//! mark: 2 * entry (those before it are done), + 1 while it is being carried out; sealed with the order's number
//!       | the lookups that this entry leaves its node
//! ```
//! Invariants:
//! 1. An entry under way is noted with what it leads to, before anything changes: done once more, it changes nothing.
//! 2. From that note until the change nobody else changes the lookups of that node ([`crate::node::Nodes::change_lookups`]).
//! 3. A mark of another order says nothing, so that none is to be made when an order comes: its number is never used again.
//!
//! No locks: a mark belongs to who has the place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{FORGET_MARKS, open_number, seal, sealed_number};
use crate::sys::shared_map::SharedMap;

const KIND: u64 = 0x700;

/// The marks of all places.
#[derive(Debug)]
pub struct Forgets {
    map: Arc<SharedMap>,
}

/// The mark of one order.
#[derive(Debug)]
pub struct ForgetMark<'a> {
    entry: &'a AtomicU64,
    lookups: &'a AtomicU64,
    kind: u64,
}

impl Forgets {
    pub(super) fn new(map: Arc<SharedMap>) -> Self {
        Self { map }
    }

    /// The mark of the order with this number in this place.
    pub fn mark(&self, place: usize, unique: u64) -> ForgetMark<'_> {
        let at = FORGET_MARKS.start + 2 * place.min(FORGET_MARKS.words / 2 - 1);
        ForgetMark {
            entry: self.map.word(at),
            lookups: self.map.word(at + 1),
            kind: seal(KIND, &[unique]),
        }
    }
}

impl ForgetMark<'_> {
    /// An entry is about to leave its node with so many lookups.
    pub fn begin(&self, entry: usize, lookups: u64) {
        self.lookups.store(lookups, Ordering::Relaxed);
        self.set(entry, 1);
    }

    /// This entry and those before it are done.
    pub fn end(&self, entry: usize) {
        self.set(entry.saturating_add(1), 0);
    }

    /// How many entries are done, and what the next one leaves its node with, where it was begun.
    pub fn progress(&self) -> (usize, Option<u64>) {
        let number = open_number(self.kind, self.entry.load(Ordering::Acquire)).unwrap_or(0);
        let begun = number % 2 == 1;
        let done = usize::try_from(number / 2).unwrap_or(usize::MAX);
        let lookups = self.lookups.load(Ordering::Relaxed);
        (done, begun.then_some(lookups))
    }

    fn set(&self, entry: usize, begun: u32) {
        // An order has far fewer entries.
        let entry = u32::try_from(entry).unwrap_or(0).min(u32::MAX / 2);
        let word = sealed_number(self.kind, 2 * entry + begun);
        self.entry.store(word, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::FIXED;
    use super::*;

    #[test]
    fn a_successor_reads_how_far_an_order_came() {
        let map = Arc::new(SharedMap::create(c"test", FIXED).unwrap());
        let (forgets, next) = (Forgets::new(map.clone()), Forgets::new(map));
        let read = |unique| next.mark(3, unique).progress();
        assert_eq!(read(8), (0, None));
        let mark = forgets.mark(3, 8);
        mark.begin(0, 5);
        assert_eq!(read(8), (0, Some(5)));
        mark.end(0);
        assert_eq!(read(8), (1, None));
        // One that names a node which nobody knows is never begun.
        mark.end(1);
        mark.begin(2, 0);
        assert_eq!(read(8), (2, Some(0)));
        assert_eq!(read(10), (0, None), "another order");
        assert_eq!(next.mark(2, 8).progress(), (0, None), "another place");
        assert_eq!(next.mark(usize::MAX, 8).progress(), (0, None));
        mark.entry.fetch_xor(1 << 1, Ordering::Relaxed);
        assert_eq!(read(8), (0, None), "damaged");
    }
}
