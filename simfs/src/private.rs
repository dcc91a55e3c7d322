//! The private area: the directory with a VE's files, reached by descriptors only.
//!
//! Invariants:
//! 1. One [`PrivateArea`] per directory and host: an exclusive flock(2) on the directory says so, and lasts as long as a
//!    descriptor of it does, here or in the keeper.
//! 2. No path is resolved after [`PrivateArea::open`]. Everything starts at [`PrivateArea::root_fd`], a detached clone of
//!    the mount whose root is the directory: `..` ends there, and what the host mounts below later is not seen.
//! 3. One filesystem: an inode with another `st_dev`, or on another mount, is never entered or served (`EXDEV`).
//! 4. A [`KernelHandle`] can name any inode of the backing filesystem, also outside of the area. So handles come from
//!    [`PrivateArea::identify`] and from our own records, and are never taken from a guest.
//!
//! No locks.

mod backing;
mod submount;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quota::HostSpace;

pub use crate::sys::mount::AtimePolicy;
pub use backing::Backing;
pub use submount::refuse_submounts;

use crate::sys::handle::KernelHandle;
use crate::sys::stat::{self, Stat};
use crate::sys::{file, lock, mount};

/// How long a possessor may take to end. A mount that was taken away commits and lets go in a fraction of that.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often an inode is asked for whose number is just being given to another one, and the pause between. Linux has no inode
/// to show then, and Ext4 says that there is no memory.
///
/// # Source
/// Linux `fs/inode.c`, `find_inode_fast` (`I_CREATING`); `fs/ext4/inode.c`, `__ext4_iget`.
const REUSE_TRIES: u32 = 50;
const REUSE_PAUSE: Duration = Duration::from_micros(200);

/// Why a directory cannot serve as a private area.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateError {
    /// There is nothing at this path.
    #[error("{}: no such directory: create it, or give another private area", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{}: not a directory: give the directory with the VE's files", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Another mount or a recount holds it.
    #[error("{}: in use: the VE is mounted, or a recount is running", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Its filesystem cannot hold a VE.
    #[error("{}: a private area cannot be on {filesystem}: use ext4, xfs, btrfs or tmpfs", path.display())]
    Unsupported {
        /// The path.
        path: PathBuf,
        /// The filesystem.
        filesystem: &'static str,
    },
    /// It spans several filesystems.
    #[error(
        "{}: {} is mounted inside: unmount it, since only one filesystem can be accounted",
        path.display(),
        submount.display()
    )]
    Submount {
        /// The path.
        path: PathBuf,
        /// The first mount point below it.
        submount: PathBuf,
    },
    /// The kernel refused something.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A private area in our possession.
#[derive(Debug)]
pub struct PrivateArea {
    root: OwnedFd,
    /// The same directory, open for reading: what open_by_handle_at(2) wants.
    readable: OwnedFd,
    lock: OwnedFd,
    stat: Stat,
    backing: Backing,
    root_handle: Option<KernelHandle>,
    is_detached: bool,
}

impl PrivateArea {
    /// Takes possession of a directory. A possessor that is about to end, such as the daemon of a mount that was taken
    /// away just now, is waited for.
    ///
    /// The access-time policy concerns this view alone, not the host's mount. Where the kernel makes no detached
    /// clone of the mount, the directory itself is used, with the host's policy: see [`Self::is_detached`].
    ///
    /// # Errors
    /// See [`PrivateError`]; nothing is held then.
    pub fn open(path: &Path, atime: AtimePolicy) -> Result<Self, PrivateError> {
        let failed = |action| {
            move |source| PrivateError::Io {
                path: path.into(),
                action,
                source,
            }
        };
        let directory = open_directory(path)?;
        let magic = mount::statfs(&directory)
            .map_err(failed("look at its filesystem"))?
            .magic;
        if let Some(filesystem) = backing::unsupported(magic) {
            return Err(PrivateError::Unsupported {
                path: path.into(),
                filesystem,
            });
        }
        let locked = lock::lock_exclusive_within(&directory, PATIENCE);
        if !locked.map_err(failed("lock it"))? {
            return Err(PrivateError::InUse { path: path.into() });
        }
        refuse_submounts(path)?;
        let root = match detach(&directory, atime) {
            Ok(root) => Some(root),
            Err(error) => {
                let shown = path.display();
                tracing::warn!(path = %shown, %error, "no detached clone: access times follow the host's mount");
                None
            }
        };
        let root = match root {
            Some(root) => root,
            None => file::reopen(&directory, libc::O_PATH).map_err(failed("open it"))?,
        };
        Self::adopt(root, directory).map_err(failed("look at it"))
    }

    /// Takes over an area from its two descriptors, as [`Self::root_fd`] and [`Self::lock_fd`] gave them out, in this
    /// process or another.
    ///
    /// # Errors
    /// The kernel's.
    pub fn adopt(root: OwnedFd, lock: OwnedFd) -> io::Result<Self> {
        let readable = file::open_dir(&root)?;
        let stat = stat::stat_fd(&root)?;
        let outside = stat::stat_fd(&lock)?;
        let backing = Backing::from_magic(mount::statfs(&root)?.magic);
        // A handle is of use only if it can also be opened.
        let root_handle = KernelHandle::of_fd(&root)
            .ok()
            .filter(|handle| handle.open(&readable, libc::O_PATH).is_ok());
        let is_detached = stat.mount != outside.mount;
        Ok(Self {
            root,
            readable,
            lock,
            stat,
            backing,
            root_handle,
            is_detached,
        })
    }

    /// The directory, as an O_PATH descriptor: where every way begins.
    pub fn root_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The descriptor that holds the lock: the area is ours as long as somebody keeps it.
    pub fn lock_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// What the directory looked like when it was opened.
    pub fn root_stat(&self) -> &Stat {
        &self.stat
    }

    /// The directory's handle, where there are any.
    pub fn root_handle(&self) -> Option<&KernelHandle> {
        self.root_handle.as_ref()
    }

    /// The filesystem underneath.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// Whether inodes can be opened by [`KernelHandle`] here.
    pub fn has_handles(&self) -> bool {
        self.root_handle.is_some()
    }

    /// Whether this is a view of its own: access-time policy in force, later mounts of the host not seen. If not, such
    /// mounts are still not entered.
    pub fn is_detached(&self) -> bool {
        self.is_detached
    }

    /// Opens an inode of the area; `flags` as in open(2).
    ///
    /// # Errors
    /// `ESTALE` where the inode is gone, `EOPNOTSUPP` where there are no handles, others from the kernel.
    pub fn open_handle(&self, handle: &KernelHandle, flags: i32) -> io::Result<OwnedFd> {
        if self.root_handle.is_none() {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let mut tries = 0;
        loop {
            match handle.open(&self.readable, flags) {
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && tries < REUSE_TRIES => {
                    tries += 1;
                    std::thread::sleep(REUSE_PAUSE);
                }
                opened => return opened,
            }
        }
    }

    /// The handle of an inode of the area; `None` where there are no handles.
    ///
    /// # Errors
    /// The kernel's.
    pub fn identify(&self, fd: impl AsFd) -> io::Result<Option<KernelHandle>> {
        self.root_handle
            .map(|_| KernelHandle::of_fd(fd))
            .transpose()
    }

    /// Refuses an inode that is not on the area's filesystem and mount (invariant 3).
    ///
    /// # Errors
    /// `EXDEV`.
    pub fn refuse_foreign(&self, stat: &Stat) -> io::Result<()> {
        // Files on an overlay may show the device of their layer.
        let is_other_device = stat.dev != self.stat.dev && self.backing != Backing::Overlay;
        if is_other_device || stat.mount != self.stat.mount {
            return Err(io::Error::from_raw_os_error(libc::EXDEV));
        }
        Ok(())
    }

    /// A descriptor by which the filesystem can be synced. syncfs(2) on it tells of every failed write-out since it was made,
    /// so it is to be kept.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_for_sync(&self) -> io::Result<OwnedFd> {
        file::reopen(&self.root, libc::O_RDONLY | libc::O_DIRECTORY)
    }

    /// The real space of the filesystem.
    ///
    /// # Errors
    /// The kernel's.
    pub fn statfs(&self) -> io::Result<HostSpace> {
        let host = mount::statfs(&self.root)?;
        Ok(HostSpace {
            block_size: host.block_size,
            total: host.total,
            free: host.free,
            available: host.available,
            files: host.files,
            files_free: host.files_free,
            name_max: host.name_max,
        })
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, PrivateError> {
    file::open_dir_path(path).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOENT) => PrivateError::Missing { path: path.into() },
        Some(libc::ENOTDIR) => PrivateError::NotADirectory { path: path.into() },
        _ => PrivateError::Io {
            path: path.into(),
            action: "open it",
            source,
        },
    })
}

fn detach(directory: &OwnedFd, atime: AtimePolicy) -> io::Result<OwnedFd> {
    let root = mount::clone_detached(directory)?;
    mount::set_private(&root, atime)?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::{open_at, open_path_at, unlink_at};
    use rustix::mount::MountFlags;
    use std::ffi::OsStr;

    fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
        result.unwrap_err().raw_os_error()
    }

    #[test]
    fn what_is_not_a_usable_directory_is_refused_by_name() {
        let area = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = area.path().join("f");
        std::fs::write(&file, b"").unwrap();
        let open = |path: &Path| PrivateArea::open(path, AtimePolicy::Inherited).unwrap_err();
        assert!(matches!(open(&file), PrivateError::NotADirectory { .. }));
        assert!(matches!(
            open(&area.path().join("none")),
            PrivateError::Missing { .. }
        ));
        let refused = open(Path::new("/proc/self"));
        assert!(
            matches!(
                refused,
                PrivateError::Unsupported {
                    filesystem: "proc",
                    ..
                }
            ),
            "{refused}"
        );
    }

    #[test]
    fn one_possessor_at_a_time_until_the_last_descriptor_is_gone() {
        let area = tempfile::tempdir_in("/var/tmp").unwrap();
        let first = PrivateArea::open(area.path(), AtimePolicy::Inherited).unwrap();
        let second = PrivateArea::open(area.path(), AtimePolicy::Inherited);
        assert!(matches!(second, Err(PrivateError::InUse { .. })));
        let root = first.root_fd().try_clone_to_owned().unwrap();
        let lock = first.lock_fd().try_clone_to_owned().unwrap();
        let (dev, ino) = (first.root_stat().dev, first.root_stat().ino);
        drop(first);
        let adopted = PrivateArea::adopt(root, lock).unwrap();
        assert_eq!(
            (adopted.root_stat().dev, adopted.root_stat().ino),
            (dev, ino)
        );
        assert!(adopted.is_detached() && adopted.has_handles());
        let third = PrivateArea::open(area.path(), AtimePolicy::Inherited);
        assert!(matches!(third, Err(PrivateError::InUse { .. })));
        drop(adopted);
        assert!(PrivateArea::open(area.path(), AtimePolicy::Inherited).is_ok());
    }

    #[test]
    fn an_inode_is_reached_by_its_handle_and_never_outside() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(dir.path().join("f"), b"abc").unwrap();
        let area = PrivateArea::open(dir.path(), AtimePolicy::Noatime).unwrap();
        assert_eq!(area.backing(), Backing::Ext4);
        let fd = open_path_at(area.root_fd(), OsStr::new("f")).unwrap();
        let handle = area.identify(&fd).unwrap().unwrap();
        let again = area.open_handle(&handle, libc::O_RDWR).unwrap();
        let seen = stat::stat_fd(&again).unwrap();
        assert_eq!(seen, stat::stat_fd(&fd).unwrap(), "same inode, same mount");
        area.refuse_foreign(&seen).unwrap();
        for name in ["..", "/etc"] {
            assert_eq!(
                errno(open_at(area.root_fd(), OsStr::new(name), 0)),
                Some(libc::EINVAL)
            );
        }
        drop((fd, again));
        unlink_at(area.root_fd(), OsStr::new("f"), false).unwrap();
        assert_eq!(
            errno(area.open_handle(&handle, libc::O_PATH)),
            Some(libc::ESTALE)
        );
    }

    #[test]
    fn the_access_time_policy_is_the_views_own() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(dir.path().join("f"), b"abc").unwrap();
        for (policy, moves) in [
            (AtimePolicy::Noatime, false),
            (AtimePolicy::Strictatime, true),
        ] {
            let area = PrivateArea::open(dir.path(), policy).unwrap();
            let fd = open_at(area.root_fd(), OsStr::new("f"), libc::O_RDONLY).unwrap();
            let old = file::SetTime::At(stat::FileTime {
                seconds: 1,
                nanoseconds: 0,
            });
            file::set_times(&fd, Some(old), None).unwrap();
            file::read_full(&fd, &mut [0; 3], 0).unwrap();
            let atime = stat::stat_fd(&fd).unwrap().atime.seconds;
            assert_eq!(atime > 1, moves, "{policy:?}");
        }
    }

    #[test]
    fn what_is_mounted_inside_is_refused_or_not_seen() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let sub = dir.path().join("a b");
        std::fs::create_dir(&sub).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                mount::unshare_mounts().unwrap();
                mount::make_private(Path::new("/")).unwrap();
                let earlier = PrivateArea::open(dir.path(), AtimePolicy::Inherited).unwrap();
                mount::mount(Path::new("none"), &sub, "tmpfs", MountFlags::empty(), c"").unwrap();
                let inside = open_path_at(earlier.root_fd(), OsStr::new("a b")).unwrap();
                earlier
                    .refuse_foreign(&stat::stat_fd(&inside).unwrap())
                    .unwrap();
                drop(earlier);
                let refused = PrivateArea::open(dir.path(), AtimePolicy::Inherited).unwrap_err();
                assert!(
                    refused.to_string().contains("a b is mounted inside"),
                    "{refused}"
                );
                // Without a view of its own the mount is in the way, and stays shut.
                let twin = dir.path().join("twin");
                std::fs::create_dir(&twin).unwrap();
                rustix::mount::mount_bind(&twin, &twin).unwrap();
                let plain = || file::open_dir_path(dir.path()).unwrap();
                let area = PrivateArea::adopt(plain(), plain()).unwrap();
                assert!(!area.is_detached());
                for name in ["a b", "twin"] {
                    let other = stat::stat_at(area.root_fd(), OsStr::new(name)).unwrap();
                    assert_eq!(
                        errno(area.refuse_foreign(&other)),
                        Some(libc::EXDEV),
                        "{name}"
                    );
                    let entered = open_path_at(area.root_fd(), OsStr::new(name));
                    assert_eq!(errno(entered), Some(libc::EXDEV), "{name}");
                }
            });
        });
    }

    /// Its number is given out again and again meanwhile.
    #[test]
    fn an_inode_that_is_gone_is_gone_whoever_gets_its_number() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let area = PrivateArea::open(dir.path(), AtimePolicy::Noatime).unwrap();
        let path = dir.path().join("file");
        let file = std::fs::File::create(&path).unwrap();
        let handle = area.identify(&file).unwrap().unwrap();
        drop(file);
        std::fs::remove_file(&path).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3_000 {
                    drop(std::fs::File::create(&path).unwrap());
                    std::fs::remove_file(&path).unwrap();
                }
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(
                    errno(area.open_handle(&handle, libc::O_PATH)),
                    Some(libc::ESTALE)
                );
            }
        });
    }
}
