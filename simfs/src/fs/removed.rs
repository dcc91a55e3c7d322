//! Removed directories that the kernel still knows: somebody may have them open or stand in them, and nobody tells.
//!
//! As long as one is held here its inode number is not used again. A new inode of that number would turn the one that is known
//! into an error for whoever has it (Linux `fs/fuse/inode.c`, `fuse_stale_inode`). What is held is charged to nobody, so it is
//! little: [`HELD`] directories of one block, each until the kernel forgets it. One lock, a leaf.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// How many are held at most; of others the numbers may be used again at once.
const HELD: usize = 64;

/// What is held; each descriptor lives as long as its node.
#[derive(Debug, Default)]
pub(super) struct Removed {
    held: Mutex<Vec<Weak<OwnedFd>>>,
}

impl Removed {
    /// The descriptor for the node of a removed directory, unless enough are held.
    pub(super) fn hold(&self, fd: Arc<OwnedFd>) -> Option<Arc<OwnedFd>> {
        let mut held = self.held.lock();
        held.retain(|fd| fd.strong_count() > 0);
        if held.len() >= HELD {
            return None;
        }
        held.push(Arc::downgrade(&fd));
        Some(fd)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::{Bed, at};
    use super::*;
    use crate::node::NodeId;

    fn mkdir(bed: &mut Bed, name: &str) -> NodeId {
        let made = bed.ask(|fs, call| fs.mkdir(call, at(name), 0o755, 0));
        made.unwrap().node.id()
    }

    #[test]
    fn a_removed_directory_is_held_until_the_kernel_forgets_it() {
        let mut bed = Bed::new();
        let id = mkdir(&mut bed, "d");
        bed.ask(|fs, call| fs.rmdir(call, at("d"))).unwrap();
        let (charged, counted) = bed.usage();
        assert_eq!(charged, counted);
        let held = {
            let node = bed.fs.nodes().get(id).unwrap();
            Arc::downgrade(node.state().pin.as_ref().unwrap())
        };
        assert_eq!(held.strong_count(), 1, "by its node alone");
        bed.fs.forget(id, 1);
        assert_eq!(held.strong_count(), 0);
        bed.assert_empty();
    }

    #[test]
    fn few_are_held_and_only_small_ones() {
        let mut bed = Bed::new();
        let is_held = |bed: &Bed, id| bed.fs.nodes().get(id).unwrap().state().pin.is_some();
        let large = mkdir(&mut bed, "large");
        let inside = bed.dir.path().join("large");
        let name = |number: u32| inside.join(format!("{number:0200}"));
        (0..100).for_each(|number| std::fs::write(name(number), b"").unwrap());
        (0..100).for_each(|number| std::fs::remove_file(name(number)).unwrap());
        let occupied = std::fs::metadata(&inside).unwrap();
        let is_small = std::os::unix::fs::MetadataExt::blocks(&occupied) <= 8;
        bed.ask(|fs, call| fs.rmdir(call, at("large"))).unwrap();
        assert_eq!(is_held(&bed, large), is_small);
        bed.fs.forget(large, 1);
        let ids: Vec<_> = (0..HELD + 2)
            .map(|number| {
                let name = format!("d{number}");
                let id = mkdir(&mut bed, &name);
                bed.ask(|fs, call| fs.rmdir(call, at(&name))).unwrap();
                id
            })
            .collect();
        let held = ids.iter().filter(|id| is_held(&bed, **id)).count();
        assert_eq!(held, HELD);
        bed.fs.forget(ids[0], 1);
        let next = mkdir(&mut bed, "next");
        bed.ask(|fs, call| fs.rmdir(call, at("next"))).unwrap();
        assert!(is_held(&bed, next), "one was forgotten");
    }
}
