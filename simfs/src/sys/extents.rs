//! Where a file has space: FS_IOC_FIEMAP.
//!
//! Needs a real descriptor, not an O_PATH one. Extents whose blocks are not chosen yet (delayed allocation) count as
//! allocated: their space is taken. No locks.

use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Opcode, Updater, opcode};

/// Extents asked for at a time; a file with more is asked again.
const BATCH: usize = 64;
/// `FIEMAP_EXTENT_LAST`.
const LAST: u32 = 1;

/// `struct fiemap` without room for extents: what the ioctl's number is made from.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Header {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap` with its extents.
#[repr(C)]
struct Batch {
    header: Header,
    extents: [Extent; BATCH],
}

const GET_EXTENTS: Opcode = opcode::read_write::<Header>(b'f', 11);

/// How many extents hold `length` bytes from `offset` on.
///
/// # Source
/// Linux Documentation/filesystems/fiemap.rst: with `fm_extent_count` zero the extents are only counted.
pub fn extent_count(file: impl AsFd, offset: u64, length: u64) -> io::Result<u32> {
    let mut header = Header {
        start: offset,
        length,
        ..Header::default()
    };
    // SAFETY: the ioctl reads and writes one `struct fiemap`, and nothing behind it as `room` is zero.
    unsafe { rustix::ioctl::ioctl(file, Updater::<GET_EXTENTS, Header>::new(&mut header)) }?;
    Ok(header.mapped)
}

/// Offset and length of the extents that touch a range, in order; the first and the last may reach out of it.
///
/// `EOPNOTSUPP` where the filesystem does not tell. Bounded by the number of extents in the range.
pub fn allocated_extents(file: impl AsFd, offset: u64, length: u64) -> io::Result<Vec<(u64, u64)>> {
    let end = offset.saturating_add(length);
    let mut found = Vec::new();
    let mut at = offset;
    while at < end {
        let batch = read_batch(file.as_fd(), at, end - at)?;
        let count = usize::try_from(batch.header.mapped).map_err(io::Error::other)?;
        let extents = batch.extents.get(..count).unwrap_or(&batch.extents);
        found.extend(extents.iter().map(|extent| (extent.logical, extent.length)));
        match extents.last() {
            Some(extent) if extent.flags & LAST == 0 && count == BATCH => {
                let next = extent.logical.saturating_add(extent.length);
                if next <= at {
                    return Err(io::Error::from_raw_os_error(libc::EIO));
                }
                at = next;
            }
            _ => break,
        }
    }
    Ok(found)
}

fn read_batch(file: impl AsFd, offset: u64, length: u64) -> io::Result<Batch> {
    let room = u32::try_from(BATCH).map_err(io::Error::other)?;
    let header = Header {
        start: offset,
        length,
        room,
        ..Header::default()
    };
    let mut batch = Batch {
        header,
        extents: [Extent::default(); BATCH],
    };
    // SAFETY: the ioctl reads one `struct fiemap` and writes it and at most `room` extents behind it, for which there
    // is place; any bytes are valid in both.
    unsafe { rustix::ioctl::ioctl(file, Updater::<GET_EXTENTS, Batch>::new(&mut batch)) }?;
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file;

    #[test]
    fn the_number_is_the_kernels() {
        // uapi/linux/fiemap.h and uapi/linux/fs.h.
        assert_eq!(GET_EXTENTS, 0xc020_660b);
        assert_eq!((size_of::<Header>(), size_of::<Extent>()), (32, 56));
    }

    #[test]
    fn separate_blocks_are_separate_extents() {
        let file = &tempfile::tempfile_in("/var/tmp").unwrap();
        let offsets: Vec<u64> = (0..150).map(|i| i << 16).collect();
        for &offset in &offsets {
            file::write_full(file, &[1], offset).unwrap();
        }
        for delayed in [true, false] {
            let expected: Vec<_> = offsets.iter().map(|&offset| (offset, 4096)).collect();
            assert_eq!(
                allocated_extents(file, 0, u64::MAX).unwrap(),
                expected,
                "delayed: {delayed}"
            );
            assert_eq!(
                allocated_extents(file, 4096, 1 << 16).unwrap(),
                [(1 << 16, 4096)]
            );
            assert_eq!(allocated_extents(file, 4096, 4096).unwrap(), []);
            file::fsync(file).unwrap();
        }
        assert_eq!(extent_count(file, 0, u64::MAX).unwrap(), 150);
        assert_eq!(extent_count(file, 4096, 1 << 16).unwrap(), 1);
    }

    #[test]
    fn a_filesystem_that_does_not_tell_says_so() {
        let proc_file = std::fs::File::open("/proc/self/status").unwrap();
        let error = allocated_extents(&proc_file, 0, 1).unwrap_err();
        assert!(
            matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOTTY)),
            "{error}"
        );
    }
}
