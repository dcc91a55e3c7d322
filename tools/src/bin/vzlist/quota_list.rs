//! The listing that OpenVZ's kernel gave in `/proc/vz/vzquota`, of the VEs that are listed.
//!
//! One line with the VE and its private area, then a row for space in KiB and one for inodes: usage, soft and hard
//! limit, when the grace period ends (0: it does not run), and its length, in seconds. No limit is the largest number.
//!
//! # Source
//! OpenVZ kernel `fs/quota/vzdquota/vzdq_mgmt.c`.

use std::fmt::Write;

use quota::Resource;
use simfs_tools::ubc::UNLIMITED;

use crate::row::Row;

/// The listing.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "{:>11}: path {:>20} {:>20} {:>20} {:>20} {:>20}\n",
        "qid", "usage", "softlimit", "hardlimit", "time", "expire"
    );
    for row in rows {
        let Some((account, grace)) = &row.account else {
            continue;
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:>11}: {}", row.ve, row.private);
        for (name, resource, unit, period) in [
            ("1k-blocks", Resource::Space, 1024, grace.space),
            ("inodes", Resource::Inodes, 1, grace.inodes),
        ] {
            let limit = account.limits.get(resource);
            let shown = |limit: Option<u64>| limit.map_or(UNLIMITED, |limit| limit.div_ceil(unit));
            let deadline = account.deadlines.get(resource).map_or(0, |time| time.get());
            let _ = writeln!(
                text,
                "{name:>16} {:>20} {:>20} {:>20} {deadline:>20} {:>20}",
                account.usage.get(resource).div_ceil(unit),
                shown(limit.soft),
                shown(limit.hard),
                period.get(),
            );
        }
    }
    text
}
