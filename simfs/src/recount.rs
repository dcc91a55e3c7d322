//! A recount of a private area in service, exact although the guest goes on changing it.
//!
//! Each inode is looked at once, with its state locked, and added to a shadow of the totals. From then on every change of
//! its usage is applied to the shadow as well; a change of an inode that was not looked at yet is not, for it will be
//! seen. What is created is taken as looked at. A directory that is moved meanwhile is walked (again) at its
//! new place, so nothing slips from a part that is still to be walked into one that has been. In the end the shadow
//! and the totals must agree.
//!
//! One that repairs can be stopped, and its state [`saved`], between any two looks: what was looked at, its sum, and the
//! directories that are still to be walked.
//!
//! Invariants:
//! 1. Totals and shadow change together, under the lock of [`Recount`]; so their difference is exact at every moment.
//! 2. The shadow holds what inodes occupy, whatever their accounts say. Where the two differ (somebody edited the private
//!    area behind the mount), the next change starts from what was seen.
//! 3. A number may be given to a new inode before the end of the old one is accounted (two workers); so inodes are told apart
//!    by their file handles too, which hold the generation.
//!
//! Bound: two numbers for each inode of the private area while the recount runs.
//! Lock order: a node's state, then the recount, then the engine's own.

pub mod saved;

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use quota::{Change, Charged, InodeId, Tally};

use crate::node::{Node, NodeId};

use saved::Saved;

/// A recount that is under way.
#[derive(Debug)]
pub struct Recount {
    repairs: bool,
    /// The private area lost something meanwhile: what was looked at may be another one.
    spoilt: AtomicBool,
    shadow: Mutex<Shadow>,
}

#[derive(Debug, Default)]
struct Shadow {
    /// Whether the walk has begun; what is created before counts as looked at.
    is_begun: bool,
    /// Directories that are known and still to be walked, the next one last.
    pending: Vec<Arc<Node>>,
    /// The one that is being read.
    current: Option<Arc<Node>>,
    /// What an earlier daemon had still to walk.
    left: Vec<InodeId>,
    seen: HashSet<Key>,
    occupied: Tally,
    /// What was seen of inodes whose accounts say something else.
    edited: HashMap<Key, Charged>,
    moved: Vec<Arc<Node>>,
    /// What is in `moved`.
    waiting: HashSet<NodeId>,
}

/// An inode: its number, and a hash of all that tells it from another one of that number.
type Key = (u64, u64);

fn key(inode: &InodeId) -> Key {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    inode.hash(&mut hasher);
    (inode.ino(), hasher.finish())
}

/// FNV-1a, which is the same in every program: a successor reads what it made. It tells generations of one number apart.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The outcome.
#[derive(Debug)]
pub struct Counted {
    /// What the inodes occupy.
    pub occupied: Tally,
    /// How many there are.
    pub inodes: u64,
}

impl Recount {
    /// A recount that has seen nothing yet. One that `repairs` ends with the totals being replaced, so each inode that it
    /// looks at is from then on taken to be accounted as it is.
    pub fn new(repairs: bool) -> Self {
        Self {
            repairs,
            spoilt: AtomicBool::new(false),
            shadow: Mutex::new(Shadow::default()),
        }
    }

    /// A recount that repairs and goes on where another one was.
    pub fn resumed(saved: Saved) -> Self {
        let shadow = Shadow {
            is_begun: true,
            left: saved.pending,
            seen: saved.seen,
            occupied: saved.occupied,
            ..Shadow::default()
        };
        Self {
            repairs: true,
            spoilt: AtomicBool::new(false),
            shadow: Mutex::new(shadow),
        }
    }

    /// What was looked at may be another one by now: it is not saved.
    pub fn spoil(&self) {
        self.spoilt.store(true, Ordering::Relaxed);
    }

    /// Shows how far it is; nothing changes as long as `keep` runs. `None` where nothing is worth keeping.
    pub fn freeze<R>(&self, keep: impl FnOnce(Option<Saved>) -> R) -> R {
        let shadow = self.shadow.lock();
        let is_kept = self.repairs && !self.spoilt.load(Ordering::Relaxed) && shadow.is_begun;
        keep(is_kept.then(|| shadow.saved()))
    }

    /// Whether the totals will be replaced.
    pub fn repairs(&self) -> bool {
        self.repairs
    }

    /// Applies changes to the totals, by `apply`, and to the shadow.
    pub fn together(&self, changes: &[Change], apply: impl FnOnce()) {
        let mut shadow = self.shadow.lock();
        apply();
        for change in changes {
            shadow.apply(change);
        }
    }

    /// Looks at an inode: what its account holds, and what it occupies. An inode that was seen before does not count again.
    /// The caller holds the node's state.
    pub fn visit(&self, inode: &InodeId, accounted: Option<Charged>, occupied: Charged) {
        let key = key(inode);
        let mut shadow = self.shadow.lock();
        if !shadow.seen.insert(key) {
            return;
        }
        shadow.occupied.add(occupied.owner, occupied.usage);
        if accounted != Some(occupied) {
            shadow.edited.insert(key, occupied);
        }
    }

    /// How many inodes were looked at so far.
    pub fn seen(&self) -> u64 {
        u64::try_from(self.shadow.lock().seen.len()).unwrap_or(u64::MAX)
    }

    /// Has a directory walked, sooner or later.
    pub fn push(&self, dir: Arc<Node>) {
        self.shadow.lock().pending.push(dir);
    }

    /// The next directory to read; the one before it has been read.
    pub fn next_pending(&self) -> Option<Arc<Node>> {
        let mut shadow = self.shadow.lock();
        shadow.current = shadow.pending.pop();
        shadow.current.clone()
    }

    /// A directory that an earlier daemon had still to walk; [`Self::found_left`] says that it is known.
    pub fn next_left(&self) -> Option<InodeId> {
        self.shadow.lock().left.last().copied()
    }

    /// The directory of [`Self::next_left`] is this one, or is gone.
    pub fn found_left(&self, dir: Option<Arc<Node>>) {
        let mut shadow = self.shadow.lock();
        shadow.left.pop();
        shadow.pending.extend(dir);
    }

    /// Begins the walk at the root, unless it has begun before.
    pub fn begin(&self, root: &Arc<Node>) {
        let mut shadow = self.shadow.lock();
        if !std::mem::replace(&mut shadow.is_begun, true) {
            shadow.pending.push(root.clone());
        }
    }

    /// A directory was moved: its tree is to be walked again, once however often it moves until then.
    pub fn moved(&self, dir: Arc<Node>) {
        let mut shadow = self.shadow.lock();
        if shadow.waiting.insert(dir.id()) {
            shadow.moved.push(dir);
        }
    }

    /// Has the directories walked that were moved; whether there were any.
    pub fn take_moved(&self) -> bool {
        let mut shadow = self.shadow.lock();
        let moved = std::mem::take(&mut shadow.moved);
        shadow.waiting.clear();
        shadow.pending.extend(moved);
        !shadow.pending.is_empty()
    }

    /// The end: `compare` sees the sum while nothing can change.
    pub fn finish<R>(&self, compare: impl FnOnce(&Counted) -> R) -> R {
        let mut shadow = self.shadow.lock();
        let counted = Counted {
            occupied: std::mem::take(&mut shadow.occupied),
            inodes: u64::try_from(shadow.seen.len()).unwrap_or(u64::MAX),
        };
        compare(&counted)
    }
}

impl Shadow {
    fn saved(&self) -> Saved {
        let known = self.pending.iter().chain(&self.current).chain(&self.moved);
        let known = known.map(|dir| dir.inode_id());
        Saved {
            seen: self.seen.clone(),
            occupied: self.occupied.clone(),
            pending: self.left.iter().copied().chain(known).collect(),
        }
    }

    fn apply(&mut self, change: &Change) {
        let key = key(&change.inode);
        if change.before.is_none() {
            self.seen.insert(key);
        } else if !self.seen.contains(&key) {
            return;
        }
        if let Some(before) = self.edited.remove(&key).or(change.before) {
            self.occupied.remove(before.owner, before.usage);
        }
        match change.after {
            Some(after) => self.occupied.add(after.owner, after.usage),
            // What names it may come back where there are no file handles.
            None => drop(self.seen.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quota::{Bytes, Owner, Subject, Usage};

    fn charged(uid: u32, bytes: u64) -> Charged {
        Charged {
            owner: Owner::new(uid, uid),
            usage: Usage::inode(Bytes::new(bytes)),
        }
    }

    fn plain(ino: u64) -> InodeId {
        InodeId::new(ino, 0, &[])
    }

    fn change(ino: u64, before: Option<Charged>, after: Option<Charged>) -> Change {
        Change {
            inode: plain(ino),
            before,
            after,
        }
    }

    #[test]
    fn a_change_counts_only_behind_the_walk() {
        let recount = Recount::new(false);
        recount.visit(&plain(1), Some(charged(0, 10)), charged(0, 10));
        let changes = [
            change(1, Some(charged(0, 10)), Some(charged(0, 30))),
            change(2, Some(charged(0, 5)), Some(charged(0, 7))),
            change(3, None, Some(charged(5, 1))),
        ];
        recount.together(&changes, || {});
        recount.visit(&plain(2), Some(charged(0, 7)), charged(0, 7));
        recount.visit(&plain(2), Some(charged(0, 7)), charged(0, 7));
        recount.finish(|counted| {
            assert_eq!(counted.occupied.ve.space, Bytes::new(38));
            assert_eq!(counted.inodes, 3);
        });
    }

    #[test]
    fn an_edited_inode_that_changes_later_is_not_counted_twice() {
        let recount = Recount::new(false);
        recount.visit(&plain(1), Some(charged(0, 10)), charged(0, 50));
        recount.together(
            &[change(1, Some(charged(0, 10)), Some(charged(0, 60)))],
            || {},
        );
        recount.finish(|counted| {
            let root = counted.occupied.usage(Subject::Ve).space;
            assert_eq!(root, Bytes::new(60));
        });
    }

    #[test]
    fn a_number_that_is_reused_counts_as_another_inode() {
        let recount = Recount::new(false);
        recount.visit(&plain(9), Some(charged(0, 4)), charged(0, 4));
        recount.together(&[change(9, Some(charged(0, 4)), None)], || {});
        recount.together(&[change(9, None, Some(charged(1, 8)))], || {});
        recount.finish(|counted| assert_eq!(counted.occupied.ve.space, Bytes::new(8)));
    }

    #[test]
    fn a_number_that_is_reused_before_its_end_is_accounted_counts_once() {
        let recount = Recount::new(true);
        let (old, new) = (InodeId::new(9, 1, &[1]), InodeId::new(9, 1, &[2]));
        recount.visit(&old, Some(charged(0, 4)), charged(0, 4));
        let changed = |inode, before, after| Change {
            inode,
            before,
            after,
        };
        recount.together(&[changed(new, None, Some(charged(1, 0)))], || {});
        recount.together(&[changed(old, Some(charged(0, 4)), None)], || {});
        let grown = Some(charged(1, 8));
        recount.together(&[changed(new, Some(charged(1, 0)), grown)], || {});
        recount.visit(&new, grown, charged(1, 8));
        recount.finish(|counted| {
            assert_eq!(counted.occupied.ve, Usage::inode(Bytes::new(8)));
            assert_eq!(counted.inodes, 1);
        });
    }
}
