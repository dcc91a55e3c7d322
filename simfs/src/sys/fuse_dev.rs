//! The FUSE device: opening it, and registering files for passthrough.
//!
//! No locks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
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
    // The code in the place of the error, no request.
    answer(device, &answer_header(0, NOTIFY_RESEND))
}

/// Whether a request that was read waits for its answer. The number is the kernel's, without what sending again adds.
///
/// Asked by an answer to an interrupt of it: such an answer changes nothing, and is refused where there is no such request.
///
/// # Errors
/// The kernel's, but for that one.
///
/// # Source
/// Linux `fs/fuse/dev.c`, `fuse_dev_do_write`, `FUSE_INT_REQ_BIT` (Linux 4.20).
pub fn is_waiting(device: impl AsFd, unique: u64) -> io::Result<bool> {
    const INTERRUPT: u64 = 1;
    match answer(device, &answer_header(unique | INTERRUPT, 0)) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Answers a request with an error number (0: done, without anything to tell).
///
/// # Errors
/// `ENOENT` where nobody waits for it.
pub fn answer_with(device: impl AsFd, unique: u64, errno: i32) -> io::Result<()> {
    answer(device, &answer_header(unique, -errno))
}

/// Writes an answer, header and all.
///
/// # Errors
/// `ENOENT` where nobody waits for it.
pub fn answer(device: impl AsFd, answer: &[u8]) -> io::Result<()> {
    rustix::io::write(device, answer)?;
    Ok(())
}

/// Bytes of `struct fuse_out_header`: length, error, number of the request.
pub const ANSWER_HEADER: usize = 16;

fn answer_header(unique: u64, error: i32) -> [u8; ANSWER_HEADER] {
    let mut header = [0; ANSWER_HEADER];
    let numbers = [16_u32.to_ne_bytes(), error.to_ne_bytes()];
    let bytes = numbers.into_iter().flatten().chain(unique.to_ne_bytes());
    for (place, byte) in header.iter_mut().zip(bytes) {
        *place = byte;
    }
    header
}

/// A descriptor's number, for exchanging what it stands for while its owner uses it.
#[derive(Clone, Copy, Debug)]
pub struct NumberOf(RawFd);

impl NumberOf {
    /// The number of this one. It must stay open as long as [`Self::put`] may be called.
    pub fn of(fd: BorrowedFd<'_>) -> Self {
        Self(fd.as_raw_fd())
    }

    /// As [`put_in_place`].
    ///
    /// # Errors
    /// Those of dup3(2).
    pub fn put(self, source: impl AsFd) -> io::Result<()> {
        // SAFETY: who made it keeps the number open.
        put_in_place(source, unsafe { BorrowedFd::borrow_raw(self.0) })
    }
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
