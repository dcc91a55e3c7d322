//! Names in a directory: make, link, rename, remove.
//!
//! Every function takes a directory descriptor (O_PATH will do) and single components. No locks.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode};

pub use rustix::fs::RenameFlags;

use super::stat;

/// The longest name that any call here accepts, in bytes.
pub const NAME_MAX: usize = 255;

/// Refuses what is not one plain component: empty, `.`, `..`, with a slash or a zero byte (`EINVAL`), or longer than
/// [`NAME_MAX`] (`ENAMETOOLONG`).
pub fn check(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    if bytes.len() > NAME_MAX {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    let plain = !bytes.is_empty()
        && bytes != b"."
        && bytes != b".."
        && !bytes.contains(&b'/')
        && !bytes.contains(&0);
    if plain {
        Ok(name)
    } else {
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
}

/// Makes a directory; the thread's umask applies.
pub fn mkdir_at(dir: impl AsFd, name: &OsStr, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(
        dir,
        check(name)?,
        Mode::from_raw_mode(mode),
    )?)
}

/// Makes an empty file, fifo, socket or device, as the kind in `mode` says; the thread's umask applies.
pub fn mknod_at(dir: impl AsFd, name: &OsStr, mode: u32, device: u64) -> io::Result<()> {
    let (kind, mode) = (FileType::from_raw_mode(mode), Mode::from_raw_mode(mode));
    Ok(rustix::fs::mknodat(dir, check(name)?, kind, mode, device)?)
}

/// Makes a symbolic link; the target is stored as it is, never looked at.
pub fn symlink_at(target: &OsStr, dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(target, dir, check(name)?)?)
}

/// Gives the inode behind `file` (O_PATH will do; a symbolic link itself, not its target) one more name.
///
/// Needs CAP_DAC_READ_SEARCH; `ENOENT` where the inode has lost its last name.
pub fn link_fd(file: impl AsFd, dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::linkat(
        file,
        "",
        dir,
        check(name)?,
        AtFlags::EMPTY_PATH,
    )?)
}

/// Renames; `flags` as in renameat2(2).
pub fn rename_at(
    from_dir: impl AsFd,
    from: &OsStr,
    to_dir: impl AsFd,
    to: &OsStr,
    flags: RenameFlags,
) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(
        from_dir,
        check(from)?,
        to_dir,
        check(to)?,
        flags,
    )?)
}

/// Removes the name of an empty directory, or of anything else.
pub fn unlink_at(dir: impl AsFd, name: &OsStr, directory: bool) -> io::Result<()> {
    let flags = if directory {
        AtFlags::REMOVEDIR
    } else {
        AtFlags::empty()
    };
    Ok(rustix::fs::unlinkat(dir, check(name)?, flags)?)
}

/// Whether the name is there, whatever it stands for.
pub fn exists_at(dir: impl AsFd, name: &OsStr) -> bool {
    stat::stat_at(dir, name).is_ok()
}

/// The target of the symbolic link behind an O_PATH descriptor.
pub fn read_link(link: impl AsFd) -> io::Result<CString> {
    Ok(rustix::fs::readlinkat(link, "", Vec::new())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::{open_dir_path, open_path_at};

    #[test]
    fn only_single_components_pass() {
        for bad in ["", ".", "..", "a/b", "/", "a\0b"] {
            let error = check(OsStr::new(bad)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{bad:?}");
        }
        let long = "x".repeat(NAME_MAX + 1);
        assert_eq!(
            check(OsStr::new(&long)).unwrap_err().raw_os_error(),
            Some(libc::ENAMETOOLONG)
        );
        for good in ["a", "...", "..a", "x".repeat(NAME_MAX).as_str()] {
            assert!(check(OsStr::new(good)).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn names_are_made_linked_moved_and_removed() {
        let area = tempfile::tempdir().unwrap();
        let dir = &open_dir_path(area.path()).unwrap();
        let n = OsStr::new;
        mkdir_at(dir, n("d"), 0o700).unwrap();
        mknod_at(dir, n("p"), libc::S_IFIFO | 0o400, 0).unwrap();
        symlink_at(n("no/where"), dir, n("l")).unwrap();
        let link = open_path_at(dir, n("l")).unwrap();
        assert_eq!(read_link(&link).unwrap().as_bytes(), b"no/where");
        link_fd(&link, dir, n("l2")).unwrap();
        assert_eq!(stat::stat_at(dir, n("l2")).unwrap().nlink, 2);
        rename_at(dir, n("p"), dir, n("q"), RenameFlags::NOREPLACE).unwrap();
        assert!(exists_at(dir, n("q")) && !exists_at(dir, n("p")));
        let refused = rename_at(dir, n("q"), dir, n("l"), RenameFlags::NOREPLACE).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EEXIST));
        for (name, directory) in [("q", false), ("l", false), ("l2", false), ("d", true)] {
            unlink_at(dir, n(name), directory).unwrap();
        }
        assert_eq!(std::fs::read_dir(area.path()).unwrap().count(), 0);
        assert_eq!(
            unlink_at(dir, n("../x"), false).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
    }
}
