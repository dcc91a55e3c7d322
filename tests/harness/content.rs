//! One file under random work, and the bytes that it must hold.
//!
//! [`Subject`] does an operation through one of several descriptors (buffered, write-only, O_DIRECT) or a mapping, applies
//! what the kernel said to a plain vector, and compares. A refusal must have changed nothing; a short write its part.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{FallocateFlags, OFlags, fallocate, fstat, ftruncate};
use rustix::io::{Errno, pread, pwrite};

use super::command::run;
use super::files::open;

/// The file never grows beyond this.
pub(crate) const LONGEST: usize = 320 * 1024;
/// What O_DIRECT asks of offsets, lengths and memory.
const SECTOR: usize = 4096;

/// The descriptor that an operation goes through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    ReadWrite,
    WriteOnly,
    Direct,
}

/// Something to do to the file; offsets and lengths in bytes.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Write(Way, usize, usize),
    Append(usize),
    Truncate(usize),
    Fallocate(FallocateFlags, usize, usize),
    Copy { from: usize, gap: usize, len: usize },
    Store(usize, usize),
    Read(Way, usize, usize),
    Holes(usize),
    Sync,
    Reopen,
    ReadOnlyToo,
}

/// What an operation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Short,
    Refused,
}

/// The file, its descriptors, and its bytes as they must be.
#[derive(Debug)]
pub(crate) struct Subject {
    path: PathBuf,
    both: OwnedFd,
    write_only: OwnedFd,
    direct: Option<OwnedFd>,
    read_only: Option<OwnedFd>,
    bytes: Vec<u8>,
    /// Makes each operation's data differ from what was there.
    round: usize,
}

impl Subject {
    /// A new, empty file.
    pub(crate) fn new(path: &Path) -> Self {
        let both = open(path, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC).expect("create");
        Self {
            write_only: open(path, OFlags::WRONLY).expect("open"),
            direct: open(path, OFlags::RDWR | OFlags::DIRECT).ok(),
            read_only: None,
            path: path.to_owned(),
            both,
            bytes: Vec::new(),
            round: 0,
        }
    }

    /// Does it, and compares what can be seen of it.
    pub(crate) fn perform(&mut self, work: &Work) -> Answer {
        self.round += 1;
        let answer = match *work {
            Work::Write(way, offset, len) => self.write(way, offset, len),
            Work::Append(len) => {
                let len = len.min(LONGEST.saturating_sub(self.bytes.len()));
                self.write(Way::WriteOnly, self.bytes.len(), len)
            }
            Work::Truncate(len) => {
                let asked = ftruncate(&self.both, len as u64);
                self.took(asked, |bytes, _| bytes.resize(len, 0))
            }
            Work::Fallocate(mode, offset, len) => self.fallocate(mode, offset, len),
            Work::Copy { from, gap, len } => self.copy(from, gap, len),
            Work::Store(offset, len) => self.store(offset, len),
            Work::Read(way, offset, len) => self.read(way, offset, len),
            Work::Holes(offset) => self.holes(offset),
            Work::Sync => self.took(rustix::fs::fsync(&self.both), |_, ()| {}),
            Work::Reopen => {
                let bytes = std::mem::take(&mut self.bytes);
                let path = self.path.clone();
                self.both = open(&path, OFlags::RDWR).expect("open");
                self.write_only = open(&path, OFlags::WRONLY).expect("open");
                self.direct = open(&path, OFlags::RDWR | OFlags::DIRECT).ok();
                self.read_only = None;
                self.bytes = bytes;
                Answer::Done
            }
            Work::ReadOnlyToo => {
                self.read_only = Some(open(&self.path, OFlags::RDONLY).expect("open"));
                Answer::Done
            }
        };
        let size = fstat(&self.write_only).expect("fstat").st_size;
        let size = usize::try_from(size).expect("not negative");
        assert_eq!(size, self.bytes.len(), "size after {work:?}");
        answer
    }

    /// Compares every byte, through each descriptor that can read.
    pub(crate) fn compare(&self, after: &dyn std::fmt::Debug) {
        let newly = open(&self.path, OFlags::RDONLY).expect("open");
        let readers = [Some(&self.both), Some(&newly), self.read_only.as_ref()];
        for (n, reader) in readers.into_iter().enumerate() {
            let Some(reader) = reader else { continue };
            let seen = read_all(reader);
            let differs = seen.iter().zip(&self.bytes).position(|(a, b)| a != b);
            assert_eq!(
                (differs, seen.len()),
                (None, self.bytes.len()),
                "first wrong byte and length through descriptor {n} after {after:?}"
            );
        }
    }

    fn pattern(&self, len: usize) -> Vec<u8> {
        (0..len)
            .map(|n| (n * 7 + n / 251 + self.round * 31) as u8)
            .collect()
    }

    /// Applies a success to the model; passes a refusal on; anything else is a failure.
    #[track_caller]
    fn took<T>(
        &mut self,
        result: rustix::io::Result<T>,
        apply: impl FnOnce(&mut Vec<u8>, T),
    ) -> Answer {
        match result {
            Ok(value) => {
                apply(&mut self.bytes, value);
                Answer::Done
            }
            Err(Errno::DQUOT) => Answer::Refused,
            Err(error) => panic!("{error}"),
        }
    }

    fn write(&mut self, way: Way, offset: usize, len: usize) -> Answer {
        let (offset, len) = match way {
            Way::Direct => (offset / SECTOR * SECTOR, len.div_ceil(SECTOR) * SECTOR),
            _ => (offset, len),
        };
        let data = Aligned::new(&self.pattern(len));
        let file = match way {
            Way::WriteOnly => &self.write_only,
            Way::Direct => self.direct.as_ref().unwrap_or(&self.both),
            Way::ReadWrite => &self.both,
        };
        let result = pwrite(file, data.get(), offset as u64);
        let written = *result.as_ref().unwrap_or(&0);
        let answer = self.took(result, |bytes, n| place(bytes, offset, &data.get()[..n]));
        if answer == Answer::Done && written < len {
            assert!(
                (offset + written).is_multiple_of(1024),
                "short within a block"
            );
            return Answer::Short;
        }
        answer
    }

    fn fallocate(&mut self, mode: FallocateFlags, offset: usize, len: usize) -> Answer {
        let len = len.max(1);
        let result = fallocate(&self.both, mode, offset as u64, len as u64);
        if result == Err(Errno::OPNOTSUPP) {
            return Answer::Done;
        }
        self.took(result, |bytes, ()| {
            let end = offset + len;
            if !mode.contains(FallocateFlags::KEEP_SIZE) && bytes.len() < end {
                bytes.resize(end, 0);
            }
            if mode.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE) {
                let end = end.min(bytes.len());
                if let Some(range) = bytes.get_mut(offset..end) {
                    range.fill(0);
                }
            }
        })
    }

    fn copy(&mut self, from: usize, gap: usize, len: usize) -> Answer {
        let len = len.min(self.bytes.len().saturating_sub(from));
        let to = from + len + gap;
        let room = LONGEST.saturating_sub(to);
        let (mut at, mut into) = (from as u64, to as u64);
        let result = rustix::fs::copy_file_range(
            &self.both,
            Some(&mut at),
            &self.write_only,
            Some(&mut into),
            len.min(room),
        );
        self.took(result, |bytes, n| {
            let copied = bytes.get(from..from + n).unwrap_or_default().to_vec();
            place(bytes, to, &copied);
        })
    }

    /// Through a shared mapping, in a process of its own: this one has no mapping.
    fn store(&mut self, offset: usize, len: usize) -> Answer {
        let len = len.min(self.bytes.len().saturating_sub(offset));
        if len == 0 {
            return Answer::Done;
        }
        let value = (self.round % 255) as u8 + 1;
        let commands = [
            format!("mmap -rw 0 {}", self.bytes.len()),
            format!("mwrite -S {value} {offset} {len}"),
            format!("msync -s 0 {}", self.bytes.len()),
        ];
        let args = commands.iter().flat_map(|command| ["-c", command]);
        let path = self.path.to_str().expect("a path of plain letters");
        run("xfs_io", args.chain([path])).ok();
        self.bytes[offset..offset + len].fill(value);
        Answer::Done
    }

    fn read(&mut self, way: Way, offset: usize, len: usize) -> Answer {
        let (file, offset, len) = match (way, &self.direct) {
            (Way::Direct, Some(file)) => (
                file,
                offset / SECTOR * SECTOR,
                len.div_ceil(SECTOR) * SECTOR,
            ),
            _ => (&self.both, offset, len),
        };
        let mut buffer = Aligned::new(&vec![0xee; len]);
        let n = pread(file, buffer.get_mut(), offset as u64).expect("read");
        let end = (offset + len).min(self.bytes.len());
        let expected = self.bytes.get(offset..end).unwrap_or_default();
        assert!(
            buffer.get()[..n] == *expected,
            "{way:?}: read {len} at {offset}: {n} bytes"
        );
        Answer::Done
    }

    /// A hole must read as zeros, and data must be found where it is.
    fn holes(&mut self, offset: usize) -> Answer {
        let next = rustix::fs::seek(&self.both, rustix::fs::SeekFrom::Data(offset as u64));
        let data = match next {
            Ok(at) => usize::try_from(at).expect("small"),
            Err(Errno::NXIO) => self.bytes.len(),
            Err(error) => panic!("SEEK_DATA {offset}: {error}"),
        };
        let hole = self.bytes.get(offset..data).unwrap_or_default();
        assert!(
            hole.iter().all(|byte| *byte == 0),
            "data in the hole {offset}..{data}"
        );
        Answer::Done
    }
}

/// Bytes at an address that O_DIRECT accepts.
#[derive(Debug)]
pub(crate) struct Aligned {
    buffer: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(crate) fn new(content: &[u8]) -> Self {
        let mut buffer = vec![0; content.len() + SECTOR];
        let start = buffer.as_ptr().align_offset(SECTOR);
        let len = content.len();
        buffer[start..start + len].copy_from_slice(content);
        Self { buffer, start, len }
    }

    pub(crate) fn get(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.len]
    }

    pub(crate) fn get_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.start + self.len]
    }
}

/// What writing `data` at an offset makes of a file.
fn place(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

fn read_all(file: &OwnedFd) -> Vec<u8> {
    let mut all = vec![0; LONGEST + SECTOR];
    let mut done = 0;
    loop {
        match pread(file, &mut all[done..], done as u64).expect("read") {
            0 => break,
            n => done += n,
        }
    }
    all.truncate(done);
    all
}

/// Any work; stores through a mapping only where holes cannot be refused.
pub(crate) fn any_work(maps: bool) -> impl Strategy<Value = Work> {
    let way = || {
        prop_oneof![
            Just(Way::ReadWrite),
            Just(Way::WriteOnly),
            Just(Way::Direct)
        ]
    };
    let offset = || {
        prop_oneof![
            0_usize..200_000,
            (0_usize..48).prop_map(|block| block * 4096),
            Just(0)
        ]
    };
    let len = || {
        prop_oneof![
            1_usize..60_000,
            (1_usize..16).prop_map(|block| block * 4096),
            1_usize..64
        ]
    };
    let keep = FallocateFlags::KEEP_SIZE;
    let modes = prop_oneof![
        Just(FallocateFlags::empty()),
        Just(keep),
        Just(FallocateFlags::PUNCH_HOLE | keep),
        Just(FallocateFlags::PUNCH_HOLE | keep),
        Just(FallocateFlags::ZERO_RANGE),
        Just(FallocateFlags::ZERO_RANGE | keep),
        Just(FallocateFlags::COLLAPSE_RANGE),
    ];
    let store = (offset(), len()).prop_map(move |(offset, len)| {
        if maps {
            Work::Store(offset, len)
        } else {
            Work::Sync
        }
    });
    prop_oneof![
        8 => (way(), offset(), len()).prop_map(|(way, offset, len)| Work::Write(way, offset, len)),
        2 => len().prop_map(Work::Append),
        3 => (0_usize..250_000).prop_map(Work::Truncate),
        5 => (modes, offset(), len()).prop_map(|(mode, offset, len)| Work::Fallocate(mode, offset, len)),
        2 => (offset(), 0_usize..9000, len()).prop_map(|(from, gap, len)| Work::Copy { from, gap, len }),
        1 => store,
        5 => (way(), offset(), len()).prop_map(|(way, offset, len)| Work::Read(way, offset, len)),
        1 => offset().prop_map(Work::Holes),
        1 => Just(Work::Sync),
        1 => Just(Work::Reopen),
        1 => Just(Work::ReadOnlyToo),
    ]
}
