//! What a daemon orders, carried out and answered.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::mount::UnmountFlags;
use rustix::net::{RecvFlags, SendFlags};

use super::link::{receive_packet, send_packet};
use super::order::{ORDER_MAX, Order, answer};
use super::watchdog::Step;
use super::{Helper, Keeper, start, take_away};
use crate::mount;
use crate::resources;
use crate::shared::Board;
use crate::sys::fork::{self, Ending, Forked};
use crate::sys::task::DeviceNumber;

impl Keeper<'_> {
    /// Carries out one order.
    pub(super) fn take_order(&mut self) {
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
            Order::Accept(number) => {
                let accepted = self.deposits.accept(number);
                let connection = accepted.as_ref().ok();
                let connection = connection.and_then(|number| self.deposits.get(*number));
                self.answer_with(accepted.map(|number| (number, 0)), connection);
            }
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
    pub(super) fn receive(&mut self, bytes: &mut [u8]) -> Option<(usize, Option<OwnedFd>)> {
        let daemon = self.daemon.as_mut()?;
        let link = daemon.link.as_ref()?;
        match receive_packet(link, bytes, RecvFlags::DONTWAIT) {
            Ok((length, fd)) if length > 0 => Some((length, fd)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            // The daemon is ending: its own descriptor tells when.
            _ => {
                daemon.link = None;
                None
            }
        }
    }

    pub(super) fn answer(&self, result: io::Result<(u32, u32)>) {
        self.answer_with(result, None);
    }

    fn answer_with(&self, result: io::Result<(u32, u32)>, fd: Option<BorrowedFd<'_>>) {
        if let Some(link) = self.daemon.as_ref().and_then(|daemon| daemon.link.as_ref()) {
            // One that does not hear it any more is dead, and that is heard of soon.
            let _ = send_packet(link, &answer(result), fd, SendFlags::DONTWAIT);
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
        let number = mount::device_number(self.mountpoint).inspect_err(|_| {
            // Who asked hears of the first failure.
            let _ = take_away(self.mountpoint, UnmountFlags::DETACH);
        })?;
        resources::raise_dirty_share(number);
        Ok(number)
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

    pub(super) fn helper_ended(&mut self) {
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
}
