//! Usage and limits as the programs show them, and as a walk over the private area counts them.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// Space in bytes and a number of inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount {
    pub(crate) space: u64,
    pub(crate) inodes: u64,
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.space += other.space;
        self.inodes += other.inodes;
    }

    /// From an object with `space` and `inodes`.
    pub(crate) fn from_json(value: &serde_json::Value) -> Self {
        let number = |key: &str| {
            value[key]
                .as_u64()
                .unwrap_or_else(|| panic!("no {key}: {value}"))
        };
        Self {
            space: number("space"),
            inodes: number("inodes"),
        }
    }
}

/// What a tree occupies: in all, and for each user and group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) ve: Amount,
    pub(crate) users: BTreeMap<u32, Amount>,
    pub(crate) groups: BTreeMap<u32, Amount>,
}

/// Counts a tree as du(1) does: every inode once, the directory itself included, other file systems not entered.
/// Entries may vanish meanwhile.
pub(crate) fn count(root: &Path) -> Counted {
    let mut counted = Counted::default();
    let mut linked = HashSet::new();
    let Ok(top) = fs::symlink_metadata(root) else {
        return counted;
    };
    let mut pending = vec![root.to_owned()];
    counted.take(&top);
    while let Some(dir) = pending.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(data) = fs::symlink_metadata(entry.path()) else {
                continue;
            };
            let is_new = data.is_dir() || data.nlink() == 1 || linked.insert(data.ino());
            if data.dev() != top.dev() || !is_new {
                continue;
            }
            counted.take(&data);
            if data.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    counted
}

impl Counted {
    fn take(&mut self, data: &fs::Metadata) {
        let amount = Amount {
            space: data.blocks() * 512,
            inodes: 1,
        };
        self.ve.add(amount);
        self.users.entry(data.uid()).or_default().add(amount);
        self.groups.entry(data.gid()).or_default().add(amount);
    }
}
