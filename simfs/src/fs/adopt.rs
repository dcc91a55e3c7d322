//! A successor takes over what the guest has open.
//!
//! To be called before the first request, after the totals are right and [`Fs::resume`] has put in what was touched. Nodes
//! wake when the kernel names them; here only those that are open, or without a name, are looked at.
//!
//! What cannot be found again (a damaged record, an inode whose descriptor the keeper could not take) is left out and
//! counted: requests for it fail with ESTALE or EBADF, all others are served.

mod pins;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use super::Fs;
use crate::accounting::Caller;
use crate::handle::{HandleId, Kept, OpenFile};
use crate::node::{Found, Node, NodeId, Presence, State};
use crate::open::{Backing, BackingToken, OpenState};
use crate::shared::{Hold, Inheritance, Place};
use crate::sys::stat::{Stat, stat_fd};

pub use pins::Pins;

/// What was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Files that are open.
    pub files: usize,
    /// Inodes without a name that are open.
    pub pinned: usize,
    /// Files that were open and cannot be found again.
    pub lost: usize,
    /// Records that were damaged.
    pub damaged: usize,
}

/// Backing files that a predecessor registered, by their nodes.
type Backings = HashMap<NodeId, Arc<Backing>>;

impl Fs {
    /// Takes over what the guest has open. `tokens` makes the transport's token for the kernel's number of a backing file.
    pub fn adopt(
        &self,
        inheritance: &Inheritance,
        mut pins: Pins,
        tokens: &dyn Fn(u32) -> Arc<dyn BackingToken>,
    ) -> Adopted {
        let mut adopted = Adopted {
            damaged: inheritance.damaged,
            ..Adopted::default()
        };
        let mut backings = Backings::new();
        for record in &inheritance.holds {
            if let Some((Hold::Backing(number), node)) = Hold::of(record) {
                let backing = Backing::adopt(&self.shared, record.place, tokens(number));
                backings.insert(node, backing);
            }
        }
        let spares = std::mem::take(&mut pins.spares);
        let pinned = self.adopt_pins(pins);
        let mut open = HashMap::new();
        for record in &inheritance.handles {
            let node = Kept::of(record).and_then(|(id, node, kept)| {
                let node = self.nodes.get(node).ok()?;
                self.adopt_handle(id, &node, kept, record.place, &backings);
                Some(node)
            });
            match node {
                Some(node) => {
                    adopted.files += 1;
                    open.insert(node.id(), node);
                }
                None => {
                    adopted.lost += 1;
                    self.shared.handles().remove(record.place);
                }
            }
        }
        self.adopt_spares(spares);
        for node in open.values() {
            self.complete(node);
        }
        for node in pinned {
            adopted.pinned += 1;
            self.finish_unlinked(&node, &mut node.state());
            self.nodes.tidy(&node);
        }
        // Backing files of what is not open are closed here, by their drop.
        adopted
    }

    /// Inodes without a name become nodes that are kept; what has its name still needs no keeping.
    fn adopt_pins(&self, pins: Pins) -> Vec<Arc<Node>> {
        for (deposit, node) in pins.stale {
            tracing::warn!(%node, number = deposit.number, "the keeper's descriptor of an inode is of no use");
            self.withdraw(deposit);
        }
        let mut kept = Vec::new();
        for pinned in pins.pins {
            if pinned.stat.nlink > 0 {
                self.withdraw(pinned.deposit);
                continue;
            }
            let found = Found {
                stat: pinned.stat,
                handle: Some(pinned.handle),
                held: None,
            };
            let Ok(node) = self.nodes.intern(found) else {
                self.withdraw(pinned.deposit);
                continue;
            };
            {
                let mut state = node.state();
                if state.deposit.is_some() {
                    // Named twice: a daemon died between two tries.
                    drop(state);
                    self.withdraw(pinned.deposit);
                    continue;
                }
                state.presence = Presence::Unlinked;
                state.pin = Some(Arc::new(pinned.fd));
                state.deposit = Some(pinned.deposit);
                self.accounting.keep_watch(&node, &mut state);
                self.accounting.note_unlinked_open(true);
            }
            kept.push(node);
        }
        kept
    }

    fn adopt_handle(
        &self,
        id: HandleId,
        node: &Arc<Node>,
        kept: Kept,
        place: Place,
        backings: &Backings,
    ) {
        let Kept {
            access,
            direct,
            passthrough,
            appends,
            sync,
        } = kept;
        let mut state = node.state();
        let file = OpenFile {
            node: node.clone(),
            access,
            direct,
            passthrough,
            appends,
            sync,
            // Perhaps by the one that is dead.
            changed: AtomicBool::new(access.writes()),
            fd: Mutex::default(),
        };
        let mode = file.mode();
        let open = state
            .open
            .get_or_insert_with(|| Box::new(OpenState::new(mode)));
        open.mode = open.mode.max(mode);
        open.handles = open.handles.saturating_add(1);
        open.writers = open.writers.saturating_add(u32::from(access.writes()));
        open.written |= access.writes();
        open.mappers = open.mappers.saturating_add(u32::from(file.maps_backing()));
        if passthrough {
            open.backing = backings.get(&node.id()).cloned();
        }
        self.files.adopt(id, file, place);
    }

    /// What belongs to an open inode and follows from its handles.
    fn complete(&self, node: &Arc<Node>) {
        let mut state = node.state();
        let Some(mappers) = state.open.as_ref().map(|open| open.mappers) else {
            return;
        };
        let Ok(path) = self.nodes.descriptor(node) else {
            return;
        };
        let Ok(seen) = stat_fd(path.as_fd()) else {
            return;
        };
        if seen.nlink == 0 && state.is_linked() {
            self.rescue(node, &mut state, path.clone(), &seen);
        }
        if mappers > 0 {
            node.pass_cache();
            self.accounting.keep_watch(node, &mut state);
            self.promise_holes_again(node, &mut state, &path, &seen);
            self.accounting.late().push(node, &mut state);
        }
    }

    /// An inode without a name that the keeper does not hold, but the kernel does, for passthrough.
    fn rescue(&self, node: &Node, state: &mut State, path: Arc<OwnedFd>, seen: &Stat) {
        // Nobody told the recovery of it: the totals do not hold it.
        state.charged = None;
        self.accounting.record(node, state, seen);
        state.presence = Presence::Unlinked;
        state.deposit = self.deposit(node, &path).ok();
        state.pin = Some(path);
        self.accounting.keep_watch(node, state);
        self.accounting.note_unlinked_open(true);
    }

    fn promise_holes_again(&self, node: &Node, state: &mut State, path: &OwnedFd, seen: &Stat) {
        if seen.blocks.bytes().get() >= seen.size {
            return;
        }
        let nobody = Caller {
            uid: 0,
            gid: 0,
            pid: 0,
        };
        match self.promise_holes(nobody, node, state, path, seen) {
            Ok(promise) => {
                if let Some(open) = &mut state.open {
                    open.promise(Some(promise));
                }
            }
            Err(error) => {
                tracing::warn!(node = %node.id(), %error, "holes of a mapped file cannot be promised again; what a store fills is counted when it is seen");
            }
        }
    }
}
