//! Recounts of the VE in service: a check that an administrator asked for, and the recount after a loss of power.
//!
//! A check ends when the client leaves. The recount after a crash can be stopped, and goes on where it was: when it is told to,
//! or with the daemon that follows one which ended the mount or handed over ([`crate::recount::saved`]). While it is stopped
//! it follows all changes.
//!
//! The recount after a crash takes at most a quarter of the time of one CPU and of the disk: after each thousand inodes it
//! sleeps three times as long as they took. One that fails is tried again, at growing intervals.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use quota::{Inodes, Standing};

use super::{VeService, count, failed};
use crate::control::{CheckReport, Difference, ErrorKind, Progress, Reply, protocol};
use crate::recount::{Counted, Recount};

/// Sleep of the recount after a crash in relation to its work.
const REST: u32 = 3;
const SHORTEST_REST: Duration = Duration::from_millis(4);
const LONGEST_REST: Duration = Duration::from_secs(1);
/// First and longest pause before a recount that failed is tried again.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(300);

/// How long the recount after a crash rests after this much work.
fn rest_after(work: Duration) -> Duration {
    work.saturating_mul(REST).clamp(SHORTEST_REST, LONGEST_REST)
}

impl VeService {
    /// Recounts while the guest works, and compares; with `repair` the totals are replaced by what was counted. Stops when
    /// `progress` says so.
    pub(super) fn check(&self, repair: bool, progress: &mut dyn FnMut(Progress) -> bool) -> Reply {
        let Some(recount) = self.fs.accounting().begin_recount(repair) else {
            let why = format!(
                "a recount is under way already: wait for it, or let it go on with 'simfs check {} --resume'",
                self.ve
            );
            return failed(ErrorKind::Busy, why);
        };
        let reply = self.count(&recount, &mut |now| {
            let mut state = self.progress.lock();
            state.checking = Some(now);
            let ends = state.counting_ends;
            drop(state);
            !ends && progress(now)
        });
        self.fs.accounting().end_recount();
        self.progress.lock().checking = None;
        if matches!(reply, Reply::Error(_)) && self.is_ending() {
            return failed(
                ErrorKind::Ending,
                "the mount is gone; check it again".into(),
            );
        }
        if repair && matches!(reply, Reply::Checked(_)) {
            // What a recount after a crash would have done.
            if let Err(error) = self.engine.totals_are_known() {
                return failed(ErrorKind::Store, error.to_string());
            }
        }
        reply
    }

    /// Counts the totals anew while the guest works, slowly.
    pub(in crate::ve) fn start_recovery(self: &Arc<Self>) -> io::Result<()> {
        let service = self.clone();
        let start = Progress {
            done: Inodes::ZERO,
            total_estimate: Inodes::ZERO,
        };
        let mut now = self.progress.lock();
        now.recovering = Some(start);
        let work = move || service.recover();
        now.recovery = Some(
            thread::Builder::new()
                .name("recovery".into())
                .stack_size(256 * 1024)
                .spawn(work)?,
        );
        Ok(())
    }

    /// The mount is gone: ends a recount that is under way.
    pub(in crate::ve) fn stop_counting(&self) {
        let recovery = {
            let mut now = self.progress.lock();
            now.counting_ends = true;
            now.recovery.take()
        };
        self.gone.notify_all();
        if let Some(recovery) = recovery {
            let _ = recovery.join();
        }
    }

    fn recover(&self) {
        let mut pause = FIRST_RETRY;
        while let Err(error) = self.count_anew() {
            if self.is_ending() {
                tracing::info!(ve = %self.ve, "the recount goes on with the next mount");
                return;
            }
            tracing::error!(ve = %self.ve, error, "totals not counted anew; trying again");
            self.progress.lock().recovery_error = Some(error);
            if self.ends_within(pause) {
                return;
            }
            pause = pause.saturating_mul(2).min(LAST_RETRY);
        }
        let mut now = self.progress.lock();
        now.recovering = None;
        now.is_stopped = false;
        now.recovery_error = None;
    }

    fn count_anew(&self) -> Result<(), String> {
        if !matches!(self.engine.standing(), Standing::Unknown { .. }) {
            // A check with --repair did it.
            return Ok(());
        }
        self.fs
            .write_out()
            .map_err(|error| format!("the private area cannot be written out: {error}"))?;
        let accounting = self.fs.accounting();
        let begun = self.resumable.lock().take();
        let Some(recount) = begun.or_else(|| accounting.begin_recount(true)) else {
            return Err("a check is under way".to_owned());
        };
        let mut worked = Instant::now();
        let counted = self.count(&recount, &mut |now| {
            self.progress.lock().recovering = Some(now);
            let ends = self.ends_within(rest_after(worked.elapsed()));
            worked = Instant::now();
            !ends
        });
        if !matches!(counted, Reply::Checked(_)) && self.is_ending() {
            // Followed until the last change is accounted, and kept for the next daemon.
            return Err("the mount ends".to_owned());
        }
        accounting.end_recount();
        let inodes = match counted {
            Reply::Checked(report) => report.inodes_seen,
            Reply::Error(error) => return Err(error.to_string()),
            _ => return Err("no answer".to_owned()),
        };
        self.engine
            .totals_are_known()
            .map_err(|error| error.to_string())?;
        tracing::info!(ve = %self.ve, %inodes, "totals counted anew");
        Ok(())
    }

    fn is_ending(&self) -> bool {
        self.progress.lock().counting_ends
    }

    /// Waits, and then as long as the recount is stopped; true as soon as the mount is gone.
    fn ends_within(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        let mut now = self.progress.lock();
        while !now.counting_ends && (now.is_stopped || Instant::now() < end) {
            if now.is_stopped {
                self.gone.wait(&mut now);
            } else {
                self.gone.wait_until(&mut now, end);
            }
        }
        now.counting_ends
    }

    /// Stops the recount after a crash between two looks, or has it go on.
    pub(super) fn stop_or_resume(&self, go_on: bool) -> Reply {
        let mut now = self.progress.lock();
        if now.recovering.is_none() {
            let why = "no recount after a crash is under way: see 'simfs status'";
            return failed(ErrorKind::Invalid, why.into());
        }
        let changed = now.is_stopped == go_on;
        now.is_stopped = !go_on;
        drop(now);
        self.gone.notify_all();
        tracing::info!(ve = %self.ve, go_on, changed, "the recount is stopped or goes on");
        Reply::Done { changed }
    }

    fn count(&self, recount: &Recount, progress: &mut dyn FnMut(Progress) -> bool) -> Reply {
        let estimate = match self.engine.account(quota::Subject::Ve) {
            Ok(account) => account.usage.inodes,
            Err(error) => return failed(ErrorKind::Store, error.to_string()),
        };
        let walked = self.fs.recount(recount, &mut |seen| {
            progress(Progress {
                done: Inodes::new(seen),
                total_estimate: estimate,
            })
        });
        if let Err(error) = &walked {
            self.fs.note_error(error);
        }
        let outcome = walked.map_err(|error| error.to_string()).and_then(|()| {
            recount.finish(|counted| {
                self.compare(counted, recount.repairs())
                    .map_err(|error| error.to_string())
            })
        });
        match outcome {
            Ok(report) => Reply::Checked(report),
            Err(error) => failed(ErrorKind::System, format!("the recount failed: {error}")),
        }
    }

    fn compare(&self, counted: &Counted, repair: bool) -> Result<CheckReport, quota::EngineError> {
        let found = self.engine.tally()?.differences(&counted.occupied);
        let repaired = repair && !found.is_empty();
        if repaired {
            let _ = self.engine.replace_usage(&counted.occupied)?;
        }
        let listed = protocol::DIFFERENCES_PER_REPORT;
        Ok(CheckReport {
            equal: found.is_empty(),
            repaired,
            omitted: count(found.len().saturating_sub(listed)),
            differences: found
                .into_iter()
                .take(listed)
                .map(|one| Difference {
                    subject: one.subject,
                    recorded: one.recorded,
                    counted: one.counted,
                })
                .collect(),
            inodes_seen: Inodes::new(counted.inodes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // S67: at most a quarter of the time of one CPU, as long as a thousand inodes take a third of a second.
    #[test]
    fn a_recount_rests_three_times_as_long_as_it_works() {
        for ms in [0, 1, 2, 10, 50, 333] {
            let work = Duration::from_millis(ms);
            let rest = rest_after(work);
            assert!(
                rest >= 3 * work && rest <= 3 * work + SHORTEST_REST,
                "{ms} ms"
            );
        }
        assert_eq!(rest_after(Duration::from_secs(9)), LONGEST_REST);
    }
}
