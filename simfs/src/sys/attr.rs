//! Mode, owner and times of an inode behind any descriptor, O_PATH included.
//!
//! Works on every kind of file without opening it. No locks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::proc_fd;
use super::stat::FileTime;

/// A new value of one of the two settable times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The present moment.
    Now,
    /// This moment.
    At(FileTime),
}

/// Sets access and modification time; `None` leaves one as it is.
pub fn set_times(
    file: impl AsFd,
    atime: Option<SetTime>,
    mtime: Option<SetTime>,
) -> io::Result<()> {
    let times = Timestamps {
        last_access: timespec(atime),
        last_modification: timespec(mtime),
    };
    Ok(rustix::fs::utimensat(
        file,
        "",
        &times,
        AtFlags::EMPTY_PATH,
    )?)
}

fn timespec(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(SetTime::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        Some(SetTime::At(time)) => Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds.into(),
        },
    }
}

/// Sets owner and group; `None` leaves one as it is. The kernel clears setuid and setgid bits as for chown(2).
pub fn chown(file: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    // The all-ones id means "leave" to the kernel: never let it in by accident.
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let (uid, gid) = (
        uid.map(rustix::fs::Uid::from_raw),
        gid.map(rustix::fs::Gid::from_raw),
    );
    Ok(rustix::fs::chownat(
        file,
        "",
        uid,
        gid,
        AtFlags::EMPTY_PATH,
    )?)
}

/// Sets the permissions of an open file, with the setuid, setgid and sticky bits; not through O_PATH.
pub fn chmod_fd(file: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?)
}

/// Set once the kernel has shown that it lacks fchmodat2 (before Linux 6.6).
static NO_FCHMODAT2: AtomicBool = AtomicBool::new(false);

/// Sets the permissions, with the setuid, setgid and sticky bits. On a symbolic link: `EOPNOTSUPP`.
pub fn chmod(file: impl AsFd, mode: u32) -> io::Result<()> {
    let (file, mode) = (file.as_fd(), Mode::from_raw_mode(mode));
    if !NO_FCHMODAT2.load(Ordering::Relaxed) {
        match fchmodat2(file, mode) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                NO_FCHMODAT2.store(true, Ordering::Relaxed)
            }
            done => return done,
        }
    }
    let entry = proc_fd::entry(file)?;
    Ok(rustix::fs::chmodat(
        entry.dir(),
        entry.name(),
        mode,
        AtFlags::empty(),
    )?)
}

fn fchmodat2(file: BorrowedFd<'_>, mode: Mode) -> io::Result<()> {
    // SAFETY: the path is a literal with its zero byte; the kernel reads nothing else from our memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fchmodat2,
            file.as_raw_fd(),
            c"".as_ptr(),
            mode.as_raw_mode(),
            libc::AT_EMPTY_PATH,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::{open_dir_path, open_path_at};
    use crate::sys::stat::stat_fd;
    use std::ffi::OsStr;
    use std::os::fd::OwnedFd;

    fn path_fd(area: &tempfile::TempDir, name: &str) -> OwnedFd {
        open_path_at(open_dir_path(area.path()).unwrap(), OsStr::new(name)).unwrap()
    }

    #[test]
    fn mode_owner_and_times_of_an_o_path_descriptor() {
        let area = tempfile::tempdir().unwrap();
        std::fs::write(area.path().join("f"), b"").unwrap();
        let file = path_fd(&area, "f");
        chown(&file, Some(1000), None).unwrap();
        chmod(&file, 0o4751).unwrap();
        let before = FileTime {
            seconds: -5,
            nanoseconds: 7,
        };
        set_times(&file, Some(SetTime::At(before)), None).unwrap();
        let stat = stat_fd(&file).unwrap();
        assert_eq!((stat.uid, stat.gid, stat.permissions()), (1000, 0, 0o4751));
        assert_eq!(stat.atime, before);
        assert!(stat.mtime.seconds > 0);
        assert_eq!(
            chown(&file, Some(u32::MAX), None)
                .unwrap_err()
                .raw_os_error(),
            Some(libc::EINVAL)
        );
    }

    #[test]
    fn chmod_without_fchmodat2() {
        let area = tempfile::tempdir().unwrap();
        std::fs::write(area.path().join("f"), b"").unwrap();
        let file = path_fd(&area, "f");
        NO_FCHMODAT2.store(true, Ordering::Relaxed);
        let done = chmod(&file, 0o640);
        NO_FCHMODAT2.store(false, Ordering::Relaxed);
        done.unwrap();
        assert_eq!(stat_fd(&file).unwrap().permissions(), 0o640);
    }

    #[test]
    fn a_symbolic_link_itself_is_changed() {
        let area = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", area.path().join("l")).unwrap();
        let link = path_fd(&area, "l");
        chown(&link, Some(7), Some(8)).unwrap();
        let nine = FileTime {
            seconds: 9,
            nanoseconds: 0,
        };
        set_times(&link, Some(SetTime::Now), Some(SetTime::At(nine))).unwrap();
        let stat = stat_fd(&link).unwrap();
        assert_eq!((stat.uid, stat.gid, stat.mtime), (7, 8, nine));
    }
}
