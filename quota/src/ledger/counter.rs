//! One resource of one account, changed by many threads at once without a lock.
//!
//! ```text
//! used                  what is charged
//! held = used + promised
//! peak                  the most that `used` ever was, but for its present value
//! ```
//! Invariants:
//! 1. `held` passes no bound that it is raised under, at no instant: the comparison and the change are one step.
//! 2. `used <= held`: what is charged was promised before, and a promise is given back after.
//! 3. The larger of `peak` and `used` is the most that was ever charged, exactly: `used` falls only from a value that
//!    is in `peak` already. So a total that only grows need not touch `peak`.
//!
//! Each bound concerns one variable alone, so nothing is ordered by these but 3, where the fall of `used` publishes `peak`.

use crate::sync::atomic::{AtomicU64, Ordering};

/// The running amounts of one resource.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    used: AtomicU64,
    held: AtomicU64,
    peak: AtomicU64,
}

/// What a counter shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Charged.
    pub(crate) used: u64,
    /// Promised.
    pub(crate) promised: u64,
    /// The most that was ever charged.
    pub(crate) peak: u64,
}

impl Counter {
    /// Promises an amount, if charges and promises together stay within the bound.
    pub(crate) fn promise(&self, amount: u64, bound: u64) -> bool {
        let mut held = self.held.load(Ordering::Relaxed);
        loop {
            let Some(raised) = held.checked_add(amount).filter(|&sum| sum <= bound) else {
                return false;
            };
            match self.held.compare_exchange_weak(
                held,
                raised,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(present) => held = present,
            }
        }
    }

    /// Gives back what is promised and not charged.
    pub(crate) fn give_back(&self, amount: u64) {
        if amount > 0 {
            let before = self.held.fetch_sub(amount, Ordering::Relaxed);
            debug_assert!(before >= amount, "{amount} of {before} given back");
        }
    }

    /// Charges what was promised; it stays held.
    pub(crate) fn charge(&self, amount: u64) {
        self.used.fetch_add(amount, Ordering::Relaxed);
    }

    /// Takes a charge away; it stays held, as a promise.
    pub(crate) fn release(&self, amount: u64) {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            if self.peak.load(Ordering::Relaxed) < used {
                self.peak.fetch_max(used, Ordering::Relaxed);
            }
            debug_assert!(used >= amount, "{amount} of {used} released");
            match self.used.compare_exchange_weak(
                used,
                used.saturating_sub(amount),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(present) => used = present,
            }
        }
    }

    /// Whether this much is charged, and this much promised.
    pub(crate) fn has(&self, charged: u64, promised: u64) -> bool {
        let present = self.read();
        present.used >= charged && present.promised >= promised
    }

    /// Everything. Where others change it meanwhile each figure is of some moment of the call, and `used + promised` is not
    /// more than was held at one.
    pub(crate) fn read(&self) -> Reading {
        let used = self.used.load(Ordering::Acquire);
        let held = self.held.load(Ordering::Relaxed);
        Reading {
            used,
            promised: held.saturating_sub(used),
            peak: self.peak.load(Ordering::Relaxed).max(used),
        }
    }

    /// Replaces everything. Nobody else may change it meanwhile.
    pub(crate) fn put(&self, new: Reading) {
        self.used.store(new.used, Ordering::Relaxed);
        let held = new.used.saturating_add(new.promised);
        self.held.store(held, Ordering::Relaxed);
        self.peak.store(new.peak, Ordering::Relaxed);
    }
}
