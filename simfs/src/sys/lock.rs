//! flock(2): who owns a directory. No locks of our own.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::FlockOperation;

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
}
