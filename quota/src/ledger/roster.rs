//! Which accounts are in memory, by subject and in order.
//!
//! Whoever works on an account keeps a reference to it, and so do the lists of what is to be stored. One that nobody
//! else refers to and that holds no promise equals the stored one, and can be let go.
//!
//! Lock order: after the lanes, before an entry's `side`. Long walks let go of the lock from time to time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::subject::Subject;
use crate::sync::RwLock;

use super::entry::Entry;

/// How many accounts are looked at without letting others in.
const STRIDE: usize = 512;

/// The accounts in memory.
#[derive(Debug, Default)]
pub(super) struct Roster {
    entries: RwLock<BTreeMap<Subject, Arc<Entry>>>,
}

impl Roster {
    /// An account, if it is in memory.
    pub(super) fn get(&self, subject: Subject) -> Option<Arc<Entry>> {
        self.entries.read().get(&subject).cloned()
    }

    /// Takes an account in; one that is here already stays. Only in closed lanes.
    pub(super) fn insert(&self, entry: Entry) -> Arc<Entry> {
        let mut entries = self.entries.write();
        let entry = entries.entry(entry.subject()).or_insert(Arc::new(entry));
        entry.clone()
    }

    /// The first account from this one on of which `pick` makes something.
    pub(super) fn find_from<T>(
        &self,
        from: Subject,
        mut pick: impl FnMut(&Arc<Entry>) -> Option<T>,
    ) -> Option<T> {
        let entries = self.entries.read();
        entries.range(from..).find_map(|(_, entry)| pick(entry))
    }

    /// Calls `each` for every account, in order. Only in closed lanes.
    pub(super) fn for_each(&self, mut each: impl FnMut(&Arc<Entry>)) {
        let _none = self.find_from(Subject::Ve, |entry| {
            each(entry);
            None::<()>
        });
    }

    /// Lets an account go if it is not worth the memory; false where it is, or where somebody is using it.
    pub(super) fn forget_unused(&self, subject: Subject) -> bool {
        let mut entries = self.entries.write();
        let unused = |entry: &Arc<Entry>| Arc::strong_count(entry) == 1 && entry.is_unused();
        let gone = subject != Subject::Ve && entries.get(&subject).is_some_and(unused);
        if gone {
            entries.remove(&subject);
        }
        gone
    }

    /// Whether an account is in memory and not worth it.
    pub(super) fn has_unused(&self, subject: Subject) -> bool {
        let entries = self.entries.read();
        entries.get(&subject).is_some_and(|entry| entry.is_unused())
    }

    /// Lets go accounts that were not used since the last call, until this many are left or none is to be found.
    pub(super) fn shrink_to(&self, bound: usize) {
        let mut from = Bound::Unbounded;
        loop {
            let mut entries = self.entries.write();
            let Some(surplus) = entries.len().checked_sub(bound).filter(|&many| many > 0) else {
                return;
            };
            let stride = || entries.range((from, Bound::Unbounded)).take(STRIDE);
            let Some(last) = stride().last().map(|(subject, _)| *subject) else {
                return;
            };
            let idle = |(subject, entry): (&Subject, &Arc<Entry>)| {
                let idle = !entry.was_used() && *subject != Subject::Ve;
                (idle && Arc::strong_count(entry) == 1 && !entry.has_promises()).then_some(*subject)
            };
            let gone: Vec<_> = stride().filter_map(idle).take(surplus).collect();
            for subject in gone {
                entries.remove(&subject);
            }
            from = Bound::Excluded(last);
        }
    }
}
