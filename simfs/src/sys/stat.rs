//! What an inode is: one statx(2).
//!
//! The numbers are the kernel's own (`st_*`), as requests and replies carry them. No locks.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quota::{Owner, Sectors, Usage};
use rustix::fs::{AtFlags, Statx, StatxFlags};

use super::name;

/// The bits of `st_mode` below the kind of file.
const PERMISSIONS: u32 = 0o7777;
/// Setuid.
const SETUID: u32 = libc::S_ISUID;
/// Setgid together with group execution; alone it does not change the group of a program.
const SETGID_EXEC: u32 = libc::S_ISGID | libc::S_IXGRP;

/// `STATX_ATTR_APPEND`.
const APPEND_ONLY: u64 = 0x20;

/// Kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Not told, or none of these.
    Unknown,
}

impl FileKind {
    /// The kind in a mode of mknod(2), where none means a regular file; also in `st_mode`.
    pub const fn from_mode(mode: u32) -> Self {
        match mode & libc::S_IFMT {
            0 | libc::S_IFREG => Self::File,
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFBLK => Self::BlockDevice,
            _ => Self::Unknown,
        }
    }

    /// The kind in `d_type` of a directory entry.
    pub const fn from_dirent(d_type: u8) -> Self {
        match d_type {
            libc::DT_REG => Self::File,
            libc::DT_DIR => Self::Directory,
            libc::DT_LNK => Self::Symlink,
            libc::DT_FIFO => Self::Fifo,
            libc::DT_SOCK => Self::Socket,
            libc::DT_CHR => Self::CharDevice,
            libc::DT_BLK => Self::BlockDevice,
            _ => Self::Unknown,
        }
    }
}

/// A point in time as an inode stores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds forward from there, below one thousand million.
    pub nanoseconds: u32,
}

impl FileTime {
    /// The same moment for the standard library; a moment that it cannot express becomes 1970.
    pub fn system_time(self) -> SystemTime {
        let whole = Duration::from_secs(self.seconds.unsigned_abs());
        let base = if self.seconds < 0 {
            UNIX_EPOCH.checked_sub(whole)
        } else {
            UNIX_EPOCH.checked_add(whole)
        };
        base.and_then(|base| base.checked_add(Duration::from_nanos(self.nanoseconds.into())))
            .unwrap_or(UNIX_EPOCH)
    }
}

impl From<SystemTime> for FileTime {
    fn from(time: SystemTime) -> Self {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self {
                seconds: seconds(after),
                nanoseconds: after.subsec_nanos(),
            },
            Err(error) => {
                let before = error.duration();
                match before.subsec_nanos() {
                    0 => Self {
                        seconds: -seconds(before),
                        nanoseconds: 0,
                    },
                    nanos => Self {
                        seconds: -seconds(before) - 1,
                        nanoseconds: 1_000_000_000 - nanos,
                    },
                }
            }
        }
    }
}

/// What we need to know of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Inode number.
    pub ino: u64,
    /// The filesystem it is on.
    pub dev: u64,
    /// The mount it was reached through; 0 where the kernel does not say (before Linux 5.8).
    pub mount: u64,
    /// Kind and permissions, as `st_mode`.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device a device file stands for.
    pub rdev: u64,
    /// Length in bytes.
    pub size: u64,
    /// Allocated space.
    pub blocks: Sectors,
    /// Preferred unit of input and output, bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: FileTime,
    /// Last change of the content.
    pub mtime: FileTime,
    /// Last change of the inode.
    pub ctime: FileTime,
    /// Birth, where the filesystem records it.
    pub btime: Option<FileTime>,
    /// `STATX_ATTR_*` bits that are set.
    pub attributes: u64,
}

impl Stat {
    /// Kind of file.
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == FileKind::Directory
    }

    /// Whether it can only be appended to (chattr +a).
    pub fn is_append_only(&self) -> bool {
        self.attributes & APPEND_ONLY != 0
    }

    /// Permissions, with the setuid, setgid and sticky bits.
    pub fn permissions(&self) -> u32 {
        self.mode & PERMISSIONS
    }

    /// Whether a write by an unprivileged user takes bits of the mode away.
    ///
    /// # Source
    /// Linux fs/attr.c, setattr_should_drop_suidgid: setuid, and setgid of what the group may execute, on a regular
    /// file.
    pub fn has_setid(&self) -> bool {
        self.kind() == FileKind::File && self.mode_without_setid() != self.permissions()
    }

    /// The permissions that such a write leaves.
    pub fn mode_without_setid(&self) -> u32 {
        let left = self.permissions() & !SETUID;
        if left & SETGID_EXEC == SETGID_EXEC {
            left & !libc::S_ISGID
        } else {
            left
        }
    }

    /// User and group.
    pub fn owner(&self) -> Owner {
        Owner::new(self.uid, self.gid)
    }

    /// What the inode is charged: itself and its allocated space.
    pub fn usage(&self) -> Usage {
        Usage::inode(self.blocks.bytes())
    }

    /// An inode of which nothing is left but its number, kind and permissions.
    pub fn of_gone(ino: u64, mode: u32) -> Self {
        Self {
            ino,
            dev: 0,
            mount: 0,
            mode,
            nlink: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: Sectors::ZERO,
            blksize: 4096,
            atime: FileTime::default(),
            mtime: FileTime::default(),
            ctime: FileTime::default(),
            btime: None,
            attributes: 0,
        }
    }

    /// The same inode after its last name is gone.
    pub fn without_names(self) -> Self {
        Self { nlink: 0, ..self }
    }
}

/// The inode behind a descriptor; O_PATH will do.
pub fn stat_fd(fd: impl AsFd) -> io::Result<Stat> {
    statx(fd.as_fd(), OsStr::new(""), AtFlags::EMPTY_PATH)
}

/// The inode behind an entry of a directory: a symbolic link itself, no automount.
pub fn stat_at(dir: impl AsFd, name: &OsStr) -> io::Result<Stat> {
    statx(dir.as_fd(), name::check(name)?, AtFlags::empty())
}

fn statx(fd: BorrowedFd<'_>, name: &OsStr, flags: AtFlags) -> io::Result<Stat> {
    let flags = flags | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    Ok(convert(&rustix::fs::statx(fd, name, flags, mask)?))
}

fn convert(raw: &Statx) -> Stat {
    let has = |flag: StatxFlags| raw.stx_mask & flag.bits() != 0;
    let time = |t: rustix::fs::StatxTimestamp| FileTime {
        seconds: t.tv_sec,
        nanoseconds: t.tv_nsec,
    };
    Stat {
        ino: raw.stx_ino,
        dev: rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor),
        mount: if has(StatxFlags::MNT_ID) {
            raw.stx_mnt_id
        } else {
            0
        },
        mode: raw.stx_mode.into(),
        nlink: raw.stx_nlink,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        rdev: rustix::fs::makedev(raw.stx_rdev_major, raw.stx_rdev_minor),
        size: raw.stx_size,
        blocks: Sectors::new(raw.stx_blocks),
        blksize: raw.stx_blksize,
        atime: time(raw.stx_atime),
        mtime: time(raw.stx_mtime),
        ctime: time(raw.stx_ctime),
        btime: has(StatxFlags::BTIME).then(|| time(raw.stx_btime)),
        attributes: raw.stx_attributes.bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::open_dir_path;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn both_ways_agree_with_std() {
        let area = tempfile::tempdir().unwrap();
        let path = area.path().join("f");
        std::fs::write(&path, vec![1u8; 10_000]).unwrap();
        let dir = open_dir_path(area.path()).unwrap();
        let stat = stat_at(&dir, OsStr::new("f")).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        assert_eq!(stat_fd(&file).unwrap(), stat);
        let expected = file.metadata().unwrap();
        assert_eq!(
            (stat.ino, stat.dev, stat.mode),
            (expected.ino(), expected.dev(), expected.mode())
        );
        assert_eq!((stat.size, stat.blocks.get()), (10_000, expected.blocks()));
        assert_eq!(stat.mtime.system_time(), expected.modified().unwrap());
        assert!(stat.btime.is_some());
        assert_eq!(
            stat.usage(),
            Usage::inode(quota::Bytes::new(expected.blocks() * 512))
        );
    }

    #[test]
    fn a_link_is_not_followed() {
        let area = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", area.path().join("l")).unwrap();
        let dir = open_dir_path(area.path()).unwrap();
        let stat = stat_at(&dir, OsStr::new("l")).unwrap();
        assert_eq!((stat.kind(), stat.size), (FileKind::Symlink, 4));
        assert_eq!(
            stat_at(&dir, OsStr::new("..")).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
    }

    #[test]
    fn set_id_bits_that_a_write_takes() {
        let file = tempfile::tempfile().unwrap();
        let stat = |mode| Stat {
            mode,
            ..stat_fd(&file).unwrap()
        };
        let rows = [
            ("plain", libc::S_IFREG | 0o755, 0o755),
            ("setuid", libc::S_IFREG | 0o4644, 0o644),
            ("setgid with group execution", libc::S_IFREG | 0o2755, 0o755),
            (
                "setgid without: mandatory locking once",
                libc::S_IFREG | 0o2644,
                0o2644,
            ),
            ("both", libc::S_IFREG | 0o6711, 0o711),
        ];
        for (rule, mode, left) in rows {
            assert_eq!(stat(mode).mode_without_setid(), left, "{rule}");
            assert_eq!(stat(mode).has_setid(), left != mode & 0o7777, "{rule}");
        }
        assert!(
            !stat(libc::S_IFDIR | 0o2755).has_setid(),
            "directories keep theirs"
        );
    }

    #[test]
    fn times_before_1970_come_back() {
        for time in [(-1, 999_999_999), (-5, 0), (0, 0), (0, 1), (1 << 40, 7)] {
            let time = FileTime {
                seconds: time.0,
                nanoseconds: time.1,
            };
            assert_eq!(FileTime::from(time.system_time()), time);
        }
    }
}
