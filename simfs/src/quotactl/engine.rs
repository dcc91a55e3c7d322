//! The quota engine as the second level that quotactl(2) works on.

use quota::{Engine, EngineError, GracePeriods, LimitsChange, QuotaType, Subject};

use super::second_level::{Account, DeadlinesChange, GraceChange, SecondLevel, SecondLevelError};

impl From<EngineError> for SecondLevelError {
    fn from(error: EngineError) -> Self {
        Self(Box::new(error))
    }
}

fn shown(account: &quota::Account) -> Account {
    let id = match account.subject {
        Subject::User(uid) => uid.get(),
        Subject::Group(gid) => gid.get(),
        Subject::Ve => 0,
    };
    let quota::Account {
        usage,
        limits,
        deadlines,
        ..
    } = *account;
    Account {
        id,
        usage,
        limits,
        deadlines,
    }
}

impl SecondLevel for Engine {
    fn account(&self, kind: QuotaType, id: u32) -> Result<Account, SecondLevelError> {
        Ok(shown(&Self::account(self, kind.subject(id))?))
    }

    fn next_account(
        &self,
        kind: QuotaType,
        from: u32,
    ) -> Result<Option<Account>, SecondLevelError> {
        Ok(Self::next_account(self, kind, from)?.as_ref().map(shown))
    }

    fn is_enforced(&self, kind: QuotaType) -> bool {
        self.info().is_enforced(kind.into())
    }

    fn is_offered(&self) -> bool {
        self.info().offers_second_level()
    }

    fn grace_periods(&self, kind: QuotaType) -> GracePeriods {
        self.info().grace_periods(kind.into())
    }

    fn set_limits(
        &self,
        kind: QuotaType,
        id: u32,
        change: &LimitsChange,
    ) -> Result<(), SecondLevelError> {
        Ok(Self::set_limits(self, kind.subject(id), change).map(drop)?)
    }

    fn set_deadlines(
        &self,
        kind: QuotaType,
        id: u32,
        change: DeadlinesChange,
    ) -> Result<(), SecondLevelError> {
        Ok(Self::set_deadlines(self, kind.subject(id), change.space, change.inodes).map(drop)?)
    }

    fn set_grace_periods(
        &self,
        kind: QuotaType,
        change: GraceChange,
    ) -> Result<(), SecondLevelError> {
        Ok(Self::set_grace_periods(self, kind.into(), change.space, change.inodes).map(drop)?)
    }

    fn set_enforced(&self, kind: QuotaType, on: bool) -> Result<(), SecondLevelError> {
        Ok(Self::set_enforced(self, kind.into(), on).map(drop)?)
    }

    fn sync(&self) -> Result<(), SecondLevelError> {
        Ok(self.commit()?)
    }
}
