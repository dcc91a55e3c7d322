//! Open files and directories by the number that the kernel was given.
//!
//! Numbers count up and are never reused while the mount lives, so a late request names nothing else. A file that is
//! read by passthrough needs no descriptor here; one is opened on first use.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::error::{FsError, FsResult};
use crate::fs::policy::Access;
use crate::node::Node;
use crate::sys::dirent::DirStream;

/// Number by which the kernel names an open file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(u64);

impl HandleId {
    /// Wraps a number that the kernel sent.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for HandleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An open file.
#[derive(Debug)]
pub struct OpenFile {
    /// What is open.
    pub node: Arc<Node>,
    /// What for.
    pub access: Access,
    /// Whether its writes pass the kernel's cache by.
    pub direct: bool,
    /// Whether a mapping of it stores into the backing file unseen.
    pub maps_backing: bool,
    /// Opened on first use.
    pub fd: Mutex<Option<Arc<OwnedFd>>>,
}

/// An open directory: one stream of the backing directory.
#[derive(Debug)]
pub struct OpenDir {
    /// What is open.
    pub node: Arc<Node>,
    /// `None` for a directory that was removed.
    pub stream: Option<Mutex<DirStream>>,
}

/// All that the guest has open, of one kind.
#[derive(Debug)]
pub struct Handles<T> {
    next: AtomicU64,
    table: DashMap<HandleId, Arc<T>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(1),
            table: DashMap::new(),
        }
    }
}

impl<T> Handles<T> {
    /// Adds an open file; its number is new.
    pub fn insert(&self, open: T) -> HandleId {
        let id = HandleId(self.next.fetch_add(1, Ordering::Relaxed));
        self.table.insert(id, Arc::new(open));
        id
    }

    /// What a number stands for.
    ///
    /// # Errors
    /// [`FsError::UnknownHandle`] for a number that is not open.
    pub fn get(&self, id: HandleId) -> FsResult<Arc<T>> {
        match self.table.get(&id) {
            Some(open) => Ok(open.clone()),
            None => Err(FsError::UnknownHandle(id)),
        }
    }

    /// Takes a number out of use.
    pub fn remove(&self, id: HandleId) -> Option<Arc<T>> {
        self.table.remove(&id).map(|(_, open)| open)
    }

    /// The numbers that are in use.
    pub fn ids(&self) -> Vec<HandleId> {
        self.table.iter().map(|entry| *entry.key()).collect()
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}
