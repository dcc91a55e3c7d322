//! Administrative steps: the naive ledger is changed by hand and kept if the engine says that it did the same.

use quota::{
    Bytes, EngineError, GracePeriod, Inodes, LimitsChange, Scope, Setting, Subject, Tally,
    Timestamp,
};

use super::driver::{Driver, INODES, START, two};
use super::ops::{Op, subjects};
use super::reference::{RESOURCES, Reference};

impl Driver {
    pub(crate) fn administer(&mut self, op: &Op) {
        let mut edited = self.reference.clone();
        let done = match op {
            Op::SetLimits {
                subject,
                soft,
                hard,
            } => self.set_limits(&mut edited, *subject, soft, hard),
            Op::SetDeadlines { subject, deadlines } => {
                let account = edited.account_mut(*subject);
                for r in RESOURCES {
                    let held = account.used[r] + account.reserved[r];
                    if let (Some(soft), Some(to)) = (account.soft[r], deadlines[r])
                        && held > soft
                    {
                        account.deadline[r] = to.map(|at| START + at);
                    }
                }
                let to = deadlines.map(|to| to.map(|at| at.map(|at| Timestamp::new(START + at))));
                self.engine.set_deadlines(*subject, to[0], to[1])
            }
            Op::SetGrace { scope, periods } => {
                let old = edited.settings.grace[scope];
                let new = RESOURCES.map(|r| periods[r].unwrap_or(old[r]));
                edited.settings.grace.insert(*scope, new);
                for (subject, account) in &mut edited.accounts {
                    for r in RESOURCES {
                        if Scope::of(*subject) == *scope
                            && let Some(end) = &mut account.deadline[r]
                        {
                            *end += i64::try_from(new[r]).unwrap() - i64::try_from(old[r]).unwrap();
                        }
                    }
                }
                let periods = periods.map(|period| period.map(GracePeriod::new));
                self.engine
                    .set_grace_periods(*scope, periods[0], periods[1])
            }
            Op::SetEnforced { scope, on } => {
                // Timers are looked at only when the switch is turned.
                if edited.settings.enforced.insert(*scope, *on) != Some(*on) {
                    let in_scope = |subject: &Subject| Scope::of(*subject) == *scope;
                    let concerned: Vec<_> =
                        edited.accounts.keys().copied().filter(in_scope).collect();
                    concerned
                        .into_iter()
                        .for_each(|subject| edited.follow(subject));
                }
                self.engine.set_enforced(*scope, *on)
            }
            Op::SetUgidLimit(limit) => {
                edited.settings.ugid_limit = *limit;
                self.engine.set_ugid_limit(*limit)
            }
            Op::Repair { inode } => self.repair(&mut edited, *inode),
            _ => unreachable!(),
        };
        match done {
            Ok(changed) => {
                self.reference = edited;
                if changed.is_yes() {
                    self.committed(true);
                }
            }
            Err(EngineError::SoftAboveHard { .. }) => {}
            Err(_) => self.committed(false),
        }
    }

    fn set_limits(
        &self,
        edited: &mut Reference,
        subject: Subject,
        soft: &[Setting<u64>; 2],
        hard: &[Setting<u64>; 2],
    ) -> Result<quota::Changed, EngineError> {
        let before = edited.account(subject);
        let account = edited.account_mut(subject);
        for r in RESOURCES {
            account.soft[r] = soft[r].applied_to(account.soft[r]);
            account.hard[r] = hard[r].applied_to(account.hard[r]);
        }
        if (&before.soft, &before.hard) != (&account.soft, &account.hard) {
            edited.follow(subject);
        }
        let change = LimitsChange {
            space_soft: map(soft[0], Bytes::new),
            space_hard: map(hard[0], Bytes::new),
            inodes_soft: map(soft[1], Inodes::new),
            inodes_hard: map(hard[1], Inodes::new),
        };
        self.engine.set_limits(subject, &change)
    }

    /// A recount that finds one inode to be different.
    fn repair(
        &mut self,
        edited: &mut Reference,
        inode: usize,
    ) -> Result<quota::Changed, EngineError> {
        let tally = self.engine.tally()?;
        let mut counted = Tally::default();
        let skipped = inode % INODES;
        for (at, found) in self.inodes.iter().enumerate() {
            if let Some((owner, usage)) = found
                && at != skipped
            {
                counted.add(*owner, *usage);
            }
        }
        if tally.differences(&counted).is_empty() {
            return self.engine.replace_usage(&counted);
        }
        for subject in subjects() {
            let usage = two(counted.usage(subject));
            let account = edited.account_mut(subject);
            if usage != account.used {
                account.used = usage;
                RESOURCES
                    .iter()
                    .for_each(|&r| account.peak[r] = account.peak[r].max(usage[r]));
                edited.follow(subject);
            }
        }
        let done = self.engine.replace_usage(&counted)?;
        self.inodes[skipped] = None;
        Ok(done)
    }
}

fn map<T>(setting: Setting<u64>, wrap: impl FnOnce(u64) -> T) -> Setting<T> {
    match setting {
        Setting::Keep => Setting::Keep,
        Setting::Unlimited => Setting::Unlimited,
        Setting::To(value) => Setting::To(wrap(value)),
    }
}
