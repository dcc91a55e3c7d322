//! The accounts of one VE that are in memory: checks and charges all accounts of a request together.         (pure)
//!
//! Accounts come from the store at their first touch and leave after a commit; which of them are here is the engine's
//! business. What cannot be refused and meets an account that could not be read becomes a *debt*, settled when the
//! account arrives.
//!
//! Invariants:
//! 1. A request is promised on all its accounts or on none; the VE is asked first, then users, then groups.
//! 2. An account whose record differs from the stored one is in `changed`, or part of the commit under way.
//! 3. An account that is in memory, is not changed and holds no promise equals the stored one.
//!
//! No locks: the engine holds one around the whole ledger.

use std::collections::BTreeMap;

use crate::charges::{Charges, Move, Moves};
use crate::dquot::{Dquot, Rules};
use crate::error::{Denied, DenyReason};
use crate::event::News;
use crate::grace::Timestamp;
use crate::info::VeInfo;
use crate::scope::Scope;
use crate::store::record::AccountRecord;
use crate::subject::Subject;
use crate::usage::{Resource, Usage};

mod edit;
mod snapshot;

pub(crate) use edit::Edit;
pub(crate) use snapshot::{Item, Snapshot};

/// Which levels a request has to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Levels {
    /// The VE, its users and its groups.
    Both,
    /// The VE alone: the caller passes the second level.
    First,
}

/// Accounts of one VE.
#[derive(Debug)]
pub(crate) struct Ledger {
    info: VeInfo,
    entries: BTreeMap<Subject, Entry>,
    /// Subjects of changed entries, each once.
    changed: Vec<Subject>,
    debts: BTreeMap<Subject, Move>,
    /// A commit failed, so the store may have settings that are not in force.
    unsure: bool,
}

#[derive(Debug)]
struct Entry {
    dquot: Dquot,
    changed: bool,
    /// Part of the commit under way: the store may still have an earlier record.
    pending: bool,
    /// Used since the last look for accounts to let go.
    recent: bool,
}

impl Entry {
    fn mark(&mut self, subject: Subject, changed: &mut Vec<Subject>) {
        if !std::mem::replace(&mut self.changed, true) {
            changed.push(subject);
        }
    }

    fn is_idle(&self) -> bool {
        !self.changed && !self.pending && self.dquot.account().reserved.is_zero()
    }
}

impl Ledger {
    /// The ledger of this VE, without any account.
    pub(crate) fn new(info: VeInfo) -> Self {
        Self {
            info,
            entries: BTreeMap::new(),
            changed: Vec::new(),
            debts: BTreeMap::new(),
            unsure: false,
        }
    }

    /// The VE as a whole.
    pub(crate) fn info(&self) -> &VeInfo {
        &self.info
    }

    /// An account that is in memory.
    pub(crate) fn get(&self, subject: Subject) -> Option<&Dquot> {
        self.entries.get(&subject).map(|entry| &entry.dquot)
    }

    /// The accounts in memory, from this one on, in order.
    pub(crate) fn iter_from(&self, from: Subject) -> impl Iterator<Item = &Dquot> {
        self.entries.range(from..).map(|(_, entry)| &entry.dquot)
    }

    /// Whether there is anything to commit.
    pub(crate) fn is_changed(&self) -> bool {
        self.unsure || !self.changed.is_empty() || !self.debts.is_empty()
    }

    /// An account that could not be read when something happened to it.
    pub(crate) fn first_debt(&self) -> Option<Subject> {
        self.debts.keys().next().copied()
    }

    /// Whether something happened to this account that could not be read.
    pub(crate) fn has_debt(&self, subject: Subject) -> bool {
        self.debts.contains_key(&subject)
    }

    /// Takes an account in as the store has it. One that is here stays as it is.
    pub(crate) fn insert(
        &mut self,
        subject: Subject,
        record: &AccountRecord,
        now: Timestamp,
        news: &mut News,
    ) {
        self.entries.entry(subject).or_insert_with(|| Entry {
            dquot: Dquot::new(subject, record),
            changed: false,
            pending: false,
            recent: true,
        });
        if let Some(debt) = self.debts.remove(&subject) {
            self.apply_one(subject, debt, now, news);
        }
    }

    /// Whether these amounts fit, on every account, in the order of checks. One that is not in memory refuses.
    pub(crate) fn check(
        &self,
        charges: &Charges,
        levels: Levels,
        now: Timestamp,
    ) -> Result<(), Denied> {
        for (subject, want) in charges.iter() {
            let limited = self.is_limited(subject, levels);
            let Some(entry) = self.entries.get(&subject) else {
                return Err(unavailable(subject));
            };
            entry.dquot.check(want, limited, now)?;
        }
        Ok(())
    }

    /// Promises amounts that were checked.
    pub(crate) fn promise(&mut self, charges: &Charges, now: Timestamp) {
        for (subject, want) in charges.iter() {
            let rules = self.rules(subject, now);
            let Some(entry) = self.entries.get_mut(&subject) else {
                continue;
            };
            entry.recent = true;
            if entry.dquot.promise(want, rules) {
                entry.mark(subject, &mut self.changed);
            }
        }
    }

    /// Counts a refusal on the account that decided it.
    pub(crate) fn count_refusal(&mut self, denied: &Denied, news: &mut News) {
        if let Some(entry) = self.entries.get_mut(&denied.subject) {
            entry.dquot.count_refusal(denied, news);
            entry.mark(denied.subject, &mut self.changed);
        }
    }

    /// Gives promises back and moves charges; this cannot be refused.
    pub(crate) fn apply(&mut self, moves: &Moves, now: Timestamp, news: &mut News) {
        for (subject, part) in moves.iter() {
            self.apply_one(subject, part, now, news);
        }
    }

    fn apply_one(&mut self, subject: Subject, part: Move, now: Timestamp, news: &mut News) {
        let rules = self.rules(subject, now);
        let Some(entry) = self.entries.get_mut(&subject) else {
            let debt = self.debts.entry(subject).or_default();
            *debt = debt.and(part);
            return;
        };
        let before = entry.dquot.record();
        entry.dquot.apply(part, rules, news);
        entry.recent = true;
        if before != entry.dquot.record() {
            entry.mark(subject, &mut self.changed);
        }
        self.forget_unstored(subject);
    }

    /// Lets an account go that the store does not have: it was only looked for, or is not worth storing any more.
    pub(crate) fn forget_unstored(&mut self, subject: Subject) {
        let unstored = |entry: &Entry| entry.is_idle() && !entry.dquot.is_worth_storing();
        if subject != Subject::Ve && self.entries.get(&subject).is_some_and(unstored) {
            self.entries.remove(&subject);
        }
    }

    /// How much more would fit on this account.
    pub(crate) fn room(&self, dquot: &Dquot, levels: Levels, now: Timestamp) -> Usage {
        dquot.room(self.is_limited(dquot.account().subject, levels), now)
    }

    /// Lets go accounts that equal the stored ones, those unused for longest first, until `bound` are left.
    pub(crate) fn shrink_to(&mut self, bound: usize) {
        let mut surplus = self.entries.len().saturating_sub(bound);
        if surplus == 0 {
            return;
        }
        self.entries.retain(|&subject, entry| {
            let recent = std::mem::replace(&mut entry.recent, false);
            let keep = surplus == 0 || recent || subject == Subject::Ve || !entry.is_idle();
            surplus = surplus.saturating_sub(usize::from(!keep));
            keep
        });
    }

    fn is_limited(&self, subject: Subject, levels: Levels) -> bool {
        let asked = subject == Subject::Ve || levels == Levels::Both;
        asked && self.info.enforced.get(Scope::of(subject))
    }

    fn rules(&self, subject: Subject, now: Timestamp) -> Rules {
        rules_of(&self.info, subject, now)
    }
}

/// The rules that a VE's settings give for one of its accounts.
fn rules_of(info: &VeInfo, subject: Subject, now: Timestamp) -> Rules {
    let scope = Scope::of(subject);
    Rules {
        enforced: info.enforced.get(scope),
        grace: info.grace.get(scope),
        now,
    }
}

/// The refusal of an account that could not be read.
pub(crate) fn unavailable(subject: Subject) -> Denied {
    let reason = DenyReason::AccountUnavailable;
    Denied {
        subject,
        resource: Resource::Space,
        used: 0,
        limit: 0,
        reason,
    }
}
