//! Append-only and immutable files (chattr +a, +i).

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, IFlags, Mode, OFlags, RenameFlags, fallocate, ftruncate,
    ioctl_getflags, ioctl_setflags,
};
use rustix::io::{Errno, pread, pwrite};

use crate::harness::compare::Pair;
use crate::harness::files::{open, put, rename, write_at};
use crate::harness::user::{ALICE, ROOT};
use crate::harness::{KIB, Spec, Ve, crash};
use crate::takeover::kill_and_wait;

/// Sets a limit.
type Limit = fn(&Ve);

const FLAGS: [IFlags; 2] = [IFlags::APPEND, IFlags::IMMUTABLE];

/// Leaves a file with this of the two flags.
fn flag(path: &Path, flag: IFlags) -> rustix::io::Result<()> {
    let file = open(path, OFlags::RDONLY)?;
    let present = ioctl_getflags(&file)?;
    ioctl_setflags(&file, present.difference(FLAGS[0] | FLAGS[1]) | flag)
}

/// Takes the flags away at the end, so that the files can be removed.
struct Unflag(Vec<PathBuf>);

impl Unflag {
    fn at_the_end(ve: &Ve) -> Self {
        let names = ["file", "plain/file"];
        Self([ve.private().join(names[0]), ve.beside(names[1])].into())
    }
}

impl Drop for Unflag {
    fn drop(&mut self) {
        for path in &self.0 {
            let _not_all_are_there = flag(path, IFlags::empty());
        }
    }
}

fn append(file: &OwnedFd, data: &[u8]) -> rustix::io::Result<usize> {
    rustix::io::write(file, data)
}

/// Every way to change a file, and what became of it.
fn try_everything(root: &Path) -> (Vec<rustix::io::Result<usize>>, Vec<u8>) {
    let (path, other) = (root.join("file"), root.join("other"));
    let opened = |flags| open(&path, flags).map(|_| 0);
    let done = |result: rustix::io::Result<()>| result.map(|()| 0);
    let mut answers = vec![
        opened(OFlags::WRONLY),
        opened(OFlags::RDWR),
        opened(OFlags::WRONLY | OFlags::APPEND),
        opened(OFlags::RDWR | OFlags::APPEND),
        opened(OFlags::WRONLY | OFlags::APPEND | OFlags::TRUNC),
        opened(OFlags::RDONLY | OFlags::TRUNC),
        done(rustix::fs::unlink(&path)),
        done(rename(&path, &other, RenameFlags::empty())),
        done(rename(&other, &path, RenameFlags::empty())),
        done(rustix::fs::link(&path, root.join("name"))),
        done(rustix::fs::chmodat(
            CWD,
            &path,
            Mode::from_raw_mode(0o600),
            AtFlags::empty(),
        )),
    ];
    for access in [OFlags::WRONLY, OFlags::RDWR] {
        let Ok(file) = open(&path, access | OFlags::APPEND) else {
            continue;
        };
        answers.extend([
            append(&file, b"one "),
            append(&file, &[b'x'; 9000]),
            append(&file, b""),
            done(ftruncate(&file, 3)),
            done(fallocate(&file, FallocateFlags::empty(), 20_000, 5000)),
            append(&file, b"behind"),
            done(fallocate(
                &file,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                0,
                4096,
            )),
        ]);
    }
    (answers, std::fs::read(&path).unwrap())
}

// S30, S81
#[test]
fn flags_forbid_what_they_forbid_below() {
    for options in ["passthrough=auto", "passthrough=off"] {
        let Some(pair) = Pair::new(Spec::default().options(options)) else {
            return;
        };
        let _unflag = Unflag::at_the_end(&pair.ve);
        for kind in FLAGS {
            pair.same(ROOT, "make", |root| {
                let _only_the_second_time = flag(&root.join("file"), IFlags::empty());
                let _only_the_second_time = rustix::fs::unlink(root.join("file"));
                put(root.join("file"), 10);
                put(root.join("other"), 10);
                let all = Mode::from_raw_mode(0o666);
                rustix::fs::chmodat(CWD, root.join("file"), all, AtFlags::empty()).unwrap();
                flag(&root.join("file"), kind)
            });
            for user in [ROOT, ALICE] {
                pair.same(user, &format!("{kind:?} {options}"), try_everything);
            }
            pair.same(ROOT, "clean", |root| rustix::fs::unlink(root.join("other")));
        }
        pair.ve.assert_exact();
    }
}

// S30, S32, S81: set-id bits cannot be taken away from such a file, so an unprivileged write is refused (ext4's `setattr`).
#[test]
fn set_id_bits_of_an_append_only_file_are_as_below() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    let _unflag = Unflag::at_the_end(&pair.ve);
    for mode in [0o4666, 0o2676, 0o6777, 0o2666, 0o666] {
        pair.same(ROOT, "make", |root| {
            let path = root.join("file");
            let _only_the_second_time = flag(&path, IFlags::empty());
            let _only_the_second_time = rustix::fs::unlink(&path);
            put(&path, 10);
            rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(mode), AtFlags::empty()).unwrap();
            flag(&path, IFlags::APPEND)
        });
        for user in [ALICE, ROOT] {
            pair.same(user, &format!("{mode:o}"), |root| {
                let path = root.join("file");
                let file = open(&path, OFlags::WRONLY | OFlags::APPEND)?;
                let written = append(&file, b"more");
                let allocated = fallocate(&file, FallocateFlags::empty(), 0, 5000);
                let found = std::fs::metadata(path).unwrap();
                Ok::<_, Errno>((written, allocated, found.mode(), found.len()))
            });
        }
    }
}

// S8, S25, S81: the part that fits is appended, at either level, and nothing behind it.
#[test]
fn an_append_near_a_limit_is_short() {
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    let _unflag = Unflag::at_the_end(&ve);
    let limits: [(&str, Limit); 2] = [
        ("user", |ve| {
            ve.setlimit2(&["-u", "1001", "0", "300K", "0", "0"])
        }),
        ("VE", |ve| {
            ve.setlimit2(&["-u", "1001", "0", "0", "0", "0"]);
            ve.setlimit(&["-b", "500K", "-B", "500K"]);
        }),
    ];
    put(ve.path("file"), 10);
    rustix::fs::chown(
        ve.path("file"),
        Some(rustix::fs::Uid::from_raw(ALICE.uid)),
        None,
    )
    .unwrap();
    flag(&ve.path("file"), IFlags::APPEND).unwrap();
    let mut length = 10;
    for (level, limit) in limits {
        limit(&ve);
        length += ALICE.run(|| {
            let file = open(ve.path("file"), OFlags::WRONLY | OFlags::APPEND).unwrap();
            let mut written = 0;
            loop {
                match append(&file, &[7; 70_001]) {
                    Ok(more) => written += more,
                    Err(error) => {
                        assert_eq!(error, Errno::DQUOT, "{level}");
                        return written;
                    }
                }
            }
        });
        assert_eq!(length % 4096, 0, "{level}: a part ends at a block edge");
        assert_eq!(
            std::fs::metadata(ve.path("file")).unwrap().len(),
            length as u64
        );
        ve.assert_exact();
    }
}

// S73, S81: appended once, whoever dies meanwhile.
#[test]
fn an_append_is_done_once_over_a_death() {
    for options in ["passthrough=auto", "passthrough=off"] {
        let Some(ve) = Spec::default().options(options).mount() else {
            return;
        };
        let _unflag = Unflag::at_the_end(&ve);
        let (_, keeper) = crash::pids(&ve);
        put(ve.path("file"), 0);
        flag(&ve.path("file"), IFlags::APPEND).unwrap();
        let record = |number: u32| number.to_le_bytes().repeat(5000);
        let is_over = AtomicBool::new(false);
        let count = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let file = open(ve.path("file"), OFlags::WRONLY | OFlags::APPEND).unwrap();
                let mut count = 0;
                while !is_over.load(Ordering::Relaxed) && count < 5000 {
                    assert_eq!(append(&file, &record(count)), Ok(20_000));
                    count += 1;
                }
                count
            });
            for _ in 0..6 {
                kill_and_wait(keeper);
            }
            is_over.store(true, Ordering::Relaxed);
            writer.join().expect("the writer")
        });
        let content = std::fs::read(ve.path("file")).unwrap();
        assert_eq!(content.len(), 20_000 * count as usize);
        for (number, found) in (0..).zip(content.chunks(20_000)) {
            assert!(found == record(number), "record {number} of {count}");
        }
        ve.assert_exact();
    }
}

// S73, S81: what was open before a flag was set goes on as before, with a successor too.
#[test]
fn a_flag_stops_nobody_who_has_the_file_open() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let _unflag = Unflag::at_the_end(&ve);
    let (_, keeper) = crash::pids(&ve);
    for kind in FLAGS {
        let file = open(ve.path("file"), OFlags::RDWR | OFlags::CREATE).unwrap();
        assert_eq!(write_at(&file, 0, &[7; 10_000]).1, None);
        flag(&ve.path("file"), kind).unwrap();
        let before = pwrite(&file, &[7; 100], 0);
        for _ in 0..2 {
            kill_and_wait(keeper);
            assert_eq!(pwrite(&file, &[7; 100], 0), before, "{kind:?}");
            let mut content = vec![0; 10_000];
            assert_eq!(pread(&file, &mut content[..], 0), Ok(10_000));
            assert!(content.iter().all(|byte| *byte == 7));
        }
        drop(file);
        flag(&ve.path("file"), IFlags::empty()).unwrap();
        rustix::fs::unlink(ve.path("file")).unwrap();
    }
    assert!(ve.used().space < 64 * KIB);
}
