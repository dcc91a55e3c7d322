//! What may wait for a guest, done by a process of its own.
//!
//! A page or a path of a guest can lie on a file system that never answers, or on the mount that this very daemon serves.
//! The kernel waits for either where no signal reaches it, and a process ends only when all its threads have: a daemon with
//! a thread there could not be replaced, and would itself be what that thread waits for.
//!
//! So each errand is a process that shares nothing with the daemon but memory and has one descriptor. It is waited for with a
//! deadline. One that does not come back keeps what it works on, and counts until it has ended.
//!
//! Invariants:
//! 1. The process calls the kernel and nothing else: it takes no memory, no lock, and nothing that is its thread's own,
//!    since these are the daemon's.
//! 2. What it works on is freed after its end only.
//!
//! Lock order: `lost` is a leaf.
//!
//! # Source
//! clone(2), close_range(2); Linux `mm/gup.c`, `faultin_page` (killable with `FOLL_UNLOCKABLE` only, which `mm/memory.c`,
//! `__access_remote_vm`, does not pass); `fs/fuse/dev.c`, `request_wait_answer`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};

use super::task::{self, DeviceNumber};

/// Stack of an errand: it makes a few calls of the kernel.
const STACK_BYTES: usize = 64 << 10;

/// What is to be done with the descriptor of an errand.
#[derive(Debug)]
pub(super) enum Work {
    /// Fill the buffer from this address of the memory.
    Read(u64, Vec<u8>),
    /// Write the bytes to this address of the memory.
    Write(u64, Vec<u8>),
    /// Look a path up from this directory below /proc.
    BlockDevice(CString),
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// Bytes read or written.
    Length(usize),
    /// The device that a path names, `None` if it names something else.
    Device(Option<DeviceNumber>),
}

/// Errands of one VE.
#[derive(Debug)]
pub struct Errands {
    lost: Mutex<Vec<Errand>>,
    lost_max: usize,
    patience: Duration,
}

impl Errands {
    /// Waits as long as `patience` for each errand, and starts none while `lost_max` have not come back.
    pub const fn new(patience: Duration, lost_max: usize) -> Self {
        Self {
            lost: Mutex::new(Vec::new()),
            lost_max,
            patience,
        }
    }

    /// How many have not come back.
    pub fn lost(&self) -> usize {
        let mut lost = self.lost.lock();
        lost.retain(|errand| !errand.has_ended(Duration::ZERO));
        lost.len()
    }

    /// Has something done; hands the work back for what was read into it.
    pub(super) fn run(&self, fd: BorrowedFd<'_>, work: Work) -> io::Result<(Found, Work)> {
        if self.lost() >= self.lost_max {
            return Err(Errno::AGAIN.into());
        }
        let errand = Errand::start(fd.try_clone_to_owned()?, work)?;
        if !errand.has_ended(self.patience) {
            self.lost.lock().push(errand);
            return Err(io::ErrorKind::TimedOut.into());
        }
        let Job { work, found, .. } = errand.finish();
        Ok((found?, work))
    }
}

/// What a process works on.
#[derive(Debug)]
struct Job {
    fd: OwnedFd,
    work: Work,
    found: Result<Found, Errno>,
    _stack: Vec<u128>,
}

impl Job {
    /// The whole life of the process.
    fn carry_out(&mut self) {
        self.found =
            leave_descriptors_but(self.fd.as_raw_fd()).and_then(|()| match &mut self.work {
                Work::Read(address, buffer) => {
                    rustix::io::pread(&self.fd, buffer.as_mut_slice(), *address).map(Found::Length)
                }
                Work::Write(address, bytes) => {
                    rustix::io::pwrite(&self.fd, bytes, *address).map(Found::Length)
                }
                Work::BlockDevice(path) => {
                    task::block_device(self.fd.as_fd(), path).map(Found::Device)
                }
            });
    }
}

/// A process that has a job, as long as it is not reaped.
#[derive(Debug)]
struct Errand {
    process: OwnedFd,
    /// Null once it was taken.
    job: *mut Job,
}

// SAFETY: the job belongs to the process until that has ended, and then to whoever owns this value.
unsafe impl Send for Errand {}

impl Errand {
    fn start(fd: OwnedFd, work: Work) -> io::Result<Self> {
        let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
        let top = stack.as_mut_ptr_range().end;
        let found = Err(Errno::IO);
        let job = Box::into_raw(Box::new(Job {
            fd,
            work,
            found,
            _stack: stack,
        }));
        let mut process = -1;
        let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: the stack is the process's own and grows down from its end, which is aligned; stack and job live until it
        // has ended. It keeps to what the module says. The kernel writes the descriptor to the last argument.
        let pid = unsafe { libc::clone(enter, top.cast(), flags, job.cast(), &raw mut process) };
        if pid < 0 {
            let error = io::Error::last_os_error();
            // SAFETY: made above, and nobody else has it.
            drop(unsafe { Box::from_raw(job) });
            return Err(error);
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let process = unsafe { OwnedFd::from_raw_fd(process) };
        Ok(Self { process, job })
    }

    /// Waits for its end; whether it came.
    fn has_ended(&self, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).ok();
        loop {
            let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
            match rustix::event::poll(&mut fds, patience.as_ref()) {
                Err(Errno::INTR) => {}
                result => return result.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Reaps a process that has ended.
    fn finish(mut self) -> Job {
        self.reap();
        let job = std::mem::replace(&mut self.job, std::ptr::null_mut());
        // SAFETY: its process has ended, and this value has it no more.
        *unsafe { Box::from_raw(job) }
    }

    fn reap(&self) {
        let id = WaitId::PidFd(self.process.as_fd());
        while let Err(Errno::INTR) = rustix::process::waitid(id.clone(), WaitIdOptions::EXITED) {}
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        // The job of a process that still waits is never freed: it will go on with it.
        if !self.job.is_null() && self.has_ended(Duration::ZERO) {
            self.reap();
            // SAFETY: its process has ended, and this value goes.
            drop(unsafe { Box::from_raw(self.job) });
        }
    }
}

extern "C" fn enter(job: *mut libc::c_void) -> libc::c_int {
    // SAFETY: made by `Errand::start` for this process, which alone has it until its end.
    unsafe { &mut *job.cast::<Job>() }.carry_out();
    0
}

/// Gets a table of descriptors of its own with this one alone: nothing of the daemon may live on in a process that waits.
fn leave_descriptors_but(fd: i32) -> Result<(), Errno> {
    let fd = fd.cast_unsigned();
    close_range(fd.saturating_add(1), u32::MAX, libc::CLOSE_RANGE_UNSHARE)?;
    match fd.checked_sub(1) {
        Some(last) => close_range(0, last, 0),
        None => Ok(()),
    }
}

fn close_range(first: u32, last: u32, flags: u32) -> Result<(), Errno> {
    // SAFETY: called where the table is, or becomes, one that nobody else uses.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } {
        0 => Ok(()),
        _ => Err(Errno::IO),
    }
}
