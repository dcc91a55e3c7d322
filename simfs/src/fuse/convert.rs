//! Values of the protocol to and from ours.                                                                (pure)

use std::time::{Duration, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use rustix::fs::{Dev, major, makedev, minor};

use crate::sys::attr::SetTime;
use crate::sys::stat::{FileKind, FileTime, Stat};

/// Attributes as the kernel takes them, under this inode number.
pub fn attributes(ino: u64, stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: stat.size,
        blocks: stat.blocks.get(),
        atime: stat.atime.system_time(),
        mtime: stat.mtime.system_time(),
        ctime: stat.ctime.system_time(),
        crtime: UNIX_EPOCH,
        kind: kind(stat.kind()),
        perm: u16::try_from(stat.permissions()).unwrap_or(0),
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: dev_to_kernel(stat.rdev),
        blksize: stat.blksize,
        flags: 0,
    }
}

/// A name that is not there: entry number 0, which the kernel may remember.
pub fn absent() -> FileAttr {
    listed(0, FileKind::File)
}

/// An entry of which only number and kind are known.
pub fn listed(ino: u64, kind_of: FileKind) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: kind(kind_of),
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// The kind of a file.
pub fn kind(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::File | FileKind::Unknown => FileType::RegularFile,
    }
}

/// A device number as the protocol packs it into 32 bits.
///
/// # Source
/// Linux `include/linux/kdev_t.h`, `new_encode_dev`.
pub fn dev_to_kernel(dev: Dev) -> u32 {
    let (major, minor) = (major(dev), minor(dev));
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// The reverse of [`dev_to_kernel`].
pub fn dev_from_kernel(packed: u32) -> Dev {
    makedev(
        (packed & 0xf_ff00) >> 8,
        (packed & 0xff) | ((packed >> 12) & 0xf_ff00),
    )
}

/// A time to set.
///
/// The protocol library turns seconds before 1970 with nanoseconds into a moment that much earlier, instead of later
/// than the second; the two parts are still told apart.
pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => FileTime {
                seconds: seconds(after),
                nanoseconds: after.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                FileTime {
                    seconds: -seconds(before),
                    nanoseconds: before.subsec_nanos(),
                }
            }
        }),
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_the_protocol() {
        for (major, minor) in [(0, 0), (8, 1), (253, 255), (4095, 0xf_ffff), (1, 0x1234)] {
            let dev = makedev(major, minor);
            assert_eq!(dev_from_kernel(dev_to_kernel(dev)), dev);
        }
    }

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        // As the library decodes a request for -2 s and 800,000,000 ns.
        let decoded = UNIX_EPOCH - Duration::new(2, 800_000_000);
        let set = set_time(TimeOrNow::SpecificTime(decoded));
        assert_eq!(
            set,
            SetTime::At(FileTime {
                seconds: -2,
                nanoseconds: 800_000_000
            })
        );
        let shown = FileTime {
            seconds: -2,
            nanoseconds: 800_000_000,
        }
        .system_time();
        assert_eq!(shown, UNIX_EPOCH - Duration::new(1, 200_000_000));
    }
}
