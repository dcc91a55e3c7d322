//! Ends that are asked for while files are open: a signal, a lazy unmount. Nothing that was written is lost, and the totals of
//! the last commit are final.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::command::eventually;
use crate::harness::files::{create, put, write_at};
use crate::harness::{Kind, Spec, Ve, crash};

/// A file that grows and is open, and one that is open without a name.
fn in_use(ve: &Ve) -> [OwnedFd; 2] {
    ["grows", "nameless"].map(|name| {
        let file = create(ve.path(name)).expect("create");
        for part in 0..10 {
            assert_eq!(write_at(&file, part * 50_000, &[1; 50_000]).1, None);
        }
        if name == "nameless" {
            rustix::fs::unlink(ve.path(name)).expect("unlink");
        }
        file
    })
}

/// The mount is out of the tree and goes on for who has files open; then the daemon ends in good order.
fn ends_with_its_last_user(kind: Kind, end: &dyn Fn(&Ve)) {
    let Some(ve) = Spec::default().second_level().backing(kind).mount() else {
        return;
    };
    let files = in_use(&ve);
    let (daemon, keeper) = crash::pids(&ve);
    end(&ve);
    eventually("the mount leaves the tree", || match ve.is_mounted() {
        true => Err("still there".to_owned()),
        false => Ok(()),
    });
    for file in &files {
        assert_eq!(write_at(file, 500_000, &[2; 200_000]).1, None);
        rustix::fs::fsync(file).expect("fsync");
    }
    assert!(crash::is_alive(daemon), "files are open");
    drop(files);
    eventually("daemon and keeper end", || {
        match crash::is_alive(daemon) || crash::is_alive(keeper) {
            true => Err("alive".to_owned()),
            false => Ok(()),
        }
    });
    let log = crash::log(&ve);
    assert!(log.contains("unmounted, totals committed"), "{log}");
    let length = std::fs::metadata(ve.private().join("grows"))
        .expect("stat")
        .len();
    assert_eq!(length, 700_000);
    ve.check();
    ve.mount().ok();
    assert_eq!(ve.status()["state"], "mounted");
    let log = crash::log(&ve);
    assert!(!log.contains("without its last commit"), "{log}");
}

fn by_signal(ve: &Ve) {
    terminate(ve.pid());
}

fn by_lazy_unmount(ve: &Ve) {
    ve.simfs(["umount", "--lazy", Ve::ID]).ok();
}

// S68: by SIGTERM, as a host that shuts down sends it.
#[test]
fn a_signal_ends_the_daemon_with_its_last_user() {
    ends_with_its_last_user(Kind::Host, &by_signal);
}

#[test]
fn a_signal_ends_the_daemon_with_its_last_user_on_xfs() {
    ends_with_its_last_user(Kind::Xfs { mib: 320 }, &by_signal);
}

// S68: by a lazy unmount.
#[test]
fn a_lazy_unmount_ends_the_daemon_with_its_last_user() {
    ends_with_its_last_user(Kind::Host, &by_lazy_unmount);
}

/// Sends SIGTERM.
fn terminate(pid: u32) {
    let raw = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    let _may_have_ended = kill_process(raw.expect("a process id"), Signal::TERM);
}

// S68: a host that shuts down sends it to all processes, in whatever order.
#[test]
fn signals_to_daemon_and_keeper_are_a_good_end_in_any_order() {
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    for (round, daemon_first) in [true, false, true].into_iter().enumerate() {
        let (daemon, keeper) = crash::pids(&ve);
        put(ve.path(format!("before{round}")), 100_000);
        let held = create(ve.path(format!("held{round}"))).expect("create");
        if daemon_first {
            terminate(daemon);
            terminate(keeper);
        } else {
            terminate(keeper);
            assert_eq!(ve.pid(), daemon, "it is the daemon that ends the mount");
            terminate(daemon);
        }
        assert_eq!(write_at(&held, 0, &[1; 50_000]).1, None);
        drop(held);
        eventually("daemon and keeper end", || {
            match crash::is_alive(daemon) || crash::is_alive(keeper) {
                true => Err("alive".to_owned()),
                false => Ok(()),
            }
        });
        assert!(!ve.is_mounted());
        std::fs::remove_file(ve.run_dir().join("log")).expect("log");
        ve.mount().ok();
        assert_eq!(ve.status()["state"], "mounted");
        let log = crash::log(&ve);
        assert!(!log.contains("without its last commit"), "{log}");
    }
}

/// Also where nobody uses the mount, and where the signal comes again and again.
#[test]
fn signals_end_an_idle_mount() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let (daemon, keeper) = crash::pids(&ve);
    eventually("daemon and keeper end", || {
        terminate(daemon);
        match crash::is_alive(daemon) || crash::is_alive(keeper) {
            true => Err("alive".to_owned()),
            false => Ok(()),
        }
    });
    assert!(!ve.is_mounted());
}
