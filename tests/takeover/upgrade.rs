//! Replacing the program under running guests, and going back to the old one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Load, Places, daemon_of};
use crate::harness::command::{eventually, finish, program, run};
use crate::harness::crash;
use crate::harness::files::{create, put, write_at};
use crate::harness::{KIB, MIB, Spec, Ve};

/// How often the program is replaced under load.
fn upgrades() -> u32 {
    let text = std::env::var("SIMFS_TAKEOVER_UPGRADES").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// The program of another build, if one is given; else the one under test.
fn other_build() -> PathBuf {
    let named = std::env::var_os("SIMFS_TAKEOVER_OTHER").map(PathBuf::from);
    named.unwrap_or_else(|| program("simfs"))
}

/// Another file with the same program, below the VE's prefix. Made by a program of its own: a child that another test starts
/// meanwhile would inherit the file open for writing, and then it cannot be run.
fn copy(ve: &Ve, name: &str, of: &Path) -> PathBuf {
    let path = ve.prefix().join(name);
    run("cp", [of, &path]).ok();
    path
}

#[track_caller]
fn assert_served_by(ve: &Ve, path: &Path) {
    assert_eq!(
        ve.status()["program"].as_str(),
        path.to_str(),
        "{}",
        ve.status()
    );
}

/// `simfs upgrade`, called as this program.
#[track_caller]
fn upgrade_by(ve: &Ve, path: &Path) {
    let mut command = std::process::Command::new(path);
    command.args(["upgrade", Ve::ID]);
    finish(command.env("SIMFS_PREFIX", ve.prefix())).ok();
    assert_served_by(ve, path);
}

// S76: another program takes over without the guest noticing.
#[test]
fn guests_at_work_notice_no_upgrade() {
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    let places = Places::make(&ve);
    let programs = [
        copy(&ve, "one", &program("simfs")),
        copy(&ve, "two", &other_build()),
    ];
    let load = Load::start(&ve, &places);
    for round in 0..upgrades() {
        upgrade_by(&ve, &programs[round as usize % 2]);
    }
    let rounds = load.stop();
    assert!(rounds.iter().all(|(_, count)| *count > 0), "{rounds:?}");
    assert_eq!(ve.status()["restarts"], 0, "an upgrade is no death");
    ve.assert_exact();
    ve.check();
}

/// A program that is replaced on the disk changes nothing until an upgrade names it.
#[test]
fn a_death_is_followed_by_the_same_program() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let one = copy(&ve, "one", &program("simfs"));
    upgrade_by(&ve, &one);
    let (_, keeper) = crash::pids(&ve);
    std::fs::remove_file(&one).expect("remove");
    std::fs::copy("/bin/false", &one).expect("replace");
    crash::kill(daemon_of(keeper).expect("a daemon"));
    put(ve.path("file"), MIB);
    assert_eq!(ve.status()["restarts"], 1);
}

#[test]
fn a_program_that_cannot_serve_is_taken_back() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    put(ve.path("file"), 100 * KIB);
    let held = std::fs::File::open(ve.path("file")).expect("open");
    let before = ve.status()["program"].clone();
    for (round, (name, said)) in [("true", "exit code 0"), ("false", "exit code 1")]
        .into_iter()
        .enumerate()
    {
        let bad = copy(&ve, name, &Path::new("/bin").join(name));
        let bad = bad.to_str().expect("path");
        let outcome = ve.simfs(["upgrade", Ve::ID, "--program", bad]);
        outcome.refused(1, said);
        let status = ve.status();
        assert_eq!(status["program"], before);
        assert_eq!(status["upgrade"]["attempt"], round + 1);
        let reason = status["upgrade"]["outcome"]["reverted"].as_str();
        assert!(
            reason.is_some_and(|reason| reason.contains(said)),
            "{status}"
        );
        assert_eq!(held.metadata().expect("metadata").len(), 100 * KIB);
        put(ve.path(name), MIB);
    }
    let good = copy(&ve, "good", &program("simfs"));
    upgrade_by(&ve, &good);
    assert_eq!(ve.status()["upgrade"]["outcome"], "running");
}

/// A program of ours that does not take over, for the reason that is said, while a guest is at work.
fn taken_back(kind: &str, said: &str) {
    let Some(ve) = Spec::default().init() else {
        return;
    };
    let new = copy(&ve, "new", &program("simfs"));
    let new = new.to_str().expect("path");
    let mut mount = ve.command("simfs");
    mount.args(["mount", Ve::ID]);
    finish(mount.env("SIMFS_FAULT_SUCCESSOR", format!("{kind}:{new}"))).ok();
    let before = ve.status()["program"].clone();
    let log = create(ve.path("log")).expect("create");
    let ended = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            let mut written = 0_u64;
            while !ended.load(Ordering::Relaxed) {
                let answer = write_at(&log, 8 * written, &written.to_le_bytes());
                assert_eq!(answer, (8, None));
                written += 1;
            }
            written
        });
        let outcome = ve.simfs(["upgrade", Ve::ID, "--program", new]);
        ended.store(true, Ordering::Relaxed);
        let written = guest.join().expect("a guest that sees no error");
        outcome.refused(1, said);
        written
    });
    let status = ve.status();
    assert_eq!(status["program"], before);
    assert_eq!(status["restarts"], 0, "a failed upgrade is no death");
    let reason = status["upgrade"]["outcome"]["reverted"].as_str();
    assert!(reason.is_some_and(|why| why.contains(said)), "{status}");
    let bytes = std::fs::read(ve.path("log")).expect("read");
    let numbers = bytes.chunks(8).map(|bytes| bytes.try_into().expect("8"));
    assert!(numbers.map(u64::from_le_bytes).eq(0..written), "{written}");
    upgrade_by(&ve, &copy(&ve, "good", &program("simfs")));
}

// S76: the command says why the program before it serves again.
#[test]
fn a_program_that_refuses_the_saved_state_is_taken_back() {
    taken_back("newer", "has version 1, this program reads 2");
}

#[test]
fn a_program_that_crashes_at_its_start_is_taken_back() {
    taken_back("crashes", "signal 6");
}

#[test]
fn a_program_that_hangs_at_its_start_is_taken_back() {
    taken_back("hangs", "not ready to serve within 10 s");
}

/// A new program that dies early is not tried again.
#[test]
fn a_program_that_dies_on_probation_is_taken_back() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let (old, keeper) = crash::pids(&ve);
    let before = ve.status()["program"].clone();
    let new = copy(&ve, "new", &program("simfs"));
    std::thread::scope(|scope| {
        let upgrade =
            scope.spawn(|| ve.simfs(["upgrade", Ve::ID, "--program", new.to_str().expect("path")]));
        let next = eventually("the new one is started", || {
            let found = daemon_of(keeper).filter(|pid| *pid != old);
            found.ok_or_else(|| "none".to_owned())
        });
        crash::kill(next);
        upgrade.join().expect("upgrade").refused(1, "signal 9");
    });
    assert_eq!(ve.status()["program"], before);
    put(ve.path("file"), MIB);
}

#[test]
fn what_cannot_be_upgraded_is_said_and_changes_nothing() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let pid = ve.pid();
    let upgrade = |program: &str| ve.simfs(["upgrade", Ve::ID, "--program", program]);
    upgrade("/no/such/program").refused(1, "/no/such/program");
    upgrade("/etc/passwd").refused(1, "/etc/passwd");
    upgrade("/").refused(1, "/");
    ve.simfs(["upgrade", "102"]).refused(1, "not mounted");
    assert_eq!(ve.simfs(["upgrade"]).code, 2);
    assert_eq!(ve.simfs(["upgrade", Ve::ID, "--all"]).code, 2);
    assert_eq!(ve.pid(), pid);
    assert_eq!(ve.status()["upgrade"], serde_json::Value::Null);
    let all = ve.simfs(["upgrade", "--all"]).ok();
    assert!(all.stdout.contains(Ve::ID), "{}", all.stdout);
    assert_ne!(ve.pid(), pid);
    ve.umount_and_wait();
    ve.simfs(["upgrade", Ve::ID]).refused(1, "not mounted");
    ve.simfs(["upgrade", "--all"]).ok();
}
