//! After a recovery: files that were written shortly before may still change by themselves.

use std::sync::Arc;

use quota::{Charged, InodeId};

use super::Fs;
use crate::node::Found;
use crate::sys::handle::KernelHandle;
use crate::sys::stat::{FileKind, stat_fd};

impl Fs {
    /// Puts files into the queue of late looks; with each, what the totals hold for it. To be called before the first
    /// request.
    pub fn resume(&self, touched: &[(InodeId, Charged)]) {
        for (inode, charged) in touched {
            let handle = inode.handle().and_then(|(kind, bytes)| KernelHandle::from_parts(kind, bytes));
            let Some(handle) = handle else { continue };
            let Ok(fd) = self.area.open_handle(&handle, libc::O_PATH | libc::O_NOFOLLOW) else {
                continue;
            };
            let Ok(stat) = stat_fd(&fd) else { continue };
            if stat.kind() != FileKind::File {
                continue;
            }
            let node = self.nodes.intern(Found { stat, handle: Some(handle), held: None });
            let mut state = node.state();
            state.charged = Some(*charged);
            self.accounting.late().push(&Arc::clone(&node), &mut state);
        }
    }
}
