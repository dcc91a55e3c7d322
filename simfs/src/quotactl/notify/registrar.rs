//! Takes listeners from container runtimes, one connection after the other in the order they connect: an `exec` relies
//! on what was learnt at `create`.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};

use super::Shared;
use crate::quotactl::registration::Registration;
use crate::sys::task::Task;

impl Shared {
    /// The registering thread.
    pub(super) fn register_runtimes(&self, socket: &UnixListener) {
        while !self.queue.is_closed() {
            if let Err(error) = self.register_next(socket) {
                self.pause("registering", &error);
            }
        }
    }

    fn register_next(&self, socket: &UnixListener) -> io::Result<()> {
        let watched = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = [watched(self.stop.as_fd()), watched(socket.as_fd())];
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            result => result?,
        };
        match socket.accept() {
            Ok((stream, _)) => self.welcome(&stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn welcome(&self, stream: &UnixStream) {
        let registration = match Registration::read(stream) {
            Ok(Some(registration)) => registration,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(op = "quotactl", %error, "registration refused");
                return;
            }
        };
        if let Some(pid) = registration.member {
            (self.on_member)(pid);
        }
        let task = registration
            .member
            .map(|pid| Task::open(&self.server.proc, pid));
        let task = task.and_then(Result::ok);
        if let Some(task) = &task {
            // One that is gone already is asked again when it matters.
            let _learnt = self.server.home.learn(task);
        }
        let home = task.and_then(|task| task.user_namespace().ok());
        for fd in registration.listeners {
            match self.register(fd, home) {
                Ok(()) => tracing::info!(op = "quotactl", container = registration.container),
                Err(error) => tracing::warn!(op = "quotactl", %error, "registration refused"),
            }
        }
    }
}

/// Makes the socket where runtimes connect; one that a dead daemon left is replaced. Its directory is made with mode 0700
/// if missing: whoever can connect can register.
///
/// # Errors
/// Those of the system calls.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        _ => {}
    }
    let socket = UnixListener::bind(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
