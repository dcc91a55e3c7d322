//! Names that were looked up a moment ago and not found: the kernel looks up a name right before it makes it, so whoever is
//! to say what is about to be made need not look again.
//!
//! A hint counts once, and one that is lost or replaced costs another look. What it says is as old as what the kernel goes
//! by: only an edit behind the mount can have made the name meanwhile. So it is for notes of what is about to happen, never
//! for what is charged.
//!
//! No locks.

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Place;

/// Names that are remembered; more clients at once get in each other's way.
const PLACES: usize = 64;

/// The names, as keyed hashes: a guest cannot choose two that are taken for each other.
#[derive(Debug)]
pub(super) struct Absent {
    key: RandomState,
    places: [AtomicU64; PLACES],
}

impl Default for Absent {
    fn default() -> Self {
        Self {
            key: RandomState::new(),
            places: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Absent {
    /// There is no such name.
    pub(super) fn note(&self, place: Place<'_>) {
        let hash = self.hash(place);
        if let Some(at) = self.place(hash) {
            at.store(hash, Ordering::Release);
        }
    }

    /// Whether the name was just found missing; said once, to whoever is about to make it.
    pub(super) fn take(&self, place: Place<'_>) -> bool {
        let hash = self.hash(place);
        self.place(hash).is_some_and(|at| {
            let taken = at.compare_exchange(hash, 0, Ordering::AcqRel, Ordering::Relaxed);
            taken.is_ok()
        })
    }

    fn hash(&self, place: Place<'_>) -> u64 {
        let name: &OsStr = place.name;
        self.key.hash_one((place.parent, name)).max(1)
    }

    fn place(&self, hash: u64) -> Option<&AtomicU64> {
        let index = usize::try_from(hash >> 32).unwrap_or(0) % PLACES;
        self.places.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::at;
    use super::*;
    use crate::node::NodeId;

    #[test]
    fn a_hint_is_about_one_name_of_one_directory_and_counts_once() {
        let absent = Absent::default();
        let elsewhere = Place {
            parent: NodeId::new(77),
            ..at("a")
        };
        absent.note(at("a"));
        assert!(!absent.take(at("b")) && !absent.take(elsewhere));
        assert!(absent.take(at("a")));
        assert!(!absent.take(at("a")));
    }
}
