//! Requests that were under way when a daemon died, with how often: one that kills again and again is not tried for ever.
//!
//! Three words each: unique number (0: free), deaths, seal. Only a starting daemon writes here, before it serves.
//! Bound: the newest [`SUSPECTS`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::layout::{SUSPECT_LIST, SUSPECTS, seal};
use crate::sys::shared_map::SharedMap;

const WORDS: usize = 3;
const KIND: u64 = 0x300;

/// How a daemon came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// By its own fault: a panic, or a signal that tells of one.
    Crash,
    /// Somebody ended it.
    Kill,
}

/// Deaths with one request under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deaths {
    /// By the daemon's own fault.
    pub crashes: u32,
    /// By somebody else.
    pub kills: u32,
}

/// The list of them.
#[derive(Clone, Debug)]
pub struct Suspects {
    map: Arc<SharedMap>,
}

impl Suspects {
    pub(super) fn new(map: Arc<SharedMap>) -> Self {
        Self { map }
    }

    /// Counts one more death with this request under way, and says how many there are.
    pub fn note(&self, unique: u64, death: Death) -> Deaths {
        let known = self.entries().find(|(_, other, _)| *other == unique);
        let (at, mut deaths) = match known {
            Some((at, _, deaths)) => (at, deaths),
            None => (self.place(), Deaths::default()),
        };
        match death {
            Death::Crash => deaths.crashes = deaths.crashes.saturating_add(1),
            Death::Kill => deaths.kills = deaths.kills.saturating_add(1),
        }
        let packed = u64::from(deaths.crashes) | u64::from(deaths.kills) << 32;
        self.map.word(at + 2).store(0, Ordering::Release);
        self.map.word(at).store(unique, Ordering::Relaxed);
        self.map.word(at + 1).store(packed, Ordering::Relaxed);
        self.map
            .word(at + 2)
            .store(seal(KIND, &[unique, packed]), Ordering::Release);
        deaths
    }

    /// Deaths with this request under way.
    pub fn deaths(&self, unique: u64) -> Deaths {
        self.entries()
            .find(|(_, other, _)| *other == unique)
            .map_or_else(Deaths::default, |(_, _, deaths)| deaths)
    }

    fn entries(&self) -> impl Iterator<Item = (usize, u64, Deaths)> {
        (0..SUSPECTS).filter_map(|index| {
            let at = SUSPECT_LIST.start + index * WORDS;
            let expected = self.map.word(at + 2).load(Ordering::Acquire);
            let unique = self.map.word(at).load(Ordering::Relaxed);
            let packed = self.map.word(at + 1).load(Ordering::Relaxed);
            let half = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
            let deaths = Deaths {
                crashes: half(packed),
                kills: half(packed >> 32),
            };
            let is_whole = expected == seal(KIND, &[unique, packed]);
            (is_whole && unique != 0).then_some((at, unique, deaths))
        })
    }

    /// A free place, or that of the oldest: unique numbers count up.
    fn place(&self) -> usize {
        let taken: Vec<_> = self.entries().map(|(at, unique, _)| (unique, at)).collect();
        let free = (0..SUSPECTS)
            .map(|index| SUSPECT_LIST.start + index * WORDS)
            .find(|at| taken.iter().all(|(_, other)| other != at));
        let oldest = taken.iter().min().map(|(_, at)| *at);
        free.or(oldest).unwrap_or(SUSPECT_LIST.start)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::FIXED;
    use super::*;

    fn suspects() -> Suspects {
        Suspects::new(Arc::new(SharedMap::create(c"test", FIXED).unwrap()))
    }

    #[test]
    fn deaths_add_up_by_their_kind() {
        let suspects = suspects();
        suspects.note(40, Death::Crash);
        suspects.note(42, Death::Kill);
        assert_eq!(
            suspects.note(40, Death::Kill),
            Deaths {
                crashes: 1,
                kills: 1
            }
        );
        assert_eq!(suspects.deaths(42).kills, 1);
        assert_eq!(suspects.deaths(44), Deaths::default());
    }

    #[test]
    fn the_oldest_makes_room() {
        let suspects = suspects();
        let count = u64::try_from(SUSPECTS).unwrap();
        for unique in 1..=count + 3 {
            suspects.note(unique, Death::Crash);
        }
        assert_eq!(suspects.deaths(3), Deaths::default());
        assert_eq!(suspects.deaths(4).crashes, 1);
        assert_eq!(suspects.deaths(count + 3).crashes, 1);
    }

    #[test]
    fn a_damaged_entry_counts_for_nothing() {
        let suspects = suspects();
        suspects.note(9, Death::Crash);
        suspects
            .map
            .word(SUSPECT_LIST.start + 1)
            .fetch_xor(1 << 40, Ordering::Relaxed);
        assert_eq!(suspects.deaths(9), Deaths::default());
    }
}
