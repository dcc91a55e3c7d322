//! An account in memory: amounts that many threads change at once, and the rest, which changes only in closed lanes.
//!
//! What is stored of an account is taken without stopping anybody. An entry knows in which *generation*, the time from
//! one commit to the next, its record was last changed. A commit begins a new generation and then copies, one by one,
//! the records that the one before had changed. Whoever changes a record for the first time in a generation puts the
//! earlier one aside first, if the commit has not been there yet.
//!
//! Invariants:
//! 1. `touched` is 0 where the stored record is the present one, or is being stored.
//! 2. A record changes only after [`Entry::touch`] in the present generation, so one that was not touched in it is that
//!    of the generation's start.
//! 3. `calm` and `fences` follow every change of the rest: they are what [`Dquot::free_range`] says.
//!
//! Lock order: `side` after the lanes and the roster, before the list of changed entries.

use crate::account::{Account, Refusals};
use crate::charges::Move;
use crate::dquot::{Dquot, ReportedBoth, is_worth_storing};
use crate::grace::Deadlines;
use crate::limit::Limits;
use crate::store::record::AccountRecord;
use crate::subject::Subject;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::units::{Bytes, Inodes};
use crate::usage::{Resource, Usage};

use super::counter::{Counter, Reading};

/// The number of a generation; 0 is none.
pub(crate) type Generation = u64;

/// One account in memory.
#[derive(Debug)]
pub(crate) struct Entry {
    subject: Subject,
    space: Counter,
    inodes: Counter,
    fences: [AtomicU64; 2],
    touched: AtomicU64,
    calm: AtomicBool,
    /// Used since the last look for accounts to let go.
    recent: AtomicBool,
    side: Mutex<Side>,
}

/// Most accounts have neither.
#[derive(Debug, Default)]
struct Side {
    rest: Option<Box<Rest>>,
    /// The record of the generation's start, for the commit under way.
    kept: Option<Box<AccountRecord>>,
}

/// What of an account changes only in closed lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rest {
    refused: Refusals,
    limits: Limits,
    deadlines: Deadlines,
    reported: ReportedBoth,
}

impl Entry {
    /// This account, unchanged.
    pub(crate) fn new(dquot: &Dquot, enforced: bool) -> Self {
        let entry = Self {
            subject: dquot.account().subject,
            space: Counter::default(),
            inodes: Counter::default(),
            fences: Default::default(),
            touched: AtomicU64::new(0),
            calm: AtomicBool::new(false),
            recent: AtomicBool::new(true),
            side: Mutex::default(),
        };
        entry.put_amounts(dquot, enforced);
        entry.put_rest(dquot);
        entry
    }

    /// Whose.
    pub(crate) const fn subject(&self) -> Subject {
        self.subject
    }

    /// The account as it is. In closed lanes all of it is of one moment; in a lane, amounts may be of several.
    pub(crate) fn dquot(&self) -> Dquot {
        let side = self.side.lock();
        let (account, reported) = self.parts(&side);
        Dquot::of_parts(account, reported)
    }

    /// Replaces amounts, and how far they may change at once. Only in closed lanes.
    pub(crate) fn put_amounts(&self, dquot: &Dquot, enforced: bool) {
        let account = dquot.account();
        for resource in Resource::ALL {
            self.counter(resource).put(Reading {
                used: account.usage.get(resource),
                promised: account.reserved.get(resource),
                peak: account.peak.get(resource),
            });
        }
        let range = dquot.free_range(enforced);
        self.calm.store(range.is_some(), Ordering::Relaxed);
        for (fence, bound) in self.fences.iter().zip(range.unwrap_or_default()) {
            fence.store(bound, Ordering::Relaxed);
        }
    }

    /// Replaces all but the amounts. Only in closed lanes.
    pub(crate) fn put_rest(&self, dquot: &Dquot) {
        let (account, reported) = dquot.parts();
        let rest = Rest {
            refused: account.refused,
            limits: account.limits,
            deadlines: account.deadlines,
            reported: *reported,
        };
        let mut side = self.side.lock();
        if side.rest.as_deref() != Some(&rest) {
            side.rest = (rest != Rest::default()).then(|| Box::new(rest));
        }
    }

    /// Promises an amount, if that needs no look at the rules.
    pub(crate) fn promise(&self, want: Usage) -> bool {
        if !self.is_calm() || !self.raise(Resource::Space, want.space.get()) {
            return false;
        }
        if !self.raise(Resource::Inodes, want.inodes.get()) {
            self.space.give_back(want.space.get());
            return false;
        }
        self.note_use();
        true
    }

    /// Takes back what [`Self::promise`] granted.
    pub(crate) fn cancel(&self, want: Usage) {
        self.space.give_back(want.space.get());
        self.inodes.give_back(want.inodes.get());
    }

    /// The first half of a move, which may not need a look at the rules: promises what it adds beyond what it gives back.
    pub(crate) fn prepare(&self, part: &Move) -> bool {
        // More given back than there is: the rules know what to do, and say so.
        let is_there = Resource::ALL.into_iter().all(|resource| {
            let step = part.step(resource);
            step.back | step.shrink == 0 || self.counter(resource).has(step.shrink, step.back)
        });
        is_there && self.promise(part.excess())
    }

    /// The second half, which cannot fail.
    pub(crate) fn carry_out(&self, part: &Move) {
        for resource in Resource::ALL {
            let counter = self.counter(resource);
            let step = part.step(resource);
            if step.grow > 0 {
                counter.charge(step.grow);
            }
            if step.shrink > 0 {
                counter.release(step.shrink);
            }
            counter.give_back(step.surplus());
        }
    }

    /// Says that the record is about to change; true for the first time in this generation.
    pub(super) fn touch(&self, now: Generation) -> bool {
        if self.touched.load(Ordering::Acquire) == now {
            return false;
        }
        let mut side = self.side.lock();
        let last = self.touched.load(Ordering::Relaxed);
        if last == now {
            return false;
        }
        if last != 0 {
            side.kept = Some(Box::new(self.record_with(&side)));
        }
        self.touched.store(now, Ordering::Release);
        true
    }

    /// The record as this generation left it, if it changed it and nobody took it yet; from then on it counts as stored.
    pub(super) fn take_record(&self, of: Generation) -> Option<AccountRecord> {
        let mut side = self.side.lock();
        if let Some(kept) = side.kept.take() {
            return Some(*kept);
        }
        if self.touched.load(Ordering::Relaxed) != of {
            return None;
        }
        self.touched.store(0, Ordering::Release);
        Some(self.record_with(&side))
    }

    /// Whether the record, or the promise on it, is not worth the memory: as if the account had never been used.
    pub(super) fn is_unused(&self) -> bool {
        let dquot = self.dquot();
        dquot.account().reserved.is_zero() && !is_worth_storing(&dquot.record())
    }

    /// Whether something is promised.
    pub(super) fn has_promises(&self) -> bool {
        Resource::ALL
            .into_iter()
            .any(|resource| self.counter(resource).read().promised > 0)
    }

    /// Whether the account was used since the last call.
    pub(super) fn was_used(&self) -> bool {
        self.recent.swap(false, Ordering::Relaxed)
    }

    /// Keeps the account from being let go for a while.
    pub(super) fn note_use(&self) {
        if !self.recent.load(Ordering::Relaxed) {
            self.recent.store(true, Ordering::Relaxed);
        }
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    fn raise(&self, resource: Resource, amount: u64) -> bool {
        let [space, inodes] = &self.fences;
        let fence = match resource {
            Resource::Space => space,
            Resource::Inodes => inodes,
        };
        amount == 0
            || self
                .counter(resource)
                .promise(amount, fence.load(Ordering::Relaxed))
    }

    const fn counter(&self, resource: Resource) -> &Counter {
        match resource {
            Resource::Space => &self.space,
            Resource::Inodes => &self.inodes,
        }
    }

    fn record_with(&self, side: &Side) -> AccountRecord {
        let (account, reported) = self.parts(side);
        Dquot::of_parts(account, reported).record()
    }

    fn parts(&self, side: &Side) -> (Account, ReportedBoth) {
        let (space, inodes) = (self.space.read(), self.inodes.read());
        let both = |space, inodes| Usage::new(Bytes::new(space), Inodes::new(inodes));
        let mut account = Account {
            usage: both(space.used, inodes.used),
            reserved: both(space.promised, inodes.promised),
            peak: both(space.peak, inodes.peak),
            ..Account::unused(self.subject)
        };
        let mut reported = ReportedBoth::default();
        if let Some(rest) = side.rest.as_deref() {
            account.refused = rest.refused;
            account.limits = rest.limits;
            account.deadlines = rest.deadlines;
            reported = rest.reported;
        }
        (account, reported)
    }
}
