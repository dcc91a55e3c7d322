//! The numbers and structures of quotactl(2), as callers of either word size lay them out.
//!
//! Structures are written and read field by field, never reinterpreted. The fields keep the units of the interface,
//! named in each structure; conversion to our units is [`crate::quotactl::convert`]'s.
//!
//! | data | 64-bit | i386 |
//! |---|---|---|
//! | `if_dqblk` | 72 | 68 |
//! | `if_nextdqblk` | 72 | 72 |
//! | `if_dqinfo` | 24 | 24 |
//! | `fs_disk_quota` | 112 | 112 |
//! | `fs_quota_stat` | 80 | 68 |
//! | `fs_quota_statv` | 160 | 160 |
//!
//! # Source
//! Linux `include/uapi/linux/quota.h`, `include/uapi/linux/dqblk_xfs.h`, `fs/quota/compat.h`.

pub mod bytes;
pub mod call;
pub mod command;
pub mod generic;
pub mod xfs;

use bytes::Writer;
use command::Command;
use generic::{DiskQuota, QuotaInfo};
use xfs::{QuotaState, XfsQuota};

/// How a caller lays out structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// 64-bit numbers are aligned to 8 bytes: x86-64, x32 and everything that is no x86.
    Native,
    /// 64-bit numbers are aligned to 4 bytes: i386.
    I386,
}

/// What a command reads from the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing.
    None,
    /// Limits, usage and times of one account.
    Quota(DiskQuota),
    /// Grace periods and flags.
    Info(QuotaInfo),
    /// The same as `Quota` in the form of XFS.
    XfsQuota(XfsQuota),
    /// Which of accounting and enforcement to switch.
    XfsFlags(u32),
    /// Version of the structure that the caller wants.
    Version(u8),
}

impl Input {
    /// Bytes that a command reads from the caller.
    pub const fn size(command: Command, layout: Layout) -> usize {
        match command {
            Command::SetQuota => DiskQuota::size(layout),
            Command::SetInfo => QuotaInfo::SIZE,
            Command::XfsSetLimits => XfsQuota::SIZE,
            Command::XfsQuotaOn | Command::XfsQuotaOff | Command::XfsRemove => 4,
            Command::XfsStateVersioned => 1,
            _ => 0,
        }
    }

    /// Reads what a command expects; `None` if there are too few bytes.
    pub fn decode(command: Command, bytes: &[u8]) -> Option<Self> {
        Some(match command {
            Command::SetQuota => Self::Quota(DiskQuota::decode(bytes)?),
            Command::SetInfo => Self::Info(QuotaInfo::decode(bytes)?),
            Command::XfsSetLimits => Self::XfsQuota(XfsQuota::decode(bytes)?),
            Command::XfsQuotaOn | Command::XfsQuotaOff | Command::XfsRemove => {
                Self::XfsFlags(bytes::Reader::new(bytes).u32()?)
            }
            Command::XfsStateVersioned => Self::Version(bytes::Reader::new(bytes).u8()?),
            _ => Self::None,
        })
    }
}

/// What a command writes to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Nothing.
    None,
    /// Number of the quota format.
    Format(u32),
    /// Grace periods and flags.
    Info(QuotaInfo),
    /// One account.
    Quota(DiskQuota),
    /// One account and its id.
    NextQuota(DiskQuota, u32),
    /// One account in the form of XFS.
    XfsQuota(XfsQuota),
    /// What is switched on.
    XfsState(QuotaState),
    /// The same in the larger structure.
    XfsStateVersioned(QuotaState),
}

impl Output {
    /// The bytes as this caller lays them out.
    pub fn encode(&self, layout: Layout) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Format(format) => Writer::default().u32(*format).finish(),
            Self::Info(info) => info.encode(),
            Self::Quota(quota) => quota.encode(layout),
            Self::NextQuota(quota, id) => quota.encode_next(*id),
            Self::XfsQuota(quota) => quota.encode(),
            Self::XfsState(state) => state.encode(layout),
            Self::XfsStateVersioned(state) => state.encode_versioned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_those_of_the_kernel() {
        // (output, 64-bit, i386); measured with sizeof in C for both word sizes.
        let quota = DiskQuota::default();
        let rows = [
            ("format", Output::Format(4), 4, 4),
            ("if_dqinfo", Output::Info(QuotaInfo::default()), 24, 24),
            ("if_dqblk", Output::Quota(quota), 72, 68),
            ("if_nextdqblk", Output::NextQuota(quota, 1), 72, 72),
            (
                "fs_disk_quota",
                Output::XfsQuota(XfsQuota::default()),
                112,
                112,
            ),
            (
                "fs_quota_stat",
                Output::XfsState(QuotaState::default()),
                80,
                68,
            ),
            (
                "fs_quota_statv",
                Output::XfsStateVersioned(QuotaState::default()),
                160,
                160,
            ),
        ];
        for (name, output, native, i386) in rows {
            assert_eq!(output.encode(Layout::Native).len(), native, "{name}");
            assert_eq!(output.encode(Layout::I386).len(), i386, "{name} i386");
        }
        assert_eq!(Input::size(Command::SetQuota, Layout::Native), 72);
        assert_eq!(Input::size(Command::SetQuota, Layout::I386), 68);
        assert_eq!(Input::size(Command::SetInfo, Layout::I386), 24);
        assert_eq!(Input::size(Command::XfsSetLimits, Layout::I386), 112);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for command in Command::ALL {
                let decoded = Input::decode(command, &bytes);
                let size = Input::size(command, Layout::I386);
                prop_assert_eq!(decoded.is_some(), bytes.len() >= size, "{:?}", command);
            }
        }

        #[test]
        fn any_account_survives_the_round_trip(bytes in prop::collection::vec(any::<u8>(), 112)) {
            let quota = DiskQuota::decode(&bytes).unwrap();
            prop_assert_eq!(DiskQuota::decode(&quota.encode(Layout::Native)), Some(quota));
            prop_assert_eq!(DiskQuota::decode(&quota.encode(Layout::I386)), Some(quota));
            let info = QuotaInfo::decode(&bytes).unwrap();
            prop_assert_eq!(QuotaInfo::decode(&info.encode()), Some(info));
            let xfs = XfsQuota::decode(&bytes).unwrap();
            prop_assert_eq!(XfsQuota::decode(&xfs.encode()), Some(xfs));
        }
    }
}
