//! File operations that give the kernel's error numbers.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, Stat, openat};
use rustix::io::{Errno, Result, pwrite};

/// Opens with flags; a new file gets mode 0644.
pub(crate) fn open(path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
    openat(
        CWD,
        path.as_ref(),
        flags | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o644),
    )
}

/// Makes an empty file that must not exist.
pub(crate) fn create(path: impl AsRef<Path>) -> Result<OwnedFd> {
    open(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
}

pub(crate) fn mkdir(path: impl AsRef<Path>) -> Result<()> {
    rustix::fs::mkdirat(CWD, path.as_ref(), Mode::from_raw_mode(0o755))
}

pub(crate) fn rename(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    flags: RenameFlags,
) -> Result<()> {
    rustix::fs::renameat_with(CWD, from.as_ref(), CWD, to.as_ref(), flags)
}

/// Attributes, of a symbolic link itself.
pub(crate) fn stat(path: impl AsRef<Path>) -> Result<Stat> {
    rustix::fs::statat(CWD, path.as_ref(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
}

/// Bytes that the file system says a file occupies.
pub(crate) fn occupied(path: impl AsRef<Path>) -> u64 {
    u64::try_from(stat(path).expect("stat").st_blocks).expect("not negative") * 512
}

/// Writes at an offset until all is written or a call fails; the bytes written and the error that ended it.
pub(crate) fn write_at(file: &OwnedFd, mut offset: u64, mut data: &[u8]) -> (usize, Option<Errno>) {
    let mut written = 0;
    while !data.is_empty() {
        match pwrite(file, data, offset) {
            Ok(n) => {
                written += n;
                offset += n as u64;
                data = &data[n..];
            }
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

/// Writes `len` bytes from the start.
pub(crate) fn fill(file: &OwnedFd, len: u64) -> (usize, Option<Errno>) {
    write_at(
        file,
        0,
        &vec![0x5a; usize::try_from(len).expect("fits in memory")],
    )
}

/// Makes a file of `len` bytes.
#[track_caller]
pub(crate) fn put(path: impl AsRef<Path>, len: u64) {
    let file = create(path.as_ref()).expect("create");
    assert_eq!(fill(&file, len).1, None, "{}", path.as_ref().display());
}
