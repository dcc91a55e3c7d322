//! Where the time comes from: the system, or a test.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::grace::Timestamp;

/// A source of the present time.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The system's wall clock: deadlines are stored and must mean the same after a reboot.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let seconds = |length: std::time::Duration| i64::try_from(length.as_secs());
        let now = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => seconds(since).unwrap_or(i64::MAX),
            Err(before) => seconds(before.duration()).map_or(i64::MIN, |length| -length),
        };
        Timestamp::new(now)
    }
}

/// A clock that stands still until it is moved; for tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows this moment.
    pub const fn new(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.get()))
    }

    /// Moves the clock to this moment, forward or back.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.get(), Ordering::SeqCst);
    }

    /// Moves the clock forward by this many seconds.
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::new(self.0.load(Ordering::SeqCst))
    }
}
