//! Every interleaving of a few threads on the counters of which accounts are made, by a model checker.
//!
//! The module under test is the product's own file; the checker takes the place of its atomics.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests state what they expect, and use a part of the module"
)]

use loom::sync::Arc;
use loom::thread;

use counter::{Counter, Reading};

#[path = "../src/ledger/counter.rs"]
mod counter;

mod sync {
    pub(crate) mod atomic {
        pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
    }
}

/// A VE and one user, as a promise meets them: in this order, on both or on none.
#[derive(Default)]
struct Accounts {
    ve: Counter,
    user: Counter,
}

impl Accounts {
    fn promise(&self, amount: u64, ve_fence: u64, user_fence: u64) -> bool {
        if !self.ve.promise(amount, ve_fence) {
            return false;
        }
        let granted = self.user.promise(amount, user_fence);
        if !granted {
            self.ve.give_back(amount);
        }
        granted
    }

    fn settle(&self, promised: u64, charged: u64) {
        for counter in [&self.ve, &self.user] {
            counter.charge(charged);
            counter.give_back(promised - charged);
        }
    }
}

fn held(reading: Reading) -> u64 {
    reading.used + reading.promised
}

#[test]
fn promises_of_two_threads_never_pass_a_fence_and_leave_nothing_half_done() {
    loom::model(|| {
        let accounts = Arc::new(Accounts::default());
        let other = accounts.clone();
        // Both fit the VE; only one of them fits the user.
        let second = thread::spawn(move || {
            let granted = other.promise(3, 5, 4);
            if granted {
                other.settle(3, 2);
            }
            granted
        });
        let first = accounts.promise(2, 5, 4);
        for (counter, fence) in [(&accounts.ve, 5), (&accounts.user, 4)] {
            assert!(held(counter.read()) <= fence);
        }
        let second = second.join().unwrap();
        let expected = u64::from(first) * 2 + u64::from(second) * 2;
        for counter in [&accounts.ve, &accounts.user] {
            assert_eq!(held(counter.read()), expected);
        }
        assert!(first || second);
    });
}

#[test]
fn the_peak_is_the_most_that_was_ever_charged() {
    loom::model(|| {
        let counter = Arc::new(Counter::default());
        assert!(counter.promise(4, 100));
        counter.charge(4);
        let other = counter.clone();
        let second = thread::spawn(move || {
            assert!(other.promise(1, 100));
            other.charge(1);
        });
        counter.release(2);
        counter.give_back(2);
        let seen = counter.read();
        assert!(seen.peak >= 4, "{seen:?}");
        second.join().unwrap();
        let last = counter.read();
        // 4, then 5 and 3, or 2 and 3.
        assert!(
            [4, 5].contains(&last.peak) && last.peak >= seen.peak,
            "{last:?}"
        );
        assert_eq!((last.used, last.promised), (3, 0));
    });
}

#[test]
fn a_look_never_shows_more_than_was_held() {
    loom::model(|| {
        let counter = Arc::new(Counter::default());
        assert!(counter.promise(3, 3));
        let other = counter.clone();
        let second = thread::spawn(move || {
            other.charge(2);
            other.give_back(1);
            // Room that was given back may be taken again, no more.
            let _ = other.promise(1, 3);
        });
        assert!(held(counter.read()) <= 3);
        second.join().unwrap();
        assert_eq!(held(counter.read()), 3);
    });
}
