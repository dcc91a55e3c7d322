//! Descriptors that the keeper holds for its daemons, by number.
//!
//! Invariants:
//! 1. Only what a daemon deposited can be withdrawn by number.
//! 2. A deposit passes exec: a successor finds it under the same number.
//! 3. There are never more than the limit on open files allows, less [`RESERVE`]: the keeper's own come first.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::SocketFlags;

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
        self.check_room()?;
        exec::hand_over(&fd)?;
        let number = u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)?;
        self.held.insert(number, fd);
        Ok(number)
    }

    /// Accepts a connection on a listening socket that is held, and takes it in: its number. Never waits. Where there is no
    /// room, the connection stays where it is.
    pub(super) fn accept(&mut self, number: u32) -> io::Result<u32> {
        let socket = self.get(number);
        let socket = socket.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        self.check_room()?;
        // A daemon shares this setting, and may have changed it.
        rustix::io::ioctl_fionbio(socket, true)?;
        let connection = rustix::net::accept_with(socket, SocketFlags::CLOEXEC)?;
        self.take_in(connection)
    }

    fn check_room(&self) -> io::Result<()> {
        match self.held.len() < self.bound {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        }
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
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_connection_is_accepted_where_there_is_room_and_never_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut deposits = Deposits::bounded(2);
        let socket = UnixListener::bind(&path).unwrap();
        let socket = deposits.take_in(socket.into()).unwrap();
        let errno = |result: io::Result<u32>| result.unwrap_err().raw_os_error();
        // The socket itself would wait.
        assert_eq!(errno(deposits.accept(socket)), Some(libc::EAGAIN));
        let _first = UnixStream::connect(&path).unwrap();
        let first = deposits.accept(socket).unwrap();
        let _second = UnixStream::connect(&path).unwrap();
        assert_eq!(errno(deposits.accept(socket)), Some(libc::EMFILE));
        deposits.withdraw(first);
        let second = deposits.accept(socket).unwrap();
        let flags = rustix::io::fcntl_getfd(deposits.get(second).unwrap()).unwrap();
        assert!(flags.is_empty(), "passes exec");
        deposits.withdraw(second);
        assert_eq!(errno(deposits.accept(second)), Some(libc::EBADF));
        let file = tempfile::tempfile().unwrap();
        let file = deposits.take_in(file.into()).unwrap();
        deposits.bound = 3;
        assert_eq!(errno(deposits.accept(file)), Some(libc::ENOTSOCK));
    }

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
