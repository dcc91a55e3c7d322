//! Soft and hard limits per resource, and what is valid on each level.
//!
//! "No limit" is a value of its own (`None`); zero means that nothing is allowed. Conventions in which zero means
//! "no limit" (quotactl(2), `setlimit2`) are translated at the border, see [`Limit::from_zero_as_none`].

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Inodes};
use crate::usage::Resource;

/// The soft and the hard limit of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limit<T> {
    /// May be passed for the grace period; `None` is no limit.
    pub soft: Option<T>,
    /// May never be passed; `None` is no limit.
    pub hard: Option<T>,
}

impl<T> Default for Limit<T> {
    fn default() -> Self {
        Self::UNLIMITED
    }
}

impl<T> Limit<T> {
    /// Neither limit.
    pub const UNLIMITED: Self = Self {
        soft: None,
        hard: None,
    };

    /// Both limits.
    pub const fn new(soft: Option<T>, hard: Option<T>) -> Self {
        Self { soft, hard }
    }
}

impl<T: Copy + Ord + Default> Limit<T> {
    /// The lower of the two, where there is one.
    pub fn lowest(&self) -> Option<T> {
        match (self.soft, self.hard) {
            (Some(soft), Some(hard)) => Some(soft.min(hard)),
            (soft, hard) => soft.or(hard),
        }
    }

    /// Reads the convention of quotactl(2): zero is no limit.
    pub fn from_zero_as_none(soft: T, hard: T) -> Self {
        let some = |value: T| (value != T::default()).then_some(value);
        Self {
            soft: some(soft),
            hard: some(hard),
        }
    }

    /// Whether the soft limit is at most the hard one; no soft limit below a hard one is in order too.
    pub fn is_ordered(&self) -> bool {
        match (self.soft, self.hard) {
            (Some(soft), Some(hard)) => soft <= hard,
            (None, _) | (_, None) => true,
        }
    }
}

/// The limits of one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// Disk space.
    pub space: Limit<Bytes>,
    /// Inodes.
    pub inodes: Limit<Inodes>,
}

impl Limits {
    /// No limit at all.
    pub const UNLIMITED: Self = Self {
        space: Limit::UNLIMITED,
        inodes: Limit::UNLIMITED,
    };

    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::UNLIMITED
    }

    /// One resource's limits as plain numbers, in bytes or in inodes.
    pub fn get(&self, resource: Resource) -> Limit<u64> {
        match resource {
            Resource::Space => Limit {
                soft: self.space.soft.map(Bytes::get),
                hard: self.space.hard.map(Bytes::get),
            },
            Resource::Inodes => Limit {
                soft: self.inodes.soft.map(Inodes::get),
                hard: self.inodes.hard.map(Inodes::get),
            },
        }
    }
}

/// What to do with one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting<T> {
    /// Leave it as it is.
    #[default]
    Keep,
    /// Take the limit away.
    Unlimited,
    /// Give it this value.
    To(T),
}

impl<T> Setting<T> {
    /// Sets exactly this, where `None` is no limit.
    pub fn exactly(value: Option<T>) -> Self {
        value.map_or(Self::Unlimited, Self::To)
    }

    /// The limit after the change.
    pub fn applied_to(self, limit: Option<T>) -> Option<T> {
        match self {
            Self::Keep => limit,
            Self::Unlimited => None,
            Self::To(value) => Some(value),
        }
    }
}

/// New values for some of an account's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsChange {
    /// Space, soft.
    pub space_soft: Setting<Bytes>,
    /// Space, hard.
    pub space_hard: Setting<Bytes>,
    /// Inodes, soft.
    pub inodes_soft: Setting<Inodes>,
    /// Inodes, hard.
    pub inodes_hard: Setting<Inodes>,
}

impl LimitsChange {
    /// Replaces every limit.
    pub fn to(limits: Limits) -> Self {
        Self {
            space_soft: Setting::exactly(limits.space.soft),
            space_hard: Setting::exactly(limits.space.hard),
            inodes_soft: Setting::exactly(limits.inodes.soft),
            inodes_hard: Setting::exactly(limits.inodes.hard),
        }
    }

    /// These limits with the change made.
    #[must_use]
    pub fn applied_to(&self, limits: Limits) -> Limits {
        Limits {
            space: Limit {
                soft: self.space_soft.applied_to(limits.space.soft),
                hard: self.space_hard.applied_to(limits.space.hard),
            },
            inodes: Limit {
                soft: self.inodes_soft.applied_to(limits.inodes.soft),
                hard: self.inodes_hard.applied_to(limits.inodes.hard),
            },
        }
    }

    /// Whether nothing is to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_limit_only_by_the_outer_convention() {
        let limit = Limit::from_zero_as_none(Bytes::ZERO, Bytes::new(5));
        assert_eq!(limit, Limit::new(None, Some(Bytes::new(5))));
        assert_ne!(Limit::new(Some(Bytes::ZERO), None), Limit::UNLIMITED);
    }

    #[test]
    fn unlimited_and_unchanged_survive_serialisation_apart() {
        let change = LimitsChange {
            space_hard: Setting::Unlimited,
            ..LimitsChange::default()
        };
        let text = serde_json::to_string(&change).unwrap();
        assert_eq!(serde_json::from_str::<LimitsChange>(&text).unwrap(), change);
        assert!(!change.is_empty());
        let limits = Limits {
            space: Limit::new(None, Some(Bytes::new(1))),
            inodes: Limit::UNLIMITED,
        };
        assert!(change.applied_to(limits).is_unlimited());
    }
}
