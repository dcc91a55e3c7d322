//! The structures of the interface that XFS brought; its space unit is 512 bytes.

use super::Layout;
use super::bytes::{Reader, Writer};

/// `FS_DQ_ISOFT`: the soft limit of inodes is to be set.
pub const FS_DQ_ISOFT: u16 = 1;
/// `FS_DQ_IHARD`: the hard limit of inodes is to be set.
pub const FS_DQ_IHARD: u16 = 1 << 1;
/// `FS_DQ_BSOFT`: the soft limit of space is to be set.
pub const FS_DQ_BSOFT: u16 = 1 << 2;
/// `FS_DQ_BHARD`: the hard limit of space is to be set.
pub const FS_DQ_BHARD: u16 = 1 << 3;
/// `FS_DQ_BTIMER`: the space timer is to be set.
pub const FS_DQ_BTIMER: u16 = 1 << 6;
/// `FS_DQ_ITIMER`: the inode timer is to be set.
pub const FS_DQ_ITIMER: u16 = 1 << 7;
/// `FS_DQ_RTBTIMER`: the timer of real-time space; sent along by xfs_quota, of no meaning here.
pub const FS_DQ_RTBTIMER: u16 = 1 << 8;
/// `FS_DQ_BIGTIME`: timers have 40 bits.
pub const FS_DQ_BIGTIME: u16 = 1 << 15;

/// `FS_QUOTA_UDQ_ACCT`: users are accounted.
pub const USERS_ACCOUNTED: u16 = 1;
/// `FS_QUOTA_UDQ_ENFD`: users are limited.
pub const USERS_ENFORCED: u16 = 2;
/// `FS_QUOTA_GDQ_ACCT`: groups are accounted.
pub const GROUPS_ACCOUNTED: u16 = 4;
/// `FS_QUOTA_GDQ_ENFD`: groups are limited.
pub const GROUPS_ENFORCED: u16 = 8;

/// `struct fs_disk_quota`, without the real-time fields. Limits of zero are no limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XfsQuota {
    /// `FS_USER_QUOTA` 1 or `FS_GROUP_QUOTA` 4
    pub flags: u8,
    /// Which fields are to be set, `FS_DQ_*`.
    pub fields: u16,
    /// User or group id as the caller names it.
    pub id: u32,
    /// Hard limit of space in sectors.
    pub space_hard_sectors: u64,
    /// Soft limit of space in sectors.
    pub space_soft_sectors: u64,
    /// Hard limit of inodes.
    pub inodes_hard: u64,
    /// Soft limit of inodes.
    pub inodes_soft: u64,
    /// Space used in sectors.
    pub space_sectors: u64,
    /// Inodes used.
    pub inodes: u64,
    /// Timer of inodes: 32 bits, and 8 more above them with `FS_DQ_BIGTIME`.
    pub inodes_timer: (u32, u8),
    /// Timer of space.
    pub space_timer: (u32, u8),
}

impl XfsQuota {
    /// Bytes of the structure, for both word sizes.
    pub const SIZE: usize = 112;
    /// `FS_DQUOT_VERSION`
    const VERSION: u8 = 1;

    /// Reads the structure.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes.get(..Self::SIZE)?);
        let _version = reader.u8()?;
        let mut quota = Self {
            flags: reader.u8()?,
            fields: reader.u16()?,
            id: reader.u32()?,
            space_hard_sectors: reader.u64()?,
            space_soft_sectors: reader.u64()?,
            inodes_hard: reader.u64()?,
            inodes_soft: reader.u64()?,
            space_sectors: reader.u64()?,
            inodes: reader.u64()?,
            inodes_timer: (reader.u32()?, 0),
            space_timer: (reader.u32()?, 0),
        };
        reader.skip::<4>()?; // numbers of warnings
        quota.inodes_timer.1 = reader.u8()?;
        quota.space_timer.1 = reader.u8()?;
        Some(quota)
    }

    /// Writes the structure.
    pub fn encode(&self) -> Vec<u8> {
        Writer::default()
            .u8(Self::VERSION)
            .u8(self.flags)
            .u16(self.fields)
            .u32(self.id)
            .u64(self.space_hard_sectors)
            .u64(self.space_soft_sectors)
            .u64(self.inodes_hard)
            .u64(self.inodes_soft)
            .u64(self.space_sectors)
            .u64(self.inodes)
            .u32(self.inodes_timer.0)
            .u32(self.space_timer.0)
            .u32(0)
            .u8(self.inodes_timer.1)
            .u8(self.space_timer.1)
            .zeros_to(Self::SIZE)
            .finish()
    }
}

/// What `struct fs_quota_stat` and `struct fs_quota_statv` tell. There are no quota inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaState {
    /// What is accounted and enforced.
    pub flags: u16,
    /// Grace period of space in seconds.
    pub space_grace: u32,
    /// Grace period of inodes in seconds.
    pub inodes_grace: u32,
}

impl QuotaState {
    /// `FS_QSTAT_VERSION` and `FS_QSTATV_VERSION1`
    pub const VERSION: u8 = 1;

    /// `struct fs_quota_stat`.
    pub fn encode(&self, layout: Layout) -> Vec<u8> {
        // Two quota inodes of 24 bytes (i386: 20) stand before the number of accounts in memory.
        let (graces_at, size) = match layout {
            Layout::Native => (60, 80),
            Layout::I386 => (52, 68),
        };
        let head = Writer::default().u8(Self::VERSION).u8(0).u16(self.flags);
        let graces = head
            .zeros_to(graces_at)
            .u32(self.space_grace)
            .u32(self.inodes_grace);
        graces.zeros_to(size).finish()
    }

    /// `struct fs_quota_statv`.
    pub fn encode_versioned(&self) -> Vec<u8> {
        let head = Writer::default().u8(Self::VERSION).u8(0).u16(self.flags);
        let graces = head
            .zeros_to(80)
            .u32(self.space_grace)
            .u32(self.inodes_grace);
        graces.zeros_to(160).finish()
    }
}
