//! What requests are read into, where the kernel sends none again (before Linux 6.9).
//!
//! There a request that was read and not answered would keep its caller waiting, beyond any signal, as long as the mount
//! lives. But the kernel takes a request out of its queue and copies it in one system call. If what it is copied to
//! outlives the process, then at any moment of a death each such request stands here, whole; which of those that stand here
//! wait for an answer still, the kernel tells ([`crate::sys::fuse_dev::is_waiting`]). So nothing is to be noted beside.
//!
//! ```text
//! place 0 .. 63, each: struct fuse_in_header and what follows it, as the kernel wrote it; the rest is of older ones
//! ```
//! Invariants:
//! 1. A place with a request that waits is given to no reader: only a successor that finds it answered has it read over.
//! 2. What stands here carries no seal. A number that nobody waits for is nothing; what else is wrong with a request its
//!    decoder finds out, as with one that comes from the kernel.
//!
//! No locks: a place belongs to one reader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

use super::flights::RESENT;

/// Most requests that were left unanswered and readers together. As many as a mount may see deaths without an answer,
/// before it is given up, times the readers of each, and more.
const PLACES: u64 = 64;
/// What must be sealed before the file is mapped: a page that vanishes is a signal.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);
/// `struct fuse_in_header`, in bytes.
const HEADER: usize = 40;
/// Where in it the number stands.
const UNIQUE: usize = 8;

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
    offset: u64,
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
        rustix::fs::ftruncate(&file, PLACES * place)?;
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
        if !seals.contains(SEALS) || length != Ok(PLACES * place) {
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
        for offset in self.offsets() {
            let header = self.read(offset, HEADER)?;
            let unique = number(&header, UNIQUE) & !RESENT;
            // Odd numbers are interrupts of the request before, and have no answer.
            if unique == 0 || unique % 2 == 1 || !is_waiting(unique)? {
                continue;
            }
            let claimed = number(&header, 0) & u64::from(u32::MAX);
            let length = usize::try_from(claimed.min(self.place)).unwrap_or(HEADER);
            found.push(Unanswered {
                unique,
                request: self.read(offset, length)?,
                offset,
            });
        }
        Ok(found)
    }

    /// Where so many readers can have their requests, all zero. What is `kept` stays, everything else goes.
    ///
    /// # Errors
    /// ENOMEM or ENOSPC where the host has no memory; ENOBUFS where too many requests wait.
    pub fn make_room(&self, kept: &[Unanswered], readers: usize) -> io::Result<Vec<u64>> {
        let mut given = Vec::new();
        for offset in self.offsets() {
            if kept.iter().any(|request| request.offset == offset) {
                continue;
            }
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

    fn offsets(&self) -> impl Iterator<Item = u64> + use<> {
        let place = self.place;
        (0..PLACES).map(move |index| index * place)
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = rustix::io::pread(&self.file, &mut bytes, offset)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    word.map_or(0, |word| u64::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let next = intake.make_room(&found, 2).unwrap();
        assert!(!next.contains(&given[0]) && next.contains(&given[1]));
        assert_eq!(waiting(&intake, &[2, 4])[0].request, kept);
        assert_eq!(waiting(&intake, &[4]), []);
    }

    #[test]
    fn more_than_there_is_room_for_is_refused() {
        let intake = Intake::create(PLACE).unwrap();
        let all = usize::try_from(PLACES).unwrap();
        let given = intake.make_room(&[], all).unwrap();
        write(&intake, given[5], 2, 64);
        let found = waiting(&intake, &[2]);
        assert!(intake.make_room(&found, all - 1).is_ok());
        let refused = intake.make_room(&found, all).unwrap_err();
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
