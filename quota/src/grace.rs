//! Grace: how long a soft limit may be passed, and when that time ends.
//!
//! Terms: the *period* is a length, the *deadline* a moment. No deadline means that the timer does not run.

use serde::{Deserialize, Serialize};

use crate::usage::Resource;

/// A moment, in seconds since 1970-01-01 00:00 UTC; negative before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Wraps seconds since the epoch.
    pub const fn new(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since the epoch.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The moment one period later, at most the last that can be stored.
    #[must_use]
    pub const fn saturating_add(self, period: GracePeriod) -> Self {
        Self(self.0.saturating_add_unsigned(period.0))
    }

    /// This deadline, had its timer been started at the same moment with another period: the start is the deadline
    /// less the old period, and the deadline becomes the start plus the new one.
    #[must_use]
    pub fn moved(self, old: GracePeriod, new: GracePeriod) -> Self {
        let exact = i128::from(self.0) - i128::from(old.0) + i128::from(new.0);
        let bound = if exact < 0 { i64::MIN } else { i64::MAX };
        Self(i64::try_from(exact).unwrap_or(bound))
    }
}

/// A length of time in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GracePeriod(u64);

impl GracePeriod {
    /// Seven days: the default of both levels.
    ///
    /// # Source
    /// Linux `include/linux/quota.h`, `MAX_IQ_TIME` and `MAX_DQ_TIME`.
    pub const WEEK: Self = Self(7 * 24 * 60 * 60);

    /// Wraps seconds.
    pub const fn new(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The grace periods of one group of accounts: the VE, all users, or all groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GracePeriods {
    /// For space.
    pub space: GracePeriod,
    /// For inodes.
    pub inodes: GracePeriod,
}

impl Default for GracePeriods {
    fn default() -> Self {
        Self {
            space: GracePeriod::WEEK,
            inodes: GracePeriod::WEEK,
        }
    }
}

impl GracePeriods {
    /// The same period for both resources.
    pub const fn both(period: GracePeriod) -> Self {
        Self {
            space: period,
            inodes: period,
        }
    }

    /// One resource's period.
    pub const fn get(&self, resource: Resource) -> GracePeriod {
        match resource {
            Resource::Space => self.space,
            Resource::Inodes => self.inodes,
        }
    }
}

/// The running deadlines of one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deadlines {
    /// For space; `None` while the timer does not run.
    pub space: Option<Timestamp>,
    /// For inodes.
    pub inodes: Option<Timestamp>,
}

impl Deadlines {
    /// No timer runs.
    pub const NONE: Self = Self {
        space: None,
        inodes: None,
    };

    /// One resource's deadline.
    pub const fn get(&self, resource: Resource) -> Option<Timestamp> {
        match resource {
            Resource::Space => self.space,
            Resource::Inodes => self.inodes,
        }
    }

    /// Starts, moves or stops one resource's timer.
    pub const fn set(&mut self, resource: Resource, deadline: Option<Timestamp>) {
        match resource {
            Resource::Space => self.space = deadline,
            Resource::Inodes => self.inodes = deadline,
        }
    }
}

/// New values for some of an account's deadlines; the outer `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeadlinesChange {
    /// For space.
    pub(crate) space: Option<Option<Timestamp>>,
    /// For inodes.
    pub(crate) inodes: Option<Option<Timestamp>>,
}

impl DeadlinesChange {
    /// These deadlines with the change made.
    pub(crate) fn applied_to(self, deadlines: Deadlines) -> Deadlines {
        Deadlines {
            space: self.space.unwrap_or(deadlines.space),
            inodes: self.inodes.unwrap_or(deadlines.inodes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_deadline_keeps_its_start() {
        let period = GracePeriod::new;
        let deadline = Timestamp::new(1000).saturating_add(period(60));
        assert_eq!(deadline.moved(period(60), period(10)), Timestamp::new(1010));
        assert_eq!(
            deadline.moved(period(60), period(600)),
            Timestamp::new(1600)
        );
        // Neither end of the scale wraps.
        let last = Timestamp::new(i64::MAX);
        assert_eq!(last.moved(period(0), period(u64::MAX)), last);
        assert_eq!(
            Timestamp::new(-5).moved(period(u64::MAX), period(0)),
            Timestamp::new(i64::MIN)
        );
    }
}
