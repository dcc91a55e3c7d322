//! The lookups that were counted for the answer to a listing: one answer hands out many nodes.
//!
//! ```text
//! LISTING: seal (56 bits) | number of nodes (8 bits)        LISTED ...: the nodes
//! ```
//! The seal is chained, over the request and each node, so that one store adds or takes away a node. A node is counted
//! before it is noted, and noted no more before its lookup is taken back: who dies in between leaves one lookup too many,
//! never one too few.

use std::sync::atomic::Ordering;

use super::super::layout::{SLOT, seal};
use super::{KIND, LISTED, LISTING, UNIQUE};
use crate::id::NodeId;
use crate::sys::shared_map::SharedMap;

/// Nodes that one answer may hand out: as many as have room where other requests keep names.
pub(super) const MOST: usize = SLOT - LISTED;
const COUNT: u64 = 0xff;

/// How many nodes the slot or claim names.
pub(super) fn len(map: &SharedMap, at: usize) -> usize {
    let word = map.word(at + LISTING).load(Ordering::Relaxed);
    usize::try_from(word & COUNT).unwrap_or(0)
}

/// Notes one more; only where there is room.
pub(super) fn push(map: &SharedMap, at: usize, node: NodeId) {
    let count = len(map, at);
    debug_assert!(count < MOST, "a listing that is full takes nothing");
    let before = match count {
        0 => start(map, at),
        _ => map.word(at + LISTING).load(Ordering::Relaxed),
    };
    map.word(at + LISTED + count)
        .store(node.get(), Ordering::Relaxed);
    map.word(at + LISTING)
        .store(next(before, node.get()), Ordering::Release);
}

/// Takes the last one away; `None` where there is none, or what is there is damaged.
pub(super) fn pop(map: &SharedMap, at: usize) -> Option<NodeId> {
    let word = map.word(at + LISTING).load(Ordering::Acquire);
    let last = len(map, at).checked_sub(1).filter(|&last| last < MOST)?;
    let node = |index: usize| map.word(at + LISTED + index).load(Ordering::Relaxed);
    let before = (0..last).fold(start(map, at), |sum, index| next(sum, node(index)));
    let is_whole = next(before, node(last)) == word;
    let left = if is_whole { before } else { 0 };
    map.word(at + LISTING).store(left, Ordering::Release);
    is_whole.then(|| NodeId::new(node(last)))
}

fn start(map: &SharedMap, at: usize) -> u64 {
    let unique = map.word(at + UNIQUE).load(Ordering::Relaxed);
    seal(KIND + 1, &[unique]) & !COUNT
}

fn next(before: u64, node: u64) -> u64 {
    let count = (before & COUNT) + 1;
    seal(before, &[node]) & !COUNT | count
}
