//! The mount outlives its daemon: guests at work notice neither its death nor its replacement.

mod keeper;
mod load;
mod reading;
mod unsent;
mod upgrade;

use std::time::Duration;

use rustix::fs::OFlags;
use serde_json::Value;

use crate::harness::command::{eventually, finish, program, run};
use crate::harness::crash;
use crate::harness::figures::{Amount, count};
use crate::harness::files::{create, open, put, write_at};
use crate::harness::load::Dice;
use crate::harness::sampler::is_stopped;
use crate::harness::{KIB, MIB, Spec, Ve, require};
use load::{Load, Places};

/// How often the daemon is killed under load.
fn kills() -> u32 {
    let text = std::env::var("SIMFS_TAKEOVER_KILLS").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(25)
}

/// The keeper's child; `None` while there is none.
pub(crate) fn daemon_of(keeper: u32) -> Option<u32> {
    let path = format!("/proc/{keeper}/task/{keeper}/children");
    let children = std::fs::read_to_string(path).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Kills the daemon and waits until another serves; the pause between is the guests' to bear.
#[track_caller]
pub(crate) fn kill_and_wait(keeper: u32) -> u32 {
    let dead = eventually("there is a daemon", || {
        daemon_of(keeper).ok_or_else(|| "none".to_owned())
    });
    crash::kill(dead);
    eventually("there is a successor", || match daemon_of(keeper) {
        Some(next) if next != dead => Ok(next),
        found => Err(format!("{found:?}")),
    })
}

#[track_caller]
fn restarts(ve: &Ve) -> u64 {
    ve.status()["restarts"].as_u64().expect("restarts")
}

/// Everything that a load checks, with kills at random moments. Three users, two of them near their limits.
fn killed_under_load(ve: Option<Ve>, kills: u32) {
    let Some(ve) = ve else {
        return;
    };
    let places = Places::make(&ve);
    let (_, keeper) = crash::pids(&ve);
    let load = Load::start(&ve, &places);
    let mut dice = Dice(0x5eed);
    for round in 0..kills {
        std::thread::sleep(Duration::from_millis(20 + dice.roll(250)));
        if let Some(daemon) = daemon_of(keeper) {
            crash::kill(daemon);
        }
        // One in four dies before it serves anybody; more in a row would end the mount.
        if dice.roll(4) > 0 {
            let _absent = std::fs::metadata(ve.path(format!("probe-{round}")));
        }
    }
    let rounds = load.stop();
    assert!(rounds.iter().all(|(_, count)| *count > 0), "{rounds:?}");
    let status = ve.status();
    // One that is killed before it serves is counted as well.
    assert!(
        status["restarts"].as_u64() >= Some(u64::from(kills) / 2),
        "{status}"
    );
    assert_eq!(status["last_death"], "signal 9");
    eventually("no file is left open", || {
        match ve.status()["handles"].as_u64() {
            Some(0) => Ok(()),
            other => Err(format!("{other:?} handles")),
        }
    });
    ve.assert_exact();
    ve.check();
}

// S73: programs in the VE wait, and see no error.
#[test]
fn a_load_that_checks_itself_notices_no_death() {
    killed_under_load(Spec::default().second_level().mount(), kills());
}

#[test]
fn nor_without_passthrough() {
    let spec = Spec::default().options("passthrough=off");
    killed_under_load(spec.second_level().mount(), kills().div_ceil(3));
}

#[test]
fn what_is_open_goes_on() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let (_, keeper) = crash::pids(&ve);
    put(ve.path("read"), 100_000);
    let read = open(ve.path("read"), OFlags::RDONLY).expect("open");
    let written = create(ve.path("written")).expect("create");
    assert_eq!(write_at(&written, 0, &[1; 10_000]).1, None);
    let gone = open(ve.path("gone"), OFlags::RDWR | OFlags::CREATE).expect("create");
    assert_eq!(write_at(&gone, 0, &[2; 500_000]).1, None);
    rustix::fs::unlink(ve.path("gone")).expect("unlink");
    rustix::fs::flock(&read, rustix::fs::FlockOperation::LockExclusive).expect("lock");
    let mut listing = std::fs::read_dir(ve.root()).expect("open directory");
    let before = ve.used();
    for round in 1..=3_u64 {
        kill_and_wait(keeper);
        let mut bytes = vec![0; 100_000];
        assert_eq!(rustix::io::pread(&read, &mut bytes[..], 0), Ok(100_000));
        assert!(bytes.iter().all(|byte| *byte == 0x5a));
        assert_eq!(write_at(&written, 10_000 * round, &[1; 10_000]).1, None);
        let mut bytes = vec![0; 500_000];
        assert_eq!(rustix::io::pread(&gone, &mut bytes[..], 0), Ok(500_000));
        assert!(bytes.iter().all(|byte| *byte == 2));
        assert_eq!(restarts(&ve), round);
    }
    assert!(
        ve.used().space >= before.space,
        "what has no name is charged"
    );
    assert_eq!(listing.by_ref().count(), 2);
    let other = open(ve.path("read"), OFlags::RDONLY).expect("open");
    let second = rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    assert_eq!(second, Err(rustix::io::Errno::WOULDBLOCK));
    let space = ve.used().space;
    drop(gone);
    eventually("the last close gives it back", || {
        let now = ve.used().space;
        if now + 500_000 <= space {
            Ok(())
        } else {
            Err(format!("{now} of {space}"))
        }
    });
}

/// The room in the kernel's table of a process's descriptors.
fn descriptor_room(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
    line.and_then(|size| size.trim().parse().ok())
        .expect("size")
}

/// Nobody waits for a larger table of descriptors while a successor opens files anew.
#[test]
fn a_successor_has_room_for_its_descriptors_from_the_start() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let (first, keeper) = crash::pids(&ve);
    let room = descriptor_room(first);
    assert!(room >= 4096, "{room}");
    for number in 0..1000 {
        put(ve.path(format!("file{number}")), 1);
    }
    let next = kill_and_wait(keeper);
    for number in 0..1000 {
        drop(open(ve.path(format!("file{number}")), OFlags::RDONLY).expect("open"));
    }
    assert_eq!((descriptor_room(next), next), (room, ve.pid()));
}

/// Tools that connect while no daemon lives wait for the next one.
#[test]
fn tools_wait_for_the_successor() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let (_, keeper) = crash::pids(&ve);
    for _ in 0..5 {
        crash::kill(daemon_of(keeper).expect("a daemon"));
        assert_eq!(ve.status()["state"], "mounted");
    }
    crash::kill(daemon_of(keeper).expect("a daemon"));
    ve.setlimit(&["-b", "10000", "-B", "20000"]);
    crash::kill(daemon_of(keeper).expect("a daemon"));
    ve.umount_and_wait();
    assert!(!ve.is_mounted() && !crash::is_alive(keeper));
    ve.mount().ok();
    assert_eq!(
        ve.stat()["limits"]["space"]["hard"],
        Value::from(20_000 * KIB)
    );
}

// S75: a daemon that answers no request is ended and replaced.
#[test]
fn a_daemon_that_hangs_is_replaced() {
    let Some(ve) = Spec::default().options("watchdog=1").mount() else {
        return;
    };
    let (daemon, keeper) = crash::pids(&ve);
    put(ve.path("file"), KIB);
    crash::stop(daemon);
    eventually("every thread is stopped", || match is_stopped(daemon) {
        true => Ok(()),
        false => Err(String::new()),
    });
    std::thread::scope(|scope| {
        let _end = crash::EndOnFailure([keeper, daemon]);
        // Has to be asked for: the kernel does not know this name yet.
        let guest = scope.spawn(|| std::fs::metadata(ve.path("no such file")));
        eventually("it is replaced", || match daemon_of(keeper) {
            Some(now) if now != daemon => Ok(()),
            found => Err(format!("{found:?}")),
        });
        assert!(guest.join().expect("the guest").is_err());
    });
    assert_eq!(ve.status()["last_death"], "signal 9");
    assert!(crash::log(&ve).contains("finished no request for too long"));
}

// S74: a request that daemons crash on fails in the end.
#[test]
fn a_request_that_daemons_die_of_is_refused_in_the_end() {
    let Some(ve) = Spec::default().init() else {
        return;
    };
    let mut mount = ve.command("simfs");
    mount.args(["mount", Ve::ID]);
    finish(mount.env("SIMFS_FAULT_REQUEST", "STATFS")).ok();
    let (_, keeper) = crash::pids(&ve);
    put(ve.path("file"), KIB);
    let held = open(ve.path("file"), OFlags::RDONLY).expect("open");
    for round in 1..=2_u64 {
        let asked = rustix::fs::statfs(ve.root()).map(drop);
        assert_eq!(asked, Err(rustix::io::Errno::IO));
        assert_eq!(restarts(&ve), 3 * round, "three deaths prove it");
    }
    assert_eq!(ve.status()["last_death"], "signal 6");
    let log = crash::log(&ve);
    for said in [
        "is refused with EIO",
        "op=\"STATFS\"",
        "under way when the daemon ended",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    assert_eq!(rustix::fs::fstat(&held).expect("stat").st_size, 1024);
    put(ve.path("other"), KIB);
    assert!(crash::is_alive(keeper));
}

/// A watch over a VE in which nothing happens costs nothing: neither process wakes up.
#[test]
fn an_idle_keeper_sleeps() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let (_, keeper) = crash::pids(&ve);
    put(ve.path("file"), KIB);
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{keeper}/status")).expect("status");
        let line = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt"));
        line.map(str::to_owned).expect("switches")
    };
    // The look after the last request is due within a twelfth of a minute.
    std::thread::sleep(Duration::from_secs(6));
    let before = switches();
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(switches(), before);
}

// S75: nobody waits for ever.
#[test]
fn daemons_that_die_before_they_serve_anybody_are_given_up() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let (_, keeper) = crash::pids(&ve);
    put(ve.path("file"), KIB);
    let held = open(ve.path("file"), OFlags::RDONLY).expect("open");
    while crash::is_alive(keeper) {
        if let Some(daemon) = daemon_of(keeper) {
            crash::kill(daemon);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let asked = rustix::fs::fstatfs(&held).map(drop);
    assert_eq!(asked, Err(rustix::io::Errno::NOTCONN));
    drop(held);
    assert!(!ve.is_mounted());
    assert!(crash::log(&ve).contains("the mount is given up"));
    crash::mount_again(&ve);
    ve.assert_exact();
}

/// What `simfs status` shows as used; `vzquota` knows of no mount without a record.
#[track_caller]
fn shown_as_used(ve: &Ve) -> Amount {
    let status = eventually("everything is counted", || {
        let status = ve.status();
        let is_counted = status["state"] == "mounted";
        is_counted.then_some(()).ok_or(status.to_string())?;
        Ok(status)
    });
    Amount::from_json(&status["used"])
}

// S73: that takes no longer the more files there are, with limits or without.
#[test]
fn a_successor_without_a_record_counts_nothing_again() {
    let Some(ve) = Spec::default().bare() else {
        return;
    };
    std::fs::write(ve.private().join("before"), vec![1; MIB as usize]).expect("write");
    let mut mount = ve.command("simfs");
    mount.args(["mount", Ve::ID, "--no-quota", "--private"]);
    finish(mount.arg(ve.private())).ok();
    let (_, keeper) = crash::pids(&ve);
    assert_eq!(shown_as_used(&ve), count(ve.private()).ve);
    put(ve.path("through"), MIB);
    let held = create(ve.path("held")).expect("create");
    assert_eq!(write_at(&held, 0, &vec![1; MIB as usize]).1, None);
    rustix::fs::unlink(ve.path("held")).expect("unlink");
    let used = shown_as_used(&ve);
    // Who counts everything would find this, and not what has no name.
    let behind = ve.private().join("behind");
    std::fs::write(&behind, vec![1; 5 * MIB as usize]).expect("write");
    for _ in 0..3 {
        kill_and_wait(keeper);
        assert_eq!(shown_as_used(&ve), used);
    }
    ve.simfs(["upgrade", Ve::ID]).ok();
    assert_eq!(shown_as_used(&ve), used);
    std::fs::remove_file(behind).expect("remove");
    drop(held);
    eventually("it is given back", || {
        let (used, counted) = (shown_as_used(&ve), count(ve.private()).ve);
        (used == counted)
            .then_some(())
            .ok_or(format!("{used:?}, counted {counted:?}"))
    });
    // A kill of both loses these accounts, which limit nobody.
    crash::kill_both(&ve);
    finish(&mut mount).ok();
    assert_eq!(shown_as_used(&ve), count(ve.private()).ve);
    ve.umount_and_wait();
    let left = ve.prefix().join("run/simfs").join(Ve::ID).join("accounts");
    assert!(!left.exists(), "the accounts go with the mount");
}

/// SQLite's own check says whether its file system kept its word.
#[test]
fn a_database_survives_deaths_in_the_middle_of_transactions() {
    if !require::programs(&["sqlite3"]) {
        return;
    }
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let (_, keeper) = crash::pids(&ve);
    let file = ve.path("db");
    let sql = |text: &str| run("sqlite3", [file.as_os_str(), text.as_ref()]);
    sql("PRAGMA journal_mode=DELETE; CREATE TABLE t(n INTEGER PRIMARY KEY, x BLOB);").ok();
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                if ended.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
                if let Some(daemon) = daemon_of(keeper) {
                    crash::kill(daemon);
                }
                // The next one dies only after it has served somebody, or the mount would be given up.
                let _absent = std::fs::metadata(ve.path(format!("probe-{round}")));
            }
        });
        let said: Vec<_> = (0..30).map(|n| {
            let (from, to) = (n * 20, n * 20 + 19);
            let insert = format!(
                "BEGIN; WITH RECURSIVE c(i) AS (VALUES({from}) UNION ALL SELECT i+1 FROM c WHERE i<{to}) \
                 INSERT INTO t SELECT i, randomblob(3000) FROM c; COMMIT;"
            );
            sql(&insert)
        }).collect();
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        for outcome in said {
            outcome.ok();
        }
    });
    let said = sql("PRAGMA integrity_check; SELECT count(*) FROM t;").ok();
    assert_eq!(said.stdout, "ok\n600\n");
}

/// The hidden command is for keepers.
#[test]
fn a_successor_is_started_by_a_keeper_only() {
    let simfs = program("simfs");
    let simfs = simfs.to_str().expect("path");
    run(simfs, ["successor"]).refused(2, "only a keeper");
    run(simfs, ["successor", "1", "2", "x"]).refused(2, "only a keeper");
    assert_eq!(
        run(simfs, ["successor", "100", "101", "102", "103"]).code,
        2
    );
}
