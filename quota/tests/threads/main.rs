//! Many threads at once: nobody ever sees more than what the limits allow, and the sums agree at the end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests state what they expect"
)]

mod borders;
mod limit;

use std::sync::atomic::{AtomicBool, Ordering};

use quota::{Tally, Usage};

fn dice(seed: &mut u64, below: u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed % below
}

fn assert_sums(tally: &Tally) {
    let sum = |usage: Vec<Usage>| usage.into_iter().fold(Usage::ZERO, Usage::saturating_add);
    assert_eq!(tally.ve, sum(tally.users.values().copied().collect()));
    assert_eq!(tally.ve, sum(tally.groups.values().copied().collect()));
}

/// Adds what one thread has left to what all have.
fn add(all: &mut Tally, left: &Tally) {
    for subject in left.subjects() {
        let sum = all.usage(subject).saturating_add(left.usage(subject));
        all.set(subject, sum);
    }
}

/// Ends the threads that go on until told also when the test fails, or it would hang.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
