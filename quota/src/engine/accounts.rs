//! Reading accounts: what is in memory, laid over what is in the store.
//!
//! An account that is in memory is right; one that is not equals the stored one, since accounts leave memory only
//! when they are stored. Lists are of one instant: no commit runs while the store is read.

use std::collections::BTreeMap;

use crate::account::Account;
use crate::dquot::{Dquot, is_worth_storing};
use crate::error::EngineError;
use crate::info::VeInfo;
use crate::ledger::Ledger;
use crate::scope::Scope;
use crate::store::StoreError;
use crate::store::record::key;
use crate::subject::{QuotaType, Subject};
use crate::tally::Tally;

use super::{Engine, records};

impl Engine {
    /// What the record says of the VE as a whole.
    pub fn info(&self) -> VeInfo {
        self.inner.ledger.info()
    }

    /// One account; zeros for an id that has none.
    ///
    /// # Errors
    /// The store's, for an account that is not in memory.
    pub fn account(&self, subject: Subject) -> Result<Account, EngineError> {
        if self.inner.ledger.has_debt(subject) {
            self.bring_in([subject])?;
        }
        if let Some(dquot) = self.inner.ledger.get(subject) {
            return Ok(*dquot.account());
        }
        // It may come into memory meanwhile; what the store says was true when it was not there.
        let record = records::account(&*self.inner.store, subject)?.unwrap_or_default();
        Ok(*Dquot::new(subject, &record).account())
    }

    /// The account with the smallest id, from this one on, that has usage or limits.
    ///
    /// # Errors
    /// The store's.
    pub fn next_account(&self, kind: QuotaType, from: u32) -> Result<Option<Account>, EngineError> {
        let _unchanged = self.inner.admin.lock();
        self.settle_debts()?;
        let start = kind.subject(from);
        let first = first_shown(&self.inner.ledger, kind, start);
        let mut found = None;
        let key = key::account(start);
        records::scan(
            &*self.inner.store,
            key::prefix(kind),
            key,
            &mut |subject, record| {
                // Beyond it nothing is looked for: with most accounts in memory a walk over all would be quadratic.
                if first.is_some_and(|first| subject >= first.subject) {
                    return false;
                }
                if self.inner.ledger.get(subject).is_none() && is_worth_storing(&record) {
                    found = Some(*Dquot::new(subject, &record).account());
                }
                found.is_none()
            },
        )?;
        Ok([first, found]
            .into_iter()
            .flatten()
            .min_by_key(|account| account.subject))
    }

    /// All accounts of one kind that have usage or limits, by id.
    ///
    /// # Errors
    /// The store's.
    pub fn accounts(&self, kind: QuotaType) -> Result<Vec<Account>, EngineError> {
        let _unchanged = self.inner.admin.lock();
        self.settle_debts()?;
        let scope = Scope::from(kind);
        let memory = self.in_memory(|account| Scope::of(account.subject) == scope);
        let mut accounts = self.stored(kind)?;
        accounts.extend(memory.into_iter().map(|seen| (seen.subject, seen)));
        Ok(accounts.into_values().filter(is_shown).collect())
    }

    /// All usage, in the form of a recount.
    ///
    /// # Errors
    /// The store's.
    pub fn tally(&self) -> Result<Tally, EngineError> {
        let _unchanged = self.inner.admin.lock();
        self.tally_now()
    }

    /// The same, for a caller that holds `admin`.
    pub(super) fn tally_now(&self) -> Result<Tally, EngineError> {
        self.settle_debts()?;
        let memory = self.in_memory(|_| true);
        let mut tally = Tally::default();
        for kind in QuotaType::ALL {
            for (subject, account) in self.stored(kind)? {
                tally.set(subject, account.usage);
            }
        }
        for account in memory {
            tally.set(account.subject, account.usage);
        }
        Ok(tally)
    }

    /// The accounts of one kind as the store has them.
    fn stored(&self, kind: QuotaType) -> Result<BTreeMap<Subject, Account>, StoreError> {
        let mut accounts = BTreeMap::new();
        let start = key::account(kind.subject(0));
        records::scan(
            &*self.inner.store,
            key::prefix(kind),
            start,
            &mut |subject, record| {
                accounts.insert(subject, *Dquot::new(subject, &record).account());
                true
            },
        )?;
        Ok(accounts)
    }

    /// The accounts in memory that are asked for, all as of one moment.
    fn in_memory(&self, asked: impl Fn(&Account) -> bool) -> Vec<Account> {
        let mut accounts = Vec::new();
        self.inner.ledger.close().for_each(|dquot| {
            if asked(dquot.account()) {
                accounts.push(*dquot.account());
            }
        });
        accounts
    }

    /// Brings in the accounts to which something happened while they could not be read.
    pub(super) fn settle_debts(&self) -> Result<(), EngineError> {
        loop {
            let Some(subject) = self.inner.ledger.first_debt() else {
                return Ok(());
            };
            self.bring_in([subject])?;
        }
    }
}

/// The first account of one kind in memory, from this one on, that is shown.
fn first_shown(ledger: &Ledger, kind: QuotaType, start: Subject) -> Option<Account> {
    let last = kind.subject(u32::MAX);
    let found = ledger.find_from(start, |dquot| {
        let account = dquot.account();
        (account.subject > last || is_shown(account)).then_some(*account)
    });
    found.filter(|account| account.subject <= last)
}

/// Whether an account appears in lists.
fn is_shown(account: &Account) -> bool {
    !account.usage.is_zero() || !account.limits.is_unlimited()
}
