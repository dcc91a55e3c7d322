//! Block 0 of a quota file.
//! ```text
//!  0  magic u32: 0xd9c01f11 users, 0xd9c01927 groups
//!  4  version u32: 0 vfsv0, 1 vfsv1
//!  8  grace of space u32, 12  grace of inodes u32, seconds
//! 16  flags u32
//! 20  blocks u32: blocks in the file
//! 24  free block u32: first of the blocks that are not used
//! 28  free entry u32: first of the data blocks that have room
//! ```

use crate::grace::{GracePeriod, GracePeriods};
use crate::store::record::{Reader, Writer};
use crate::subject::QuotaType;

use super::{BLOCK, QuotaFileError};

const USER_MAGIC: u32 = 0xd9c0_1f11;
const GROUP_MAGIC: u32 = 0xd9c0_1927;

/// Which layout the entries have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V0,
    V1,
}

#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: QuotaType,
    pub(super) version: Version,
    pub(super) grace: GracePeriods,
    /// Blocks that are there, whatever the file says of itself.
    pub(super) blocks: u32,
    /// Only written.
    pub(super) free_entry: u32,
}

impl Header {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, QuotaFileError> {
        let short = |_| QuotaFileError::Short { len: bytes.len() };
        let whole = bytes.len() / BLOCK;
        if whole < 2 {
            return Err(QuotaFileError::Short { len: bytes.len() });
        }
        let mut input = Reader::new(bytes);
        let kind = match input.u32().map_err(short)? {
            USER_MAGIC => QuotaType::User,
            GROUP_MAGIC => QuotaType::Group,
            found => return Err(QuotaFileError::Magic { found }),
        };
        let version = match input.u32().map_err(short)? {
            0 => Version::V0,
            1 => Version::V1,
            found => return Err(QuotaFileError::Version { found }),
        };
        let mut period = || {
            input
                .u32()
                .map(|seconds| GracePeriod::new(u64::from(seconds)))
        };
        let grace = GracePeriods {
            space: period().map_err(short)?,
            inodes: period().map_err(short)?,
        };
        let blocks = u32::try_from(whole).unwrap_or(u32::MAX);
        Ok(Self {
            kind,
            version,
            grace,
            blocks,
            free_entry: 0,
        })
    }

    /// Block 0.
    pub(super) fn write(&self, out: &mut Writer) {
        out.u32(match self.kind {
            QuotaType::User => USER_MAGIC,
            QuotaType::Group => GROUP_MAGIC,
        });
        out.u32(match self.version {
            Version::V0 => 0,
            Version::V1 => 1,
        });
        for period in [self.grace.space, self.grace.inodes] {
            out.u32(u32::try_from(period.get()).unwrap_or(u32::MAX));
        }
        out.u32(0);
        out.u32(self.blocks);
        out.u32(0);
        out.u32(self.free_entry);
        out.raw(&[0; BLOCK - 32]);
    }
}
