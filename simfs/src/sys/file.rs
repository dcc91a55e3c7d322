//! Files: names, opening, attributes, content.
//!
//! The content of an open file is here; the rest stands in files of its own and can be reached through this one.
//! Offsets and lengths are bytes; an offset above `i64::MAX` is refused by the kernel with `EINVAL`. No locks.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use rustix::fs::{FallocateFlags, SeekFrom};

pub use super::attr::{SetTime, chmod, chmod_fd, chown, set_times};
pub use super::extents::{allocated_extents, extent_count};
pub use super::name::{
    RenameFlags, exists_at, link_fd, mkdir_at, mknod_at, read_link, rename_at, symlink_at,
    unlink_at,
};
pub use super::open::{
    create_at, open_at, open_dir, open_dir_path, open_parent, open_path_at, reopen,
};

/// Reads at `offset`; the number of bytes may be smaller.
pub fn read_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| {
        rustix::io::pread(&file, &mut *buffer, offset)
    })?)
}

/// Writes at `offset`; the number of bytes taken may be smaller.
pub fn write_at(file: impl AsFd, data: &[u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| {
        rustix::io::pwrite(&file, data, offset)
    })?)
}

/// Writes several pieces at `offset`; the number of bytes taken may be smaller.
pub fn write_vectored_at(file: impl AsFd, data: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| {
        rustix::io::pwritev(&file, data, offset)
    })?)
}

/// Reads until the buffer is full or the file ends. What was read before an error is returned without it.
pub fn read_full(file: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match read_at(&file, rest, position(offset, done)?) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Writes all of it. What was written before an error is returned without it.
pub fn write_full(file: impl AsFd, data: &[u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match write_at(&file, rest, position(offset, done)?) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

fn position(offset: u64, done: usize) -> io::Result<u64> {
    let done = u64::try_from(done).map_err(io::Error::other)?;
    offset
        .checked_add(done)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EFBIG))
}

/// The mode of fallocate(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FallocateMode(FallocateFlags);

impl FallocateMode {
    /// Allocates without changing the size.
    pub const KEEP_SIZE: Self = Self(FallocateFlags::KEEP_SIZE);

    /// Frees without changing the size.
    pub const PUNCH: Self = Self(FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE));

    /// The mode of a request; unknown bits are kept, for the kernel to judge.
    pub fn from_raw(mode: i32) -> Self {
        Self(FallocateFlags::from_bits_retain(mode.cast_unsigned()))
    }

    /// Whether it gives space back and takes none: punch, collapse.
    pub fn punches(self) -> bool {
        self.0
            .intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::COLLAPSE_RANGE)
    }

    /// Whether bytes that were written may read as zeros, or elsewhere, afterwards: zero, insert.
    pub fn zeroes(self) -> bool {
        self.0
            .intersects(FallocateFlags::ZERO_RANGE | FallocateFlags::INSERT_RANGE)
    }

    /// Whether the length of the file stays.
    pub fn keeps_size(self) -> bool {
        self.0.contains(FallocateFlags::KEEP_SIZE)
    }
}

/// Allocates, frees or zeroes a range.
pub fn fallocate(file: impl AsFd, mode: FallocateMode, offset: u64, length: u64) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| {
        rustix::fs::fallocate(&file, mode.0, offset, length)
    })?)
}

/// Copies inside the kernel; the number of bytes copied may be smaller, 0 at the end of the source.
pub fn copy_range(
    from: impl AsFd,
    from_offset: u64,
    to: impl AsFd,
    to_offset: u64,
    length: u64,
) -> io::Result<usize> {
    let (mut from_offset, mut to_offset) = (from_offset, to_offset);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    Ok(rustix::fs::copy_file_range(
        from,
        Some(&mut from_offset),
        to,
        Some(&mut to_offset),
        length,
    )?)
}

/// Sets the length; a longer file ends in a hole.
pub fn truncate(file: impl AsFd, length: u64) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| {
        rustix::fs::ftruncate(&file, length)
    })?)
}

/// Makes content and attributes durable.
pub fn fsync(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(file)?)
}

/// Makes the content durable, and of the attributes what is needed to read it.
pub fn fdatasync(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fdatasync(file)?)
}

/// Writes out the whole filesystem that holds this file.
pub fn syncfs(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

/// The next data or the next hole at or behind `offset`: lseek(2) with SEEK_DATA or SEEK_HOLE.
///
/// `ENXIO` behind the end, `EINVAL` for another `whence`. Moves the descriptor's position.
pub fn seek_data_or_hole(file: impl AsFd, offset: i64, whence: i32) -> io::Result<i64> {
    let start = u64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::ENXIO))?;
    let to = match whence {
        libc::SEEK_DATA => SeekFrom::Data(start),
        libc::SEEK_HOLE => SeekFrom::Hole(start),
        _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    };
    i64::try_from(rustix::fs::seek(file, to)?)
        .map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_holes_and_copies() {
        let file = &tempfile::tempfile_in("/var/tmp").unwrap();
        let data = |offset| seek_data_or_hole(file, offset, libc::SEEK_DATA);
        assert_eq!(write_full(file, b"hello", 1 << 20).unwrap(), 5);
        assert_eq!(
            write_vectored_at(file, &[IoSlice::new(b"wo"), IoSlice::new(b"rld")], 0).unwrap(),
            5
        );
        let mut buffer = [0; 8];
        assert_eq!(read_full(file, &mut buffer, 1 << 20).unwrap(), 5);
        assert_eq!(&buffer[..5], b"hello");
        assert_eq!(data(8192).unwrap(), 1 << 20);
        assert_eq!(seek_data_or_hole(file, 0, libc::SEEK_HOLE).unwrap(), 4096);
        assert_eq!(copy_range(file, 1 << 20, file, 100, 3).unwrap(), 3);
        assert_eq!(read_at(file, &mut buffer[..3], 100).unwrap(), 3);
        assert_eq!(&buffer[..3], b"hel");
        let punch = FallocateMode::from_raw(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE);
        assert!(punch.punches() && !punch.zeroes() && punch.keeps_size());
        fallocate(file, punch, 0, 4096).unwrap();
        assert_eq!(data(0).unwrap(), 1 << 20);
        truncate(file, 3).unwrap();
        fsync(file).unwrap();
        fdatasync(file).unwrap();
        assert_eq!(data(3).unwrap_err().raw_os_error(), Some(libc::ENXIO));
    }

    #[test]
    fn impossible_requests_are_refused() {
        let file = &tempfile::tempfile().unwrap();
        let errno = |error: io::Error| error.raw_os_error();
        assert_eq!(
            errno(write_full(file, b"x", u64::MAX).unwrap_err()),
            Some(libc::EINVAL)
        );
        assert_eq!(
            errno(seek_data_or_hole(file, -1, libc::SEEK_DATA).unwrap_err()),
            Some(libc::ENXIO)
        );
        assert_eq!(
            errno(seek_data_or_hole(file, 0, libc::SEEK_CUR).unwrap_err()),
            Some(libc::EINVAL)
        );
        let unknown = FallocateMode::from_raw(1 << 30);
        assert_eq!(
            errno(fallocate(file, unknown, 0, 1).unwrap_err()),
            Some(libc::EOPNOTSUPP)
        );
    }

    #[test]
    fn a_write_that_ends_early_says_how_far_it_came() {
        // A pipe takes no offset, but a device does: /dev/full fails at once.
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        assert_eq!(
            write_full(&full, b"x", 0).unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
    }
}
