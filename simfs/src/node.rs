//! Inodes that the kernel knows: node id <-> file underneath, with what the totals hold for each.
//!
//! Of each node but the root there is a record in [`crate::shared`]; it has the lookups. A successor process finds the
//! records dormant and makes the node when the kernel first names it ([`Nodes::get`]). Where many inodes are known, nodes that
//! nobody asks for go, and leave their records dormant: millions of known inodes take memory for a record each.
//!
//! A node id is the inode number underneath (the root's is 1), so that it means the same to a successor process
//! and `st_ino` is stable over remounts. A file is reached by its kernel file handle; descriptors are a bounded cache
//! above that, so that millions of known inodes need no descriptors.
//!
//! Invariants:
//! 1. A node stays in the table while the kernel holds lookups on it, or while its usage may still change by itself
//!    (see [`crate::accounting::late`]).
//! 2. An inode number that was reused takes over the lookups of its predecessor: the kernel's FORGETs name only the
//!    number, so only their sum is known. The table entry goes when the sum is zero.
//! 3. [`State::charged`] is what the accounts hold for the inode; it changes only with the state locked.
//! 4. An inode without a name is kept by a descriptor here ([`State::pin`]) as long as it is open, and no longer; a few removed
//!    directories as long as the kernel knows them ([`crate::fs`], `removed`).
//!
//! Lock order: `Node::state` of two nodes is taken in the order of their ids; then the quota engine's own locks. A shard
//! of the table or of the descriptor cache is never held while a node's state is being locked. The records' own locks
//! come last.

mod table;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use quota::{Charged, InodeId, Owner, Reservation, Watch};

use crate::open::OpenState;
use crate::shared::{Claim, Deposit, NodeRecord, Slot};
use crate::sys::handle::KernelHandle;
use crate::sys::stat::{FileKind, Stat};

pub use crate::id::NodeId;
pub use table::Nodes;

/// Whether an inode still has a name.
#[derive(Debug)]
pub enum Presence {
    /// It has a name.
    Linked,
    /// Its last name is gone, but it is open.
    Unlinked,
    /// It is gone; these are its last attributes, for those who still stand in it.
    Gone(Box<Stat>),
}

/// What changes over the life of a node.
#[derive(Debug)]
pub struct State {
    /// What the accounts hold for this inode; `None` once it is gone.
    pub charged: Option<Charged>,
    /// Whether it has a name.
    pub presence: Presence,
    /// Handles and their common I/O mode; `None` while nobody has it open.
    pub open: Option<Box<OpenState>>,
    /// Keeps an inode without a name in being while it is open, and the number of a removed directory from being used again.
    pub pin: Option<Arc<OwnedFd>>,
    /// The keeper's descriptor of the same, for a successor.
    pub deposit: Option<Deposit>,
    /// Space promised for metadata that the backing file system has not allocated yet.
    pub promised: Option<Box<Reservation>>,
    /// Bytes written since the allocation was last known to be final.
    pub unsettled: u64,
    /// Whether the node is in the queue of late looks.
    pub queued: bool,
    /// Has the journal name the inode as long as its usage may change without a request that says so.
    pub watch: Option<Box<Watch>>,
    /// What a directory looked like after the last change of its names: the kernel asks for that at once. Told once; gone
    /// with whatever else changes an attribute.
    pub fresh: Option<Box<Stat>>,
}

/// One inode.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    ino: u64,
    kind: FileKind,
    handle: Option<KernelHandle>,
    /// Holds the inode where the backing file system has no file handles.
    held: Option<Arc<OwnedFd>>,
    /// Its record; the root has none.
    slot: Option<Slot>,
    /// Bytes from the start of the file that are known to be allocated; the last block may lie partly behind the end.
    dense_to: AtomicU64,
    /// Shared by writes that rely on `dense_to`; taken alone by whoever lowered it, to wait for them. No lock is taken
    /// with a share held.
    dense_writers: RwLock<()>,
    /// Whether what the kernel has cached of the content is still right.
    cache_valid: AtomicBool,
    /// The mode as it was last seen.
    mode: AtomicU32,
    /// Whether it was asked for since it was last looked at to be put to rest.
    is_used: AtomicBool,
    state: Mutex<State>,
}

impl Node {
    fn new(id: NodeId, found: Found, slot: Option<Slot>) -> Self {
        let Found { stat, handle, held } = found;
        let charged = Charged {
            owner: stat.owner(),
            usage: stat.usage(),
        };
        Self {
            id,
            ino: stat.ino,
            kind: stat.kind(),
            handle,
            held,
            slot,
            dense_to: AtomicU64::new(0),
            dense_writers: RwLock::new(()),
            cache_valid: AtomicBool::new(false),
            mode: AtomicU32::new(stat.mode),
            is_used: AtomicBool::new(true),
            state: Mutex::new(State {
                charged: Some(charged),
                presence: Presence::Linked,
                open: None,
                pin: None,
                deposit: None,
                promised: None,
                unsettled: 0,
                queued: false,
                watch: None,
                fresh: None,
            }),
        }
    }

    /// One for a record that was claimed.
    fn of_record(id: NodeId, found: Found, claim: Claim) -> Self {
        let mut node = Self::new(id, found, Some(claim.slot));
        *node.cache_valid.get_mut() = claim.is_cached;
        node
    }

    /// One that the kernel still names although it is gone: of its attributes only the kind and the mode are known.
    fn gone(id: NodeId, record: &NodeRecord, slot: Slot) -> Self {
        let stat = Stat::of_gone(id.get(), record.mode.into());
        let node = Self::new(id, Found::again(record, stat), Some(slot));
        {
            let mut state = node.state();
            state.charged = None;
            state.presence = Presence::Gone(Box::new(stat));
        }
        node
    }

    /// The kernel's number.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The private area's number for this node.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// Whether the private area knows this node by that number.
    pub fn is_inode(&self, ino: u64) -> bool {
        self.ino == ino
    }

    /// File, directory, symlink, ...; never changes.
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// The blob that reopens the file, where the backing file system has one.
    pub fn handle(&self) -> Option<&KernelHandle> {
        self.handle.as_ref()
    }

    /// How the quota journal names this inode.
    pub fn inode_id(&self) -> InodeId {
        inode_id(self.ino, self.handle.as_ref())
    }

    /// Tells inodes apart that had the same number one after the other.
    pub fn generation(&self) -> u64 {
        self.handle
            .as_ref()
            .map_or(0, |handle| u64::from(handle.generation()))
    }

    /// The node's accounting and open state. Lock order: by node id.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The same where nobody holds it; for callers that hold another node's state.
    pub fn try_state(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock()
    }

    /// Bytes from the start that need no new space when written.
    pub fn dense_to(&self) -> u64 {
        self.dense_to.load(Ordering::Acquire)
    }

    /// The file is now known to be allocated up to here.
    pub fn extend_dense(&self, end: u64) {
        self.dense_to.fetch_max(end, Ordering::AcqRel);
    }

    /// A share for a write that ends here and needs no new space, as long as the share is held; `None` where it may.
    pub fn enter_dense(&self, end: u64) -> Option<RwLockReadGuard<'_, ()>> {
        if end > self.dense_to() {
            return None;
        }
        let share = self.dense_writers.read();
        (end <= self.dense_to()).then_some(share)
    }

    /// From here on the file may have holes. Writes that rely on the contrary are over when this returns.
    pub fn cut_dense(&self, from: u64) {
        if self.dense_to.fetch_min(from, Ordering::AcqRel) > from {
            drop(self.dense_writers.write());
        }
    }

    /// A handle is about to use the kernel's cache of the content; says whether what is there already may be kept.
    pub fn enter_cache(&self) -> bool {
        self.cache_valid.swap(true, Ordering::AcqRel)
    }

    /// Whether what the kernel's cache holds of the content may be kept.
    fn is_cached(&self) -> bool {
        self.cache_valid.load(Ordering::Acquire)
    }

    /// The content changes, or may, without the kernel's cache.
    pub fn pass_cache(&self) {
        if self.cache_valid.load(Ordering::Relaxed) {
            self.cache_valid.store(false, Ordering::Release);
        }
    }

    /// Whether a write must look for set-id bits.
    pub fn may_have_setid(&self) -> bool {
        self.mode.load(Ordering::Relaxed) & (libc::S_ISUID | libc::S_ISGID) != 0
    }

    /// Whether new entries of this directory get its group.
    pub fn passes_on_group(&self) -> bool {
        self.mode.load(Ordering::Relaxed) & libc::S_ISGID != 0
    }

    /// It was asked for.
    fn note_use(&self) {
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
    }

    /// Notes the present mode.
    pub fn note_mode(&self, stat: &Stat) {
        self.mode.store(stat.mode, Ordering::Relaxed);
    }
}

impl State {
    /// Who is charged, if the inode is still there.
    pub fn owner(&self) -> Option<Owner> {
        self.charged.map(|charged| charged.owner)
    }

    /// Lets the journal forget the inode, unless its usage may still change by itself.
    pub fn release_watch(&mut self) {
        let may_change = |open: &OpenState| open.mappers > 0 || open.tail;
        let is_open = self.open.as_deref().is_some_and(may_change);
        if !self.queued && !is_open && !matches!(self.presence, Presence::Unlinked) {
            self.watch = None;
        }
    }

    /// Whether the last name is gone.
    pub fn is_linked(&self) -> bool {
        matches!(self.presence, Presence::Linked)
    }
}

/// The states of several nodes, locked in the order of their ids.
pub struct Locked<'a> {
    guards: smallvec::SmallVec<[(&'a Node, MutexGuard<'a, State>); 4]>,
}

impl<'a> Locked<'a> {
    /// Locks each of these nodes once.
    pub fn new<const N: usize>(mut nodes: [Option<&'a Node>; N]) -> Self {
        nodes.sort_by_key(|node| node.map(|node| node.id));
        let mut guards: smallvec::SmallVec<[(&Node, MutexGuard<'_, State>); 4]> =
            smallvec::SmallVec::new();
        for node in nodes.into_iter().flatten() {
            if guards
                .last()
                .is_none_or(|(last, _)| !std::ptr::eq(*last, node))
            {
                guards.push((node, node.state()));
            }
        }
        Self { guards }
    }

    /// The state of one of them.
    #[expect(
        clippy::expect_used,
        reason = "callers name nodes that they gave to `new`"
    )]
    pub fn of(&mut self, node: &Node) -> &mut State {
        let found = self
            .guards
            .iter_mut()
            .find(|(known, _)| std::ptr::eq(*known, node));
        &mut found.expect("the node is one of those that were locked").1
    }
}

/// An inode as it was found underneath.
#[derive(Debug)]
pub struct Found {
    /// Its attributes.
    pub stat: Stat,
    /// Its kernel file handle, where there is one.
    pub handle: Option<KernelHandle>,
    /// A descriptor, where there is no handle.
    pub held: Option<Arc<OwnedFd>>,
}

impl Found {
    /// The inode of a record, seen again.
    pub fn again(record: &NodeRecord, stat: Stat) -> Self {
        Self {
            stat,
            handle: record.handle,
            held: None,
        }
    }

    /// What is to be kept of it.
    pub fn record(&self, id: NodeId) -> NodeRecord {
        NodeRecord {
            id,
            handle: self.handle,
            // The kind and the permissions: never more than 16 bits.
            mode: u16::try_from(self.stat.mode & 0xffff).unwrap_or(0),
        }
    }

    /// How the accounts name it.
    pub fn inode_id(&self) -> InodeId {
        inode_id(self.stat.ino, self.handle.as_ref())
    }
}

fn inode_id(ino: u64, handle: Option<&KernelHandle>) -> InodeId {
    match handle {
        Some(handle) => InodeId::new(ino, handle.handle_type(), handle.bytes()),
        None => InodeId::new(ino, 0, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::stat::stat_fd;

    fn node() -> Node {
        let stat = stat_fd(tempfile::tempfile().unwrap()).unwrap();
        let found = Found {
            stat,
            handle: None,
            held: None,
        };
        Node::new(NodeId::new(stat.ino), found, None)
    }

    /// A daemon that dies gives all its memory back before another can follow it: the larger a node, the longer guests wait.
    #[test]
    fn a_node_is_small() {
        let bytes = size_of::<Node>();
        assert!(bytes <= 240, "{bytes} bytes");
    }

    /// S7: space may be taken from a file only when nobody writes into it any more without asking the accounts.
    #[test]
    fn what_lowers_the_dense_part_waits_for_writes_that_rely_on_it() {
        let node = node();
        node.extend_dense(8192);
        assert!(node.enter_dense(8193).is_none());
        let cut = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let share = node.enter_dense(8192);
            assert!(share.is_some());
            scope.spawn(|| {
                node.cut_dense(4096);
                cut.store(true, Ordering::Release);
            });
            while node.dense_to() > 4096 {
                std::thread::yield_now();
            }
            assert!(node.enter_dense(8192).is_none(), "no further write joins");
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!cut.load(Ordering::Acquire), "it did not wait");
            drop(share);
        });
        assert!(cut.load(Ordering::Acquire));
        drop(node.enter_dense(4096).expect("still dense below"));
    }
}
