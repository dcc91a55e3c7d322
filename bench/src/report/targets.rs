//! What simfs set itself: speed as a part of the native file system's, and where more was thought possible.
//!
//! Targets belong to a quiet machine with two or more CPUs and ext4 underneath.

/// The figures for one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Target {
    /// Begin of the phase's name.
    phase: &'static str,
    /// To be reached.
    pub(super) now: f64,
    /// Hoped for.
    pub(super) stretch: f64,
}

const fn target(phase: &'static str, now: f64, stretch: f64) -> Target {
    Target {
        phase,
        now,
        stretch,
    }
}

const TARGETS: [Target; 26] = [
    target("seq-read", 0.95, 0.95),
    target("rand-read", 0.95, 0.95),
    target("mmap-read", 0.95, 0.95),
    target("rdwr-read", 0.80, 0.80),
    target("stat", 0.85, 0.85),
    target("lookup-miss", 0.85, 0.85),
    target("seq-write-1m-1j", 0.55, 0.55),
    target("rand-write-4k-1j", 0.12, 0.20),
    target("rand-write-4k-2j", 0.45, 0.50),
    target("append-4k", 0.11, 0.17),
    target("append-100b", 0.03, 0.05),
    target("sqlite-wal", 0.80, 0.85),
    target("sqlite-rollback", 0.80, 0.85),
    target("fsync", 0.80, 0.85),
    target("create", 0.19, 0.30),
    target("unlink", 0.15, 0.30),
    target("open", 0.07, 0.13),
    target("untar", 0.12, 0.21),
    target("cp-a", 0.13, 0.20),
    target("rm-rf", 0.18, 0.32),
    target("find", 0.24, 0.28),
    target("grep-r", 0.17, 0.28),
    target("gcc-build", 0.95, 0.95),
    target("cargo-build", 0.95, 0.95),
    target("git-status", 0.95, 0.95),
    target("dbench", 0.28, 0.38),
];

/// The target of a phase, where it has one.
pub(super) fn of(phase: &str) -> Option<Target> {
    TARGETS
        .into_iter()
        .find(|target| phase.starts_with(target.phase))
}

impl Target {
    /// Target and what a median makes of it.
    pub(super) fn verdict(self, median: f64) -> String {
        let met = if median >= self.stretch {
            "met, stretch too"
        } else if median >= self.now {
            "met"
        } else {
            "**missed**"
        };
        format!("{:.2} / {:.2}: {met}", self.now, self.stretch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_held_against_both_figures() {
        let target = of("create").unwrap();
        assert_eq!(target.verdict(0.31), "0.19 / 0.30: met, stretch too");
        assert_eq!(target.verdict(0.20), "0.19 / 0.30: met");
        assert_eq!(target.verdict(0.18), "0.19 / 0.30: **missed**");
        assert_eq!(of("seq-write-4k-1j"), None);
        assert_eq!(of("sqlite-lazy"), None, "fsync-bound are the others");
    }
}
