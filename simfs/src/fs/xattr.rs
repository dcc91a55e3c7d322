//! Extended attributes and access lists.
//!
//! The kernel has checked who may touch which name space (xattr(7)); what passes here goes to the backing file
//! system. A value may need a block of its own, so setting one is a quota event.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use quota::{Usage, Want};
use rustix::fs::XattrFlags;

use super::again::said_of_attribute;
use super::{Call, Fs, Place};
use crate::accounting::Caller;
use crate::error::{FsError, FsResult};
use crate::fault;
use crate::node::{Node, NodeId, Presence};
use crate::shared::flights::Step;
use crate::sys::stat::{Stat, stat_fd};
use crate::sys::{file, xattr};

const ACCESS_ACL: &str = "system.posix_acl_access";

impl Fs {
    /// Reads a value into the buffer, or says its length where the buffer is empty.
    ///
    /// # Errors
    /// ENODATA, ERANGE and the like from the backing file system.
    pub fn getxattr(&self, id: NodeId, name: &OsStr, buffer: &mut [u8]) -> FsResult<usize> {
        let (_, fd) = self.node_and_fd(id)?;
        Ok(xattr::get(fd.as_fd(), name, buffer)?)
    }

    /// Reads the list of names, or says its length where the buffer is empty.
    ///
    /// # Errors
    /// ERANGE and the like from the backing file system.
    pub fn listxattr(&self, id: NodeId, buffer: &mut [u8]) -> FsResult<usize> {
        let (_, fd) = self.node_and_fd(id)?;
        Ok(xattr::list(fd.as_fd(), buffer)?)
    }

    /// Sets a value.
    ///
    /// # Errors
    /// EDQUOT where it may need space that does not fit; the backing file system's own.
    pub fn setxattr(
        &self,
        call: Call<'_>,
        id: NodeId,
        name: &OsStr,
        value: &[u8],
        mut flags: XattrFlags,
    ) -> FsResult<()> {
        let caller = call.caller;
        let (node, fd) = self.node_and_fd(id)?;
        if flags.contains(XattrFlags::CREATE) {
            if said_of_attribute(call, id, name, Step::SetAttribute) {
                // If it is there now, this very call made it.
                flags.remove(XattrFlags::CREATE);
            } else if xattr::get(fd.as_fd(), name, &mut []).is_err() {
                let place = Place { parent: id, name };
                self.describe(call, Step::SetAttribute, place, 0);
            }
        }
        let mut state = node.state();
        state.fresh = None;
        let owner = state.owner().ok_or(FsError::UnknownNode(id))?;
        let length = u64::try_from(value.len()).map_err(|_| FsError::Invalid)?;
        let space = self.accounting.growth().attribute(length);
        let want = [Want::new(owner, Usage::space(space))];
        let touched = [(node.inode_id(), state.charged)];
        let promise = self.accounting.reserve(caller, &touched, &want, || {
            let fits = self.fits_in_present_block(&fd, name, value.len());
            Ok(if fits {
                smallvec::SmallVec::new()
            } else {
                want.iter().copied().collect()
            })
        })?;
        let result = xattr::set(fd.as_fd(), name, value, flags);
        fault::point("attribute");
        let seen = stat_fd(fd.as_fd())?;
        self.accounting.settle(&node, &mut state, promise, &seen);
        node.note_mode(&seen);
        drop(state);
        result?;
        if name == ACCESS_ACL {
            self.drop_setgid_of_stranger(caller, &node, &fd, &seen)?;
        }
        Ok(())
    }

    /// Removes a value.
    ///
    /// # Errors
    /// ENODATA and the like from the backing file system.
    pub fn removexattr(&self, call: Call<'_>, id: NodeId, name: &OsStr) -> FsResult<()> {
        let (node, fd) = self.node_and_fd(id)?;
        let is_present = xattr::get(fd.as_fd(), name, &mut []).is_ok();
        if !is_present && said_of_attribute(call, id, name, Step::RemoveAttribute) {
            return Ok(());
        }
        if is_present {
            let place = Place { parent: id, name };
            self.describe(call, Step::RemoveAttribute, place, 0);
        }
        let mut state = node.state();
        state.fresh = None;
        let _watch = self.accounting.watch(&node, &state);
        let result = xattr::remove(fd.as_fd(), name);
        fault::point("attribute");
        let seen = stat_fd(fd.as_fd())?;
        self.accounting.record(&node, &mut state, &seen);
        Ok(result?)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// EINVAL for what is no symbolic link.
    pub fn readlink(&self, id: NodeId) -> FsResult<CString> {
        let (_, fd) = self.node_and_fd(id)?;
        Ok(crate::sys::name::read_link(fd.as_fd())?)
    }

    pub(super) fn node_and_fd(&self, id: NodeId) -> FsResult<(Arc<Node>, Arc<OwnedFd>)> {
        let node = self.nodes.get(id)?;
        let pin = {
            let state = node.state();
            if matches!(state.presence, Presence::Gone(_)) {
                return Err(FsError::UnknownNode(id));
            }
            state.pin.clone()
        };
        let fd = match pin {
            Some(pin) => pin,
            None => self.nodes.descriptor(&node)?,
        };
        Ok((node, fd))
    }

    /// Whether a value certainly needs no new block: it replaces one that is at least as long.
    fn fits_in_present_block(&self, fd: &OwnedFd, name: &OsStr, length: usize) -> bool {
        xattr::get(fd.as_fd(), name, &mut []).is_ok_and(|present| present >= length)
    }

    /// An access list set by somebody outside the file's group takes the setgid bit away.
    ///
    /// # Source
    /// Linux `fs/posix_acl.c`, `posix_acl_update_mode`.
    fn drop_setgid_of_stranger(
        &self,
        caller: Caller,
        node: &Node,
        fd: &OwnedFd,
        seen: &Stat,
    ) -> FsResult<()> {
        if seen.mode & libc::S_ISGID == 0 || seen.is_dir() && caller.uid == 0 {
            return Ok(());
        }
        if self.accounting.may_keep_setgid(caller, seen.owner().gid) {
            return Ok(());
        }
        file::chmod(fd.as_fd(), seen.permissions() & !libc::S_ISGID)?;
        node.note_mode(&stat_fd(fd.as_fd())?);
        Ok(())
    }
}
