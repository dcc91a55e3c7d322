//! Inodes that the kernel knows: node id <-> file underneath, with what the totals hold for each.
//!
//! Of each node but the root there is a record in [`crate::shared`]; it has the lookups. A successor process finds the
//! records dormant and makes the node when the kernel first names it ([`Nodes::get`]).
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
//! 4. An inode without a name is kept by a descriptor here ([`State::pin`]) as long as it is open, and no longer.
//!
//! Lock order: `Node::state` of two nodes is taken in the order of their ids; then the quota engine's own locks. A shard
//! of the table or of the descriptor cache is never held while a node's state is being locked. The records' own locks
//! come last.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use quota::{Charged, InodeId, Owner, Reservation, Watch};

use crate::error::{FsError, FsResult};
use crate::fs::backing::Backing;
use crate::fs::policy::OpenState;
use crate::private::PrivateArea;
use crate::shared::{Deposit, NodeRecord, NodeRecords, Shared, Slot};
use crate::sys::handle::KernelHandle;
use crate::sys::stat::{FileKind, Stat, stat_fd};

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
    /// Keeps an inode without a name in being while it is open.
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
    pub watch: Option<Watch>,
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

    /// One that the kernel still names although it is gone: of its attributes only the kind and the mode are known.
    fn gone(id: NodeId, record: &NodeRecord, slot: Option<Slot>) -> Self {
        let stat = Stat::of_gone(id.get(), record.mode.into());
        let node = Self::new(id, record.found(stat), slot);
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
    /// How the accounts name it.
    pub fn inode_id(&self) -> InodeId {
        inode_id(self.stat.ino, self.handle.as_ref())
    }
}

const FD_SHARDS: usize = 16;
/// Backing ids kept for files that nobody has open.
const IDLE_BACKINGS: usize = 1024;

/// All nodes of a mount and the descriptors that are open for them.
#[derive(Debug)]
pub struct Nodes {
    area: Arc<PrivateArea>,
    root: Arc<Node>,
    table: DashMap<NodeId, Arc<Node>>,
    /// Backing ids of files that nobody has open, least recently used first out; a leaf lock.
    backings: Mutex<LruCache<NodeId, Arc<Backing>>>,
    /// O_PATH descriptors, least recently used first out; a leaf lock.
    descriptors: Vec<Mutex<LruCache<NodeId, Arc<OwnedFd>>>>,
    shared: Arc<Shared>,
}

impl Nodes {
    /// The table with the root in it; at most `descriptors` are kept open for known inodes. What a predecessor left in the
    /// shared memory is known, too.
    pub fn new(
        area: Arc<PrivateArea>,
        root: Found,
        descriptors: usize,
        shared: Arc<Shared>,
    ) -> Self {
        let root = Arc::new(Node::new(NodeId::ROOT, root, None));
        let shard = NonZeroUsize::new(descriptors / FD_SHARDS).unwrap_or(NonZeroUsize::MIN);
        let shards = (0..FD_SHARDS)
            .map(|_| Mutex::new(LruCache::unbounded()))
            .collect::<Vec<_>>();
        for cache in &shards {
            cache.lock().resize(shard);
        }
        let table = DashMap::new();
        table.insert(NodeId::ROOT, root.clone());
        let idle = NonZeroUsize::new(IDLE_BACKINGS).unwrap_or(NonZeroUsize::MIN);
        let backings = Mutex::new(LruCache::new(idle));
        Self {
            area,
            root,
            table,
            backings,
            descriptors: shards,
            shared,
        }
    }

    fn records(&self) -> &NodeRecords {
        self.shared.nodes()
    }

    fn lookups(&self, node: &Node) -> Option<&AtomicU64> {
        node.slot.map(|slot| self.records().lookups(slot))
    }

    /// The root of the mount.
    pub fn root(&self) -> &Arc<Node> {
        &self.root
    }

    /// How many inodes are known; after a takeover, of those that were looked at so far.
    pub fn len(&self) -> usize {
        self.table.len() + self.records().dormant_count()
    }

    /// Whether none but the root is known.
    pub fn is_empty(&self) -> bool {
        self.len() <= 1
    }

    /// The node with this id.
    ///
    /// # Errors
    /// [`FsError::UnknownNode`] where the kernel names one that was never handed out; the backing file system's own.
    pub fn get(&self, id: NodeId) -> FsResult<Arc<Node>> {
        match self.table.get(&id) {
            Some(node) => Ok(node.clone()),
            None => self.wake(id),
        }
    }

    /// The node of an inode number, where the kernel or somebody else here knows it.
    pub fn known(&self, ino: u64) -> Option<Arc<Node>> {
        let id = self.id_of_number(ino);
        self.table.get(&id).map(|node| node.clone())
    }

    /// Makes the node of a record that a predecessor left.
    fn wake(&self, id: NodeId) -> FsResult<Arc<Node>> {
        let unknown = FsError::UnknownNode(id);
        let Some(record) = self.records().dormant(id) else {
            // Another thread may have been faster.
            return self.table.get(&id).map(|node| node.clone()).ok_or(unknown);
        };
        let seen = self.reopen(&record)?;
        match self.table.entry(id) {
            Entry::Occupied(entry) => Ok(entry.get().clone()),
            Entry::Vacant(_) if self.records().dormant(id) != Some(record) => Err(unknown),
            Entry::Vacant(entry) => {
                let slot = Some(self.records().claim(&record)?);
                let node = match seen {
                    Some(stat) => Node::new(id, record.found(stat), slot),
                    None => Node::gone(id, &record, slot),
                };
                Ok(entry.insert(Arc::new(node)).clone())
            }
        }
    }

    /// Looks at the file of a record; `None` where it is gone.
    fn reopen(&self, record: &NodeRecord) -> io::Result<Option<Stat>> {
        let Some(handle) = &record.handle else {
            return Ok(None);
        };
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let fd = match self.area.open_handle(handle, flags) {
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return Ok(None),
            other => other?,
        };
        let stat = stat_fd(fd.as_fd())?;
        self.area.refuse_foreign(&stat)?;
        let is_same = self.id_of(&stat) == record.id && stat.kind() == record.kind();
        if is_same {
            self.shard(record.id).lock().put(record.id, Arc::new(fd));
        }
        Ok(is_same.then_some(stat))
    }

    /// The id under which an inode is known: its number, unless it is the root.
    pub fn id_of(&self, stat: &Stat) -> NodeId {
        self.id_of_number(stat.ino)
    }

    fn id_of_number(&self, ino: u64) -> NodeId {
        if ino == self.root.ino {
            NodeId::ROOT
        } else {
            NodeId::new(ino)
        }
    }

    /// The node for an inode that was found, without counting a lookup.
    ///
    /// # Errors
    /// Where no memory is left for its record.
    pub fn intern(&self, found: Found) -> io::Result<Arc<Node>> {
        let id = self.id_of(&found.stat);
        if id == NodeId::ROOT {
            return Ok(self.root.clone());
        }
        match self.table.entry(id) {
            Entry::Occupied(mut entry) => {
                if is_same(entry.get(), &found) {
                    return Ok(entry.get().clone());
                }
                let record = NodeRecord::of(id, &found);
                let slot = match entry.get().slot {
                    Some(slot) => self.records().replace(slot, &record)?,
                    None => self.records().claim(&record)?,
                };
                let node = Arc::new(Node::new(id, found, Some(slot)));
                let before = entry.insert(node.clone());
                self.drop_descriptor(&before);
                Ok(node)
            }
            Entry::Vacant(entry) => {
                let slot = self.records().claim(&NodeRecord::of(id, &found))?;
                let node = Arc::new(Node::new(id, found, Some(slot)));
                Ok(entry.insert(node).clone())
            }
        }
    }

    /// The node for an inode that is being handed to the kernel: one more lookup.
    ///
    /// # Errors
    /// As [`Self::intern`].
    pub fn look_up(&self, found: Found) -> io::Result<Arc<Node>> {
        loop {
            let node = self.intern(Found {
                stat: found.stat,
                handle: found.handle,
                held: found.held.clone(),
            })?;
            // Counted under the shard's lock, so that a FORGET cannot remove the entry in between.
            if let Some(entry) = self.table.get(&node.id)
                && Arc::ptr_eq(entry.value(), &node)
            {
                if let Some(lookups) = self.lookups(&node) {
                    lookups.fetch_add(1, Ordering::AcqRel);
                }
                return Ok(node);
            }
        }
    }

    /// The kernel drops `count` lookups. The entry goes with the last, unless it is still needed.
    pub fn forget(&self, id: NodeId, count: u64) {
        if id == NodeId::ROOT {
            return;
        }
        let mut is_known = false;
        let gone = self.table.remove_if(&id, |_, node| {
            is_known = true;
            let Some(lookups) = self.lookups(node) else {
                return false;
            };
            let after = lookups.load(Ordering::Acquire).saturating_sub(count);
            lookups.store(after, Ordering::Release);
            after == 0 && !is_needed(node)
        });
        match gone {
            Some((_, node)) => self.discard(&node),
            // It was being made into a node just now: once more.
            None if !is_known
                && !self.records().forget_dormant(id, count)
                && self.table.contains_key(&id) =>
            {
                self.forget(id, count);
            }
            None => {}
        }
    }

    /// What is left to do for a node that is in the table no more.
    fn discard(&self, node: &Node) {
        self.drop_descriptor(node);
        if let Some(slot) = node.slot {
            self.records().release(slot, node.id);
        }
    }

    /// Looks at what is left of a predecessor's records, in steps; `between` says whether to go on.
    pub fn index_rest(&self, between: &mut dyn FnMut() -> bool) {
        self.records().index_all(between);
    }

    /// Removes a node that nobody needs any more.
    pub fn tidy(&self, node: &Node) {
        if node.id == NodeId::ROOT {
            return;
        }
        let unused = |_: &NodeId, known: &Arc<Node>| {
            std::ptr::eq(Arc::as_ptr(known), node)
                && self
                    .lookups(known)
                    .is_some_and(|lookups| lookups.load(Ordering::Acquire) == 0)
                && !is_needed(known)
        };
        if self.table.remove_if(&node.id, unused).is_some() {
            self.discard(node);
        }
    }

    /// Leaves the kernel's backing files open, as a process does that is killed.
    #[cfg(test)]
    pub(crate) fn leak_backings(&self) {
        while let Some((_, idle)) = self.backings.lock().pop_lru() {
            std::mem::forget(idle);
        }
        for node in self.snapshot() {
            if let Some(open) = &mut node.state().open {
                std::mem::forget(open.backing.take());
            }
        }
    }

    /// Lookups that the kernel holds on a node, awake or not.
    #[cfg(test)]
    pub(crate) fn lookups_of(&self, id: NodeId) -> u64 {
        match self.table.get(&id) {
            Some(node) => self
                .lookups(&node)
                .map_or(0, |lookups| lookups.load(Ordering::Acquire)),
            None => self.records().dormant_lookups(id),
        }
    }

    /// An O_PATH descriptor of the node.
    ///
    /// # Errors
    /// ESTALE where the inode is gone; EMFILE and the like from the kernel.
    pub fn descriptor(&self, node: &Node) -> io::Result<Arc<OwnedFd>> {
        if let Some(held) = &node.held {
            return Ok(held.clone());
        }
        if let Some(found) = self.shard(node.id).lock().get(&node.id) {
            return Ok(found.clone());
        }
        let Some(handle) = &node.handle else {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        };
        let fd = Arc::new(
            self.area
                .open_handle(handle, libc::O_PATH | libc::O_NOFOLLOW)?,
        );
        self.shard(node.id).lock().put(node.id, fd.clone());
        Ok(fd)
    }

    /// Closes the cached descriptor, so that an inode without a name can go.
    pub fn drop_descriptor(&self, node: &Node) {
        self.shard(node.id).lock().pop(&node.id);
        self.drop_backing(node);
    }

    /// Keeps the backing id of a file that nobody has open any more.
    pub fn keep_backing(&self, node: &Node, token: Arc<Backing>) {
        let evicted = self.backings.lock().push(node.id, token);
        // Closing is a system call: not under the lock.
        drop(evicted);
    }

    /// The backing id of a file that is being opened again.
    pub fn take_backing(&self, node: &Node) -> Option<Arc<Backing>> {
        self.backings.lock().pop(&node.id)
    }

    /// The file may change its shape, or go: its backing id is not to be used again unseen.
    pub fn drop_backing(&self, node: &Node) {
        let token = self.backings.lock().pop(&node.id);
        drop(token);
    }

    /// All nodes, for a walk; entries may come and go meanwhile.
    pub fn snapshot(&self) -> Vec<Arc<Node>> {
        self.table
            .iter()
            .map(|entry| entry.value().clone())
            .collect()
    }

    fn shard(&self, id: NodeId) -> &Mutex<LruCache<NodeId, Arc<OwnedFd>>> {
        let shards = self.descriptors.len().max(1);
        let index = usize::try_from(id.0).unwrap_or(usize::MAX) % shards;
        self.descriptors
            .get(index)
            .unwrap_or_else(|| unreachable!("index is below the length"))
    }
}

fn inode_id(ino: u64, handle: Option<&KernelHandle>) -> InodeId {
    match handle {
        Some(handle) => InodeId::new(ino, handle.handle_type(), handle.bytes()),
        None => InodeId::new(ino, 0, &[]),
    }
}

fn is_same(node: &Node, found: &Found) -> bool {
    match (&node.handle, &found.handle) {
        (Some(known), Some(seen)) => known == seen,
        // Without handles a held descriptor keeps the number from being reused.
        (None, None) => true,
        _ => false,
    }
}

fn is_needed(node: &Node) -> bool {
    // A locked state means that an operation is under way, which tidies up after itself.
    match node.state.try_lock() {
        Some(state) => state.queued || state.open.is_some(),
        None => true,
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
