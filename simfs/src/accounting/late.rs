//! Files whose `st_blocks` may still change by themselves, and when to look at them again.
//!
//! Delayed allocation adds extent blocks when data is written out, speculative preallocation is given back after the
//! last close, compression shrinks. So a file that was written is looked at again: soon, after the kernel's usual
//! write-out (`vm.dirty_expire_centisecs`, 30 s), and a last time, when it is written out first and so is final.
//! A file that was written meanwhile starts again. One that then still occupies space behind its end stays for as long as
//! XFS may take to give that back.
//!
//! Bound: as many entries as files written in the last two minutes, and those with space behind their end of the last
//! quarter of an hour; each holds its node in memory.
//! Lock order: the queue's lock is a leaf; it is not held while a file is looked at.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quota::Engine;

use crate::node::{Node, Nodes, State};

/// Delays from one look to the next.
const STAGES: [Duration; 3] = [
    Duration::from_secs(4),
    Duration::from_secs(32),
    Duration::from_secs(40),
];
/// The same for files with space behind their end: XFS looks for such files every five minutes
/// (`fs.xfs.speculative_prealloc_lifetime`), and leaves those that are in use for the next time.
const TAIL_STAGES: usize = 6;
const TAIL_DELAY: Duration = Duration::from_secs(120);

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Bytes written since the allocation was last known.
    pub unsettled: u64,
    /// Whether space behind the end may be given back some time.
    pub has_tail: bool,
}

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    due: Instant,
    stage: usize,
    /// What was unsettled at the last look: more means that the file was written since.
    unsettled: u64,
}

/// The files to look at again.
#[derive(Debug)]
pub struct Queue {
    nodes: Arc<Nodes>,
    engine: Engine,
    entries: Mutex<VecDeque<Entry>>,
}

impl Queue {
    /// An empty queue; a node that leaves it may leave the table.
    pub fn new(nodes: Arc<Nodes>, engine: Engine) -> Self {
        Self {
            nodes,
            engine,
            entries: Mutex::new(VecDeque::new()),
        }
    }

    /// Adds a file that was written; one that is queued already stays where it is.
    pub fn push(&self, node: &Arc<Node>, state: &mut State) {
        if state.queued {
            return;
        }
        state.queued = true;
        keep_watch(&self.engine, node, state);
        let due = Instant::now() + delay(0);
        let entry = Entry {
            node: node.clone(),
            due,
            stage: 0,
            unsettled: state.unsettled,
        };
        self.entries.lock().push_back(entry);
    }

    /// How many files are waiting for a look.
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Whether none is waiting.
    pub fn is_empty(&self) -> bool {
        self.entries.lock().is_empty()
    }

    /// Looks at what is due. `look(node, last)` makes the allocation final where it is the last one. Says when the next is due.
    pub fn run(&self, look: &mut dyn FnMut(&Node, bool) -> io::Result<Looked>) -> Option<Instant> {
        let now = Instant::now();
        for _ in 0..self.len() {
            let entry = {
                let mut entries = self.entries.lock();
                let Some(entry) = entries.pop_front() else {
                    break;
                };
                if entry.due > now {
                    entries.push_back(entry);
                    continue;
                }
                entry
            };
            if let Some(next) = self.look(entry, now, look) {
                self.entries.lock().push_back(next);
            }
        }
        self.entries.lock().iter().map(|entry| entry.due).min()
    }

    fn look(
        &self,
        entry: Entry,
        now: Instant,
        look: &mut dyn FnMut(&Node, bool) -> io::Result<Looked>,
    ) -> Option<Entry> {
        let Entry {
            node,
            stage,
            unsettled: before,
            ..
        } = entry;
        let last = stage + 1 >= STAGES.len();
        match look(&node, last) {
            Ok(Looked {
                unsettled: 0,
                has_tail,
            }) if last && (!has_tail || stage + 1 >= STAGES.len() + TAIL_STAGES) => {
                self.done(&node)
            }
            Ok(Looked { unsettled, .. }) => {
                let is_changing = unsettled > before || (last && unsettled > 0);
                let stage = if is_changing { 0 } else { stage + 1 };
                Some(Entry {
                    node,
                    due: now + delay(stage),
                    stage,
                    unsettled,
                })
            }
            // The file is gone, or cannot be read: there is nothing more to learn here.
            Err(_) => self.done(&node),
        }
    }

    /// Settles the files for which something is promised, before somebody is refused.
    pub fn settle_promises(&self, settle: &mut dyn FnMut(&Node) -> io::Result<()>) {
        let nodes: Vec<_> = self
            .entries
            .lock()
            .iter()
            .map(|entry| entry.node.clone())
            .collect();
        for node in nodes {
            // A file that cannot be written out keeps its promise; the late look reports the cause.
            let _ = settle(&node);
        }
    }

    /// Empties the queue, calling `finish` for each file.
    pub fn drain(&self, finish: &mut dyn FnMut(&Node)) {
        loop {
            let Some(entry) = self.entries.lock().pop_front() else {
                return;
            };
            finish(&entry.node);
            self.done(&entry.node);
        }
    }

    fn done(&self, node: &Node) -> Option<Entry> {
        {
            let mut state = node.state();
            state.queued = false;
            state.release_watch();
        }
        self.nodes.tidy(node);
        None
    }
}

/// Has the journal name the inode from now on.
pub(super) fn keep_watch(engine: &Engine, node: &Node, state: &mut State) {
    if state.watch.is_none() {
        state.watch = Some(Box::new(engine.watch(node.inode_id(), state.charged)));
    }
}

fn delay(stage: usize) -> Duration {
    STAGES.get(stage).copied().unwrap_or(TAIL_DELAY)
}
