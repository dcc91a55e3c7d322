//! A VE whose state directory is damaged: its mount says what is wrong, mends it, and it is the VE that it was; what is
//! lost for good is named.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde_json::Value;

use crate::harness::files::{create, put, write_at};
use crate::harness::load::Dice;
use crate::harness::{KIB, MIB, Spec, Ve, crash};

/// A way to damage a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    Zeroed,
    Halved,
    Emptied,
    Random,
    Gone,
}

pub(crate) const DAMAGES: [Damage; 5] = [
    Damage::Zeroed,
    Damage::Halved,
    Damage::Emptied,
    Damage::Random,
    Damage::Gone,
];

pub(crate) fn damage(file: &Path, how: Damage) {
    let mut bytes = std::fs::read(file).expect("the file");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    match how {
        Damage::Zeroed => bytes.fill(0),
        Damage::Halved => bytes.truncate(bytes.len() / 2),
        Damage::Emptied => bytes.clear(),
        Damage::Random => bytes.fill_with(|| dice.roll(256) as u8),
        Damage::Gone => return std::fs::remove_file(file).expect("unlink"),
    }
    std::fs::write(file, bytes).expect("write");
}

/// Limits, deadlines and usage of the VE, of its users and of its groups.
fn record(ve: &Ve) -> Vec<Value> {
    let stat = ve.stat();
    let of = |account: &Value| {
        let parts = ["id", "limits", "deadlines", "used"];
        Value::from_iter(parts.map(|part| (part, account[part].clone())))
    };
    let mut record = vec![of(&stat)];
    for kind in ["users", "groups"] {
        let accounts = stat["second_level"][kind]["accounts"].as_array();
        record.extend(accounts.expect("accounts").iter().map(of));
    }
    record
}

/// Mounts the VE, which mends what is damaged; whether that was so. What was damaged is kept, and named.
fn mount_mended(ve: &Ve, what: &str) -> bool {
    let outcome = ve.mount();
    assert_eq!(outcome.code, 0, "{what}: {outcome:?}");
    let was_mended = crash::log(ve).contains("mending the quota store");
    let notes = ve.status()["degraded"].to_string();
    assert_eq!(notes.contains("is mended"), was_mended, "{what}: {notes}");
    assert!(!notes.contains("limits are lost"), "{what}: {notes}");
    if was_mended {
        let state = state(ve);
        let mut kept = 0;
        for entry in std::fs::read_dir(&state).expect("state directory") {
            let path = entry.expect("entry").path();
            let name = path.file_name().expect("name").to_string_lossy();
            if name.contains(".damaged.") {
                kept += 1;
                assert!(
                    notes.contains(&*name) || name.ends_with(".tmp"),
                    "{name}: {notes}"
                );
                // What an administrator does who has read it.
                std::fs::remove_file(&path).expect("remove");
            }
        }
        assert!(kept >= 1, "{what}");
    }
    crash::wait_for_recount(ve);
    was_mended
}

fn state(ve: &Ve) -> PathBuf {
    ve.prefix().join("var/lib/simfs").join(Ve::ID)
}

// S54: damage of each file of the state directory.
#[test]
fn a_damaged_state_is_named_and_mended_by_the_mount() {
    let spec = Spec::default().second_level();
    let Some(ve) = spec.space(4096, 8192).inodes(50, 60).mount() else {
        return;
    };
    put(ve.path("file"), MIB);
    ve.setlimit2(&["-u", "1001", "100", "200", "30", "40"]);
    ve.setlimit2(&["-g", "1002", "300", "400", "50", "60"]);
    ve.umount().ok();
    let before = record(&ve);
    for (name, must_be_mended) in [
        ("quota.redb", true),
        ("identity", true),
        ("settings.copy", false),
        ("limits.copy", false),
        ("lock", false),
    ] {
        for how in DAMAGES {
            let what = format!("{name} {how:?}");
            damage(&state(&ve).join(name), how);
            // What an earlier mount wrote is not of this one.
            std::fs::remove_file(ve.prefix().join("run/simfs").join(Ve::ID).join("log"))
                .expect("log");
            assert_eq!(mount_mended(&ve, &what), must_be_mended, "{what}");
            assert_eq!(record(&ve), before, "{what}");
            ve.assert_exact();
            let room = 8 * MIB - ve.used().space;
            let file = create(ve.path("big")).expect("create");
            let (written, refused) = write_at(&file, 0, &vec![1; 9 << 20]);
            assert!(
                refused.is_some() && written as u64 <= room,
                "{what}: {written}"
            );
            assert!(written as u64 >= room - 64 * KIB, "{what}: {written}");
            drop(file);
            std::fs::remove_file(ve.path("big")).expect("unlink");
            ve.assert_exact();
            ve.umount().ok();
        }
    }
}

// S54: limits that are nowhere any more are named account by account; the VE starts, and may use no more than it does until its
// own are set again.
#[test]
fn lost_limits_are_named_and_a_ve_without_its_own_may_use_no_more() {
    let spec = Spec::default().second_level();
    let Some(ve) = spec.space(4096, 8192).mount() else {
        return;
    };
    put(ve.path("file"), MIB);
    ve.umount().ok();
    damage(&state(&ve).join("quota.redb"), Damage::Zeroed);
    let copy = state(&ve).join("limits.copy");
    let lines = std::fs::read_to_string(&copy).expect("copy");
    let head = lines.lines().next().expect("head");
    std::fs::write(&copy, format!("{head}\n")).expect("cut");
    ve.mount().ok();
    let notes = ve.status()["degraded"].to_string();
    for lost in [
        "limits are lost: the VE as a whole",
        "limits are lost: user 0 to user 4294967295",
        "limits are lost: group 0 to group 4294967295",
    ] {
        assert!(notes.contains(lost), "{lost}: {notes}");
        assert!(crash::log(&ve).contains(lost), "{lost}");
    }
    crash::wait_for_recount(&ve);
    assert_eq!(
        std::fs::read(ve.path("file")).expect("read").len() as u64,
        MIB
    );
    assert_eq!(create(ve.path("new")).err(), Some(Errno::DQUOT));
    ve.setlimit(&["-b", "4096", "-B", "8192", "-i", "100", "-I", "100"]);
    put(ve.path("new"), MIB);
    ve.assert_exact();
}

// S53: every file of the run directory, each damaged after both processes were killed.
#[test]
fn a_damaged_run_directory_keeps_no_ve_from_being_exact() {
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    let run = ve.prefix().join("run/simfs").join(Ve::ID);
    let mut tried = 0;
    for round in 0.. {
        put(ve.path(format!("file{round}")), (1 + round) * 4096);
        crash::kill_both(&ve);
        let mut files: Vec<_> = std::fs::read_dir(&run)
            .expect("run directory")
            .map(|entry| entry.expect("entry").path())
            .filter(|path| path.metadata().is_ok_and(|data| data.is_file()))
            .collect();
        files.sort();
        let ways = DAMAGES.len() as u64 + 1;
        let Some(file) = files.get((round / ways) as usize) else {
            break;
        };
        match DAMAGES.get((round % ways) as usize) {
            Some(&how) => damage(file, how),
            None => damage_last_block(file),
        }
        tried += 1;
        crash::mount_again(&ve);
        crash::wait_for_recount(&ve);
        ve.assert_exact();
    }
    // At the least the journal, the log, and the note of the mount point.
    assert!(tried >= 18, "{tried}");
    crash::mount_again(&ve);
    crash::wait_for_recount(&ve);
}

fn damage_last_block(file: &Path) {
    let mut bytes = std::fs::read(file).expect("the file");
    let from = bytes.len().saturating_sub(1) / 4096 * 4096;
    bytes.iter_mut().skip(from).for_each(|byte| *byte ^= 0xa5);
    std::fs::write(file, bytes).expect("write");
}
