//! Opening: beneath a directory, or again through a descriptor.
//!
//! Flags are those of open(2) as a request carries them; O_CLOEXEC is always added. No locks.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{name, proc_fd};

/// Opens the entry `name` of `dir`.
///
/// Never follows a symbolic link (`ELOOP`; with O_PATH the link itself is opened) and never crosses into another mount
/// (`EXDEV`).
///
/// # Source
/// openat2(2): RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV.
pub fn open_at(dir: impl AsFd, name: &OsStr, flags: i32) -> io::Result<OwnedFd> {
    beneath(
        dir,
        name,
        from_raw(flags).difference(OFlags::CREATE | OFlags::EXCL),
        Mode::empty(),
    )
}

/// Makes the regular file `name` in `dir` and opens it; `EEXIST` where the name is taken. The thread's umask applies.
///
/// Of `flags` the access mode counts, and what concerns the open file; see [`open_at`] for what is never done.
pub fn create_at(dir: impl AsFd, name: &OsStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let flags = from_raw(flags)
        .difference(OFlags::TRUNC | OFlags::PATH | OFlags::DIRECTORY | OFlags::TMPFILE);
    beneath(
        dir,
        name,
        flags | OFlags::CREATE | OFlags::EXCL,
        Mode::from_raw_mode(mode & 0o7777),
    )
}

/// An O_PATH descriptor of the entry itself, whatever it is.
pub fn open_path_at(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    beneath(dir, name, OFlags::PATH, Mode::empty())
}

fn beneath(dir: impl AsFd, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
    // openat2(2) refuses flags that go with O_PATH nowhere else ignored.
    let flags = if flags.contains(OFlags::PATH) {
        flags.difference(OFlags::NOCTTY)
    } else {
        flags
    };
    Ok(rustix::fs::openat2(
        dir,
        name::check(name)?,
        flags,
        mode,
        resolve,
    )?)
}

/// Opens the directory `dir` once more, for reading its entries; `dir` may be an O_PATH descriptor.
pub fn open_dir(dir: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, ".", READ_DIR, Mode::empty())?)
}

/// Opens the parent of a directory for reading its entries. The caller checks that it is the one expected: a
/// directory can be moved.
pub fn open_parent(dir: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, "..", READ_DIR, Mode::empty())?)
}

/// Opens a directory by a path of the host's administrator; symbolic links are followed.
pub fn open_dir_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, READ_DIR, Mode::empty())?)
}

const READ_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Opens the file behind a descriptor (O_PATH will do) once more, with other flags.
///
/// Flags that concern a name are dropped (O_NOFOLLOW, O_CREAT, O_EXCL), except with O_PATH, which duplicates. On a
/// symbolic link, other than with O_PATH: `ELOOP`.
pub fn reopen(file: impl AsFd, flags: i32) -> io::Result<OwnedFd> {
    let flags = from_raw(flags).difference(OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL)
        | OFlags::CLOEXEC;
    let entry = proc_fd::entry(file.as_fd())?;
    Ok(rustix::fs::openat(
        entry.dir(),
        entry.name(),
        flags,
        Mode::empty(),
    )?)
}

/// The flags of open(2) in the form of the wrappers; unknown bits are kept, for the kernel to judge.
pub(super) fn from_raw(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::stat::{FileKind, stat_at, stat_fd};
    use std::io::Write;

    #[test]
    fn links_are_not_followed_and_a_descriptor_reopens() {
        let area = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("f", area.path().join("l")).unwrap();
        std::fs::write(area.path().join("f"), b"abc").unwrap();
        let dir = open_dir_path(area.path()).unwrap();
        let refused = open_at(&dir, OsStr::new("l"), libc::O_RDONLY).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ELOOP));
        let link = open_path_at(&dir, OsStr::new("l")).unwrap();
        assert_eq!(
            reopen(&link, libc::O_RDONLY).unwrap_err().raw_os_error(),
            Some(libc::ELOOP)
        );
        let again = reopen(&link, libc::O_PATH | libc::O_NOFOLLOW).unwrap();
        assert_eq!(stat_fd(&again).unwrap().kind(), FileKind::Symlink);
        let path = open_path_at(&dir, OsStr::new("f")).unwrap();
        let mut file = std::fs::File::from(reopen(&path, libc::O_RDWR | libc::O_TRUNC).unwrap());
        file.write_all(b"x").unwrap();
        assert_eq!(std::fs::read(area.path().join("f")).unwrap(), b"x");
    }

    #[test]
    fn creation_takes_no_name_that_is_there() {
        let area = tempfile::tempdir().unwrap();
        let dir = open_dir_path(area.path()).unwrap();
        let name = OsStr::new("f");
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
        create_at(&dir, name, flags, libc::S_IFREG | 0o4600).unwrap();
        assert_eq!(stat_at(&dir, name).unwrap().permissions(), 0o4600);
        let twice = create_at(&dir, name, flags, 0o600).unwrap_err();
        assert_eq!(twice.raw_os_error(), Some(libc::EEXIST));
    }

    #[test]
    fn another_mount_is_not_entered() {
        let root = open_dir_path(Path::new("/")).unwrap();
        let refused = open_at(&root, OsStr::new("proc"), libc::O_RDONLY).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EXDEV));
    }
}
