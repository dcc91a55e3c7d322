//! A request that a predecessor read and left unanswered, carried out where the kernel does not send it again.
//!
//! The protocol library takes requests from a descriptor and writes answers to it. So each such request gets a file of its
//! own and a session on it, which finds the request there. To everything below it is a request that was sent again
//! ([`RESENT`]).
//!
//! Invariant: its answer is on the way before its slot says so, as with any request, or a death between the two would have
//! it done twice. So as long as the request has its turn, the session's descriptor is the device ([`Detour`]); afterwards it
//! is the file again, where the session finds the order to end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use fuser::{Config, Session};
use rustix::fs::MemfdFlags;

use super::Adapter;
use super::handshake::{self, Handshake};
use crate::shared::Unanswered;
use crate::shared::flights::RESENT;
use crate::sys::fuse_dev::{self, NumberOf};

/// Where the opcode and the number stand in a request, in bytes; the number in an answer as well.
const OPCODE: usize = 4;
const UNIQUE: usize = 8;
/// `struct fuse_in_header`, in bytes.
const HEADER: u32 = 40;
/// `FUSE_DESTROY`: a session ends with it.
const DESTROY: u32 = 38;

/// The way of an answer past the file.
#[derive(Debug)]
pub(super) struct Detour {
    file: OwnedFd,
    /// Where the request ends.
    length: u64,
    device: Arc<OwnedFd>,
    session: OnceLock<NumberOf>,
    was_taken: AtomicBool,
}

/// As long as it lives the session writes to the device.
#[derive(Debug)]
#[must_use = "the detour ends when this is dropped"]
pub(super) struct OnDetour<'a>(&'a Detour, NumberOf);

impl Detour {
    /// The request's turn has come.
    pub(super) fn take(&self) -> io::Result<OnDetour<'_>> {
        let session = self.session.get().copied();
        let session = session.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        session.put(self.device.as_ref())?;
        self.was_taken.store(true, Ordering::Release);
        Ok(OnDetour(self, session))
    }
}

impl Drop for OnDetour<'_> {
    fn drop(&mut self) {
        let Self(detour, session) = self;
        let mut order = [0; HEADER as usize];
        put(&mut order, 0, HEADER.to_ne_bytes());
        put(&mut order, OPCODE, DESTROY.to_ne_bytes());
        let ended = rustix::io::pwrite(&detour.file, &order, detour.length)
            .map_err(io::Error::from)
            .and_then(|_| session.put(&detour.file));
        if let Err(error) = ended {
            // It would read requests that no successor finds.
            tracing::error!(%error, "the session of a single request cannot be ended");
            std::process::abort();
        }
    }
}

/// The request and its session.
#[derive(Debug)]
pub(super) struct Replay {
    session: Session<Adapter>,
    detour: Arc<Detour>,
    unique: u64,
}

impl Replay {
    /// Goes through the handshake once more; nothing is carried out yet.
    pub(super) fn prepare(
        left: &Unanswered,
        kept: &Handshake,
        mut adapter: Adapter,
        mut config: Config,
    ) -> io::Result<Self> {
        let file = rustix::fs::memfd_create(c"simfs-replay", MemfdFlags::CLOEXEC)?;
        let mut request = left.request.clone();
        put(&mut request, UNIQUE, left.unique.to_ne_bytes());
        rustix::io::pwrite(&file, &request, 0)?;
        let detour = Arc::new(Detour {
            file,
            length: u64::try_from(request.len()).map_err(io::Error::other)?,
            device: adapter.device.clone(),
            session: OnceLock::new(),
            was_taken: AtomicBool::new(false),
        });
        config.n_threads = Some(1);
        adapter.detour = Some(detour.clone());
        // It is one request's thread: near its caller it need not stay.
        adapter.callers = None;
        let session = handshake::again(kept, &detour.file, adapter, config)?;
        let _ = detour.session.set(NumberOf::of(session.as_fd()));
        Ok(Self {
            session,
            detour,
            unique: left.unique,
        })
    }

    /// Carries it out and answers.
    pub(super) fn run(self) {
        let Self {
            session,
            detour,
            unique,
        } = self;
        // It ends, one way or another, with the file.
        let _ = session.run();
        if detour.was_taken.load(Ordering::Acquire) {
            return;
        }
        // Refused before it had a turn: nothing was done for it.
        let answered = answer_in(&detour).and_then(|answer| match answer {
            Some(answer) => fuse_dev::answer(&detour.device, &answer),
            // Nothing that the library understands; its caller must not wait for ever.
            None => fuse_dev::answer_with(&detour.device, unique, libc::EIO),
        });
        if let Err(error) = answered {
            tracing::error!(unique, %error, "a request cannot be answered");
        }
    }
}

impl Adapter {
    /// The number of a request, with [`RESENT`] where a predecessor had it.
    pub(super) fn number_of(&self, unique: u64) -> u64 {
        match self.detour {
            Some(_) => unique | RESENT,
            None => unique,
        }
    }
}

/// What stands behind the request.
fn answer_in(detour: &Detour) -> io::Result<Option<Vec<u8>>> {
    let end = u64::try_from(rustix::fs::fstat(&detour.file)?.st_size).unwrap_or(0);
    let bytes = usize::try_from(end.saturating_sub(detour.length)).map_err(io::Error::other)?;
    let mut answer = vec![0; bytes];
    let read = rustix::io::pread(&detour.file, &mut answer, detour.length)?;
    answer.truncate(read);
    Ok((read >= fuse_dev::ANSWER_HEADER).then_some(answer))
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    let place = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    if let Some(place) = place {
        *place = value;
    }
}
