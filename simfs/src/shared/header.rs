//! What never changes after creation: to whom the memory belongs, and how it is laid out.

use std::sync::atomic::Ordering;

use quota::VeId;

use super::layout::{MAGIC, TOTAL, VERSION, seal};
use crate::private::{Backing, PrivateArea};
use crate::sys::handle::HANDLE_MAX;
use crate::sys::shared_map::SharedMap;

/// What the records are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The VE.
    pub ve: VeId,
    /// Bytes for the kernel file handle of a node; a multiple of eight, at most [`crate::sys::handle::HANDLE_MAX`].
    pub handle_bytes: usize,
}

/// Why shared memory is not used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// It cannot be mapped.
    #[error("the saved state cannot be mapped: {0}")]
    Map(String),
    /// It is something else.
    #[error("what was handed over is no saved state of simfs")]
    Foreign,
    /// A program with another layout made it.
    #[error(
        "the saved state has version {found}, this program reads {VERSION}: start the program that made it, or unmount and mount again"
    )]
    Version {
        /// The version found.
        found: u64,
    },
    /// Its header is damaged.
    #[error("the header of the saved state is damaged")]
    Damaged,
}

impl Shape {
    /// For a VE with this private area: with room for the handles that its file system makes.
    ///
    /// # Source
    /// Linux: fs/ext4/namei.c and fs/exportfs (8 or 12 bytes), fs/xfs/xfs_export.c (at most 20), fs/btrfs/export.h (20),
    /// mm/shmem.c (12).
    pub fn for_area(ve: VeId, area: &PrivateArea) -> Self {
        let handle_bytes = match area.backing() {
            Backing::Ext4 | Backing::Tmpfs => 16,
            Backing::Xfs | Backing::Btrfs => 24,
            Backing::Overlay | Backing::Other(_) => HANDLE_MAX,
        };
        Self { ve, handle_bytes }
    }
}

const WORDS: usize = 5;

pub(super) fn write(map: &SharedMap, shape: Shape) {
    let words = words_of(shape);
    for (index, word) in words.into_iter().enumerate() {
        map.word(index).store(word, Ordering::Relaxed);
    }
    map.word(WORDS).store(seal(0, &words), Ordering::Release);
}

pub(super) fn read(map: &SharedMap) -> Result<Shape, Refused> {
    let words: [u64; WORDS] = std::array::from_fn(|index| map.word(index).load(Ordering::Relaxed));
    let [magic, version, ve, handle_bytes, total] = words;
    if magic != MAGIC {
        return Err(Refused::Foreign);
    }
    if seal(0, &words) != map.word(WORDS).load(Ordering::Acquire) {
        // Seals of another version may be made in another way.
        return Err(if version == VERSION {
            Refused::Damaged
        } else {
            Refused::Version { found: version }
        });
    }
    let shape = u32::try_from(ve)
        .ok()
        .map(VeId::new)
        .zip(usize::try_from(handle_bytes).ok())
        .map(|(ve, handle_bytes)| Shape { ve, handle_bytes })
        .filter(|shape| is_possible(*shape) && usize::try_from(total) == Ok(TOTAL));
    shape
        .filter(|_| map.words() == TOTAL)
        .ok_or(Refused::Damaged)
}

pub(super) fn is_possible(shape: Shape) -> bool {
    let bytes = shape.handle_bytes;
    bytes > 0 && bytes.is_multiple_of(8) && bytes <= HANDLE_MAX
}

fn words_of(shape: Shape) -> [u64; WORDS] {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    [
        MAGIC,
        VERSION,
        u64::from(shape.ve.get()),
        number(shape.handle_bytes),
        number(TOTAL),
    ]
}
