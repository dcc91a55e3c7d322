//! Changes of amounts by single steps, while other threads do the same: the way of every request that is far from all
//! limits.
//!
//! The steps of a promise: raise what each account holds, in the order of checks; where one has no room below its fence,
//! lower the earlier ones again. Those of a move: promise what it adds beyond its own promise, in the same way; then charge,
//! release and give back, which cannot fail. Whatever stops half way has left everything as it was.

use crate::charges::{Charges, Moves};
use crate::subject::Subject;
use crate::sync::MutexGuard;

use super::Ledger;
use super::lane::Lane;

impl Ledger {
    /// Promises amounts on all their accounts and says so, or changes nothing: the rules must decide.
    pub(crate) fn promise_at_once(&self, charges: &Charges) -> bool {
        let lane = self.enter_with(charges.iter().map(|(subject, _)| subject));
        for (at, (subject, want)) in charges.iter().enumerate() {
            let entry = lane.get(subject);
            if entry.is_some_and(|entry| entry.promise(want)) {
                continue;
            }
            for (subject, want) in charges.iter().take(at) {
                lane.get(subject)
                    .iter()
                    .for_each(|entry| entry.cancel(want));
            }
            return false;
        }
        true
    }

    /// Gives promises back and moves charges and says so, or changes nothing: the rules must follow. `announce` is called
    /// before, and not at all where nothing is changed.
    pub(crate) fn apply_at_once(&self, moves: &Moves, announce: impl FnOnce()) -> bool {
        let lane = self.enter_with(moves.iter().map(|(subject, _)| subject));
        for (at, (subject, part)) in moves.iter().enumerate() {
            let entry = lane.get(subject);
            if entry.is_some_and(|entry| entry.prepare(part)) {
                continue;
            }
            for (subject, part) in moves.iter().take(at) {
                let excess = part.excess();
                lane.get(subject)
                    .iter()
                    .for_each(|entry| entry.cancel(excess));
            }
            return false;
        }
        announce();
        for (subject, part) in moves.iter() {
            let Some(entry) = lane.get(subject) else {
                continue;
            };
            if part.moves_charges() {
                self.touch(entry, lane.generation);
            }
            entry.carry_out(part);
        }
        true
    }

    /// Enters the thread's lane with these accounts at hand, as far as they are in memory. One that shares its place with another
    /// of them is not: then the rules decide, for which nothing need be at hand.
    fn enter_with(&self, subjects: impl Iterator<Item = Subject>) -> MutexGuard<'_, Lane> {
        let mut lane = self.lanes.enter();
        for subject in subjects {
            if lane.get(subject).is_none()
                && let Some(entry) = self.roster.get(subject)
            {
                lane.keep(entry);
            }
        }
        lane
    }
}
