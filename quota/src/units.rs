//! The units of quota: bytes, the quota interface's 1 KiB blocks, stat's 512-byte sectors, inodes.
//!
//! Invariants:
//! 1. A number never changes its unit without a conversion that has a name.
//! 2. A conversion that rounds says in its name which way.
//! 3. Arithmetic that could leave 64 bits is checked or saturates, and the name says which.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// None at all.
            pub const ZERO: Self = Self(0);
            /// The largest value that can be stored.
            pub const MAX: Self = Self(u64::MAX);

            /// Wraps a plain count that is in this unit already.
            pub const fn new(count: u64) -> Self {
                Self(count)
            }

            /// The plain count.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Whether the count is zero.
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }

            /// The sum, or `None` where it does not fit 64 bits.
            pub const fn checked_add(self, other: Self) -> Option<Self> {
                match self.0.checked_add(other.0) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The difference, or `None` where `other` is larger.
            pub const fn checked_sub(self, other: Self) -> Option<Self> {
                match self.0.checked_sub(other.0) {
                    Some(rest) => Some(Self(rest)),
                    None => None,
                }
            }

            /// The sum, at most [`Self::MAX`].
            pub const fn saturating_add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// The difference, at least zero.
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

unit! {
    /// Disk space in bytes: the unit of accounts and limits.
    Bytes
}
unit! {
    /// Disk space in blocks of 1 KiB: the unit of quota tools and of `vzquota`.
    ///
    /// # Source
    /// quotactl(2): block limits are in units of `BLOCK_SIZE`, 1024 bytes.
    Blocks
}
unit! {
    /// Disk space in sectors of 512 bytes: the unit of `st_blocks`.
    ///
    /// # Source
    /// stat(3type): `st_blocks`, number of 512 B blocks allocated.
    Sectors
}
unit! {
    /// A number of inodes.
    Inodes
}

impl Blocks {
    /// Bytes in one block.
    pub const SIZE: u64 = 1024;

    /// The blocks that hold these bytes; a started block counts as a whole one.
    pub const fn ceil_from(bytes: Bytes) -> Self {
        Self(bytes.0.div_ceil(Self::SIZE))
    }

    /// The whole blocks in these bytes; a started block is dropped.
    pub const fn floor_from(bytes: Bytes) -> Self {
        Self(bytes.0 / Self::SIZE)
    }

    /// The same space in bytes, or `None` where that does not fit 64 bits.
    pub const fn checked_bytes(self) -> Option<Bytes> {
        match self.0.checked_mul(Self::SIZE) {
            Some(bytes) => Some(Bytes(bytes)),
            None => None,
        }
    }

    /// The same space in bytes, at most [`Bytes::MAX`].
    pub const fn saturating_bytes(self) -> Bytes {
        Bytes(self.0.saturating_mul(Self::SIZE))
    }
}

impl Sectors {
    /// Bytes in one sector.
    pub const SIZE: u64 = 512;

    /// The same space in bytes, at most [`Bytes::MAX`].
    pub const fn bytes(self) -> Bytes {
        Bytes(self.0.saturating_mul(Self::SIZE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_round_as_their_names_say() {
        assert_eq!(Blocks::ceil_from(Bytes::new(1)), Blocks::new(1));
        assert_eq!(Blocks::ceil_from(Bytes::new(1024)), Blocks::new(1));
        assert_eq!(Blocks::floor_from(Bytes::new(2047)), Blocks::new(1));
        assert_eq!(Blocks::ceil_from(Bytes::MAX), Blocks::new(1 << 54));
    }

    #[test]
    fn conversions_do_not_wrap() {
        assert_eq!(Blocks::new(1 << 54).checked_bytes(), None);
        assert_eq!(Blocks::new(1 << 54).saturating_bytes(), Bytes::MAX);
        assert_eq!(Sectors::MAX.bytes(), Bytes::MAX);
        // 4 TiB and beyond: where a 32-bit block count wraps.
        assert_eq!(
            Blocks::new(1 << 33).checked_bytes(),
            Some(Bytes::new(1 << 43))
        );
    }
}
