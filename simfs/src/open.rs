//! How an inode is open: what its handles have in common for as long as there are any.
//!
//! Who decides on the mode is [`crate::fs::policy`].

mod backing;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use quota::Reservation;

use crate::shared::Deposit;

pub use backing::{Backing, BackingToken};

/// How the handles of one inode do their I/O. Of handles that may meet on one inode the greatest mode is the inode's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IoMode {
    /// Only writers, each request to the daemon, nothing cached.
    Direct,
    /// Reads and mappings go to the backing file in the kernel; writes to the daemon.
    Passthrough,
    /// Through the kernel's page cache for this mount; misses and writes to the daemon.
    Cached,
}

/// What a guest opened a file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// O_RDONLY, and execution.
    Read,
    /// O_WRONLY.
    Write,
    /// O_RDWR.
    ReadWrite,
}

impl Access {
    /// Reads the access mode of open(2) flags.
    pub fn from_flags(flags: i32) -> Self {
        match flags & libc::O_ACCMODE {
            libc::O_WRONLY => Self::Write,
            libc::O_RDWR => Self::ReadWrite,
            _ => Self::Read,
        }
    }

    /// Whether the handle can write.
    pub fn writes(self) -> bool {
        self != Self::Read
    }

    /// The open(2) flag.
    pub fn flag(self) -> i32 {
        match self {
            Self::Read => libc::O_RDONLY,
            Self::Write => libc::O_WRONLY,
            Self::ReadWrite => libc::O_RDWR,
        }
    }
}

/// The handles of one inode and what they have in common.
#[derive(Debug)]
pub struct OpenState {
    /// The common policy.
    pub mode: IoMode,
    /// How many handles.
    pub handles: u32,
    /// How many of them can write.
    pub writers: u32,
    /// Whether there was a writer since the inode was last unopened: then it may have got holes.
    pub written: bool,
    /// How many of them map the backing file for writing.
    pub mappers: u32,
    /// The id under which the kernel knows the backing file; the same for all handles.
    pub backing: Option<Arc<Backing>>,
    /// Whether space behind the end of the file may go with the close of a writer, whenever that comes.
    pub tail: bool,
    /// Whether the backing file system was asked for the first hole.
    pub is_surveyed: bool,
    /// Writes for its handles where a flag keeps the file from being opened again.
    pub spare: Option<Spare>,
    /// Space promised for holes that a mapping may fill unseen.
    pub holes: Option<Reservation>,
}

impl OpenState {
    /// No handle yet, in this mode.
    pub fn new(mode: IoMode) -> Self {
        Self {
            mode,
            handles: 0,
            writers: 0,
            written: false,
            mappers: 0,
            backing: None,
            tail: false,
            is_surveyed: false,
            spare: None,
            holes: None,
        }
    }

    /// Adds to what is promised for holes.
    pub fn promise(&mut self, holes: Option<Reservation>) {
        let Some(more) = holes else { return };
        match &mut self.holes {
            Some(held) => held.merge(more),
            None => self.holes = Some(more),
        }
    }
}

/// A descriptor for reading and writing, here and in the keeper.
#[derive(Debug)]
pub struct Spare {
    /// For the handles of a predecessor.
    pub fd: Arc<OwnedFd>,
    /// The keeper's.
    pub deposit: Deposit,
}
