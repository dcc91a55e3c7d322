//! After a recovery: files that were written shortly before may still change by themselves.

use super::Fs;
use crate::node::Found;
use crate::sys::handle::KernelHandle;
use crate::sys::stat::Stat;

impl Fs {
    /// Puts files into the queue of late looks, as they were when they were taken into the totals. To be called before
    /// the first request. What is not a file cannot change by itself, nor what was just made: that was empty.
    pub fn resume(&self, touched: Vec<(KernelHandle, Stat)>) {
        for (handle, stat) in touched {
            let found = Found {
                stat,
                handle: Some(handle),
                held: None,
            };
            let Ok(node) = self.nodes.intern(found) else {
                // No memory for its record: what it changes by itself is seen when it is next used.
                continue;
            };
            let mut state = node.state();
            self.accounting.late().push(&node, &mut state);
        }
    }
}
