//! A memory cgroup of a test's own, of either version.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{KIB, require};

/// Removed on drop; what still runs in it goes back to the group above.
#[derive(Debug)]
pub(super) struct MemoryGroup {
    dir: PathBuf,
    names: &'static Names,
}

/// What the two versions call the same: a file, or a file and a key in it.
#[derive(Debug)]
struct Names {
    limit: &'static str,
    kills: (&'static str, &'static str),
    anonymous: (&'static str, &'static str),
}

const FIRST: Names = Names {
    limit: "memory.limit_in_bytes",
    kills: ("memory.oom_control", "oom_kill"),
    anonymous: ("memory.stat", "rss"),
};
const SECOND: Names = Names {
    limit: "memory.max",
    kills: ("memory.events", "oom_kill"),
    anonymous: ("memory.stat", "anon"),
};

impl MemoryGroup {
    /// A group without a limit; `None` after a skip.
    pub(super) fn new() -> Option<Self> {
        let hierarchies = [
            ("/sys/fs/cgroup/memory", &FIRST),
            ("/sys/fs/cgroup", &SECOND),
        ];
        for (place, names) in hierarchies {
            let Ok(made) = tempfile::Builder::new()
                .prefix("simfs-e2e.")
                .tempdir_in(place)
            else {
                continue;
            };
            let group = Self {
                dir: made.keep(),
                names,
            };
            if group.dir.join(names.limit).exists() {
                return Some(group);
            }
        }
        require::skip("no group of this host's cgroups has a memory controller to give");
        None
    }

    /// Moves a process, and those that it will start.
    pub(super) fn take_in(&self, process: u32) {
        move_to(&self.dir, &process.to_string()).expect("into the group");
    }

    /// What the group may use at most, in bytes.
    pub(super) fn limit(&self, bytes: u64) {
        self.try_limit(bytes).expect("the limit can be set");
    }

    /// Leaves the group hardly more than it has in use: the kernel says where that is.
    pub(super) fn squeeze(&self) {
        let mut bytes = self.number(self.names.anonymous) + 512 * KIB;
        // The first version refuses what it cannot get down to; the second would kill for it.
        while self.try_limit(bytes).is_err() {
            bytes += 256 * KIB;
            assert!(bytes < 1 << 30, "no limit can be set");
        }
    }

    fn try_limit(&self, bytes: u64) -> std::io::Result<()> {
        fs::write(self.dir.join(self.names.limit), bytes.to_string())
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub(super) fn kills(&self) -> u64 {
        self.number(self.names.kills)
    }

    fn number(&self, (file, key): (&str, &str)) -> u64 {
        let text = fs::read_to_string(self.dir.join(file)).expect(file);
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        found.and_then(|number| number.parse().ok()).expect(key)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let above = self.dir.parent().unwrap_or(&self.dir);
        let left = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        for process in left.lines() {
            let _gone = move_to(above, process);
        }
        if let Err(error) = fs::remove_dir(&self.dir) {
            eprintln!("{}: {error}", self.dir.display());
        }
    }
}

fn move_to(group: &Path, process: &str) -> std::io::Result<()> {
    fs::write(group.join("cgroup.procs"), process)
}
