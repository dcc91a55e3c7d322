//! What a request names: an inode, an open file, and who asks.

use std::fmt;

/// Number by which the kernel names an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// The root of the mount.
    pub const ROOT: Self = Self(1);

    /// Wraps a number that the kernel sent.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Number by which the kernel names an open file.
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

/// Who makes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user whom a new file will belong to.
    pub uid: u32,
    /// The group whom a new file will belong to.
    pub gid: u32,
    /// The thread, in the host's numbering; 0 where it cannot be seen.
    pub pid: u32,
}

impl Caller {
    /// Whether the request names its user: on a mount whose ids may be mapped, only one that makes a file does.
    pub const fn is_named(self) -> bool {
        self.uid != u32::MAX
    }
}
