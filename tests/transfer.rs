//! Changing owners: usage moves, the VE's does not.

use rustix::fs::{AtFlags, CWD, Gid, Uid};
use rustix::io::Errno;

use crate::harness::files::{put, stat};
use crate::harness::user::ALICE;
use crate::harness::{MIB, Spec, Ve};

fn chown(ve: &Ve, name: &str, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    rustix::fs::chownat(CWD, ve.path(name), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

/// Bytes and inodes of one user.
fn of_user(ve: &Ve, uid: u32) -> (u64, u64) {
    let amount = ve.charged().users.get(&uid).copied().unwrap_or_default();
    (amount.space, amount.inodes)
}

// S27, S25: user and group together.
#[test]
fn usage_moves_with_the_owner() {
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    put(ve.path("file"), MIB);
    let total = ve.used();
    chown(&ve, "file", Some(1001), Some(2000)).unwrap();
    assert_eq!(of_user(&ve, 1001), (MIB, 1));
    assert_eq!(ve.charged().groups[&2000].space, MIB);
    chown(&ve, "file", Some(1002), None).unwrap();
    assert_eq!((of_user(&ve, 1001), of_user(&ve, 1002)), ((0, 0), (MIB, 1)));
    assert_eq!(ve.used(), total);
    chown(&ve, "file", None, None).unwrap();
    ve.assert_exact();
}

/// The caller is root with all capabilities, so the limit is tried with a process that lacks CAP_SYS_RESOURCE.
fn chown_without_resource(ve: &Ve, name: &str, owner: &str) -> crate::harness::command::Outcome {
    let path = ve.path(name);
    crate::harness::command::run(
        "setpriv",
        [
            "--bounding-set=-sys_resource",
            "--inh-caps=-sys_resource",
            "chown",
            "-h",
            owner,
        ]
        .map(std::ffi::OsStr::new)
        .into_iter()
        .chain([path.as_os_str()]),
    )
}

// S27: refused where the new owner's limit would be passed, for user and for group, and nothing changes.
#[test]
fn a_full_owner_takes_no_more() {
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    put(ve.path("file"), MIB);
    ve.setlimit2(&["-u", "1001", "512", "512", "0", "0"]);
    ve.setlimit2(&["-g", "2001", "0", "0", "1", "1"]);
    put(ve.path("taken"), 0);
    chown(&ve, "taken", None, Some(2001)).unwrap();
    for owner in ["1001", ":2001", "1001:2001"] {
        let before = (ve.charged(), stat(ve.path("file")).unwrap().st_uid);
        let outcome = chown_without_resource(&ve, "file", owner).expect(1);
        assert!(
            outcome.stderr.contains("quota exceeded"),
            "{}",
            outcome.stderr
        );
        assert_eq!(
            (ve.charged(), stat(ve.path("file")).unwrap().st_uid),
            before,
            "{owner}"
        );
    }
    // S28: with the capability it passes.
    let passed = chown(&ve, "file", Some(1001), Some(2001));
    assert_eq!(passed.is_ok(), crate::harness::user::holds_sys_resource());
    ve.assert_exact();
}

// S2: every name of a file counts for its one owner.
#[test]
fn links_and_renames_move_nothing() {
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    put(ve.path("file"), MIB);
    chown(&ve, "file", Some(ALICE.uid), None).unwrap();
    let before = ve.charged();
    std::fs::hard_link(ve.path("file"), ve.path("link")).unwrap();
    std::fs::rename(ve.path("file"), ve.path("renamed")).unwrap();
    assert_eq!(ve.charged(), before);
    chown(&ve, "link", Some(1002), None).unwrap();
    assert_eq!(of_user(&ve, 1002), (MIB, 1));
    std::fs::remove_file(ve.path("link")).unwrap();
    std::fs::remove_file(ve.path("renamed")).unwrap();
    ve.assert_exact();
}
