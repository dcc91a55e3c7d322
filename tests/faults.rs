//! What the host does to a VE: a disk that is full, read-only or dead, no descriptors. The guest is told the truth, the daemon
//! lives, its accounts stay exact, and it goes on by itself when the cause is over.

mod loss;
mod own_disk;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use crate::harness::command::{eventually, finish, program, run};
use crate::harness::files::{create, mkdir, open, write_at};
use crate::harness::user::holds_sys_resource;
use crate::harness::{Kind, MIB, Spec, Ve, crash, require};

/// Waits until `simfs status` names a trouble.
#[track_caller]
fn assert_told(ve: &Ve, trouble: &str) {
    eventually("status tells what is wrong", || {
        let degraded = ve.status()["degraded"].to_string();
        match degraded.contains(trouble) {
            true => Ok(()),
            false => Err(degraded),
        }
    });
    let table = ve.simfs(["status", Ve::ID]).ok().stdout;
    assert!(table.contains(trouble), "{table}");
}

#[track_caller]
fn assert_logged(ve: &Ve, trouble: &str) {
    let log = crash::log(ve);
    assert!(
        log.contains(trouble),
        "'{trouble}' is not in the log:\n{log}"
    );
}

/// Takes what a file system has left.
fn fill_up(filler: PathBuf) {
    let file = create(filler).expect("filler");
    let mut at = 0;
    for step in [MIB, 64 << 10, 4 << 10, 1 << 10] {
        while rustix::fs::fallocate(&file, FallocateFlags::empty(), at, step).is_ok() {
            at += step;
        }
    }
}

fn full_disk(kind: Kind) {
    let spec = Spec::default().second_level().backing(kind);
    let Some(ve) = spec.loses_power().mount() else {
        return;
    };
    let pid = ve.pid();
    let file = create(ve.path("file")).expect("create");
    assert_eq!(write_at(&file, 0, &vec![1; 2 << 20]).1, None);
    fill_up(ve.beside("filler"));
    let (_, error) = write_at(&file, 2 << 20, &vec![1; 64 << 20]);
    assert_eq!(error, Some(Errno::NOSPC));
    let names = (0..4096).map(|n| mkdir(ve.path(format!("d{n}"))));
    let refused = names.into_iter().find_map(Result::err);
    assert_eq!(refused, Some(Errno::NOSPC));
    assert_told(&ve, "the private area is full");
    assert_logged(&ve, "the private area is full");
    // The database may find room or not, and opens anew after it did not; what it says is what is.
    let answer = ve.vzquota(["setlimit", Ve::ID, "-b", "900000", "-B", "900001"]);
    eventually("the store answers", || {
        let stat = ve.vzquota(["stat", Ve::ID, "-t"]);
        (stat.code == 0).then_some(()).ok_or(stat.stderr)
    });
    let hard = ve.stat()["limits"]["space"]["hard"].clone();
    assert_eq!(
        answer.code == 0,
        hard == 900_001 * 1024,
        "{answer:?}\n{hard}"
    );
    ve.assert_exact();

    std::fs::remove_file(ve.beside("filler")).expect("filler");
    assert_eq!(write_at(&file, 2 << 20, &vec![1; 1 << 20]).1, None);
    // After a second failure the store pauses before it tries again.
    eventually("limits can be set again", || {
        let answer = ve.vzquota(["setlimit", Ve::ID, "-b", "800000", "-B", "800001"]);
        (answer.code == 0).then_some(()).ok_or(answer.stderr)
    });
    // A commit of its own, whatever failed before.
    eventually("the totals are committed", || {
        let degraded = ve.status()["degraded"].to_string();
        match degraded.contains("not committed") {
            true => Err(degraded),
            false => Ok(()),
        }
    });
    assert_eq!(ve.pid(), pid, "the daemon lives");
    drop(file);
    ve.remount();
    assert_eq!(ve.status()["state"], "mounted");
}

// S60: ENOSPC, also where the database lies on the same disk.
#[test]
fn a_full_disk_is_told_and_gone_when_it_is_over() {
    full_disk(Kind::Ext4 { mib: 64 });
}

#[test]
fn a_full_disk_is_told_and_gone_when_it_is_over_on_xfs() {
    full_disk(Kind::Xfs { mib: 320 });
}

// S60: EROFS.
#[test]
fn a_disk_that_becomes_read_only_is_told_and_gone_when_it_is_over() {
    let Some(ve) = Spec::default().backing(Kind::Ext4 { mib: 64 }).mount() else {
        return;
    };
    std::fs::write(ve.path("old"), "content").expect("write");
    let dir = ve.backing().dir().display().to_string();
    eventually("the disk can be made read-only", || {
        let outcome = run("mount", ["-o", "remount,ro", &dir]);
        if outcome.code == 0 {
            Ok(())
        } else {
            Err(outcome.stderr)
        }
    });
    assert_eq!(mkdir(ve.path("dir")), Err(Errno::ROFS));
    assert_eq!(create(ve.path("new")).err(), Some(Errno::ROFS));
    assert_eq!(rustix::fs::unlink(ve.path("old")), Err(Errno::ROFS));
    assert_eq!(
        std::fs::read_to_string(ve.path("old")).expect("read"),
        "content"
    );
    assert_told(&ve, "the private area is read-only");
    ve.assert_exact();
    run("mount", ["-o", "remount,rw", &dir]).ok();
    mkdir(ve.path("dir")).expect("mkdir");
    std::fs::remove_file(ve.path("old")).expect("unlink");
}

/// A file system that is frozen; thawed by drop.
struct Frozen(String);

impl Frozen {
    fn freeze(dir: &std::path::Path) -> Self {
        let dir = dir.display().to_string();
        run("fsfreeze", ["--freeze", &dir]).ok();
        Self(dir)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        run("fsfreeze", ["--unfreeze", &self.0]).ok();
    }
}

// S86: who is ended while the disk does not answer is followed when it does, and nothing is lost or done twice.
#[test]
fn a_daemon_that_a_frozen_disk_holds_is_followed_when_it_thaws() {
    if !require::programs(&["fsfreeze"]) {
        return;
    }
    let spec = Spec::default().backing(Kind::Ext4 { mib: 64 });
    let Some(ve) = spec.options("watchdog=1").mount() else {
        return;
    };
    mkdir(ve.path("old")).expect("mkdir");
    std::thread::scope(|scope| {
        let frozen = Frozen::freeze(ve.backing().dir());
        let guest = scope.spawn(|| mkdir(ve.path("new")));
        assert_logged_soon(&ve, "finished no request for too long");
        assert_logged_soon(&ve, "the daemon was ended and does not end");
        assert!(!guest.is_finished(), "it waits");
        drop(frozen);
        assert_eq!(guest.join().expect("the guest"), Ok(()));
    });
    assert_ne!(ve.status()["restarts"], 0);
    assert_eq!(mkdir(ve.path("new")), Err(Errno::EXIST));
    ve.assert_exact();
}

fn dead_disk(kind: Kind) {
    if !require::programs(&["xfs_io"]) {
        return;
    }
    let Some(ve) = Spec::default().second_level().backing(kind).mount() else {
        return;
    };
    let pid = ve.pid();
    let disk = open(ve.backing().dir(), OFlags::RDONLY).expect("disk");
    rustix::fs::syncfs(&disk).expect("syncfs");
    drop(disk);
    let file = create(ve.path("file")).expect("create");
    assert_eq!(write_at(&file, 0, &vec![1; 3 << 20]).1, None);
    ve.backing().cut_power();
    assert_eq!(mkdir(ve.path("dir")), Err(Errno::IO));
    assert_eq!(
        write_at(&file, 3 << 20, &vec![1; 1 << 20]).1,
        Some(Errno::IO)
    );
    assert_eq!(rustix::fs::fsync(&file), Err(Errno::IO));
    assert_told(&ve, "the private area has input/output errors");
    assert_logged(&ve, "the private area has input/output errors");
    assert_logged_soon(&ve, "the next mount will count the totals anew");
    assert_eq!(ve.pid(), pid, "the daemon lives");
    drop(file);
    ve.umount_and_wait();
    ve.backing().power_up();
    ve.mount().ok();
    crash::wait_for_recount(&ve);
    ve.assert_exact();
}

// S60: EIO; S61: what was lost with it is not in the totals of the next mount.
#[test]
fn a_disk_that_dies_is_told_and_counted_anew() {
    dead_disk(Kind::Ext4 { mib: 64 });
}

#[test]
fn a_disk_that_dies_is_told_and_counted_anew_on_xfs() {
    dead_disk(Kind::Xfs { mib: 320 });
}

/// The database dies with the private area, and the journal lives on: it must not be believed.
#[test]
fn a_journal_that_outlives_its_disk_is_not_believed() {
    if !require::programs(&["xfs_io"]) {
        return;
    }
    let spec = Spec::default().backing(Kind::Ext4 { mib: 64 });
    let Some(ve) = spec.loses_power().mount() else {
        return;
    };
    let file = create(ve.path("file")).expect("create");
    assert_eq!(write_at(&file, 0, &vec![1; 3 << 20]).1, None);
    // A commit, which is durable; the file's blocks are not.
    let commit = |turn: u32| ve.setlimit(&["-B", &(800_000 + turn).to_string()]);
    (0..4).for_each(commit);
    ve.backing().cut_power();
    assert_eq!(mkdir(ve.path("dir")), Err(Errno::IO));
    // The store lies on the same disk.
    assert_told(&ve, "totals not committed");
    assert_logged_soon(&ve, "the private area may have lost writes");
    crash::kill_both(&ve);
    drop(file);
    ve.backing().power_up();
    crash::mount_again(&ve);
    crash::wait_for_recount(&ve);
    ve.assert_exact();
}

#[track_caller]
fn assert_logged_soon(ve: &Ve, what: &str) {
    eventually("the log tells", || match crash::log(ve) {
        log if log.contains(what) => Ok(()),
        log => Err(log),
    });
}

// S60: no descriptors.
#[test]
fn a_daemon_without_descriptors_says_so_and_goes_on() {
    if !require::programs(&["prlimit"]) {
        return;
    }
    let Some(ve) = Spec::default().init() else {
        return;
    };
    let mut command = std::process::Command::new("prlimit");
    command.arg("--nofile=120:120").arg(program("simfs"));
    command
        .args(["mount", Ve::ID])
        .env("SIMFS_PREFIX", ve.prefix());
    finish(&mut command).ok();
    let mut held: Vec<OwnedFd> = Vec::new();
    let refused = (0..400).find_map(|n| {
        match open(ve.path(format!("f{n}")), OFlags::RDWR | OFlags::CREATE) {
            Ok(file) => {
                let _ = write_at(&file, 0, &[1; 5000]);
                held.push(file);
                None
            }
            Err(error) => Some(error),
        }
    });
    assert_eq!(refused, Some(Errno::NFILE), "{} files", held.len());
    assert_told(&ve, "the private area is short of descriptors");
    drop(held);
    eventually("files can be opened again", || {
        create(ve.path("after")).map_err(|error| error.to_string())
    });
}

// S62: part of the write-out, spared when memory runs out, not held to a shell's number of open files.
#[test]
fn the_daemon_claims_what_it_needs_of_the_kernel() {
    let Some(ve) = Spec::default().options("oom_score_adj=123").init() else {
        return;
    };
    let mut command = std::process::Command::new("prlimit");
    command.arg("--nofile=100:300").arg(program("simfs"));
    command.args(["mount", Ve::ID, "-o", "oom_score_adj=123"]);
    finish(command.env("SIMFS_PREFIX", ve.prefix())).ok();
    let (daemon, keeper) = crash::pids(&ve);
    let of = |pid: u32, file: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a process")
    };
    for pid in [daemon, keeper] {
        assert_eq!(of(pid, "oom_score_adj").trim(), "123");
        let limits = of(pid, "limits");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let words: Vec<_> = line.expect("limit").split_whitespace().collect();
        assert_eq!(&words[3..5], ["300", "300"]);
    }
}

// S62: and an IO flusher, which takes CAP_SYS_RESOURCE.
#[test]
fn the_daemon_never_waits_for_a_write_out_of_its_own() {
    if !holds_sys_resource() {
        require::skip("needs CAP_SYS_RESOURCE");
        return;
    }
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let (daemon, _) = crash::pids(&ve);
    // PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, of every thread.
    let flusher = 0x0008_0000 | 0x0010_0000;
    for thread in std::fs::read_dir(format!("/proc/{daemon}/task")).expect("threads") {
        let stat = std::fs::read_to_string(thread.expect("thread").path().join("stat"));
        let stat = stat.expect("stat");
        let (_, after_name) = stat.rsplit_once(") ").expect("a name");
        let flags = after_name.split(' ').nth(6).expect("flags");
        assert_eq!(
            flags.parse::<u64>().expect("flags") & flusher,
            flusher,
            "{stat}"
        );
    }
    let spared = std::fs::read_to_string(format!("/proc/{daemon}/oom_score_adj"));
    assert_eq!(spared.expect("score").trim(), "-900");
}

/// By itself the kernel has stores through mappings of a FUSE mount wait for write-out from one percent of what may be dirty.
// S62
#[test]
fn stores_may_wait_for_write_out_as_on_a_disk() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let device = rustix::fs::stat(ve.root()).expect("a root").st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let bound = format!("/sys/class/bdi/{major}:{minor}/max_ratio");
    if std::fs::OpenOptions::new()
        .write(true)
        .open(&bound)
        .is_err()
    {
        require::skip("needs a /sys that can be written");
        return;
    }
    let percent = std::fs::read_to_string(bound).expect("a bound");
    assert_eq!(percent.trim(), "20");
}

#[test]
fn a_wrong_score_is_refused() {
    let Some(ve) = Spec::default().init() else {
        return;
    };
    for wrong in ["oom_score_adj=1001", "oom_score_adj=x", "oom_score_adj="] {
        let outcome = ve.simfs(["mount", Ve::ID, "-o", wrong]);
        assert_ne!(outcome.code, 0);
        assert!(outcome.stderr.contains("from -1000 to 1000"), "{outcome:?}");
        assert!(!ve.is_mounted());
    }
}
