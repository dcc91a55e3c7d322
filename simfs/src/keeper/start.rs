//! Starting a successor: the program, by descriptor, and the numbers that it needs to find its state.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

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
    /// How the VE was mounted, in memory that nobody can write.
    pub config: u32,
}

/// What the successors of a mount start with.
#[derive(Debug)]
pub struct Program {
    /// The program; `None` where it cannot be had: then there are no successors.
    pub file: Option<OwnedFd>,
    /// How the VE was mounted. It comes from the keeper, since what a daemon can write could lead a successor out of its
    /// confinement.
    pub config: OwnedFd,
    /// Where the administrator names another program: see [`upgrade_link`].
    pub upgrade_link: PathBuf,
}

/// The symbolic link with which the host's administrator names the program that is to take over. It lies beside the run
/// directory, where no daemon can make one.
pub fn upgrade_link(run_dir: &Path) -> PathBuf {
    let mut name = run_dir.as_os_str().to_owned();
    name.push(".upgrade");
    name.into()
}

/// A pair of connected packet sockets.
///
/// # Errors
/// The kernel's.
pub fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    Ok(socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

/// Opens the program that the administrator has named. It is named for one time.
pub(super) fn open_program(link: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(link, flags, Mode::empty());
    let _may_be_absent = std::fs::remove_file(link);
    let program = opened?;
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
    config: &OwnedFd,
    memory: u32,
) -> io::Result<(Child, OwnedFd)> {
    let (ours, theirs) = packet_pair()?;
    match fork::fork()? {
        Forked::Parent(child) => Ok((child, ours)),
        Forked::Child => {
            let error = become_successor(program, [&theirs, device, config], memory);
            tracing::error!(%error, "the successor's program cannot be started");
            std::process::exit(1);
        }
    }
}

fn become_successor(program: &OwnedFd, handed: [&OwnedFd; 3], memory: u32) -> io::Error {
    for fd in handed {
        if let Err(error) = exec::hand_over(fd) {
            return error;
        }
    }
    let [link, device, config] = handed.map(|fd| fd.as_raw_fd().to_string());
    let numbers = [link, device, memory.to_string(), config];
    let words = ["simfs".to_owned(), COMMAND.to_owned()];
    let arguments: Result<Vec<CString>, _> =
        words.into_iter().chain(numbers).map(CString::new).collect();
    match arguments {
        Ok(arguments) => exec::exec(program.as_fd(), &arguments),
        Err(error) => error.into(),
    }
}
