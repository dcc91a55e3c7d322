//! For file operations the one seam to `quota`: promise the worst case, do the system call, settle with what it took.
//!
//! Invariants:
//! 1. Nothing that can add to `st_blocks` or to the number of inodes is done without a promise for it.
//! 2. What an inode is charged is what the backing file system says it occupies; it is read after each change, with the
//!    node's state locked from before the promise until after the settlement.
//! 3. A refusal comes only after everything that could make room has been looked at: space promised for metadata
//!    that is not needed, files whose last close is under way, and the true need instead of the worst case.
//!
//! Lock order: the caller holds the states of the nodes concerned; other nodes are only tried, never waited for.

pub mod data;
pub mod growth;
pub mod late;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use quota::{Accounts, Change, Charged, Engine, Gid, InodeId, Owner, Reservation, Want, Watch};

use crate::error::FsResult;
use crate::housekeeper::Housekeeper;
use crate::node::{Node, Nodes, State};
use crate::privileges::Privileges;
use crate::recount::Recount;
use crate::sys::file;
use crate::sys::stat::{FileKind, Stat, stat_fd};

use growth::Growth;
use late::Looked;

pub use crate::id::Caller;

/// The wants of one operation; few, so kept in place.
pub type Wants = smallvec::SmallVec<[Want; 4]>;

/// Files with space behind their end that a recount has looked at again, at most.
const TAILS_OF_A_RECOUNT: usize = 65_536;

/// How long a refusal waits for a last close that is under way.
const LAST_CLOSE_PATIENCE: Duration = Duration::from_millis(1);

/// The accounting of one mount.
#[derive(Debug)]
pub struct Accounting {
    engine: Engine,
    growth: Growth,
    nodes: Arc<Nodes>,
    callers: Arc<Privileges>,
    late: late::Queue,
    /// Files without a name that are still open: their close gives space back.
    unlinked_open: AtomicUsize,
    /// Held by the one that waits for such a close; only tried.
    patience: Mutex<()>,
    /// The recount under way; read by every change, so not a lock that writers share.
    recount: RwLock<Option<Arc<Recount>>>,
    housekeeper: Arc<Housekeeper>,
}

impl Accounting {
    /// The seam between these nodes and this engine.
    pub fn new(
        engine: Engine,
        growth: Growth,
        nodes: Arc<Nodes>,
        callers: Arc<Privileges>,
        housekeeper: Arc<Housekeeper>,
    ) -> Self {
        Self {
            late: late::Queue::new(nodes.clone(), engine.clone()),
            engine,
            growth,
            nodes,
            callers,
            unlinked_open: AtomicUsize::new(0),
            patience: Mutex::new(()),
            recount: RwLock::new(None),
            housekeeper,
        }
    }

    /// The quota engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The bounds for the backing file system.
    pub fn growth(&self) -> &Growth {
        &self.growth
    }

    /// Has the journal name an inode that an operation is about to change, as long as the result is kept. For what cannot be
    /// refused; a promise says it by itself.
    pub fn watch(&self, node: &Node, state: &State) -> Watch {
        self.engine.watch(node.inode_id(), state.charged)
    }

    /// The same until [`State::release_watch`] finds that the inode cannot change by itself any more.
    pub fn keep_watch(&self, node: &Node, state: &mut State) {
        late::keep_watch(&self.engine, node, state);
    }

    /// The file is open for writing and looks like this: what lies behind its end goes with the last close or with the daemon,
    /// so the journal names it until then.
    pub fn note_tail(&self, node: &Node, state: &mut State, seen: &Stat) {
        if let Some(open) = &mut state.open
            && open.writers > 0
        {
            open.tail = self.growth.has_tail(seen.size, seen.blocks.bytes());
            if open.tail {
                self.keep_watch(node, state);
            }
        }
    }

    /// A recount found a file that occupies space behind its end, perhaps of an earlier life: that may be given back by itself.
    pub fn expect_less(&self, node: &Arc<Node>, state: &mut State, seen: &Stat) {
        let has_tail = self.growth.has_tail(seen.size, seen.blocks.bytes());
        if has_tail && seen.kind() == FileKind::File && self.late.len() < TAILS_OF_A_RECOUNT {
            self.late.push(node, state);
            self.housekeeper.wake();
        }
    }

    /// The files that are to be looked at again.
    pub fn late(&self) -> &late::Queue {
        &self.late
    }

    /// Promises `worst`, or, where that does not fit, the true need that `exact` finds out.
    ///
    /// # Errors
    /// [`quota::Denied`] where even the true need does not fit; what `exact` fails with.
    pub fn reserve(
        &self,
        caller: Caller,
        touched: &[(InodeId, Option<Charged>)],
        worst: &[Want],
        exact: impl FnOnce() -> io::Result<Wants>,
    ) -> FsResult<Reservation> {
        let exempt = || self.passes_second_level(caller);
        if let Ok(promise) = self.engine.try_reserve(touched, worst, &exempt) {
            return Ok(promise);
        }
        self.make_room();
        if let Ok(promise) = self.engine.try_reserve(touched, worst, &exempt) {
            return Ok(promise);
        }
        let need = exact()?;
        Ok(self.engine.reserve(touched, &need, &exempt)?)
    }

    /// Settles an operation on one inode.
    pub fn settle(&self, node: &Node, state: &mut State, promise: Reservation, seen: &Stat) {
        let changes = [change(node, state, Some(seen))];
        self.settle_changes(promise, &changes);
    }

    /// Settles an operation with all that it changed.
    pub fn settle_changes(&self, promise: Reservation, changes: &[Change]) {
        self.apply(changes, || promise.settle(changes));
    }

    /// There is something to be done at once that is no change of the totals.
    pub fn hurry(&self) {
        self.housekeeper.wake();
        self.housekeeper.hurry();
    }

    /// Changes the totals, and the recount that is under way with them.
    fn apply(&self, changes: &[Change], change: impl FnOnce()) {
        self.housekeeper.wake();
        if self.engine.wants_commit() {
            self.housekeeper.hurry();
        }
        match &*self.recount.read() {
            Some(recount) => recount.together(changes, change),
            None => change(),
        }
    }

    /// Starts a recount; from now on changes are applied to it as well. `None` where one is under way.
    pub fn begin_recount(&self, repairs: bool) -> Option<Arc<Recount>> {
        let mut present = self.recount.write();
        if present.is_some() {
            return None;
        }
        Some(present.insert(Arc::new(Recount::new(repairs))).clone())
    }

    /// Has changes applied to a recount that an earlier daemon began, from before the first request on.
    pub fn resume_recount(&self, recount: Arc<Recount>) {
        *self.recount.write() = Some(recount);
    }

    /// The recount that is under way, or was stopped.
    pub fn recount(&self) -> Option<Arc<Recount>> {
        self.recount.read().clone()
    }

    /// Ends the recount.
    pub fn end_recount(&self) {
        *self.recount.write() = None;
    }

    /// Records what an inode occupies now, however much that is.
    pub fn record(&self, node: &Node, state: &mut State, seen: &Stat) {
        if state.charged != Some(charged_as(seen)) {
            let changes = [change(node, state, Some(seen))];
            self.apply(&changes, || self.engine.record(&changes));
        }
    }

    /// Records that an inode is gone.
    pub fn record_gone(&self, node: &Node, state: &mut State) {
        state.promised = None;
        state.unsettled = 0;
        if state.charged.is_some() {
            let changes = [change(node, state, None)];
            self.apply(&changes, || self.engine.record(&changes));
        }
    }

    /// The allocation of the file is now final and this large: nothing is promised for it any more.
    pub fn record_final(&self, node: &Node, state: &mut State, seen: &Stat) {
        self.record(node, state, seen);
        state.promised = None;
        state.unsettled = 0;
    }

    /// A file without a name stays open, or is closed at last.
    pub fn note_unlinked_open(&self, open: bool) {
        if open {
            self.unlinked_open.fetch_add(1, Ordering::AcqRel);
        } else {
            self.unlinked_open.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Whether the caller passes the second level, as CAP_SYS_RESOURCE allows on any Linux.
    pub fn passes_second_level(&self, caller: Caller) -> bool {
        self.callers.passes_second_level(caller.pid)
    }

    /// Whether the caller may set the setgid bit on a file of this group: a member, or CAP_FSETID.
    pub fn may_keep_setgid(&self, caller: Caller, group: Gid) -> bool {
        caller.gid == group.get() || self.callers.may_keep_setgid(caller.pid, group)
    }

    /// Whether the caller's writes leave set-id bits alone (CAP_FSETID).
    pub fn may_keep_setid(&self, caller: Caller) -> bool {
        self.callers.may_keep_setid(caller.pid)
    }

    /// Before a refusal: settles files whose metadata holds a promise, waits for closes that are under way.
    fn make_room(&self) {
        self.late.settle_promises(&mut |node| self.settle_now(node));
        // One worker at a time: another must be free to take the request that closes the file.
        if self.unlinked_open.load(Ordering::Acquire) > 0
            && let Some(_waiting) = self.patience.try_lock()
        {
            std::thread::sleep(LAST_CLOSE_PATIENCE);
        }
    }

    /// Writes a file out and records what it occupies then. A file that is being worked on is left alone.
    fn settle_now(&self, node: &Node) -> io::Result<()> {
        let Some(mut state) = node.try_state() else {
            return Ok(());
        };
        if state.promised.is_none() {
            return Ok(());
        }
        let path = self.nodes.descriptor(node)?;
        let fd = file::reopen(&path, libc::O_RDONLY)?;
        file::fdatasync(&fd)?;
        let seen = stat_fd(fd.as_fd())?;
        self.record_final(node, &mut state, &seen);
        Ok(())
    }

    /// Looks again at the files whose allocation may have changed by itself. Returns when the next look is due.
    pub fn look_again(&self, changed: &mut dyn FnMut(&Node)) -> Option<std::time::Instant> {
        self.late
            .run(&mut |node, last| self.look_at(node, last, changed))
    }

    fn look_at(
        &self,
        node: &Node,
        last: bool,
        changed: &mut dyn FnMut(&Node),
    ) -> io::Result<Looked> {
        let (fd, unsettled) = {
            let state = node.state();
            let fd = match &state.pin {
                Some(pin) => pin.clone(),
                None => self.nodes.descriptor(node)?,
            };
            (fd, state.unsettled)
        };
        if last {
            file::fdatasync(&file::reopen(&fd, libc::O_RDONLY)?)?;
        }
        let mut state = node.state();
        if state.charged.is_none() {
            return Ok(Looked {
                unsettled: 0,
                has_tail: false,
            });
        }
        let seen = stat_fd(fd.as_fd())?;
        let before = state.charged;
        // What was written after the file was written out is not final yet.
        if last && state.unsettled == unsettled {
            self.record_final(node, &mut state, &seen);
            self.note_tail(node, &mut state, &seen);
        } else {
            self.record(node, &mut state, &seen);
        }
        if state.charged != before {
            changed(node);
        }
        Ok(Looked {
            unsettled: state.unsettled,
            has_tail: self.growth.has_tail(seen.size, seen.blocks.bytes()),
        })
    }

    /// Nobody waits for late looks any more (unmount): all files in the queue are made final.
    pub fn finish_late(&self) {
        self.late.drain(&mut |node| {
            let _ = self.look_at(node, true, &mut |_| {});
        });
    }
}

/// What the inode's accounts should hold, going by its attributes.
pub fn charged_as(seen: &Stat) -> Charged {
    Charged {
        owner: seen.owner(),
        usage: seen.usage(),
    }
}

/// Moves the node's charge to what was seen, and says so in the engine's terms.
pub fn change(node: &Node, state: &mut State, seen: Option<&Stat>) -> Change {
    let before = state.charged;
    state.charged = seen.map(charged_as);
    Change {
        inode: node.inode_id(),
        before,
        after: state.charged,
    }
}

/// The accounts whose holder changes with a change of owner.
pub fn accounts_of_change(from: Owner, to: Owner) -> Accounts {
    Accounts {
        ve: false,
        uid: (from.uid != to.uid).then_some(to.uid),
        gid: (from.gid != to.gid).then_some(to.gid),
    }
}
