//! The radix tree from an id to the data block with its entry.
//!
//! A tree block holds 256 block numbers of 32 bits; zero leads nowhere. Four levels take the four bytes of an id,
//! the highest first; what the last level refers to is a data block, which many ids share.

use std::collections::{BTreeMap, HashMap};

use crate::store::record::{Reader, Writer};

use super::header::Header;
use super::{BLOCK, BlockFault, QuotaFileEntry, QuotaFileError, entry};

/// The root's block number.
const ROOT: u32 = 1;
/// Levels of tree blocks above the data blocks.
const DEPTH: u32 = 4;
/// References in one tree block.
const WIDTH: usize = 256;

/// What a block was taken for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Tree,
    Data,
}

/// Walks the tree of a file.
struct Walk<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    uses: HashMap<u32, Use>,
    entries: Vec<QuotaFileEntry>,
}

/// All entries of a file, in the order of ids.
pub(super) fn read(bytes: &[u8], header: &Header) -> Result<Vec<QuotaFileEntry>, QuotaFileError> {
    let mut walk = Walk {
        bytes,
        header,
        uses: HashMap::new(),
        entries: Vec::new(),
    };
    walk.enter(ROOT, 0, 0)?;
    Ok(walk.entries)
}

impl<'a> Walk<'a> {
    /// Reads what is below a tree block; `id` holds the bytes that led there. At most [`DEPTH`] calls deep.
    fn enter(&mut self, block: u32, id: u32, depth: u32) -> Result<(), QuotaFileError> {
        self.claim(block, Use::Tree)?;
        let bytes = self.block(block, block)?;
        let mut input = Reader::new(bytes);
        for low in 0..=u8::MAX {
            let Ok(target) = input.u32() else { break };
            if target == 0 {
                continue;
            }
            let id = id << 8 | u32::from(low);
            let data = self.block(target, block)?;
            if depth.saturating_add(1) < DEPTH {
                self.enter(target, id, depth.saturating_add(1))?;
                continue;
            }
            self.claim(target, Use::Data)?;
            let found = entry::find(data, id, self.header.version).map_err(|reason| {
                QuotaFileError::Block {
                    block: target,
                    reason,
                }
            })?;
            self.entries.push(found);
        }
        Ok(())
    }

    /// Notes what a block is used for: a tree block once, a data block any number of times.
    fn claim(&mut self, block: u32, use_: Use) -> Result<(), QuotaFileError> {
        let reason = match (self.uses.insert(block, use_), use_) {
            (None, _) | (Some(Use::Data), Use::Data) => return Ok(()),
            (Some(Use::Tree), Use::Tree) => BlockFault::Cycle,
            _ => BlockFault::Mixed,
        };
        Err(QuotaFileError::Block { block, reason })
    }

    /// The bytes of a block that `from` refers to. The header's block is nobody's.
    fn block(&self, target: u32, from: u32) -> Result<&'a [u8], QuotaFileError> {
        let blocks = self.header.blocks;
        let start = usize::try_from(target)
            .ok()
            .and_then(|it| it.checked_mul(BLOCK));
        let bytes = start
            .filter(|_| (ROOT..blocks).contains(&target))
            .and_then(|start| self.bytes.get(start..)?.get(..BLOCK));
        bytes.ok_or(QuotaFileError::Block {
            block: from,
            reason: BlockFault::Reference { target, blocks },
        })
    }
}

/// One block behind the header.
enum Block {
    Tree(Box<[u32; WIDTH]>),
    Data(Vec<QuotaFileEntry>),
}

/// The blocks of a file to be written; the first is number 1, the root.
pub(super) struct Tree {
    blocks: Vec<Block>,
    /// The data block that takes the next entry.
    open: Option<u32>,
}

impl Tree {
    /// A tree with these entries.
    pub(super) fn of(entries: &[QuotaFileEntry]) -> Self {
        let mut tree = Self {
            blocks: vec![Block::Tree(Box::new([0; WIDTH]))],
            open: None,
        };
        let last: BTreeMap<u32, &QuotaFileEntry> = entries.iter().map(|it| (it.id, it)).collect();
        for (id, &entry) in last {
            let data = tree.put_entry(entry);
            let [a, b, c, d] = id.to_be_bytes();
            let leaf = [a, b, c]
                .into_iter()
                .fold(ROOT, |block, byte| tree.child(block, byte));
            if let Some(reference) = tree.reference(leaf, d) {
                *reference = data;
            }
        }
        tree
    }

    /// The number of blocks, the header's among them.
    pub(super) fn blocks(&self) -> u32 {
        u32::try_from(self.blocks.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1)
    }

    /// The data block that has room, or zero.
    pub(super) fn free_entry(&self) -> u32 {
        self.open.unwrap_or(0)
    }

    /// The bytes of the file.
    pub(super) fn into_bytes(self, header: &Header) -> Vec<u8> {
        let mut out = Writer::new();
        header.write(&mut out);
        for block in &self.blocks {
            match block {
                Block::Tree(references) => references.iter().for_each(|&it| out.u32(it)),
                Block::Data(entries) => entry::write_block(entries, &mut out),
            }
        }
        out.into_bytes()
    }

    /// Puts an entry into a data block with room, and says into which.
    fn put_entry(&mut self, entry: QuotaFileEntry) -> u32 {
        let number = match self.open {
            Some(number) => number,
            None => self.add(Block::Data(Vec::with_capacity(entry::PER_BLOCK))),
        };
        self.open = Some(number);
        if let Some(Block::Data(entries)) = self.get(number) {
            entries.push(entry);
            if entries.len() >= entry::PER_BLOCK {
                self.open = None;
            }
        }
        number
    }

    /// The tree block that a reference leads to; made when there is none.
    fn child(&mut self, block: u32, byte: u8) -> u32 {
        if let Some(&mut found) = self.reference(block, byte).filter(|it| **it != 0) {
            return found;
        }
        let child = self.add(Block::Tree(Box::new([0; WIDTH])));
        if let Some(reference) = self.reference(block, byte) {
            *reference = child;
        }
        child
    }

    fn reference(&mut self, block: u32, byte: u8) -> Option<&mut u32> {
        match self.get(block)? {
            Block::Tree(references) => references.get_mut(usize::from(byte)),
            Block::Data(_) => None,
        }
    }

    fn add(&mut self, block: Block) -> u32 {
        self.blocks.push(block);
        u32::try_from(self.blocks.len()).unwrap_or(u32::MAX)
    }

    fn get(&mut self, number: u32) -> Option<&mut Block> {
        self.blocks
            .get_mut(usize::try_from(number.checked_sub(ROOT)?).ok()?)
    }
}
