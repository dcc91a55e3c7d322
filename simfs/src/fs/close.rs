//! The last of an open file: release, and the end of an inode whose name went before.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Fs;
use crate::error::{FsError, FsResult};
use crate::handle::{HandleId, OpenFile};
use crate::node::{Node, Presence, State};
use crate::sys::stat::{Stat, stat_fd};

impl Fs {
    /// Closes a handle for good.
    ///
    /// # Errors
    /// [`FsError::UnknownHandle`] for a handle that is not open.
    pub fn release(&self, handle: HandleId) -> FsResult<()> {
        let (open, place) = self
            .files
            .remove(handle)
            .ok_or(FsError::UnknownHandle(handle))?;
        let node = open.node.clone();
        {
            let mut state = node.state();
            let fd = open.fd.lock().take();
            let has_tail = open.access.writes()
                && state.is_linked()
                && self.settle_writer(&open, fd.as_deref(), &mut state);
            drop(fd);
            if has_tail {
                self.settle_tail(&node, &mut state);
            }
            if open.maps_backing() {
                // What was stored through the mapping may still be allocated.
                self.accounting.late().push(&node, &mut state);
            }
            self.dismiss(&node, &mut state, open.access, open.maps_backing());
            self.finish_unlinked(&node, &mut state);
        }
        self.files.forget(place);
        self.nodes.tidy(&node);
        Ok(())
    }

    /// A handle that could write is being closed: what it left is settled. Says whether space lies behind the end.
    fn settle_writer(&self, open: &OpenFile, fd: Option<&OwnedFd>, state: &mut State) -> bool {
        let node = &open.node;
        let mut has_tail = state.open.as_ref().is_some_and(|open| open.tail);
        // What was not changed through this handle is known.
        if (open.is_changed() || open.maps_backing())
            && let Some(seen) = fd.and_then(|fd| stat_fd(fd.as_fd()).ok())
        {
            self.accounting.record(node, state, &seen);
            let growth = self.accounting.growth();
            has_tail = growth.has_tail(seen.size, seen.blocks.bytes());
        }
        has_tail
    }

    /// What lies behind the end goes with the close, which is over, or later by itself. The next late look may be far.
    fn settle_tail(&self, node: &Arc<Node>, state: &mut State) {
        let path = self.nodes.descriptor(node);
        if let Ok(seen) = path.and_then(|path| stat_fd(path.as_fd())) {
            self.accounting.record(node, state, &seen);
        }
        self.accounting.late().push(node, state);
    }

    /// After a close: an inode without a name that nobody has open any more is gone.
    pub(super) fn finish_unlinked(&self, node: &Node, state: &mut State) {
        if state.open.is_some() || !matches!(state.presence, Presence::Unlinked) {
            return;
        }
        let last = state.pin.take().and_then(|pin| stat_fd(pin.as_fd()).ok());
        self.nodes.drop_descriptor(node);
        if let Some(last) = last {
            state.presence = Presence::Gone(Box::new(Stat { nlink: 0, ..last }));
        }
        self.accounting.record_gone(node, state);
        state.release_watch();
        self.accounting.note_unlinked_open(false);
        if let Some(deposit) = state.deposit.take() {
            self.withdraw(deposit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::BorrowedFd;

    use super::super::testbed::{Bed, ROOT, at};
    use super::super::write::WriteRequest;

    /// S5: blocks that the backing file system added by itself are settled at the close of who wrote; a handle that
    /// changed nothing costs no look.
    #[test]
    fn what_a_writer_left_is_settled_at_its_close() {
        for (is_written, settled) in [(true, 64), (false, 0)] {
            let mut bed = Bed::new();
            let path = bed.dir.path().join("f");
            bed.ask(|fs, call| {
                let none = &mut |_: BorrowedFd<'_>| Err(io::Error::other("none"));
                let created = fs.create(call, at("f"), 0o100_644, 0, libc::O_WRONLY, none);
                let (entry, handle, _) = created.unwrap();
                let request = WriteRequest {
                    offset: 0,
                    data: &[1; 4096],
                    from_cache: false,
                    kill_setid: false,
                    sync: false,
                    whole: false,
                    is_repeated: false,
                };
                if is_written {
                    fs.write(ROOT, handle, request).unwrap();
                }
                std::fs::write(&path, vec![1; 65536]).unwrap();
                fs.release(handle).unwrap();
                let charged = entry.node.state().charged.unwrap();
                assert_eq!(charged.usage.space.get(), settled * 1024, "{is_written}");
            });
        }
    }
}
