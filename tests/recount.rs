//! A recount of a VE in service is exact although the guest moves, links and writes meanwhile.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

use crate::harness::command::run;
use crate::harness::files::{occupied, open, put, write_at};
use crate::harness::{Kind, Spec, Ve, require};

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
