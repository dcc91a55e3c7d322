//! Random histories of several users on a mount and on a plain directory: same answers, same trees, exact totals.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::compare::Pair;
use crate::harness::ops::{any_op, any_user};
use crate::harness::{Kind, Spec};

/// Histories per backing file system; `SIMFS_HISTORIES` changes it.
fn histories() -> u32 {
    std::env::var("SIMFS_HISTORIES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(40)
}

fn compare_on(kind: Kind) {
    let Some(pair) = Pair::new(Spec::default().backing(kind)) else {
        return;
    };
    let config = Config {
        cases: histories(),
        max_shrink_iters: 200,
        failure_persistence: None,
        fork: false,
        ..Config::default()
    };
    let history = prop::collection::vec((any_user(), any_op()), 1..60);
    let outcome = TestRunner::new(config).run(&history, |ops| {
        pair.clear();
        pair.play(&ops);
        Ok(())
    });
    pair.clear();
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

// S30, S4: as on the backing file system, with exact totals.
#[test]
fn random_histories_on_the_host() {
    compare_on(Kind::Host);
}

#[test]
fn random_histories_on_ext4() {
    compare_on(Kind::Ext4 { mib: 64 });
}

#[test]
fn random_histories_on_xfs() {
    compare_on(Kind::Xfs { mib: 400 });
}

#[test]
fn random_histories_on_tmpfs() {
    compare_on(Kind::Tmpfs { mib: 64 });
}

#[test]
fn random_histories_on_btrfs() {
    compare_on(Kind::Btrfs { mib: 300 });
}
