//! Starting a successor: the program, by descriptor, and the numbers that it needs to find its state.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::sys::exec;
use crate::sys::fork::{self, Child, Forked};

/// The hidden command of a successor.
pub const COMMAND: &str = "successor";

/// The descriptors that a successor is told of; what else it inherits stands in the shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessorArguments {
    /// Its end of the socket to the keeper.
    pub link: u32,
    /// The FUSE device.
    pub device: u32,
    /// The shared memory.
    pub memory: u32,
}

/// A pair of connected packet sockets.
///
/// # Errors
/// The kernel's.
pub fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    Ok(socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

/// Opens a program that is to take over.
pub(super) fn open_program(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let program = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&program)?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    let is_executable = stat.st_mode & 0o111 != 0;
    if !kind.is_file() || !is_executable {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(program)
}

/// Starts the program as a successor; its process and our end of its link.
pub(super) fn successor(
    program: &OwnedFd,
    device: &OwnedFd,
    memory: u32,
) -> io::Result<(Child, OwnedFd)> {
    let (ours, theirs) = packet_pair()?;
    match fork::fork()? {
        Forked::Parent(child) => Ok((child, ours)),
        Forked::Child => {
            let error = become_successor(program, device, &theirs, memory);
            tracing::error!(%error, "the successor's program cannot be started");
            std::process::exit(1);
        }
    }
}

fn become_successor(program: &OwnedFd, device: &OwnedFd, link: &OwnedFd, memory: u32) -> io::Error {
    for fd in [device, link] {
        if let Err(error) = exec::hand_over(fd) {
            return error;
        }
    }
    let numbers = [
        link.as_raw_fd().to_string(),
        device.as_raw_fd().to_string(),
        memory.to_string(),
    ];
    let words = ["simfs".to_owned(), COMMAND.to_owned()];
    let arguments: Result<Vec<CString>, _> =
        words.into_iter().chain(numbers).map(CString::new).collect();
    match arguments {
        Ok(arguments) => exec::exec(program.as_fd(), &arguments),
        Err(error) => error.into(),
    }
}
