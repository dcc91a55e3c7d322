//! Takes listeners from container runtimes, one connection after the other in the order they connect: an `exec` relies
//! on what was learnt at `create`.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};

use super::Shared;
use crate::fault;
use crate::keeper::DepositNumber;
use crate::quotactl::registration::{PIECE_MAX, Registration};
use crate::sys::inherited::Inherited;
use crate::sys::task::Task;

/// A runtime's connection.
pub(super) struct Connection {
    stream: UnixStream,
    /// The keeper's number; `None` where it ends with this daemon.
    kept: Option<DepositNumber>,
}

/// The connections that a predecessor's keeper has accepted on this socket, and that nobody has heard out.
pub(super) fn left(socket: &UnixListener, descriptors: &mut Inherited) -> Vec<Connection> {
    let Ok(ours) = rustix::net::getsockname(socket) else {
        return Vec::new();
    };
    let taken =
        descriptors.take_all(|fd| rustix::net::getsockname(fd).is_ok_and(|name| name == ours));
    let connections = taken.into_iter().map(|(number, fd)| Connection {
        stream: fd.into(),
        kept: Some(DepositNumber::new(number)),
    });
    connections.collect()
}

impl Shared {
    /// The registering thread; those that are `left` connected before all others.
    pub(super) fn register_runtimes(&self, socket: &UnixListener, left: Vec<Connection>) {
        for connection in left {
            self.welcome(connection);
        }
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
        match self.accept(socket) {
            Ok(connection) => self.welcome(connection),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn accept(&self, socket: &UnixListener) -> io::Result<Connection> {
        let accepted = self.kept.as_ref().map(|keep| keep.accept());
        let (stream, kept) = match accepted {
            Some(Ok((number, fd))) => (fd.into(), Some(number)),
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            // Nobody keeps it: its listener is lost should the daemon die before that is kept.
            _ => (socket.accept()?.0, None),
        };
        Ok(Connection { stream, kept })
    }

    fn welcome(&self, connection: Connection) {
        let [connected, _, _, registered] = fault::REGISTERING;
        fault::point(connected);
        self.hear(&connection.stream);
        fault::point(registered);
        // Closed with something to read in it, the runtime would find it reset.
        let _ = connection.stream.set_nonblocking(true);
        let _ = (&connection.stream).read(&mut vec![0; PIECE_MAX]);
        if let (Some(keep), Some(number)) = (&self.kept, connection.kept) {
            keep.close(number);
        }
    }

    fn hear(&self, stream: &UnixStream) {
        let registration = match Registration::read(stream) {
            Ok(Some(registration)) => registration,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(op = "quotactl", %error, "registration refused");
                return;
            }
        };
        let [_, heard, ..] = fault::REGISTERING;
        fault::point(heard);
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
