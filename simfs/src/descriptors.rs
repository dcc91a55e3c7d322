//! The daemon's descriptors: a guest can have as many files open as there are, but for a reserve.
//!
//! The reserve is for what keeps a VE manageable: the control socket, the database, late looks. The kernel gives the lowest free
//! number, so a number tells how many are in use, and a system call is spent only when they run short.
//!
//! The kernel's table of them has its size from the start. To enlarge it the kernel waits for all CPUs where a process has
//! threads (`synchronize_rcu`), and the request that needed one more number waits with it: tens of milliseconds and more on a busy host, six
//! times over while a successor opens anew what its predecessor had open.
//!
//! No locks.
//!
//! # Source
//! Linux `fs/file.c`, `expand_fdtable`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Numbers that guests' files do not get, where the limit is large enough.
const RESERVE: usize = 64;
/// From how many below the reserve on each open asks first; more than the workers can open at once.
const MARGIN: usize = 16;

/// Numbers that the kernel's table has room for: 8 bytes each. More than most daemons ever use at once.
pub const TABLE: usize = 4096;

/// Has the kernel's table made as large as it will be for most daemons, as far as the limit of open files goes; `any` is some
/// open descriptor. To be called while the process has one thread.
///
/// # Errors
/// Where the kernel has no memory left.
pub fn make_room(any: BorrowedFd<'_>, limit: usize) -> io::Result<()> {
    let last = TABLE.min(limit).saturating_sub(1);
    let last = i32::try_from(last).unwrap_or(i32::MAX);
    drop(rustix::io::fcntl_dupfd_cloexec(any, last)?);
    Ok(())
}

/// The guard of the reserve.
#[derive(Debug)]
pub struct Descriptors {
    first_reserved: usize,
    are_short: AtomicBool,
}

impl Descriptors {
    /// A reserve below this limit of open files; a small limit gives a quarter.
    pub fn new(limit: usize) -> Self {
        Self {
            first_reserved: limit.saturating_sub(RESERVE.min(limit / 4)),
            are_short: AtomicBool::new(false),
        }
    }

    /// Before a file of a guest is opened; `any` is some open descriptor.
    ///
    /// # Errors
    /// `EMFILE` where only the reserve is left.
    pub fn check(&self, any: BorrowedFd<'_>) -> io::Result<()> {
        if !self.are_short.load(Ordering::Relaxed) {
            return Ok(());
        }
        let probe = rustix::io::fcntl_dupfd_cloexec(any, 0)?;
        self.note(&probe);
        match number(&probe) < self.first_reserved {
            true => Ok(()),
            false => Err(rustix::io::Errno::MFILE.into()),
        }
    }

    /// A descriptor was opened for a guest.
    pub fn note(&self, opened: &impl AsFd) {
        let are_short = number(opened).saturating_add(MARGIN) >= self.first_reserved;
        if are_short != self.are_short.load(Ordering::Relaxed) {
            self.are_short.store(are_short, Ordering::Relaxed);
        }
    }
}

fn number(fd: &impl AsFd) -> usize {
    usize::try_from(fd.as_fd().as_raw_fd()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_reserve_is_kept_and_given_back() {
        let base = File::open("/dev/null").unwrap();
        // Other tests open files too: what counts are numbers far above theirs.
        let descriptors = Descriptors::new(900 + RESERVE);
        let mut held = Vec::new();
        let refused = loop {
            if let Err(error) = descriptors.check(base.as_fd()) {
                break error;
            }
            let fd = rustix::io::fcntl_dupfd_cloexec(&base, 0).unwrap();
            descriptors.note(&fd);
            held.push(fd);
        };
        assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
        assert!(held.iter().all(|fd| number(fd) < 900 + MARGIN));
        drop(held);
        descriptors.check(base.as_fd()).unwrap();
    }
}
