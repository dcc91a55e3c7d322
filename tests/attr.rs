//! Attributes: modes, owners, times, and what changes them by itself.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, IFlags, Mode, OFlags, Statx, StatxFlags, Timespec, Timestamps, UTIME_NOW,
    UTIME_OMIT, utimensat,
};

use crate::harness::Spec;
use crate::harness::compare::Pair;
use crate::harness::files::{create, open, put, rename, stat, write_at};
use crate::harness::tree::describe;
use crate::harness::user::{ALICE, BOB, ROOT};

/// Something done to a path.
type Change<T> = fn(&Path) -> T;

fn chmod(path: &Path, mode: u32) -> rustix::io::Result<()> {
    rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())
}

fn chown(path: &Path, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
    let (uid, gid) = (
        uid.map(rustix::fs::Uid::from_raw),
        gid.map(rustix::fs::Gid::from_raw),
    );
    rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

/// What the kernel says when asked for nothing else: it may answer with what it keeps.
fn alone(path: &Path, what: StatxFlags) -> Statx {
    rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, what).unwrap()
}

#[test]
fn only_the_owner_changes_modes_and_owners() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ALICE, "make", |root| put(root.join("file"), 10));
    for (n, user) in [BOB, ALICE, ROOT].into_iter().enumerate() {
        pair.same(user, "change", |root| {
            let path = root.join("file");
            let answers = (
                chmod(&path, 0o6755),
                chown(&path, None, Some(2000)),
                chown(&path, None, Some(2001)),
                chown(&path, Some(1002 + n as u32), None),
                chown(&path, Some(user.uid), Some(user.gid)),
            );
            (answers, describe(&path))
        });
    }
}

/// Set-id bits do not outlive a change of content or owner by somebody unprivileged.
// S32
#[test]
fn set_id_bits_are_dropped() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    let changes: [(&str, Change<bool>); 4] = [
        ("write", |path| {
            let file = open(path, OFlags::WRONLY).unwrap();
            write_at(&file, 0, b"x").1.is_none()
        }),
        ("truncate", |path| {
            let file = open(path, OFlags::WRONLY).unwrap();
            rustix::fs::ftruncate(&file, 3).is_ok()
        }),
        ("open with O_TRUNC", |path| {
            open(path, OFlags::WRONLY | OFlags::TRUNC).is_ok()
        }),
        ("allocate", |path| {
            let file = open(path, OFlags::WRONLY).unwrap();
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 8192).is_ok()
        }),
    ];
    for (name, change) in changes {
        for user in [ALICE, ROOT] {
            for mode in [0o6777, 0o2767, 0o4777] {
                let file = format!("{name}-{}-{mode:o}", user.uid);
                pair.same(ROOT, "make", |root| {
                    put(root.join(&file), 10);
                    chown(&root.join(&file), Some(1002), Some(1002)).unwrap();
                    chmod(&root.join(&file), mode).unwrap();
                });
                pair.same(user, &file, |root| {
                    let path = root.join(&file);
                    let changed = change(&path);
                    (
                        changed,
                        alone(&path, StatxFlags::MODE).stx_mode,
                        describe(&path),
                    )
                });
            }
        }
    }
}

// S30
#[test]
fn a_change_of_inode_flags_moves_the_time_of_change() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let path = ve.path("file");
    put(&path, 10);
    let changed = || {
        let time = alone(&path, StatxFlags::CTIME).stx_ctime;
        (time.tv_sec, time.tv_nsec)
    };
    let before = changed();
    sleep(Duration::from_millis(20));
    let file = open(&path, OFlags::RDONLY).unwrap();
    rustix::fs::ioctl_setflags(&file, IFlags::NODUMP).unwrap();
    assert!(changed() > before);
}

#[test]
fn times_are_kept_exactly() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let rows = [
        (time(1, 999_999_999), time(1_700_000_000, 123_456_789)),
        (time(-5, 1), time(-1_000_000_000, 5)),
        (time(0, UTIME_OMIT), time(77, 7)),
        (time(4_294_967_296, 0), time(0, UTIME_OMIT)),
    ];
    pair.same(ROOT, "make", |root| put(root.join("file"), 10));
    for (atime, mtime) in rows {
        let times = Timestamps {
            last_access: atime,
            last_modification: mtime,
        };
        pair.same(ROOT, &format!("{times:?}"), |root| {
            let path = root.join("file");
            utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            let stat = stat(&path).unwrap();
            (
                stat.st_atime,
                stat.st_atime_nsec,
                stat.st_mtime,
                stat.st_mtime_nsec,
            )
        });
    }
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let both = Timestamps {
        last_access: now,
        last_modification: now,
    };
    pair.same(BOB, "now by another", |root| {
        utimensat(CWD, root.join("file"), &both, AtFlags::empty())
    });
}

/// Which times an operation moves, for the file and its directory.
#[test]
fn operations_move_the_same_times() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    let changes: [(&str, Change<()>); 7] = [
        ("write", |dir| {
            write_at(&open(dir.join("file"), OFlags::WRONLY).unwrap(), 0, b"abc");
        }),
        ("truncate", |dir| {
            rustix::fs::ftruncate(open(dir.join("file"), OFlags::WRONLY).unwrap(), 2).unwrap();
        }),
        ("chmod", |dir| chmod(&dir.join("file"), 0o600).unwrap()),
        ("chown", |dir| {
            chown(&dir.join("file"), Some(5), None).unwrap()
        }),
        ("link", |dir| {
            std::fs::hard_link(dir.join("file"), dir.join("second")).unwrap()
        }),
        ("rename", |dir| {
            rename(
                dir.join("second"),
                dir.join("third"),
                rustix::fs::RenameFlags::empty(),
            )
            .unwrap();
        }),
        ("unlink", |dir| {
            std::fs::remove_file(dir.join("third")).unwrap()
        }),
    ];
    pair.same(ROOT, "make", |root| put(root.join("file"), 10));
    for (name, change) in changes {
        pair.same(ROOT, name, |root| {
            let times = |path: &Path| {
                let s = stat(path).unwrap();
                [(s.st_mtime, s.st_mtime_nsec), (s.st_ctime, s.st_ctime_nsec)]
            };
            let before = [times(root), times(&root.join("file"))];
            sleep(Duration::from_millis(15));
            change(root);
            let after = [times(root), times(&root.join("file"))];
            [0, 1].map(|who| [0, 1].map(|which| before[who][which] != after[who][which]))
        });
    }
}

#[test]
fn the_umask_applies() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    for mask in ["000", "027", "077"] {
        pair.same(ROOT, mask, |root| {
            let script = format!("umask {mask}; : > f{mask}; mkdir d{mask}; mkfifo p{mask}");
            let mut shell = std::process::Command::new("sh");
            assert!(
                shell
                    .args(["-c", &script])
                    .current_dir(root)
                    .status()
                    .unwrap()
                    .success()
            );
            ["f", "d", "p"].map(|kind| describe(&root.join(format!("{kind}{mask}"))))
        });
    }
}

#[test]
fn permissions_are_checked() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ALICE, "make", |root| {
        crate::harness::files::mkdir(root.join("closed")).unwrap();
        put(root.join("closed/file"), 1);
        chmod(&root.join("closed"), 0o700).unwrap();
        put(root.join("secret"), 1);
        chmod(&root.join("secret"), 0o600).unwrap();
    });
    for user in [BOB, ALICE, ROOT] {
        pair.same(user, "look", |root| {
            (
                stat(root.join("closed/file")).map(|s| s.st_mode),
                open(root.join("secret"), OFlags::RDONLY).map(drop),
                create(root.join("closed/new")).map(drop),
                std::fs::read_dir(root.join("closed"))
                    .map(Iterator::count)
                    .map_err(|e| e.kind()),
            )
        });
    }
}
