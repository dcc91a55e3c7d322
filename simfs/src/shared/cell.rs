//! A text in shared memory that is replaced as a whole: two halves, the newer whole one counts.
//!
//! ```text
//! half: sequence number | length in bytes | seal over both and the content | content ...
//! ```
//! A writer that dies half way leaves the other half as it was. Writers of one cell take turns ([`Cell`] has no lock):
//! each cell has one writer, which its name tells.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::layout::{self, CELLS, seal};
use crate::sys::shared_map::{SharedMap, WORD};

/// Words before the content of a half.
const HEAD: usize = 3;

/// The texts that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellName {
    /// What the first daemon was started with; written once, by it.
    Config,
    /// Where and since when the mount is; written once, by the first daemon.
    Mount,
    /// The kernel's first request; written once, by the first daemon.
    InitRequest,
    /// What was answered to it; written once, by the first daemon.
    InitReply,
    /// How the last replacement of the program went; written by the keeper.
    Upgrade,
}

/// Bytes that fit each cell.
const SIZES: [(CellName, usize); 5] = [
    (CellName::Config, 32 * 1024),
    (CellName::Mount, 256),
    (CellName::InitRequest, 256),
    (CellName::InitReply, 256),
    (CellName::Upgrade, 1024),
];

/// Words of all cells.
pub(super) const WORDS: usize = {
    let mut sum = 0;
    let mut at = 0;
    while at < SIZES.len() {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        let bytes = SIZES[at].1;
        sum += 2 * (HEAD + bytes / WORD);
        at += 1;
    }
    sum
};

/// One of them.
#[derive(Clone, Debug)]
pub struct Cell {
    map: Arc<SharedMap>,
    start: usize,
    bytes: usize,
    kind: u64,
}

impl Cell {
    pub(super) fn new(map: Arc<SharedMap>, name: CellName) -> Self {
        let mut start = CELLS.start;
        let mut kind = 0x100;
        let mut bytes = 0;
        for (other, size) in SIZES {
            bytes = size;
            if other == name {
                break;
            }
            start += 2 * (HEAD + size / WORD);
            kind += 1;
        }
        Self {
            map,
            start,
            bytes,
            kind,
        }
    }

    /// The text that was written last; `None` where none was, or where it is damaged.
    pub fn read(&self) -> Option<Vec<u8>> {
        let newest = [0, 1]
            .into_iter()
            .filter_map(|half| self.read_half(half))
            .max_by_key(|(sequence, _)| *sequence);
        newest.map(|(_, content)| content)
    }

    /// Replaces the text; `false`, and nothing changed, where it is too long.
    #[must_use]
    pub fn write(&self, content: &[u8]) -> bool {
        let Ok(length) = u64::try_from(content.len()) else {
            return false;
        };
        if content.len() > self.bytes {
            return false;
        }
        let newest = [0, 1]
            .into_iter()
            .filter_map(|half| Some((self.check_half(half)?.0, half)))
            .max();
        let (sequence, half) = match newest {
            Some((sequence, half)) => (sequence.wrapping_add(1), 1 - half),
            None => (1, 0),
        };
        let start = self.half(half);
        // From here on this half counts for nothing, until its seal is right again.
        self.map.word(start + 2).store(0, Ordering::Release);
        self.map.word(start).store(sequence, Ordering::Relaxed);
        self.map.word(start + 1).store(length, Ordering::Relaxed);
        self.map.store_bytes(start + HEAD, content);
        let right = self.seal_of(sequence, length, start);
        self.map.word(start + 2).store(right, Ordering::Release);
        true
    }

    fn half(&self, half: usize) -> usize {
        self.start + half * (HEAD + self.bytes / WORD)
    }

    fn seal_of(&self, sequence: u64, length: u64, start: usize) -> u64 {
        let words = usize::try_from(length).unwrap_or(0).div_ceil(WORD);
        let mut sum = seal(self.kind, &[sequence, length]);
        for index in 0..words.min(self.bytes / WORD) {
            let word = self.map.word(start + HEAD + index).load(Ordering::Relaxed);
            sum = seal(sum, &[word]);
        }
        sum
    }

    /// Sequence number and length, where the half is whole.
    fn check_half(&self, half: usize) -> Option<(u64, usize)> {
        let start = self.half(half);
        let expected = self.map.word(start + 2).load(Ordering::Acquire);
        let sequence = self.map.word(start).load(Ordering::Relaxed);
        let length = self.map.word(start + 1).load(Ordering::Relaxed);
        let bytes = usize::try_from(length)
            .ok()
            .filter(|&bytes| bytes <= self.bytes)?;
        (sequence > 0 && self.seal_of(sequence, length, start) == expected)
            .then_some((sequence, bytes))
    }

    fn read_half(&self, half: usize) -> Option<(u64, Vec<u8>)> {
        let (sequence, length) = self.check_half(half)?;
        let mut content = vec![0; length];
        self.map
            .load_bytes(self.half(half) + HEAD, content.as_mut_slice());
        // Whether it was replaced while it was being read.
        (self.check_half(half)?.0 == sequence).then_some((sequence, content))
    }
}

const _: () = assert!(WORDS <= layout::CELLS.words);

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: CellName) -> Cell {
        let map = SharedMap::create(c"test", layout::FIXED).unwrap();
        Cell::new(Arc::new(map), name)
    }

    #[test]
    fn the_last_text_counts_and_cells_do_not_overlap() {
        let map = Arc::new(SharedMap::create(c"test", layout::FIXED).unwrap());
        for (name, size) in SIZES {
            let cell = Cell::new(map.clone(), name);
            assert_eq!(cell.read(), None);
            assert!(cell.write(&vec![1; size]) && cell.write(&vec![2; size]));
            assert!(!cell.write(&vec![3; size + 1]));
        }
        for (name, size) in SIZES {
            assert_eq!(Cell::new(map.clone(), name).read(), Some(vec![2; size]));
        }
    }

    #[test]
    fn a_damaged_text_is_never_read() {
        let cell = cell(CellName::Mount);
        assert!(cell.write(b"the first text"));
        for index in 0..HEAD + 2 {
            for bit in 0..64 {
                let word = cell.map.word(cell.start + index);
                let good = word.fetch_xor(1 << bit, Ordering::Relaxed);
                let read = cell.read();
                // What follows the last byte is filled up with zeroes, and sealed too.
                assert_eq!(read, None, "word {index}, bit {bit}");
                word.store(good, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn a_writer_that_died_half_way_leaves_the_text_before() {
        let cell = cell(CellName::Upgrade);
        assert!(cell.write(b"one") && cell.write(b"two"));
        // The third writes over "one": all but the seal.
        cell.map.word(cell.half(0)).store(3, Ordering::Relaxed);
        cell.map.store_bytes(cell.half(0) + HEAD, b"thr");
        assert_eq!(cell.read().as_deref(), Some(&b"two"[..]));
    }
}
