//! Descriptors that the keeper holds for its daemons, by number.
//!
//! Invariants:
//! 1. Only what a daemon deposited can be withdrawn by number.
//! 2. A deposit passes exec: a successor finds it under the same number.
//! 3. There are never more than the limit on open files allows, less [`RESERVE`]: the keeper's own come first.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::sys::exec;

/// Descriptors that are never given to deposits: what a restart and an upgrade take.
const RESERVE: usize = 32;

/// What is held.
#[derive(Debug)]
pub(super) struct Deposits {
    held: BTreeMap<u32, OwnedFd>,
    bound: usize,
}

impl Deposits {
    /// Nothing yet, under the present limit on open files.
    pub(super) fn new() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        Self::bounded(limit.unwrap_or(1024).saturating_sub(RESERVE))
    }

    fn bounded(bound: usize) -> Self {
        Self {
            held: BTreeMap::new(),
            bound,
        }
    }

    /// Takes one in.
    pub(super) fn take_in(&mut self, fd: OwnedFd) -> io::Result<u32> {
        if self.held.len() >= self.bound {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        exec::hand_over(&fd)?;
        let number = u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)?;
        self.held.insert(number, fd);
        Ok(number)
    }

    /// Closes one; a number that is no deposit is not touched.
    pub(super) fn withdraw(&mut self, number: u32) {
        self.held.remove(&number);
    }

    /// One of them.
    pub(super) fn get(&self, number: u32) -> Option<BorrowedFd<'_>> {
        self.held.get(&number).map(AsFd::as_fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_deposits_are_closed_and_there_is_a_bound() {
        let mut deposits = Deposits::bounded(2);
        let stranger = tempfile::tempfile().unwrap();
        let take_in =
            |deposits: &mut Deposits| deposits.take_in(tempfile::tempfile().unwrap().into());
        let first = take_in(&mut deposits).unwrap();
        let _second = take_in(&mut deposits).unwrap();
        let error = take_in(&mut deposits).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        deposits.withdraw(u32::try_from(stranger.as_raw_fd()).unwrap());
        assert!(stranger.metadata().is_ok(), "not a deposit, not closed");
        deposits.withdraw(first);
        assert!(deposits.get(first).is_none());
        let third = take_in(&mut deposits).unwrap();
        let flags = rustix::io::fcntl_getfd(deposits.get(third).unwrap()).unwrap();
        assert!(flags.is_empty(), "passes exec");
    }
}
