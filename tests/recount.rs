//! A recount of a VE in service is exact although the guest moves, links and writes meanwhile.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

use crate::cut_off::mount_with;
use crate::damage::{DAMAGES, Damage, damage};
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

/// Directories and files for which a recount takes a while.
const PLACES: u32 = 40;
const EACH: u32 = 300;

/// A VE with many files whose totals are unknown: its daemon was killed, and no journal is left.
pub(crate) fn unknown_totals() -> Option<Ve> {
    let ve = Spec::default().second_level().bare()?;
    for dir in 0..PLACES {
        let place = ve.private().join(format!("d{dir}"));
        fs::create_dir(&place).unwrap();
        for file in 0..EACH {
            fs::File::create(place.join(file.to_string())).unwrap();
        }
    }
    ve.init().ok();
    ve.mount().ok();
    put(ve.path("unseen"), 100_000);
    crash::kill_both(&ve);
    fs::remove_dir_all(ve.run_dir()).unwrap();
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

/// Takes from a mounted VE what its totals were known by.
fn forget_totals(ve: &Ve) {
    crash::kill_both(ve);
    fs::remove_dir_all(ve.run_dir()).unwrap();
    crash::mount_again(ve);
}

/// Stops the recount after it has looked at something. One that was over before is begun anew.
pub(crate) fn stop_recount(ve: &Ve) -> u64 {
    eventually("the recount is stopped before its end", || {
        let stopped = ve.simfs(["check", Ve::ID, "--stop"]);
        // It may have come to its end in the same moment.
        let far = || {
            eventually("the recount is stopped or over", || {
                let status = ve.status();
                match (&status["state"], status["progress"]["done"].as_u64()) {
                    (state, Some(0)) if state == "recovering" => Err(status.to_string()),
                    (state, Some(done)) if state == "recovering" => Ok(Some(done)),
                    _ => Ok(None),
                }
            })
        };
        match stopped.code {
            0 => far().ok_or_else(|| "it was over".to_owned()),
            _ => Err(stopped.stderr),
        }
        .inspect_err(|_| forget_totals(ve))
    })
}

// S67: its progress is shown, it follows what changes while it is stopped, and starts anew after a kill.
#[test]
fn a_recount_after_a_crash_is_shown_stopped_and_resumed() {
    let Some(ve) = unknown_totals() else {
        return;
    };
    let far = stop_recount(&ve);
    assert_eq!(looked_at(&ve), far, "it stands");
    let notes = ve.status()["degraded"].to_string();
    assert!(notes.contains("the recount is stopped"), "{notes}");
    let table = ve.simfs(["status", Ve::ID]).ok().stdout;
    assert!(table.contains(" inodes\n"), "{table}");
    let outcome = ve.simfs(["check", Ve::ID]);
    assert_ne!(outcome.code, 0);
    assert!(
        outcome.stderr.contains("a recount is under way"),
        "{outcome:?}"
    );
    // A crash while it runs, between places that were looked at and places that were not.
    change_places(&ve, 0);
    crash::kill_both(&ve);
    crash::mount_again(&ve);
    stop_recount(&ve);
    // Exact although files come and go meanwhile.
    for round in 0..40 {
        put(ve.path(format!("d{round}/new")), 50_000);
        fs::remove_file(ve.path(format!("d{round}/299"))).unwrap();
    }
    ve.simfs(["check", Ve::ID, "--resume"]).ok();
    crash::wait_for_recount(&ve);
    ve.assert_exact();
    let outcome = ve.simfs(["check", Ve::ID, "--stop"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("no recount"), "{outcome:?}");
    ve.remount();
    assert_eq!(ve.status()["state"], "mounted", "once is enough");
    ve.umount_and_wait();
    let outcome = ve.simfs(["check", Ve::ID, "--resume"]);
    assert!(outcome.stderr.contains("not mounted"), "{outcome:?}");
}

/// Whole directories change places, and each of them gets and loses files.
fn change_places(ve: &Ve, round: u32) {
    fs::create_dir(ve.path(format!("place{round}"))).unwrap();
    for dir in 0..PLACES {
        let at = |number: u32| ve.path(format!("d{}", number % PLACES));
        // Which directory it is depends on the moves before; a number is used once.
        let number = round * PLACES + dir;
        let more = at(dir).join(format!("more{number}"));
        put(more, u64::from(dir % 5 + 1) * 4096);
        fs::remove_file(at(dir).join((130 + number).to_string())).unwrap();
        let held = ve.path(format!("place{round}/held"));
        fs::rename(at(dir), &held).unwrap();
        fs::rename(at(dir + 7), at(dir)).unwrap();
        fs::rename(&held, at(dir + 7)).unwrap();
        // Into the root, which is read first.
        let below = at(dir).join(number.to_string());
        fs::rename(below, ve.path(format!("up{number}"))).unwrap();
    }
}

// S67: it goes on with the next mount and with another daemon, and is exact in the end whatever was moved between what was
// looked at and what was not.
#[test]
fn a_recount_goes_on_over_an_unmount_and_an_upgrade() {
    let Some(ve) = unknown_totals() else {
        return;
    };
    let goes_on = |times: usize| {
        let log = crash::log(&ve);
        assert_eq!(log.matches("the recount goes on").count(), times, "{log}");
    };
    stop_recount(&ve);
    change_places(&ve, 0);
    ve.umount_and_wait();
    std::fs::write(ve.run_dir().join("log"), "").unwrap();
    ve.mount().ok();
    goes_on(1);
    stop_recount(&ve);
    change_places(&ve, 1);
    std::fs::write(ve.run_dir().join("log"), "").unwrap();
    ve.simfs(["upgrade", Ve::ID]).ok();
    goes_on(1);
    change_places(&ve, 2);
    crash::wait_for_recount(&ve);
    ve.assert_exact();
}

// S67: after the death of its daemon alone it starts anew too, under the successor.
#[test]
fn a_recount_starts_anew_with_a_successor() {
    let Some(ve) = unknown_totals() else {
        return;
    };
    stop_recount(&ve);
    change_places(&ve, 0);
    fs::write(ve.run_dir().join("log"), "").unwrap();
    crash::kill(ve.pid());
    change_places(&ve, 1);
    let status = ve.status();
    assert_eq!(status["restarts"], 1);
    assert!(!status["degraded"].to_string().contains("stopped"));
    // It may be over by now.
    if status["state"] == "recovering" {
        assert!(status["progress"]["done"].is_u64(), "{status}");
    }
    let log = crash::log(&ve);
    assert!(log.contains("the totals are not known"), "{log}");
    assert!(!log.contains("the recount goes on"), "{log}");
    crash::wait_for_recount(&ve);
    ve.assert_exact();
}

// S67, S54: what was kept is damaged.
#[test]
fn a_damaged_state_of_a_recount_is_named_and_not_used() {
    let Some(ve) = unknown_totals() else {
        return;
    };
    let kept = ve.state_dir().join("recount.saved");
    for (round, how) in DAMAGES.into_iter().enumerate() {
        stop_recount(&ve);
        put(ve.path(format!("d{round}/late")), 50_000);
        ve.umount_and_wait();
        damage(&kept, how);
        fs::write(ve.run_dir().join("log"), "").unwrap();
        ve.mount().ok();
        let log = crash::log(&ve);
        let is_named = log.contains("its state is damaged");
        assert_eq!(is_named, how != Damage::Gone, "{how:?}: {log}");
        assert!(!log.contains("the recount goes on"), "{how:?}: {log}");
        assert!(!kept.exists(), "{how:?}");
    }
    crash::wait_for_recount(&ve);
    ve.assert_exact();
}

/// The recount is stopped, and the daemon dies where it first comes by this point. One that was over before is begun anew.
fn stop_recount_before(ve: &Ve, point: &str) {
    eventually("the recount is stopped before its end", || {
        crash::kill_both(ve);
        fs::remove_dir_all(ve.run_dir()).unwrap();
        mount_with(ve, &format!("{point}:1:1"));
        let stopped = ve.simfs(["check", Ve::ID, "--stop"]);
        (stopped.code == 0).then_some(()).ok_or(stopped.stderr)
    });
}

// S67, S51: the daemon dies at each step of keeping how far a recount is, at the end of its mount and when it hands over.
#[test]
fn a_death_at_any_step_of_keeping_a_recount_loses_nothing() {
    if !cfg!(debug_assertions) {
        require::skip("fault points exist in debug builds only");
        return;
    }
    let Some(ve) = unknown_totals() else {
        return;
    };
    // When it hands over the file is the same; what differs is that the journal counts from then on.
    let rows = [
        ("settled", "umount"),
        ("committed", "umount"),
        ("written", "umount"),
        ("named", "umount"),
        ("kept", "umount"),
        ("committed", "upgrade"),
        ("kept", "upgrade"),
    ];
    for (round, (point, order)) in rows.into_iter().enumerate() {
        stop_recount_before(&ve, point);
        let (daemon, keeper) = crash::pids(&ve);
        fs::remove_file(ve.path(format!("d3/{round}"))).unwrap();
        put(ve.path(format!("d9/new{round}")), 50_000);
        let outcome = ve.simfs([order, Ve::ID]);
        if order == "upgrade" {
            // S76
            let why = "ended before it handed over";
            assert!(
                outcome.code == 1 && outcome.stderr.contains(why),
                "{outcome:?}"
            );
        }
        eventually("the daemon dies", || match crash::is_alive(daemon) {
            true => Err(format!("it did not come by '{point}' at {order}")),
            false => Ok(()),
        });
        if order == "umount" {
            eventually("the keeper ends", || match crash::is_alive(keeper) {
                true => Err(crash::log(&ve)),
                false => Ok(()),
            });
            assert!(!ve.is_mounted());
            ve.mount().ok();
        }
        crash::wait_for_recount(&ve);
        ve.assert_exact();
    }
}

// S67: what an unmount kept is void after a kill, and after any mount in between that counted nothing.
#[test]
fn a_recount_never_goes_on_from_what_is_not_true_any_more() {
    let Some(ve) = unknown_totals() else {
        return;
    };
    let kept = ve.state_dir().join("recount.saved");
    stop_recount(&ve);
    ve.umount_and_wait();
    let old = fs::read(&kept).unwrap();
    ve.simfs(["mount", Ve::ID, "--no-quota"]).ok();
    for dir in 0..PLACES {
        put(ve.path(format!("d{dir}/uncounted")), 20_000);
    }
    ve.umount_and_wait();
    ve.mount().ok();
    crash::wait_for_recount(&ve);
    ve.assert_exact();
    // And one that somebody put back.
    forget_totals(&ve);
    stop_recount(&ve);
    crash::kill_both(&ve);
    fs::write(&kept, old).unwrap();
    crash::mount_again(&ve);
    crash::wait_for_recount(&ve);
    ve.assert_exact();
}
