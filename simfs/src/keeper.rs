//! The keeper: the small parent process of a VE's daemons.
//!
//! It stays in the host's mount namespace while the daemon confines itself, makes the mount and takes it away when the
//! daemon asks, and holds what must not be lost with a daemon: the device, and the descriptors that were deposited. A
//! daemon that ends without being asked is followed by a successor, which finds all that by number. A daemon that hangs
//! is ended first.
//!
//! Invariants:
//! 1. It parses nothing that a guest wrote, and nothing of a daemon's but the fixed orders of `order`.
//! 2. It waits for nothing but its daemon: what could wait for the daemon's answers (umount(2)) runs in a child of its own.
//! 3. The device is open as long as it lives, and closed when it ends: guests never wait for nobody.
//! 4. Successors run the program that the first daemon ran, whatever became of its file, until an upgrade names another;
//!    the old one stays at hand until the new one has proven itself.
//!
//! One thread, no locks.

mod deposits;
mod link;
mod order;
mod outcome;
mod restart;
mod serve;
mod start;
mod succession;
mod trial;
mod watchdog;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mount::UnmountFlags;

use crate::mount::{self, MountOptions};
use crate::shared::Board;
use crate::sys::fork::Child;
use crate::sys::task::DeviceNumber;
use crate::sys::{fuse_dev, mount as sys_mount};

use deposits::Deposits;
use restart::Deaths;
use trial::{Judgement, Progress, Trial};
use watchdog::{Step, Watchdog};

pub use link::{DepositNumber, Depository, Link, NoDepository};
pub use outcome::{Attempt, Fate};
pub use start::{
    COMMAND as SUCCESSOR_COMMAND, Program, SuccessorArguments, packet_pair, upgrade_link,
};
pub use watchdog::Counts;

/// With this exit code a daemon hands over to the program that it named.
pub const HAND_OVER: i32 = 75;
/// With this one it says that it cannot take over.
pub const REFUSED: i32 = 76;

/// How long a daemon that was ended may take to end before that is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the keeper is there for.
#[derive(Debug)]
pub struct Keeper<'a> {
    /// Where the mount is made.
    mountpoint: &'a Path,
    options: &'a MountOptions,
    device: OwnedFd,
    mounted: Option<DeviceNumber>,
    deposits: Deposits,
    board: Option<Board>,
    /// The deposit that is the shared memory.
    memory: Option<u32>,
    program: Program,
    trial: Trial,
    daemon: Option<Daemon>,
    /// When the next daemon is to be started, while there is none.
    due: Option<Instant>,
    /// Takes the mount away.
    helper: Option<Helper>,
    was_ready: bool,
    deaths: Deaths,
    watchdog: Watchdog,
    watch: Step,
}

/// The daemon of the moment.
#[derive(Debug)]
struct Daemon {
    child: Child,
    ended: OwnedFd,
    /// `None` once nothing comes from there any more.
    link: Option<OwnedFd>,
    progress: Progress,
    /// Whether the keeper has ended it, and does not know of its end yet.
    is_ending: bool,
    /// While it was ended, and that it does not end is not told yet: when it is to be told.
    tell_at: Option<Instant>,
    /// Why it ends, where its ending does not say so: it cannot take over, or was too slow in doing it.
    reason: Option<String>,
}

/// A child that carries out an order which may have to wait for the daemon.
#[derive(Debug)]
struct Helper {
    child: Child,
    ended: OwnedFd,
    /// The daemon that gave the order, by its process.
    asker: Option<u32>,
}

/// What woke the keeper; several at once are possible.
#[derive(Clone, Copy, Debug, Default)]
struct Woken {
    order: bool,
    daemon_ended: bool,
    helper_ended: bool,
    request: bool,
}

impl<'a> Keeper<'a> {
    /// The keeper of a daemon that was just forked, whose end of the link is the other one.
    ///
    /// # Errors
    /// Where the daemon cannot be watched.
    pub fn new(
        mountpoint: &'a Path,
        options: &'a MountOptions,
        device: OwnedFd,
        program: Program,
        link: OwnedFd,
        daemon: Child,
    ) -> io::Result<Self> {
        Ok(Self {
            mountpoint,
            options,
            device,
            mounted: None,
            deposits: Deposits::new(),
            board: None,
            memory: None,
            program,
            trial: Trial::default(),
            daemon: Some(Daemon::new(daemon, link)?),
            due: None,
            helper: None,
            was_ready: false,
            deaths: Deaths::default(),
            watchdog: Watchdog::new(options.watchdog),
            watch: Step::Off,
        })
    }

    /// Serves daemons until the mount has ended; the exit code (128 + signal where one ended the daemon).
    pub fn run(mut self) -> i32 {
        let code = loop {
            let woken = match self.wait() {
                Ok(woken) => woken,
                Err(error) => {
                    tracing::error!(%error, "the keeper cannot wait; the mount ends");
                    break 1;
                }
            };
            if let Some(code) = self.act(woken) {
                break code;
            }
        };
        self.end();
        code
    }

    fn act(&mut self, woken: Woken) -> Option<i32> {
        if woken.order {
            self.take_order();
        }
        if woken.helper_ended {
            self.helper_ended();
        }
        if woken.daemon_ended
            && let Some(code) = self.daemon_ended()
        {
            return Some(code);
        }
        let now = Instant::now();
        if self.due.is_some_and(|due| due <= now)
            && let Some(code) = self.start_daemon()
        {
            return Some(code);
        }
        self.judge(now);
        self.tell_of_a_daemon_that_stays(now);
        self.look_after(now, woken.request);
        None
    }

    /// Waits until there is something to do.
    fn wait(&self) -> io::Result<Woken> {
        type Mark = fn(&mut Woken);
        let mut fds: [Option<(PollFd<'_>, Mark)>; 4] = [None, None, None, None];
        let [order, daemon, helper, request] = &mut fds;
        if let Some(present) = &self.daemon {
            let link = present.link.as_ref();
            *order = link.map(|link| (watched(link), (|woken| woken.order = true) as Mark));
            *daemon = Some((watched(&present.ended), |woken| woken.daemon_ended = true));
        }
        if let Some(present) = &self.helper {
            *helper = Some((watched(&present.ended), |woken| woken.helper_ended = true));
        }
        if matches!(self.watch, Step::Request(_)) {
            *request = Some((watched(&self.device), |woken| woken.request = true));
        }
        let (mut polled, marks): (Vec<_>, Vec<_>) = fds.into_iter().flatten().unzip();
        let timeout = self.wake_time().map(|due| {
            let left = due.saturating_duration_since(Instant::now());
            // Never early: a look that comes too soon is one in vain.
            Timespec::try_from(left + Duration::from_millis(1)).unwrap_or_default()
        });
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(Woken::default()),
            result => result?,
        };
        let mut woken = Woken::default();
        for (fd, mark) in polled.iter().zip(marks) {
            if !fd.revents().is_empty() {
                mark(&mut woken);
            }
        }
        Ok(woken)
    }

    /// When to wake without any event.
    fn wake_time(&self) -> Option<Instant> {
        let look = match self.watch {
            Step::Look(at) | Step::Request(at) => Some(at),
            Step::Kill | Step::Off => None,
        };
        let daemon = self.daemon.as_ref().filter(|daemon| !daemon.is_ending);
        let judged = daemon.and_then(|daemon| self.trial.due(daemon.progress));
        let told = self.daemon.as_ref().and_then(|daemon| daemon.tell_at);
        [look, judged, told, self.due].into_iter().flatten().min()
    }

    /// Sees whether a new program does what it is there for.
    fn judge(&mut self, now: Instant) {
        let Some(daemon) = self.daemon.as_mut().filter(|daemon| !daemon.is_ending) else {
            return;
        };
        match self.trial.judge(now, daemon.progress) {
            None => {}
            Some(Judgement::Proven) => self.settle(Fate::Running),
            Some(Judgement::Late) => {
                let reason = daemon.reason.get_or_insert_with(trial::lateness);
                tracing::error!(reason, "ending the new program");
                daemon.end();
            }
        }
    }

    /// Sees whether the daemon still answers.
    fn look_after(&mut self, now: Instant, request: bool) {
        let due = match self.watch {
            Step::Look(at) => at <= now,
            Step::Request(at) => request || at <= now,
            Step::Kill | Step::Off => false,
        };
        if !due {
            return;
        }
        let Ok(device) = fuse_dev::look(&self.device) else {
            return;
        };
        if !device.connected {
            // The daemon sees it too, and ends.
            self.watch = Step::Off;
            return;
        }
        self.watch = self.watchdog.look(now, self.counts(), device.readable);
        if self.watch == Step::Kill
            && let Some(daemon) = &mut self.daemon
        {
            tracing::error!(
                "the daemon finished no request for too long while some wait; ending it"
            );
            daemon.end();
        }
    }

    /// A thread that waits in the kernel for the host's file system is beyond any signal, and a process ends with its last
    /// thread. Nobody can follow it before: what the thread is at would be done twice.
    fn tell_of_a_daemon_that_stays(&mut self, now: Instant) {
        if let Some(daemon) = &mut self.daemon
            && daemon.tell_at.take_if(|at| *at <= now).is_some()
        {
            tracing::error!(
                "the daemon was ended and does not end: the file system of the private area does not answer (frozen?); \
                 the VE is served again as soon as it does"
            );
        }
    }

    fn counts(&self) -> Counts {
        self.board
            .as_ref()
            .map_or_else(Counts::default, |board| Counts {
                in_work: board.in_work(),
                finished: board.finished(),
            })
    }

    /// Nobody serves the mount any more: it must not stay in the tree, nor keep guests waiting.
    fn end(&mut self) {
        if let Some(helper) = self.helper.take() {
            let _ = helper.child.kill();
            let _ = helper.child.wait();
        }
        let Some(ours) = self.mounted.take() else {
            return;
        };
        let is_ours = match mount::device_number(self.mountpoint) {
            Ok(found) => found == ours,
            Err(error) => error.raw_os_error() == Some(libc::ENOTCONN),
        };
        if is_ours && let Err(error) = take_away(self.mountpoint, UnmountFlags::DETACH) {
            tracing::error!(%error, "cannot take the dead mount away");
        }
    }
}

impl Daemon {
    fn new(child: Child, link: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            ended: child.watch()?,
            child,
            link: Some(link),
            progress: Progress {
                started: Instant::now(),
                ready: None,
            },
            is_ending: false,
            tell_at: None,
            reason: None,
        })
    }

    /// Ends it; that it has ended is heard of as of any other end.
    fn end(&mut self) {
        self.is_ending = true;
        self.tell_at = Some(Instant::now() + PATIENCE);
        if let Err(error) = self.child.kill() {
            tracing::error!(%error, "cannot end the daemon");
        }
    }
}

fn watched(fd: &OwnedFd) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::IN)
}

fn take_away(mountpoint: &Path, flags: UnmountFlags) -> io::Result<()> {
    sys_mount::unmount(mountpoint, UnmountFlags::NOFOLLOW | flags)
}
