//! Seccomp user notification: receive a filtered system call, answer it.
//!
//! The buffers are as large as the running kernel says and zeroed before each call, so that a kernel with longer
//! structures than ours works too. The answer "continue" ([`NotifyFd::hand_on`]) is for calls on which nothing was decided:
//! arguments can change after they were looked at.
//!
//! # Source
//! seccomp_unotify(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;
/// Words of a request, as far as we know it.
const REQUEST_WORDS: usize = size_of::<libc::seccomp_notif>().div_ceil(size_of::<u64>());

/// A system call that waits for our answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The kernel's name for this request.
    pub cookie: u64,
    /// Thread that called, as a number of our pid namespace; 0 if it has none there.
    pub tid: u32,
    /// Number of the system call.
    pub number: i32,
    /// `AUDIT_ARCH_*` of the caller.
    pub arch: u32,
    /// The registers.
    pub args: [u64; 6],
}

impl Notification {
    /// What the kernel wrote; `None` where it has written nothing.
    pub fn read(buffer: &[AtomicU64]) -> Option<Self> {
        let mut words = [0; REQUEST_WORDS];
        for (to, from) in words.iter_mut().zip(buffer) {
            *to = from.load(Ordering::Relaxed);
        }
        // SAFETY: the words are aligned to 8, as large as the structure, and any bytes are valid for it.
        let raw = unsafe { words.as_ptr().cast::<libc::seccomp_notif>().read() };
        // Numbers of requests begin anywhere; 0 would be one in 2^64.
        (raw.id != 0).then_some(Self {
            cookie: raw.id,
            tid: raw.pid,
            number: raw.data.nr,
            arch: raw.data.arch,
            args: raw.data.args,
        })
    }
}

/// The listening end of a filter.
#[derive(Debug)]
pub struct NotifyFd {
    fd: OwnedFd,
    request_size: usize,
    response_size: usize,
}

impl AsFd for NotifyFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl NotifyFd {
    /// Takes over a listener.
    ///
    /// # Errors
    /// `InvalidInput` if the descriptor is something else.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let (request_size, response_size) = kernel_sizes()?;
        let listener = Self {
            fd,
            request_size,
            response_size,
        };
        // Cookie 0 is never in use: a listener says ENOENT, anything else fails in its own way.
        match listener.id_valid(0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(listener),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a seccomp listener",
            )),
        }
    }

    /// A second descriptor of the same listener.
    ///
    /// # Errors
    /// Those of fcntl(2) `F_DUPFD_CLOEXEC`.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Whether both are descriptors of one listener; false where the kernel does not tell (without `CONFIG_KCMP`).
    pub fn is_same(&self, other: &Self) -> bool {
        const KCMP_FILE: libc::c_long = 0;
        let itself = libc::c_long::from(rustix::process::getpid().as_raw_nonzero().get());
        let [one, two] = [self, other].map(|this| libc::c_long::from(this.fd.as_raw_fd()));
        // SAFETY: two descriptors of this process are compared; no memory is touched.
        unsafe { libc::syscall(libc::SYS_kcmp, itself, itself, KCMP_FILE, one, two) == 0 }
    }

    /// Takes the next request; waits if there is none.
    ///
    /// # Errors
    /// `ENOENT` if the caller died between poll(2) and here: take the next one.
    pub fn receive(&self) -> io::Result<Notification> {
        let words = self.request_size.div_ceil(size_of::<u64>());
        let buffer: Vec<_> = (0..words).map(|_| AtomicU64::new(0)).collect();
        self.receive_into(&buffer)
    }

    /// The same; the kernel writes the request here before anybody else can know that it was taken. What was here is lost.
    ///
    /// # Errors
    /// As [`Self::receive`]; `InvalidInput` where this kernel writes more.
    pub fn receive_into(&self, buffer: &[AtomicU64]) -> io::Result<Notification> {
        if size_of_val(buffer) < self.request_size {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        for word in buffer {
            word.store(0, Ordering::Relaxed);
        }
        let place = buffer.as_ptr().cast_mut().cast();
        // SAFETY: the buffer is zeroed, aligned to 8 and at least as large as the kernel's structure; atomics may be written
        // by others.
        unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV, place) }?;
        Notification::read(buffer).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Lets the caller's system call return 0, or fail with this errno.
    ///
    /// # Errors
    /// `ENOENT` if the caller is gone or no longer waits.
    pub fn respond(&self, cookie: u64, errno: i32) -> io::Result<()> {
        self.send(libc::seccomp_notif_resp {
            id: cookie,
            val: 0,
            error: errno.saturating_neg(),
            flags: 0,
        })
    }

    /// Lets the kernel carry the caller's system call out, with whatever its arguments are by then.
    ///
    /// # Errors
    /// As [`Self::respond`].
    pub fn hand_on(&self, cookie: u64) -> io::Result<()> {
        self.send(libc::seccomp_notif_resp {
            id: cookie,
            val: 0,
            error: 0,
            flags: CONTINUE,
        })
    }

    fn send(&self, raw: libc::seccomp_notif_resp) -> io::Result<()> {
        let mut buffer = zeroed_words(self.response_size);
        // SAFETY: the buffer is aligned to 8 and at least as large as the structure.
        unsafe {
            buffer
                .as_mut_ptr()
                .cast::<libc::seccomp_notif_resp>()
                .write(raw)
        };
        // SAFETY: the buffer is at least as large as the kernel's structure, the rest zeroed.
        unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_SEND, buffer.as_mut_ptr().cast()) }
    }

    /// Succeeds while the caller still waits in this very call.
    ///
    /// # Errors
    /// `ENOENT` once it does not.
    pub fn id_valid(&self, cookie: u64) -> io::Result<()> {
        let mut cookie = cookie;
        // SAFETY: the kernel reads one u64 from the pointer.
        unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, (&raw mut cookie).cast()) }
    }

    /// # Safety
    /// `argument` must be what this request expects.
    unsafe fn ioctl(&self, request: libc::Ioctl, argument: *mut libc::c_void) -> io::Result<()> {
        loop {
            // SAFETY: the descriptor is open; the argument is the caller's duty.
            if unsafe { libc::ioctl(self.fd.as_raw_fd(), request, argument) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// Bytes of the kernel's request and response, at least those of ours.
fn kernel_sizes() -> io::Result<(usize, usize)> {
    let mut sizes = libc::seccomp_notif_sizes {
        seccomp_notif: 0,
        seccomp_notif_resp: 0,
        seccomp_data: 0,
    };
    let operation = libc::SECCOMP_GET_NOTIF_SIZES;
    // SAFETY: the kernel fills the structure that the pointer names.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, operation, 0, &raw mut sizes) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((
        usize::from(sizes.seccomp_notif).max(size_of::<libc::seccomp_notif>()),
        usize::from(sizes.seccomp_notif_resp).max(size_of::<libc::seccomp_notif_resp>()),
    ))
}

/// Zeroed memory of at least this many bytes, aligned to 8.
fn zeroed_words(bytes: usize) -> Vec<u64> {
    vec![0; bytes.div_ceil(size_of::<u64>())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_descriptor_is_not_taken_for_a_listener() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = NotifyFd::new(file.into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
