//! The keeper: the small parent process of a VE's daemon.
//!
//! It stays in the host's mount namespace while the daemon confines itself, makes the mount and takes it away when the
//! daemon asks, and holds the device descriptor, so that the connection does not depend on the daemon's life. When the
//! daemon ends without being asked, the keeper takes the dead mount away.
//!
//! The two talk over a socket pair: an order is one byte, the answer is an errno (0: done) and the device number of the
//! mount (major and minor), four bytes each.
//! No threads, no locks, no memory allocated while it waits.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use parking_lot::Mutex;
use rustix::mount::UnmountFlags;

use crate::mount::{self, MountOptions};
use crate::sys::task::DeviceNumber;
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
        Self {
            stream: Mutex::new(stream),
        }
    }

    /// Makes the mount, and tells its device number.
    ///
    /// # Errors
    /// mount(2)'s own.
    pub fn mount(&self) -> io::Result<DeviceNumber> {
        self.ask(Order::Mount)
    }

    /// Takes the mount away; `lazy` also when it is in use.
    ///
    /// # Errors
    /// EBUSY where it is in use.
    pub fn unmount(&self, lazy: bool) -> io::Result<()> {
        self.ask(if lazy { Order::Detach } else { Order::Unmount })
            .map(drop)
    }

    fn ask(&self, order: Order) -> io::Result<DeviceNumber> {
        let mut stream = self.stream.lock();
        stream.write_all(&[order as u8])?;
        let mut number = || {
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).map(|()| bytes)
        };
        let (errno, major, minor) = (number()?, number()?, number()?);
        match i32::from_ne_bytes(errno) {
            0 => Ok((u32::from_ne_bytes(major), u32::from_ne_bytes(minor))),
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
            [b'M'] => make(device, mountpoint, options),
            [b'U'] => take_away(mountpoint, UnmountFlags::empty()),
            [b'D'] => take_away(mountpoint, UnmountFlags::DETACH),
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        if result.is_ok() {
            mounted = order == [b'M'];
        }
        if link.write_all(&answer(result)).is_err() {
            break;
        }
    }
    let code = daemon.wait()?;
    if mounted && code != 0 {
        // Guests of a dead mount get errors either way; a mount that nobody serves must not stay in the tree.
        if let Err(error) = take_away(mountpoint, UnmountFlags::DETACH) {
            tracing::error!(%error, "cannot take the dead mount away");
        }
    }
    Ok(code)
}

fn make(device: &OwnedFd, mountpoint: &Path, options: &MountOptions) -> io::Result<DeviceNumber> {
    mount::attach(device.as_fd(), mountpoint, options)?;
    mount::device_number(mountpoint).inspect_err(|_| {
        // Who asked hears of the first failure.
        let _ = take_away(mountpoint, UnmountFlags::DETACH);
    })
}

fn take_away(mountpoint: &Path, flags: UnmountFlags) -> io::Result<DeviceNumber> {
    sys_mount::unmount(mountpoint, UnmountFlags::NOFOLLOW | flags).map(|()| (0, 0))
}

fn answer(result: io::Result<DeviceNumber>) -> Vec<u8> {
    let (errno, (major, minor)) = match result {
        Ok(device) => (0, device),
        Err(error) => (error.raw_os_error().unwrap_or(libc::EIO), (0, 0)),
    };
    [
        errno.to_ne_bytes(),
        major.to_ne_bytes(),
        minor.to_ne_bytes(),
    ]
    .concat()
}
