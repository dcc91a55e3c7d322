//! The FUSE device: opening it, and registering files for passthrough.
//!
//! No locks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, opcode};

/// Opens a FUSE device (normally `/dev/fuse`): one descriptor is one connection, once it is mounted.
pub fn open_device(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// What a device descriptor says without being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// It is mounted, and nobody has ended the connection.
    pub connected: bool,
    /// A request waits to be read.
    pub readable: bool,
}

/// Looks at a device without waiting.
///
/// # Errors
/// Those of poll(2).
///
/// # Source
/// Linux `fs/fuse/dev.c`, `fuse_dev_poll`.
pub fn look(device: impl AsFd) -> io::Result<DeviceState> {
    let mut fds = [PollFd::new(&device, PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut fds, Some(&Timespec::default())) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let [fd] = fds;
                let seen = fd.revents();
                return Ok(DeviceState {
                    connected: !seen.intersects(PollFlags::ERR | PollFlags::NVAL),
                    readable: seen.contains(PollFlags::IN),
                });
            }
        }
    }
}

/// `FUSE_NOTIFY_RESEND`: every request that was read and not answered is put into the queue again, with bit 63 of its
/// number set.
///
/// # Errors
/// `EINVAL` before Linux 6.9.
///
/// # Source
/// Linux `include/uapi/linux/fuse.h` and `fs/fuse/dev.c`, `fuse_resend`.
pub fn resend(device: impl AsFd) -> io::Result<()> {
    const NOTIFY_RESEND: i32 = 7;
    // `struct fuse_out_header`: length, code in the place of the error, no request.
    let mut header = [0; 16];
    let parts = [16_u32.to_ne_bytes(), NOTIFY_RESEND.to_ne_bytes()];
    for (place, byte) in header.iter_mut().zip(parts.into_iter().flatten()) {
        *place = byte;
    }
    rustix::io::write(device, &header)?;
    Ok(())
}

/// Makes the number `at` stand for what `source` is; whoever holds `at` goes on with the new file.
///
/// # Errors
/// Those of dup3(2).
pub fn put_in_place(source: impl AsFd, at: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both numbers are open, as the borrows prove; `at` stays open and keeps its owner.
    let result = unsafe { libc::dup3(source.as_fd().as_raw_fd(), at.as_raw_fd(), libc::O_CLOEXEC) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The connection's number of a file registered for passthrough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackingId(u32);

impl BackingId {
    /// Wraps a number that the kernel gave out earlier.
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// The number, as it stands in an open reply.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// `struct fuse_backing_map`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

const BACKING_OPEN: Opcode = opcode::write::<BackingMap>(229, 1);
const BACKING_CLOSE: Opcode = opcode::write::<u32>(229, 2);

/// `FUSE_DEV_IOC_BACKING_OPEN`: a request whose return value is its answer.
struct BackingOpen(BackingMap);

// SAFETY: the opcode takes a pointer to a `struct fuse_backing_map` that the kernel only reads; the answer is the
// return value.
unsafe impl Ioctl for BackingOpen {
    type Output = BackingId;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        BACKING_OPEN
    }

    fn as_ptr(&mut self) -> *mut libc::c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(
        output: IoctlOutput,
        _: *mut libc::c_void,
    ) -> rustix::io::Result<BackingId> {
        u32::try_from(output)
            .map(BackingId)
            .map_err(|_| rustix::io::Errno::OVERFLOW)
    }
}

/// Registers a file (O_PATH will do) for passthrough; the registration keeps the inode until it is closed.
///
/// `EPERM` without CAP_SYS_ADMIN or without passthrough on this connection, `EOPNOTSUPP` on a file that has no content.
pub fn backing_open(device: impl AsFd, file: impl AsFd) -> io::Result<BackingId> {
    let map = BackingMap {
        fd: file.as_fd().as_raw_fd(),
        flags: 0,
        padding: 0,
    };
    // SAFETY: see the implementation of `Ioctl`; any descriptor number is safe to name.
    Ok(unsafe { rustix::ioctl::ioctl(device, BackingOpen(map)) }?)
}

/// Gives a registration back; files that are open on it stay open.
pub fn backing_close(device: impl AsFd, id: BackingId) -> io::Result<()> {
    // SAFETY: the opcode takes a pointer to a 32-bit number that the kernel only reads.
    Ok(unsafe { rustix::ioctl::ioctl(device, Setter::<BACKING_CLOSE, u32>::new(id.0)) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_are_those_of_the_kernel() {
        // uapi/linux/fuse.h: _IOW(229, 1, struct fuse_backing_map), _IOW(229, 2, uint32_t).
        assert_eq!(BACKING_OPEN, 0x4010_e501);
        assert_eq!(BACKING_CLOSE, 0x4004_e502);
    }

    #[test]
    fn an_unmounted_device_refuses() {
        let device = open_device(Path::new("/dev/fuse")).unwrap();
        let file = tempfile::tempfile().unwrap();
        assert_eq!(
            backing_open(&device, &file).unwrap_err().raw_os_error(),
            Some(libc::EPERM)
        );
        assert_eq!(
            backing_close(&device, BackingId::new(1))
                .unwrap_err()
                .raw_os_error(),
            Some(libc::EPERM)
        );
    }
}
