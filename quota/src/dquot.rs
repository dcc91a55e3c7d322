//! One account and its rules: a request and the time give a verdict.                                        (pure)
//!
//! `U` is what is charged plus what is promised; `n` what a request asks for; `S`, `H` the limits; `T` the deadline.
//! ```text
//! n = 0                          allowed
//! U + n > H                      refused: hard limit
//! U + n > S and now >= T         refused: grace expired
//! otherwise                      allowed
//! ```
//! Comparisons are strict: a limit may be reached exactly. After every step the timer follows `U`:
//! ```text
//! U <= S, or no S                the timer is stopped
//! U > S and it does not run      it is started: T = now + period     (only while enforced)
//! U > S and it runs              it is left alone
//! ```
//!
//! Invariants:
//! 1. Both resources of a request are allowed, or neither; a check changes nothing.
//! 2. Amounts never wrap: a request that would leave 64 bits is refused, enforced or not.
//! 3. Giving back more than there is leaves zero, and says so.
//! 4. The peak is at least what is charged.
//!
//! # Source
//! Linux `fs/quota/dquot.c`: `dquot_add_space`, `dquot_decr_space`, `do_set_dqblk`; OpenVZ kernel
//! `fs/quota/vzdquota/vzdq_ops.c`. OpenVZ stops the timer only below S and only when something is freed; here, as on
//! Linux, at S too, and also when limits change.

use crate::account::Account;
use crate::charges::Move;
use crate::error::{Denied, DenyReason};
use crate::event::{Event, EventKind, News};
use crate::grace::{Deadlines, DeadlinesChange, GracePeriods, Timestamp};
use crate::limit::{Limit, Limits};
use crate::store::record::AccountRecord;
use crate::subject::Subject;
use crate::usage::{Resource, Usage};

/// What is valid for an account at the moment of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Whether limits are looked at.
    pub(crate) enforced: bool,
    /// How long the soft limit may be passed.
    pub(crate) grace: GracePeriods,
    /// The present time.
    pub(crate) now: Timestamp,
}

/// Which events of the present crossing have been reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    soft: bool,
    expired: bool,
    hard: bool,
}

/// What has been reported of space and of inodes.
pub(crate) type ReportedBoth = [Reported; 2];

/// One account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dquot {
    account: Account,
    reported: ReportedBoth,
}

impl Dquot {
    /// An account as it was when [`Self::parts`] took it apart.
    pub(crate) const fn of_parts(account: Account, reported: ReportedBoth) -> Self {
        Self { account, reported }
    }

    /// The account, and what has been reported of it.
    pub(crate) const fn parts(&self) -> (&Account, &ReportedBoth) {
        (&self.account, &self.reported)
    }

    /// The account in this record; nothing is promised. A timer that a promise had started ended with the promise.
    pub(crate) fn new(subject: Subject, record: &AccountRecord) -> Self {
        let AccountRecord {
            usage,
            peak,
            refused,
            limits,
            deadlines,
        } = *record;
        let reserved = Usage::ZERO;
        let account = Account {
            subject,
            usage,
            reserved,
            peak,
            refused,
            limits,
            deadlines,
        };
        let mut dquot = Self {
            account,
            reported: [Reported::default(); 2],
        };
        for resource in Resource::ALL {
            if !dquot.is_over_soft(resource) {
                dquot.account.deadlines.set(resource, None);
            }
        }
        dquot
    }

    /// Whether limits, timers, refusals and reports are the same.
    pub(crate) fn differs_in_amounts_only(&self, other: &Self) -> bool {
        let (mine, others) = (&self.account, &other.account);
        self.reported == other.reported
            && mine.limits == others.limits
            && mine.deadlines == others.deadlines
            && mine.refused == others.refused
    }

    /// What is to be stored.
    pub(crate) fn record(&self) -> AccountRecord {
        let Account {
            usage,
            peak,
            refused,
            limits,
            deadlines,
            ..
        } = self.account;
        AccountRecord {
            usage,
            peak,
            refused,
            limits,
            deadlines,
        }
    }

    /// The account as it is shown.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// Whether this fits, both resources of it. `limited` is whether limits count for this request.
    pub(crate) fn check(&self, want: Usage, limited: bool, now: Timestamp) -> Result<(), Denied> {
        for resource in Resource::ALL {
            let n = want.get(resource);
            if n == 0 {
                continue;
            }
            let denied = |limit, reason| self.denied(resource, limit, reason);
            let Some(total) = self.held(resource).checked_add(n) else {
                return Err(denied(u64::MAX, DenyReason::HardLimit));
            };
            if !limited {
                continue;
            }
            let Limit { soft, hard } = self.account.limits.get(resource);
            if let Some(hard) = hard.filter(|&hard| total > hard) {
                return Err(denied(hard, DenyReason::HardLimit));
            }
            let expired = self
                .account
                .deadlines
                .get(resource)
                .is_some_and(|end| now >= end);
            if let Some(soft) = soft.filter(|&soft| total > soft && expired) {
                return Err(denied(soft, DenyReason::GraceExpired));
            }
        }
        Ok(())
    }

    /// How much more would fit, per resource.
    pub(crate) fn room(&self, limited: bool, now: Timestamp) -> Usage {
        let mut room = Usage::ZERO;
        for resource in Resource::ALL {
            let Limit { soft, hard } = self.account.limits.get(resource);
            let expired = self
                .account
                .deadlines
                .get(resource)
                .is_some_and(|end| now >= end);
            let limit = Limit {
                soft: soft.filter(|_| expired),
                hard,
            }
            .lowest();
            let limit = limit.filter(|_| limited).unwrap_or(u64::MAX);
            room.set(resource, limit.saturating_sub(self.held(resource)));
        }
        room
    }

    /// Promises an amount that was checked. Says whether what is stored changed.
    pub(crate) fn promise(&mut self, want: Usage, rules: Rules) -> bool {
        self.account.reserved = self.account.reserved.saturating_add(want);
        self.follow(rules)
    }

    /// Counts a refusal that this account decided.
    pub(crate) fn count_refusal(&mut self, denied: &Denied, news: &mut News) {
        let resource = denied.resource;
        self.account.refused.count(resource);
        let reported = self.reported_mut(resource);
        let (flag, kind) = match denied.reason {
            DenyReason::HardLimit => (&mut reported.hard, EventKind::HardReached),
            DenyReason::GraceExpired => (&mut reported.expired, EventKind::GraceExpired),
            DenyReason::AccountUnavailable => return,
        };
        if !std::mem::replace(flag, true) {
            news.events.push(self.event(resource, kind));
        }
    }

    /// Gives a promise back and moves charges.
    pub(crate) fn apply(&mut self, part: Move, rules: Rules, news: &mut News) {
        for resource in Resource::ALL {
            let promised = self.account.reserved.get(resource);
            let back = part.promised.get(resource);
            let used = self.account.usage.get(resource);
            let moved = i128::from(used) + i128::from(part.plus.get(resource))
                - i128::from(part.minus.get(resource));
            let bound = if moved < 0 { 0 } else { u64::MAX };
            let after = u64::try_from(moved);
            if back > promised || after.is_err() {
                news.broken.push((self.account.subject, resource));
            }
            let after = after.unwrap_or(bound);
            self.account
                .reserved
                .set(resource, promised.saturating_sub(back));
            self.account.usage.set(resource, after);
            self.rearm(resource, after < used);
        }
        self.account.peak = self.account.peak.max(self.account.usage);
        self.follow(rules);
        self.report_soft(rules, news);
    }

    /// Up to where this account may be charged and promised without a look at the rules, in bytes and in inodes; `None` where
    /// each step needs them.
    ///
    /// Up to there nothing changes but amounts: no limit refuses, no timer runs, starts or stops, and nothing is
    /// reported or forgotten to have been. Going down from above a bound is not told from going down below it, so an
    /// account above a soft limit has none.
    pub(crate) fn free_range(&self, enforced: bool) -> Option<[u64; 2]> {
        let is_quiet =
            self.account.deadlines == Deadlines::NONE && self.reported == ReportedBoth::default();
        let over_soft = Resource::ALL.map(|resource| self.is_over_soft(resource));
        if !is_quiet || enforced && over_soft.contains(&true) {
            return None;
        }
        Some(Resource::ALL.map(|resource| {
            let limit = self.account.limits.get(resource).lowest();
            limit.filter(|_| enforced).unwrap_or(u64::MAX)
        }))
    }

    /// Replaces the limits; the timer follows at once.
    pub(crate) fn set_limits(&mut self, limits: Limits, rules: Rules) {
        self.account.limits = limits;
        self.reported = [Reported::default(); 2];
        self.follow(rules);
    }

    /// Moves or stops a timer where the soft limit is passed; elsewhere there is none to move.
    ///
    /// # Source
    /// setquota(8) `-T`; Linux `fs/quota/dquot.c`, `do_set_dqblk`. A timer that is stopped above the soft limit starts
    /// anew with the next change.
    pub(crate) fn set_deadlines(&mut self, change: DeadlinesChange) {
        let deadlines = change.applied_to(self.account.deadlines);
        for resource in Resource::ALL {
            if self.is_over_soft(resource) {
                self.account
                    .deadlines
                    .set(resource, deadlines.get(resource));
            }
        }
    }

    /// Other grace periods: running deadlines keep the moment at which their timer started.
    pub(crate) fn move_deadlines(&mut self, old: GracePeriods, new: GracePeriods) {
        for resource in Resource::ALL {
            if let Some(deadline) = self.account.deadlines.get(resource) {
                let moved = deadline.moved(old.get(resource), new.get(resource));
                self.account.deadlines.set(resource, Some(moved));
            }
        }
    }

    /// Starts and stops timers as `U` demands. Says whether one changed.
    pub(crate) fn follow(&mut self, rules: Rules) -> bool {
        let before = self.account.deadlines;
        for resource in Resource::ALL {
            let running = self.account.deadlines.get(resource);
            let deadline = if !self.is_over_soft(resource) {
                None
            } else if rules.enforced {
                running.or(Some(rules.now.saturating_add(rules.grace.get(resource))))
            } else {
                running
            };
            self.account.deadlines.set(resource, deadline);
        }
        before != self.account.deadlines
    }

    /// Whether charges and promises together are above a soft limit.
    fn is_over_soft(&self, resource: Resource) -> bool {
        let soft = self.account.limits.get(resource).soft;
        soft.is_some_and(|soft| self.held(resource) > soft)
    }

    /// Charged plus promised. Checks keep the sum within 64 bits; what cannot be refused may saturate it.
    fn held(&self, resource: Resource) -> u64 {
        self.account
            .usage
            .get(resource)
            .saturating_add(self.account.reserved.get(resource))
    }

    /// A promise above the soft limit may settle below it: only what is charged is reported.
    fn report_soft(&mut self, rules: Rules, news: &mut News) {
        for resource in Resource::ALL {
            let soft = self.account.limits.get(resource).soft;
            let over = soft.is_some_and(|soft| self.account.usage.get(resource) > soft);
            if !over || !rules.enforced || self.reported_mut(resource).soft {
                continue;
            }
            self.reported_mut(resource).soft = true;
            let deadline = self.account.deadlines.get(resource);
            news.events
                .push(self.event(resource, EventKind::SoftExceeded { deadline }));
        }
    }

    /// Allows events to be reported again once usage is below their limit.
    fn rearm(&mut self, resource: Resource, fell: bool) {
        let used = self.account.usage.get(resource);
        let Limit { soft, hard } = self.account.limits.get(resource);
        let reported = self.reported_mut(resource);
        if soft.is_none_or(|soft| used <= soft) {
            reported.soft = false;
        }
        if fell && soft.is_none_or(|soft| used <= soft) {
            reported.expired = false;
        }
        if fell && hard.is_none_or(|hard| used < hard) {
            reported.hard = false;
        }
    }

    fn denied(&self, resource: Resource, limit: u64, reason: DenyReason) -> Denied {
        let subject = self.account.subject;
        Denied {
            subject,
            resource,
            used: self.account.usage.get(resource),
            limit,
            reason,
        }
    }

    fn event(&self, resource: Resource, kind: EventKind) -> Event {
        let Limit { soft, hard } = self.account.limits.get(resource);
        let used = self.account.usage.get(resource);
        Event {
            subject: self.account.subject,
            resource,
            kind,
            used,
            soft,
            hard,
        }
    }

    fn reported_mut(&mut self, resource: Resource) -> &mut Reported {
        let [space, inodes] = &mut self.reported;
        match resource {
            Resource::Space => space,
            Resource::Inodes => inodes,
        }
    }
}

/// Whether an account is to be stored: one without usage, limits and deadlines is not.
pub(crate) fn is_worth_storing(record: &AccountRecord) -> bool {
    !record.usage.is_zero() || !record.limits.is_unlimited() || record.deadlines != Deadlines::NONE
}
