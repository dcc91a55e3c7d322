//! The end of a daemon, and who follows it.

use std::time::Instant;

use super::order::{ORDER_MAX, Order};
use super::restart::Verdict;
use super::watchdog::Step;
use super::{Attempt, Daemon, Fate, HAND_OVER, Keeper, REFUSED, start};
use crate::sys::fork::Ending;
use crate::sys::fuse_dev;

impl Keeper<'_> {
    /// Sees to the end of a daemon; the exit code if nobody follows it.
    pub(super) fn daemon_ended(&mut self) -> Option<i32> {
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
    pub(super) fn start_daemon(&mut self) -> Option<i32> {
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
    pub(super) fn settle(&mut self, fate: Fate) {
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
}
