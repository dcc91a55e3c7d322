//! An error with which the private area may have lost what it was given, at a time when the totals are being counted anyway.

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;

use super::assert_told;
use crate::harness::command::eventually;
use crate::harness::files::open;
use crate::harness::refusal::refusing;
use crate::harness::{Ve, crash};
use crate::recount::{stop_recount, unknown_totals};

/// A length that only a request of these tests has.
const ODD: u64 = 4321;

/// A VE whose recount is stopped, and whose disk fails a request of [`ODD`] bytes.
fn half_counted() -> Option<Ve> {
    let bad = (libc::SYS_fallocate, Some((3, ODD)));
    refusing([bad].into_iter(), Errno::IO, || {
        let ve = unknown_totals()?;
        stop_recount(&ve);
        Some(ve)
    })
}

#[track_caller]
fn meet_error(ve: &Ve) {
    let file = open(ve.path("unseen"), OFlags::RDWR).expect("open");
    let outcome = fallocate(&file, FallocateFlags::empty(), 0, ODD);
    assert_eq!(outcome, Err(Errno::IO));
    eventually("the log tells", || match crash::log(ve) {
        log if log.contains("the next mount will count the totals anew") => Ok(()),
        log => Err(log),
    });
    assert_told(ve, "the private area may have lost writes");
}

/// The next mount counts all of it, and the one after it nothing.
#[track_caller]
fn assert_counted_by_the_next_mount(ve: &Ve) {
    ve.umount_and_wait();
    assert!(!ve.state_dir().join("recount.saved").exists());
    let counts_anew = || {
        std::fs::remove_file(ve.run_dir().join("log")).expect("log");
        ve.mount().ok();
        crash::log(ve).contains("the totals are not known")
    };
    assert!(counts_anew());
    crash::wait_for_recount(ve);
    ve.umount_and_wait();
    assert!(!counts_anew());
    assert_eq!(ve.status()["state"], "mounted");
}

// S61: the end of a recount that had begun before says nothing of what was lost after it had looked.
#[test]
fn an_error_during_a_recount_outlives_its_end() {
    let Some(ve) = half_counted() else {
        return;
    };
    meet_error(&ve);
    ve.simfs(["check", Ve::ID, "--resume"]).ok();
    crash::wait_for_recount(&ve);
    assert_counted_by_the_next_mount(&ve);
}

// S61: nor does one that a successor has begun, on the same mount.
#[test]
fn an_error_during_a_recount_outlives_the_daemon() {
    let Some(ve) = half_counted() else {
        return;
    };
    meet_error(&ve);
    crash::kill(ve.pid());
    crash::wait_for_recount(&ve);
    assert_eq!(ve.status()["restarts"], 1);
    assert_told(&ve, "the private area may have lost writes");
    assert_counted_by_the_next_mount(&ve);
}

// S61: what was looked at before is not kept.
#[test]
fn an_error_during_a_recount_has_the_next_mount_begin_anew() {
    let Some(ve) = half_counted() else {
        return;
    };
    meet_error(&ve);
    assert_counted_by_the_next_mount(&ve);
}
