//! What one commit writes, as the ledger was at one instant, and what becomes of the ledger afterwards.
//!
//! ```text
//! cut:      in closed lanes, the new generation begins; an order is applied to copies of what it concerns
//! collect:  the other changed accounts are copied as they were at the cut, while everybody works on
//!           -> written to the store
//!   durable: confirm   the order comes into force, in closed lanes; what changed meanwhile stays changed
//!   failed:  restore   everything is to be written again, since nobody knows which of the two the store has
//! ```
//! So without an order the lanes are closed for a moment that does not depend on the number of accounts.

use std::sync::Arc;

use crate::dquot::is_worth_storing;
use crate::event::News;
use crate::grace::Timestamp;
use crate::info::VeInfo;
use crate::store::copy::AccountCopy;
use crate::store::record::AccountRecord;
use crate::subject::Subject;
use crate::usage::Usage;

use super::entry::{Entry, Generation};
use super::{Closed, Edit, Ledger};

/// The instant of which a commit is.
#[derive(Debug)]
pub(crate) struct Cut {
    info: VeInfo,
    generation: Generation,
    /// Changed in the generation before.
    changed: Vec<Arc<Entry>>,
    /// Copied already.
    items: Vec<Item>,
}

/// What one commit writes.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The settings.
    pub(crate) info: VeInfo,
    /// The accounts, by subject. They stay in memory as long as this is kept.
    pub(crate) items: Vec<Item>,
}

/// One account of a commit.
#[derive(Debug)]
pub(crate) struct Item {
    entry: Arc<Entry>,
    /// What is written.
    record: AccountRecord,
    /// What was charged at the cut.
    known: Usage,
}

impl Item {
    /// Whose.
    pub(crate) fn subject(&self) -> Subject {
        self.entry.subject()
    }

    /// The record to write, or `None` where the account is to be removed.
    pub(crate) fn stored(&self) -> Option<&AccountRecord> {
        let keep = self.subject() == Subject::Ve || is_worth_storing(&self.record);
        keep.then_some(&self.record)
    }
}

impl Snapshot {
    /// What the copy of limits is to know of this order's accounts. A recount changes none of their limits.
    pub(crate) fn copied(&self, edit: &Edit) -> Vec<AccountCopy> {
        let concerned = self
            .items
            .iter()
            .filter(|item| edit.concerns(item.subject()) && !matches!(edit, Edit::Usage(_)));
        concerned
            .map(|item| AccountCopy::new(item.subject(), &item.record))
            .filter(|account| edit.is_of_limits() || account.is_worth_keeping())
            .collect()
    }
}

impl Closed<'_> {
    /// Takes what is to be written if this order is carried out; from now on it counts as written.
    pub(crate) fn cut(&mut self, edit: &Edit, now: Timestamp) -> Cut {
        let info = edit.applied_to(&self.books.info);
        let generation = self.generation();
        let changed = std::mem::take(&mut *self.ledger.changed.lock());
        let mut items = Vec::new();
        self.for_each_concerned(edit, |entry| {
            let changed = entry.take_record(generation);
            let mut copy = entry.dquot();
            let before = copy.record();
            let known = before.usage;
            // Told when the order comes into force.
            let mut untold = News::default();
            edit.amend(
                &mut copy,
                (&self.books.info, &info),
                known,
                now,
                &mut untold,
            );
            let record = copy.record();
            if changed.is_some() || record != before {
                let entry = entry.clone();
                items.push(Item {
                    entry,
                    record,
                    known,
                });
            }
        });
        self.begin_generation();
        Cut {
            info,
            generation,
            changed,
            items,
        }
    }

    fn for_each_concerned(&self, edit: &Edit, mut each: impl FnMut(&Arc<Entry>)) {
        match edit {
            Edit::Accounts(accounts) => {
                for &subject in accounts.keys() {
                    let _found = self.with(subject, &mut each);
                }
            }
            _ if edit.is_sweeping() => self.ledger.roster.for_each(|entry| {
                if edit.concerns(entry.subject()) {
                    each(entry);
                }
            }),
            _ => {}
        }
    }

    fn put_in_force(
        &self,
        snapshot: &Snapshot,
        edit: &Edit,
        old: &VeInfo,
        now: Timestamp,
        news: &mut News,
    ) {
        self.for_each_concerned(edit, |entry| {
            let subject = entry.subject();
            let at = snapshot.items.binary_search_by_key(&subject, Item::subject);
            let item = at.ok().and_then(|at| snapshot.items.get(at));
            let mut dquot = entry.dquot();
            let before = dquot.record();
            // An account that is not in the snapshot held then what the order gives it.
            let known = match (item, edit) {
                (Some(item), _) => item.known,
                (None, Edit::Usage(tally)) => tally.usage(subject),
                (None, _) => before.usage,
            };
            let new = &self.books.info;
            edit.amend(&mut dquot, (old, new), known, now, news);
            let stored = item.map_or(before, |item| item.record);
            if dquot.record() != stored {
                self.touch(entry);
            }
            self.put(entry, &dquot);
        });
    }
}

impl Ledger {
    /// Copies what changed before the cut. Nobody waits for it.
    pub(crate) fn collect(&self, cut: Cut) -> Snapshot {
        let Cut {
            info,
            generation,
            changed,
            mut items,
        } = cut;
        items.reserve(changed.len());
        for entry in changed {
            if let Some(record) = entry.take_record(generation) {
                let known = record.usage;
                items.push(Item {
                    entry,
                    record,
                    known,
                });
            }
        }
        items.sort_unstable_by_key(Item::subject);
        Snapshot { info, items }
    }

    /// The snapshot is durable: the order comes into force.
    pub(crate) fn confirm(&self, snapshot: Snapshot, edit: &Edit, now: Timestamp) -> News {
        let mut news = News::default();
        if matches!(edit, Edit::Nothing) {
            self.books.lock().unsure = false;
        } else {
            let mut closed = self.close();
            closed.books.unsure = false;
            let old = std::mem::replace(&mut closed.books.info, snapshot.info.clone());
            closed.put_in_force(&snapshot, edit, &old, now, &mut news);
        }
        let removed = snapshot.items.iter().filter(|item| item.stored().is_none());
        let mut removed: Vec<_> = removed.map(Item::subject).collect();
        drop(snapshot);
        self.books.lock().visitors.append(&mut removed);
        news
    }

    /// The snapshot may be durable or not: all of it is to be written again.
    pub(crate) fn restore(&self, snapshot: &Snapshot) {
        self.books.lock().unsure = true;
        let lane = self.lanes.enter();
        for item in &snapshot.items {
            self.touch(&item.entry, lane.generation);
        }
    }
}
