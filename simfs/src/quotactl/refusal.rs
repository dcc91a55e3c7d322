//! Why a call is refused, and the one table from reasons to errno.

/// Why quotactl(2) fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Unknown type, command, version or valid bits, or an id that the caller's user namespace has no name for.
    Invalid,
    /// No filesystem of this VE on that device.
    NoDevice,
    /// The path names something that is no block device.
    NotBlockDevice,
    /// The path does not exist.
    NotFound,
    /// The path may not be searched.
    SearchDenied,
    /// The path is longer than the system allows.
    NameTooLong,
    /// The path runs in circles.
    TooManyLinks,
    /// A pointer of the caller.
    BadAddress,
    /// A descriptor number of the caller.
    BadDescriptor,
    /// A filesystem without quota, or a command that does not exist on this one.
    NotSupported,
    /// Something that this filesystem does not let anybody switch.
    CannotSwitch,
    /// The caller may not.
    NotPermitted,
    /// Quota of this type is off.
    QuotaOff,
    /// It is already in that state.
    AlreadySo,
    /// No account with this or a higher id.
    NoMoreAccounts,
    /// A number too large to be stored.
    OutOfRange,
    /// The caller's memory or path waits for somebody who does not answer.
    TooSlow,
    /// The quota record could not be read or written.
    Fault,
}

impl Refusal {
    /// The error number that the caller sees.
    ///
    /// # Source
    /// quotactl(2); Linux `fs/quota/quota.c`, `fs/quota/dquot.c`.
    pub const fn errno(self) -> i32 {
        match self {
            Self::Invalid => libc::EINVAL,
            Self::NoDevice => libc::ENODEV,
            Self::NotBlockDevice => libc::ENOTBLK,
            Self::NotFound | Self::NoMoreAccounts => libc::ENOENT,
            Self::SearchDenied => libc::EACCES,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::TooManyLinks => libc::ELOOP,
            Self::BadAddress => libc::EFAULT,
            Self::BadDescriptor => libc::EBADF,
            Self::NotSupported => libc::ENOSYS,
            Self::CannotSwitch => libc::EOPNOTSUPP,
            Self::NotPermitted => libc::EPERM,
            Self::QuotaOff => libc::ESRCH,
            Self::AlreadySo => libc::EEXIST,
            Self::OutOfRange => libc::ERANGE,
            Self::TooSlow => libc::EAGAIN,
            Self::Fault => libc::EIO,
        }
    }
}
