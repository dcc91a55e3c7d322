//! The life cycle by commands: mount, status, check, umount, and what they refuse.

use std::time::Duration;

use crate::harness::command::{Outcome, eventually, finish, run};
use crate::harness::files::{create, put};
use crate::harness::{KIB, Kind, MIB, Spec, Ve, crash};

#[test]
fn status_tells_what_is_mounted() {
    let Some(ve) = Spec::default().space(1024, 2048).init() else {
        return;
    };
    assert_eq!(ve.status()["state"], "unmounted");
    ve.mount().ok();
    let status = ve.status();
    assert_eq!(status["veid"], 101);
    assert_eq!(status["state"], "mounted");
    assert_eq!(
        status["mountpoint"].as_str().unwrap(),
        ve.root().to_str().unwrap()
    );
    assert_eq!(
        status["private"].as_str().unwrap(),
        ve.private().to_str().unwrap()
    );
    assert_eq!(status["used"]["inodes"], 1);
    assert_eq!(status["limits"]["space"]["hard"], 2 * MIB);
    assert!(crash::is_alive(ve.pid()));
    ve.umount_and_wait();
    assert_eq!(ve.status()["state"], "unmounted");
}

#[test]
fn the_mount_table_names_the_type_and_not_the_host() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = ve.root();
    let line = table
        .lines()
        .find(|line| line.contains(root.to_str().unwrap()))
        .unwrap();
    assert!(line.contains(" - fuse.simfs "), "{line}");
    assert!(!line.contains(ve.private().to_str().unwrap()), "{line}");
}

// S33: inode numbers are those of the private area, and the same after a remount.
#[test]
fn inode_numbers_stay() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    put(ve.path("file"), 1);
    let number = |path: std::path::PathBuf| crate::harness::files::stat(path).unwrap().st_ino;
    let before = (number(ve.root()), number(ve.path("file")));
    assert_eq!(before, (2, number(ve.private().join("file"))));
    ve.remount();
    assert_eq!((number(ve.root()), number(ve.path("file"))), before);
}

#[test]
fn umount_of_a_busy_root() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let file = create(ve.path("open")).unwrap();
    ve.umount().refused(1, Ve::ID);
    assert_eq!(ve.status()["state"], "mounted");
    let pid = ve.pid();
    ve.simfs(["umount", "--lazy", Ve::ID]).ok();
    assert!(!ve.is_mounted());
    drop(file);
    eventually("the daemon ends with the last file", || {
        if crash::is_alive(pid) {
            Err(format!("{pid} is alive"))
        } else {
            Ok(())
        }
    });
}

#[test]
fn plain_umount_ends_the_daemon_too() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    put(ve.path("file"), MIB);
    let pid = ve.pid();
    run("umount", [ve.root()]).ok();
    eventually("the daemon ends", || {
        if crash::is_alive(pid) {
            Err(format!("{pid} is alive"))
        } else {
            Ok(())
        }
    });
    assert_eq!(ve.used().inodes, 2);
}

// umount(8) returns while the daemon still commits: whatever comes next meets it, at one stage of its end or another.
#[test]
fn any_command_may_follow_a_plain_umount_at_once() {
    let Some(ve) = Spec::default().init() else {
        return;
    };
    let commands: [&dyn Fn(&Ve) -> Outcome; 5] = [
        &|ve| ve.simfs(["check", Ve::ID]),
        &|ve| ve.vzquota(["stat", Ve::ID]),
        &|ve| ve.vzquota(["setlimit", Ve::ID, "-b", "9000"]),
        &|ve| ve.mount(),
        &|ve| {
            ve.vzquota(["drop", Ve::ID]).ok();
            ve.init()
        },
    ];
    for round in 0..8 {
        for (number, command) in commands.iter().enumerate() {
            if !ve.is_mounted() {
                ve.mount().ok();
            }
            put(ve.path(format!("file{round}.{number}")), 64 * KIB);
            run("umount", [ve.root()]).ok();
            command(&ve).ok();
        }
    }
}

// S79: what a mount without limits changes is found by the next one with them.
#[test]
fn a_mount_without_limits_makes_the_next_one_count() {
    let Some(ve) = Spec::default().init() else {
        return;
    };
    let mut mount = ve.command("simfs");
    finish(mount.args(["mount", Ve::ID, "--no-quota"])).ok();
    put(ve.path("uncounted"), MIB);
    ve.umount_and_wait();
    ve.mount().ok();
    eventually("the totals are counted anew", || {
        let status = ve.status();
        let is_counted = status["state"] == "mounted" && ve.used().inodes == 2;
        is_counted.then_some(()).ok_or(status.to_string())
    });
    ve.assert_exact();
}

// S43: edits behind the mount are found and mended, mounted or not.
#[test]
fn check_finds_and_mends_edits_behind_the_mount() {
    for mounted in [true, false] {
        let Some(ve) = Spec::default().mount() else {
            return;
        };
        put(ve.path("file"), 64 * KIB);
        ve.assert_exact();
        if !mounted {
            ve.umount_and_wait();
        }
        std::fs::write(ve.private().join("behind"), vec![1; 1 << 20]).unwrap();
        ve.simfs(["check", Ve::ID]).expect(4);
        ve.simfs(["check", Ve::ID, "--json"]).expect(4);
        ve.simfs(["check", Ve::ID, "--repair"]).expect(1);
        ve.simfs(["check", Ve::ID]).expect(0);
        assert_eq!(ve.used().inodes, 3, "mounted: {mounted}");
    }
}

// S43: what was made behind the mount and goes through it takes no total below zero, and ends no daemon.
#[test]
fn totals_that_edits_behind_the_mount_make_wrong_are_counted_anew() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    for name in ["one", "two", "three"] {
        std::fs::write(ve.private().join(name), vec![1; MIB as usize]).unwrap();
        std::fs::remove_file(ve.path(name)).unwrap();
    }
    assert_eq!((ve.used().space, ve.used().inodes), (0, 0));
    put(ve.path("file"), 64 * KIB);
    assert_eq!(ve.status()["restarts"], 0);
    ve.umount_and_wait();
    ve.mount().ok();
    eventually("the totals are counted anew", || {
        let status = ve.status();
        let is_counted = status["state"] == "mounted" && ve.used().inodes == 2;
        is_counted.then_some(()).ok_or(status.to_string())
    });
    ve.assert_exact();
    ve.check();
}

// S51: a killed daemon loses nothing.
#[test]
fn totals_are_right_after_a_kill() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    for n in 0..50 {
        put(ve.path(n.to_string()), n * KIB);
    }
    let status = ve.status();
    if let Some(keeper) = status["keeper_pid"].as_u64() {
        crash::kill(u32::try_from(keeper).unwrap());
    }
    crash::kill(u32::try_from(status["pid"].as_u64().unwrap()).unwrap());
    std::thread::sleep(Duration::from_millis(100));
    if ve.is_mounted() {
        run("umount", ["-l".as_ref(), ve.root().as_os_str()]).ok();
    }
    ve.mount().ok();
    ve.assert_exact();
    ve.check();
}

#[test]
fn options_show_and_bind() {
    let Some(ve) = Spec::default()
        .options("ro,nodev,nosuid,noexec,noatime,x-test,_netdev")
        .mount()
    else {
        return;
    };
    assert_eq!(
        create(ve.path("file")).map(drop),
        Err(rustix::io::Errno::ROFS)
    );
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let root = ve.root();
    let line = table
        .lines()
        .find(|line| line.contains(root.to_str().unwrap()))
        .unwrap();
    let options: Vec<_> = line.split(' ').nth(3).unwrap().split(',').collect();
    for option in ["ro", "nodev", "nosuid", "noexec"] {
        assert!(options.contains(&option), "{line}");
    }
}

#[test]
fn the_mount_helper_mounts() {
    let Some(ve) = Spec::default().init() else {
        return;
    };
    std::fs::create_dir_all(ve.root()).unwrap();
    let helper = ve.beside("mount.simfs");
    let target = crate::harness::command::program("simfs");
    std::os::unix::fs::symlink(target, &helper).unwrap();
    let mut command = std::process::Command::new(&helper);
    command
        .env("SIMFS_PREFIX", ve.prefix())
        .arg(Ve::ID)
        .arg(ve.root());
    finish(command.args(["-o", "rw,nofail,x-systemd.automount"])).ok();
    assert!(ve.is_mounted());
    put(ve.path("file"), 1);
}

// S40: one mount for one private area.
#[test]
fn a_private_area_in_use_is_refused() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let second = ve.mount();
    assert_ne!(second.code, 0, "{second:?}");
    let mut other = ve.command("vzquota");
    other.args(["init", "102", "-p"]).arg(ve.private());
    let limits = [
        "-b", "1G", "-B", "1G", "-i", "100", "-I", "100", "-e", "1", "-n", "1",
    ];
    finish(other.args(limits));
    std::fs::create_dir_all(ve.beside("other-root")).unwrap();
    let place = ve.beside("other-root");
    let third = finish(ve.command("simfs").args(["mount", "102"]).arg(&place));
    assert_ne!(third.code, 0, "{third:?}");
    assert_eq!(ve.status()["state"], "mounted");
}

// S40: a mount point inside the private area.
#[test]
fn a_private_area_that_spans_file_systems_is_refused() {
    let Some(ve) = Spec::default().init() else {
        return;
    };
    let inside = ve.private().join("inside");
    std::fs::create_dir(&inside).unwrap();
    run(
        "mount",
        [
            "-t".as_ref(),
            "tmpfs".as_ref(),
            "tmpfs".as_ref(),
            inside.as_os_str(),
        ],
    )
    .ok();
    let refused = ve.mount();
    run("umount", [&inside]).ok();
    std::fs::remove_dir(&inside).unwrap();
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("inside"),
        "names it: {}",
        refused.stderr
    );
}

/// Everything that is refused: an exit code that is not 0, one line, nothing mounted.
#[test]
fn bad_input_is_refused_in_one_line() {
    let Some(ve) = Spec::default().backing(Kind::Host).bare() else {
        return;
    };
    std::fs::create_dir_all(ve.root()).unwrap();
    let check = |name: &str, outcome: Outcome, word: &str| {
        assert_ne!(outcome.code, 0, "{name}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{name}: {outcome:?}");
        assert!(
            outcome.stderr.contains(word),
            "{name} names '{word}': {outcome:?}"
        );
        assert!(!ve.is_mounted(), "{name}");
    };
    check("no record", ve.simfs(["mount", Ve::ID]), "vzquota init");
    check(
        "check without a record",
        ve.simfs(["check", Ve::ID]),
        "vzquota init",
    );
    check("umount of nothing", ve.simfs(["umount", Ve::ID]), Ve::ID);
    check("no number", ve.simfs(["mount", "x1"]), "x1");
    check("number 0", ve.simfs(["mount", "0"]), "0");
    check(
        "stat without a record",
        ve.vzquota(["stat", Ve::ID]),
        "vzquota init",
    );
    ve.init().ok();
    check(
        "unknown option",
        ve.simfs(["mount", Ve::ID, "-o", "sugar"]),
        "sugar",
    );
    let nowhere = ve.beside("nowhere");
    let at = nowhere.to_str().unwrap();
    check("no mount point", ve.simfs(["mount", Ve::ID, at]), "nowhere");
    std::fs::rename(ve.private(), ve.beside("moved")).unwrap();
    check("private area vanished", ve.mount(), "private");
    std::fs::rename(ve.beside("moved"), ve.private()).unwrap();
}

#[test]
fn a_socket_of_a_dead_daemon_is_no_obstacle() {
    let Some(ve) = Spec::default().init() else {
        return;
    };
    let run_dir = ve.prefix().join("run/simfs").join(Ve::ID);
    std::fs::create_dir_all(&run_dir).unwrap();
    drop(std::os::unix::net::UnixListener::bind(run_dir.join("control.sock")).unwrap());
    ve.mount().ok();
    put(ve.path("file"), 1);
}
