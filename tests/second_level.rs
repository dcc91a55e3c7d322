//! Limits of users and groups within the VE.

use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::harness::crash;
use crate::harness::files::{create, fill, mkdir, open, put, write_at};
use crate::harness::user::{ALICE, BOB, holds_sys_resource};
use crate::harness::{KIB, Kind, MIB, Spec, Ve};

fn mounted() -> Option<Ve> {
    // Memory: nothing is promised for late blocks.
    let ve = Spec::default()
        .backing(Kind::Tmpfs { mib: 64 })
        .second_level()
        .mount()?;
    rustix::fs::chmodat(
        CWD,
        ve.root(),
        Mode::from_raw_mode(0o1777),
        AtFlags::empty(),
    )
    .unwrap();
    Some(ve)
}

fn account(ve: &Ve, kind: &str, id: u32) -> serde_json::Value {
    let stat = ve.stat();
    let list = stat["second_level"][kind]["accounts"]
        .as_array()
        .unwrap()
        .clone();
    list.into_iter()
        .find(|account| account["id"] == id)
        .unwrap_or_default()
}

// S25: the user's, the group's and the VE's usage move together.
#[test]
fn a_users_limit_holds_for_that_user_only() {
    let Some(ve) = mounted() else { return };
    ve.setlimit2(&["-u", "1001", "1024", "1024", "2", "2"]);
    ALICE.run(|| {
        let file = create(ve.path("hers")).unwrap();
        assert_eq!(fill(&file, 2 * MIB), (MIB as usize, Some(Errno::DQUOT)));
        create(ve.path("second")).unwrap();
        assert_eq!(create(ve.path("third")).map(drop), Err(Errno::DQUOT));
    });
    BOB.run(|| put(ve.path("his"), 2 * MIB));
    ve.assert_exact();
    assert_eq!(ve.charged().users[&ALICE.uid].space, MIB);
    assert_eq!(ve.charged().groups[&BOB.gid].space, 2 * MIB);
}

#[test]
fn a_groups_limit_holds_for_all_its_members() {
    let Some(ve) = mounted() else { return };
    mkdir(ve.path("shared")).unwrap();
    let group = Some(rustix::fs::Gid::from_raw(2000));
    rustix::fs::chownat(CWD, ve.path("shared"), None, group, AtFlags::empty()).unwrap();
    rustix::fs::chmodat(
        CWD,
        ve.path("shared"),
        Mode::from_raw_mode(0o2777),
        AtFlags::empty(),
    )
    .unwrap();
    ve.setlimit2(&["-g", "2000", "1024", "1024", "0", "0"]);
    ALICE.run(|| put(ve.path("shared/hers"), 512 * KIB));
    BOB.run(|| {
        let file = create(ve.path("shared/his")).unwrap();
        let (written, error) = fill(&file, MIB);
        assert_eq!((written as u64, error), (512 * KIB, Some(Errno::DQUOT)));
    });
    ve.assert_exact();
}

// S28: a capable caller passes the second level, never the first.
#[test]
fn root_passes_the_second_level_only() {
    let Some(ve) = mounted() else { return };
    ve.setlimit2(&["-u", "0", "1024", "1024", "0", "0"]);
    let file = create(ve.path("roots")).unwrap();
    let (written, error) = write_at(&file, 0, &vec![0; 2 << 20]);
    if holds_sys_resource() {
        assert_eq!((written, error), (2 << 20, None));
    } else {
        // A root without the capability is a user like any other.
        assert_eq!(error, Some(Errno::DQUOT));
        assert!(written <= 1 << 20);
    }
    ve.setlimit2(&["-u", "0", "0", "0", "0", "0"]);
    ve.setlimit(&["-b", "2M", "-B", "2M"]);
    let (_, error) = write_at(&file, 2 * MIB, &vec![0; 2 << 20]);
    assert_eq!(error, Some(Errno::DQUOT));
}

// S26: 0 is no limit, and an absent grace period is a week.
#[test]
fn zero_is_no_limit() {
    let Some(ve) = mounted() else { return };
    ve.setlimit2(&["-u", "1001", "64", "64", "0", "0"]);
    let full = ALICE.run(|| {
        let file = create(ve.path("hers")).unwrap();
        fill(&file, MIB)
    });
    assert_eq!(full.1, Some(Errno::DQUOT));
    ve.setlimit2(&["-u", "1001", "0", "0", "0", "0"]);
    ALICE.run(|| {
        assert_eq!(
            fill(&open(ve.path("hers"), OFlags::WRONLY).unwrap(), MIB).1,
            None
        )
    });
    assert_eq!(
        ve.stat()["second_level"]["users"]["grace_periods"]["space"],
        604_800
    );
}

// S29: any number of ids, also large ones.
#[test]
fn ids_are_not_limited() {
    let Some(ve) = mounted() else { return };
    put(ve.path("file"), 4096);
    for id in (0..300)
        .map(|n| 10_000 + n * 7)
        .chain([65_534, 4_000_000_000, u32::MAX - 1])
    {
        let (uid, gid) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
        let name = ve.path(format!("of-{id}"));
        put(&name, 4096);
        rustix::fs::chownat(CWD, &name, Some(uid), Some(gid), AtFlags::empty()).unwrap();
    }
    ve.assert_exact();
    assert!(ve.charged().users.len() >= 303);
    assert_eq!(ve.charged().users[&(u32::MAX - 1)].space, 4096);
}

#[test]
fn grace_of_users() {
    let Some(ve) = mounted() else { return };
    ve.setlimit2(&["-u", "-t", "1", "1"]);
    ve.setlimit2(&["-u", "1001", "64", "1024", "0", "0"]);
    ALICE.run(|| put(ve.path("hers"), 128 * KIB));
    let deadline = account(&ve, "users", 1001)["deadlines"]["space"]
        .as_u64()
        .expect("a deadline");
    let now = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs()
    };
    while now() <= deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let answer = ALICE.run(|| write_at(&open(ve.path("hers"), OFlags::WRONLY).unwrap(), MIB, b"x"));
    assert_eq!(answer, (0, Some(Errno::DQUOT)));
}

// S41: timers of users and groups go on where they were, however the mount ended.
#[test]
fn deadlines_of_users_and_groups_outlive_the_mount() {
    let Some(ve) = mounted() else { return };
    for kind in ["-u", "-g"] {
        ve.setlimit2(&[kind, "-t", "86400", "7200"]);
        ve.setlimit2(&[kind, "1001", "64", "1024", "1", "100"]);
    }
    ALICE.run(|| {
        put(ve.path("hers"), 128 * KIB);
        put(ve.path("second"), 4 * KIB);
    });
    let deadlines =
        || ["users", "groups"].map(|kind| account(&ve, kind, 1001)["deadlines"].clone());
    let running = deadlines();
    for one in &running {
        assert!(one["space"].is_u64() && one["inodes"].is_u64(), "{one}");
    }
    ve.remount();
    assert_eq!(deadlines(), running);
    crash::kill_both(&ve);
    crash::mount_again(&ve);
    assert_eq!(deadlines(), running);
    ve.assert_exact();
}

/// Limits of ids stay when the level is switched off, and count again after.
#[test]
fn limits_are_kept_while_the_level_is_off() {
    let Some(ve) = mounted() else { return };
    ve.setlimit2(&["-u", "1001", "64", "64", "0", "0"]);
    ve.setlimit(&["-s", "0"]);
    ALICE.run(|| put(ve.path("hers"), MIB));
    ve.setlimit(&["-s", "1"]);
    let answer = ALICE.run(|| write_at(&open(ve.path("hers"), OFlags::WRONLY).unwrap(), MIB, b"x"));
    assert_eq!(answer, (0, Some(Errno::DQUOT)));
    ve.remount();
    assert_eq!(
        account(&ve, "users", 1001)["limits"]["space"]["hard"],
        64 * KIB
    );
}
