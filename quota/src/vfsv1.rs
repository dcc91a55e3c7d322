//! Quota files of the Linux quota tools (`aquota.user`, `aquota.group`): import and export.
//!
//! Format *vfsv1* (64-bit) is read and written, *vfsv0* (32-bit limits) is read. A file is a row of blocks of 1 KiB,
//! all numbers little-endian:
//! ```text
//! block 0    header (8 bytes), then info (24 bytes)                          see `header`
//! block 1    root of a radix tree over the 32 bits of an id, 8 bits a level  see `tree`
//! others     tree blocks, data blocks with the entries, free blocks          see `entry`
//! ```
//!
//! Units differ within an entry: limits of space are in blocks of 1 KiB, usage of space is in bytes, times are seconds
//! since 1970. Zero is "no limit" and "no deadline".
//!
//! Invariants:
//! 1. No input panics or loops: a tree block is entered once, a reference leads to a block of the file.
//! 2. `read(write(file)) == file` for entries in the order of ids whose limits are whole blocks above zero.
//!
//! # Source
//! Linux `fs/quota/quota_tree.c`, `fs/quota/quotaio_v2.h`; linuxquota `quotaio_v2.h`, `quotaio_tree.h`.

use crate::grace::{Deadlines, GracePeriods};
use crate::limit::Limits;
use crate::subject::QuotaType;
use crate::usage::Usage;

mod entry;
mod header;
mod tree;

/// Bytes in one block.
const BLOCK: usize = 1024;

/// The content of a quota file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaFile {
    /// Whether the ids are users or groups.
    pub kind: QuotaType,
    /// The grace periods of all entries. The file has 32 bits for each; longer ones are written as the longest.
    pub grace: GracePeriods,
    /// One entry per id, in the order of ids.
    pub entries: Vec<QuotaFileEntry>,
}

/// What a quota file holds of one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaFileEntry {
    /// User or group.
    pub id: u32,
    /// Limits.
    pub limits: Limits,
    /// Usage at the time the file was written.
    pub usage: Usage,
    /// Running deadlines.
    pub deadlines: Deadlines,
}

/// Why bytes are not a quota file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuotaFileError {
    /// The file ends within its first two blocks.
    #[error("not a quota file: {len} bytes are fewer than its header and tree need")]
    Short {
        /// Length of the file.
        len: usize,
    },
    /// The first bytes are not those of a user or group file.
    #[error("not a quota file: it begins with {found:#010x}")]
    Magic {
        /// The first four bytes.
        found: u32,
    },
    /// A format that is not known.
    #[error("quota file has version {found}; vfsv0 (0) and vfsv1 (1) can be read")]
    Version {
        /// Version number in the header.
        found: u32,
    },
    /// A block does not hold what it should.
    #[error("quota file is damaged in block {block}: {reason}")]
    Block {
        /// Number of the block.
        block: u32,
        /// What is wrong.
        reason: BlockFault,
    },
}

/// What is wrong with a block of a quota file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockFault {
    /// It refers to a block that is not there.
    #[error("it refers to block {target}, the file has {blocks}")]
    Reference {
        /// The block referred to.
        target: u32,
        /// Blocks in the file.
        blocks: u32,
    },
    /// The tree refers to it twice.
    #[error("the tree comes back to it")]
    Cycle,
    /// It is a block of the tree and a block of entries.
    #[error("it is used for the tree and for entries")]
    Mixed,
    /// The tree says that an id is here, but it is not.
    #[error("entry of id {id} is not there")]
    NoEntry {
        /// The id.
        id: u32,
    },
    /// An entry has a number that cannot be right.
    #[error("entry of id {id} has an impossible {field}")]
    Field {
        /// The entry's id.
        id: u32,
        /// The field.
        field: &'static str,
    },
}

/// Reads a quota file.
///
/// # Errors
/// [`QuotaFileError`], which names the block and what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<QuotaFile, QuotaFileError> {
    let header = header::Header::read(bytes)?;
    let entries = tree::read(bytes, &header)?;
    Ok(QuotaFile {
        kind: header.kind,
        grace: header.grace,
        entries,
    })
}

/// Writes a quota file of format vfsv1.
///
/// What the format cannot say becomes the nearest stricter value: a limit of nothing becomes one block or one inode
/// (zero would lift it), a limit within a block is rounded up to the whole one. Of several entries with one id the
/// last counts.
pub fn write(file: &QuotaFile) -> Vec<u8> {
    let tree = tree::Tree::of(&file.entries);
    let header = header::Header {
        kind: file.kind,
        version: header::Version::V1,
        grace: file.grace,
        blocks: tree.blocks(),
        free_entry: tree.free_entry(),
    };
    tree.into_bytes(&header)
}
