//! The walk of a recount over a private area in service; see [`crate::recount`].

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use quota::InodeId;

use super::Fs;
use crate::accounting::charged_as;
use crate::error::FsResult;
use crate::node::{Node, Presence};
use crate::recount::Recount;
use crate::sys::handle::KernelHandle;
use crate::sys::stat::stat_fd;
use crate::sys::{dirent, file};

/// How many inodes are looked at between two reports.
const REPORT_EVERY: u64 = 1024;

/// Hears how far a recount is; false stops it.
pub type Report<'a> = dyn FnMut(u64) -> bool + 'a;

impl Fs {
    /// Brings the file system of the private area to the disk, which gives a place to all that was written there. Before a recount:
    /// who wrote before a daemon's death is watched by nobody, and blocks that come late would be missed (see
    /// [`crate::scan::scan_at_rest`]).
    ///
    /// # Errors
    /// The backing file system's own.
    pub fn write_out(&self) -> FsResult<()> {
        let whole = self.area.open_for_sync()?;
        Ok(file::syncfs(&whole)?)
    }

    /// Looks at every inode once, those without a name included; goes on where the recount was stopped. `report` hears now
    /// and then how many were looked at, may take its time, and says whether to go on.
    ///
    /// # Errors
    /// The backing file system's own; entries that vanish meanwhile are no error. `Interrupted` where it was stopped.
    pub fn recount(&self, recount: &Recount, report: &mut Report<'_>) -> FsResult<()> {
        recount.begin(self.nodes.root());
        self.visit(self.nodes.root(), recount)?;
        while let Some(left) = recount.next_left() {
            recount.found_left(self.find_left(&left)?);
        }
        self.walk(recount, report)?;
        for node in self.nodes.snapshot() {
            if matches!(node.state().presence, Presence::Unlinked) {
                self.visit(&node, recount)?;
            }
        }
        while recount.take_moved() {
            self.walk(recount, report)?;
        }
        go_on(report(recount.seen()))
    }

    /// A directory that an earlier daemon had still to walk; `None` where it is gone.
    fn find_left(&self, left: &InodeId) -> FsResult<Option<Arc<Node>>> {
        let handle = left
            .handle()
            .and_then(|(kind, bytes)| KernelHandle::from_parts(kind, bytes));
        let Some(handle) = handle else {
            return Ok(None);
        };
        let opened = self
            .area
            .open_handle(&handle, libc::O_PATH | libc::O_NOFOLLOW);
        let fd = match opened {
            Ok(fd) => fd,
            Err(error) if vanished(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = self.identify(fd.as_fd())?;
        if !found.stat.is_dir() || found.stat.nlink == 0 {
            return Ok(None);
        }
        Ok(Some(self.nodes.intern(found)?))
    }

    /// Looks at all that is below the directories that are pending. They are held as nodes, not as descriptors.
    fn walk(&self, recount: &Recount, report: &mut Report<'_>) -> FsResult<()> {
        let mut unreported = 0;
        while let Some(dir) = recount.next_pending() {
            match self.list(&dir, recount, &mut unreported, report) {
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
                recount.push(node);
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
