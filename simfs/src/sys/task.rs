//! A thread that waits in a system call, seen through /proc: its memory, its status, what its paths and descriptors
//! name.
//!
//! Invariants:
//! 1. Everything is reached through the directory /proc/TID opened once: it belongs to that thread for ever, a later
//!    thread with the same number is never seen.
//! 2. The memory is opened together with it: an execve(2) afterwards does not redirect reads and writes.
//! 3. Whether the number still meant the caller when both were opened, the owner of this value must ask the kernel
//!    afterwards (`NOTIF_ID_VALID`), before it trusts anything read here.
//!
//! # Source
//! proc_pid_mem(5), proc_pid_status(5), seccomp_unotify(2).

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};

use super::errand::{Errands, Found, Work};

/// Longest file below /proc/TID that is read: `status` with all 65536 groups stays below.
const FILE_MAX: u64 = 1 << 20;

/// A namespace: device and inode number of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NamespaceId {
    dev: u64,
    ino: u64,
}

impl NamespaceId {
    /// A namespace whose numbers were learnt earlier, see [`NamespaceId::numbers`].
    pub const fn new(dev: u64, ino: u64) -> Self {
        Self { dev, ino }
    }

    /// Device and inode number.
    pub const fn numbers(self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}

/// Device numbers, major and minor.
pub type DeviceNumber = (u32, u32);

/// A directory of one thread or process below /proc.
#[derive(Debug)]
pub struct Task {
    dir: OwnedFd,
}

impl Task {
    /// Opens /proc/TID in the given /proc.
    ///
    /// # Errors
    /// `ENOENT` if there is no such thread.
    pub fn open(proc: impl AsFd, tid: u32) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(proc, tid.to_string(), flags, Mode::empty())?;
        Ok(Self { dir })
    }

    /// Some process that lives in this user namespace.
    ///
    /// # Errors
    /// The system's; processes that end meanwhile are passed over.
    pub fn living_in(proc: impl AsFd, namespace: NamespaceId) -> io::Result<Option<Self>> {
        let proc = proc.as_fd();
        // `Dir::read_from` would open it with the flags that it has: O_PATH, which lists nothing.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listed = rustix::fs::openat(proc, ".", flags, Mode::empty())?;
        for entry in rustix::fs::Dir::new(listed)? {
            let name = entry?.file_name().to_str().ok().map(str::parse);
            let Some(Ok(number)) = name else { continue };
            let Ok(task) = Self::open(proc, number) else {
                continue;
            };
            if task.user_namespace().is_ok_and(|its| its == namespace) {
                return Ok(Some(task));
            }
        }
        Ok(None)
    }

    /// Opens the memory for reading and writing.
    ///
    /// # Errors
    /// `EACCES` without the right to trace the thread.
    pub fn memory(&self) -> io::Result<Memory> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        Ok(Memory {
            fd: rustix::fs::openat(&self.dir, "mem", flags, Mode::empty())?,
        })
    }

    /// One of the text files, for example `status` or `uid_map`. Bytes that are no text become replacement
    /// characters: a thread can give itself any name.
    ///
    /// # Errors
    /// `ESRCH` once the thread is gone; `InvalidData` if the file is longer than any kernel makes it.
    pub fn text(&self, name: &str) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.dir, name, flags, Mode::empty())?);
        let mut bytes = Vec::new();
        let length = file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
        if u64::try_from(length).is_ok_and(|length| length > FILE_MAX) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The user namespace.
    ///
    /// # Errors
    /// As [`Task::text`].
    pub fn user_namespace(&self) -> io::Result<NamespaceId> {
        let stat = rustix::fs::statat(&self.dir, "ns/user", AtFlags::empty())?;
        Ok(NamespaceId {
            dev: stat.st_dev,
            ino: stat.st_ino,
        })
    }

    /// The device number of the block device that a path names for this thread; `None` for any other kind of file.
    ///
    /// A relative path is looked up as if the working directory were its root: `..` does not leave it. The result is
    /// only ever compared with one number, so this costs at worst a refusal.
    ///
    /// # Errors
    /// Those of openat2(2); `TimedOut` and `EAGAIN` of [`Errands`].
    pub fn block_device(&self, errands: &Errands, path: &CStr) -> io::Result<Option<DeviceNumber>> {
        match errands.run(self.dir.as_fd(), Work::BlockDevice(path.to_owned()))? {
            (Found::Device(device), _) => Ok(device),
            (Found::Length(_), _) => Ok(None),
        }
    }

    /// The device number of the filesystem that an open descriptor of this thread lies on.
    ///
    /// # Errors
    /// `ENOENT` if the descriptor is not open.
    pub fn descriptor_device(&self, number: u32) -> io::Result<DeviceNumber> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, format!("fd/{number}"), flags, Mode::empty())?;
        let stat = statx_cached(&file, StatxFlags::empty())?;
        Ok((stat.stx_dev_major, stat.stx_dev_minor))
    }
}

/// [`Task::block_device`], in the process of an errand.
pub(super) fn block_device(
    dir: BorrowedFd<'_>,
    path: &CStr,
) -> rustix::io::Result<Option<DeviceNumber>> {
    let base = match path.to_bytes().first() {
        Some(b'/') => c"root",
        _ => c"cwd",
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let base = rustix::fs::openat(dir, base, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(base, path, flags, Mode::empty(), resolve)?;
    // The kind and the number of a node never change, so nothing needs to be asked from its filesystem.
    let stat = statx_cached(&file, StatxFlags::TYPE)?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.stx_mode.into());
    Ok(kind
        .is_block_device()
        .then_some((stat.stx_rdev_major, stat.stx_rdev_minor)))
}

/// What the kernel knows without asking the filesystem: a guest's own FUSE server could keep us waiting.
fn statx_cached(file: &OwnedFd, mask: StatxFlags) -> rustix::io::Result<rustix::fs::Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    rustix::fs::statx(file, c"", flags, mask)
}

/// The memory of a thread.
#[derive(Debug)]
pub struct Memory {
    fd: OwnedFd,
}

impl Memory {
    /// Fills the buffer from this address as far as memory is mapped; returns the number of bytes.
    ///
    /// # Errors
    /// `EIO` if nothing is mapped at the address; `TimedOut` and `EAGAIN` of [`Errands`].
    pub fn read(&self, errands: &Errands, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let work = Work::Read(address, vec![0; buffer.len()]);
        match errands.run(self.fd.as_fd(), work)? {
            (Found::Length(length), Work::Read(_, bytes)) => {
                buffer.copy_from_slice(&bytes);
                Ok(length)
            }
            _ => Ok(0),
        }
    }

    /// Writes as much as memory is mapped and writable; returns the number of bytes.
    ///
    /// # Errors
    /// `EIO` if nothing is mapped at the address; `TimedOut` and `EAGAIN` of [`Errands`]. What timed out may still be
    /// written later.
    pub fn write(&self, errands: &Errands, address: u64, bytes: &[u8]) -> io::Result<usize> {
        let work = Work::Write(address, bytes.to_vec());
        match errands.run(self.fd.as_fd(), work)? {
            (Found::Length(length), _) => Ok(length),
            (Found::Device(_), _) => Ok(0),
        }
    }
}
