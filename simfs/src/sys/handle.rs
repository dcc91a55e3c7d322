//! Kernel file handles: name an inode so that it can be opened later without a path.
//!
//! A handle is valid on its filesystem as a whole, not only in a private area: handles come from
//! [`KernelHandle::of_fd`], [`KernelHandle::of_name`] and from our own records, never from a guest. No locks.

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use smallvec::SmallVec;

use super::name::{self, NAME_MAX};

/// The longest handle that is kept; every common filesystem stays below.
pub const HANDLE_MAX: usize = 40;

/// Where the kernel expects a handle: its header, then the bytes.
#[repr(C)]
struct RawHandle {
    length: u32,
    handle_type: i32,
    bytes: [u8; HANDLE_MAX],
}

/// The blob of name_to_handle_at(2).
///
/// Invariant: bytes behind the length are zero, so that equality and hash may look at all of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KernelHandle {
    handle_type: i32,
    length: u8,
    bytes: [u8; HANDLE_MAX],
}

impl fmt::Debug for KernelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "KernelHandle({}:{:02x?})",
            self.handle_type,
            self.bytes()
        )
    }
}

impl KernelHandle {
    /// Puts a recorded handle together again; `None` where it is empty or longer than [`HANDLE_MAX`].
    pub fn from_parts(handle_type: i32, bytes: &[u8]) -> Option<Self> {
        let length = u8::try_from(bytes.len())
            .ok()
            .filter(|&length| length > 0)?;
        let mut inline = [0; HANDLE_MAX];
        inline.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self {
            handle_type,
            length,
            bytes: inline,
        })
    }

    /// The handle of the inode behind a descriptor; O_PATH will do.
    ///
    /// `EOPNOTSUPP` where the filesystem has none, `EOVERFLOW` where it is longer than [`HANDLE_MAX`].
    pub fn of_fd(fd: impl AsFd) -> io::Result<Self> {
        Self::of(fd.as_fd(), c"", libc::AT_EMPTY_PATH)
    }

    /// The handle of an entry of a directory: of a symbolic link itself.
    pub fn of_name(dir: impl AsFd, name: &OsStr) -> io::Result<Self> {
        let name = name::check(name)?.as_bytes();
        let mut terminated: SmallVec<[u8; NAME_MAX + 1]> = SmallVec::from_slice(name);
        terminated.push(0);
        let name = CStr::from_bytes_with_nul(&terminated).map_err(io::Error::other)?;
        Self::of(dir.as_fd(), name, 0)
    }

    fn of(fd: BorrowedFd<'_>, path: &CStr, flags: libc::c_int) -> io::Result<Self> {
        let mut raw = RawHandle {
            length: 0,
            handle_type: 0,
            bytes: [0; HANDLE_MAX],
        };
        raw.length = u32::try_from(HANDLE_MAX).map_err(io::Error::other)?;
        let mut mount: libc::c_int = 0;
        // SAFETY: the path ends in a zero byte; `raw` is laid out as struct file_handle with room for
        // `length` bytes behind the header, and both it and `mount` outlive the call.
        let result = unsafe {
            libc::name_to_handle_at(
                fd.as_raw_fd(),
                path.as_ptr(),
                (&raw mut raw).cast::<libc::file_handle>(),
                &raw mut mount,
                flags,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let refused = || io::Error::from_raw_os_error(libc::EOVERFLOW);
        let length = usize::try_from(raw.length).map_err(io::Error::other)?;
        let bytes = raw.bytes.get(..length).ok_or_else(refused)?;
        Self::from_parts(raw.handle_type, bytes).ok_or_else(refused)
    }

    /// Opens the inode. `mount` is any descriptor on its mount, but not an O_PATH one.
    ///
    /// `ESTALE` where the inode is gone. Needs CAP_DAC_READ_SEARCH.
    pub fn open(&self, mount: impl AsFd, flags: i32) -> io::Result<OwnedFd> {
        let mut raw = RawHandle {
            length: self.length.into(),
            handle_type: self.handle_type,
            bytes: self.bytes,
        };
        let (mount, flags) = (mount.as_fd(), flags | libc::O_CLOEXEC);
        // SAFETY: `raw` is laid out as struct file_handle, holds `length` bytes behind the header, and
        // outlives the call.
        let fd = unsafe {
            libc::open_by_handle_at(
                mount.as_raw_fd(),
                (&raw mut raw).cast::<libc::file_handle>(),
                flags,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The filesystem's own mark for the shape of the bytes.
    pub fn handle_type(&self) -> i32 {
        self.handle_type
    }

    /// The bytes, 1 to [`HANDLE_MAX`].
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length.into()).unwrap_or_default()
    }

    /// A number that differs, in all likelihood, between two inodes that had the same inode number in turn: the CRC-32
    /// of the bytes, which hold the filesystem's own generation.
    pub fn generation(&self) -> u32 {
        crc32fast::hash(self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::open_dir_path;
    use crate::sys::stat;

    #[test]
    fn a_handle_leads_back_to_its_inode_until_it_is_gone() {
        let area = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = area.path().join("f");
        std::fs::write(&path, b"abc").unwrap();
        let dir = open_dir_path(area.path()).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let handle = KernelHandle::of_fd(&file).unwrap();
        assert_eq!(
            KernelHandle::from_parts(handle.handle_type(), handle.bytes()),
            Some(handle)
        );
        assert_eq!(
            KernelHandle::of_name(&dir, OsStr::new("f")).unwrap(),
            handle
        );
        assert_ne!(
            handle.generation(),
            KernelHandle::of_fd(&dir).unwrap().generation()
        );
        let again = handle.open(&dir, libc::O_PATH).unwrap();
        assert_eq!(
            stat::stat_fd(&again).unwrap().ino,
            stat::stat_fd(&file).unwrap().ino
        );
        drop((again, file));
        std::fs::remove_file(&path).unwrap();
        let gone = handle.open(&dir, libc::O_PATH).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESTALE));
    }

    #[test]
    fn impossible_records_are_refused() {
        assert_eq!(KernelHandle::from_parts(1, &[]), None);
        assert_eq!(KernelHandle::from_parts(1, &[0; HANDLE_MAX + 1]), None);
        assert!(KernelHandle::from_parts(1, &[0; HANDLE_MAX]).is_some());
    }

    #[test]
    fn handles_without_support_say_so() {
        let proc_dir = open_dir_path(std::path::Path::new("/proc")).unwrap();
        let error = KernelHandle::of_fd(&proc_dir).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}
