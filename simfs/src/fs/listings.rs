//! Listings that are under way: where each stands, so that the next request of it goes on without opening the directory.
//!
//! The kernel opens directories without asking (`fuse`), so nothing here belongs to a handle: a request names a directory and
//! a position, and any stream of that directory can be sought to it. The one that stands there already is preferred: over
//! overlayfs, where a position counts the entries of one opening, only that one goes on in the right place.
//!
//! Invariants:
//! 1. At most [`KEPT`] streams are kept; of more, the listing that waited longest has its directory opened again.
//! 2. A stream is kept for one request at a time: [`Listings::take`] gives it away.
//! 3. A stream is kept without what it has read ahead: it may be a later listing that goes on with it, and that one is to
//!    see what was made in between.
//! 4. A removed directory has none: a stream would hold it in being. The kernel keeps its lock over each listing and over the
//!    removal, so none is under way then.
//!
//! One lock, a leaf.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::node::{Node, NodeId};
use crate::sys::dirent::DirStream;

/// How many listings are remembered, each by a descriptor.
const KEPT: usize = 16;

/// Streams between two requests, the longest waiting first.
#[derive(Debug, Default)]
pub(super) struct Listings {
    kept: Mutex<VecDeque<Listing>>,
}

#[derive(Debug)]
struct Listing {
    node: NodeId,
    /// Numbers are used again, for other directories.
    generation: u64,
    /// Where it goes on.
    position: u64,
    stream: DirStream,
}

impl Listing {
    fn is_of(&self, node: &Node) -> bool {
        self.node == node.id() && self.generation == node.generation()
    }
}

impl Listings {
    /// The stream that stands at this position of the directory; it must be sought there before it is read.
    pub(super) fn take(&self, node: &Node, position: u64) -> Option<DirStream> {
        let mut kept = self.kept.lock();
        let stands_there = |listing: &Listing| listing.is_of(node) && listing.position == position;
        let at = kept.iter().position(stands_there)?;
        kept.remove(at).map(|listing| listing.stream)
    }

    /// Keeps a stream for the next request of its listing, which goes on at this position.
    pub(super) fn keep(&self, node: &Node, position: u64, mut stream: DirStream) {
        stream.forget_buffer();
        let listing = Listing {
            node: node.id(),
            generation: node.generation(),
            position,
            stream,
        };
        let mut kept = self.kept.lock();
        let oldest = if kept.len() < KEPT {
            None
        } else {
            kept.pop_front()
        };
        kept.push_back(listing);
        drop(kept);
        drop(oldest);
    }

    /// Lets go of a directory that was removed.
    pub(super) fn forget(&self, node: &Node) {
        self.kept.lock().retain(|listing| !listing.is_of(node));
    }

    /// How many are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.lock().len()
    }
}
