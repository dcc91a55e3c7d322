//! How far a recount is, kept for the daemon that goes on with it.
//!
//! The file lies beside the store, is written when a mount ends or a daemon hands over, and is taken away by the next daemon
//! before it serves anything. It names the session of the store: any other mount in between makes it void.
//!
//! ```text
//!  0  magic "simfsrec" | 8 format u8 | 9 handed over u8 | 10 ve u32 | 14 session u64 | 22 number of the root u64
//! 30  length u64 and JSON of the sum | number u64 and keys (two u64 each) | number u64 and directories:
//!     ino u64, type of the handle i32, length u8, handle           | CRC-32 of all before, u32
//! ```
//! Numbers are little-endian. Whatever does not fit is no file: the recount starts anew then.
//!
//! The crash cases: before the file has its name there is none; while it has it the session is that of the store, which no
//! other daemon has begun; once it is taken away, it is gone, or void after the next commit that begins a service.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use quota::{InodeId, Tally, VeId};

use crate::fault;

/// The file's name.
const NAME: &str = "recount.saved";
const MAGIC: &[u8; 8] = b"simfsrec";
const FORMAT: u8 = 1;
/// The longest file that is read: some sixty million inodes.
const MAX_LEN: u64 = 1 << 30;

/// How far a recount is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The inodes that were looked at.
    pub seen: HashSet<(u64, u64)>,
    /// What they occupy.
    pub occupied: Tally,
    /// Directories that are still to be walked.
    pub pending: Vec<InodeId>,
}

/// To which moment of which mount a state belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The VE.
    pub ve: VeId,
    /// The session of the mount.
    pub session: u64,
    /// The number of the private area's root directory.
    pub root: u64,
    /// Whether the mount goes on under another daemon, so that its journal counts.
    pub is_handed_over: bool,
}

impl Saved {
    /// Writes the file; durable when it returns.
    ///
    /// # Errors
    /// The file system's; there is no file then.
    pub fn write(&self, dir: &Path, moment: &Moment) -> io::Result<()> {
        let (path, temporary) = (file(dir), temporary(dir));
        let written = write_new(&temporary, &self.encode(moment)?)
            .inspect(|()| fault::point("written"))
            .and_then(|()| fs::rename(&temporary, &path))
            .inspect(|()| fault::point("named"))
            .and_then(|()| File::open(dir)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// Takes the file away, and gives what it says where it belongs to this mount; whether that handed over.
    pub fn take(dir: &Path, ve: VeId, session: u64, root: u64) -> Option<(Self, bool)> {
        // Of a daemon that died while it wrote.
        let _ = fs::remove_file(temporary(dir));
        let path = file(dir);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_LEN).read_to_end(&mut bytes));
        if read.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return None;
        }
        // One that cannot be taken away could be taken for that of a later daemon.
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%ve, %error, "the recount starts anew: its state cannot be taken away");
            return None;
        }
        let decoded = Self::decode(&bytes);
        let fits =
            |moment: &Moment| (moment.ve, moment.session, moment.root) == (ve, session, root);
        let Some((moment, saved)) = decoded.filter(|(moment, _)| fits(moment)) else {
            tracing::warn!(%ve, "the recount starts anew: its state is damaged or of another mount");
            return None;
        };
        Some((saved, moment.is_handed_over))
    }

    fn encode(&self, moment: &Moment) -> io::Result<Vec<u8>> {
        let sum = serde_json::to_vec(&self.occupied)?;
        let mut out = MAGIC.to_vec();
        out.extend([FORMAT, u8::from(moment.is_handed_over)]);
        out.extend(moment.ve.get().to_le_bytes());
        out.extend(moment.session.to_le_bytes());
        out.extend(moment.root.to_le_bytes());
        out.extend(number(sum.len()));
        out.extend(sum);
        out.extend(number(self.seen.len()));
        for (ino, hash) in &self.seen {
            out.extend(ino.to_le_bytes());
            out.extend(hash.to_le_bytes());
        }
        out.extend(number(self.pending.len()));
        for dir in &self.pending {
            let (kind, handle) = dir.handle().unwrap_or((0, &[]));
            out.extend(dir.ino().to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.push(u8::try_from(handle.len()).map_err(io::Error::other)?);
            out.extend(handle);
        }
        out.extend(crc32fast::hash(&out).to_le_bytes());
        Ok(out)
    }

    fn decode(bytes: &[u8]) -> Option<(Moment, Self)> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut input = Input(body);
        if input.array()? != *MAGIC || input.array()? != [FORMAT] {
            return None;
        }
        let is_handed_over = input.array()? == [1];
        let moment = Moment {
            ve: VeId::new(u32::from_le_bytes(input.array()?)),
            session: input.u64()?,
            root: input.u64()?,
            is_handed_over,
        };
        let sum = input.u64()?;
        let occupied = serde_json::from_slice(input.bytes(sum)?).ok()?;
        let mut seen = HashSet::new();
        for _ in 0..input.u64()? {
            seen.insert((input.u64()?, input.u64()?));
        }
        let mut pending = Vec::new();
        for _ in 0..input.u64()? {
            let ino = input.u64()?;
            let kind = i32::from_le_bytes(input.array()?);
            let [length] = input.array()?;
            pending.push(InodeId::new(ino, kind, input.bytes(u64::from(length))?));
        }
        let saved = Self {
            seen,
            occupied,
            pending,
        };
        input.0.is_empty().then_some((moment, saved))
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

fn temporary(dir: &Path) -> PathBuf {
    file(dir).with_extension("tmp")
}

fn number(count: usize) -> [u8; 8] {
    u64::try_from(count).unwrap_or(u64::MAX).to_le_bytes()
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use quota::{Bytes, Owner, Usage};

    use super::*;

    const MOMENT: Moment = Moment {
        ve: VeId::new(101),
        session: 7,
        root: 2,
        is_handed_over: true,
    };

    fn sample() -> Saved {
        let mut saved = Saved {
            seen: HashSet::from([(2, 9), (u64::MAX, 1)]),
            pending: vec![InodeId::new(5, 1, &[1, 2, 3]), InodeId::new(6, 0, &[])],
            ..Saved::default()
        };
        let usage = Usage::inode(Bytes::new(4096));
        saved.occupied.add(Owner::new(1001, 1002), usage);
        saved
    }

    #[test]
    fn a_state_is_taken_once_and_by_its_own_mount_only() {
        let dir = tempfile::tempdir().unwrap();
        let take = |session| Saved::take(dir.path(), MOMENT.ve, session, MOMENT.root);
        assert_eq!(take(7), None);
        sample().write(dir.path(), &MOMENT).unwrap();
        assert_eq!(take(7), Some((sample(), true)));
        assert_eq!(take(7), None);
        sample().write(dir.path(), &MOMENT).unwrap();
        assert_eq!(take(8), None);
        assert_eq!(take(7), None, "void for good");
    }

    #[test]
    fn what_a_death_in_the_middle_of_writing_leaves_is_no_state() {
        let whole = sample().encode(&MOMENT).unwrap();
        let earlier = sample().encode(&Moment {
            session: 6,
            ..MOMENT
        });
        let earlier = earlier.unwrap();
        for (length, before) in
            (0..=whole.len()).flat_map(|length| [(length, false), (length, true)])
        {
            let dir = tempfile::tempdir().unwrap();
            fs::write(temporary(dir.path()), &whole[..length]).unwrap();
            if before {
                fs::write(file(dir.path()), &earlier).unwrap();
            }
            let taken = Saved::take(dir.path(), MOMENT.ve, MOMENT.session, MOMENT.root);
            assert_eq!(taken, None, "{length} {before}");
            assert_eq!(
                fs::read_dir(dir.path()).unwrap().count(),
                0,
                "{length} {before}"
            );
        }
    }

    #[test]
    fn whatever_was_damaged_is_no_state() {
        let whole = sample().encode(&MOMENT).unwrap();
        assert!(Saved::decode(&whole).is_some());
        for at in 0..whole.len() {
            assert_eq!(Saved::decode(&whole[..at]), None, "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert_eq!(Saved::decode(&flipped), None, "flipped at {at}");
        }
    }
}
