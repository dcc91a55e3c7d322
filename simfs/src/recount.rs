//! A recount of a private area in service, exact although the guest goes on changing it.
//!
//! Each inode is looked at once, with its state locked, and added to a shadow of the totals. From then on every change of
//! its usage is applied to the shadow as well; a change of an inode that was not looked at yet is not, for it will be
//! seen. What is created is taken as looked at. A directory that is moved meanwhile is walked (again) at its
//! new place, so nothing slips from a part that is still to be walked into one that has been. In the end the shadow
//! and the totals must agree.
//!
//! Invariants:
//! 1. Totals and shadow change together, under the lock of [`Recount`]; so their difference is exact at every moment.
//! 2. The shadow holds what inodes occupy, whatever their accounts say. Where the two differ (somebody edited the private
//!    area behind the mount), the next change starts from what was seen.
//!
//! 3. A number may be given to a new inode before the end of the old one is accounted (two workers); so inodes are told apart
//!    by their file handles too, which hold the generation.
//!
//! Bound: two numbers for each inode of the private area while the recount runs.
//! Lock order: a node's state, then the recount, then the engine's own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use quota::{Change, Charged, InodeId, Tally};

use crate::node::{Node, NodeId};

/// A recount that is under way.
#[derive(Debug)]
pub struct Recount {
    repairs: bool,
    shadow: Mutex<Shadow>,
}

#[derive(Debug, Default)]
struct Shadow {
    seen: HashSet<Key>,
    occupied: Tally,
    /// What was seen of inodes whose accounts say something else.
    edited: HashMap<Key, Charged>,
    moved: VecDeque<Arc<Node>>,
    /// What is in `moved`.
    waiting: HashSet<NodeId>,
}

/// An inode: its number, and a hash of all that tells it from another one of that number.
type Key = (u64, u64);

fn key(inode: &InodeId) -> Key {
    let mut hasher = DefaultHasher::new();
    inode.hash(&mut hasher);
    (inode.ino(), hasher.finish())
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
            shadow: Mutex::new(Shadow::default()),
        }
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

    /// A directory was moved: its tree is to be walked again, once however often it moves until then.
    pub fn moved(&self, dir: Arc<Node>) {
        let mut shadow = self.shadow.lock();
        if shadow.waiting.insert(dir.id()) {
            shadow.moved.push_back(dir);
        }
    }

    /// The next directory that was moved.
    pub fn next_moved(&self) -> Option<Arc<Node>> {
        let mut shadow = self.shadow.lock();
        let next = shadow.moved.pop_front()?;
        shadow.waiting.remove(&next.id());
        Some(next)
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
