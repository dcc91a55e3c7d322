//! A walk over a private area: every inode once, with what it occupies.
//!
//! [`scan`] adds them up for an area that nobody changes, [`scan_at_rest`] when it will stay so; [`walk`] calls back for
//! each, so that a check of a running VE can compare as it goes.
//!
//! Invariants:
//! 1. No recursion, and at most [`OPEN_MAX`] directories open at a time, however deep the tree; a directory that was
//!    closed on the way down is opened again by its handle (or from its child, and checked).
//! 2. An inode with several names is visited once. Nothing is followed: no link, no mount, no other filesystem.
//! 3. What vanishes under way is skipped. What is moved under way may be missed or, a directory or a file with one
//!    name, be seen twice: only an area at rest is counted exactly.
//!
//! Memory: one small record per level of depth, one number per inode with several names. No locks.

mod descent;
mod look;

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use quota::{Inodes, Sectors, Tally};

use crate::private::PrivateArea;
use crate::sys::file;
use crate::sys::handle::KernelHandle;
use crate::sys::stat::{self, FileKind, Stat};

use descent::Descent;

/// Directories that are open at a time.
pub const OPEN_MAX: usize = 64;

/// What was changed within this time may not be written out. The kernel begins after 30 seconds
/// (`vm.dirty_expire_centisecs`); a slow disk takes longer to end.
const WRITE_OUT: Duration = Duration::from_secs(300);

/// Inodes between two reports of progress.
const REPORT_EVERY: u64 = 1024;

/// Told how far a recount has come.
pub trait Progress {
    /// This many inodes were counted so far; called now and then, and at the end.
    fn inodes(&mut self, seen: Inodes);
}

impl Progress for () {
    fn inodes(&mut self, _seen: Inodes) {}
}

/// Why a walk came to no end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The backing filesystem failed.
    #[error(
        "cannot read below the directory with inode number {directory} of the private area: {source}"
    )]
    Io {
        /// Inode number of the directory.
        directory: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What was written there shortly before cannot be written out.
    #[error("cannot write out the file system of the private area: {0}")]
    Sync(io::Error),
    /// A directory was moved while the walk was below it, on a filesystem without file handles.
    #[error(
        "the directory with inode number {directory} was moved while the private area was counted: count again"
    )]
    Moved {
        /// Inode number of the directory.
        directory: u64,
    },
}

/// How much the walk finds out of each inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Attributes alone.
    Stat,
    /// Attributes and handle, of the same inode for certain.
    Handle,
}

/// Adds up what every inode of the area occupies, the root directory included.
///
/// # Errors
/// See [`ScanError`].
pub fn scan(area: &PrivateArea, progress: &mut dyn Progress) -> Result<Tally, ScanError> {
    sum(area, progress, &mut |_| ())
}

/// As [`scan`], with the blocks that the file system adds when it writes out what the area was filled with shortly before:
/// then it is written out first.
///
/// # Errors
/// See [`ScanError`].
///
/// # Source
/// Linux `fs/ext4/extents.c`: the blocks of a file's extent tree are allocated with its data.
pub fn scan_at_rest(area: &PrivateArea, progress: &mut dyn Progress) -> Result<Tally, ScanError> {
    let begin = SystemTime::now();
    let is_late = |stat: &Stat| {
        let age = begin.duration_since(stat.ctime.system_time());
        stat.kind() == FileKind::File
            && stat.blocks != Sectors::ZERO
            && !age.is_ok_and(|age| age >= WRITE_OUT)
    };
    let mut is_settled = true;
    let tally = sum(area, progress, &mut |stat| is_settled &= !is_late(stat))?;
    if is_settled {
        return Ok(tally);
    }
    let synced = area.open_for_sync().and_then(file::syncfs);
    synced.map_err(ScanError::Sync)?;
    scan(area, progress)
}

fn sum(
    area: &PrivateArea,
    progress: &mut dyn Progress,
    look: &mut dyn FnMut(&Stat),
) -> Result<Tally, ScanError> {
    let mut tally = Tally::default();
    let mut seen = 0u64;
    walk(area, Detail::Stat, |stat, _| {
        tally.add(stat.owner(), stat.usage());
        look(stat);
        seen += 1;
        if seen.is_multiple_of(REPORT_EVERY) {
            progress.inodes(Inodes::new(seen));
        }
        ControlFlow::Continue(())
    })?;
    progress.inodes(Inodes::new(seen));
    Ok(tally)
}

/// Calls back for every inode of the area, the root directory first, until that says to stop.
///
/// The handle is there with [`Detail::Handle`] on a filesystem that has any.
///
/// # Errors
/// See [`ScanError`].
pub fn walk(
    area: &PrivateArea,
    detail: Detail,
    mut visit: impl FnMut(&Stat, Option<&KernelHandle>) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    let failed = |source| ScanError::Io {
        directory: area.root_stat().ino,
        source,
    };
    let root = file::open_dir(area.root_fd()).map_err(failed)?;
    let stat = stat::stat_fd(&root).map_err(failed)?;
    let handle = if detail == Detail::Handle {
        area.root_handle().copied()
    } else {
        None
    };
    if visit(&stat, handle.as_ref()).is_break() {
        return Ok(());
    }
    Descent::new(area, detail, visit, (root, &stat)).run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private::AtimePolicy;
    use crate::sys::file::{mkdir_at, open_dir_path};
    use crate::sys::mount;
    use quota::{Subject, Uid, Usage};
    use rustix::mount::MountFlags;
    use std::collections::BTreeMap;
    use std::ffi::OsStr;
    use std::path::Path;

    /// A directory whose removal does not mind the depth.
    struct Tree(tempfile::TempDir);

    // S5: six blocks with holes between them need a block for the tree of their extents on ext4, once they have a place.
    #[test]
    fn what_was_just_written_is_counted_with_what_it_will_take() {
        use std::os::unix::fs::FileExt as _;
        let tree = Tree::new();
        let file = std::fs::File::create(tree.path().join("sparse")).unwrap();
        for block in 0..6 {
            file.write_all_at(&[1; 4096], block * 2 * 4096).unwrap();
        }
        let counted = scan_at_rest(&tree.area(), &mut ()).unwrap();
        file.sync_all().unwrap();
        assert_eq!(counted, scan(&tree.area(), &mut ()).unwrap());
    }

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir_in("/var/tmp").unwrap())
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        fn area(&self) -> PrivateArea {
            PrivateArea::open(self.path(), AtimePolicy::Noatime).unwrap()
        }

        /// What du(1) says: bytes and inodes.
        fn du(&self) -> Usage {
            let run = |what: &str| {
                let output = std::process::Command::new("du")
                    .args(["-sx", what])
                    .arg(self.path())
                    .output()
                    .unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                text.split_whitespace()
                    .next()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            };
            Usage::new(
                quota::Bytes::new(run("-B512") * 512),
                Inodes::new(run("--inodes")),
            )
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::process::Command::new("rm")
                .arg("-rf")
                .arg("--")
                .arg(self.path())
                .status();
        }
    }

    struct Last(u64);

    impl Progress for Last {
        fn inodes(&mut self, seen: Inodes) {
            self.0 = seen.get();
        }
    }

    #[test]
    fn every_kind_of_inode_is_counted_once_as_du_does() {
        let tree = Tree::new();
        let dir = open_dir_path(tree.path()).unwrap();
        std::fs::write(tree.path().join("file"), vec![1; 10_000]).unwrap();
        std::fs::hard_link(tree.path().join("file"), tree.path().join("again")).unwrap();
        std::fs::create_dir(tree.path().join("d")).unwrap();
        std::fs::hard_link(tree.path().join("file"), tree.path().join("d/third")).unwrap();
        std::os::unix::fs::symlink("/etc", tree.path().join("link")).unwrap();
        std::os::unix::fs::symlink("x".repeat(200), tree.path().join("long-link")).unwrap();
        file::mknod_at(&dir, OsStr::new("fifo"), libc::S_IFIFO, 0).unwrap();
        std::os::unix::fs::lchown(tree.path().join("link"), Some(5), Some(6)).unwrap();
        let mut last = Last(0);
        let tally = scan(&tree.area(), &mut last).unwrap();
        assert_eq!(tally.ve, tree.du());
        assert_eq!((tally.ve.inodes, last.0), (Inodes::new(6), 6));
        assert_eq!(tally.users[&Uid::new(5)], Usage::inode(quota::Bytes::ZERO));
        let rest = tally.users[&Uid::new(0)];
        assert_eq!(rest.inodes, Inodes::new(5));
        assert_eq!(tally.usage(Subject::Ve).space, rest.space);
    }

    /// A chain of directories, each with a file beside the next; more levels than descriptors.
    fn deep(tree: &Tree, levels: u64) {
        let mut dir = open_dir_path(tree.path()).unwrap();
        for level in 0..levels {
            mkdir_at(&dir, OsStr::new("d"), 0o700).unwrap();
            if level % 7 == 0 {
                file::create_at(&dir, OsStr::new("a"), libc::O_WRONLY, 0o600).unwrap();
                file::create_at(&dir, OsStr::new("z"), libc::O_WRONLY, 0o600).unwrap();
            }
            dir = file::open_at(&dir, OsStr::new("d"), libc::O_RDONLY).unwrap();
        }
    }

    fn open_descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn depth_costs_no_descriptors() {
        let tree = Tree::new();
        deep(&tree, 3000);
        let area = tree.area();
        let mut most = 0;
        let mut tally = Tally::default();
        walk(&area, Detail::Handle, |stat, handle| {
            tally.add(stat.owner(), stat.usage());
            if stat.ino % 16 == 0 {
                most = most.max(open_descriptors());
            }
            let opened = area.open_handle(handle.unwrap(), libc::O_PATH).unwrap();
            assert_eq!(stat::stat_fd(&opened).unwrap().ino, stat.ino);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(tally.ve, tree.du());
        assert_eq!(
            tally.ve.inodes,
            Inodes::new(1 + 3000 + 2 * 3000_u64.div_ceil(7))
        );
        // Other tests of this process hold some as well, but not one for each of 3000 levels.
        assert!(most < 1000, "{most} descriptors");
        assert_eq!(scan(&area, &mut ()).unwrap(), tally);
    }

    #[test]
    fn depth_without_handles_goes_back_by_the_parent() {
        // Removed after the thread, and with it its mounts, is gone.
        let place = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (lower, upper, work, merged) = (
                    place.path().join("lower"),
                    place.path().join("tmp/upper"),
                    place.path().join("tmp/work"),
                    place.path().join("merged"),
                );
                mount::unshare_mounts().unwrap();
                mount::make_private(Path::new("/")).unwrap();
                for dir in [&lower, &merged, &place.path().join("tmp")] {
                    std::fs::create_dir(dir).unwrap();
                }
                let no_flags = MountFlags::empty();
                mount::mount(
                    Path::new("none"),
                    &place.path().join("tmp"),
                    "tmpfs",
                    no_flags,
                    c"",
                )
                .unwrap();
                std::fs::create_dir(&upper).unwrap();
                std::fs::create_dir(&work).unwrap();
                let options = format!(
                    "lowerdir={},upperdir={},workdir={}",
                    lower.display(),
                    upper.display(),
                    work.display()
                );
                let options = std::ffi::CString::new(options).unwrap();
                mount::mount(Path::new("none"), &merged, "overlay", no_flags, &options).unwrap();
                let mut dir = open_dir_path(&merged).unwrap();
                for _ in 0..200 {
                    mkdir_at(&dir, OsStr::new("d"), 0o700).unwrap();
                    file::create_at(&dir, OsStr::new("z"), libc::O_WRONLY, 0o600).unwrap();
                    dir = file::open_at(&dir, OsStr::new("d"), libc::O_RDONLY).unwrap();
                }
                let area = PrivateArea::open(&merged, AtimePolicy::Inherited).unwrap();
                assert!(!area.has_handles(), "an overlay without nfs_export");
                assert_eq!(scan(&area, &mut ()).unwrap().ve.inodes, Inodes::new(401));
            });
        });
    }

    #[test]
    fn what_vanishes_or_moves_under_way_stops_nothing() {
        let tree = Tree::new();
        deep(&tree, 200);
        let area = tree.area();
        let mut seen = 0;
        walk(&area, Detail::Stat, |_, _| {
            seen += 1;
            if seen == 180 {
                std::fs::create_dir(tree.path().join("elsewhere")).unwrap();
                std::fs::rename(tree.path().join("d/d/d/d"), tree.path().join("elsewhere/d"))
                    .unwrap();
                std::fs::remove_file(tree.path().join("z"))
                    .or_else(|_| std::fs::remove_file(tree.path().join("a")))
                    .unwrap();
                std::fs::remove_dir_all(tree.path().join("d")).unwrap();
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(seen >= 200, "{seen}");
    }

    #[test]
    fn a_callback_can_stop_the_walk() {
        let tree = Tree::new();
        deep(&tree, 5);
        let mut seen = 0;
        walk(&tree.area(), Detail::Stat, |_, _| {
            seen += 1;
            if seen == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
        assert_eq!(seen, 3);
    }

    #[test]
    fn what_is_mounted_inside_is_not_entered() {
        let tree = Tree::new();
        let sub = tree.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        std::fs::write(sub.join("covered"), b"x").unwrap();
        let bound = tree.path().join("bound");
        std::fs::write(&bound, b"x").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                mount::unshare_mounts().unwrap();
                mount::make_private(Path::new("/")).unwrap();
                let area = tree.area();
                mount::mount(Path::new("none"), &sub, "tmpfs", MountFlags::empty(), c"").unwrap();
                rustix::mount::mount_bind("/etc/hostname", &bound).unwrap();
                std::fs::write(sub.join("other"), vec![0; 100_000]).unwrap();
                let names = |area: &PrivateArea| scan(area, &mut ()).unwrap().ve.inodes;
                assert_eq!(
                    names(&area),
                    Inodes::new(4),
                    "the clone sees what is covered"
                );
                let plain = || open_dir_path(tree.path()).unwrap();
                let area = PrivateArea::adopt(plain(), plain()).unwrap();
                assert_eq!(
                    names(&area),
                    Inodes::new(1),
                    "without a clone the mount points are skipped"
                );
            });
        });
    }

    #[test]
    fn accounts_add_up_to_the_whole() {
        let tree = Tree::new();
        for id in 0..40u32 {
            let path = tree.path().join(id.to_string());
            std::fs::write(&path, vec![1; 5000 * usize::try_from(id).unwrap()]).unwrap();
            std::os::unix::fs::lchown(&path, Some(id % 7), Some(id % 3)).unwrap();
        }
        let tally = scan(&tree.area(), &mut ()).unwrap();
        let sum = |usages: Vec<&Usage>| {
            usages
                .into_iter()
                .fold(Usage::ZERO, |sum, usage| sum.saturating_add(*usage))
        };
        let users: &BTreeMap<_, _> = &tally.users;
        assert_eq!((users.len(), tally.groups.len()), (7, 3));
        assert_eq!(sum(users.values().collect()), tally.ve);
        assert_eq!(sum(tally.groups.values().collect()), tally.ve);
        assert_eq!(tally.ve, tree.du());
    }
}
