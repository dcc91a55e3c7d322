//! The tools' end of the control socket.

use std::io::{self, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use thiserror::Error;

use super::frame::{self, FrameError};
use super::protocol::{Progress, Reply, Request, RequestError};

/// How long an answer may take. Store calls are watched over by the daemon itself and end sooner.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the next sign of life of a check, or the end of an unmount, may take.
const LONG_PATIENCE: Duration = Duration::from_secs(600);
/// Longest path that a socket address holds, with its closing zero (unix(7)).
const ADDRESS_MAX: usize = 107;

/// Why a running VE could not be asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No daemon listens: the VE is not mounted, or its daemon died.
    #[error("no daemon is running")]
    NotRunning,
    /// The daemon would not carry out the request.
    #[error(transparent)]
    Refused(#[from] RequestError),
    /// The daemon did not answer in time.
    #[error("the daemon does not answer; see its log, or end it and mount again")]
    TimedOut,
    /// The daemon closed the connection without an answer.
    #[error("the daemon closed the connection without an answer (only root is answered)")]
    Closed,
    /// The answer was not one that fits.
    #[error("the daemon answered something else; tools and daemon differ in version: {0}")]
    Unexpected(String),
    /// The connection failed.
    #[error(transparent)]
    Frame(FrameError),
    /// The socket could not be reached.
    #[error("{}: {error}", socket.display())]
    Socket {
        /// Its path.
        socket: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                Self::TimedOut
            }
            error => Self::Frame(error),
        }
    }
}

/// A connection to one running VE.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the daemon whose run directory this is.
    ///
    /// # Errors
    /// `NotRunning` when there is no socket or nobody listens on it.
    pub fn connect(run_dir: &Path) -> Result<Self, ClientError> {
        let address = match Address::of(run_dir) {
            Ok(address) => address,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ClientError::NotRunning);
            }
            Err(error) => {
                return Err(ClientError::Socket {
                    socket: run_dir.join(super::SOCKET_NAME),
                    error,
                });
            }
        };
        Ok(Self {
            stream: address.connect()?,
        })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// `Refused` with the daemon's reason; else what went wrong between here and there.
    pub fn request(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.request_with_progress(request, &mut |_| {})
    }

    /// Asks, and tells how far the daemon is until the answer comes.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn request_with_progress(
        &mut self,
        request: &Request,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Reply, ClientError> {
        let patience = match request {
            Request::Check { .. } | Request::Stop { .. } | Request::Upgrade => LONG_PATIENCE,
            _ => PATIENCE,
        };
        self.stream
            .set_read_timeout(Some(patience))
            .map_err(FrameError::Io)?;
        self.stream
            .set_write_timeout(Some(PATIENCE))
            .map_err(FrameError::Io)?;
        frame::write(&mut &self.stream, request, frame::MAX_REQUEST)?;
        let mut reader = BufReader::new(&self.stream);
        loop {
            match frame::read::<Reply>(&mut reader, frame::MAX_REPLY)? {
                Some(Reply::Progress(step)) => progress(step),
                Some(Reply::Error(error)) => return Err(ClientError::Refused(error)),
                Some(reply) => return Ok(reply),
                None => return Err(ClientError::Closed),
            }
        }
    }
}

/// Where a control socket is, in a form that fits a socket address however long the path is.
#[derive(Debug)]
pub(super) struct Address {
    path: PathBuf,
    socket: PathBuf,
    /// What `path` leads through.
    _dir: Option<OwnedFd>,
}

impl Address {
    pub(super) fn of(run_dir: &Path) -> io::Result<Self> {
        let socket = run_dir.join(super::SOCKET_NAME);
        if socket.as_os_str().as_bytes().len() <= ADDRESS_MAX {
            return Ok(Self {
                path: socket.clone(),
                socket,
                _dir: None,
            });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(run_dir, flags, Mode::empty())?;
        let path = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), super::SOCKET_NAME).into();
        Ok(Self {
            path,
            socket,
            _dir: Some(dir),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn connect(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning,
            _ => ClientError::Socket {
                socket: self.socket.clone(),
                error,
            },
        })
    }
}
