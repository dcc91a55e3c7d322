//! A stream of directory entries with the filesystem's own positions.
//!
//! Invariants:
//! 1. A position is a `d_off` that the kernel gave out, or 0: any of them can be sought at any time, also by a stream
//!    opened later on the same directory.
//! 2. Seeking always reads afresh: what is listed behind it is there at that time.
//! 3. A stream holds at most one buffer of [`BUFFER_SIZE`], and none before the first read and behind the end.
//!
//! No locks.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::SeekFrom;

use super::open::open_dir;
use super::stat::FileKind;

/// Bytes read from the kernel at a time: some 250 entries, of which a request for entries with attributes takes 96.
pub const BUFFER_SIZE: usize = 8 * 1024;

/// Length of `struct linux_dirent64` before the name.
const HEADER: usize = 19;

/// One entry, `.` and `..` included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Position behind this entry: where to go on.
    pub position: u64,
    /// Kind of file; [`FileKind::Unknown`] where the filesystem does not say.
    pub kind: FileKind,
    /// The name.
    pub name: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Whether this is `.` or `..`.
    pub fn is_dots(&self) -> bool {
        self.name == b"." || self.name == b".."
    }

    /// The name as the other calls take it.
    pub fn os_name(&self) -> &'a OsStr {
        OsStr::from_bytes(self.name)
    }
}

/// A directory open for reading, and the entries read ahead.
#[derive(Debug)]
pub struct DirStream {
    fd: OwnedFd,
    buffer: Vec<u8>,
    /// Where in `buffer` the next entry starts.
    next: usize,
    /// The directory position of that entry.
    position: u64,
}

impl DirStream {
    /// A stream at the start of a directory; `fd` is open for reading and used by nobody else.
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            buffer: Vec::new(),
            next: 0,
            position: 0,
        }
    }

    /// The directory itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The position of the next entry.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes to a position; invariant 1 says which there are.
    pub fn seek(&mut self, position: u64) -> io::Result<()> {
        rustix::fs::seek(&self.fd, SeekFrom::Start(position))?;
        self.forget_buffer();
        self.position = position;
        Ok(())
    }

    /// Gives the buffer back. What it held and nobody has taken is lost to the stream until it is sought again.
    pub fn forget_buffer(&mut self) {
        self.buffer = Vec::new();
        self.next = 0;
    }

    /// The next entry, or `None` at the end of the directory.
    #[expect(
        clippy::should_implement_trait,
        reason = "an entry borrows from the stream, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> io::Result<Option<Entry<'_>>> {
        Ok(self.next_with_fd()?.map(|(_, entry)| entry))
    }

    /// The next entry beside the directory itself, for calls that concern the entry.
    pub fn next_with_fd(&mut self) -> io::Result<Option<(BorrowedFd<'_>, Entry<'_>)>> {
        if self.next >= self.buffer.len() && !self.fill()? {
            return Ok(None);
        }
        let rest = self.buffer.get(self.next..).unwrap_or_default();
        let (entry, length) = parse(rest).ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))?;
        self.next += length;
        self.position = entry.position;
        Ok(Some((self.fd.as_fd(), entry)))
    }

    /// Reads the next entries; `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(BUFFER_SIZE, 0);
        // SAFETY: the kernel writes at most the given length into the buffer, which outlives the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                self.fd.as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        };
        let length = usize::try_from(result).map_err(|_| io::Error::last_os_error());
        if !matches!(length, Ok(1..)) {
            self.forget_buffer();
        }
        let length = length?;
        if length == 0 {
            return Ok(false);
        }
        buffer.truncate(length);
        self.buffer = buffer;
        self.next = 0;
        Ok(true)
    }
}

/// The first entry in `bytes`, and its length there.
///
/// ```text
/// d_ino u64 | d_off i64 | d_reclen u16 | d_type u8 | d_name, zero byte, padding
/// ```
fn parse(bytes: &[u8]) -> Option<(Entry<'_>, usize)> {
    let (ino, rest) = bytes.split_first_chunk::<8>()?;
    let (position, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (kind, _) = rest.split_first()?;
    let length = usize::from(u16::from_ne_bytes(*length));
    let name = bytes.get(HEADER..length)?;
    let name = name.split(|&byte| byte == 0).next()?;
    let entry = Entry {
        ino: u64::from_ne_bytes(*ino),
        position: u64::from_ne_bytes(*position),
        kind: FileKind::from_dirent(*kind),
        name,
    };
    Some((entry, length))
}

/// The length of each name of a directory, `.` and `..` included, as long as all of them together stay within
/// `bound` bytes; of a larger directory, no more than go over it.
pub fn name_lengths(dir: impl AsFd, bound: u64) -> io::Result<Vec<usize>> {
    let mut stream = DirStream::new(open_dir(dir)?);
    let mut lengths = Vec::new();
    let mut bytes = 0u64;
    while let Some(entry) = stream.next()? {
        let length = entry.name.len();
        bytes = bytes.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        lengths.push(length);
        if bytes > bound {
            break;
        }
    }
    Ok(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::open;
    use std::collections::BTreeSet;

    fn names_from(stream: &mut DirStream) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        while let Some(entry) = stream.next().unwrap() {
            names.push(entry.name.to_vec());
        }
        names
    }

    #[test]
    fn every_earlier_position_can_be_sought() {
        let area = tempfile::tempdir_in("/var/tmp").unwrap();
        // More than one buffer of entries.
        let expected: BTreeSet<_> = (0..1500)
            .map(|i| format!("name-of-some-length-{i}"))
            .collect();
        for name in &expected {
            std::fs::write(area.path().join(name), b"").unwrap();
        }
        let mut stream = DirStream::new(open::open_dir_path(area.path()).unwrap());
        assert!(stream.buffer.is_empty());
        let mut seen = Vec::new();
        let mut positions = vec![0];
        while let Some(entry) = stream.next().unwrap() {
            seen.push(entry.name.to_vec());
            positions.push(entry.position);
        }
        assert!(stream.buffer.is_empty(), "no buffer behind the end");
        assert_eq!(seen.len(), expected.len() + 2);
        for &at in &[1500, 3, 700, 702, 701, 0, 1] {
            stream.seek(positions[at]).unwrap();
            assert_eq!(stream.position(), positions[at]);
            assert_eq!(
                stream.next().unwrap().unwrap().name,
                &seen[at],
                "entry {at}"
            );
        }
        let mut other = DirStream::new(open::open_dir_path(area.path()).unwrap());
        other.seek(positions[1000]).unwrap();
        assert_eq!(names_from(&mut other), seen[1000..]);
    }

    #[test]
    fn seeking_sees_new_entries() {
        let area = tempfile::tempdir().unwrap();
        let mut stream = DirStream::new(open::open_dir_path(area.path()).unwrap());
        assert_eq!(names_from(&mut stream).len(), 2);
        for name in ["new", "newer"] {
            stream.seek(0).unwrap();
            stream.next().unwrap();
            std::fs::write(area.path().join(name), b"").unwrap();
            stream.seek(0).unwrap();
            assert!(names_from(&mut stream).contains(&name.as_bytes().to_vec()));
        }
    }

    #[test]
    fn damaged_entries_end_the_parsing() {
        assert!(parse(&[]).is_none());
        assert!(parse(&[0; HEADER]).is_none(), "record length 0");
        let mut short = [0; 24];
        short[16] = 200;
        assert!(parse(&short).is_none(), "record longer than the buffer");
        short[16] = 24;
        short[18] = libc::DT_FIFO;
        assert_eq!(
            parse(&short).map(|(entry, length)| (entry.kind, length)),
            Some((FileKind::Fifo, 24))
        );
    }

    #[test]
    fn name_lengths_stop_at_their_bound() {
        let area = tempfile::tempdir().unwrap();
        for name in ["a", "bbb", "cc"] {
            std::fs::write(area.path().join(name), b"").unwrap();
        }
        let dir = open::open_dir_path(area.path()).unwrap();
        let mut lengths = name_lengths(&dir, 4096).unwrap();
        lengths.sort_unstable();
        assert_eq!(lengths, [1, 1, 2, 2, 3]);
        assert!(name_lengths(&dir, 2).unwrap().len() < 5);
    }
}
