//! An amount of both resources at once: what an inode occupies, what a request asks for, what an account holds.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Inodes};

/// The two things that are counted and limited, each on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Disk space; counted in bytes, shown in blocks of 1 KiB.
    Space,
    /// Inodes.
    Inodes,
}

impl Resource {
    /// Both, space first.
    pub const ALL: [Self; 2] = [Self::Space, Self::Inodes];
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Space => "disk space",
            Self::Inodes => "inodes",
        })
    }
}

/// An amount of space and of inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Usage {
    /// Disk space.
    pub space: Bytes,
    /// Number of inodes.
    pub inodes: Inodes,
}

impl Usage {
    /// Nothing of either.
    pub const ZERO: Self = Self {
        space: Bytes::ZERO,
        inodes: Inodes::ZERO,
    };

    /// Both amounts.
    pub const fn new(space: Bytes, inodes: Inodes) -> Self {
        Self { space, inodes }
    }

    /// Space alone.
    pub const fn space(space: Bytes) -> Self {
        Self {
            space,
            inodes: Inodes::ZERO,
        }
    }

    /// One inode that occupies this space.
    pub const fn inode(space: Bytes) -> Self {
        Self {
            space,
            inodes: Inodes::new(1),
        }
    }

    /// Whether nothing is asked for or held.
    pub const fn is_zero(self) -> bool {
        self.space.is_zero() && self.inodes.is_zero()
    }

    /// The plain amount of one resource, in bytes or in inodes.
    pub const fn get(self, resource: Resource) -> u64 {
        match resource {
            Resource::Space => self.space.get(),
            Resource::Inodes => self.inodes.get(),
        }
    }

    /// Replaces the plain amount of one resource, in bytes or in inodes.
    pub(crate) const fn set(&mut self, resource: Resource, amount: u64) {
        match resource {
            Resource::Space => self.space = Bytes::new(amount),
            Resource::Inodes => self.inodes = Inodes::new(amount),
        }
    }

    /// The larger amount of each resource.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            space: self.space.max(other.space),
            inodes: self.inodes.max(other.inodes),
        }
    }

    /// The smaller amount of each resource.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            space: self.space.min(other.space),
            inodes: self.inodes.min(other.inodes),
        }
    }

    /// The sum, each resource at most its maximum.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self {
            space: self.space.saturating_add(other.space),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }

    /// The difference, each resource at least zero.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self {
            space: self.space.saturating_sub(other.space),
            inodes: self.inodes.saturating_sub(other.inodes),
        }
    }
}
