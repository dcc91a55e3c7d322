//! User beancounters: what a VE holds, held at most, may hold, and how often it was refused, in OpenVZ's form 2.5.
//!
//! | rows | from |
//! |---|---|
//! | `kmemsize` | memory of the kernel in the VE's group (version 2: `memory.stat`, without a peak) |
//! | `lockedpages` | memory that cannot be evicted |
//! | `shmpages` | shared memory and tmpfs |
//! | `numproc` | processes and threads |
//! | `physpages`, `swappages` | memory with page cache; swap space |
//! | `dcachesize` | reclaimable kernel memory; version 2 only |
//! | `numtcpsock`, `numothersock` | the VE's network namespace |
//! | `diskspace` (KiB), `diskinodes` | the quota engine: barrier is the soft limit, limit the hard one |
//!
//! The rest has no counterpart on an ordinary kernel: zeros without a limit. A resource group knows one limit, so
//! barrier and limit are the same there. `swappages`, `diskspace` and `diskinodes` stand after the rows of the
//! original, which had none for disks.
//!
//! # Source
//! OpenVZ kernel `kernel/bc/proc.c` for the form, `include/bc/beancounter.h` for the rows.

use std::fmt::Write;

use quota::{Account, Resource, VeId};

use crate::cgroup::ResourceGroups;
use crate::cgroup::usage::Counted;

/// The number that means "no limit".
pub const UNLIMITED: u64 = i64::MAX.unsigned_abs();
/// Bytes of the pages that are counted.
const PAGE: u64 = 4096;

/// The rows in their order. Those of the original come first.
#[rustfmt::skip]
pub const RESOURCES: [&str; 27] = [
    "kmemsize", "lockedpages", "privvmpages", "shmpages", "dummy", "numproc", "physpages", "vmguarpages",
    "oomguarpages", "numtcpsock", "numflock", "numpty", "numsiginfo", "tcpsndbuf", "tcprcvbuf", "othersockbuf",
    "dgramrcvbuf", "numothersock", "dcachesize", "numfile", "dummy", "dummy", "dummy", "numiptent",
    "swappages", "diskspace", "diskinodes",
];

/// The five values of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Used now.
    pub held: u64,
    /// Used at most.
    pub maxheld: u64,
    /// Above this, ordinary requests are refused or the grace period runs.
    pub barrier: u64,
    /// Above this, every request is refused.
    pub limit: u64,
    /// How many were refused.
    pub failcnt: u64,
}

impl Counter {
    /// A resource that nobody counts.
    const NOTHING: Self = Self {
        held: 0,
        maxheld: 0,
        barrier: UNLIMITED,
        limit: UNLIMITED,
        failcnt: 0,
    };

    /// What a resource group counts, in units of so many bytes.
    fn counted(counted: Counted, unit: u64) -> Self {
        let limit = counted.limit.map_or(UNLIMITED, |limit| limit / unit);
        let held = counted.held.div_ceil(unit);
        Self {
            held,
            // Two files are read one after the other.
            maxheld: counted.peak.div_ceil(unit).max(held),
            barrier: limit,
            limit,
            failcnt: counted.failures,
        }
    }

    fn disk(account: &Account, resource: Resource, unit: u64) -> Self {
        let limit = account.limits.get(resource);
        let shown = |limit: Option<u64>| limit.map_or(UNLIMITED, |limit| limit.div_ceil(unit));
        Self {
            held: account.usage.get(resource).div_ceil(unit),
            maxheld: account.peak.get(resource).div_ceil(unit),
            barrier: shown(limit.soft.or(limit.hard)),
            limit: shown(limit.hard),
            failcnt: account.refused.get(resource),
        }
    }

    /// A value by the letter that `vzlist` knows it by: none for what is held, `m`, `b`, `l`, `f`.
    pub fn value(&self, letter: &str) -> Option<u64> {
        match letter {
            "" => Some(self.held),
            "m" => Some(self.maxheld),
            "b" => Some(self.barrier),
            "l" => Some(self.limit),
            "f" => Some(self.failcnt),
            _ => None,
        }
    }
}

/// All counters of one VE, in the order of [`RESOURCES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beancounters {
    ve: VeId,
    counters: Vec<Counter>,
}

impl Beancounters {
    /// Reads them; what cannot be read is as if nobody counted it.
    pub fn read(ve: VeId, groups: &ResourceGroups, account: Option<&Account>) -> Self {
        let counters = RESOURCES.iter().map(|name| {
            let counter = counter(name, groups, account);
            counter.unwrap_or(Counter::NOTHING)
        });
        Self {
            ve,
            counters: counters.collect(),
        }
    }

    /// The counter of a row.
    pub fn get(&self, name: &str) -> Option<&Counter> {
        let at = RESOURCES.iter().position(|known| *known == name)?;
        self.counters.get(at)
    }

    /// Its part of the listing.
    fn write_to(&self, text: &mut String) {
        for (at, (name, row)) in RESOURCES.iter().zip(&self.counters).enumerate() {
            let owner = if at == 0 {
                format!("{}:", self.ve)
            } else {
                String::new()
            };
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{owner:>10}  {name:<12} {:>20} {:>20} {:>20} {:>20} {:>20}",
                row.held, row.maxheld, row.barrier, row.limit, row.failcnt
            );
        }
    }
}

fn counter(name: &str, groups: &ResourceGroups, account: Option<&Account>) -> Option<Counter> {
    let part = |name: &str| groups.memory_part(name).map(Counted::of);
    let (counted, unit) = match name {
        "kmemsize" => (groups.kernel_memory_used()?, 1),
        "lockedpages" => (part("unevictable")?, PAGE),
        "shmpages" => (part("shmem")?, PAGE),
        "numproc" => (groups.tasks_used()?, 1),
        "physpages" => (groups.memory_used()?, PAGE),
        "swappages" => (groups.swap_used()?, PAGE),
        "dcachesize" => (part("slab_reclaimable")?, 1),
        "numtcpsock" => (Counted::of(groups.sockets()?.tcp), 1),
        "numothersock" => (Counted::of(groups.sockets()?.other), 1),
        "diskspace" => return Some(Counter::disk(account?, Resource::Space, 1024)),
        "diskinodes" => return Some(Counter::disk(account?, Resource::Inodes, 1)),
        _ => return None,
    };
    Some(Counter::counted(counted, unit))
}

/// The file's text for these VEs.
pub fn listing(all: &[Beancounters]) -> String {
    let mut text = format!(
        "Version: 2.5\n{:>10}  {:<12} {:>20} {:>20} {:>20} {:>20} {:>20}\n",
        "uid", "resource", "held", "maxheld", "barrier", "limit", "failcnt"
    );
    for one in all {
        one.write_to(&mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use quota::{Bytes, Inodes, Limit, Limits, Subject, Usage};

    fn account() -> Account {
        Account {
            usage: Usage {
                space: Bytes::new(4097),
                inodes: Inodes::new(3),
            },
            peak: Usage {
                space: Bytes::new(8192),
                inodes: Inodes::new(5),
            },
            limits: Limits {
                space: Limit::new(Some(Bytes::new(1 << 20)), Some(Bytes::new(2 << 20))),
                inodes: Limit::new(None, Some(Inodes::new(10))),
            },
            ..Account::unused(Subject::Ve)
        }
    }

    fn read() -> Beancounters {
        let paths = crate::paths::Paths::open(Some(std::path::Path::new("/no/such/host")));
        let ve = VeId::new(101);
        let groups = ResourceGroups::of(&paths.unwrap(), ve);
        Beancounters::read(ve, &groups, Some(&account()))
    }

    #[test]
    fn the_form_is_that_of_version_2_5() {
        let text = listing(&[read()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Version: 2.5");
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>(),
            [
                "uid", "resource", "held", "maxheld", "barrier", "limit", "failcnt"
            ]
        );
        assert_eq!(lines.len(), 2 + RESOURCES.len());
        for (line, name) in lines[2..].iter().zip(RESOURCES) {
            // OpenVZ `bc/proc.c`: 10, two spaces, 12, then five of 20 with a space before each.
            assert_eq!(line.len(), 10 + 2 + 12 + 5 * 21, "{line}");
            assert_eq!(line[12..24].trim_end(), name);
        }
        assert!(lines[2].starts_with("      101:  kmemsize "));
        assert!(lines[3].starts_with("            lockedpages "));
    }

    #[test]
    fn disk_rows_are_those_of_the_engine() {
        let all = read();
        let space = all.get("diskspace").unwrap();
        let values = ["", "m", "b", "l", "f"].map(|letter| space.value(letter).unwrap());
        assert_eq!(values, [5, 8, 1024, 2048, 0]);
        let inodes = all.get("diskinodes").unwrap();
        assert_eq!((inodes.barrier, inodes.limit), (10, 10));
        assert_eq!(all.get("numflock"), Some(&Counter::NOTHING));
        assert_eq!(all.get("dancing"), None);
    }
}
