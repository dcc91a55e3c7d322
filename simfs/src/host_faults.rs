//! What the private area's file system fails with for reasons that are the host's to mend, as `simfs status` and the log tell.
//!
//! The guest gets the error itself; here it is counted. An errno that a guest can cause at will (a file that is not there, an
//! account that is full) is no fault.
//!
//! Invariants:
//! 1. A fault is logged when it comes up and once a minute while it lasts, whatever the number of requests that fail.
//! 2. A fault that did not come again for `LASTS` is over and no longer reported.
//!
//! Lock order: a leaf.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::FsError;

/// For how long a fault is reported after it was last seen.
const LASTS: Duration = Duration::from_secs(60);
/// How often one that lasts is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The kinds of fault: errno, and what it means here.
const KINDS: [(i32, &str); 9] = [
    (libc::ENOSPC, "is full"),
    (libc::EROFS, "is read-only"),
    (libc::EIO, "has input/output errors"),
    // As Linux names a damaged file system.
    (
        libc::EUCLEAN,
        "is damaged: check it with fsck or xfs_repair",
    ),
    (libc::ESHUTDOWN, "was shut down"),
    (
        libc::EMFILE,
        "is short of descriptors: raise the daemon's limit of open files (ulimit -n)",
    ),
    (libc::ENFILE, "is short of descriptors on the whole host"),
    (libc::ENOMEM, "is short of memory"),
    (libc::EDQUOT, "has a quota of the host's own that is full"),
];

/// What was seen of each kind.
#[derive(Debug, Default)]
pub struct HostFaults {
    seen: Mutex<[Option<Seen>; KINDS.len()]>,
    lossy: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    count: u64,
    last: Instant,
    logged: Instant,
}

impl HostFaults {
    /// Notes the error of an operation, if it is a fault. True where the file system may not hold what it was given, and
    /// [`Self::take_loss`] has not been asked since.
    pub fn note(&self, error: &FsError) -> bool {
        match error {
            FsError::System(error) => error
                .raw_os_error()
                .is_some_and(|errno| self.note_errno(errno, Instant::now())),
            _ => false,
        }
    }

    fn note_errno(&self, errno: i32, now: Instant) -> bool {
        let Some(at) = KINDS.iter().position(|(known, _)| *known == errno) else {
            return false;
        };
        self.count(at, errno, now);
        let is_loss = matches!(errno, libc::EIO | libc::EUCLEAN | libc::ESHUTDOWN);
        is_loss && !self.lossy.swap(true, Ordering::Relaxed)
    }

    fn count(&self, at: usize, errno: i32, now: Instant) {
        let mut all = self.seen.lock();
        let Some(place) = all.get_mut(at) else {
            return;
        };
        let mut seen = place
            .filter(|seen| now < seen.last + LASTS)
            .unwrap_or(Seen {
                count: 0,
                last: now,
                logged: now,
            });
        let is_due = seen.count == 0 || now >= seen.logged + LOG_EVERY;
        seen.count = seen.count.saturating_add(1);
        seen.last = now;
        if is_due {
            seen.logged = now;
        }
        *place = Some(seen);
        drop(all);
        if is_due {
            tracing::error!(errno, times = seen.count, "{}", text(at));
        }
    }

    /// Whether something was seen, since this was last asked, after which the file system may not hold what it was given.
    pub fn take_loss(&self) -> bool {
        self.lossy.swap(false, Ordering::Relaxed)
    }

    /// What is wrong at present, in words.
    pub fn present(&self) -> Vec<String> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Vec<String> {
        let all = *self.seen.lock();
        all.iter()
            .enumerate()
            .filter_map(|(at, seen)| Some((at, (*seen)?)))
            .filter(|(_, seen)| now < seen.last + LASTS)
            .map(|(at, seen)| {
                let ago = now.saturating_duration_since(seen.last).as_secs();
                let times = seen.count;
                format!("{}: {times} times, last {ago} s ago", text(at))
            })
            .collect()
    }
}

fn text(at: usize) -> String {
    let what = KINDS.get(at).map_or("fails", |(_, what)| what);
    format!("the private area {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_fault_is_reported_until_it_is_over() {
        let faults = HostFaults::default();
        let start = Instant::now();
        faults.note_errno(libc::ENOSPC, start);
        faults.note_errno(libc::ENOSPC, start + Duration::from_secs(50));
        let told = faults.at(start + Duration::from_secs(52));
        assert_eq!(told, ["the private area is full: 2 times, last 2 s ago"]);
        assert!(faults.at(start + Duration::from_secs(111)).is_empty());
        faults.note_errno(libc::ENOSPC, start + Duration::from_secs(200));
        let told = faults.at(start + Duration::from_secs(200));
        assert_eq!(told, ["the private area is full: 1 times, last 0 s ago"]);
        assert!(!faults.take_loss());
    }

    #[test]
    fn only_the_hosts_faults_count() {
        let faults = HostFaults::default();
        for errno in [libc::ENOENT, libc::EACCES, libc::ENOTEMPTY, libc::ERANGE] {
            assert!(!faults.note(&io::Error::from_raw_os_error(errno).into()));
        }
        assert!(!faults.note(&FsError::Invalid));
        assert!(faults.present().is_empty());
        let error = io::Error::from_raw_os_error(libc::EIO).into();
        assert!(faults.note(&error));
        assert!(!faults.note(&error), "once is enough");
        assert_eq!(faults.present().len(), 1);
        assert!(faults.take_loss());
        assert!(!faults.take_loss());
    }
}
