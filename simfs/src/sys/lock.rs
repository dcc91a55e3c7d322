//! flock(2): who owns a directory. No locks of our own.

use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

/// How often a lock that is waited for is tried.
const RETRY: Duration = Duration::from_millis(5);

/// Takes the exclusive lock on an open file or directory; `false` where another open file description holds one.
///
/// Never waits. The lock goes with the last descriptor of the open file description, in whichever process.
pub fn try_lock_exclusive(file: impl AsFd) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// As [`try_lock_exclusive`], but waits for an owner that is about to end, `limit` at most.
pub fn lock_exclusive_within(file: impl AsFd, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        if try_lock_exclusive(&file)? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        thread::sleep(RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time() {
        let area = tempfile::tempdir().unwrap();
        let first = std::fs::File::open(area.path()).unwrap();
        let second = std::fs::File::open(area.path()).unwrap();
        assert!(try_lock_exclusive(&first).unwrap());
        assert!(!try_lock_exclusive(&second).unwrap());
        drop(first);
        assert!(try_lock_exclusive(&second).unwrap());
    }
    #[test]
    fn an_owner_that_ends_is_waited_for() {
        let area = tempfile::tempdir().unwrap();
        let first = std::fs::File::open(area.path()).unwrap();
        let second = std::fs::File::open(area.path()).unwrap();
        assert!(try_lock_exclusive(&first).unwrap());
        assert!(!lock_exclusive_within(&second, RETRY).unwrap());
        let ending = thread::spawn(move || {
            thread::sleep(RETRY);
            drop(first);
        });
        assert!(lock_exclusive_within(&second, Duration::from_secs(60)).unwrap());
        ending.join().unwrap();
    }
}
