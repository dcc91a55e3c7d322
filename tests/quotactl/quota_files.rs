//! Quota files of a real disk, made and read by the tools of the host.
//!
//! The kernel need not keep quota for that: the tools work on the files themselves.

use std::path::{Path, PathBuf};

use crate::harness::command::run;
use crate::harness::files::put;
use crate::harness::{Spec, Ve, require};

/// A small ext4 with two users' files and with quota files that quotacheck(8) made.
fn disk(ve: &Ve) -> PathBuf {
    let (image, dir) = (ve.beside("disk.img"), ve.beside("disk"));
    std::fs::create_dir(&dir).unwrap();
    run(
        "truncate",
        ["-s".as_ref(), "32M".as_ref(), image.as_os_str()],
    )
    .ok();
    run(
        "mkfs.ext4",
        [
            "-q".as_ref(),
            "-b".as_ref(),
            "4096".as_ref(),
            image.as_os_str(),
        ],
    )
    .ok();
    let options = ["-o".as_ref(), "loop,usrquota,grpquota".as_ref()];
    run(
        "mount",
        [options[0], options[1], image.as_os_str(), dir.as_os_str()],
    )
    .ok();
    for (name, id) in [("ann", 1001), ("bob", 1002)] {
        put(dir.join(name), 8192);
        std::os::unix::fs::chown(dir.join(name), Some(id), Some(id)).unwrap();
    }
    run(
        "quotacheck",
        ["-cugm", "-F", "vfsv1", dir.to_str().unwrap()],
    )
    .ok();
    dir
}

/// quotacheck(8) reads the device: what was written must have got its blocks there.
fn quotacheck(dir: &Path, flags: &str) {
    let dir = dir.to_str().unwrap();
    run("sync", ["-f", dir]).ok();
    run("quotacheck", [flags, "-F", "vfsv1", dir]).ok();
}

fn report(flag: &str, dir: &Path) -> String {
    let args = ["-n", "-v", flag, "-F", "vfsv1", dir.to_str().unwrap()];
    run("repquota", args).ok().stdout
}

/// The words of an id's line.
fn line(report: &str, id: u32) -> String {
    let start = format!("#{id} ");
    let line = report.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("no {id}:\n{report}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn limits(ve: &Ve, kind: &str, id: u32) -> [u64; 4] {
    let stat = ve.stat();
    let accounts = stat["second_level"][kind]["accounts"].as_array().unwrap();
    let account = accounts.iter().find(|one| one["id"] == id).unwrap();
    let limit = |resource: &str, which: &str| account["limits"][resource][which].as_u64();
    [
        ("space", "soft"),
        ("space", "hard"),
        ("inodes", "soft"),
        ("inodes", "hard"),
    ]
    .map(|(resource, which)| limit(resource, which).unwrap_or(0))
}

// S50: limits move from a real disk into a VE and back, for users and groups.
#[test]
fn limits_move_between_a_disk_and_a_ve() {
    if !require::programs(&["quotacheck", "setquota", "repquota", "mkfs.ext4", "losetup"]) {
        return;
    }
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    let dir = disk(&ve);
    let at = dir.to_str().unwrap();
    let set = |args: &[&str]| run("setquota", [&["-F", "vfsv1"], args, &[at]].concat()).ok();
    set(&["-u", "1001", "100", "200", "10", "20"]);
    set(&["-u", "1002", "0", "50", "0", "0"]);
    set(&["-g", "1002", "30", "300", "3", "33"]);
    set(&["-u", "-t", "3600", "7200"]);
    set(&["-g", "-t", "60", "120"]);
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (users, groups) = (file("aquota.user"), file("aquota.group"));

    ve.vzquota(["import-quota-file", Ve::ID, "-u", &users]).ok();
    ve.vzquota(["import-quota-file", Ve::ID, "-g", &groups])
        .ok();
    assert_eq!(limits(&ve, "users", 1001), [100 << 10, 200 << 10, 10, 20]);
    assert_eq!(limits(&ve, "users", 1002), [0, 50 << 10, 0, 0]);
    assert_eq!(limits(&ve, "groups", 1002), [30 << 10, 300 << 10, 3, 33]);
    let stat = ve.stat();
    for (kind, space, inodes) in [("users", 3600, 7200), ("groups", 60, 120)] {
        let periods = &stat["second_level"][kind]["grace_periods"];
        assert_eq!(
            (&periods["space"], &periods["inodes"]),
            (&space.into(), &inodes.into())
        );
    }
    let used = ve.charged().users;
    assert!(
        !used.contains_key(&1001),
        "what is used is the VE's: {used:?}"
    );

    put(ve.path("file"), 4096);
    std::os::unix::fs::chown(ve.path("file"), Some(1003), Some(1003)).unwrap();
    ve.setlimit2(&["-u", "1003", "7", "8", "9", "10"]);
    ve.setlimit2(&["-g", "1003", "0", "88", "0", "99"]);
    ve.vzquota(["export-quota-file", Ve::ID, "-u", &users]).ok();
    ve.vzquota(["export-quota-file", Ve::ID, "-g", &groups])
        .ok();
    for (kind, grace) in [
        ("-u", "Block grace time: 01:00; Inode grace time: 02:00"),
        ("-g", "Block grace time: 00:01; Inode grace time: 00:02"),
    ] {
        let shown = report(kind, &dir);
        assert!(shown.contains(grace), "{shown}");
    }
    for (kind, id, words) in [
        ("-u", 1003, "#1003 -- 4 7 8 1 9 10"),
        ("-u", 1001, "#1001 -- 0 100 200 0 10 20"),
        ("-g", 1003, "#1003 -- 4 0 88 1 0 99"),
        ("-g", 1002, "#1002 -- 0 30 300 0 3 33"),
    ] {
        assert_eq!(line(&report(kind, &dir), id), words, "{kind}");
    }

    // quotacheck(8) reads it too: limits stay, usage becomes the disk's.
    quotacheck(&dir, "-ugm");
    assert_eq!(
        line(&report("-u", &dir), 1001),
        "#1001 -- 8 100 200 1 10 20"
    );
    assert_eq!(line(&report("-g", &dir), 1002), "#1002 -- 8 30 300 1 3 33");
    run("umount", [at]).ok();
}
