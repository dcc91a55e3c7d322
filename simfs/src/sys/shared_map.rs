//! Memory that outlives the process: a memfd, mapped as words that several processes may read and write.
//!
//! The file is as long as its largest content; pages are taken by [`SharedMap::allocate`] before they are used, so that
//! a full host is an error there and no SIGBUS later. Its length is sealed. The memory is gone with the last descriptor.
//!
//! Invariant: a word is named by its index, and an index behind the end names the last word, which nothing uses. So no
//! damage in the memory, and no fault in what computes an index, reaches beyond the mapping.
//! No locks: every word is an atomic.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Bytes of a word.
pub const WORD: usize = 8;

/// What must be sealed before the memory is trusted not to shrink.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// A mapped memfd.
#[derive(Debug)]
pub struct SharedMap {
    fd: OwnedFd,
    base: NonNull<AtomicU64>,
    /// Words in the mapping; at least one.
    words: usize,
}

// SAFETY: the mapping lives as long as the value and is reached through atomics only.
unsafe impl Send for SharedMap {}
// SAFETY: as above.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Makes memory for this many words, all zero; none of it takes room yet.
    ///
    /// # Errors
    /// The kernel's, EINVAL for no words.
    pub fn create(name: &CStr, words: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create(name, flags)?;
        rustix::fs::ftruncate(&fd, bytes_of(words)?)?;
        rustix::fs::fcntl_add_seals(&fd, SEALS)?;
        Self::map(fd, words)
    }

    /// Maps memory that was made by [`Self::create`], here or in another process.
    ///
    /// # Errors
    /// EINVAL for a descriptor of something else; the kernel's.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let foreign = || io::Error::from_raw_os_error(libc::EINVAL);
        if !rustix::fs::fcntl_get_seals(&fd)
            .map_err(|_| foreign())?
            .contains(SEALS)
        {
            return Err(foreign());
        }
        let length = u64::try_from(rustix::fs::fstat(&fd)?.st_size).map_err(|_| foreign())?;
        let length = usize::try_from(length).map_err(|_| foreign())?;
        if !length.is_multiple_of(WORD) {
            return Err(foreign());
        }
        Self::map(fd, length / WORD)
    }

    fn map(fd: OwnedFd, words: usize) -> io::Result<Self> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let length = words
            .checked_mul(WORD)
            .filter(|&length| length > 0)
            .ok_or_else(invalid)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let base =
            unsafe { rustix::mm::mmap(null_mut(), length, access, MapFlags::SHARED, &fd, 0) }?;
        // SAFETY: the advice concerns the mapping just made and changes no content.
        // A core dump would hold gigabytes of zeroes; that it cannot be left out is no fault.
        let _ = unsafe { rustix::mm::madvise(base, length, Advice::LinuxDontDump) };
        let base = NonNull::new(base.cast()).ok_or_else(invalid)?;
        Ok(Self { fd, base, words })
    }

    /// The memory, for handing it on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Words in the mapping.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Takes room for these words, all zero where they had none; what is there stays.
    ///
    /// # Errors
    /// ENOSPC or ENOMEM where the host has none left; EINVAL beyond the end.
    pub fn allocate(&self, start: usize, count: usize) -> io::Result<()> {
        self.fallocate(FallocateFlags::KEEP_SIZE, start, count)
    }

    /// Gives the room of these words back, as far as they fill whole pages; they are zero from then on.
    ///
    /// # Errors
    /// The kernel's; EINVAL beyond the end.
    pub fn free(&self, start: usize, count: usize) -> io::Result<()> {
        let flags = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE;
        self.fallocate(flags, start, count)
    }

    fn fallocate(&self, flags: FallocateFlags, start: usize, count: usize) -> io::Result<()> {
        if start.checked_add(count).is_none_or(|end| end > self.words) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        loop {
            match rustix::fs::fallocate(&self.fd, flags, bytes_of(start)?, bytes_of(count)?) {
                Err(rustix::io::Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// One word.
    pub fn word(&self, index: usize) -> &AtomicU64 {
        let index = index.min(self.words - 1);
        // SAFETY: the index is below `words`, so the word lies in the mapping, which is aligned to pages and lives as
        // long as `self`; the file cannot shrink (sealed). Others reach it only as we do, by atomics.
        unsafe { self.base.add(index).as_ref() }
    }

    /// Words that follow each other; none where they do not all lie in the mapping.
    pub fn run(&self, start: usize, count: usize) -> &[AtomicU64] {
        if start.checked_add(count).is_none_or(|end| end > self.words) {
            return &[];
        }
        // SAFETY: as for `word`, for each of them.
        unsafe { std::slice::from_raw_parts(self.base.add(start).as_ptr(), count) }
    }

    /// Writes bytes into words, the last one filled up with zeroes. In no order that another process could rely on.
    pub fn store_bytes(&self, start: usize, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(WORD).enumerate() {
            let mut word = [0; WORD];
            word.iter_mut()
                .zip(chunk)
                .for_each(|(to, &from)| *to = from);
            self.word(start.saturating_add(index))
                .store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    /// Reads what [`Self::store_bytes`] wrote.
    pub fn load_bytes(&self, start: usize, bytes: &mut [u8]) {
        for (index, chunk) in bytes.chunks_mut(WORD).enumerate() {
            let word = self
                .word(start.saturating_add(index))
                .load(Ordering::Relaxed)
                .to_le_bytes();
            chunk.iter_mut().zip(word).for_each(|(to, from)| *to = from);
        }
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.words * WORD) };
    }
}

fn bytes_of(words: usize) -> io::Result<u64> {
    words
        .checked_mul(WORD)
        .and_then(|bytes| u64::try_from(bytes).ok())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_mapping_writes_the_other_reads() {
        let one = SharedMap::create(c"test", 1024).unwrap();
        let two = SharedMap::adopt(one.fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(two.words(), 1024);
        one.allocate(0, 1024).unwrap();
        one.word(3).store(7, Ordering::Release);
        assert_eq!(two.word(3).load(Ordering::Acquire), 7);
        one.store_bytes(8, b"thirteen byte");
        let mut read = [0; 13];
        two.load_bytes(8, &mut read);
        assert_eq!(&read, b"thirteen byte");
        drop(one);
        two.load_bytes(8, &mut read);
        assert_eq!(&read, b"thirteen byte");
    }

    #[test]
    fn an_index_behind_the_end_names_the_last_word() {
        let map = SharedMap::create(c"test", 512).unwrap();
        map.word(usize::MAX).store(1, Ordering::Relaxed);
        assert_eq!(map.word(511).load(Ordering::Relaxed), 1);
        assert_eq!((map.run(500, 12).len(), map.run(500, 13).len()), (12, 0));
        assert!(map.run(usize::MAX, 2).is_empty());
        assert!(map.allocate(500, 13).is_err() && map.allocate(usize::MAX, 2).is_err());
    }

    #[test]
    fn freed_words_are_zero() {
        let map = SharedMap::create(c"test", 1024).unwrap();
        map.allocate(0, 1024).unwrap();
        map.word(600).store(9, Ordering::Relaxed);
        map.free(512, 512).unwrap();
        assert_eq!(map.word(600).load(Ordering::Relaxed), 0);
    }

    #[test]
    fn other_files_are_not_adopted() {
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        assert!(SharedMap::adopt(file).is_err());
        let open = rustix::fs::memfd_create("open", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&open, 4096).unwrap();
        assert!(SharedMap::adopt(open).is_err(), "it could shrink under us");
        let empty = rustix::fs::memfd_create("empty", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::fcntl_add_seals(&empty, SEALS).unwrap();
        assert!(SharedMap::adopt(empty).is_err());
    }
}
