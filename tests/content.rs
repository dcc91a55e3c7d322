//! Random work on one file, compared with its bytes in memory: with room, and at a limit of either level.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::content::{Answer, Subject, any_work};
use crate::harness::files::occupied;
use crate::harness::user::{ALICE, ROOT, User};
use crate::harness::{KIB, Kind, Spec, Ve, require};

/// Histories per test; `SIMFS_HISTORIES` changes it.
fn histories() -> u32 {
    let text = std::env::var("SIMFS_HISTORIES").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(40)
}

/// Plays histories as `user`; `allowed` says how many bytes the file itself may occupy.
fn play(ve: &Ve, user: User, allowed: Option<u64>) {
    let config = Config {
        cases: histories(),
        max_shrink_iters: 300,
        failure_persistence: None,
        ..Config::default()
    };
    let (refused, short) = (Cell::new(0_u32), Cell::new(0_u32));
    let history = prop::collection::vec(any_work(allowed.is_none()), 1..80);
    let (path, below) = (ve.path("dir/file"), ve.private().join("dir/file"));
    let outcome = TestRunner::new(config).run(&history, |works| {
        let answers = user.run(|| {
            let mut subject = Subject::new(&path);
            let mut answers = Vec::new();
            for work in &works {
                answers.push(subject.perform(work));
                if let Some(allowed) = allowed {
                    let occupied = occupied(&below);
                    assert!(occupied <= allowed, "{occupied} > {allowed} after {work:?}");
                }
                subject.compare(work);
            }
            answers
        });
        ve.assert_exact();
        std::fs::remove_file(&path).expect("remove");
        let count = |kind| answers.iter().filter(|answer| **answer == kind).count() as u32;
        refused.set(refused.get() + count(Answer::Refused));
        short.set(short.get() + count(Answer::Short));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let (refused, short) = (refused.get(), short.get());
    if allowed.is_some() {
        assert!(
            refused > 0 && short > 0,
            "{refused} refused, {short} short: the limit was not met"
        );
    } else {
        assert_eq!((refused, short), (0, 0), "refused without a limit");
    }
}

/// A VE with a directory for everybody; `None` after a skip.
fn prepared(spec: Spec) -> Option<Ve> {
    if !require::programs(&["xfs_io"]) {
        return None;
    }
    let ve = spec.second_level().mount()?;
    std::fs::create_dir(ve.path("dir")).expect("mkdir");
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(ve.path("dir"), open_to_all).expect("chmod");
    Some(ve)
}

// S30, S4: content as on the backing file system, totals exact.
fn content_on(kind: Kind) {
    if let Some(ve) = prepared(Spec::default().backing(kind)) {
        play(&ve, ROOT, None);
    }
}

// S7, S8, S20: at the limit of the VE a refused call has changed nothing, a short one its part.
fn content_at_the_limit_on(kind: Kind) {
    let Some(ve) = prepared(Spec::default().backing(kind)) else {
        return;
    };
    let room = 120 * KIB;
    let hard = ((ve.used().space + room) / KIB).to_string();
    ve.setlimit(&["-b", &hard, "-B", &hard]);
    play(&ve, ROOT, Some(room));
}

#[test]
fn content_on_the_host() {
    content_on(Kind::Host);
}

#[test]
fn content_in_memory() {
    content_on(Kind::Tmpfs { mib: 64 });
}

#[test]
fn content_on_xfs() {
    content_on(Kind::Xfs { mib: 400 });
}

#[test]
fn content_on_btrfs() {
    content_on(Kind::Btrfs { mib: 300 });
}

#[test]
fn content_at_the_limit_on_the_host() {
    content_at_the_limit_on(Kind::Host);
}

#[test]
fn content_at_the_limit_on_ext4_with_small_blocks() {
    content_at_the_limit_on(Kind::Ext4 { mib: 64 });
}

#[test]
fn content_at_the_limit_in_memory() {
    content_at_the_limit_on(Kind::Tmpfs { mib: 64 });
}

#[test]
fn content_at_the_limit_on_xfs() {
    content_at_the_limit_on(Kind::Xfs { mib: 400 });
}

// S25, S8: the same at the limit of a user, with room in the VE.
#[test]
fn content_at_the_limit_of_a_user() {
    let Some(ve) = prepared(Spec::default()) else {
        return;
    };
    ve.setlimit2(&["-u", "1001", "120", "120", "100", "100"]);
    play(&ve, ALICE, Some(120 * KIB));
}
