//! The allocator's memory.

/// Gives the kernel back what the allocator holds and nobody uses, from between what is used as well.
///
/// # Source
/// malloc_trim(3).
pub fn trim() {
    // SAFETY: it takes no pointer and touches only what the allocator has free.
    let _ = unsafe { libc::malloc_trim(0) };
}
