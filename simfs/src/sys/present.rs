//! Memory that is there before the kernel writes into it.
//!
//! The kernel copies a request into the buffer that read(2) on its device names. A page of it that is missing is brought
//! in then, unless the process is about to be killed: in that case the copy ends, and whoever made the request is told EIO
//! by the kernel itself, beyond the reach of a successor. So the buffers that requests are read into must be present, all
//! that a request can fill of them. The protocol library makes them itself, zeroed, in threads that it starts itself; the
//! only way to them is the program's allocator.
//!
//! They are locked, so that they stay (a limit of locked memory that is too low leaves them present, not locked). Large
//! memory is a mapping of its own and goes back to the kernel, so that nothing else comes to lie on what was locked.
//!
//! A buffer can begin in a file ([`lay_next`]): what was read into it is then still there when the process is not.
//!
//! # Source
//! Linux `fs/fuse/dev.c`, `fuse_dev_do_read`; `mm/gup.c`, `__get_user_pages`; mlock(2).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munmap};

/// Every mapping is aligned to this much.
const MAPPING_ALIGN: usize = 4096;
/// The same, of a file.
const FILE_ALIGN: u64 = 4096;
/// Most buffers that may be waited for.
const NEXT_MAX: usize = 32;

/// Where the next buffers are to begin: [`Start::to_word`], 0 for none. Atomics, since an allocator can take no lock.
static NEXT: [AtomicU64; NEXT_MAX] = [const { AtomicU64::new(0) }; NEXT_MAX];

thread_local! {
    /// Where in the file the last such buffer of this thread begins. Without a destructor, as it is an allocator's.
    static LAID: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A page of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    file: RawFd,
    page: u32,
}

impl Start {
    fn to_word(self) -> u64 {
        u64::from(self.file.unsigned_abs() + 1) << 32 | u64::from(self.page)
    }

    fn of_word(word: u64) -> Option<Self> {
        let low = |word: u64| u32::try_from(word & u64::from(u32::MAX)).ok();
        Some(Self {
            file: low(word >> 32)?.checked_sub(1)?.try_into().ok()?,
            page: low(word)?,
        })
    }

    /// One that was asked for and not taken yet.
    fn take() -> Option<Self> {
        NEXT.iter()
            .find_map(|next| Self::of_word(next.swap(0, Ordering::AcqRel)))
    }

    /// Puts the file's pages in the place of the mapping's first ones.
    fn put_at(self, memory: *mut u8, length: usize) -> bool {
        // SAFETY: who asked for it keeps the file open until it is taken.
        let file = unsafe { BorrowedFd::borrow_raw(self.file) };
        let offset = u64::from(self.page) * FILE_ALIGN;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the range lies in a mapping that nobody else knows yet, and stays readable and writable.
        let laid = unsafe { mmap(memory.cast(), length, access, flags, file, offset) }.is_ok();
        LAID.set(laid.then_some(offset));
        laid
    }
}

/// The next large zeroed buffers of this process begin in the file at these offsets, one in each, with as much as is
/// present. The file must be zero there and as long as that, and stay open until [`all_laid`].
///
/// # Errors
/// EINVAL for too many, or for an offset that is none of a page.
pub fn lay_next(file: BorrowedFd<'_>, offsets: &[u64]) -> io::Result<()> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    if offsets.len() > NEXT_MAX {
        return Err(invalid());
    }
    for (next, &offset) in NEXT.iter().zip(offsets) {
        let page = offset
            .is_multiple_of(FILE_ALIGN)
            .then_some(offset / FILE_ALIGN);
        let page = page.and_then(|page| u32::try_from(page).ok());
        let start = Start {
            file: file.as_raw_fd(),
            page: page.ok_or_else(invalid)?,
        };
        next.store(start.to_word(), Ordering::Release);
    }
    Ok(())
}

/// Whether as many buffers were made since as were asked for.
pub fn all_laid() -> bool {
    NEXT.iter().all(|next| next.load(Ordering::Acquire) == 0)
}

/// Where in its file the buffer begins that this thread made by [`lay_next`].
pub fn laid_here() -> Option<u64> {
    LAID.get()
}

/// The system's allocator, but for large zeroed memory, the start of which is present from the beginning.
#[derive(Debug)]
pub struct PresentBuffers {
    large: usize,
    present: usize,
}

impl PresentBuffers {
    /// Zeroed memory of at least `large` bytes gets its first `present` bytes at once; no more than it has.
    pub const fn new(large: usize, present: usize) -> Self {
        Self { large, present }
    }

    fn is_mapping(&self, layout: Layout) -> bool {
        layout.size() >= self.large && layout.align() <= MAPPING_ALIGN
    }
}

// SAFETY: `layout` alone says whether memory is a mapping or the system allocator's, so each goes back where it came from;
// a mapping has the size and alignment asked for, and zeros.
unsafe impl GlobalAlloc for PresentBuffers {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.is_mapping(layout) {
            true => map(layout.size()),
            // SAFETY: the caller's duty, the same as ours.
            false => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !self.is_mapping(layout) {
            // SAFETY: the caller's duty, the same as ours.
            return unsafe { System.alloc_zeroed(layout) };
        }
        let memory = map(layout.size());
        if memory.is_null() {
            return memory;
        }
        let present = self.present.min(layout.size());
        if let Some(start) = Start::take()
            && !start.put_at(memory, present)
        {
            // SAFETY: `map` made it with this size.
            let _ = unsafe { munmap(memory.cast(), layout.size()) };
            return null_mut();
        }
        bring_in(memory, present);
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        match self.is_mapping(layout) {
            // SAFETY: `map` made it with this size.
            true => drop(unsafe { munmap(memory.cast(), layout.size()) }),
            // SAFETY: the memory came from `System` with this layout.
            false => unsafe { System.dealloc(memory, layout) },
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's duty: not zero, no overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if !self.is_mapping(layout) && !self.is_mapping(wanted) {
            // SAFETY: the memory came from `System` with this layout.
            return unsafe { System.realloc(memory, layout, size) };
        }
        // SAFETY: both are live and apart from each other, and as long as what is copied.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(memory, layout.size().min(size));
                self.dealloc(memory, layout);
            }
            moved
        }
    }
}

/// A mapping, all zeros; null where there is no room for it.
fn map(length: usize) -> *mut u8 {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
    let mapped = unsafe { mmap_anonymous(null_mut(), length, access, MapFlags::PRIVATE) };
    mapped.map_or(null_mut(), |base| base.cast())
}

/// Brings the start of a mapping in. Where the kernel has no memory left it is as if this had not been tried.
fn bring_in(memory: *mut u8, length: usize) {
    // SAFETY: the range lies in a mapping that nobody else knows yet; what it holds stays as it is.
    let _ = unsafe { madvise(memory.cast(), length, Advice::LinuxPopulateWrite) };
    // SAFETY: as above.
    let _ = unsafe { mlock(memory.cast(), length) };
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;

    const LARGE: usize = 8 << 20;
    const PRESENT: usize = 100_000;
    const ALLOCATOR: PresentBuffers = PresentBuffers::new(LARGE, PRESENT);

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    /// Whether each page of a mapping's part is there (mincore(2)).
    fn presence(start: *mut u8, length: usize) -> Vec<bool> {
        let mut pages = vec![0_u8; length.div_ceil(MAPPING_ALIGN)];
        // SAFETY: the vector has a byte for each page of the range.
        let result = unsafe { libc::mincore(start.cast(), length, pages.as_mut_ptr()) };
        assert_eq!(result, 0);
        pages.into_iter().map(|page| page & 1 == 1).collect()
    }

    /// KiB that are locked of the mapping that begins here (proc_pid_smaps(5)).
    fn locked(start: *mut u8) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let begin = format!("{:x}-", start.addr());
        let mapping = maps
            .lines()
            .skip_while(|line| !line.trim_start_matches('0').starts_with(&begin));
        let mut figures = mapping.filter_map(|line| line.strip_prefix("Locked:"));
        let figure = figures.next().unwrap().trim().trim_end_matches(" kB");
        figure.parse().unwrap()
    }

    #[test]
    fn the_start_of_large_zeroed_memory_is_present_and_stays() {
        // SAFETY: the layout is not empty; the memory is given back as it came, once.
        unsafe {
            let memory = ALLOCATOR.alloc_zeroed(layout(LARGE));
            assert!(presence(memory, PRESENT).iter().all(|&page| page));
            let behind = PRESENT.next_multiple_of(MAPPING_ALIGN);
            let rest = presence(memory.add(behind), LARGE - behind);
            assert!(!rest.iter().any(|&page| page), "and no more than that");
            assert_eq!(locked(memory) * 1024, behind);
            ALLOCATOR.dealloc(memory, layout(LARGE));
        }
    }

    #[test]
    fn what_is_read_into_the_next_buffer_is_in_the_file() {
        // A page of its own size: other tests of this process make buffers as well.
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        let present = PRESENT.next_multiple_of(MAPPING_ALIGN);
        rustix::fs::ftruncate(&file, 1 << 20).unwrap();
        let start = Start {
            file: file.as_raw_fd(),
            page: 3,
        };
        assert_eq!(Start::of_word(start.to_word()), Some(start));
        // SAFETY: as above.
        unsafe {
            let memory = map(LARGE);
            assert!(start.put_at(memory, present));
            assert_eq!(laid_here(), Some(3 * FILE_ALIGN));
            bring_in(memory, present);
            assert!(presence(memory, present).iter().all(|&page| page));
            memory.write(7);
            memory.add(present).write(8);
            ALLOCATOR.dealloc(memory, layout(LARGE));
        }
        let mut read = [0; 1];
        rustix::io::pread(&file, &mut read, 3 * FILE_ALIGN).unwrap();
        assert_eq!(read, [7]);
        let behind = 3 * FILE_ALIGN + u64::try_from(present).unwrap();
        rustix::io::pread(&file, &mut read, behind).unwrap();
        assert_eq!(read, [0], "only so much of it");
    }

    #[test]
    fn where_buffers_cannot_begin_is_refused() {
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        for offsets in [&[1][..], &[u64::MAX - FILE_ALIGN + 1], &[0; NEXT_MAX + 1]] {
            assert!(lay_next(file.as_fd(), offsets).is_err(), "{offsets:?}");
            assert!(all_laid());
        }
        assert_eq!(Start::of_word(0), None);
    }

    #[test]
    fn other_large_memory_costs_nothing_before_it_is_used() {
        // SAFETY: as above.
        unsafe {
            let memory = ALLOCATOR.alloc(layout(LARGE));
            assert!(!presence(memory, LARGE).iter().any(|&page| page));
            ALLOCATOR.dealloc(memory, layout(LARGE));
        }
    }

    #[test]
    fn what_grows_and_shrinks_over_the_border_keeps_its_content() {
        let sizes = [LARGE - 8, LARGE, 2 * LARGE, LARGE - 8];
        // SAFETY: each layout is that of the size before; nothing beyond the smallest is looked at.
        unsafe {
            let mut memory = ALLOCATOR.alloc_zeroed(layout(sizes[0]));
            memory.add(LARGE - 9).write(7);
            for pair in sizes.windows(2) {
                memory = ALLOCATOR.realloc(memory, layout(pair[0]), pair[1]);
                assert_eq!((memory.read(), memory.add(LARGE - 9).read()), (0, 7));
            }
            ALLOCATOR.dealloc(memory, layout(sizes[3]));
        }
    }
}
