//! The few ioctls that are passed on: inode flags as chattr(1) and lsattr(1) use them.
//!
//! Who may set which flag the kernel has checked. The project id and its inheritance are refused: a host may use project
//! quotas of its own below.
//!
//! # Source
//! ioctl_iflags(2), ioctl_xfs_fsgetxattr(2).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Fs;
use crate::error::{FsError, FsResult};
use crate::handle::HandleId;
use crate::node::NodeId;
use crate::sys::file;
use crate::sys::inode_flags::{self, ExtendedFlags};
use crate::sys::stat::stat_fd;

const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_IOC32_GETFLAGS: u32 = 0x8004_6601;
const FS_IOC32_SETFLAGS: u32 = 0x4004_6602;
const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
/// `FS_IMMUTABLE_FL`.
const IMMUTABLE: u32 = 0x10;
/// `FS_APPEND_FL`.
const APPEND_ONLY: u32 = 0x20;
/// `FS_XFLAG_IMMUTABLE`.
const EXTENDED_IMMUTABLE: u32 = 0x8;
/// `FS_XFLAG_APPEND`.
const EXTENDED_APPEND_ONLY: u32 = 0x10;
/// `FS_PROJINHERIT_FL`.
const PROJECT_INHERIT: u32 = 0x2000_0000;
/// `FS_XFLAG_PROJINHERIT`.
const EXTENDED_PROJECT_INHERIT: u32 = 0x0000_0200;

impl Fs {
    /// Answers one of the ioctls; the bytes returned go to the caller.
    ///
    /// # Errors
    /// ENOTTY for any other ioctl; EPERM for project ids; the backing file system's own.
    pub fn ioctl(
        &self,
        id: NodeId,
        handle: HandleId,
        command: u32,
        input: &[u8],
    ) -> FsResult<Vec<u8>> {
        match command {
            FS_IOC_GETFLAGS | FS_IOC32_GETFLAGS => {
                let flags = inode_flags::flags(self.ioctl_fd(id, handle)?.as_fd())?;
                Ok(flags.to_ne_bytes().to_vec())
            }
            FS_IOC_SETFLAGS | FS_IOC32_SETFLAGS => {
                let wanted = u32::from_ne_bytes(first_bytes(input)?);
                let fd = self.ioctl_fd(id, handle)?;
                let present = inode_flags::flags(fd.as_fd())?;
                if (wanted ^ present) & PROJECT_INHERIT != 0 {
                    return Err(FsError::NotPermitted);
                }
                let forbids = wanted & (IMMUTABLE | APPEND_ONLY) != 0;
                self.set_and_look(id, &fd, forbids, |fd| {
                    inode_flags::set_flags(fd.as_fd(), wanted)
                })
            }
            FS_IOC_FSGETXATTR => {
                let flags = inode_flags::extended_flags(self.ioctl_fd(id, handle)?.as_fd())?;
                Ok(flags.to_bytes().to_vec())
            }
            FS_IOC_FSSETXATTR => {
                let wanted = ExtendedFlags::from_bytes(&first_bytes(input)?);
                let fd = self.ioctl_fd(id, handle)?;
                let present = inode_flags::extended_flags(fd.as_fd())?;
                let inherits = (wanted.flags ^ present.flags) & EXTENDED_PROJECT_INHERIT != 0;
                if wanted.project != present.project || inherits {
                    return Err(FsError::NotPermitted);
                }
                let forbids = wanted.flags & (EXTENDED_IMMUTABLE | EXTENDED_APPEND_ONLY) != 0;
                self.set_and_look(id, &fd, forbids, |fd| {
                    inode_flags::set_extended_flags(fd.as_fd(), wanted)
                })
            }
            _ => Err(FsError::NoSuchIoctl),
        }
    }

    fn set_and_look(
        &self,
        id: NodeId,
        fd: &OwnedFd,
        forbids_writing: bool,
        set: impl FnOnce(&OwnedFd) -> std::io::Result<()>,
    ) -> FsResult<Vec<u8>> {
        let node = self.nodes.get(id)?;
        let mut state = node.state();
        state.fresh = None;
        if forbids_writing {
            self.keep_spare(id, &mut state);
            // Who opens it from now on is to be asked how.
            self.nodes.drop_backing(&node);
        }
        let _watch = self.accounting.watch(&node, &state);
        set(fd)?;
        self.forget_attributes(id);
        let seen = stat_fd(fd.as_fd())?;
        self.accounting.record(&node, &mut state, &seen);
        Ok(Vec::new())
    }

    fn ioctl_fd(&self, id: NodeId, handle: HandleId) -> FsResult<Arc<OwnedFd>> {
        if let Ok(file) = self.files.get(handle)
            && file.node.id() == id
        {
            return Ok(self.descriptor_of(&file)?);
        }
        let (_, path) = self.node_and_fd(id)?;
        Ok(Arc::new(file::reopen(
            path.as_fd(),
            libc::O_RDONLY | libc::O_NONBLOCK,
        )?))
    }
}

fn first_bytes<const N: usize>(input: &[u8]) -> FsResult<[u8; N]> {
    input.first_chunk::<N>().copied().ok_or(FsError::Invalid)
}
