//! The one request that each worker is at, and what a successor must know of it.
//!
//! A daemon that dies leaves its requests unanswered; the kernel sends them again to the successor. Most can simply be
//! done again. Those that change names cannot: so before its system call each says here what it is about to do and what
//! was there before ([`Flight::describe`]), and the successor tells by looking whether it was done
//! ([`crate::fs::again`]). Nothing else can have changed those names: the kernel holds their directories' locks as long as
//! the request is unanswered. What was counted for an answer that never arrived is taken back ([`Flight::take_back_node`]).
//!
//! ```text
//! slot, 1 KiB: finished | unique | phase, opcode | node | uid, gid | pid | offset | size | node handed out, seal |
//!              handle handed out, seal | nodes of a listing: see listing.rs |
//!              description: parent, new parent, source, lengths and step, seal, names
//! ```
//! At adoption slots become *claims*, in the same layout with a stamp in the first word. A claim lasts until its request is
//! answered, or `CLAIMS` newer ones came: unique numbers are never used twice, so an old claim is only room lost.
//!
//! No locks: a slot belongs to its worker, claims are written by adoption and by the worker that has the request.

mod claims;
mod listing;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::earlier::{Description, Earlier};
use super::layout::{FLIGHTS, SLOT, WORKERS, seal};
use crate::fault;
use crate::id::{Caller, HandleId, NodeId};
use crate::sys::shared_map::SharedMap;

/// Set in the number of a request that was sent again.
///
/// # Source
/// Linux `include/uapi/linux/fuse.h`, `FUSE_UNIQUE_RESEND`.
pub const RESENT: u64 = 1 << 63;

const FINISHED: usize = 0;
const UNIQUE: usize = 1;
const PHASE: usize = 2;
const NODE: usize = 3;
const WHO: usize = 4;
const PID: usize = 5;
const OFFSET: usize = 6;
const SIZE: usize = 7;
const GIVEN_NODE: usize = 8;
const GIVEN_HANDLE: usize = 10;
const LISTING: usize = 12;
const PARENT: usize = 16;
const NEW_PARENT: usize = 17;
const SOURCE: usize = 18;
const STEP: usize = 19;
const DESCRIPTION_SEAL: usize = 20;
const NAME: usize = 32;
const NEW_NAME: usize = 64;
/// A listing has no names to keep.
const LISTED: usize = NAME;
/// Bytes of a name that fit.
const NAME_BYTES: usize = 256;

const IDLE: u64 = 0;
const BEGUN: u64 = 1;
const DESCRIBED: u64 = 2;

const KIND: u64 = 0x400;

/// What a request that cannot simply be repeated is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new name for a new inode.
    Make,
    /// A new name for an inode that has others.
    Link,
    /// A name goes.
    Remove,
    /// A name moves.
    Rename,
    /// Two names change places.
    Exchange,
    /// A name moves, and a new inode takes its place.
    Whiteout,
    /// An attribute that was not there.
    SetAttribute,
    /// An attribute that was there goes.
    RemoveAttribute,
}

const STEPS: [Step; 8] = [
    Step::Make,
    Step::Link,
    Step::Remove,
    Step::Rename,
    Step::Exchange,
    Step::Whiteout,
    Step::SetAttribute,
    Step::RemoveAttribute,
];

/// What was there before, and what is to be.
#[derive(Clone, Copy, Debug)]
pub struct Intent<'a> {
    /// What is about to happen.
    pub step: Step,
    /// The directory, or the inode whose attribute it is.
    pub parent: NodeId,
    /// The name.
    pub name: &'a OsStr,
    /// The other directory and name, where there are two.
    pub to: Option<(NodeId, &'a OsStr)>,
    /// Inode number under the (first) name; 0 where there is none.
    pub source: u64,
}

/// The slot of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker(usize);

/// A request, as the slot tells it: enough to find out what ended a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The kernel's number, without [`RESENT`].
    pub unique: u64,
    /// The FUSE opcode.
    pub opcode: u32,
    /// The inode it names.
    pub node: NodeId,
    /// Who asks.
    pub caller: Caller,
}

/// The slots and claims.
#[derive(Debug)]
pub struct Flights {
    map: Arc<SharedMap>,
    enlisted: AtomicUsize,
    /// Claims that may still be asked for; without any nothing is searched.
    claims: AtomicUsize,
}

pub(super) fn finished(map: &SharedMap, slot: usize) -> u64 {
    map.word(slot + FINISHED).load(Ordering::Relaxed)
}

pub(super) fn is_busy(map: &SharedMap, slot: usize) -> bool {
    map.word(slot + PHASE).load(Ordering::Relaxed) & 0xff != IDLE
}

impl Flights {
    pub(super) fn create(map: Arc<SharedMap>) -> Self {
        Self {
            map,
            enlisted: AtomicUsize::new(0),
            claims: AtomicUsize::new(0),
        }
    }

    /// Gives the calling thread a slot of its own; `None` where all are given: such a thread must not serve.
    pub fn enlist(&self) -> Option<Worker> {
        let index = self.enlisted.fetch_add(1, Ordering::Relaxed);
        (index < WORKERS).then_some(Worker(FLIGHTS.start + index.min(WORKERS) * SLOT))
    }

    /// A worker turns to a request. `unique` is the kernel's number as it came, with [`RESENT`].
    pub fn begin(&self, worker: Worker, asked: Asked) -> Flight<'_> {
        let unique = asked.unique & !RESENT;
        let who = u64::from(asked.caller.uid) | u64::from(asked.caller.gid) << 32;
        let set = |word: usize, value: u64| {
            self.map
                .word(worker.0 + word)
                .store(value, Ordering::Relaxed);
        };
        set(UNIQUE, unique);
        set(NODE, asked.node.get());
        set(WHO, who);
        set(PID, asked.caller.pid.into());
        set(OFFSET, 0);
        set(SIZE, 0);
        set(GIVEN_NODE, 0);
        set(GIVEN_HANDLE, 0);
        set(LISTING, 0);
        self.map
            .word(worker.0 + PHASE)
            .store(BEGUN | u64::from(asked.opcode) << 32, Ordering::Release);
        let claim = if asked.unique & RESENT != 0 && self.claims.load(Ordering::Relaxed) > 0 {
            self.find_claim(unique)
        } else {
            None
        };
        Flight {
            flights: self,
            slot: worker.0,
            unique,
            claim,
            earlier: claim.map(|at| Box::new(Earlier::read(&self.map, at))),
        }
    }
}

/// A request under way; dropping it says that it was answered, unless a panic drops it.
#[derive(Debug)]
pub struct Flight<'a> {
    flights: &'a Flights,
    slot: usize,
    unique: u64,
    claim: Option<usize>,
    earlier: Option<Box<Earlier>>,
}

impl Flight<'_> {
    /// What a dead daemon had done of the same request.
    pub fn earlier(&self) -> Option<&Earlier> {
        self.earlier.as_deref()
    }

    /// What it said it was about to do.
    pub fn described(&self) -> Option<&Description> {
        self.earlier.as_ref()?.description.as_ref()
    }

    fn set(&self, word: usize, value: u64) {
        let at = self.flights.map.word(self.slot + word);
        at.store(value, Ordering::Relaxed);
    }

    /// For whom must find out what ended a daemon: the range that the request is about.
    pub fn note_range(&self, offset: u64, size: u64) {
        self.set(OFFSET, offset);
        self.set(SIZE, size);
    }

    /// To be called right before the system call that cannot be repeated, when all else that can fail has not failed.
    pub fn describe(&self, intent: &Intent<'_>) {
        let map = &self.flights.map;
        let (new_parent, new_name) = intent.to.unwrap_or((NodeId::new(0), OsStr::new("")));
        let (name, new_name) = (intent.name.as_bytes(), new_name.as_bytes());
        if name.len() > NAME_BYTES || new_name.len() > NAME_BYTES {
            // Longer than any file system takes: the system call will refuse it.
            return;
        }
        let step = STEPS
            .iter()
            .position(|&step| step == intent.step)
            .and_then(|at| u64::try_from(at).ok())
            .unwrap_or(0);
        let length = |name: &[u8]| u64::try_from(name.len()).unwrap_or(0);
        self.set(PARENT, intent.parent.get());
        self.set(NEW_PARENT, new_parent.get());
        self.set(SOURCE, intent.source);
        self.set(STEP, length(name) | length(new_name) << 16 | step << 32);
        map.store_bytes(self.slot + NAME, name);
        map.store_bytes(self.slot + NEW_NAME, new_name);
        self.set(DESCRIPTION_SEAL, description_seal(map, self.slot));
        let phase = map.word(self.slot + PHASE).load(Ordering::Relaxed);
        map.word(self.slot + PHASE)
            .store(phase & !0xff | DESCRIBED, Ordering::Release);
    }

    /// A lookup was counted for the answer.
    pub fn hand_out_node(&self, node: NodeId) {
        self.hand_out(GIVEN_NODE, node.get());
    }

    /// A file was opened for the answer.
    pub fn hand_out_handle(&self, handle: HandleId) {
        self.hand_out(GIVEN_HANDLE, handle.get());
    }

    /// That lookup is about to be taken back: the answer will not name the node.
    pub fn retract_node(&self) {
        let at = self.flights.map.word(self.slot + GIVEN_NODE);
        at.store(0, Ordering::Release);
    }

    /// Whether the answer to a listing has handed out as many nodes as can be told.
    pub fn is_listing_full(&self) -> bool {
        listing::len(&self.flights.map, self.slot) >= listing::MOST
    }

    /// A lookup was counted for one more entry of a listing that is not full.
    pub fn hand_out_listed(&self, node: NodeId) {
        listing::push(&self.flights.map, self.slot, node);
    }

    /// The last of these lookups is about to be taken back.
    pub fn retract_listed(&self) {
        let _last = listing::pop(&self.flights.map, self.slot);
    }

    fn hand_out(&self, word: usize, number: u64) {
        self.set(word + 1, given_seal(word, self.unique, number));
        let at = self.flights.map.word(self.slot + word);
        at.store(number, Ordering::Release);
    }

    /// The node whose lookup the dead daemon counted for an answer that never arrived; told once.
    pub fn take_back_node(&self) -> Option<NodeId> {
        let at = self.flights.map.word(self.claim? + GIVEN_NODE);
        // Before it is acted on: one that is taken back twice would be missing, one that is not is only room lost.
        let before = at.swap(0, Ordering::AcqRel);
        self.earlier.as_ref()?.node.filter(|_| before != 0)
    }

    /// A node of which the dead daemon counted a lookup for an entry of a listing that never arrived; each is told once.
    pub fn take_back_listed(&self) -> Option<NodeId> {
        listing::pop(&self.flights.map, self.claim?)
    }

    /// The file that a dead daemon opened, or was about to, for an answer that never arrived.
    pub fn handed_out_handle(&self) -> Option<HandleId> {
        let at = self.flights.map.word(self.claim? + GIVEN_HANDLE);
        let given = self.earlier.as_ref()?.handle;
        given.filter(|_| at.load(Ordering::Acquire) != 0)
    }

    /// That file is closed. To be said afterwards: a number is never used twice, so what is closed again does no harm.
    pub fn handle_is_back(&self) {
        if let Some(claim) = self.claim {
            let at = self.flights.map.word(claim + GIVEN_HANDLE);
            at.store(0, Ordering::Release);
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        fault::point("answered");
        let map = &self.flights.map;
        map.word(self.slot + PHASE).store(IDLE, Ordering::Release);
        let finished = map.word(self.slot + FINISHED);
        // Only this worker writes it.
        finished.store(
            finished.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
        if let Some(claim) = self.claim {
            map.word(claim + PHASE).store(IDLE, Ordering::Release);
            self.flights.claims.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn given_seal(word: usize, unique: u64, number: u64) -> u64 {
    let kind = KIND + u64::try_from(word).unwrap_or(0);
    seal(kind, &[unique, number])
}

fn description_seal(map: &SharedMap, at: usize) -> u64 {
    let head = [UNIQUE, PARENT, NEW_PARENT, SOURCE, STEP]
        .map(|word| map.word(at + word).load(Ordering::Relaxed));
    let mut sum = seal(KIND, &head);
    let lengths = map.word(at + STEP).load(Ordering::Relaxed);
    for (start, bytes) in [(NAME, lengths & 0xffff), (NEW_NAME, lengths >> 16 & 0xffff)] {
        let words = usize::try_from(bytes)
            .unwrap_or(0)
            .min(NAME_BYTES)
            .div_ceil(8);
        for word in 0..words {
            sum = seal(sum, &[map.word(at + start + word).load(Ordering::Relaxed)]);
        }
    }
    sum
}
