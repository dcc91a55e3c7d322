//! What requests are read into: at any moment of a death each one that was read stands here, whole.
//!
//! The kernel takes a request out of its queue and copies it in one system call, to memory that outlives the process. Orders
//! to forget nodes have no answer, and the kernel never sends them again; [`Forgets`] tells how far they came. Before
//! Linux 6.9 it sends nothing again: a request that was read and not answered would keep its caller waiting, beyond any signal,
//! as long as the mount lives. Which of those that stand here wait still, the kernel tells
//! ([`crate::sys::fuse_dev::is_waiting`]), so nothing is to be noted beside.
//!
//! ```text
//! place 0 .. 61, each: struct fuse_in_header and what follows it, as the kernel wrote it; the rest is of older ones
//! ```
//! Invariants:
//! 1. A place with a request that waits, or an order that is not carried out, is given to no reader: only a successor that
//!    finds it done has it read over.
//! 2. What stands here carries no seal. A number that nobody waits for is nothing; what else is wrong with a request its
//!    decoder finds out, as with one that comes from the kernel.
//!
//! No locks: a place belongs to one reader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

use super::flights::RESENT;
use super::forgets::Forgets;
use crate::id::NodeId;

/// Most requests that were left unanswered and readers together. As many as a mount may see deaths without an answer,
/// before it is given up, times the readers of each, and more. Another number is another layout.
pub(super) const PLACES: usize = 62;
/// What must be sealed before the file is mapped: a page that vanishes is a signal.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);
/// `struct fuse_in_header`, in bytes.
const HEADER: usize = 40;
/// Where in it the number stands, and the node; the opcode follows the length, which comes first.
const UNIQUE: usize = 8;
const NODE: usize = 16;
/// The orders to forget, of one node and of several (Linux `include/uapi/linux/fuse.h`).
const FORGET: u32 = 2;
const BATCH_FORGET: u32 = 42;
/// `struct fuse_forget_one` and `struct fuse_batch_forget_in`, in bytes.
const PAIR: usize = 16;
const BATCH: usize = 8;

/// The places.
#[derive(Debug)]
pub struct Intake {
    file: OwnedFd,
    /// Bytes of a place: the largest request, in whole pages.
    place: u64,
}

/// A request that was read and not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// The kernel's number.
    pub unique: u64,
    /// As it was read, cut off where it claims to be longer than its place.
    pub request: Vec<u8>,
    /// Where it stands.
    pub place: usize,
}

/// An order to forget that a predecessor had not carried out to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftForgets {
    /// Where its mark is, see [`Forgets`].
    pub place: usize,
    /// The kernel's number.
    pub unique: u64,
    /// Nodes, and how many lookups of each the kernel drops; all of them, done or not.
    pub entries: Vec<(NodeId, u64)>,
}

impl Intake {
    /// Makes places for requests of up to so many bytes (whole pages).
    ///
    /// # Errors
    /// The kernel's.
    pub fn create(place: u32) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create(c"simfs-intake", flags)?;
        let place = u64::from(place);
        rustix::fs::ftruncate(&file, length_of(place))?;
        rustix::fs::fcntl_add_seals(&file, SEALS)?;
        Ok(Self { file, place })
    }

    /// Takes over from a predecessor that made places of the same size.
    ///
    /// # Errors
    /// EINVAL for anything else; the kernel's.
    pub fn adopt(file: OwnedFd, place: u32) -> io::Result<Self> {
        let foreign = || io::Error::from_raw_os_error(libc::EINVAL);
        let seals = rustix::fs::fcntl_get_seals(&file).map_err(|_| foreign())?;
        let place = u64::from(place);
        let length = u64::try_from(rustix::fs::fstat(&file)?.st_size);
        if !seals.contains(SEALS) || length != Ok(length_of(place)) {
            return Err(foreign());
        }
        Ok(Self { file, place })
    }

    /// The file, for the keeper and for readers.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The requests that nobody has answered, as `is_waiting` says of their numbers. To be asked while nobody reads.
    ///
    /// # Errors
    /// The kernel's, and those of `is_waiting`.
    pub fn unanswered(
        &self,
        mut is_waiting: impl FnMut(u64) -> io::Result<bool>,
    ) -> io::Result<Vec<Unanswered>> {
        let mut found = Vec::new();
        for place in 0..PLACES {
            let header = self.header(place)?;
            let unique = number(&header, UNIQUE) & !RESENT;
            // Odd numbers are interrupts of the request before, and have no answer.
            if unique == 0 || unique % 2 == 1 || !is_waiting(unique)? {
                continue;
            }
            found.push(Unanswered {
                unique,
                request: self.request(place, &header)?,
                place,
            });
        }
        Ok(found)
    }

    /// The orders to forget that are not carried out to their end. To be asked while nobody reads.
    ///
    /// # Errors
    /// The kernel's.
    pub fn left_forgets(&self, forgets: &Forgets) -> io::Result<Vec<LeftForgets>> {
        let mut found = Vec::new();
        for place in 0..PLACES {
            let header = self.header(place)?;
            let opcode = low(number(&header, 0) >> 32);
            if opcode != FORGET && opcode != BATCH_FORGET {
                continue;
            }
            let left = LeftForgets {
                place,
                unique: number(&header, UNIQUE),
                entries: entries_of(&self.request(place, &header)?),
            };
            let (done, _) = forgets.mark(place, left.unique).progress();
            if done < left.entries.len() {
                found.push(left);
            }
        }
        Ok(found)
    }

    /// Where so many readers can have their requests, all zero. What is `kept` stays, everything else goes.
    ///
    /// # Errors
    /// ENOMEM or ENOSPC where the host has no memory; ENOBUFS where too many places are kept.
    pub fn make_room(&self, kept: &[usize], readers: usize) -> io::Result<Vec<u64>> {
        let mut given = Vec::new();
        for place in (0..PLACES).filter(|place| !kept.contains(place)) {
            let offset = self.offset(place);
            let give_back = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE;
            rustix::fs::fallocate(&self.file, give_back, offset, self.place)?;
            if given.len() < readers {
                let take = FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&self.file, take, offset, self.place)?;
                given.push(offset);
            }
        }
        match given.len() == readers {
            true => Ok(given),
            false => Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
        }
    }

    /// The place that begins at this offset, where places have so many bytes.
    pub fn place_at(offset: u64, place: u32) -> usize {
        usize::try_from(offset / u64::from(place.max(1))).unwrap_or(usize::MAX)
    }

    fn offset(&self, place: usize) -> u64 {
        u64::try_from(place).unwrap_or(0) * self.place
    }

    fn header(&self, place: usize) -> io::Result<Vec<u8>> {
        self.read(self.offset(place), HEADER)
    }

    fn request(&self, place: usize, header: &[u8]) -> io::Result<Vec<u8>> {
        let claimed = u64::from(low(number(header, 0)));
        let length = usize::try_from(claimed.min(self.place)).unwrap_or(HEADER);
        self.read(self.offset(place), length)
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = rustix::io::pread(&self.file, &mut bytes, offset)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

fn length_of(place: u64) -> u64 {
    u64::try_from(PLACES).unwrap_or(0) * place
}

/// The nodes that an order to forget names; as many as are there, whatever it claims.
fn entries_of(request: &[u8]) -> Vec<(NodeId, u64)> {
    if low(number(request, 0) >> 32) == FORGET {
        let node = NodeId::new(number(request, NODE));
        return vec![(node, number(request, HEADER))];
    }
    let claimed = usize::try_from(low(number(request, HEADER))).unwrap_or(0);
    let pairs = request.get(HEADER + BATCH..).unwrap_or_default();
    let pair = |bytes: &[u8]| (NodeId::new(number(bytes, 0)), number(bytes, 8));
    pairs.chunks_exact(PAIR).take(claimed).map(pair).collect()
}

fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    word.map_or(0, |word| u64::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sys::shared_map::SharedMap;

    const PLACE: u32 = 8192;

    fn write(intake: &Intake, offset: u64, unique: u64, length: u32) -> Vec<u8> {
        let mut request = vec![7; usize::try_from(length).unwrap()];
        request[..4].copy_from_slice(&length.to_ne_bytes());
        request[UNIQUE..UNIQUE + 8].copy_from_slice(&unique.to_ne_bytes());
        rustix::io::pwrite(&intake.file, &request, offset).unwrap();
        request
    }

    fn waiting(intake: &Intake, numbers: &[u64]) -> Vec<Unanswered> {
        intake
            .unanswered(|unique| Ok(numbers.contains(&unique)))
            .unwrap()
    }

    fn places(found: &[Unanswered]) -> Vec<usize> {
        found.iter().map(|request| request.place).collect()
    }

    /// An order as the kernel writes it.
    fn order(intake: &Intake, offset: u64, unique: u64, opcode: u32, words: &[u64]) {
        let length = u32::try_from(HEADER + 8 * words.len()).unwrap();
        write(intake, offset, unique, length);
        let mut body = opcode.to_ne_bytes().to_vec();
        rustix::io::pwrite(&intake.file, &body, offset + 4).unwrap();
        body = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        rustix::io::pwrite(&intake.file, &body, offset + 40).unwrap();
    }

    // S85: orders to forget are found, as far as they are not carried out.
    #[test]
    fn orders_to_forget_are_found_until_they_are_done() {
        let map = SharedMap::create(c"test", super::super::layout::FIXED).unwrap();
        let forgets = Forgets::new(Arc::new(map));
        let intake = Intake::create(PLACE).unwrap();
        let given = intake.make_room(&[], 3).unwrap();
        order(&intake, given[0], 2, BATCH_FORGET, &[2, 100, 1, 200, 5]);
        order(&intake, given[1], 4, FORGET, &[7]);
        let node = 300_u64.to_ne_bytes();
        rustix::io::pwrite(&intake.file, &node, given[1] + 16).unwrap();
        write(&intake, given[2], 6, 64);
        let left = |expected: &[&LeftForgets]| {
            let found = intake.left_forgets(&forgets).unwrap();
            assert!(found.iter().eq(expected.iter().copied()), "{found:?}");
        };
        let order_in = |place, unique, entries: &[(u64, u64)]| LeftForgets {
            place,
            unique,
            entries: entries
                .iter()
                .map(|(id, n)| (NodeId::new(*id), *n))
                .collect(),
        };
        let batch = &order_in(0, 2, &[(100, 1), (200, 5)]);
        let single = &order_in(1, 4, &[(300, 7)]);
        left(&[batch, single]);
        forgets.mark(0, 2).end(0);
        forgets.mark(1, 4).end(0);
        left(&[batch]);
        forgets.mark(0, 2).begin(1, 0);
        left(&[batch]);
        forgets.mark(0, 2).end(1);
        left(&[]);
        // One that claims more than is there ends with what is there.
        order(&intake, given[2], 8, BATCH_FORGET, &[u64::MAX, 100, 1]);
        let short = &order_in(2, 8, &[(100, 1)]);
        left(&[short]);
        let kept = intake.make_room(&[2], 1).unwrap();
        assert_eq!(Intake::place_at(kept[0], PLACE), 0);
        left(&[short]);
        intake.make_room(&[], 1).unwrap();
        left(&[]);
    }

    #[test]
    fn a_successor_finds_what_waits_and_nothing_else() {
        let intake = Intake::create(PLACE).unwrap();
        let given = intake.make_room(&[], 4).unwrap();
        let request = write(&intake, given[1], 12 | RESENT, 5000);
        write(&intake, given[2], 14, 64);
        write(&intake, given[3], 13, 48);
        let intake = Intake::adopt(intake.file, PLACE).unwrap();
        let found = waiting(&intake, &[0, 12, 13, 99]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].unique, &found[0].request), (12, &request));
    }

    #[test]
    fn what_waits_is_not_read_over_and_the_rest_is_gone() {
        let intake = Intake::create(PLACE).unwrap();
        let given = intake.make_room(&[], 2).unwrap();
        let kept = write(&intake, given[0], 2, 64);
        write(&intake, given[1], 4, 64);
        let found = waiting(&intake, &[2]);
        let next = intake.make_room(&places(&found), 2).unwrap();
        assert!(!next.contains(&given[0]) && next.contains(&given[1]));
        assert_eq!(waiting(&intake, &[2, 4])[0].request, kept);
        assert_eq!(waiting(&intake, &[4]), []);
    }

    #[test]
    fn more_than_there_is_room_for_is_refused() {
        let intake = Intake::create(PLACE).unwrap();
        let given = intake.make_room(&[], PLACES).unwrap();
        write(&intake, given[5], 2, 64);
        let found = places(&waiting(&intake, &[2]));
        assert!(intake.make_room(&found, PLACES - 1).is_ok());
        let refused = intake.make_room(&found, PLACES).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOBUFS));
    }

    #[test]
    fn a_request_of_a_wrong_length_ends_with_its_place() {
        let intake = Intake::create(PLACE).unwrap();
        let given = intake.make_room(&[], 1).unwrap();
        write(&intake, given[0], 2, 64);
        for (claimed, length) in [(u32::MAX, 8192), (8, 8), (0, 0)] {
            rustix::io::pwrite(&intake.file, &claimed.to_ne_bytes(), given[0]).unwrap();
            assert_eq!(waiting(&intake, &[2])[0].request.len(), length);
        }
    }

    #[test]
    fn other_files_are_not_adopted() {
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        assert!(Intake::adopt(file, PLACE).is_err());
        let other = Intake::create(PLACE).unwrap();
        assert!(Intake::adopt(other.file, 2 * PLACE).is_err());
    }
}
