//! The structures of the generic interface.

use super::Layout;
use super::bytes::{Reader, Writer};

/// `QIF_BLIMITS`: both space limits are to be set.
pub const QIF_BLIMITS: u32 = 1;
/// `QIF_ILIMITS`: both inode limits are to be set.
pub const QIF_ILIMITS: u32 = 4;
/// `QIF_BTIME`: the space deadline is to be set.
pub const QIF_BTIME: u32 = 16;
/// `QIF_ITIME`: the inode deadline is to be set.
pub const QIF_ITIME: u32 = 32;
/// `QIF_ALL`: every field has a meaning.
pub const QIF_ALL: u32 = 0x3f;

/// `IIF_BGRACE`: the space grace period is to be set.
pub const IIF_BGRACE: u32 = 1;
/// `IIF_IGRACE`: the inode grace period is to be set.
pub const IIF_IGRACE: u32 = 2;
/// `IIF_FLAGS`: the flags are to be set.
pub const IIF_FLAGS: u32 = 4;
/// `IIF_ALL`: every field has a meaning.
pub const IIF_ALL: u32 = 7;
/// `DQF_SYS_FILE`: quota is kept by the filesystem, there are no quota files.
pub const DQF_SYS_FILE: u32 = 0x1_0000;

/// `struct if_dqblk`. Limits of zero are no limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskQuota {
    /// Hard limit of space in KiB.
    pub space_hard_kib: u64,
    /// Soft limit of space in KiB.
    pub space_soft_kib: u64,
    /// Space used in bytes.
    pub space_bytes: u64,
    /// Hard limit of inodes.
    pub inodes_hard: u64,
    /// Soft limit of inodes.
    pub inodes_soft: u64,
    /// Inodes used.
    pub inodes: u64,
    /// Deadline of space, seconds since the epoch; 0 while no timer runs.
    pub space_deadline: u64,
    /// Deadline of inodes.
    pub inodes_deadline: u64,
    /// Which fields have a meaning, `QIF_*`.
    pub valid: u32,
}

impl DiskQuota {
    /// Bytes of the structure.
    pub const fn size(layout: Layout) -> usize {
        match layout {
            Layout::Native => 72,
            Layout::I386 => 68,
        }
    }

    /// Reads the structure in either layout: they differ in the padding at the end only.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            space_hard_kib: reader.u64()?,
            space_soft_kib: reader.u64()?,
            space_bytes: reader.u64()?,
            inodes_hard: reader.u64()?,
            inodes_soft: reader.u64()?,
            inodes: reader.u64()?,
            space_deadline: reader.u64()?,
            inodes_deadline: reader.u64()?,
            valid: reader.u32()?,
        })
    }

    /// `struct if_dqblk`.
    pub fn encode(&self, layout: Layout) -> Vec<u8> {
        self.fields().zeros_to(Self::size(layout)).finish()
    }

    /// `struct if_nextdqblk`: the id fills the padding.
    pub fn encode_next(&self, id: u32) -> Vec<u8> {
        self.fields().u32(id).finish()
    }

    fn fields(&self) -> Writer {
        Writer::default()
            .u64(self.space_hard_kib)
            .u64(self.space_soft_kib)
            .u64(self.space_bytes)
            .u64(self.inodes_hard)
            .u64(self.inodes_soft)
            .u64(self.inodes)
            .u64(self.space_deadline)
            .u64(self.inodes_deadline)
            .u32(self.valid)
    }
}

/// `struct if_dqinfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaInfo {
    /// Grace period of space in seconds.
    pub space_grace: u64,
    /// Grace period of inodes in seconds.
    pub inodes_grace: u64,
    /// `DQF_*`
    pub flags: u32,
    /// Which fields have a meaning, `IIF_*`.
    pub valid: u32,
}

impl QuotaInfo {
    /// Bytes of the structure, for both word sizes.
    pub const SIZE: usize = 24;

    /// Reads the structure.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            space_grace: reader.u64()?,
            inodes_grace: reader.u64()?,
            flags: reader.u32()?,
            valid: reader.u32()?,
        })
    }

    /// Writes the structure.
    pub fn encode(&self) -> Vec<u8> {
        let writer = Writer::default()
            .u64(self.space_grace)
            .u64(self.inodes_grace);
        writer.u32(self.flags).u32(self.valid).finish()
    }
}
