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
mod start;
mod trial;
mod watchdog;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mount::UnmountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};

use crate::mount::{self, MountOptions};
use crate::shared::Board;
use crate::sys::fork::{self, Child, Ending, Forked};
use crate::sys::task::DeviceNumber;
use crate::sys::{fuse_dev, mount as sys_mount};

use deposits::Deposits;
use order::{ORDER_MAX, Order, answer};
use restart::{Deaths, Verdict};
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
        if self.watch == Step::Request {
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
            Step::Look(at) => Some(at),
            _ => None,
        };
        let daemon = self.daemon.as_ref().filter(|daemon| !daemon.is_ending);
        let judged = daemon.and_then(|daemon| self.trial.due(daemon.progress));
        [look, judged, self.due].into_iter().flatten().min()
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
            Step::Request => request,
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

    fn counts(&self) -> Counts {
        self.board
            .as_ref()
            .map_or_else(Counts::default, |board| Counts {
                in_work: board.in_work(),
                finished: board.finished(),
            })
    }

    /// Carries out one order.
    fn take_order(&mut self) {
        let mut bytes = [0; ORDER_MAX];
        let Some((length, fd)) = self.receive(&mut bytes) else {
            return;
        };
        let Some(order) = bytes.get(..length).and_then(Order::decode) else {
            return self.answer(Err(io::Error::from_raw_os_error(libc::EINVAL)));
        };
        match order {
            Order::Mount => {
                let made = self.make();
                self.mounted = made.as_ref().ok().copied().or(self.mounted);
                self.answer(made);
            }
            Order::Unmount => self.take_away_in_child(UnmountFlags::empty()),
            Order::Detach => self.take_away_in_child(UnmountFlags::DETACH),
            Order::Deposit => {
                let fd = fd.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF));
                let kept = fd.and_then(|fd| self.deposits.take_in(fd));
                self.answer(kept.map(|number| (number, 0)));
            }
            Order::Withdraw(number) => self.deposits.withdraw(number),
            Order::Share(number) => {
                let shared = self.share(number);
                self.answer(shared.map(|()| (0, 0)));
            }
            Order::Ready => self.is_ready(),
            Order::Upgrade => {
                let opened = start::open_program(&self.program.upgrade_link);
                let outcome = opened.map(|program| self.trial.name(program));
                self.answer(outcome.map(|()| (0, 0)));
            }
            Order::Refuse(reason) => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.reason = Some(reason.to_owned());
                }
            }
        }
    }

    /// Receives one packet; `None` at the end of the link.
    fn receive(&mut self, bytes: &mut [u8]) -> Option<(usize, Option<OwnedFd>)> {
        let daemon = self.daemon.as_mut()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut packet = [io::IoSliceMut::new(bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let link = daemon.link.as_ref()?;
        let received = rustix::net::recvmsg(link, &mut packet, &mut control, flags);
        let fd = control.drain().find_map(|item| match item {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        match received {
            Ok(message) if message.bytes > 0 => Some((message.bytes, fd)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            // The daemon is ending: its own descriptor tells when.
            _ => {
                daemon.link = None;
                None
            }
        }
    }

    fn answer(&self, result: io::Result<(u32, u32)>) {
        if let Some(link) = self.daemon.as_ref().and_then(|daemon| daemon.link.as_ref()) {
            // One that does not hear it any more is dead, and that is heard of soon.
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let _ = rustix::net::send(link, &answer(result), flags);
        }
    }

    fn share(&mut self, number: u32) -> io::Result<()> {
        let deposit = self.deposits.get(number);
        let memory = deposit.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        self.board = Some(Board::open(memory.try_clone_to_owned()?)?);
        self.memory = Some(number);
        Ok(())
    }

    fn is_ready(&mut self) {
        let now = Instant::now();
        self.was_ready = true;
        if let Some(daemon) = &mut self.daemon {
            daemon.progress.ready = Some(now);
        }
        if self.board.is_some() {
            self.watchdog.is_ready(now, self.counts());
            self.watch = Step::Look(now);
        }
    }

    fn make(&self) -> io::Result<DeviceNumber> {
        mount::attach(self.device.as_fd(), self.mountpoint, self.options)?;
        mount::device_number(self.mountpoint).inspect_err(|_| {
            // Who asked hears of the first failure.
            let _ = take_away(self.mountpoint, UnmountFlags::DETACH);
        })
    }

    /// umount(2) may wait until the daemon has written what is in the cache, so it must not be the keeper that waits.
    fn take_away_in_child(&mut self, flags: UnmountFlags) {
        if self.helper.is_some() {
            return self.answer(Err(io::Error::from_raw_os_error(libc::EALREADY)));
        }
        let started = fork::fork().and_then(|side| match side {
            Forked::Child => {
                let result = take_away(self.mountpoint, flags);
                let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
                std::process::exit(result.map_or_else(errno, |()| 0));
            }
            Forked::Parent(child) => Ok(Helper {
                ended: child.watch()?,
                child,
                asker: self.daemon.as_ref().map(|daemon| daemon.child.pid()),
            }),
        });
        match started {
            Ok(helper) => self.helper = Some(helper),
            Err(error) => self.answer(Err(error)),
        }
    }

    fn helper_ended(&mut self) {
        let Some(helper) = self.helper.take() else {
            return;
        };
        let result = match helper.child.wait() {
            Ok(Ending::Exited(0)) => Ok((0, 0)),
            Ok(Ending::Exited(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Ok(Ending::Killed(_)) => Err(io::Error::from_raw_os_error(libc::EINTR)),
            Err(error) => Err(error),
        };
        if result.is_ok() {
            self.mounted = None;
        }
        // A successor did not ask.
        if self.daemon.as_ref().map(|daemon| daemon.child.pid()) == helper.asker {
            self.answer(result);
        }
    }

    /// Sees to the end of a daemon; the exit code if nobody follows it.
    fn daemon_ended(&mut self) -> Option<i32> {
        // What it said last counts.
        while self.hear_the_rest() {}
        let daemon = self.daemon.take()?;
        let reason = daemon.reason;
        let ending = daemon.child.wait().unwrap_or(Ending::Exited(1));
        self.watch = Step::Off;
        let is_served = fuse_dev::look(&self.device).is_ok_and(|device| device.connected);
        if !self.was_ready || !is_served {
            return Some(ending.code());
        }
        let now = Instant::now();
        if ending == Ending::Exited(HAND_OVER) && self.trial.is_ahead() {
            // A program that hands over has proven itself.
            self.settle(Fate::Running);
            self.trial.begin(&mut self.program.file);
            self.tell(Fate::Starting);
            self.due = Some(now);
            return None;
        }
        let cause = reason.unwrap_or_else(|| ending.to_string());
        if self.trial.take_back(&mut self.program.file) {
            tracing::error!(
                cause,
                "the new program cannot serve; the old one takes over again"
            );
            self.note_death(ending);
            self.tell(Fate::Reverted(cause));
            self.due = Some(now);
            return None;
        }
        self.note_death(ending);
        if let Some(board) = &self.board {
            board.note_restart();
        }
        if ending == Ending::Exited(REFUSED) {
            tracing::error!(cause, "no program can take over; the mount is given up");
            return Some(ending.code());
        }
        self.try_again(&cause).then_some(ending.code())
    }

    /// Decides on a successor; true says that the mount is given up.
    fn try_again(&mut self, cause: &str) -> bool {
        let (now, finished) = (Instant::now(), self.counts().finished);
        match self.deaths.add(now, finished) {
            Verdict::GiveUp => {
                tracing::error!(
                    cause,
                    "the daemon ends again and again; the mount is given up"
                );
                true
            }
            Verdict::Restart(pause) => {
                tracing::error!(
                    cause,
                    ?pause,
                    "the daemon ended without being asked; starting a successor"
                );
                self.due = Some(now + pause);
                false
            }
        }
    }

    fn note_death(&self, ending: Ending) {
        if let Some(board) = &self.board {
            board.note_death(ending.status());
        }
    }

    /// One more order of a daemon that is dead; false when there are no more.
    fn hear_the_rest(&mut self) -> bool {
        let mut bytes = [0; ORDER_MAX];
        let Some((length, _not_kept)) = self.receive(&mut bytes) else {
            return false;
        };
        match bytes.get(..length).and_then(Order::decode) {
            Some(Order::Withdraw(number)) => self.deposits.withdraw(number),
            Some(Order::Refuse(reason)) => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.reason = Some(reason.to_owned());
                }
            }
            _ => {}
        }
        true
    }

    /// Starts the successor; the exit code if that is not possible.
    fn start_daemon(&mut self) -> Option<i32> {
        self.due = None;
        let (Some(program), Some(memory)) = (&self.program.file, self.memory) else {
            tracing::error!(
                "there is no program or no saved state: the mount ends with its daemon"
            );
            return Some(1);
        };
        let started = start::successor(program, &self.device, &self.program.config, memory)
            .and_then(|(child, link)| Daemon::new(child, link));
        match started {
            Ok(daemon) => {
                let now = Instant::now();
                self.daemon = Some(daemon);
                self.watchdog.started(now, self.counts());
                self.watch = Step::Look(now);
                None
            }
            Err(error) => self.try_again(&error.to_string()).then_some(1),
        }
    }

    /// The probation is over, if there was one.
    fn settle(&mut self, fate: Fate) {
        if self.trial.end() {
            self.tell(fate);
        }
    }

    fn tell(&self, fate: Fate) {
        let attempt = Attempt {
            number: self.trial.attempts(),
            fate,
        };
        if let Some(board) = &self.board
            && !board.upgrade().write(&attempt.encode())
        {
            tracing::warn!("what came of the upgrade could not be noted");
        }
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
            reason: None,
        })
    }

    /// Ends it; that it has ended is heard of as of any other end.
    fn end(&mut self) {
        self.is_ending = true;
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
