//! Lanes: many threads change shared values at once, until one needs them all to stand still.
//!
//! Each thread works in a lane, a lock that it has nearly for itself; so entering one is cheap, and threads do not wait
//! for each other. Whoever closes the lanes holds the locks of all: nobody is inside then, and everything that was done
//! inside has happened.
//!
//! Invariant: between [`Lanes::close`] and the end of what it returns no thread is in a lane.
//! Lock order: who is in a lane neither enters nor closes; closing takes the lanes in their order.

use std::cell::Cell;
use std::sync::OnceLock;
use std::thread;

use smallvec::SmallVec;

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// Most lanes of one ledger. Closing costs in proportion to their number.
pub(crate) const LANES: usize = 8;

/// Keeps values of two threads out of one cache line, and out of the pair that processors fetch together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// What each lane holds is for whoever is in it.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    first: Apart<Mutex<T>>,
    others: Box<[Apart<Mutex<T>>]>,
}

/// All lanes, closed as long as this is kept.
pub(crate) type Closed<'a, T> = SmallVec<[MutexGuard<'a, T>; LANES]>;

impl<T> Lanes<T> {
    /// So many lanes, at least one, that hold these values.
    pub(crate) fn new(count: usize, mut value: impl FnMut() -> T) -> Self {
        let mut lane = || Apart(Mutex::new(value()));
        Self {
            first: lane(),
            others: (1..count.min(LANES)).map(|_| lane()).collect(),
        }
    }

    /// Enters this thread's lane.
    pub(crate) fn enter(&self) -> MutexGuard<'_, T> {
        let count = self.others.len().saturating_add(1);
        let number = (number_of_thread() % count).checked_sub(1);
        let Apart(lane) = number
            .and_then(|number| self.others.get(number))
            .unwrap_or(&self.first);
        lane.lock()
    }

    /// Waits until all lanes are empty, and keeps them so.
    pub(crate) fn close(&self) -> Closed<'_, T> {
        let lanes = [&self.first].into_iter().chain(&self.others);
        lanes.map(|Apart(lane)| lane.lock()).collect()
    }
}

/// How many threads can work at once on this machine, at most [`LANES`].
pub(crate) fn parallelism() -> usize {
    static FOUND: OnceLock<usize> = OnceLock::new();
    let find = || thread::available_parallelism().map_or(LANES, |count| count.get().min(LANES));
    *FOUND.get_or_init(find)
}

/// A number of this thread; threads are numbered in the order in which they ask first.
pub(crate) fn number_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    // A thread that is ending has no place of its own any more.
    let known = NUMBER.try_with(|number| {
        number.get().unwrap_or_else(|| {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            number.set(Some(next));
            next
        })
    });
    known.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_in_a_lane_while_they_are_closed() {
        let lanes = Lanes::new(3, || 0_u64);
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let mut lane = lanes.enter();
                        inside.fetch_add(1, Ordering::Relaxed);
                        *lane += 1;
                        inside.fetch_sub(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..500 {
                let closed = lanes.close();
                assert_eq!(inside.load(Ordering::Relaxed), 0);
                drop(closed);
            }
        });
        let done: u64 = lanes.close().iter().map(|lane| **lane).sum();
        assert_eq!(done, 8000);
    }
}
