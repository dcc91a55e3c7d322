//! A recount of a VE in service is exact although the guest moves, links and writes meanwhile.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

use crate::harness::command::{eventually, run};
use crate::harness::files::{occupied, open, put, write_at};
use crate::harness::{Kind, Spec, Ve, crash, require};

const DIRECTORIES: u32 = 40;
const FILES: u32 = 25;

/// Two places; directories with files in one of them.
fn furnish(ve: &Ve) {
    for place in ["near", "far"] {
        fs::create_dir(ve.path(place)).unwrap();
    }
    for dir in 0..DIRECTORIES {
        fs::create_dir(ve.path(format!("near/d{dir}"))).unwrap();
        for file in 0..FILES {
            put(ve.path(format!("near/d{dir}/f{file}")), 4096);
        }
    }
}

/// Moves directories and files to and fro between the places, files also by a second name, until told to stop.
fn move_about(ve: &Ve, stop: &AtomicBool) {
    let mut step = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let (from, to) = if (step / DIRECTORIES).is_multiple_of(2) {
            ("near", "far")
        } else {
            ("far", "near")
        };
        let dir = step % DIRECTORIES;
        let moved = format!("{to}/d{dir}");
        fs::rename(ve.path(format!("{from}/d{dir}")), ve.path(&moved)).unwrap();
        let (file, other) = (format!("{moved}/f0"), format!("{to}/f{dir}"));
        fs::hard_link(ve.path(&file), ve.path(&other)).unwrap();
        fs::remove_file(ve.path(&file)).unwrap();
        fs::rename(ve.path(&other), ve.path(&file)).unwrap();
        let length = usize::try_from(step % 5 + 1).unwrap() * 4096;
        fs::write(ve.path(format!("{moved}/f1")), vec![1; length]).unwrap();
        step += 1;
    }
}

// S43: exact although the guest works on.
#[test]
fn what_moves_during_a_recount_is_counted_once() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    furnish(&ve);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| move_about(&ve, &stop));
        let outcomes: Vec<_> = (0..40).map(|_| ve.simfs(["check", Ve::ID])).collect();
        stop.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            outcome.ok();
        }
    });
}

// S5: XFS leaves blocks behind the end of a file that is opened and appended to again and again, and gives them back some
// minutes later by itself. A recount that has seen them knows of that.
#[test]
fn what_xfs_gives_back_by_itself_is_settled() {
    if !require::programs(&["xfs_spaceman"]) {
        return;
    }
    let Some(ve) = Spec::default().backing(Kind::Xfs { mib: 512 }).mount() else {
        return;
    };
    for turn in 0..3 {
        let log = open(ve.path("log"), OFlags::RDWR | OFlags::CREATE).unwrap();
        for part in 0..20 {
            assert_eq!(
                write_at(&log, (turn * 20 + part) * 50_000, &[1; 50_000]).1,
                None
            );
        }
    }
    ve.remount();
    let has_tail = || occupied(ve.private().join("log")) > 3_100_000;
    assert!(has_tail());
    ve.check();
    let place = ve.private().display().to_string();
    run("xfs_spaceman", ["-c", "prealloc -s", &place]).ok();
    assert!(!has_tail());
    ve.check();
}

/// Files for which a recount takes a while.
const MANY: u32 = 40_000;

/// A VE with many files whose totals are unknown: its daemon was killed, and no journal is left.
fn unknown_totals() -> Option<Ve> {
    let ve = Spec::default().second_level().bare()?;
    for dir in 0..MANY / 1000 {
        let place = ve.private().join(format!("d{dir}"));
        fs::create_dir(&place).unwrap();
        for file in 0..1000 {
            fs::File::create(place.join(file.to_string())).unwrap();
        }
    }
    ve.init().ok();
    ve.mount().ok();
    put(ve.path("unseen"), 100_000);
    crash::kill_both(&ve);
    fs::remove_dir_all(ve.prefix().join("run/simfs").join(Ve::ID)).unwrap();
    crash::mount_again(&ve);
    Some(ve)
}

/// How many inodes the recount that is under way has looked at.
#[track_caller]
fn looked_at(ve: &Ve) -> u64 {
    let status = ve.status();
    assert_eq!(status["state"], "recovering", "{status}");
    assert!(status["progress"]["total_estimate"].is_u64(), "{status}");
    status["progress"]["done"].as_u64().unwrap()
}

// S67: its progress is shown, it ends with the mount and starts anew with the next, however this one ended.
#[test]
fn a_recount_after_a_crash_is_shown_stopped_and_started_anew() {
    let Some(ve) = unknown_totals() else {
        return;
    };
    let first = looked_at(&ve);
    eventually("the recount goes on", || match looked_at(&ve) {
        more if more > first => Ok(()),
        _ => Err(first.to_string()),
    });
    let table = ve.simfs(["status", Ve::ID]).ok().stdout;
    assert!(table.contains(" inodes\n"), "{table}");
    let outcome = ve.simfs(["check", Ve::ID]);
    assert_ne!(outcome.code, 0);
    assert!(
        outcome.stderr.contains("a recount is under way"),
        "{outcome:?}"
    );

    ve.umount_and_wait();
    ve.mount().ok();
    looked_at(&ve);
    crash::kill_both(&ve);
    crash::mount_again(&ve);
    looked_at(&ve);
    // And exact although files come and go meanwhile.
    for round in 0..40 {
        put(ve.path(format!("d{round}/new")), 50_000);
        fs::remove_file(ve.path(format!("d{}/0", round % 40))).unwrap();
    }
    crash::wait_for_recount(&ve);
    ve.assert_exact();
    ve.remount();
    assert_eq!(ve.status()["state"], "mounted", "once is enough");
}
