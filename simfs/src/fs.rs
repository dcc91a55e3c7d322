//! File operations on a private area, without any word of the transport.
//!
//! Each operation finds its nodes, has [`Accounting`] promise what it may take, does its system calls relative to
//! descriptors, and settles. The kernel in front serialises what changes one directory and what changes one inode's size
//! or owner (its inode lock); the states of the nodes, locked from promise to settlement, do so for the accounts.
//!
//! What is not here: permission checks. The kernel makes them (`default_permissions`), with the attributes that these
//! operations report.

mod absent;
pub mod adopt;
pub mod again;
mod allocate;
mod append;
pub mod attr;
mod close;
pub mod data;
pub mod dir;
mod forgets;
pub mod ioctl;
mod listings;
pub mod namespace;
mod pin;
pub mod policy;
#[cfg(test)]
mod random;
pub mod recount;
mod removed;
mod rename;
#[cfg(test)]
mod resting;
pub mod resume;
#[cfg(test)]
mod shortage;
pub mod spare;
#[cfg(test)]
pub(crate) mod testbed;
pub mod write;
pub mod xattr;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use quota::StatfsView;

use crate::accounting::{Accounting, Caller};
use crate::descriptors::Descriptors;
use crate::error::{FsError, FsResult};
use crate::handle::Handles;
use crate::host_faults::HostFaults;
use crate::keeper::Depository;
use crate::node::{Found, Node, NodeId, Nodes};
use crate::private::PrivateArea;
use crate::shared::{Flight, LeftForgets, Shared};
use crate::sys::creds::Identity;
use crate::sys::file;
use crate::sys::handle::KernelHandle;
use crate::sys::stat::{Stat, stat_at, stat_fd};

use absent::Absent;
use listings::Listings;
use removed::Removed;

/// `st_ino` of the root: what quota tools expect of the root of an ext4 file system.
pub const ROOT_INO: u64 = 2;

/// Choices made at mount.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Reads and mappings go to the backing file in the kernel.
    pub passthrough: bool,
    /// How many descriptors the process may have.
    pub open_files: usize,
}

/// What the kernel keeps of inodes, as far as it must be told.
pub trait KernelView: Send + Sync + std::fmt::Debug {
    /// The attributes of an inode changed otherwise than the kernel takes from the reply.
    fn forget_attributes(&self, id: NodeId);
}

/// A private area in service: the state that all operations share.
#[derive(Debug)]
pub struct Fs {
    area: Arc<PrivateArea>,
    nodes: Arc<Nodes>,
    files: Handles,
    listings: Listings,
    removed: Removed,
    accounting: Accounting,
    /// Set once the kernel has agreed to it.
    passthrough: AtomicBool,
    faults: HostFaults,
    descriptors: Descriptors,
    /// Set before the first request is served.
    kernel: OnceLock<Arc<dyn KernelView>>,
    absent: Absent,
    /// What predecessors left of orders to forget; a leaf lock.
    forgets: Mutex<Vec<LeftForgets>>,
    /// What a successor needs.
    shared: Arc<Shared>,
    depository: Arc<dyn Depository>,
}

/// A request: who asks, and the note of it for a successor.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Who asks.
    pub caller: Caller,
    /// The note.
    pub flight: &'a Flight<'a>,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The directory.
    pub parent: NodeId,
    /// The name.
    pub name: &'a OsStr,
}

/// An inode and what it looked like when it was found.
#[derive(Debug)]
pub struct Entry {
    /// The node, with one lookup more for the kernel.
    pub node: Arc<Node>,
    /// Its attributes.
    pub stat: Stat,
}

impl Fs {
    /// Puts a private area into service. `nodes` use the same memory; descriptors that must outlive the daemon go to the
    /// depository.
    pub fn new(
        area: Arc<PrivateArea>,
        nodes: Arc<Nodes>,
        accounting: Accounting,
        settings: Settings,
        shared: Arc<Shared>,
        depository: Arc<dyn Depository>,
    ) -> Self {
        Self {
            area,
            nodes,
            files: Handles::new(shared.clone()),
            listings: Listings::default(),
            removed: Removed::default(),
            accounting,
            passthrough: AtomicBool::new(settings.passthrough),
            faults: HostFaults::default(),
            descriptors: Descriptors::new(settings.open_files),
            kernel: OnceLock::new(),
            absent: Absent::default(),
            forgets: Mutex::default(),
            shared,
            depository,
        }
    }

    /// Names the kernel that keeps attributes; the first one counts.
    pub fn serve_kernel(&self, kernel: Arc<dyn KernelView>) {
        let _one_kernel_per_mount = self.kernel.set(kernel);
    }

    /// Attributes that the kernel keeps of this inode are wrong from now on, and no reply corrects them: it takes length
    /// and times for changed after a write, but neither the mode nor what an ioctl changes.
    pub fn forget_attributes(&self, id: NodeId) {
        if let Some(kernel) = self.kernel.get() {
            kernel.forget_attributes(id);
        }
    }

    /// The seam to quota.
    pub fn accounting(&self) -> &Accounting {
        &self.accounting
    }

    /// What the private area failed with.
    pub fn faults(&self) -> &HostFaults {
        &self.faults
    }

    /// An operation of the guest ends with this error.
    pub fn note_error(&self, error: &FsError) {
        if self.faults.note(error) {
            self.accounting.hurry();
        }
    }

    /// What a successor needs.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The inodes that the kernel knows.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// How many files are open.
    pub fn open_count(&self) -> usize {
        self.files.len()
    }

    /// The number that `st_ino` shows.
    pub fn shown_ino(id: NodeId) -> u64 {
        if id == NodeId::ROOT {
            ROOT_INO
        } else {
            id.get()
        }
    }

    /// What statfs(2) on the mount shows.
    ///
    /// # Errors
    /// The backing file system's own.
    pub fn statfs(&self) -> FsResult<StatfsView> {
        let host = self.area.statfs()?;
        Ok(self.accounting.engine().statfs(host))
    }

    /// Whether reads may pass the daemon by.
    pub fn has_passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Acquire)
    }

    /// What came of the wish for passthrough.
    pub fn set_passthrough(&self, available: bool) {
        self.passthrough.store(available, Ordering::Release);
    }

    /// Promises that cannot be kept on this host, in words.
    pub fn degraded(&self) -> Vec<String> {
        let mut degraded = Vec::new();
        if !self.area.has_handles() {
            degraded.push("the backing file system has no file handles: a descriptor is held for each known inode".into());
        }
        if !self.area.is_detached() {
            degraded.push("the private area's mount could not be cloned: submounts and access times are the host's".into());
        }
        degraded.extend(self.faults.present());
        degraded
    }

    /// Before a guest opens something.
    fn check_descriptors(&self) -> io::Result<()> {
        self.descriptors.check(self.area.root_fd())
    }

    /// The connection is gone: what the guest still had open is closed.
    pub fn close_all(&self) {
        for handle in self.files.ids() {
            let _ = self.release(handle);
        }
    }

    /// Finds a name in a directory.
    fn find(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Found> {
        if !self.area.has_handles() {
            return self.hold(file::open_path_at(dir, name)?);
        }
        let stat = stat_at(dir, name)?;
        self.area.refuse_foreign(&stat)?;
        let handle = KernelHandle::of_name(dir, name)?;
        Ok(Found {
            stat,
            handle: Some(handle),
            held: None,
        })
    }

    /// Identifies an open file.
    fn identify(&self, fd: BorrowedFd<'_>) -> io::Result<Found> {
        if !self.area.has_handles() {
            return self.hold(file::reopen(fd, libc::O_PATH)?);
        }
        let stat = stat_fd(fd)?;
        let handle = KernelHandle::of_fd(fd)?;
        Ok(Found {
            stat,
            handle: Some(handle),
            held: None,
        })
    }

    fn hold(&self, fd: OwnedFd) -> io::Result<Found> {
        let stat = stat_fd(fd.as_fd())?;
        self.area.refuse_foreign(&stat)?;
        Ok(Found {
            stat,
            handle: None,
            held: Some(Arc::new(fd)),
        })
    }

    /// Takes on the caller's identity for the creation of a file.
    fn identity(caller: Caller, umask: Option<u32>) -> io::Result<Identity> {
        Identity::assume(caller.uid, caller.gid, umask)
    }
}
