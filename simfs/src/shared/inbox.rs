//! Where the kernel writes a guest's system call as it hands it over.
//!
//! The kernel offers a call once. Received into the daemon's own memory and noted afterwards, it would be lost by a death
//! between the two, and its caller would wait as long as its listener lives. So the kernel writes it here, and a successor
//! finds it.
//!
//! ```text
//! the keeper's number of the listener, sealed (0: none) | what the kernel writes ...
//! ```
//! Invariants:
//! 1. One thread receives: it opens the inbox, has the kernel write, notes the call in the table of calls, and clears it.
//! 2. What the kernel wrote carries no seal. It counts only if the listener says that such a call waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{INBOX, open_number, sealed_number};
use crate::sys::shared_map::SharedMap;

const KIND: u64 = 0x600;

/// The inbox.
#[derive(Debug)]
pub struct Inbox {
    map: Arc<SharedMap>,
}

impl Inbox {
    pub(super) fn new(map: Arc<SharedMap>) -> Self {
        Self { map }
    }

    /// Empties it for a call of the listener that the keeper holds under this number; returns where the kernel is to write.
    pub fn open(&self, listener: u32) -> &[AtomicU64] {
        self.clear();
        self.listener()
            .store(sealed_number(KIND, listener), Ordering::Release);
        self.content()
    }

    /// What came in is noted elsewhere.
    pub fn clear(&self) {
        self.listener().store(0, Ordering::Release);
        for word in self.content() {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// The listener whose call a predecessor was receiving, and what the kernel has written: zeros if it had not yet.
    pub fn left(&self) -> Option<(u32, &[AtomicU64])> {
        let listener = open_number(KIND, self.listener().load(Ordering::Acquire))?;
        Some((listener, self.content()))
    }

    fn listener(&self) -> &AtomicU64 {
        self.map.word(INBOX.start)
    }

    fn content(&self) -> &[AtomicU64] {
        self.map.run(INBOX.start + 1, INBOX.words - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::FIXED;
    use super::*;

    #[test]
    fn a_successor_finds_what_came_in_and_nothing_once_it_is_cleared() {
        let map = Arc::new(SharedMap::create(c"test", FIXED).unwrap());
        let (inbox, next) = (Inbox::new(map.clone()), Inbox::new(map.clone()));
        assert!(next.left().is_none());
        inbox.open(0)[9].store(5, Ordering::Relaxed);
        let (listener, content) = next.left().unwrap();
        assert_eq!((listener, content[9].load(Ordering::Relaxed)), (0, 5));
        assert_eq!(inbox.open(7)[9].load(Ordering::Relaxed), 0, "the last one");
        map.word(INBOX.start).fetch_xor(1 << 3, Ordering::Relaxed);
        assert!(next.left().is_none(), "damaged");
        inbox.open(7);
        next.clear();
        assert!(inbox.left().is_none());
    }
}
