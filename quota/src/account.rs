//! One account as it is shown: what is charged, promised, allowed, and what happened to it.

use serde::{Deserialize, Serialize};

use crate::grace::Deadlines;
use crate::limit::Limits;
use crate::subject::Subject;
use crate::usage::{Resource, Usage};

/// How many requests an account refused, per resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refusals {
    /// For want of space.
    pub space: u64,
    /// For want of inodes.
    pub inodes: u64,
}

impl Refusals {
    /// None at all.
    pub const ZERO: Self = Self {
        space: 0,
        inodes: 0,
    };

    /// The count of one resource.
    pub const fn get(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Space => self.space,
            Resource::Inodes => self.inodes,
        }
    }

    /// Counts one more, at most the largest number that can be stored.
    pub(crate) const fn count(&mut self, resource: Resource) {
        match resource {
            Resource::Space => self.space = self.space.saturating_add(1),
            Resource::Inodes => self.inodes = self.inodes.saturating_add(1),
        }
    }
}

/// One account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Whose.
    pub subject: Subject,
    /// What is charged.
    pub usage: Usage,
    /// What is promised and not settled yet.
    pub reserved: Usage,
    /// The most that was ever charged.
    pub peak: Usage,
    /// How many requests were refused.
    pub refused: Refusals,
    /// What is allowed.
    pub limits: Limits,
    /// When the soft limits begin to act as hard ones.
    pub deadlines: Deadlines,
}

impl Account {
    /// An account that nothing was ever charged to, without limits.
    pub const fn unused(subject: Subject) -> Self {
        Self {
            subject,
            usage: Usage::ZERO,
            reserved: Usage::ZERO,
            peak: Usage::ZERO,
            refused: Refusals::ZERO,
            limits: Limits::UNLIMITED,
            deadlines: Deadlines::NONE,
        }
    }
}
