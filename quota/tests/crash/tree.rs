//! A made-up private area.

use std::collections::BTreeMap;
use std::io;

use quota::recovery::Look;
use quota::{Charged, InodeId, Tally};

/// The private area: what exists, and under which name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) inodes: BTreeMap<u64, (InodeId, Charged)>,
    pub(crate) names: BTreeMap<(u64, Vec<u8>), u64>,
    generation: u8,
}

impl Tree {
    /// An inode with this number; numbers are used again, generations are not.
    pub(crate) fn make(&mut self, ino: u64, charged: Charged) -> InodeId {
        self.generation = self.generation.wrapping_add(1);
        let inode = InodeId::new(ino, 1, &[self.generation, ino as u8, 9]);
        self.inodes.insert(ino, (inode, charged));
        inode
    }

    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.inodes
            .values()
            .for_each(|(_, held)| tally.add(held.owner, held.usage));
        tally
    }
}

impl Look for Tree {
    fn inode(&self, inode: &InodeId) -> io::Result<Option<Charged>> {
        let found = self
            .inodes
            .get(&inode.ino())
            .filter(|(known, _)| known == inode);
        Ok(found.map(|(_, charged)| *charged))
    }

    fn name(&self, parent: &InodeId, name: &[u8]) -> io::Result<Option<(InodeId, Charged)>> {
        let found = self.names.get(&(parent.ino(), name.to_vec()));
        Ok(found.and_then(|ino| self.inodes.get(ino)).copied())
    }
}
