//! What quotactl(2) needs of the quota engine: accounts of users and groups, their limits, times and switches.

use quota::{
    Deadlines, GracePeriod, GracePeriods, Limits, LimitsChange, QuotaType, Timestamp, Usage,
};

/// One account as the interface shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// User or group id as the filesystem sees it.
    pub id: u32,
    /// What is used; promises do not count.
    pub usage: Usage,
    /// Its limits.
    pub limits: Limits,
    /// Its running timers.
    pub deadlines: Deadlines,
}

/// The record of quota could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("quota record: {0}")]
pub struct SecondLevelError(#[from] pub Box<dyn std::error::Error + Send + Sync>);

/// New deadlines of one account: `None` keeps, `Some(None)` stops the timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadlinesChange {
    /// For space.
    pub space: Option<Option<Timestamp>>,
    /// For inodes.
    pub inodes: Option<Option<Timestamp>>,
}

/// New grace periods of all users or all groups: `None` keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GraceChange {
    /// For space.
    pub space: Option<GracePeriod>,
    /// For inodes.
    pub inodes: Option<GracePeriod>,
}

/// The second level of one VE. What a setter acknowledged is durable and in force.
pub trait SecondLevel: Send + Sync {
    /// One account; zeros for an id without any.
    ///
    /// # Errors
    /// The record could not be read.
    fn account(&self, kind: QuotaType, id: u32) -> Result<Account, SecondLevelError>;

    /// The account with usage or limits that has the smallest id not below this one.
    ///
    /// # Errors
    /// As [`SecondLevel::account`].
    fn next_account(&self, kind: QuotaType, from: u32)
    -> Result<Option<Account>, SecondLevelError>;

    /// Whether limits are enforced.
    fn is_enforced(&self, kind: QuotaType) -> bool;

    /// Whether the VE may switch enforcement on.
    fn is_offered(&self) -> bool;

    /// The grace periods.
    fn grace_periods(&self, kind: QuotaType) -> GracePeriods;

    /// Changes limits; timers follow from usage and grace periods.
    ///
    /// # Errors
    /// The record could not be written; nothing changed.
    fn set_limits(
        &self,
        kind: QuotaType,
        id: u32,
        change: &LimitsChange,
    ) -> Result<(), SecondLevelError>;

    /// Changes deadlines. Where usage is not above the soft limit no timer runs, and nothing changes.
    ///
    /// # Errors
    /// As [`SecondLevel::set_limits`].
    fn set_deadlines(
        &self,
        kind: QuotaType,
        id: u32,
        change: DeadlinesChange,
    ) -> Result<(), SecondLevelError>;

    /// Changes grace periods.
    ///
    /// # Errors
    /// As [`SecondLevel::set_limits`].
    fn set_grace_periods(
        &self,
        kind: QuotaType,
        change: GraceChange,
    ) -> Result<(), SecondLevelError>;

    /// Switches enforcement; accounting goes on.
    ///
    /// # Errors
    /// As [`SecondLevel::set_limits`].
    fn set_enforced(&self, kind: QuotaType, on: bool) -> Result<(), SecondLevelError>;

    /// Makes all usage so far durable.
    ///
    /// # Errors
    /// As [`SecondLevel::set_limits`].
    fn sync(&self) -> Result<(), SecondLevelError>;
}
