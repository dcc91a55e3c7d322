//! The same for the directories that the daemon writes to for itself: its state directory, which holds the database, and its run
//! directory, which holds the journal. What fails there is no guest's business.

use rustix::io::Errno;

use super::{assert_told, fill_up};
use crate::harness::command::{eventually, run};
use crate::harness::files::{create, put, write_at};
use crate::harness::{KIB, Kind, MIB, Spec, Ve, crash, require};

const STATES: &str = "var/lib/simfs";

/// Files that the journal has to name.
fn make_files(ve: &Ve, round: u32) {
    std::fs::create_dir(ve.path(format!("d{round}"))).expect("mkdir");
    for number in 0..3000 {
        std::fs::write(ve.path(format!("d{round}/{number}")), "content").expect("write");
    }
}

// S60: no room for the journal, which costs a recount after a crash and nothing else.
#[test]
fn a_full_run_directory_is_told_and_costs_a_recount_at_most() {
    let spec = Spec::default().second_level();
    let Some(ve) = spec.apart("run/simfs", Kind::Tmpfs { mib: 4 }).mount() else {
        return;
    };
    let filler = ve.apart().dir().join("filler");
    let no_journal = "no journal can be kept";
    make_files(&ve, 0);
    fill_up(filler.clone());
    make_files(&ve, 1);
    assert_told(&ve, no_journal);
    ve.setlimit(&["-b", "900000", "-B", "900001"]);
    ve.assert_exact();
    crash::kill_both(&ve);
    // Full as it is.
    crash::mount_again(&ve);
    assert_told(&ve, no_journal);
    crash::wait_for_recount(&ve);
    make_files(&ve, 2);
    ve.assert_exact();
    assert_eq!(ve.stat()["limits"]["space"]["hard"], 900_001 * KIB);
    std::fs::remove_file(filler).expect("filler");
    ve.remount();
    let status = ve.status();
    assert_eq!(status["state"], "mounted", "a good end: {status}");
    assert!(!status["degraded"].to_string().contains(no_journal));
}

/// An order that cannot be kept: one line, the code for a failing store, and nothing of it in force.
#[track_caller]
fn assert_refused(ve: &Ve, order: &[&str], cause: &str) {
    let before = ve.stat();
    let outcome = ve.vzquota(order).refused(4, cause);
    let after = ve.stat();
    for part in ["limits", "grace_periods", "second_level"] {
        assert_eq!(after[part], before[part], "{outcome:?}");
    }
}

/// Guests work on under their limits, also those whose accounts are not in memory.
fn assert_served(ve: &Ve) {
    put(ve.path("meanwhile"), MIB);
    let owner = Some(rustix::fs::Uid::from_raw(4711));
    let flags = rustix::fs::AtFlags::empty();
    rustix::fs::chownat(rustix::fs::CWD, ve.path("meanwhile"), owner, None, flags).expect("chown");
    let file = create(ve.path("big")).expect("create");
    let (_, refused) = write_at(&file, 0, &vec![1; 20 << 20]);
    assert_eq!(refused, Some(Errno::DQUOT));
    drop(file);
    std::fs::remove_file(ve.path("big")).expect("unlink");
    ve.assert_exact();
}

fn assert_committed_again(ve: &Ve) {
    eventually("the totals are committed", || {
        let degraded = ve.status()["degraded"].to_string();
        match degraded.contains("not committed") {
            true => Err(degraded),
            false => Ok(()),
        }
    });
}

// S60: the database may not be written for a while.
#[test]
fn a_store_that_cannot_be_written_goes_on_by_itself() {
    if !require::programs(&["chattr"]) {
        return;
    }
    let spec = Spec::default().second_level().space(8 << 10, 16 << 10);
    let Some(ve) = spec.apart(STATES, Kind::Ext4 { mib: 32 }).mount() else {
        return;
    };
    let pid = ve.pid();
    let database = ve.state_dir().join("quota.redb").display().to_string();
    run("chattr", ["+i", &database]).ok();
    let order = ["setlimit", Ve::ID, "-B", "17000"];
    assert_refused(&ve, &order, "Operation not permitted");
    let order = ["setlimit2", Ve::ID, "-u", "7", "1", "2", "3", "4"];
    assert_refused(&ve, &order, "quota.redb");
    assert_served(&ve);
    assert_told(&ve, "totals not committed");
    run("chattr", ["-i", &database]).ok();
    assert_committed_again(&ve);
    ve.setlimit(&["-B", "18000"]);
    assert_eq!(ve.pid(), pid, "the daemon lives");
    crash::kill_both(&ve);
    crash::mount_again(&ve);
    assert_eq!(ve.status()["state"], "mounted");
    assert_eq!(ve.stat()["limits"]["space"]["hard"], 18_000 * KIB);
    ve.assert_exact();
}

// S60: a file system that the kernel has made read-only after an error stays so until it is mounted again. What happened
// until then is in the journal.
#[test]
fn a_store_that_becomes_read_only_costs_no_recount() {
    let spec = Spec::default().second_level().space(8 << 10, 16 << 10);
    let Some(ve) = spec.apart(STATES, Kind::Ext4 { mib: 32 }).mount() else {
        return;
    };
    let dir = ve.apart().dir().display().to_string();
    run("mount", ["-o", "remount,errors=remount-ro", &dir]).ok();
    let device = run("findmnt", ["-no", "SOURCE", &dir]).ok().stdout;
    let name = device.trim().trim_start_matches("/dev/");
    std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a test").expect("trigger");
    let order = ["setlimit", Ve::ID, "-B", "17000"];
    assert_refused(&ve, &order, "Read-only file system");
    assert_served(&ve);
    assert_told(&ve, "totals not committed");
    let (daemon, keeper) = crash::pids(&ve);
    ve.umount().refused(1, "Read-only file system");
    eventually("daemon and keeper end", || {
        match crash::is_alive(daemon) || crash::is_alive(keeper) {
            true => Err("alive".to_owned()),
            false => Ok(()),
        }
    });
    assert!(!ve.is_mounted());
    ve.apart().power_up();
    ve.mount().ok();
    assert_eq!(ve.status()["state"], "mounted", "no recount");
    assert_eq!(ve.stat()["limits"]["space"]["hard"], 16 * MIB);
    ve.assert_exact();
}

// S60: no room for the database alone. All that was acknowledged stands, and nothing else.
#[test]
fn a_store_without_room_goes_on_by_itself() {
    let spec = Spec::default().second_level().space(8 << 10, 16 << 10);
    let Some(ve) = spec.apart(STATES, Kind::Ext4 { mib: 16 }).mount() else {
        return;
    };
    let filler = ve.apart().dir().join("filler");
    fill_up(filler.clone());
    let limited = |id: u32| {
        let id = id.to_string();
        ve.vzquota(["setlimit2", Ve::ID, "-u", &id, "100", "200", "30", "40"])
    };
    let refused = (1..20_000).find(|&id| limited(id).code != 0);
    let refused = refused.expect("no room for twenty thousand users");
    assert_served(&ve);
    assert_told(&ve, "totals not committed");
    std::fs::remove_file(filler).expect("filler");
    assert_committed_again(&ve);
    crash::kill_both(&ve);
    crash::mount_again(&ve);
    let stat = ve.stat();
    let users = stat["second_level"]["users"]["accounts"].as_array();
    let limits = users
        .expect("users")
        .iter()
        .filter(|user| user["limits"]["space"]["hard"] == 200 * KIB);
    let ids: Vec<_> = limits.map(|user| user["id"].clone()).collect();
    assert_eq!(
        ids,
        (1..refused)
            .map(Into::into)
            .collect::<Vec<serde_json::Value>>()
    );
    ve.assert_exact();
}
