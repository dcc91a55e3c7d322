//! Looking at one name while others may change it. No locks.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::Detail;
use crate::private::PrivateArea;
use crate::sys::dirent::Entry;
use crate::sys::file;
use crate::sys::handle::KernelHandle;
use crate::sys::stat::{self, FileKind, Stat};

/// How often an entry is looked at again that changes its kind between two looks.
const PATIENCE: usize = 8;

/// What was found under a name.
pub(super) struct Found {
    /// Its attributes.
    pub(super) stat: Stat,
    /// Its handle, where asked for and known.
    pub(super) handle: Option<KernelHandle>,
    /// Open for reading, if it is a directory.
    pub(super) directory: Option<OwnedFd>,
}

/// Finds out what an entry stands for; `None` for what is gone or not of this area.
pub(super) fn find(
    area: &PrivateArea,
    detail: Detail,
    dir: BorrowedFd<'_>,
    entry: &Entry<'_>,
) -> io::Result<Option<Found>> {
    let mut kind = entry.kind;
    for _ in 0..PATIENCE {
        match look_at(area, detail, dir, entry.os_name(), kind) {
            Ok(Some(found)) => {
                return Ok(area.refuse_foreign(&found.stat).is_ok().then_some(found));
            }
            // It is of another kind than it was a moment ago.
            Ok(None) => kind = FileKind::Unknown,
            Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => kind = FileKind::Unknown,
            Err(error) if is_vanished(&error) || error.raw_os_error() == Some(libc::EXDEV) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    // Somebody keeps exchanging it: to a running check, which has to look again anyway, that is the same as gone.
    Ok(None)
}

/// One look at a name that should be of this kind; `None` or `ENOTDIR` where it is not.
fn look_at(
    area: &PrivateArea,
    detail: Detail,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    kind: FileKind,
) -> io::Result<Option<Found>> {
    let is_dir = match kind {
        FileKind::Unknown => stat::stat_at(dir, name)?.is_dir(),
        kind => kind == FileKind::Directory,
    };
    if !is_dir && detail == Detail::Stat {
        let stat = stat::stat_at(dir, name)?;
        return Ok((!stat.is_dir()).then_some(Found {
            stat,
            handle: None,
            directory: None,
        }));
    }
    let fd = if is_dir {
        file::open_at(
            dir,
            name,
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOATIME,
        )?
    } else {
        file::open_path_at(dir, name)?
    };
    let stat = stat::stat_fd(&fd)?;
    let handle = if detail == Detail::Handle {
        area.identify(&fd)?
    } else {
        None
    };
    let directory = is_dir.then_some(fd);
    Ok((stat.is_dir() == is_dir).then_some(Found {
        stat,
        handle,
        directory,
    }))
}

/// Whether somebody removed it meanwhile.
pub(super) fn is_vanished(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}
