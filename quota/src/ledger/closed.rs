//! Changes by the rules, in closed lanes: limits and timers are looked at, and nothing else moves meanwhile.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::charges::{Charges, Move, Moves};
use crate::dquot::{Dquot, is_worth_storing};
use crate::error::Denied;
use crate::event::News;
use crate::grace::Timestamp;
use crate::lanes;
use crate::scope::Scope;
use crate::store::record::AccountRecord;
use crate::subject::Subject;
use crate::usage::Usage;

use super::entry::{Entry, Generation};
use super::lane::Lane;
use super::{Books, Ledger, Levels, MutexGuard, rules_of, unavailable};

/// A ledger on which nobody else is working.
#[derive(Debug)]
pub(crate) struct Closed<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) books: MutexGuard<'a, Books>,
    lanes: lanes::Closed<'a, Lane>,
}

impl<'a> Closed<'a> {
    pub(super) const fn new(
        ledger: &'a Ledger,
        books: MutexGuard<'a, Books>,
        lanes: lanes::Closed<'a, Lane>,
    ) -> Self {
        Self {
            ledger,
            books,
            lanes,
        }
    }

    /// An account that is in memory.
    pub(crate) fn get(&self, subject: Subject) -> Option<Dquot> {
        self.with(subject, |entry| entry.dquot())
    }

    /// Whether an account is in memory; it is at hand then.
    pub(crate) fn has(&mut self, subject: Subject) -> bool {
        let Some(lane) = self.lanes.first_mut() else {
            return false;
        };
        if lane.get(subject).is_some() {
            return true;
        }
        let entry = self.ledger.roster.get(subject);
        entry.map(|entry| lane.keep(entry)).is_some()
    }

    /// Calls `each` for every account in memory, in order.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&Dquot)) {
        self.ledger.roster.for_each(|entry| each(&entry.dquot()));
    }

    /// Takes an account in as the store has it. One that is here stays as it is.
    pub(crate) fn insert(
        &mut self,
        subject: Subject,
        record: &AccountRecord,
        now: Timestamp,
        news: &mut News,
    ) {
        if !self.has(subject) {
            let dquot = Dquot::new(subject, record);
            let enforced = self.is_enforced(subject);
            let _entry = self.ledger.roster.insert(Entry::new(&dquot, enforced));
            if !is_worth_storing(record) {
                self.books.visitors.push(subject);
            }
        }
        if let Some(debt) = self.books.debts.remove(&subject) {
            self.apply_one(subject, debt, now, news);
        }
    }

    /// Promises these amounts if they fit, on every account, in the order of checks. One that is not in memory refuses.
    pub(crate) fn promise(
        &mut self,
        charges: &Charges,
        levels: Levels,
        now: Timestamp,
    ) -> Result<(), Denied> {
        let mut fitting: SmallVec<[Dquot; 3]> = SmallVec::new();
        for (subject, want) in charges.iter() {
            let limited = self.is_limited(subject, levels);
            let dquot = self.get(subject).ok_or_else(|| unavailable(subject))?;
            dquot.check(want, limited, now)?;
            fitting.push(dquot);
        }
        for ((subject, want), before) in charges.iter().zip(&fitting) {
            let rules = rules_of(&self.books.info, subject, now);
            self.with(subject, |entry| {
                entry.note_use();
                self.replace(entry, before, |dquot| dquot.promise(want, rules));
            });
        }
        Ok(())
    }

    /// Counts a refusal on the account that decided it.
    pub(crate) fn count_refusal(&mut self, denied: &Denied, news: &mut News) {
        self.with(denied.subject, |entry| {
            self.update(entry, |dquot| dquot.count_refusal(denied, news));
        });
    }

    /// Gives promises back and moves charges; this cannot be refused.
    pub(crate) fn apply(&mut self, moves: &Moves, now: Timestamp, news: &mut News) {
        for (subject, part) in moves.iter() {
            self.apply_one(subject, *part, now, news);
        }
    }

    fn apply_one(&mut self, subject: Subject, part: Move, now: Timestamp, news: &mut News) {
        let rules = rules_of(&self.books.info, subject, now);
        let done = self.with(subject, |entry| {
            entry.note_use();
            self.update(entry, |dquot| dquot.apply(part, rules, news));
        });
        if done.is_none() {
            let debt = self.books.debts.entry(subject).or_default();
            *debt = debt.and(part);
        }
    }

    /// How much more would fit on this account.
    pub(crate) fn room(&self, dquot: &Dquot, levels: Levels, now: Timestamp) -> Usage {
        dquot.room(self.is_limited(dquot.account().subject, levels), now)
    }

    /// Changes an account, and has it stored if its record changed.
    pub(super) fn update<T>(&self, entry: &Arc<Entry>, change: impl FnOnce(&mut Dquot) -> T) -> T {
        self.replace(entry, &entry.dquot(), change)
    }

    /// Changes an account that is known to be so now.
    fn replace<T>(
        &self,
        entry: &Arc<Entry>,
        before: &Dquot,
        change: impl FnOnce(&mut Dquot) -> T,
    ) -> T {
        let mut dquot = *before;
        let done = change(&mut dquot);
        if dquot.record() != before.record() {
            self.touch(entry);
        }
        let enforced = self.is_enforced(entry.subject());
        entry.put_amounts(&dquot, enforced);
        if !dquot.differs_in_amounts_only(before) {
            entry.put_rest(&dquot);
        }
        done
    }

    /// Replaces an account. One that is not stored so must have been touched.
    pub(super) fn put(&self, entry: &Entry, dquot: &Dquot) {
        entry.put_amounts(dquot, self.is_enforced(entry.subject()));
        entry.put_rest(dquot);
    }

    /// Has an account stored by the next commit.
    pub(super) fn touch(&self, entry: &Arc<Entry>) {
        self.ledger.touch(entry, self.generation());
    }

    pub(super) fn generation(&self) -> Generation {
        self.lanes.first().map_or(0, |lane| lane.generation)
    }

    pub(super) fn begin_generation(&mut self) {
        let next = self.generation().saturating_add(1);
        self.lanes.iter_mut().for_each(|lane| lane.begin(next));
    }

    /// Works on an account, if it is in memory.
    pub(super) fn with<T>(
        &self,
        subject: Subject,
        work: impl FnOnce(&Arc<Entry>) -> T,
    ) -> Option<T> {
        match self.lanes.first().and_then(|lane| lane.get(subject)) {
            Some(entry) => Some(work(entry)),
            None => self.ledger.roster.get(subject).map(|entry| work(&entry)),
        }
    }

    fn is_limited(&self, subject: Subject, levels: Levels) -> bool {
        let asked = subject == Subject::Ve || levels == Levels::Both;
        asked && self.is_enforced(subject)
    }

    fn is_enforced(&self, subject: Subject) -> bool {
        self.books.info.enforced.get(Scope::of(subject))
    }
}
