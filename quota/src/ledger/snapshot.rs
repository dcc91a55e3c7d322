//! What one commit writes, taken from the ledger at one instant, and what becomes of the ledger afterwards.   (pure)
//!
//! ```text
//! snapshot: changed accounts, with the order applied to copies   -> written without the ledger's lock
//!   durable: confirm   the order comes into force; what changed meanwhile stays changed
//!   failed:  restore   everything is to be written again, since nobody knows which of the two the store has
//! ```

use std::collections::BTreeSet;

use crate::dquot::is_worth_storing;
use crate::event::News;
use crate::grace::Timestamp;
use crate::info::VeInfo;
use crate::store::copy::AccountCopy;
use crate::store::record::AccountRecord;
use crate::subject::Subject;
use crate::usage::Usage;

use super::{Edit, Ledger};

/// What one commit writes.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The settings.
    pub(crate) info: VeInfo,
    /// The accounts, by subject.
    pub(crate) items: Vec<Item>,
}

/// One account of a commit.
#[derive(Debug)]
pub(crate) struct Item {
    /// Whose.
    pub(crate) subject: Subject,
    /// What is written.
    record: AccountRecord,
    /// What was charged when the snapshot was taken.
    known: Usage,
}

impl Item {
    /// The record to write, or `None` where the account is to be removed.
    pub(crate) fn stored(&self) -> Option<&AccountRecord> {
        let keep = self.subject == Subject::Ve || is_worth_storing(&self.record);
        keep.then_some(&self.record)
    }
}

impl Snapshot {
    /// What the copy of limits is to know of this order's accounts. A recount changes none of their limits.
    pub(crate) fn copied(&self, edit: &Edit) -> Vec<AccountCopy> {
        let concerned = self
            .items
            .iter()
            .filter(|item| edit.concerns(item.subject) && !matches!(edit, Edit::Usage(_)));
        concerned
            .map(|item| AccountCopy::new(item.subject, &item.record))
            .filter(|account| edit.is_of_limits() || account.is_worth_keeping())
            .collect()
    }
}

impl Ledger {
    /// Takes what is to be written if this order is carried out; from now on it counts as written.
    pub(crate) fn snapshot(&mut self, edit: &Edit, now: Timestamp) -> Snapshot {
        let new = edit.applied_to(&self.info);
        let mut subjects: BTreeSet<_> = std::mem::take(&mut self.changed).into_iter().collect();
        match edit {
            Edit::Limits(subject, _) | Edit::Deadlines(subject, _) => {
                subjects.insert(*subject);
            }
            _ if edit.is_sweeping() => subjects.extend(self.entries.keys()),
            _ => {}
        }
        let mut items = Vec::with_capacity(subjects.len());
        for subject in subjects {
            let Some(entry) = self.entries.get_mut(&subject) else {
                continue;
            };
            let changed = std::mem::replace(&mut entry.changed, false);
            let known = entry.dquot.account().usage;
            let mut copy = entry.dquot;
            if edit.concerns(subject) {
                // Told when the order comes into force.
                let mut untold = News::default();
                edit.amend(&mut copy, (&self.info, &new), known, now, &mut untold);
            }
            let record = copy.record();
            if changed || record != entry.dquot.record() {
                entry.pending = true;
                items.push(Item {
                    subject,
                    record,
                    known,
                });
            }
        }
        Snapshot { info: new, items }
    }

    /// The snapshot is durable: the order comes into force.
    pub(crate) fn confirm(&mut self, snapshot: &Snapshot, edit: &Edit, now: Timestamp) -> News {
        let mut news = News::default();
        self.unsure = false;
        let old = std::mem::replace(&mut self.info, snapshot.info.clone());
        if !matches!(edit, Edit::Nothing) {
            self.put_in_force(snapshot, edit, &old, now, &mut news);
        }
        for item in &snapshot.items {
            let Some(entry) = self.entries.get_mut(&item.subject) else {
                continue;
            };
            entry.pending = false;
            self.forget_unstored(item.subject);
        }
        news
    }

    fn put_in_force(
        &mut self,
        snapshot: &Snapshot,
        edit: &Edit,
        old: &VeInfo,
        now: Timestamp,
        news: &mut News,
    ) {
        for (&subject, entry) in &mut self.entries {
            if !edit.concerns(subject) {
                continue;
            }
            let item = snapshot
                .items
                .binary_search_by_key(&subject, |item| item.subject);
            let item = item.ok().and_then(|at| snapshot.items.get(at));
            let before = entry.dquot.record();
            // An account that is not in the snapshot held then what the order gives it.
            let known = match (item, edit) {
                (Some(item), _) => item.known,
                (None, Edit::Usage(tally)) => tally.usage(subject),
                (None, _) => before.usage,
            };
            edit.amend(&mut entry.dquot, (old, &self.info), known, now, news);
            let stored = item.map_or(before, |item| item.record);
            if entry.dquot.record() != stored {
                entry.mark(subject, &mut self.changed);
            }
        }
    }

    /// The snapshot may be durable or not: all of it is to be written again.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) {
        self.unsure = true;
        for item in &snapshot.items {
            if let Some(entry) = self.entries.get_mut(&item.subject) {
                entry.pending = false;
                entry.mark(item.subject, &mut self.changed);
            }
        }
    }
}
