//! What a container runtime sends when it has installed a filter: a JSON text, and the listener beside it.
//!
//! One connection per process start: `create` sends the listener of the VE's first process, each `exec` one more.
//! crun leaves the process numbers of an `exec` at zero, so the VE's user namespace is learnt at `create`.
//!
//! # Source
//! OCI runtime specification, "The Container Process State"; seen with crun 1.8 and runc 1.1.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg, sockopt,
};
use serde::Deserialize;

/// Longest text that is read; annotations of a container can be long.
const TEXT_MAX: usize = 1 << 20;
/// Most descriptors in one message.
const DESCRIPTORS_MAX: usize = 16;
/// Most bytes that a runtime's message brings along with its descriptors: the kernel makes a new piece after some 35 KiB.
pub(super) const PIECE_MAX: usize = 1 << 16;
/// How long a runtime may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Name of the listener among the descriptors.
const LISTENER_NAME: &str = "seccompFd";

/// Why a registration came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// The connection failed or took too long.
    #[error("the runtime's message could not be read: {0}")]
    Io(#[from] io::Error),
    /// The text is not what a runtime sends.
    #[error("the runtime's message is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// More text than any runtime sends.
    #[error("the runtime's message is longer than {TEXT_MAX} bytes")]
    TooLong,
    /// Somebody who may not register listeners.
    #[error("user {uid} may not register listeners")]
    Stranger {
        /// User id of the peer.
        uid: u32,
    },
    /// The message carries no listener.
    #[error("the runtime's message carries no descriptor named {LISTENER_NAME}")]
    NoListener,
}

#[derive(Debug, Deserialize)]
struct ProcessState {
    #[serde(default)]
    fds: Vec<String>,
    #[serde(default)]
    pid: i64,
    #[serde(default)]
    state: ContainerState,
}

#[derive(Debug, Default, Deserialize)]
struct ContainerState {
    #[serde(default)]
    id: String,
    #[serde(default)]
    pid: i64,
}

/// One filter that wants to be served.
#[derive(Debug)]
pub struct Registration {
    /// Name of the container.
    pub container: String,
    /// A process that lives in the VE's user namespace, if the runtime named one.
    pub member: Option<u32>,
    /// The listeners, in the order sent.
    pub listeners: Vec<OwnedFd>,
}

impl Registration {
    /// Reads one connection; `None` if the runtime closed it without a word, as crun does when a start fails.
    ///
    /// A message of one piece, as any is that is not longer than 32 KiB, stays there to be read again. Of a longer one the
    /// kernel shows no more than the first piece until that is taken.
    ///
    /// # Errors
    /// Anything that is not a runtime's message, or takes longer than five seconds.
    pub fn read(stream: &UnixStream) -> Result<Option<Self>, RegistrationError> {
        let uid = sockopt::socket_peercred(stream)
            .map_err(io::Error::from)?
            .uid;
        if !uid.is_root() && uid != rustix::process::geteuid() {
            return Err(RegistrationError::Stranger { uid: uid.as_raw() });
        }
        let deadline = Instant::now() + PATIENCE;
        let mut text = Vec::new();
        let mut descriptors = Vec::new();
        let mut leave = RecvFlags::PEEK;
        loop {
            let received = receive(stream, deadline, leave, &mut text, &mut descriptors)?;
            match serde_json::from_slice::<ProcessState>(&text) {
                Ok(state) => return Self::assemble(state, descriptors).map(Some),
                Err(_) if text.is_empty() && received == 0 => return Ok(None),
                Err(error) if received == 0 || !error.is_eof() => return Err(error.into()),
                Err(_) if text.len() > TEXT_MAX => return Err(RegistrationError::TooLong),
                Err(_) if !leave.is_empty() => {
                    leave = RecvFlags::empty();
                    text.clear();
                    descriptors.clear();
                }
                Err(_) => {}
            }
        }
    }

    fn assemble(state: ProcessState, descriptors: Vec<OwnedFd>) -> Result<Self, RegistrationError> {
        let named = state
            .fds
            .into_iter()
            .chain(std::iter::repeat_with(String::new));
        let listeners: Vec<_> = descriptors
            .into_iter()
            .zip(named)
            .filter(|(_, name)| name == LISTENER_NAME)
            .map(|(descriptor, _)| descriptor)
            .collect();
        if listeners.is_empty() {
            return Err(RegistrationError::NoListener);
        }
        let mut members = [state.state.pid, state.pid].into_iter();
        let member = members
            .find(|pid| *pid > 0)
            .and_then(|pid| u32::try_from(pid).ok());
        Ok(Self {
            container: state.state.id,
            member,
            listeners,
        })
    }
}

/// Receives once, or looks only where `leave` says so; returns the number of bytes, 0 at the end.
fn receive(
    stream: &UnixStream,
    deadline: Instant,
    leave: RecvFlags,
    text: &mut Vec<u8>,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    let mut bytes = vec![0; PIECE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC | leave;
    let message = recvmsg(stream, &mut slices, &mut control, flags)?;
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            descriptors.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "too many descriptors",
        ));
    }
    text.extend_from_slice(bytes.get(..message.bytes).unwrap_or_default());
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Write};
    use std::os::fd::AsFd;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    fn state(text: &str) -> ProcessState {
        serde_json::from_str(text).unwrap()
    }

    fn descriptors(count: usize) -> Vec<OwnedFd> {
        (0..count)
            .map(|_| std::fs::File::open("/dev/null").unwrap().into())
            .collect()
    }

    #[test]
    fn each_runtime_names_what_it_knows() {
        // (event, text, member)
        let rows = [
            (
                "create",
                r#"{"fds":["seccompFd"],"pid":7,"state":{"id":"a","pid":7}}"#,
                Some(7),
            ),
            (
                "crun exec",
                r#"{"fds":["seccompFd"],"pid":0,"state":{"id":"a","pid":0}}"#,
                None,
            ),
            (
                "runc exec",
                r#"{"fds":["seccompFd"],"pid":9,"state":{"id":"a","pid":7}}"#,
                Some(7),
            ),
            ("bare", r#"{"fds":["seccompFd"],"pid":-1,"state":{}}"#, None),
        ];
        for (event, text, member) in rows {
            let registration = Registration::assemble(state(text), descriptors(1)).unwrap();
            assert_eq!(registration.member, member, "{event}");
            assert_eq!(registration.listeners.len(), 1, "{event}");
        }
    }

    #[test]
    fn the_listener_is_found_by_name() {
        let text = r#"{"fds":["other","seccompFd"]}"#;
        let mut sent = descriptors(3);
        let expected = format!("{:?}", sent.get(1).unwrap());
        let registration = Registration::assemble(state(text), std::mem::take(&mut sent)).unwrap();
        assert_eq!(
            format!("{:?}", registration.listeners.first().unwrap()),
            expected
        );
        let none = Registration::assemble(state(r#"{"fds":["other"]}"#), descriptors(1));
        assert!(matches!(none, Err(RegistrationError::NoListener)));
    }

    #[test]
    fn a_message_of_one_piece_can_be_read_again_and_a_longer_one_is_read_once() {
        // (bytes of annotations, how often it can be read)
        for (length, times) in [(1_000, 2), (30_000, 2), (100_000, 1)] {
            let (here, there) = UnixStream::pair().unwrap();
            let annotation = "x".repeat(length);
            let text = format!(r#"{{"fds":["seccompFd"],"pid":7,"a":"{annotation}"}}"#);
            let sent = descriptors(DESCRIPTORS_MAX);
            let fds: Vec<_> = sent.iter().map(AsFd::as_fd).collect();
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            let text = [IoSlice::new(text.as_bytes())];
            sendmsg(&there, &text, &mut control, SendFlags::empty()).unwrap();
            drop(there);
            for _ in 0..times {
                let registration = Registration::read(&here).unwrap().unwrap();
                assert_eq!(registration.member, Some(7));
                assert_eq!(registration.listeners.len(), 1, "{length}");
            }
            let is_left = Registration::read(&here).unwrap().is_some();
            assert_eq!(is_left, times > 1, "{length}");
        }
    }

    #[test]
    fn silence_is_no_error_and_nonsense_is() {
        let read = |bytes: &[u8]| {
            let (here, mut there) = UnixStream::pair().unwrap();
            there.write_all(bytes).unwrap();
            drop(there);
            Registration::read(&here)
        };
        assert!(read(b"").unwrap().is_none());
        assert!(matches!(
            read(b"{\"fds\":"),
            Err(RegistrationError::Malformed(_))
        ));
        assert!(matches!(
            read(b"GET /"),
            Err(RegistrationError::Malformed(_))
        ));
        assert!(matches!(read(b"{}"), Err(RegistrationError::NoListener)));
    }
}
