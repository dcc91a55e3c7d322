//! The one table from errors to errno.

use fuser::Errno;

use crate::error::FsError;

/// What the guest sees.
pub fn errno(error: &FsError) -> Errno {
    match error {
        FsError::System(error) => match error.raw_os_error() {
            // The daemon's own limit: the guest would look for the cause in its own.
            Some(libc::EMFILE) => Errno::ENFILE,
            Some(errno) => Errno::from_i32(errno),
            None => Errno::EIO,
        },
        FsError::Denied(_) => Errno::EDQUOT,
        FsError::UnknownNode(_) => Errno::ESTALE,
        FsError::UnknownHandle(_) => Errno::EBADF,
        FsError::NotSupported => Errno::EOPNOTSUPP,
        FsError::NoSuchIoctl => Errno::ENOTTY,
        FsError::Invalid => Errno::EINVAL,
        FsError::NotPermitted => Errno::EPERM,
        FsError::TooSmall => Errno::ERANGE,
    }
}
