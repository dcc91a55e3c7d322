//! syncfs(2) from inside the VE. The kernel writes the mount's own dirty pages out and tells the daemon nothing, so what was
//! written to the private area would stay in memory.
//!
//! The caller waits while the private area's file system is written out; then the kernel carries the call out as it
//! stands. So what was written before the call is on the disk when it returns, and what was stored through a mapping that
//! has ended, since its end waits for the write-out. The stores of one that still stands are only on their way then: for a
//! FUSE file system the kernel starts their write-out and waits for none. The daemon cannot have it wait either: whoever
//! invalidates these pages through the device waits, where no signal reaches it, for a request that the daemon has to serve,
//! so a daemon that died meanwhile would never end, and the mount would have neither a successor nor an end.
//!
//! Nothing is decided on the argument: whoever exchanges the descriptor meanwhile has another file system synced, as
//! everybody may. That is why this call, and no other, is handed on to the kernel.
//!
//! # Source
//! Linux `fs/sync.c`, `sync_filesystem`; `fs/fuse/inode.c`, `fuse_sync_fs`: FUSE_SYNCFS goes to virtiofs only;
//! `fs/fuse/file.c`, `fuse_vma_close`, `fuse_launder_folio`.

use super::{Listener, Server};
use crate::sys::seccomp::Notification;
use crate::sys::task::Task;

impl Server {
    /// Serves one syncfs(2) to the end.
    pub(super) fn answer_sync(
        &self,
        listener: &Listener,
        notification: &Notification,
        descriptor: u32,
    ) {
        let cookie = notification.cookie;
        let synced = match self.is_of_this_mount(notification.tid, descriptor) {
            true => (self.sync_backing)(),
            // Another file system, or a descriptor that is none: the kernel knows what to say.
            false => Ok(()),
        };
        let heard = match synced {
            Ok(()) => listener.notify.hand_on(cookie),
            Err(error) => {
                tracing::error!(op = "syncfs", %error, "the private area cannot be written out");
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                listener.notify.respond(cookie, errno)
            }
        };
        if let Err(error) = heard {
            tracing::debug!(op = "syncfs", tid = notification.tid, %error, "not heard");
        }
    }

    /// A caller that is gone, and whose number is another's by now, at worst has this mount synced for nobody.
    fn is_of_this_mount(&self, tid: u32, descriptor: u32) -> bool {
        Task::open(&self.proc, tid)
            .and_then(|task| task.descriptor_device(descriptor))
            .is_ok_and(|device| device == self.device)
    }
}
