//! The keeper: the small parent process of a VE's daemon.
//!
//! It stays in the host's mount namespace while the daemon confines itself, makes the mount and takes it away when the
//! daemon asks, and holds the device descriptor, so that the connection does not depend on the daemon's life. When the
//! daemon ends without being asked, the keeper takes the dead mount away.
//!
//! The two talk over a socket pair: an order is one byte, the answer is an errno (0: done) in four bytes.
//! No threads, no locks, no memory allocated while it waits.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use parking_lot::Mutex;
use rustix::mount::UnmountFlags;

use crate::mount::{self, MountOptions};
use crate::sys::{fork, mount as sys_mount};

/// What a daemon can ask of its keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Order {
    /// Make the mount.
    Mount = b'M',
    /// Take it away, unless it is in use.
    Unmount = b'U',
    /// Take it out of the tree now; it ends when nobody uses it any more.
    Detach = b'D',
}

/// The daemon's end.
#[derive(Debug)]
pub struct Link {
    /// One order at a time; a leaf lock.
    stream: Mutex<UnixStream>,
}

impl Link {
    /// The daemon's end of a socket pair.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream: Mutex::new(stream) }
    }

    /// Makes the mount.
    ///
    /// # Errors
    /// mount(2)'s own.
    pub fn mount(&self) -> io::Result<()> {
        self.ask(Order::Mount)
    }

    /// Takes the mount away; `lazy` also when it is in use.
    ///
    /// # Errors
    /// EBUSY where it is in use.
    pub fn unmount(&self, lazy: bool) -> io::Result<()> {
        self.ask(if lazy { Order::Detach } else { Order::Unmount })
    }

    fn ask(&self, order: Order) -> io::Result<()> {
        let mut stream = self.stream.lock();
        stream.write_all(&[order as u8])?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        match i32::from_ne_bytes(answer) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Serves a daemon until it ends, and returns its exit code (128 + signal where one ended it).
///
/// # Errors
/// Where waiting for the daemon fails.
pub fn serve(
    mut link: UnixStream,
    device: &OwnedFd,
    mountpoint: &Path,
    options: &MountOptions,
    daemon: fork::Child,
) -> io::Result<i32> {
    let mut mounted = false;
    let mut order = [0];
    // The end of the stream is the end of the daemon.
    while matches!(link.read(&mut order), Ok(1)) {
        let result = match order {
            [b'M'] => mount::attach(device.as_fd(), mountpoint, options),
            [b'U'] => sys_mount::unmount(mountpoint, UnmountFlags::NOFOLLOW),
            [b'D'] => sys_mount::unmount(mountpoint, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        if result.is_ok() {
            mounted = order == [b'M'];
        }
        let errno = result.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
        if link.write_all(&errno.to_ne_bytes()).is_err() {
            break;
        }
    }
    let code = daemon.wait()?;
    if mounted && code != 0 {
        // Guests of a dead mount get errors either way; a mount that nobody serves must not stay in the tree.
        let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
        if let Err(error) = sys_mount::unmount(mountpoint, flags) {
            tracing::error!(%error, "cannot take the dead mount away");
        }
    }
    Ok(code)
}
