//! Grace periods of the first level, with periods of a second or two. Nothing here asserts speed.

use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::harness::files::{create, fill, open, write_at};
use crate::harness::{KIB, Kind, MIB, Spec, Ve};

const EDQUOT: Option<Errno> = Some(Errno::DQUOT);

fn deadline(ve: &Ve, resource: &str) -> Option<u64> {
    ve.stat()["deadlines"][resource].as_u64()
}

/// Sleeps until a deadline of the VE has come.
fn outlast(ve: &Ve, resource: &str) {
    let deadline = deadline(ve, resource).expect("a running grace period");
    let now = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs()
    };
    while now() <= deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// 1 MiB soft, 4 MiB hard, in memory, where nothing is promised for late blocks; 3 and 10 inodes.
fn limited(grace: u32) -> Option<Ve> {
    let spec = Spec::default().backing(Kind::Tmpfs { mib: 64 });
    spec.space(1024, 4096)
        .inodes(3, 10)
        .grace(grace, grace)
        .mount()
}

// S9: reaching is not passing; passing starts the clock; the deadline makes soft hard.
#[test]
fn the_soft_limit_becomes_hard() {
    let Some(ve) = limited(2) else { return };
    let file = create(ve.path("file")).unwrap();
    assert_eq!(fill(&file, MIB).1, None);
    assert_eq!(deadline(&ve, "space"), None, "reached, not passed");
    assert_eq!(write_at(&file, MIB, b"x").1, None);
    assert!(deadline(&ve, "space").is_some());
    outlast(&ve, "space");
    assert_eq!(write_at(&file, MIB + 4096, b"x"), (0, EDQUOT));
    assert_eq!(write_at(&file, 0, b"overwriting goes on").1, None);
    // S10: back to the soft limit.
    rustix::fs::ftruncate(&file, MIB).unwrap();
    ve.assert_exact();
    assert_eq!(deadline(&ve, "space"), None);
    assert_eq!(write_at(&file, MIB, b"x").1, None);
}

// S12: inodes have a clock of their own.
#[test]
fn inodes_have_their_own_grace() {
    let Some(ve) = limited(1) else { return };
    for n in 0..3 {
        create(ve.path(n.to_string())).unwrap();
    }
    assert!(deadline(&ve, "inodes").is_some());
    assert_eq!(deadline(&ve, "space"), None);
    outlast(&ve, "inodes");
    assert_eq!(create(ve.path("next")).map(drop), Err(Errno::DQUOT));
    std::fs::remove_file(ve.path("0")).unwrap();
    assert_eq!(deadline(&ve, "inodes"), None);
}

// S11: one request passes with a grace period of 0.
#[test]
fn no_grace_at_all() {
    let Some(ve) = limited(0) else { return };
    let file = create(ve.path("file")).unwrap();
    assert_eq!(fill(&file, MIB).1, None);
    assert_eq!(rustix::io::pwrite(&file, &[1; 8192], MIB), Ok(8192));
    assert_eq!(write_at(&file, 2 * MIB, b"x"), (0, EDQUOT));
}

// S17: deadlines follow the limits.
#[test]
fn deadlines_follow_changed_limits() {
    let Some(ve) = limited(1) else { return };
    let file = create(ve.path("file")).unwrap();
    assert_eq!(fill(&file, MIB + 4096).1, None);
    outlast(&ve, "space");
    assert_eq!(write_at(&file, 2 * MIB, b"x"), (0, EDQUOT));
    ve.setlimit(&["-b", "2M"]);
    assert_eq!(deadline(&ve, "space"), None, "raised above usage");
    assert_eq!(write_at(&file, 2 * MIB, b"x").1, None);
    ve.setlimit(&["-b", "100"]);
    assert!(deadline(&ve, "space").is_some(), "lowered below usage");
    ve.setlimit(&["-b", "unlimited"]);
    assert_eq!(deadline(&ve, "space"), None, "taken away");
}

// S41: a deadline is the same after a remount, and comes although nothing was mounted.
#[test]
fn deadlines_survive_a_remount() {
    let Some(ve) = limited(2) else { return };
    let file = create(ve.path("file")).unwrap();
    assert_eq!(fill(&file, MIB + 4096).1, None);
    drop(file);
    ve.assert_exact();
    let before = deadline(&ve, "space");
    ve.remount();
    assert_eq!(deadline(&ve, "space"), before);
    outlast(&ve, "space");
    let file = open(ve.path("file"), OFlags::WRONLY).unwrap();
    assert_eq!(write_at(&file, MIB + 64 * KIB, b"x"), (0, EDQUOT));
}

/// Lines of the daemon's log that hold all these words.
fn logged(ve: &Ve, words: &[&str]) -> usize {
    let path = ve.prefix().join("run/simfs").join(Ve::ID).join("log");
    let text = std::fs::read_to_string(path)
        .expect("the daemon's log")
        .to_lowercase();
    text.lines()
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .count()
}

// S19: each crossing is in the log once, however many requests are refused.
#[test]
fn crossings_are_logged_once() {
    let Some(ve) = limited(600) else { return };
    let file = create(ve.path("file")).unwrap();
    assert_eq!(fill(&file, MIB + 4096).1, None);
    assert_eq!(write_at(&file, 2 * MIB, b"x").1, None);
    assert_eq!(logged(&ve, &["soft limit exceeded", "101", "space"]), 1);
    for n in 0..5 {
        assert_eq!(
            write_at(&file, 8 * MIB, &vec![1; 8 << 20]).1,
            EDQUOT,
            "round {n}"
        );
    }
    assert_eq!(logged(&ve, &["hard limit reached", "101", "space"]), 1);
}
