//! The daemon is killed while users work: after the next mount the totals are exact, at once.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{OFlags, RenameFlags};
use rustix::mount::{UnmountFlags, unmount};

use crate::cut_off::mount_with;
use crate::harness::command::eventually;
use crate::harness::files::{create, mkdir, open, put, rename, write_at};
use crate::harness::load::{self, Dice};
use crate::harness::{Kind, MIB, Spec, Ve, crash, require};

/// How often the daemon is killed, from `SIMFS_KILL_ROUNDS`.
fn rounds() -> u64 {
    let text = std::env::var("SIMFS_KILL_ROUNDS").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(25)
}

/// Has three users work, and kills daemon and keeper at a random moment.
fn kill_at_work(ve: &Ve, dice: &mut Dice, round: u64) {
    at_work(ve, dice, round, || crash::kill_both(ve));
    eventually("the dead mount is gone", || match ve.is_mounted() {
        true => Err("still mounted".to_owned()),
        false => Ok(()),
    });
}

/// Does something at a random moment while three users work.
fn at_work(ve: &Ve, dice: &mut Dice, round: u64, kill: impl FnOnce()) {
    load::during(ve, dice, |dice| {
        // Now and then long enough for a commit.
        std::thread::sleep(Duration::from_millis(match round % 8 {
            0 => 3800 + dice.roll(1200),
            _ => dice.roll(700),
        }));
        kill();
    });
}

fn killed_many_times(ve: &Ve, rounds: u64) {
    load::make_homes(ve);
    let mut dice = Dice(0x51_7cc1_b727);
    for round in 0..rounds {
        if round % 2 == 1 {
            kill_at_work(ve, &mut dice, round);
            crash::mount_again(ve);
        } else {
            // Another daemon takes over, and works the same journal off.
            at_work(ve, &mut dice, round, || crash::kill(crash::pids(ve).0));
        }
        assert_eq!(
            ve.status()["state"],
            "mounted",
            "round {round}: no recount is needed:\n{}",
            crash::log(ve)
        );
        let outcome = ve.simfs(["check", Ve::ID]);
        assert_eq!(outcome.code, 0, "round {round}: {outcome:?}");
    }
}

// S51: whatever was in flight.
#[test]
fn totals_are_exact_after_a_kill() {
    if let Some(ve) = Spec::default().second_level().mount() {
        killed_many_times(&ve, rounds());
    }
}

#[test]
fn totals_are_exact_after_a_kill_on_xfs() {
    if let Some(ve) = Spec::default()
        .second_level()
        .backing(Kind::Xfs { mib: 512 })
        .mount()
    {
        killed_many_times(&ve, rounds().div_ceil(5));
    }
}

/// The daemon dies where it first comes by a fault point, in the middle of what a guest does, and nobody follows it.
#[track_caller]
fn crash_at(ve: &Ve, point: &str, act: fn(&Ve) -> rustix::io::Result<()>) {
    mount_with(ve, &format!("{point}:1:1"));
    let (daemon, keeper) = crash::pids(ve);
    crash::stop(keeper);
    std::thread::scope(|scope| {
        let _end = crash::EndOnFailure([keeper, daemon]);
        let guest = scope.spawn(|| act(ve));
        eventually("the daemon dies", || match crash::is_alive(daemon) {
            true => Err(format!("it did not come by '{point}'")),
            false => Ok(()),
        });
        crash::kill(keeper);
        assert!(guest.join().expect("the guest").is_err(), "{point}");
    });
    let _already_gone = unmount(ve.root(), UnmountFlags::DETACH);
}

// S51: the one operation in flight, done on the disk and in no account yet.
#[test]
fn what_was_done_and_not_charged_is_found() {
    if !cfg!(debug_assertions) {
        require::skip("fault points exist in debug builds only");
        return;
    }
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    put(ve.path("old"), 50_000);
    put(ve.path("over"), 70_000);
    ve.umount_and_wait();
    type Act = fn(&Ve) -> rustix::io::Result<()>;
    let rows: [(&str, Act); 5] = [
        ("made", |ve| mkdir(ve.path("dir"))),
        ("made", |ve| create(ve.path("file")).map(drop)),
        ("made", |ve| {
            rustix::fs::symlinkat("x".repeat(300), rustix::fs::CWD, ve.path("link"))
        }),
        ("renamed", |ve| {
            rename(ve.path("old"), ve.path("over"), RenameFlags::empty())
        }),
        ("removed", |ve| rustix::fs::unlink(ve.path("over"))),
    ];
    for (point, act) in rows {
        crash_at(&ve, point, act);
        crash::mount_again(&ve);
        assert_eq!(
            ve.status()["state"],
            "mounted",
            "{point}: without a recount"
        );
        ve.check();
        ve.assert_exact();
        ve.umount_and_wait();
    }
}

/// What the close of a file gives back is not in the totals of the last commit, however long ago that was: blocks of a file
/// without a name, and those that XFS keeps behind the end of a file that grows.
#[test]
fn what_was_open_for_long_is_let_go_with_the_daemon() {
    for backing in [Kind::Host, Kind::Xfs { mib: 512 }] {
        let Some(ve) = Spec::default().backing(backing).mount() else {
            continue;
        };
        let grows = open(ve.path("grows"), OFlags::RDWR | OFlags::CREATE).expect("create");
        for part in 0..40 {
            let _ = write_at(&grows, part * 50_000, &[1; 50_000]);
        }
        let gone = open(ve.path("gone"), OFlags::RDWR | OFlags::CREATE).expect("create");
        let _ = write_at(&gone, 0, &[1; 500_000]);
        rustix::fs::unlink(ve.path("gone")).expect("unlink");
        let empty = open(ve.path("empty"), OFlags::RDWR | OFlags::CREATE).expect("create");
        rustix::fs::unlink(ve.path("empty")).expect("unlink");
        std::thread::sleep(Duration::from_secs(5));
        // The next commit is of something else.
        drop(open(ve.path("other"), OFlags::RDWR | OFlags::CREATE).expect("create"));
        std::thread::sleep(Duration::from_secs(5));
        crash::kill_both(&ve);
        drop((grows, gone, empty));
        eventually("the dead mount is gone", || match ve.is_mounted() {
            true => Err("still mounted".to_owned()),
            false => Ok(()),
        });
        crash::mount_again(&ve);
        ve.check();
    }
}

// S51: what a recovery looks at is what was touched, whatever the number of files.
#[test]
fn a_recovery_looks_at_what_was_touched() {
    let Some(ve) = Spec::default().bare() else {
        return;
    };
    for dir in 0..10 {
        let place = ve.private().join(format!("d{dir}"));
        std::fs::create_dir(&place).expect("mkdir");
        for file in 0..1000 {
            std::fs::File::create(place.join(file.to_string())).expect("create");
        }
    }
    ve.init().ok();
    ve.mount().ok();
    for dir in 0..3 {
        std::fs::write(ve.path(format!("d{dir}/5")), [1; 5000]).expect("write");
    }
    crash::kill_both(&ve);
    crash::mount_again(&ve);
    let log = crash::log(&ve);
    let (_, rest) = log.split_once("looked_at=").expect("a recovery");
    let looked_at: u32 = rest
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .expect("a number");
    assert!((3..50).contains(&looked_at), "{log}");
    ve.check();
}

fn journal(ve: &Ve) -> PathBuf {
    let run = ve.prefix().join("run/simfs").join(Ve::ID);
    let entries = std::fs::read_dir(run).expect("run directory");
    let mut journals = entries.filter_map(|entry| {
        let path = entry.expect("entry").path();
        let name = path.file_name()?.to_str()?;
        name.starts_with("journal.").then_some(path)
    });
    journals.next().expect("a journal")
}

// S53: A journal that is damaged, cut off or foreign is named in the log and never used; the VE mounts and is recounted while it works.
#[test]
fn a_journal_that_cannot_be_used_costs_a_recount_while_the_ve_runs() {
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    load::make_homes(&ve);
    let mut dice = Dice(99);
    type Spoil<'a> = (&'a str, &'a dyn Fn(&Path));
    let spoil: [Spoil<'_>; 5] = [
        ("is damaged: a record", &|path| {
            let mut bytes = std::fs::read(path).expect("journal");
            bytes[36_864 + 9] ^= 1;
            std::fs::write(path, bytes).expect("journal");
        }),
        ("is damaged: a record", &|path| {
            let mut bytes = std::fs::read(path).expect("journal");
            bytes[36_864..36_864 + 128].fill(0);
            std::fs::write(path, bytes).expect("journal");
        }),
        ("is damaged: it is cut off", &|path| {
            let length = std::fs::metadata(path).expect("journal").len();
            let file = open(path, OFlags::WRONLY).expect("journal");
            rustix::fs::ftruncate(&file, length / 2).expect("cut");
        }),
        ("is damaged: the header", &|path| {
            let mut bytes = std::fs::read(path).expect("journal");
            bytes[40] ^= 1;
            std::fs::write(path, bytes).expect("journal");
        }),
        ("there is no journal", &|path| {
            std::fs::remove_file(path).expect("journal")
        }),
    ];
    for (round, (cause, spoil)) in spoil.into_iter().enumerate() {
        kill_at_work(&ve, &mut dice, round as u64 + 1);
        spoil(&journal(&ve));
        crash::mount_again(&ve);
        assert!(
            crash::log(&ve).contains(cause),
            "'{cause}' is not in the log:\n{}",
            crash::log(&ve)
        );
        if round == 3 {
            // Killed again: whether the recount is done or not, the next mount sees to it.
            kill_at_work(&ve, &mut dice, 2);
            crash::mount_again(&ve);
        }
        crash::wait_for_recount(&ve);
    }
}

// S41: a clean end needs no recovery.
#[test]
fn a_clean_end_leaves_no_journal_and_needs_none() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    load::make_homes(&ve);
    ve.umount_and_wait();
    let left =
        std::fs::read_dir(ve.prefix().join("run/simfs").join(Ve::ID)).expect("run directory");
    let left: Vec<_> = left
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().starts_with("journal")),
        "{left:?}"
    );
    ve.mount().ok();
    assert_eq!(ve.status()["state"], "mounted");
    assert!(
        !crash::log(&ve).contains("without its last commit"),
        "{}",
        crash::log(&ve)
    );
}

/// The totals that the store has, without a daemon and without a journal.
fn stored(ve: &Ve) -> u64 {
    std::fs::remove_file(journal(ve)).expect("journal");
    let shown = ve.vzquota(["show", Ve::ID, "--json"]).ok().stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON of show");
    shown["used"]["space"].as_u64().expect("used space")
}

// S42: nobody has to ask for a commit.
#[test]
fn totals_reach_the_disk_by_themselves() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    put(ve.path("file"), 5 * MIB);
    let written = SystemTime::now();
    let database = ve
        .prefix()
        .join("var/lib/simfs")
        .join(Ve::ID)
        .join("quota.redb");
    eventually("the database is committed", || {
        let changed = std::fs::metadata(&database).and_then(|data| data.modified());
        let changed = changed.expect("time of the last commit");
        // Not in the middle of it.
        let is_over = changed
            .elapsed()
            .is_ok_and(|since| since > Duration::from_secs(2));
        match changed > written && is_over {
            true => Ok(()),
            false => Err(format!("written {written:?}, committed {changed:?}")),
        }
    });
    crash::kill_both(&ve);
    assert!(stored(&ve) >= 5 * MIB);
    crash::mount_again(&ve);
    crash::wait_for_recount(&ve);
}
