//! The thread that sleeps over all listeners and takes their requests while the queue has room.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};

use super::{Request, Shared};
use crate::quotactl::serve::Listener;

impl Shared {
    /// The receiving thread.
    pub(super) fn receive(&self) {
        while !self.queue.is_closed() {
            if let Err(error) = self.receive_once() {
                self.pause("receiving", &error);
            }
        }
    }

    /// Waits until something happens, and takes at most one request per listener.
    fn receive_once(&self) -> io::Result<()> {
        let listeners = self.registry.lock().listeners.clone();
        let watched = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = vec![watched(self.stop.as_fd()), watched(self.wake.as_fd())];
        if self.queue.has_room() {
            fds.extend(
                listeners
                    .iter()
                    .map(|listener| watched(listener.notify.as_fd())),
            );
        }
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            result => result?,
        };
        let mut events = fds.iter().skip(1).map(PollFd::revents);
        if events.next().is_some_and(|event| !event.is_empty()) {
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        for (listener, event) in listeners.iter().zip(events) {
            if event.contains(PollFlags::IN) {
                self.take_request(listener);
            } else if !event.is_empty() {
                self.forget(listener);
            }
        }
        Ok(())
    }

    fn take_request(&self, listener: &Arc<Listener>) {
        if !self.queue.has_room() {
            return;
        }
        let received = match self.kept.as_ref().zip(listener.kept) {
            Some((keep, kept)) => keep.receive(kept, &listener.notify),
            None => listener.notify.receive().map(|call| (call, None)),
        };
        match received {
            Ok((notification, kept)) => {
                self.queue.push(Request {
                    listener: Arc::clone(listener),
                    notification,
                    kept,
                });
            }
            // The caller died between poll(2) and here.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => {
                tracing::warn!(op = "quotactl", %error, "listener given up");
                self.forget(listener);
            }
        }
    }

    fn forget(&self, listener: &Arc<Listener>) {
        self.registry
            .lock()
            .listeners
            .retain(|known| !Arc::ptr_eq(known, listener));
        if let (Some(keep), Some(kept)) = (&self.kept, listener.kept) {
            keep.forget(kept);
        }
    }
}
