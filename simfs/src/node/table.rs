//! The table of all nodes: from a number to its node, with the records and descriptors that belong to it. The invariants stand
//! in [`super`]. How nodes that nobody asks for are put to rest: `rest.rs`.

mod rest;

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use lru::LruCache;
use parking_lot::Mutex;

use super::{Found, Node, NodeId};
use crate::error::{FsError, FsResult};
use crate::open::Backing;
use crate::private::PrivateArea;
use crate::shared::{NodeRecord, NodeRecords, Shared};
use crate::sys::stat::{Stat, stat_fd};

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
    turnover: rest::Turnover,
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
            turnover: rest::Turnover::default(),
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

    /// How many inodes are known, awake or not; after a takeover, of those that were looked at so far.
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
            Some(node) => {
                node.note_use();
                Ok(node.clone())
            }
            None => {
                let node = self.wake(id)?;
                self.made_one();
                Ok(node)
            }
        }
    }

    /// The node of an inode number, where it is awake.
    pub fn known(&self, ino: u64) -> Option<Arc<Node>> {
        let id = self.id_of_number(ino);
        self.table.get(&id).map(|node| node.clone())
    }

    /// Makes the node of a record that is dormant.
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
                let claim = self.records().claim(&record)?;
                let node = match seen {
                    Some(stat) => Node::of_record(id, Found::again(&record, stat), claim),
                    None => Node::gone(id, &record, claim.slot),
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
        // A removed directory that somebody still holds for a moment has nothing left to serve.
        let is_removed = stat.is_dir() && stat.nlink == 0;
        let is_same = self.id_of(&stat) == record.id && stat.kind() == record.kind() && !is_removed;
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
                    entry.get().note_use();
                    return Ok(entry.get().clone());
                }
                let record = found.record(id);
                let slot = match entry.get().slot {
                    Some(slot) => self.records().replace(slot, &record)?,
                    None => self.records().claim(&record)?.slot,
                };
                let node = Arc::new(Node::new(id, found, Some(slot)));
                let before = entry.insert(node.clone());
                self.drop_descriptor(&before);
                Ok(node)
            }
            Entry::Vacant(entry) => {
                let claim = self.records().claim(&found.record(id))?;
                let node = Node::of_record(id, found, claim);
                Ok(entry.insert(Arc::new(node)).clone())
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
            let is_counted = match self.table.get(&node.id) {
                Some(entry) if Arc::ptr_eq(entry.value(), &node) => {
                    if let Some(lookups) = self.lookups(&node) {
                        lookups.fetch_add(1, Ordering::AcqRel);
                    }
                    true
                }
                _ => false,
            };
            if is_counted {
                self.made_one();
                return Ok(node);
            }
        }
    }

    /// The kernel drops `count` lookups. The entry goes with the last, unless it is still needed.
    pub fn forget(&self, id: NodeId, count: u64) {
        self.change_lookups(id, &mut |before| before.saturating_sub(count));
    }

    /// Changes the number of lookups, as [`Self::forget`] does; says whether the node was known. `change` is called at most
    /// once; from then until it is as `change` says nobody else changes it.
    pub fn change_lookups(&self, id: NodeId, change: &mut dyn FnMut(u64) -> u64) -> bool {
        if id == NodeId::ROOT {
            return false;
        }
        let mut is_known = false;
        let gone = self.table.remove_if(&id, |_, node| {
            is_known = true;
            let Some(lookups) = self.lookups(node) else {
                return false;
            };
            let after = change(lookups.load(Ordering::Acquire));
            lookups.store(after, Ordering::Release);
            after == 0 && !is_needed(node)
        });
        self.forgot_one();
        if let Some((_, node)) = gone {
            self.discard(&node);
        }
        if is_known || self.records().change_dormant(id, change) {
            return true;
        }
        // It woke just now, or was put to rest again: once more.
        let is_there = self.table.contains_key(&id) || self.records().dormant(id).is_some();
        is_there && self.change_lookups(id, change)
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
        drop(self.take_descriptor(node));
    }

    /// The cached descriptor, which is cached no more.
    pub fn take_descriptor(&self, node: &Node) -> Option<Arc<OwnedFd>> {
        self.drop_backing(node);
        self.shard(node.id).lock().pop(&node.id)
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
        let index = usize::try_from(id.get()).unwrap_or(usize::MAX) % shards;
        self.descriptors
            .get(index)
            .unwrap_or_else(|| unreachable!("index is below the length"))
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
