//! Files registered for passthrough, by their plain numbers, which a successor can use as well.
//!
//! The protocol library has a type for them that closes the number on drop and can be made again only by an `unsafe` call.
//! So the numbers are opened and closed here, by [`fuse_dev`], and lent to the library for the one moment in which it
//! writes a reply. This file and no other outside `sys/` may therefore say `unsafe`; `tests/layering.rs` knows.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use fuser::{FileAttr, FileHandle, FopenFlags, Generation, ReplyCreate, ReplyOpen};

use crate::open::BackingToken;
use crate::sys::fuse_dev::{self, BackingId};

/// The kernel's number for a backing file; closed on drop.
#[derive(Debug)]
pub(super) struct Backing {
    id: BackingId,
    device: Arc<OwnedFd>,
}

impl Backing {
    /// Registers a file.
    pub(super) fn open(device: &Arc<OwnedFd>, file: BorrowedFd<'_>) -> io::Result<Self> {
        let id = fuse_dev::backing_open(device, file)?;
        Ok(Self::adopt(device, id.get()))
    }

    /// Takes over a number that a predecessor registered on the same connection.
    pub(super) fn adopt(device: &Arc<OwnedFd>, number: u32) -> Self {
        Self {
            id: BackingId::new(number),
            device: device.clone(),
        }
    }

    pub(super) fn reply_open(&self, reply: ReplyOpen, fh: FileHandle, flags: FopenFlags) {
        // SAFETY: the number belongs to this connection and stays open as long as `self`; the library's owner of it is
        // dissolved below without closing it.
        let lent = unsafe { reply.wrap_backing(self.id.get()) };
        reply.opened_passthrough(fh, flags, &lent);
        let _still_ours = lent.into_raw();
    }

    pub(super) fn reply_create(
        &self,
        reply: ReplyCreate,
        ttl: &Duration,
        attr: &FileAttr,
        generation: Generation,
        fh: FileHandle,
        flags: FopenFlags,
    ) {
        // SAFETY: as in `reply_open`.
        let lent = unsafe { reply.wrap_backing(self.id.get()) };
        reply.created_passthrough(ttl, attr, generation, fh, flags, &lent);
        let _still_ours = lent.into_raw();
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        // Once the connection has ended the kernel has closed them all.
        if let Err(error) = fuse_dev::backing_close(&self.device, self.id) {
            tracing::debug!(id = self.id.get(), %error, "backing file not closed");
        }
    }
}

impl BackingToken for Backing {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn number(&self) -> u32 {
        self.id.get()
    }
}
