//! The walk of a recount over a private area in service; see [`crate::recount`].

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Fs;
use crate::accounting::charged_as;
use crate::error::FsResult;
use crate::node::{Node, Presence};
use crate::recount::Recount;
use crate::sys::stat::stat_fd;
use crate::sys::{dirent, file};

/// How many inodes are looked at between two reports.
const REPORT_EVERY: u64 = 1024;

/// Hears how far a recount is; false stops it.
pub type Report<'a> = dyn FnMut(u64) -> bool + 'a;

impl Fs {
    /// Looks at every inode once, those without a name included. `report` hears now and then how many were looked at, may take
    /// its time, and says whether to go on.
    ///
    /// # Errors
    /// The backing file system's own; entries that vanish meanwhile are no error. `Interrupted` where it was stopped.
    pub fn recount(&self, recount: &Recount, report: &mut Report<'_>) -> FsResult<()> {
        self.visit(self.nodes.root(), recount)?;
        self.walk(self.nodes.root().clone(), recount, report)?;
        for node in self.nodes.snapshot() {
            if matches!(node.state().presence, Presence::Unlinked) {
                self.visit(&node, recount)?;
            }
        }
        while let Some(moved) = recount.next_moved() {
            self.walk(moved, recount, report)?;
        }
        go_on(report(recount.seen()))
    }

    /// Looks at all that is below a directory. Directories still to be read are held as nodes, not as descriptors.
    fn walk(&self, top: Arc<Node>, recount: &Recount, report: &mut Report<'_>) -> FsResult<()> {
        let mut pending = vec![top];
        let mut unreported = 0;
        while let Some(dir) = pending.pop() {
            let listed = self.list(&dir, recount, &mut pending, &mut unreported, report);
            match listed {
                Err(crate::error::FsError::System(error)) if vanished(&error) => {}
                other => other?,
            }
            self.nodes.tidy(&dir);
        }
        Ok(())
    }

    fn list(
        &self,
        dir: &Arc<Node>,
        recount: &Recount,
        pending: &mut Vec<Arc<Node>>,
        unreported: &mut u64,
        report: &mut Report<'_>,
    ) -> FsResult<()> {
        let fd = self.nodes.descriptor(dir)?;
        let mut stream = dirent::DirStream::new(file::open_dir(fd.as_fd())?);
        while let Some(entry) = stream.next()? {
            if entry.is_dots() {
                continue;
            }
            let found = match self.find(fd.as_fd(), entry.os_name()) {
                Ok(found) => found,
                Err(error) if vanished(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let is_dir = found.stat.is_dir();
            let node = self.nodes.intern(found)?;
            self.visit(&node, recount)?;
            if is_dir {
                pending.push(node);
            } else {
                self.nodes.tidy(&node);
            }
            *unreported += 1;
            if *unreported >= REPORT_EVERY {
                *unreported = 0;
                go_on(report(recount.seen()))?;
            }
        }
        Ok(())
    }

    /// While a recount is under way: an inode got a name in a place that may have been walked already.
    pub(super) fn follow(&self, dir: &OwnedFd, name: &OsStr) -> FsResult<()> {
        let Some(recount) = self.accounting.recount() else {
            return Ok(());
        };
        let found = match self.find(dir.as_fd(), name) {
            Ok(found) => found,
            Err(error) if vanished(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let is_dir = found.stat.is_dir();
        let node = self.nodes.intern(found)?;
        self.visit(&node, &recount)?;
        if is_dir {
            recount.moved(node);
        } else {
            self.nodes.tidy(&node);
        }
        Ok(())
    }

    fn visit(&self, node: &Arc<Node>, recount: &Recount) -> FsResult<()> {
        let mut state = node.state();
        if state.charged.is_none() {
            return Ok(());
        }
        let fd = match &state.pin {
            Some(pin) => pin.clone(),
            None => match self.nodes.descriptor(node) {
                Ok(fd) => fd,
                Err(error) if vanished(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            },
        };
        let seen = stat_fd(fd.as_fd())?;
        if seen.nlink == 0 && state.is_linked() {
            // Found by a name that is gone since, and given back; somebody else still holds the inode for a moment.
            return Ok(());
        }
        if state.queued {
            // Written lately: what changed by itself since is settled, as the late look would.
            self.accounting.record(node, &mut state, &seen);
        }
        if recount.repairs() && state.charged != Some(charged_as(&seen)) {
            self.accounting
                .engine()
                .restate(node.inode_id(), charged_as(&seen));
            state.charged = Some(charged_as(&seen));
        }
        self.accounting.expect_less(node, &mut state, &seen);
        recount.visit(&node.inode_id(), state.charged, charged_as(&seen));
        Ok(())
    }
}

fn go_on(wanted: bool) -> FsResult<()> {
    match wanted {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::Interrupted, "it was stopped").into()),
    }
}

fn vanished(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}
