//! The most that an operation can add to `st_blocks`, per backing file system.                             (pure)
//!
//! What is promised before an operation must not be less than what it takes, or a limit could be passed; what it
//! took is read from the inode afterwards. So these are upper bounds, and a second, tighter set for the last few
//! blocks below a limit.
//!
//! # Source
//! ext4: kernel documentation `filesystems/ext4` (directory entries, hash trees, extents: 4 in the inode, 340 in a block of
//! 4 KiB); `fs/ext4/namei.c` (an insertion splits one leaf, and where the index is full its nodes). xfs: a
//! directory goes short form, block, leaf, node. btrfs and tmpfs keep names and extended attributes outside
//! `st_blocks`.

use quota::Bytes;

use crate::private::Backing;
use crate::sys::stat::{FileKind, Stat};

/// Extents that one ext4 tree block of 4 KiB describes.
const EXTENTS_PER_BLOCK: u64 = 340;
/// Bytes of a symbolic link's target that ext4 keeps in the inode.
const EXT4_FAST_SYMLINK: u64 = 60;
/// A symbolic link of at most this length stays in an xfs inode of any size.
const XFS_INLINE_SYMLINK: u64 = 128;
/// Header of a directory entry on ext4.
const EXT4_DIRENT_HEADER: u64 = 8;
/// Checksum entry at the end of a directory block.
const EXT4_DIRENT_TAIL: u64 = 12;

/// Upper bounds for one backing file system.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    backing: Backing,
    block: u64,
}

impl Growth {
    /// Bounds for this file system with this block size in bytes.
    pub fn new(backing: Backing, block_size: u64) -> Self {
        Self {
            backing,
            block: block_size.max(512),
        }
    }

    /// The unit of allocation in bytes.
    pub fn block(&self) -> u64 {
        self.block
    }

    /// The end of the last whole block at or before this offset.
    pub fn floor(&self, offset: u64) -> u64 {
        offset - offset % self.block
    }

    /// The start of the first block at or after this offset.
    pub fn ceil(&self, offset: u64) -> u64 {
        offset
            .checked_next_multiple_of(self.block)
            .unwrap_or(u64::MAX)
    }

    /// Data blocks of a range, were none of them allocated yet.
    pub fn data(&self, offset: u64, length: u64) -> Bytes {
        if length == 0 {
            return Bytes::ZERO;
        }
        let end = self.ceil(offset.saturating_add(length));
        Bytes::new(end - self.floor(offset))
    }

    /// Whether content that is written again stays in its blocks. Elsewhere a copy may share them, or each write takes new
    /// ones before it gives the old ones back.
    pub fn writes_in_place(&self) -> bool {
        matches!(self.backing, Backing::Ext4 | Backing::Tmpfs)
    }

    /// Up to where a file can be written that has no hole before `end`: the edge of its last block, where it has one.
    ///
    /// # Source
    /// Linux `fs/ext4/inline.c`: less than a block of content may lie in the inode, and moves to a block when it grows.
    pub fn allocated_to(&self, end: u64, seen: &Stat) -> u64 {
        let edge = self.ceil(end);
        let has_blocks = end > self.block && seen.blocks.bytes().get() >= edge;
        if self.writes_in_place() && has_blocks {
            edge
        } else {
            end
        }
    }

    /// Space behind the end of a file that the backing file system takes on its own account when the file grows, for a file
    /// that occupies this much.
    ///
    /// # Source
    /// Linux `fs/xfs/xfs_iomap.c`, `xfs_iomap_prealloc_size`: at least 64 KiB, at most twice the extent before.
    pub fn preallocation(&self, allocated: u64) -> Bytes {
        match self.backing {
            Backing::Xfs => Bytes::new(allocated.saturating_mul(2).saturating_add(64 << 10)),
            _ => Bytes::ZERO,
        }
    }

    /// Whether a file of this size that occupies this much may hold space behind its end, which the close of a writer gives
    /// back though nothing was written. A file with holes may, whatever it occupies.
    ///
    /// # Source
    /// Linux `fs/xfs/xfs_file.c`, `xfs_file_release`.
    pub fn has_tail(&self, size: u64, occupied: Bytes) -> bool {
        match self.backing {
            Backing::Ext4 | Backing::Btrfs | Backing::Tmpfs => false,
            Backing::Xfs | Backing::Overlay | Backing::Other(_) => {
                !occupied.is_zero() && occupied.get() != self.ceil(size)
            }
        }
    }

    /// What the old end of a file of this size may take when the file grows beyond it: its partial last block may lie in a
    /// hole, and content that is kept with the inode moves to a block of its own.
    ///
    /// # Source
    /// Linux `fs/btrfs/inode.c`, `btrfs_cont_expand` and inline extents.
    pub fn old_end(&self, size: u64, offset: u64) -> Bytes {
        match self.backing {
            Backing::Btrfs if offset > size || size <= self.block => self.blocks(2),
            _ => Bytes::ZERO,
        }
    }

    /// Blocks that describe extents and appear only when the data is written out: for a file of this many allocated bytes
    /// of which `unsettled` were written since the allocation was last known.
    pub fn metadata(&self, allocated: u64, unsettled: u64) -> Bytes {
        let in_inode = match self.backing {
            Backing::Btrfs | Backing::Tmpfs => return Bytes::ZERO,
            Backing::Xfs => 8,
            _ => 4,
        };
        if unsettled == 0 || allocated <= in_inode * self.block {
            return Bytes::ZERO;
        }
        let extents = unsettled / self.block;
        self.blocks(1 + extents / EXTENTS_PER_BLOCK)
    }

    /// The most bytes that can be allocated at once if their extents may take this much.
    pub fn step(&self, extents: Bytes) -> u64 {
        let blocks = extents.get() / self.block;
        let data = blocks.saturating_mul(EXTENTS_PER_BLOCK).saturating_sub(1);
        data.saturating_mul(self.block)
    }

    /// What one more name can add to a directory that occupies `occupied` bytes.
    pub fn directory(&self, occupied: Bytes) -> Bytes {
        let size = occupied.get();
        match self.backing {
            Backing::Btrfs | Backing::Tmpfs => Bytes::ZERO,
            Backing::Xfs if size == 0 => self.blocks(2),
            Backing::Xfs => self.blocks(6),
            // Up to 400 leaves the index cannot be full: a leaf, and the first block of an extent tree.
            _ if size <= 400 * self.block => self.blocks(2),
            _ => self.blocks(5),
        }
    }

    /// What a new inode can occupy; `target` is the length of a symbolic link's target.
    pub fn new_inode(&self, kind: FileKind, target: u64) -> Bytes {
        // An inherited access list or a security label may need a block of its own.
        let attributes = match self.backing {
            Backing::Btrfs | Backing::Tmpfs => 0,
            _ => self.block,
        };
        Bytes::new(attributes).saturating_add(self.bare_inode(kind, target))
    }

    /// What a new inode occupies that inherits no extended attribute.
    pub fn bare_inode(&self, kind: FileKind, target: u64) -> Bytes {
        match (self.backing, kind) {
            (Backing::Btrfs | Backing::Tmpfs, FileKind::Symlink) => self.blocks(1),
            (Backing::Btrfs | Backing::Tmpfs, _) => Bytes::ZERO,
            (Backing::Xfs, FileKind::Directory) => Bytes::ZERO,
            (Backing::Xfs, FileKind::Symlink) if target <= XFS_INLINE_SYMLINK => Bytes::ZERO,
            (Backing::Xfs, FileKind::Symlink) => self.blocks(1 + target / self.block + 1),
            (_, FileKind::Directory) => self.blocks(1),
            (_, FileKind::Symlink) if target < EXT4_FAST_SYMLINK => Bytes::ZERO,
            (_, FileKind::Symlink) => self.blocks(1),
            _ => Bytes::ZERO,
        }
    }

    /// What an extended attribute of this length can add.
    pub fn attribute(&self, length: u64) -> Bytes {
        match self.backing {
            Backing::Btrfs | Backing::Tmpfs => Bytes::ZERO,
            _ => self.blocks(length.div_ceil(self.block) + 2),
        }
    }

    /// Whether one more name fits a directory of one block for certain, whatever the gaps between its names.
    ///
    /// A gap is left behind each name that was removed; a new entry needs one gap as large as itself. If the gaps add
    /// up to more than each of them being too small would allow, one of them is large enough.
    pub fn fits_one_block(
        &self,
        occupied: Bytes,
        names: impl Iterator<Item = usize>,
        new: usize,
    ) -> bool {
        if matches!(self.backing, Backing::Btrfs | Backing::Tmpfs) {
            return true;
        }
        if !matches!(self.backing, Backing::Ext4) || occupied.get() != self.block {
            return false;
        }
        let need = entry_size(new);
        let (count, used) = names.fold((0u64, 0u64), |(count, used), name| {
            (count + 1, used + entry_size(name))
        });
        let free = self.block.saturating_sub(EXT4_DIRENT_TAIL + used);
        free > count.saturating_mul(need.saturating_sub(4))
    }

    fn blocks(&self, count: u64) -> Bytes {
        Bytes::new(count.saturating_mul(self.block))
    }
}

fn entry_size(name: usize) -> u64 {
    let name = u64::try_from(name).unwrap_or(u64::MAX / 2);
    (EXT4_DIRENT_HEADER + name).next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use quota::Sectors;

    use super::*;

    const EXT4: Growth = Growth {
        backing: Backing::Ext4,
        block: 4096,
    };

    #[test]
    fn data_rounds_out_to_blocks() {
        assert_eq!(EXT4.data(0, 0), Bytes::ZERO);
        assert_eq!(EXT4.data(4095, 2), Bytes::new(8192));
        assert_eq!(EXT4.data(u64::MAX - 1, 1).get() % 4096, 4095);
    }

    #[test]
    fn a_small_file_needs_no_extent_block() {
        assert_eq!(EXT4.metadata(4 * 4096, 4 * 4096), Bytes::ZERO);
        assert_eq!(EXT4.metadata(5 * 4096, 5 * 4096), Bytes::new(4096));
        assert_eq!(EXT4.metadata(1 << 30, 340 * 4096), Bytes::new(8192));
        assert_eq!(EXT4.metadata(1 << 30, 0), Bytes::ZERO);
    }

    /// Each gap is one step too small for the new name: then it need not fit, and the answer must be no.
    #[test]
    fn gaps_that_are_all_too_small_do_not_count_as_room() {
        let one = Bytes::new(4096);
        assert!(EXT4.fits_one_block(one, [1usize, 2].into_iter(), 8));
        // 340 entries of 12 bytes fill the block but for a few bytes.
        assert!(!EXT4.fits_one_block(one, std::iter::repeat_n(4usize, 339), 4));
        assert!(!EXT4.fits_one_block(one, std::iter::repeat_n(4usize, 170), 16));
        assert!(!EXT4.fits_one_block(Bytes::new(8192), std::iter::empty(), 1));
    }

    #[test]
    fn a_last_block_is_known_where_it_stays_in_its_place() {
        let known = |backing, end, blocks: u64| {
            let seen = Stat {
                blocks: Sectors::new(blocks * 8),
                ..Stat::of_gone(1, 0)
            };
            Growth::new(backing, 4096).allocated_to(end, &seen)
        };
        assert_eq!(known(Backing::Ext4, 5000, 2), 8192);
        assert_eq!(known(Backing::Ext4, 8192, 2), 8192);
        assert_eq!(
            known(Backing::Ext4, 5000, 1),
            5000,
            "there is no such block"
        );
        assert_eq!(
            known(Backing::Ext4, 100, 1),
            100,
            "attributes, and content in the inode"
        );
        assert_eq!(known(Backing::Xfs, 5000, 2), 5000, "a copy may share it");
        assert_eq!(known(Backing::Btrfs, 5000, 2), 5000);
    }

    #[test]
    fn only_a_dense_file_on_xfs_has_surely_no_tail() {
        let tail = |backing, size, occupied| {
            Growth::new(backing, 4096).has_tail(size, Bytes::new(occupied))
        };
        assert!(!tail(Backing::Xfs, 10_000, 12_288));
        assert!(!tail(Backing::Xfs, 10_000, 0));
        assert!(tail(Backing::Xfs, 10_000, 65_536));
        assert!(
            tail(Backing::Xfs, 1_000_000, 65_536),
            "with holes, who knows"
        );
        assert!(!tail(Backing::Ext4, 10_000, 65_536));
    }
}
