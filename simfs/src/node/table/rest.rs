//! Rest: nodes that nobody has asked for leave the table, and their records stay.
//!
//! A node takes some 350 bytes with its place in the table, a record with its place among the dormant 60 to 80. The kernel
//! knows inodes by the million and names few of them at a time. So the table is looked through now and then while it is
//! larger than [`AWAKE`]: what was not asked for since the last look goes, if nothing hangs on it but what a look at the file
//! tells again. It is what a successor does with all nodes at once.
//!
//! Invariants:
//! 1. A node goes only while nobody else holds it (the table's lock keeps it from being handed out), so an inode never has
//!    two nodes.
//! 2. Its record is dormant before the table's lock is released: a FORGET finds one of the two.
//!
//! Lock order: the table's shard, the node's state (tried only), the records' own locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Node, NodeId, Nodes};
use crate::node::Presence;
use crate::sys::heap;

/// Up to this many nodes nobody is put to rest.
const AWAKE: usize = 8192;
/// Nodes are handed to the kernel or woken so often before the table is looked through.
const LOOK_EVERY: usize = 2048;
/// Inodes are forgotten so often before memory goes back to the kernel.
const TRIM_EVERY: usize = 4096;

/// Counts what is made and forgotten.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    made: AtomicUsize,
    forgotten: AtomicUsize,
}

impl Nodes {
    /// A node was handed out or woken. No lock of the table may be held.
    pub(super) fn made_one(&self) {
        let made = self.turnover.made.fetch_add(1, Ordering::Relaxed) + 1;
        if made.is_multiple_of(LOOK_EVERY) && self.table.len() > AWAKE {
            self.put_to_rest();
        }
    }

    /// The kernel has forgotten an inode. No lock of the table may be held.
    pub(super) fn forgot_one(&self) {
        let forgotten = self.turnover.forgotten.fetch_add(1, Ordering::Relaxed) + 1;
        if forgotten.is_multiple_of(TRIM_EVERY) {
            heap::trim();
        }
    }

    /// Has all nodes leave the table that nobody has asked for since the last call, and that can.
    pub(crate) fn put_to_rest(&self) {
        let mut resting = Vec::new();
        self.table.retain(|&id, node| {
            let goes = self.can_rest(id, node);
            if goes && let Some(slot) = node.slot {
                self.records().lay_down(id, slot, node.is_cached());
                resting.push(node.clone());
            }
            !goes
        });
        for node in resting {
            self.drop_descriptor(&node);
        }
    }

    /// Whether all that is known of it can be found again. The caller holds the table's lock.
    fn can_rest(&self, id: NodeId, node: &Arc<Node>) -> bool {
        let was_used = node.is_used.swap(false, Ordering::Relaxed);
        let is_known_to_kernel = self
            .lookups(node)
            .is_some_and(|lookups| lookups.load(Ordering::Acquire) > 0);
        if was_used
            || id == NodeId::ROOT
            || Arc::strong_count(node) > 1
            || node.handle.is_none()
            || !is_known_to_kernel
        {
            return false;
        }
        node.state.try_lock().is_some_and(|state| {
            matches!(state.presence, Presence::Linked)
                && state.charged.is_some()
                && state.open.is_none()
                && state.pin.is_none()
                && state.deposit.is_none()
                && state.promised.is_none()
                && state.watch.is_none()
                && state.unsettled == 0
                && !state.queued
        })
    }
}
