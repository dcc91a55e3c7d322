//! A second level in memory: plain lines, no engine.

use std::collections::BTreeMap;
use std::sync::Mutex;

use quota::{Deadlines, GracePeriods, Limits, LimitsChange, QuotaType, Usage};
use simfs::quotactl::second_level::{
    Account, DeadlinesChange, GraceChange, SecondLevel, SecondLevelError,
};

/// What is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) users: BTreeMap<u32, Account>,
    pub(crate) groups: BTreeMap<u32, Account>,
    pub(crate) grace: [GracePeriods; 2],
    pub(crate) enforced: [bool; 2],
    pub(crate) offered: bool,
    pub(crate) syncs: u32,
    pub(crate) broken: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            users: BTreeMap::new(),
            groups: BTreeMap::new(),
            grace: [GracePeriods::default(); 2],
            enforced: [true; 2],
            offered: true,
            syncs: 0,
            broken: false,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Fake(pub(crate) Mutex<State>);

impl Fake {
    pub(crate) fn with_user(self, id: u32, usage: Usage, limits: Limits) -> Self {
        let account = Account {
            id,
            usage,
            limits,
            deadlines: Deadlines::default(),
        };
        self.0.lock().unwrap().users.insert(id, account);
        self
    }

    pub(crate) fn with_group(self, id: u32, usage: Usage, limits: Limits) -> Self {
        let account = Account {
            id,
            usage,
            limits,
            deadlines: Deadlines::default(),
        };
        self.0.lock().unwrap().groups.insert(id, account);
        self
    }

    pub(crate) fn state(&self) -> State {
        self.0.lock().unwrap().clone()
    }

    fn open(&self) -> Result<std::sync::MutexGuard<'_, State>, SecondLevelError> {
        let state = self.0.lock().unwrap();
        if state.broken {
            Err(SecondLevelError("broken".into()))
        } else {
            Ok(state)
        }
    }
}

const fn slot(kind: QuotaType) -> usize {
    match kind {
        QuotaType::User => 0,
        QuotaType::Group => 1,
    }
}

impl State {
    fn accounts(&mut self, kind: QuotaType) -> &mut BTreeMap<u32, Account> {
        match kind {
            QuotaType::User => &mut self.users,
            QuotaType::Group => &mut self.groups,
        }
    }

    fn entry(&mut self, kind: QuotaType, id: u32) -> &mut Account {
        self.accounts(kind).entry(id).or_insert(Account {
            id,
            ..Account::default()
        })
    }
}

impl SecondLevel for Fake {
    fn account(&self, kind: QuotaType, id: u32) -> Result<Account, SecondLevelError> {
        let found = self.open()?.accounts(kind).get(&id).copied();
        Ok(found.unwrap_or(Account {
            id,
            ..Account::default()
        }))
    }

    fn next_account(
        &self,
        kind: QuotaType,
        from: u32,
    ) -> Result<Option<Account>, SecondLevelError> {
        Ok(self
            .open()?
            .accounts(kind)
            .range(from..)
            .next()
            .map(|(_, account)| *account))
    }

    fn is_enforced(&self, kind: QuotaType) -> bool {
        self.0.lock().unwrap().enforced[slot(kind)]
    }

    fn is_offered(&self) -> bool {
        self.0.lock().unwrap().offered
    }

    fn grace_periods(&self, kind: QuotaType) -> GracePeriods {
        self.0.lock().unwrap().grace[slot(kind)]
    }

    fn set_limits(
        &self,
        kind: QuotaType,
        id: u32,
        change: &LimitsChange,
    ) -> Result<(), SecondLevelError> {
        let mut state = self.open()?;
        let account = state.entry(kind, id);
        account.limits = change.applied_to(account.limits);
        Ok(())
    }

    fn set_deadlines(
        &self,
        kind: QuotaType,
        id: u32,
        change: DeadlinesChange,
    ) -> Result<(), SecondLevelError> {
        let mut state = self.open()?;
        let deadlines = &mut state.entry(kind, id).deadlines;
        deadlines.space = change.space.unwrap_or(deadlines.space);
        deadlines.inodes = change.inodes.unwrap_or(deadlines.inodes);
        Ok(())
    }

    fn set_grace_periods(
        &self,
        kind: QuotaType,
        change: GraceChange,
    ) -> Result<(), SecondLevelError> {
        let mut state = self.open()?;
        let grace = &mut state.grace[slot(kind)];
        grace.space = change.space.unwrap_or(grace.space);
        grace.inodes = change.inodes.unwrap_or(grace.inodes);
        Ok(())
    }

    fn set_enforced(&self, kind: QuotaType, on: bool) -> Result<(), SecondLevelError> {
        self.open()?.enforced[slot(kind)] = on;
        Ok(())
    }

    fn sync(&self) -> Result<(), SecondLevelError> {
        self.open()?.syncs += 1;
        Ok(())
    }
}
