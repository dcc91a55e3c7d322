//! Data blocks and the entries in them.
//! ```text
//! block:  0  next u32, 4  previous u32: list of blocks with room | 8  entries u16 | 10  zero, 6 bytes | 16  entries
//! vfsv1:  0  id u32 |  4  zero u32 |  8  inodes hard u64 | 16  inodes soft u64 | 24  inodes used u64
//!        32  blocks hard u64 | 40  blocks soft u64 | 48  bytes used u64
//!        56  deadline of space u64 | 64  deadline of inodes u64                          72 in all
//! vfsv0:  0  id u32 |  4  inodes hard u32 |  8  inodes soft u32 | 12  inodes used u32
//!        16  blocks hard u32 | 20  blocks soft u32 | 24  bytes used u64
//!        32  deadline of space u64 | 40  deadline of inodes u64                          48 in all
//! ```
//! An entry of zeros is not used. The entry of id 0 would look so when it holds nothing: its deadline of inodes is 1
//! then.

use crate::grace::{Deadlines, Timestamp};
use crate::limit::{Limit, Limits};
use crate::store::record::{Reader, RecordError, Writer};
use crate::units::{Blocks, Bytes, Inodes};
use crate::usage::Usage;

use super::header::Version;
use super::{BLOCK, BlockFault, QuotaFileEntry};

/// Bytes before the entries of a data block.
const HEAD: usize = 16;
const V1_LEN: usize = 72;
const V0_LEN: usize = 48;

/// Entries in one data block of format vfsv1.
pub(super) const PER_BLOCK: usize = (BLOCK - HEAD) / V1_LEN;

/// The numbers of an entry as they stand in the file.
#[derive(Debug, Default)]
struct Raw {
    id: u32,
    inodes_hard: u64,
    inodes_soft: u64,
    inodes: u64,
    blocks_hard: u64,
    blocks_soft: u64,
    space: u64,
    space_deadline: u64,
    inodes_deadline: u64,
}

/// The entry of this id in a data block.
pub(super) fn find(block: &[u8], id: u32, version: Version) -> Result<QuotaFileEntry, BlockFault> {
    let len = match version {
        Version::V0 => V0_LEN,
        Version::V1 => V1_LEN,
    };
    let entries = block.get(HEAD..).unwrap_or_default().chunks_exact(len);
    let mut used = entries.filter(|bytes| bytes.iter().any(|&byte| byte != 0));
    let found = used.find_map(|bytes| {
        let mut input = Reader::new(bytes);
        let raw = match version {
            Version::V0 => Raw::read_v0(&mut input),
            Version::V1 => Raw::read_v1(&mut input),
        };
        raw.ok().filter(|raw| raw.id == id)
    });
    found.ok_or(BlockFault::NoEntry { id })?.into_entry()
}

/// Writes a data block with these entries, of which there are at most [`PER_BLOCK`].
pub(super) fn write_block(entries: &[QuotaFileEntry], out: &mut Writer) {
    out.u32(0);
    out.u32(0);
    out.raw(
        &u16::try_from(entries.len())
            .unwrap_or(u16::MAX)
            .to_le_bytes(),
    );
    out.raw(&[0; 6]);
    entries.iter().for_each(|entry| Raw::from(entry).write(out));
    let rest = BLOCK
        .saturating_sub(HEAD)
        .saturating_sub(entries.len().saturating_mul(V1_LEN));
    out.raw(&vec![0; rest]);
}

impl Raw {
    fn read_v1(input: &mut Reader<'_>) -> Result<Self, RecordError> {
        let id = input.u32()?;
        input.u32()?;
        Ok(Self {
            id,
            inodes_hard: input.u64()?,
            inodes_soft: input.u64()?,
            inodes: input.u64()?,
            blocks_hard: input.u64()?,
            blocks_soft: input.u64()?,
            space: input.u64()?,
            space_deadline: input.u64()?,
            inodes_deadline: input.u64()?,
        })
    }

    fn read_v0(input: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            id: input.u32()?,
            inodes_hard: input.u32()?.into(),
            inodes_soft: input.u32()?.into(),
            inodes: input.u32()?.into(),
            blocks_hard: input.u32()?.into(),
            blocks_soft: input.u32()?.into(),
            space: input.u64()?,
            space_deadline: input.u64()?,
            inodes_deadline: input.u64()?,
        })
    }

    fn write(&self, out: &mut Writer) {
        out.u32(self.id);
        out.u32(0);
        let Self {
            inodes_hard,
            inodes_soft,
            inodes,
            blocks_hard,
            blocks_soft,
            space,
            ..
        } = *self;
        [
            inodes_hard,
            inodes_soft,
            inodes,
            blocks_hard,
            blocks_soft,
            space,
        ]
        .into_iter()
        .for_each(|number| out.u64(number));
        out.u64(self.space_deadline);
        out.u64(self.inodes_deadline);
    }

    /// Whether nothing but the mark of an otherwise empty entry is set.
    const fn is_marked_empty(&self) -> bool {
        let Self {
            inodes_hard,
            inodes_soft,
            inodes,
            blocks_hard,
            blocks_soft,
            space,
            ..
        } = *self;
        self.id == 0
            && (inodes_hard | inodes_soft | inodes | blocks_hard | blocks_soft | space) == 0
            && self.space_deadline == 0
            && self.inodes_deadline <= 1
    }

    fn into_entry(mut self) -> Result<QuotaFileEntry, BlockFault> {
        if self.is_marked_empty() {
            self.inodes_deadline = 0;
        }
        let id = self.id;
        let bytes = |blocks| {
            let fault = BlockFault::Field {
                id,
                field: "limit of space",
            };
            Blocks::new(blocks).checked_bytes().ok_or(fault)
        };
        let deadline = |seconds: u64| {
            let fault = BlockFault::Field {
                id,
                field: "deadline",
            };
            let at = i64::try_from(seconds).map_err(|_| fault)?;
            Ok((at != 0).then_some(Timestamp::new(at)))
        };
        let inodes = (Inodes::new(self.inodes_soft), Inodes::new(self.inodes_hard));
        Ok(QuotaFileEntry {
            id,
            limits: Limits {
                space: Limit::from_zero_as_none(bytes(self.blocks_soft)?, bytes(self.blocks_hard)?),
                inodes: Limit::from_zero_as_none(inodes.0, inodes.1),
            },
            usage: Usage::new(Bytes::new(self.space), Inodes::new(self.inodes)),
            deadlines: Deadlines {
                space: deadline(self.space_deadline)?,
                inodes: deadline(self.inodes_deadline)?,
            },
        })
    }
}

impl From<&QuotaFileEntry> for Raw {
    fn from(entry: &QuotaFileEntry) -> Self {
        let blocks =
            |limit: Option<Bytes>| limit.map_or(0, |it| Blocks::ceil_from(it).get().max(1));
        let inodes = |limit: Option<Inodes>| limit.map_or(0, |it| it.get().max(1));
        let deadline =
            |at: Option<Timestamp>| at.map_or(0, |at| u64::try_from(at.get()).unwrap_or(0).max(1));
        let limits = &entry.limits;
        let mut raw = Self {
            id: entry.id,
            inodes_hard: inodes(limits.inodes.hard),
            inodes_soft: inodes(limits.inodes.soft),
            inodes: entry.usage.inodes.get(),
            blocks_hard: blocks(limits.space.hard),
            blocks_soft: blocks(limits.space.soft),
            space: entry.usage.space.get(),
            space_deadline: deadline(entry.deadlines.space),
            inodes_deadline: deadline(entry.deadlines.inodes),
        };
        if raw.is_marked_empty() {
            raw.inodes_deadline = 1;
        }
        raw
    }
}
