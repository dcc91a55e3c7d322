//! `/proc/self/fd`: the way to calls that the kernel refuses on an O_PATH descriptor.
//!
//! A descriptor of the directory is held, so that it works after the process gave up its view of the host. Entries are
//! magic links: the kernel jumps to the very inode of the descriptor, symbolic links and unlinked files included,
//! and resolves no path.
//!
//! The directory belongs to the process that opened it. After a fork call [`prepare`] in the child, before its root
//! changes; a process that does not fork may leave it to the first use.
//!
//! No locks.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fs::{Mode, OFlags};
use smallvec::SmallVec;

/// The held directory, or a negative number. A descriptor that was stored is never closed.
static DIRECTORY: AtomicI32 = AtomicI32::new(-1);

/// Opens `/proc/self/fd` for the calling process, in place of what was held.
pub fn prepare() -> io::Result<()> {
    open_directory().map(drop)
}

fn open_directory() -> io::Result<BorrowedFd<'static>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let raw = rustix::fs::open("/proc/self/fd", flags, Mode::empty())?.into_raw_fd();
    DIRECTORY.store(raw, Ordering::Release);
    // SAFETY: `raw` was open a moment ago and, once stored, is never closed.
    Ok(unsafe { BorrowedFd::borrow_raw(raw) })
}

fn directory() -> io::Result<BorrowedFd<'static>> {
    let raw = DIRECTORY.load(Ordering::Acquire);
    if raw < 0 {
        return open_directory();
    }
    // SAFETY: the number came from `open_directory`, which stores open descriptors only; they are never closed.
    Ok(unsafe { BorrowedFd::borrow_raw(raw) })
}

/// The entry of one descriptor: the directory and the name in it.
pub struct Entry {
    directory: BorrowedFd<'static>,
    name: EntryName,
}

/// Decimal digits and a zero byte.
struct EntryName(SmallVec<[u8; 24]>);

impl std::fmt::Write for EntryName {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The entry of `fd`.
pub fn entry(fd: BorrowedFd<'_>) -> io::Result<Entry> {
    let mut name = EntryName(SmallVec::new());
    write!(name, "{}\0", fd.as_raw_fd()).map_err(io::Error::other)?;
    Ok(Entry {
        directory: directory()?,
        name,
    })
}

impl Entry {
    /// `/proc/self/fd`.
    pub fn dir(&self) -> BorrowedFd<'static> {
        self.directory
    }

    /// The name in it.
    pub fn name(&self) -> &std::ffi::CStr {
        std::ffi::CStr::from_bytes_until_nul(&self.name.0).unwrap_or_default()
    }
}
