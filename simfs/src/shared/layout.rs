//! Where everything stands in the shared memory, in words of eight bytes.                                     (pure)
//!
//! ```text
//! page 0      header: what never changes after creation; see header.rs
//! page 1      board: counters and numbers of deposits; see board.rs; from word 64 marks of orders to forget; see forgets.rs;
//!             in its second half the inbox; see inbox.rs
//! ...         suspects: requests that were under way when a daemon died; see suspects.rs
//! ...         cells: a few texts, each twice; see cell.rs
//! ...         flights: the request of each worker, 1 KiB each; see flights.rs
//! ...         claims: those of dead daemons that may be sent again
//! ...         holds, listeners, notifications, handles: tables of fixed records; see table.rs
//! ...         directory of node chunks: one word each; see nodes.rs
//! ...         node chunks, 4 KiB each
//! ```
//! Up to the claims everything has room from the start; what follows gets room as it is used.
//!
//! A change of any number here is a new [`VERSION`].

/// `simfs` and a byte that no text has.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"simfs\0\xffS");
/// The version of this layout and of all records in it.
pub(super) const VERSION: u64 = 1;

/// Words of a page.
pub(super) const PAGE: usize = 512;

/// A run of words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) words: usize,
}

impl Span {
    const fn after(before: Self, words: usize) -> Self {
        let start = before.start + before.words;
        Self {
            start,
            words: words.div_ceil(PAGE) * PAGE,
        }
    }
}

/// Most workers that have a slot.
pub(super) const WORKERS: usize = 32;
/// Words of a slot or a claim.
pub(super) const SLOT: usize = 128;
/// Most requests of dead daemons that are remembered.
pub(super) const CLAIMS: usize = 128;
/// Most suspects.
pub(super) const SUSPECTS: usize = 64;

/// Most descriptors and backing files that are remembered by their numbers.
pub(super) const HOLDS: usize = 1 << 18;
/// Most seccomp listeners.
pub(super) const LISTENERS: usize = 4096;
/// Most quotactl calls under way.
pub(super) const NOTIFICATIONS: usize = 64;
/// Most open files and directories.
pub(super) const HANDLES: usize = 1 << 20;
/// Most chunks of node records.
pub(super) const CHUNKS: usize = 1 << 20;

pub(super) const HEADER: Span = Span {
    start: 0,
    words: PAGE,
};
pub(super) const BOARD: Span = Span::after(HEADER, PAGE);
/// Two words for each place of the [`super::Intake`]. Zero where a program without it served.
pub(super) const FORGET_MARKS: Span = Span {
    start: BOARD.start + 64,
    words: 2 * super::intake::PLACES,
};
/// Room for what the kernel writes of a system call, several times what it is today. Zero where a program without it served.
pub(super) const INBOX: Span = Span {
    start: BOARD.start + PAGE / 2,
    words: 1 + 64,
};
pub(super) const SUSPECT_LIST: Span = Span::after(BOARD, SUSPECTS * 3);
pub(super) const CELLS: Span = Span::after(SUSPECT_LIST, super::cell::WORDS);
pub(super) const FLIGHTS: Span = Span::after(CELLS, WORKERS * SLOT);
pub(super) const CLAIM_LIST: Span = Span::after(FLIGHTS, CLAIMS * SLOT);
/// What has room from the start.
pub(super) const FIXED: usize = CLAIM_LIST.start + CLAIM_LIST.words;
pub(super) const HOLD_TABLE: Span = Span::after(CLAIM_LIST, HOLDS * 4);
pub(super) const LISTENER_TABLE: Span = Span::after(HOLD_TABLE, LISTENERS * 4);
pub(super) const NOTIFICATION_TABLE: Span = Span::after(LISTENER_TABLE, NOTIFICATIONS * 16);
pub(super) const HANDLE_TABLE: Span = Span::after(NOTIFICATION_TABLE, HANDLES * 4);
pub(super) const DIRECTORY: Span = Span::after(HANDLE_TABLE, CHUNKS);
pub(super) const NODES: Span = Span::after(DIRECTORY, CHUNKS * PAGE);
/// All words; the last page is nobody's, so that a wrong index hits nothing.
pub(super) const TOTAL: usize = NODES.start + NODES.words + PAGE;

/// A seal over a few words: tells a whole record from a damaged or half-written one. Against accidents, not attacks:
/// nobody but this VE's daemons and their keeper can write here.
pub(super) fn seal(kind: u64, words: &[u64]) -> u64 {
    // splitmix64's mixing step; a word of zeroes does not stay zero.
    words.iter().fold(kind ^ VERSION, |sum, &word| {
        let mut mixed = (sum ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// A number with its seal in one word, for a number that changes alone.
pub(super) fn sealed_number(kind: u64, number: u32) -> u64 {
    let number = u64::from(number);
    number | (seal(kind, &[number]) << 32)
}

/// Reads [`sealed_number`]; `None` where it is damaged or was never written.
pub(super) fn open_number(kind: u64, word: u64) -> Option<u32> {
    let number = u32::try_from(word & u64::from(u32::MAX)).ok()?;
    (sealed_number(kind, number) == word).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_of_a_sealed_number_is_seen() {
        for number in [0, 1, 77, u32::MAX] {
            let word = sealed_number(3, number);
            assert_eq!(open_number(3, word), Some(number));
            assert_eq!(open_number(4, word), None);
            for bit in 0..64 {
                assert_eq!(open_number(3, word ^ (1 << bit)), None, "bit {bit}");
            }
        }
        assert_eq!(open_number(3, 0), None);
    }

    #[test]
    fn seals_depend_on_every_word_and_its_place() {
        assert_ne!(seal(1, &[1, 2]), seal(1, &[2, 1]));
        assert_ne!(seal(1, &[0]), seal(1, &[0, 0]));
        assert_ne!(seal(1, &[1]), seal(2, &[1]));
    }
}
