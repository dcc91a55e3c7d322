//! Processes of our own: fork, wait, a session without a terminal.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

/// A child process that is waited for once.
#[must_use = "a child that is not waited for stays as a zombie"]
#[derive(Debug)]
pub struct Child(Pid);

/// Which side of the fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The process that forked.
    Parent(Child),
    /// The new one.
    Child,
}

/// fork(2), for a process that has one thread.
///
/// # Errors
/// The kernel's; EBUSY where the process has more than one thread.
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: this is the only thread, so the child finds no lock held by a thread that it does not have.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Pid::from_raw(pid)
            .map(|pid| Forked::Parent(Child(pid)))
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ECHILD)),
    }
}

impl Child {
    /// Its number.
    pub fn pid(&self) -> u32 {
        self.0.as_raw_nonzero().get().unsigned_abs()
    }

    /// A descriptor that is readable once the process has ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn watch(&self) -> io::Result<OwnedFd> {
        Ok(rustix::process::pidfd_open(self.0, PidfdFlags::empty())?)
    }

    /// Ends it at once. It still has to be waited for.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&self) -> io::Result<()> {
        Ok(rustix::process::kill_process(self.0, Signal::KILL)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(self) -> io::Result<Ending> {
        loop {
            match rustix::process::waitpid(Some(self.0), WaitOptions::empty()) {
                Ok(Some((_, status))) => {
                    let exited = status.exit_status().map(Ending::Exited);
                    let killed = || status.terminating_signal().map(Ending::Killed);
                    return Ok(exited.or_else(killed).unwrap_or(Ending::Exited(1)));
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ending {
    /// The code that a shell would show: 128 + the signal that ended it.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => signal.saturating_add(128),
        }
    }

    /// As wait(2) packs it.
    pub fn status(self) -> u32 {
        match self {
            Self::Exited(code) => (code.cast_unsigned() & 0xff) << 8,
            Self::Killed(signal) => signal.cast_unsigned() & 0x7f,
        }
    }

    /// Reads what [`Self::status`] packed.
    pub fn from_status(status: u32) -> Self {
        match status & 0x7f {
            0 => Self::Exited((status >> 8 & 0xff).cast_signed()),
            signal => Self::Killed(signal.cast_signed()),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Killed(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Leaves the terminal: a session of its own, nothing to read, output to a log file.
///
/// # Errors
/// The kernel's.
pub fn detach(log: &Path) -> io::Result<()> {
    rustix::process::setsid()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    let log = rustix::fs::open(log, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::stdio::dup2_stdin(null.as_fd())?;
    rustix::stdio::dup2_stdout(log.as_fd())?;
    rustix::stdio::dup2_stderr(log.as_fd())?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// What a process is sent whose parent has ended, if it wants to be told.
pub const PARENT_ENDED: i32 = libc::SIGUSR1;

/// Blocks the signals that ask for an end, and [`PARENT_ENDED`], in this thread and those it starts.
///
/// # Errors
/// The kernel's.
pub fn block_end_signals() -> io::Result<EndSignals> {
    // SAFETY: the set is filled by sigemptyset before it is read, and outlives the calls.
    let set = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, PARENT_ENDED] {
            libc::sigaddset(&raw mut set, signal);
        }
        let result = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        set
    };
    Ok(EndSignals(set))
}

/// The signals that ask for an end, and [`PARENT_ENDED`], blocked.
pub struct EndSignals(libc::sigset_t);

impl EndSignals {
    /// Has the process told of its parent's end; to be called by a thread that stays and never changes its credentials
    /// (the kernel forgets the wish with them). One that has ended already is not told of.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tell_of_parents_end(&self) -> io::Result<()> {
        let signal = Signal::USR1;
        Ok(rustix::process::set_parent_process_death_signal(Some(
            signal,
        ))?)
    }

    /// Waits for one of them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&self) -> io::Result<i32> {
        let mut signal = 0;
        // SAFETY: both pointers are to live variables; the set was filled when it was made.
        match unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } {
            0 => Ok(signal),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}
