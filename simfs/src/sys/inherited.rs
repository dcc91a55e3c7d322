//! Descriptors that a process was started with, by number.
//!
//! Everything that this library opens is close-on-exec, so what stood open at the start and is not, was handed over on
//! purpose. Invariant: each such descriptor has one owner, the [`Inherited`] or who took it from there.
//!
//! No locks.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Standard input, output and error belong to the standard library.
const FIRST: RawFd = 3;

static COLLECTED: AtomicBool = AtomicBool::new(false);

/// What was handed over and has not been taken yet.
#[derive(Debug, Default)]
pub struct Inherited(BTreeMap<RawFd, OwnedFd>);

impl Inherited {
    /// Takes possession of them all and makes them close-on-exec. Once in a process, while it has one thread.
    ///
    /// # Errors
    /// `EBUSY` the second time; those of reading `/proc/self/fd`.
    pub fn collect() -> io::Result<Self> {
        if COLLECTED.swap(true, Ordering::AcqRel) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let numbers: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|number| *number >= FIRST)
            .collect();
        let handed_over = numbers.into_iter().filter(|number| take_over(*number));
        let owned = handed_over.map(|number| {
            // SAFETY: the number is open and was not opened by this process, whose own descriptors are close-on-exec;
            // it is collected once, so nobody else owns it.
            (number, unsafe { OwnedFd::from_raw_fd(number) })
        });
        Ok(Self(owned.collect()))
    }

    /// The descriptor with this number, if it was handed over and is still here.
    pub fn take(&mut self, number: u32) -> Option<OwnedFd> {
        self.0.remove(&RawFd::try_from(number).ok()?)
    }

    /// Takes all that are wanted, with their numbers.
    pub fn take_all(&mut self, is_wanted: impl Fn(&OwnedFd) -> bool) -> Vec<(u32, OwnedFd)> {
        let wanted = self.0.iter().filter(|(_, fd)| is_wanted(fd));
        let numbers: Vec<_> = wanted
            .filter_map(|(number, _)| u32::try_from(*number).ok())
            .collect();
        let take = |number| Some((number, self.take(number)?));
        numbers.into_iter().filter_map(take).collect()
    }

    /// The numbers that nobody has taken.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0
            .keys()
            .filter_map(|number| u32::try_from(*number).ok())
    }
}

/// As if these had been handed over.
impl FromIterator<OwnedFd> for Inherited {
    fn from_iter<T: IntoIterator<Item = OwnedFd>>(descriptors: T) -> Self {
        let numbered = descriptors.into_iter().map(|fd| (fd.as_raw_fd(), fd));
        Self(numbered.collect())
    }
}

/// Makes an open descriptor close-on-exec; false if it is that already, or not open.
fn take_over(number: RawFd) -> bool {
    // SAFETY: F_GETFD on any number is harmless.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // SAFETY: the number is open, and only its flag changes.
    flags >= 0
        && flags & libc::FD_CLOEXEC == 0
        && unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) } == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_close_on_exec_is_left_alone_and_the_rest_is_taken_once() {
        let own = tempfile::tempfile().unwrap();
        let given = tempfile::tempfile().unwrap();
        rustix::io::fcntl_setfd(&given, rustix::io::FdFlags::empty()).unwrap();
        let number = std::os::fd::IntoRawFd::into_raw_fd(given);
        let mut all = Inherited::collect().unwrap();
        let number = u32::try_from(number).unwrap();
        assert!(all.numbers().any(|one| one == number));
        assert!(all.take(u32::try_from(own.as_raw_fd()).unwrap()).is_none());
        let taken = all.take(number).unwrap();
        let flags = rustix::io::fcntl_getfd(&taken).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        assert!(all.take(number).is_none());
        // What cargo handed to the test is not ours to close.
        std::mem::forget(all);
        assert!(Inherited::collect().is_err());
    }
}
