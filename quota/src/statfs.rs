//! What df shows for given limits, usage and real free space.                                             (pure)
//!
//! A VE sees a disk of the size of its limit: the soft limit where there is one, as on OpenVZ, else the hard one. Users
//! read `used = total - free`, so for a limit `L` and a usage `U`:
//! ```text
//! free      = min(L - U, what the host has free)         at least 0
//! available = min(L - U, what the host gives to anybody)
//! total     = min(U, L) + free
//! ```
//! 1. A shortage on the host looks like a smaller disk, not like higher usage.
//! 2. Above the limit the disk is full and exactly as large as the limit: used is never above total.
//! 3. The host's size shows nowhere: without a limit the disk is the VE's usage plus what the host has free.
//! 4. Limits show while enforcement is off, too: it must not change what the VE learns of the host.
//! 5. Promises are not shown, and users' and groups' limits neither.
//!
//! # Source
//! OpenVZ kernel `fs/simfs.c`, `sim_statfs`. Without a limit, and over the limit, the rules are our own.

use crate::limit::Limits;
use crate::usage::Usage;

/// What statvfs(3) says of the file system underneath, in its units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostSpace {
    /// Unit of the block counts in bytes, `f_frsize`.
    pub block_size: u32,
    /// Blocks in all.
    pub total: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks that anybody may use.
    pub available: u64,
    /// Inodes in all; 0 together with `files_free` where the file system does not count them.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Longest name.
    pub name_max: u32,
}

/// What the VE is told; units as in [`HostSpace`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatfsView {
    /// Unit of the block counts in bytes, `f_frsize`.
    pub block_size: u32,
    /// Blocks in all.
    pub total: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks that anybody may use.
    pub available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Longest name.
    pub name_max: u32,
}

/// The view of a VE with these limits and this usage.
pub fn view(limits: &Limits, used: Usage, host: HostSpace) -> StatfsView {
    let block = u64::from(host.block_size.max(1));
    let limit = limits.space.lowest().map(|bytes| bytes.get() / block);
    let used_blocks = used.space.get().div_ceil(block);
    let space = Shown::new(limit, used_blocks, host.free);
    let room = limit.map_or(u64::MAX, |limit| limit.saturating_sub(used_blocks));
    let files_limit = limits.inodes.lowest().map(|inodes| inodes.get());
    let counts_inodes = host.files != 0 || host.files_free != 0;
    let files = match (counts_inodes, files_limit) {
        (true, _) => Shown::new(files_limit, used.inodes.get(), host.files_free),
        (false, Some(_)) => Shown::new(files_limit, used.inodes.get(), u64::MAX),
        (false, None) => Shown { total: 0, free: 0 },
    };
    StatfsView {
        block_size: host.block_size,
        total: space.total,
        free: space.free,
        available: room.min(host.available),
        files: files.total,
        files_free: files.free,
        name_max: host.name_max,
    }
}

struct Shown {
    total: u64,
    free: u64,
}

impl Shown {
    fn new(limit: Option<u64>, used: u64, host_free: u64) -> Self {
        let limit = limit.unwrap_or(u64::MAX);
        let free = limit.saturating_sub(used).min(host_free);
        Self {
            total: used.min(limit).saturating_add(free),
            free,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Limit;
    use crate::units::{Bytes, Inodes};

    const BLOCK: u64 = 4096;

    struct Row {
        rule: &'static str,
        soft: Option<u64>,
        hard: Option<u64>,
        used: u64,
        host_free: u64,
        host_available: u64,
        total: u64,
        free: u64,
        available: u64,
    }

    const fn row(
        rule: &'static str,
        soft: Option<u64>,
        hard: Option<u64>,
        used: u64,
        (host_free, host_available): (u64, u64),
        (total, free, available): (u64, u64, u64),
    ) -> Row {
        Row {
            rule,
            soft,
            hard,
            used,
            host_free,
            host_available,
            total,
            free,
            available,
        }
    }

    /// All figures in blocks.
    const ROWS: &[Row] = &[
        row(
            "the soft limit is the size",
            Some(100),
            Some(200),
            30,
            (500, 400),
            (100, 70, 70),
        ),
        row(
            "a hard limit alone is the size",
            None,
            Some(200),
            30,
            (500, 400),
            (200, 170, 170),
        ),
        row(
            "host shortage: a smaller disk",
            Some(100),
            None,
            30,
            (50, 40),
            (80, 50, 40),
        ),
        row(
            "host reserve shows when it binds",
            Some(100),
            None,
            30,
            (80, 60),
            (100, 70, 60),
        ),
        row(
            "over soft: full, as large as soft",
            Some(100),
            Some(200),
            150,
            (9, 9),
            (100, 0, 0),
        ),
        row(
            "limit zero: nothing at all",
            Some(0),
            Some(0),
            0,
            (500, 400),
            (0, 0, 0),
        ),
        row(
            "no limit: used plus free",
            None,
            None,
            30,
            (500, 400),
            (530, 500, 400),
        ),
    ];

    #[test]
    fn df_shows_what_the_table_says() {
        for row in ROWS {
            let bytes = |blocks: Option<u64>| blocks.map(|blocks| Bytes::new(blocks * BLOCK));
            let inodes = |count: Option<u64>| count.map(Inodes::new);
            let limits = Limits {
                space: Limit::new(bytes(row.soft), bytes(row.hard)),
                inodes: Limit::new(inodes(row.soft), inodes(row.hard)),
            };
            let used = Usage::new(Bytes::new(row.used * BLOCK), Inodes::new(row.used));
            let host = HostSpace {
                block_size: 4096,
                total: 1_000_000,
                free: row.host_free,
                available: row.host_available,
                files: 1_000_000,
                files_free: row.host_free,
                name_max: 255,
            };
            let seen = view(&limits, used, host);
            let space = (seen.total, seen.free, seen.available);
            assert_eq!(space, (row.total, row.free, row.available), "{}", row.rule);
            assert_eq!(
                (seen.files, seen.files_free),
                (row.total, row.free),
                "{}",
                row.rule
            );
        }
    }

    #[test]
    fn started_blocks_are_used_and_not_free() {
        let limits = Limits {
            space: Limit::new(None, Some(Bytes::new(10 * BLOCK + 1))),
            inodes: Limit::UNLIMITED,
        };
        let host = HostSpace {
            block_size: 4096,
            free: 99,
            available: 99,
            ..HostSpace::default()
        };
        let seen = view(&limits, Usage::space(Bytes::new(1)), host);
        assert_eq!((seen.total, seen.free), (10, 9));
    }

    #[test]
    fn a_host_that_does_not_count_inodes_shows_the_limit_or_nothing() {
        let host = HostSpace {
            block_size: 4096,
            ..HostSpace::default()
        };
        let seen = view(&Limits::UNLIMITED, Usage::inode(Bytes::ZERO), host);
        assert_eq!((seen.files, seen.files_free), (0, 0));
        let limits = Limits {
            space: Limit::UNLIMITED,
            inodes: Limit::new(Some(Inodes::new(5)), None),
        };
        let seen = view(&limits, Usage::inode(Bytes::ZERO), host);
        assert_eq!((seen.files, seen.files_free), (5, 4));
    }
}
