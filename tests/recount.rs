//! A recount of a VE in service is exact although the guest moves, links and writes meanwhile.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::files::put;
use crate::harness::{Spec, Ve};

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
