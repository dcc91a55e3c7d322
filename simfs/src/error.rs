//! What can go wrong in a file operation. The one table from these to errno is `fuse/errno.rs`.

use std::io;

use crate::id::{HandleId, NodeId};

/// Result of a file operation.
pub type FsResult<T> = Result<T, FsError>;

/// Why a file operation failed. A refusal by quota is not a fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsError {
    /// The backing file system's own answer; passed on unchanged.
    #[error(transparent)]
    System(#[from] io::Error),
    /// An account is full.
    #[error(transparent)]
    Denied(#[from] quota::Denied),
    /// The kernel named an inode that is not known, or is gone.
    #[error("inode {0} is not known")]
    UnknownNode(NodeId),
    /// The kernel named an open file that is not known.
    #[error("open file {0} is not known")]
    UnknownHandle(HandleId),
    /// The operation is not offered here.
    #[error("not supported")]
    NotSupported,
    /// An ioctl that is not passed on.
    #[error("no such ioctl for this file")]
    NoSuchIoctl,
    /// The arguments cannot be right.
    #[error("invalid argument")]
    Invalid,
    /// The guest may not do this.
    #[error("not permitted")]
    NotPermitted,
    /// The buffer offered is too small for the value.
    #[error("result too large")]
    TooSmall,
}
