//! Extended attributes of an inode behind any descriptor, O_PATH included.
//!
//! The kernel refuses them on an O_PATH descriptor, so the inode is named through its entry in `/proc/self/fd`: symbolic
//! links, devices and fifos are reached without being opened. Linux 6.13 and later take a directory descriptor
//! (setxattrat(2) and the like); before, the path `/proc/self/fd/N` must be visible to the process.
//!
//! No locks.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use smallvec::SmallVec;

pub use rustix::fs::XattrFlags;

use super::proc_fd;

/// The longest value and the longest list of names that Linux knows, bytes.
pub const SIZE_MAX: usize = 65536;

// The same numbers on every architecture.
const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

/// `struct xattr_args`.
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// Set once the kernel has shown that it lacks the calls with a directory descriptor.
static NO_XATTRAT: AtomicBool = AtomicBool::new(false);

/// The longest name that Linux knows, bytes.
const NAME_MAX: usize = 255;

/// A name with its zero byte.
struct Name(SmallVec<[u8; NAME_MAX + 1]>);

impl Name {
    /// `ERANGE` for an empty or too long name, as the kernel says it; `EINVAL` for one with a zero byte.
    fn new(name: &OsStr) -> io::Result<Self> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() > NAME_MAX {
            return Err(io::Error::from_raw_os_error(libc::ERANGE));
        }
        if bytes.contains(&0) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut terminated = SmallVec::from_slice(bytes);
        terminated.push(0);
        Ok(Self(terminated))
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// Reads a value into `buffer`; returns its length. An empty buffer asks for the length alone.
///
/// `ENODATA` where there is none, `ERANGE` where the buffer is too small, `EOPNOTSUPP` where the namespace is unknown.
pub fn get(file: impl AsFd, name: &OsStr, buffer: &mut [u8]) -> io::Result<usize> {
    let file = file.as_fd();
    let entry = proc_fd::entry(file)?;
    let name = Name::new(name)?;
    let name = name.as_c_str();
    let args = XattrArgs {
        value: address(buffer.as_mut_ptr()),
        size: length(buffer)?,
        flags: 0,
    };
    modern_or(
        // SAFETY: both names end in a zero byte; `args` names `buffer`, which is writable for the length given.
        || unsafe {
            let (dir, path) = (entry.dir().as_raw_fd(), entry.name().as_ptr());
            libc::syscall(
                SYS_GETXATTRAT,
                dir,
                path,
                0,
                name.as_ptr(),
                &raw const args,
                size_of::<XattrArgs>(),
            )
        },
        || {
            let path = old_path(file);
            if buffer.is_empty() {
                return Ok(rustix::fs::getxattr_query(path.as_str(), name)?);
            }
            Ok(rustix::fs::getxattr(path.as_str(), name, &mut *buffer)?)
        },
    )
}

/// Sets a value; `flags` as in setxattr(2): create only, replace only.
pub fn set(file: impl AsFd, name: &OsStr, value: &[u8], flags: XattrFlags) -> io::Result<()> {
    let file = file.as_fd();
    let entry = proc_fd::entry(file)?;
    let name = Name::new(name)?;
    let name = name.as_c_str();
    let args = XattrArgs {
        value: address(value.as_ptr()),
        size: length(value)?,
        flags: flags.bits(),
    };
    modern_or(
        // SAFETY: both names end in a zero byte; `args` names `value`, which the kernel only reads.
        || unsafe {
            let (dir, path) = (entry.dir().as_raw_fd(), entry.name().as_ptr());
            libc::syscall(
                SYS_SETXATTRAT,
                dir,
                path,
                0,
                name.as_ptr(),
                &raw const args,
                size_of::<XattrArgs>(),
            )
        },
        || {
            rustix::fs::setxattr(old_path(file).as_str(), name, value, flags)
                .map(|()| 0)
                .map_err(Into::into)
        },
    )
    .map(drop)
}

/// Reads the names, each ending in a zero byte, into `buffer`; returns their length. An empty buffer asks for the
/// length alone.
pub fn list(file: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let file = file.as_fd();
    let entry = proc_fd::entry(file)?;
    let (start, length) = (buffer.as_mut_ptr(), buffer.len());
    modern_or(
        // SAFETY: the name ends in a zero byte; the buffer is writable for the length given.
        || unsafe {
            let (dir, path) = (entry.dir().as_raw_fd(), entry.name().as_ptr());
            libc::syscall(SYS_LISTXATTRAT, dir, path, 0, start, length)
        },
        || {
            let path = old_path(file);
            if buffer.is_empty() {
                return Ok(rustix::fs::listxattr_query(path.as_str())?);
            }
            Ok(rustix::fs::listxattr(path.as_str(), &mut *buffer)?)
        },
    )
}

/// Removes an attribute; `ENODATA` where there is none.
pub fn remove(file: impl AsFd, name: &OsStr) -> io::Result<()> {
    let file = file.as_fd();
    let entry = proc_fd::entry(file)?;
    let name = Name::new(name)?;
    let name = name.as_c_str();
    modern_or(
        // SAFETY: both names end in a zero byte.
        || unsafe {
            let (dir, path) = (entry.dir().as_raw_fd(), entry.name().as_ptr());
            libc::syscall(SYS_REMOVEXATTRAT, dir, path, 0, name.as_ptr())
        },
        || {
            rustix::fs::removexattr(old_path(file).as_str(), name)
                .map(|()| 0)
                .map_err(Into::into)
        },
    )
    .map(drop)
}

/// Whether what is made in this directory inherits an access list. "No" also where the filesystem has none.
pub fn has_default_acl(dir: impl AsFd) -> bool {
    get(dir, OsStr::new("system.posix_acl_default"), &mut []).is_ok()
}

/// Runs the call with a directory descriptor, or the older one where the kernel lacks it.
fn modern_or(
    modern: impl FnOnce() -> libc::c_long,
    old: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    if !NO_XATTRAT.load(Ordering::Relaxed) {
        match usize::try_from(modern()) {
            Ok(length) => return Ok(length),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.raw_os_error() != Some(libc::ENOSYS) {
                    return Err(error);
                }
                NO_XATTRAT.store(true, Ordering::Relaxed);
            }
        }
    }
    old()
}

fn old_path(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.addr()).unwrap_or(0)
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::{mknod_at, open_dir_path, open_path_at, symlink_at};
    use std::sync::Mutex;

    /// Tests change `NO_XATTRAT`, which all of them read.
    static ORDER: Mutex<()> = Mutex::new(());

    fn round_trip(dir: impl AsFd, entry: &str) {
        let file = &open_path_at(dir, OsStr::new(entry)).unwrap();
        let key = OsStr::new("trusted.simfs-test");
        let mut buffer = [0; 64];
        assert_eq!(
            get(file, key, &mut buffer).unwrap_err().raw_os_error(),
            Some(libc::ENODATA),
            "{entry}"
        );
        set(file, key, b"value", XattrFlags::CREATE).unwrap();
        let twice = set(file, key, b"other", XattrFlags::CREATE).unwrap_err();
        assert_eq!(twice.raw_os_error(), Some(libc::EEXIST));
        assert_eq!(get(file, key, &mut []).unwrap(), 5);
        assert_eq!(
            get(file, key, &mut buffer[..2]).unwrap_err().raw_os_error(),
            Some(libc::ERANGE)
        );
        let length = get(file, key, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"value");
        let length = list(file, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"trusted.simfs-test\0");
        assert_eq!(list(file, &mut []).unwrap(), length);
        remove(file, key).unwrap();
        assert_eq!(list(file, &mut buffer).unwrap(), 0);
    }

    fn every_kind() {
        let area = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = &open_dir_path(area.path()).unwrap();
        symlink_at(OsStr::new("/nowhere"), dir, OsStr::new("link")).unwrap();
        for (entry, kind) in [
            ("file", libc::S_IFREG),
            ("fifo", libc::S_IFIFO),
            ("socket", libc::S_IFSOCK),
            ("device", libc::S_IFCHR),
        ] {
            // Device 0:0 has no driver: opening it would fail.
            mknod_at(dir, OsStr::new(entry), kind, 0).unwrap();
            round_trip(dir, entry);
        }
        round_trip(dir, "link");
    }

    #[test]
    fn every_kind_of_file_without_opening_it() {
        let _order = ORDER
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        every_kind();
    }

    #[test]
    fn every_kind_of_file_on_an_older_kernel() {
        let _order = ORDER
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        NO_XATTRAT.store(true, Ordering::Relaxed);
        let done = std::panic::catch_unwind(every_kind);
        NO_XATTRAT.store(false, Ordering::Relaxed);
        done.unwrap();
    }

    #[test]
    fn a_default_acl_is_seen() {
        let _order = ORDER
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let area = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = open_dir_path(area.path()).unwrap();
        assert!(!has_default_acl(&dir));
        // Version 2, then owner, group and others with rwx: tag u16, permissions u16, id u32.
        let mut list = vec![2, 0, 0, 0];
        for tag in [0x01, 0x04, 0x20] {
            list.extend([tag, 0, 7, 0, 255, 255, 255, 255]);
        }
        set(
            &dir,
            OsStr::new("system.posix_acl_default"),
            &list,
            XattrFlags::empty(),
        )
        .unwrap();
        assert!(has_default_acl(&dir));
    }

    #[test]
    fn impossible_names_are_refused() {
        let file = tempfile::tempfile().unwrap();
        let long = format!("user.{}", "x".repeat(NAME_MAX));
        for (name, errno) in [
            ("", libc::ERANGE),
            (long.as_str(), libc::ERANGE),
            ("user.a\0b", libc::EINVAL),
        ] {
            let error = get(&file, OsStr::new(name), &mut []).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno), "{name:?}");
        }
    }
}
