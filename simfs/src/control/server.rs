//! The daemon's end of the control socket.
//!
//! One thread sleeps in poll(2) until somebody connects; nothing wakes it while nobody does. Each connection gets a
//! short-lived thread with a small stack. Invariants:
//! 1. At most [`MAX_CONNECTIONS`] are served at once; more wait in the socket's backlog.
//! 2. A client that says nothing for [`IDLE`], or does not take its answer, is dropped.
//! 3. Only root is answered: the directory, the socket's mode and the peer's credentials each say so.
//! 4. After [`Server::stop`] no thread of the server runs and the socket is gone.
//!
//! No locks but the table of open connections, held for single operations only.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use tracing::{debug, warn};

use super::client::{Address, ClientError};
use super::frame::{self, FrameError};
use super::protocol::{ErrorKind, Progress, Reply, Request, RequestError};

/// Connections served at the same time.
pub const MAX_CONNECTIONS: usize = 8;
/// How long a client may be silent, and how long it may take to read an answer.
pub const IDLE: Duration = Duration::from_secs(10);
/// Stack of each thread. Only pages that are touched cost memory.
const STACK: usize = 256 * 1024;

/// Answers requests; called from several threads at once.
pub trait Service: Send + Sync {
    /// Carries out one request. Long ones report how far they are now and then.
    ///
    /// Must not call [`Server::stop`]: the calling thread is one of those that it waits for.
    fn handle(&self, request: Request, progress: &mut dyn FnMut(Progress) -> bool) -> Reply;
}

/// A listening control socket; stops when dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
    socket: PathBuf,
}

/// What the threads of one server share.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// Rouses the listening thread: a connection ended, or the server stops.
    wake: OwnedFd,
    /// A leaf lock: nothing else is locked, and nothing is waited for, while it is held.
    open: Mutex<HashMap<u64, Connection>>,
}

/// One connection and its thread.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
    ended: bool,
}

impl Server {
    /// Binds `run_dir/control.sock` and listens on it; see [`bind`] and [`Self::serve`].
    ///
    /// # Errors
    /// Theirs.
    pub fn start(run_dir: &Path, service: Arc<dyn Service>) -> io::Result<Self> {
        Self::serve(bind(run_dir)?, run_dir, service)
    }

    /// Listens on a socket that [`bind`] made, here or in a predecessor.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn serve(
        listener: UnixListener,
        run_dir: &Path,
        service: Arc<dyn Service>,
    ) -> io::Result<Self> {
        let socket = run_dir.join(super::SOCKET_NAME);
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            open: Mutex::new(HashMap::new()),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("control".into())
            .stack_size(STACK)
            .spawn(move || listen(&listener, &theirs, &service))?;
        Ok(Self {
            shared,
            listener: Some(thread),
            socket,
        })
    }

    /// Ends every connection once its request in hand is answered, and removes the socket.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake();
        let _panicked = listener.join();
        if let Err(error) = fs::remove_file(&self.socket) {
            debug!(socket = %self.socket.display(), %error, "control socket not removed");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn wake(&self) {
        // Fails only when the counter is full, and then the thread is awake already.
        let _full = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Forgets the connections that have ended; the number of those that have not.
    fn reap(&self) -> usize {
        let mut open = self.open.lock();
        open.retain(|_, connection| !connection.ended);
        open.len()
    }

    /// Makes every connection end: at once if idle, after its answer if not.
    fn close(&self) {
        let threads: Vec<_> = {
            let mut open = self.open.lock();
            open.drain()
                .filter_map(|(_, connection)| {
                    let _closed = connection.stream.shutdown(Shutdown::Read);
                    connection.thread
                })
                .collect()
        };
        for thread in threads {
            let _panicked = thread.join();
        }
    }
}

/// Makes the socket `run_dir/control.sock`. The directory is made if absent and closed to all but its owner; the socket
/// of a dead daemon is replaced.
///
/// # Errors
/// `AddrInUse` when a live daemon listens there; else what the system calls say.
pub fn bind(run_dir: &Path) -> io::Result<UnixListener> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run_dir)?;
    fs::set_permissions(run_dir, Permissions::from_mode(0o700))?;
    let socket = run_dir.join(super::SOCKET_NAME);
    let address = Address::of(run_dir)?;
    match address.connect() {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(ClientError::NotRunning) => {}
        Err(error) => return Err(io::Error::other(error)),
    }
    match fs::remove_file(&socket) {
        Ok(()) => debug!(socket = %socket.display(), "replaced the socket of a dead daemon"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(address.path())?;
    fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The listening thread.
fn listen(listener: &UnixListener, shared: &Arc<Shared>, service: &Arc<dyn Service>) {
    let mut serial = 0u64;
    while !shared.is_stopping() {
        let room = shared.reap() < MAX_CONNECTIONS;
        let ready = if room {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let mut fds = [
            PollFd::new(&shared.wake, PollFlags::IN),
            PollFd::new(listener, ready),
        ];
        if let Err(error) = poll(&mut fds, None)
            && error != rustix::io::Errno::INTR
        {
            warn!(%error, "control socket: poll failed, no longer listening");
            break;
        }
        let mut counter = [0u8; 8];
        let _empty = rustix::io::read(&shared.wake, &mut counter);
        if room && !shared.is_stopping() {
            accept(listener, shared, service, &mut serial);
        }
    }
    shared.close();
}

/// Takes one connection if there is one; the next round of poll(2) tells of more.
fn accept(
    listener: &UnixListener,
    shared: &Arc<Shared>,
    service: &Arc<dyn Service>,
    serial: &mut u64,
) {
    match listener.accept() {
        Ok((stream, _)) => {
            *serial = serial.wrapping_add(1);
            if let Err(error) = serve_in_thread(stream, *serial, shared, service) {
                warn!(%error, "control connection not served");
            }
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => {
            warn!(%error, "control socket: accept failed");
            // Out of descriptors or memory: the connection stays in the backlog, and poll would return at once.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn serve_in_thread(
    stream: UnixStream,
    serial: u64,
    shared: &Arc<Shared>,
    service: &Arc<dyn Service>,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let kept = Connection {
        stream: stream.try_clone()?,
        thread: None,
        ended: false,
    };
    shared.open.lock().insert(serial, kept);
    let (theirs, service) = (Arc::clone(shared), Arc::clone(service));
    let spawned = thread::Builder::new()
        .name("control-peer".into())
        .stack_size(STACK)
        .spawn(move || {
            // The guard says that the connection ended, also when the service panics.
            let _ended = Ended {
                shared: theirs,
                serial,
            };
            if let Err(error) = serve(&stream, &*service) {
                debug!(%error, "control connection ended");
            }
        });
    let mut open = shared.open.lock();
    match spawned {
        Ok(thread) => {
            if let Some(connection) = open.get_mut(&serial) {
                connection.thread = Some(thread);
            }
            Ok(())
        }
        Err(error) => {
            open.remove(&serial);
            Err(error)
        }
    }
}

/// Marks a connection as ended and rouses the listening thread.
struct Ended {
    shared: Arc<Shared>,
    serial: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(connection) = self.shared.open.lock().get_mut(&self.serial) {
            connection.ended = true;
            let _closed = connection.stream.shutdown(Shutdown::Both);
        }
        self.shared.wake();
    }
}

/// One connection, until the client has no more requests.
fn serve(stream: &UnixStream, service: &dyn Service) -> Result<(), FrameError> {
    let peer = rustix::net::sockopt::socket_peercred(stream).map_err(io::Error::from)?;
    if !peer.uid.is_root() {
        warn!(
            uid = peer.uid.as_raw(),
            "control connection refused: not root"
        );
        return Ok(());
    }
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let request = match frame::read::<Request>(&mut reader, frame::MAX_REQUEST) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(FrameError::Io(error)) => return Err(error.into()),
            Err(error) => {
                let refusal = RequestError::new(ErrorKind::Malformed, error.to_string());
                return frame::write(&mut writer, &Reply::Error(refusal), frame::MAX_REPLY);
            }
        };
        let reply = service.handle(request, &mut |progress| {
            frame::write(&mut writer, &Reply::Progress(progress), frame::MAX_REPLY).is_ok()
        });
        send(writer, &reply)?;
    }
}

/// Sends a reply, or in place of one that is too long, an error that says so.
fn send(mut writer: &UnixStream, reply: &Reply) -> Result<(), FrameError> {
    match frame::write(&mut writer, reply, frame::MAX_REPLY) {
        Err(error @ (FrameError::TooLong { .. } | FrameError::Malformed(_))) => {
            let refusal = RequestError::new(ErrorKind::System, error.to_string());
            frame::write(&mut writer, &Reply::Error(refusal), frame::MAX_REPLY)
        }
        sent => sent,
    }
}
