//! The end of the keeper: alone, before its daemon, and together with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::command::eventually;
use crate::harness::crash;
use crate::harness::files::{create, open, put, write_at};
use crate::harness::{KIB, MIB, Spec, Ve};

/// Ends the keeper and waits until the daemon knows.
#[track_caller]
fn lose_keeper(ve: &Ve) -> u32 {
    let (daemon, keeper) = crash::pids(ve);
    crash::kill(keeper);
    eventually("it is said that the keeper is gone", || {
        let status = ve.status();
        let is_said = status["degraded"].to_string().contains("keeper is gone");
        match is_said && status["keeper_pid"].is_null() && status["pid"] == daemon {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    daemon
}

#[track_caller]
fn assert_nothing_left(ve: &Ve) {
    assert!(!ve.is_mounted());
    let run = ve.prefix().join("run/simfs").join(Ve::ID);
    for name in ["mountpoint", "control.sock"] {
        assert!(!run.join(name).exists(), "{name} is left");
    }
}

// S77: without its keeper a mount is served on.
#[test]
fn a_daemon_serves_on_without_its_keeper() {
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    let held = create(ve.path("held")).expect("create");
    let daemon = lose_keeper(&ve);
    eventually("the log says so too", || {
        let log = crash::log(&ve);
        log.contains("keeper is gone").then_some(()).ok_or(log)
    });
    // What the keeper would hold for a successor is held by the daemon alone.
    rustix::fs::unlink(ve.path("held")).expect("unlink");
    assert_eq!(write_at(&held, 0, &vec![1; MIB as usize]).1, None);
    put(ve.path("other"), MIB);
    assert_eq!(ve.used().inodes, 3, "the one without a name is charged");
    ve.simfs(["upgrade", Ve::ID]).refused(1, "keeper is gone");
    assert_eq!(ve.pid(), daemon);
    drop(held);
    ve.assert_exact();
    ve.check();
}

/// The daemon cannot unmount, so the command does.
#[test]
fn a_mount_without_its_keeper_can_be_taken_away() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    put(ve.path("file"), MIB);
    let daemon = lose_keeper(&ve);
    let busy = open(ve.path("file"), OFlags::RDONLY).expect("open");
    ve.umount().refused(1, "in use");
    assert!(ve.is_mounted() && crash::is_alive(daemon));
    drop(busy);
    ve.umount_and_wait();
    assert_nothing_left(&ve);
    assert!(!crash::is_alive(daemon));
    ve.mount().ok();
    let log = crash::log(&ve);
    assert!(!log.contains("journal was worked off"), "{log}");
    // Detached, it goes with the last user.
    let daemon = lose_keeper(&ve);
    let last = open(ve.path("file"), OFlags::RDONLY).expect("open");
    ve.simfs(["umount", Ve::ID, "--lazy"]).ok();
    assert!(!ve.is_mounted() && crash::is_alive(daemon));
    assert_eq!(
        rustix::fs::fstat(&last).map(|stat| stat.st_size),
        Ok(1 << 20)
    );
    drop(last);
    eventually("the daemon ends", || match crash::is_alive(daemon) {
        true => Err("alive".to_owned()),
        false => Ok(()),
    });
    let log = crash::log(&ve);
    let commits = log.matches("unmounted, totals committed").count();
    assert_eq!(commits, 2, "{log}");
}

// S77, S51: the next kill is a plain crash, and the next mount exact.
#[test]
fn the_daemons_end_after_its_keepers_is_a_plain_crash() {
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    put(ve.path("before"), 300 * KIB);
    let daemon = lose_keeper(&ve);
    put(ve.path("after"), MIB);
    rustix::fs::unlink(ve.path("before")).expect("unlink");
    let held = create(ve.path("held")).expect("create");
    assert_eq!(write_at(&held, 0, &vec![1; MIB as usize]).1, None);
    rustix::fs::unlink(ve.path("held")).expect("unlink");
    crash::kill(daemon);
    eventually("nobody answers any more", || {
        match rustix::fs::fstatfs(&held).map(drop) {
            Err(Errno::NOTCONN) => Ok(()),
            // Asked while the last thread of the daemon was going.
            other => Err(format!("{other:?}")),
        }
    });
    drop(held);
    eventually("it is known to be dead", || {
        match ve.status()["state"].as_str() {
            Some("dead") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // The dead mount stands in nobody's way.
    crash::mount_again(&ve);
    assert_eq!(ve.status()["state"], "mounted", "its journal was enough");
    let log = crash::log(&ve);
    assert!(log.contains("journal was worked off"), "{log}");
    ve.assert_exact();
    ve.check();
}

/// Makes, fills and removes files until the mount is gone.
fn work_until_it_ends(ve: &Ve, worker: usize, ended: &AtomicBool) {
    for round in 0.. {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let path = ve.path(format!("{worker}-{}", round % 50));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let made = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
        let written = made.and_then(|file| rustix::io::pwrite(&file, &[7; 50_000], 0));
        let done = written.and_then(|_| match round % 3 {
            0 => rustix::fs::unlink(&path),
            _ => Ok(()),
        });
        match done {
            Ok(()) | Err(Errno::NOENT) => {}
            // Nobody serves it any more; what was under way then is told so too.
            Err(Errno::NOTCONN | Errno::CONNABORTED | Errno::IO) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

// S77: killed together, both are gone and so is the mount; the next one is exact.
#[test]
fn both_killed_at_once_is_a_plain_crash() {
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    let send = |pid: u32| {
        let pid = Pid::from_raw(pid.try_into().expect("pid")).expect("pid");
        let _may_be_gone = kill_process(pid, Signal::KILL);
    };
    for round in 0..4 {
        let (daemon, keeper) = crash::pids(&ve);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let (ve, ended) = (&ve, &ended);
                scope.spawn(move || work_until_it_ends(ve, worker, ended));
            }
            std::thread::sleep(Duration::from_millis(150));
            // The other way round the keeper may have started a successor by then; that one finds nobody to serve for.
            let order = match round % 2 {
                0 => [keeper, daemon],
                _ => [daemon, keeper],
            };
            order.into_iter().for_each(send);
            ended.store(true, Ordering::Relaxed);
        });
        crash::kill(keeper);
        crash::kill(daemon);
        eventually("nobody serves it", || {
            let status = ve.status();
            match status["state"].as_str() {
                // Or a successor found nobody to serve for, and took the mount away.
                Some("dead" | "unmounted") => Ok(()),
                // A successor that was ready when its keeper ended.
                Some("mounted") => {
                    crash::kill(ve.pid());
                    Err(status.to_string())
                }
                _ => Err(status.to_string()),
            }
        });
        crash::mount_again(&ve);
        ve.assert_exact();
        ve.check();
    }
}
