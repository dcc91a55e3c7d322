//! Random histories of the engine against a naive ledger: after every step both must show the same.
//!
//! A history reserves, settles, cancels, records, administers, lets time pass, commits, crashes and reopens, with a
//! store that fails now and then. Small numbers and few owners make limits, timers and evictions meet often.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests state what they expect"
)]

use proptest::prelude::*;

mod compare;
mod driver;
mod ops;
mod orders;
mod reference;

use driver::Driver;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").map_or(1_000, |cases| cases.parse().unwrap()),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_engine_agrees_with_a_naive_ledger(history in proptest::collection::vec(ops::op(), 1..120)) {
        let mut driver = Driver::new();
        for (number, op) in history.iter().enumerate() {
            driver.step(op, &format!("step {number} {op:?}"));
        }
        driver.finish();
    }
}
