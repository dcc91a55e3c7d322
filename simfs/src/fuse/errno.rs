//! The one table from errors to errno.

use fuser::Errno;

use crate::error::FsError;

/// What the guest sees.
pub fn errno(error: &FsError) -> Errno {
    match error {
        FsError::System(error) => Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO)),
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
