//! The host loses power while users work. The private area and the quota database lie on one file system that is shut down
//! without writing its log out; then everything is killed, the file system mounted again, and the VE with it.
//!
//! The host "starts" in one of two ways: the run directory is gone, as /run is; or it is on a disk, full of what the last
//! boot left, and the kernel has another boot id.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;
use serde_json::Value;

use crate::harness::command::{eventually, run};
use crate::harness::container::Guest;
use crate::harness::figures::count;
use crate::harness::files::{create, fill, occupied, open, put, rename, write_at};
use crate::harness::load::{self, Dice};
use crate::harness::{KIB, Kind, MIB, Spec, Ve, crash, require};

/// How often the power is lost, from `SIMFS_POWER_ROUNDS`.
fn rounds() -> u64 {
    let text = std::env::var("SIMFS_POWER_ROUNDS").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// Limits that tell in which round they were set, and which no load reaches.
fn limit_of(round: u64) -> u64 {
    (200 << 10) + round
}

fn set_limits(ve: &Ve, round: u64) {
    let (soft, hard) = (
        limit_of(round).to_string(),
        (limit_of(round) + 7).to_string(),
    );
    ve.setlimit(&["-b", &soft, "-B", &hard, "-i", &soft, "-I", &hard]);
    ve.setlimit(&["-e", &soft, "-n", &hard]);
    ve.setlimit2(&["-u", "1001", &soft, &hard, &soft, &hard]);
    ve.setlimit2(&["-g", "1002", &soft, &hard, &soft, &hard]);
    ve.setlimit2(&["-u", "-t", &soft, &hard]);
    // Above both soft limits at once.
    ve.setlimit2(&["-u", LATE, "4", &hard, "1", &hard]);
}

/// A user whose grace periods run.
const LATE: &str = "1003";

fn deadlines(ve: &Ve) -> Value {
    let deadlines = account(&ve.stat(), "users", 1003)["deadlines"].clone();
    assert!(
        deadlines["space"].is_u64() && deadlines["inodes"].is_u64(),
        "{deadlines}"
    );
    deadlines
}

/// Files of the user whose grace periods run, on the disk.
fn make_late(ve: &Ve) {
    let owner = Some(rustix::fs::Uid::from_raw(1003));
    for name in ["late0", "late1"] {
        put(ve.path(name), 64 * KIB);
        let flags = rustix::fs::AtFlags::empty();
        rustix::fs::chownat(rustix::fs::CWD, ve.path(name), owner, None, flags).expect("chown");
    }
}

#[track_caller]
fn account<'a>(stat: &'a Value, kind: &str, id: u64) -> &'a Value {
    let accounts = stat["second_level"][kind]["accounts"].as_array();
    let found = accounts.and_then(|list| list.iter().find(|account| account["id"] == id));
    found.unwrap_or_else(|| panic!("no {kind} {id}: {stat}"))
}

#[track_caller]
fn assert_limits(stat: &Value, round: u64) {
    let (soft, hard) = (limit_of(round), limit_of(round) + 7);
    for limits in [
        stat,
        account(stat, "users", 1001),
        account(stat, "groups", 1002),
    ] {
        for (resource, unit) in [("space", KIB), ("inodes", 1)] {
            let found = &limits["limits"][resource];
            let pair = (&found["soft"], &found["hard"]);
            assert_eq!(
                pair,
                (&(soft * unit).into(), &(hard * unit).into()),
                "{resource}"
            );
        }
    }
    for of in [stat, &stat["second_level"]["users"]] {
        let grace = &of["grace_periods"];
        let pair = (&grace["space"], &grace["inodes"]);
        assert_eq!(pair, (&soft.into(), &hard.into()), "{stat}");
    }
}

/// What a guest was told is on the disk.
fn keep(ve: &Ve, round: u64) {
    let file = create(ve.path(format!("kept{round}"))).expect("create");
    assert_eq!(fill(&file, 10 * KIB + round).1, None);
    rustix::fs::fsync(&file).expect("fsync");
    let root = open(ve.root(), OFlags::RDONLY | OFlags::DIRECTORY).expect("root");
    rustix::fs::fsync(&root).expect("fsync of the directory");
}

fn assert_kept(ve: &Ve, round: u64) {
    let kept = std::fs::read(ve.path(format!("kept{round}"))).expect("what was synced");
    assert_eq!(kept.len() as u64, 10 * KIB + round);
    assert!(kept.iter().all(|byte| *byte == 0x5a));
}

/// The power is back: starts the host and mounts the VE.
#[track_caller]
pub(crate) fn boot(ve: &Ve, number: u64) {
    ve.backing().power_up();
    start(ve, number);
}

/// Mounts the VE after a boot. Each boot has a number of its own.
#[track_caller]
fn start(ve: &Ve, number: u64) {
    let run = ve.prefix().join("run/simfs").join(Ve::ID);
    let cause = if number.is_multiple_of(2) {
        std::fs::remove_dir_all(&run).expect("run directory");
        "there is no journal"
    } else {
        std::fs::remove_file(run.join("log")).expect("log");
        "from before the host was started"
    };
    let id = format!("00000000-0000-4000-8000-{number:012}");
    eventually("the VE mounts after a loss of power", || {
        let outcome = match number.is_multiple_of(2) {
            true => ve.mount(),
            false => ve.mount_after_boot(&id),
        };
        if outcome.code == 0 {
            Ok(())
        } else {
            Err(outcome.stderr)
        }
    });
    let log = crash::log(ve);
    let is_told = log.contains("recounting while the VE runs") && log.contains(cause);
    // Where the recount was still under way when the power went, the store says so itself.
    let is_known = log.contains("the totals are not known");
    assert!(is_told || is_known, "boot {number}:\n{log}");
}

/// Whatever the totals miss, the limits are enforced, from the first request on and while a recount runs.
fn assert_enforced(ve: &Ve, round: u64) {
    let file = create(ve.path("big")).expect("create");
    // Below what is used, and below what the first kept file takes alone, whatever the users remove meanwhile.
    ve.setlimit(&["-b", "8", "-B", "8"]);
    let answer = write_at(&file, 0, &vec![1; MIB as usize]);
    assert_eq!(answer, (0, Some(Errno::DQUOT)), "round {round}");
    drop(file);
    std::fs::remove_file(ve.path("big")).expect("unlink");
    set_limits(ve, round);
}

fn power_is_lost_many_times(kind: Kind, rounds: u64) {
    if !require::programs(&["xfs_io", "unshare"]) {
        return;
    }
    let spec = Spec::default().second_level().backing(kind).loses_power();
    let Some(ve) = spec.mount() else {
        return;
    };
    load::make_homes(&ve);
    make_late(&ve);
    let on_disk = open(ve.backing().dir(), OFlags::RDONLY).expect("backing");
    rustix::fs::syncfs(on_disk.as_fd()).expect("syncfs");
    drop(on_disk);
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for round in 0..rounds {
        let late = load::during(&ve, &mut dice, |dice| {
            // Now and then long enough for a commit.
            std::thread::sleep(Duration::from_millis(match round % 4 {
                1 => 3800 + dice.roll(1500),
                _ => dice.roll(900),
            }));
            set_limits(&ve, round);
            keep(&ve, round);
            let late = deadlines(&ve);
            ve.lose_power();
            late
        });
        boot(&ve, 3 * round);
        assert_limits(&ve.stat(), round);
        assert_eq!(deadlines(&ve), late, "round {round}");
        assert_kept(&ve, round);
        load::during(&ve, &mut dice, |dice| {
            assert_enforced(&ve, round);
            std::thread::sleep(Duration::from_millis(dice.roll(300)));
            if round % 3 == 2 {
                ve.lose_power();
            }
        });
        if round % 3 == 2 {
            boot(&ve, 3 * round + 2);
            assert_limits(&ve.stat(), round);
        }
        crash::wait_for_recount(&ve);
        ve.assert_exact();
        assert_only(&ve, round);
    }
}

/// The guest sees what the host sees.
fn assert_only(ve: &Ve, round: u64) {
    let inside = count(&ve.root()).ve.inodes;
    assert_eq!(inside, count(ve.private()).ve.inodes, "round {round}");
    assert!(Path::exists(&ve.path("home0")), "round {round}");
}

// S52: limits as acknowledged, mounted at once, enforced while a recount corrects the totals.
#[test]
fn limits_and_totals_survive_a_loss_of_power_on_ext4() {
    power_is_lost_many_times(Kind::Ext4 { mib: 512 }, rounds());
}

#[test]
fn limits_and_totals_survive_a_loss_of_power_on_xfs() {
    power_is_lost_many_times(Kind::Xfs { mib: 512 }, rounds());
}

fn a_good_end_survives_a_loss_of_power(kind: Kind) {
    if !require::programs(&["xfs_io"]) {
        return;
    }
    let Some(ve) = Spec::default().second_level().backing(kind).mount() else {
        return;
    };
    for name in ["moved", "removed"] {
        put(ve.path(name), MIB);
    }
    let on_disk = open(ve.backing().dir(), OFlags::RDONLY).expect("backing");
    rustix::fs::syncfs(on_disk.as_fd()).expect("syncfs");
    drop(on_disk);
    ve.remount();
    // No file that would be synced for its blocks' sake.
    std::fs::create_dir(ve.path("new")).expect("mkdir");
    std::fs::remove_file(ve.path("removed")).expect("unlink");
    rename(ve.path("moved"), ve.path("new/moved"), RenameFlags::empty()).expect("rename");
    ve.umount_and_wait();
    let before = count(ve.private());
    ve.backing().cut_power();
    ve.backing().power_up();
    assert_eq!(count(ve.private()), before, "all of it is on the disk");
    ve.mount().ok();
    assert_eq!(ve.status()["state"], "mounted");
    ve.assert_exact();
}

// S68: the store, which knows that the totals are final, lies on a disk of its own here.
#[test]
fn a_good_end_survives_a_loss_of_power_on_ext4() {
    a_good_end_survives_a_loss_of_power(Kind::Ext4 { mib: 64 });
}

#[test]
fn a_good_end_survives_a_loss_of_power_on_xfs() {
    a_good_end_survives_a_loss_of_power(Kind::Xfs { mib: 320 });
}

/// Files that grew and lost power in the middle of it, on XFS, which keeps blocks behind their end; held on the host, so
/// that their inodes stay in memory and nothing but what the test does gives these blocks back.
fn grown(ve: &Ve, names: &[&str]) -> Vec<OwnedFd> {
    let create_and_fill = |name: &&str| {
        let file = create(ve.path(name)).expect("create");
        for part in 0..40 {
            assert_eq!(write_at(&file, part * 50_000, &[1; 50_000]).1, None);
        }
        rustix::fs::fsync(&file).expect("fsync");
        file
    };
    let growing: Vec<_> = names.iter().map(create_and_fill).collect();
    ve.lose_power();
    drop(growing);
    ve.backing().power_up();
    let hold = |name: &&str| open(ve.private().join(name), OFlags::RDONLY).expect("open");
    let held = names.iter().map(hold).collect();
    start(ve, 0);
    crash::wait_for_recount(ve);
    for name in names {
        assert!(has_tail(ve, name), "{name} holds nothing behind its end");
    }
    held
}

fn has_tail(ve: &Ve, name: &str) -> bool {
    occupied(ve.private().join(name)) > 2_100_000
}

// S5: what goes with the close of a writer though nothing was written, by the guest or because the daemon is killed.
#[test]
fn what_a_close_gives_back_after_a_loss_of_power_is_seen() {
    if !require::programs(&["xfs_io"]) {
        return;
    }
    let spec = Spec::default().backing(Kind::Xfs { mib: 512 });
    let Some(ve) = spec.loses_power().mount() else {
        return;
    };
    let _held = grown(&ve, &["closed", "killed"]);
    let reopen = |name: &str| open(ve.path(name), OFlags::RDWR).expect("open");
    drop(reopen("closed"));
    eventually(
        "the blocks behind the end are given back",
        || match has_tail(&ve, "closed") {
            true => Err("they are there".to_owned()),
            false => Ok(()),
        },
    );
    ve.check();
    let open = reopen("killed");
    crash::kill_both(&ve);
    drop(open);
    crash::mount_again(&ve);
    assert!(!has_tail(&ve, "killed"));
    ve.check();
}

// S56: syncfs(2) in the VE reaches the disk.
#[test]
fn what_a_guest_synced_with_its_file_system_survives_a_loss_of_power() {
    if !require::programs(&["xfs_io", "crun", "busybox"]) {
        return;
    }
    let spec = Spec::default().backing(Kind::Ext4 { mib: 128 });
    let Some(ve) = spec.loses_power().mount() else {
        return;
    };
    let bin = ve.path("bin");
    std::fs::create_dir(&bin).expect("mkdir");
    for name in ["busybox", "sh"] {
        std::fs::copy("/bin/busybox", bin.join(name)).expect("busybox");
    }
    // Through a mapping that has ended: xfs_io is gone when the guest syncs.
    put(ve.path("mapped"), 64 * KIB);
    let stores = ["-c", "mmap -rw 0 64k", "-c", "mwrite -S 0x41 0 64k"];
    let file = ve.path("mapped").display().to_string();
    run("xfs_io", stores.into_iter().chain([file.as_str()])).ok();
    let script = "busybox mkdir /d && busybox seq 1 9999 >/d/f && exec busybox sync -f /d";
    Guest::new(&ve, "crun").run("sync", script).ok();
    ve.lose_power();
    boot(&ve, 0);
    let kept = std::fs::read_to_string(ve.path("d/f")).expect("what was synced");
    assert_eq!(kept.lines().last(), Some("9999"));
    let stored = std::fs::read(ve.path("mapped")).expect("what was stored");
    assert_eq!(stored, [0x41; 64 << 10]);
    crash::wait_for_recount(&ve);
}
