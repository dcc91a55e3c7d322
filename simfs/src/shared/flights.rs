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
//!              handle handed out, seal | description: parent, new parent, source, lengths and step, seal, names
//! ```
//! At adoption slots become *claims*, in the same layout with a stamp in the first word. A claim lasts until its request is
//! answered, or `CLAIMS` newer ones came: unique numbers are never used twice, so an old claim is only room lost.
//!
//! No locks: a slot belongs to its worker, claims are written by adoption and by the worker that has the request.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::earlier::{Description, Earlier};
use super::layout::{CLAIM_LIST, CLAIMS, FLIGHTS, SLOT, WORKERS, seal};
use crate::accounting::Caller;
use crate::fault;
use crate::handle::HandleId;
use crate::node::NodeId;
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
const PARENT: usize = 16;
const NEW_PARENT: usize = 17;
const SOURCE: usize = 18;
const STEP: usize = 19;
const DESCRIPTION_SEAL: usize = 20;
const NAME: usize = 32;
const NEW_NAME: usize = 64;
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

    /// Takes over from a predecessor: what its workers were at becomes claims, and is returned.
    pub(super) fn adopt(map: Arc<SharedMap>) -> (Self, Vec<Earlier>) {
        let flights = Self::create(map);
        let mut cut_off = Vec::new();
        for worker in 0..WORKERS {
            let slot = FLIGHTS.start + worker * SLOT;
            let phase = flights.map.word(slot + PHASE).load(Ordering::Acquire) & 0xff;
            if phase != IDLE {
                let claim = flights.claim(slot, phase);
                cut_off.push(Earlier::read(&flights.map, claim));
                flights
                    .map
                    .word(slot + PHASE)
                    .store(IDLE, Ordering::Release);
            }
        }
        let left = (0..CLAIMS)
            .filter(|&index| is_busy(&flights.map, claim_at(index)))
            .count();
        flights.claims.store(left, Ordering::Relaxed);
        (flights, cut_off)
    }

    /// Copies a slot to a claim: the one of the same request, a free one, or the oldest.
    fn claim(&self, slot: usize, phase: u64) -> usize {
        let load = |at: usize| self.map.word(at).load(Ordering::Relaxed);
        let unique = load(slot + UNIQUE);
        let busy = |&index: &usize| is_busy(&self.map, claim_at(index));
        let same = (0..CLAIMS)
            .filter(busy)
            .find(|&index| load(claim_at(index) + UNIQUE) == unique);
        let newest = (0..CLAIMS)
            .filter(busy)
            .map(|index| load(claim_at(index)))
            .max();
        let claim = match same {
            Some(index) => claim_at(index),
            None => claim_at(
                (0..CLAIMS)
                    .find(|index| !busy(index))
                    .or_else(|| (0..CLAIMS).min_by_key(|&index| load(claim_at(index))))
                    .unwrap_or(0),
            ),
        };
        let is_described = load(claim + PHASE) & 0xff == DESCRIBED;
        let words = if same.is_some() && is_described && phase != DESCRIBED {
            // A second try that came less far: what the first one said stays, what was handed out since is added.
            GIVEN_NODE..PARENT
        } else {
            self.map.word(claim + PHASE).store(IDLE, Ordering::Release);
            UNIQUE..SLOT
        };
        let phase_word = match words.start {
            GIVEN_NODE => load(claim + PHASE),
            _ => load(slot + PHASE),
        };
        // What a try before this one handed out and this one did not come to take back is still to be taken back.
        let kept =
            |given: usize| same.is_some() && load(claim + given) != 0 && load(slot + given) == 0;
        let is_kept = [GIVEN_NODE, GIVEN_HANDLE].map(|given| (given, kept(given)));
        let stays = |word: usize| {
            let given = is_kept
                .iter()
                .find(|(given, _)| word == *given || word == given + 1);
            word == PHASE || given.is_some_and(|(_, kept)| *kept)
        };
        for word in words.filter(|&word| !stays(word)) {
            self.map
                .word(claim + word)
                .store(load(slot + word), Ordering::Relaxed);
        }
        let stamp = newest.unwrap_or(0).wrapping_add(1);
        self.map.word(claim).store(stamp, Ordering::Relaxed);
        self.map
            .word(claim + PHASE)
            .store(phase_word, Ordering::Release);
        claim
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

    fn find_claim(&self, unique: u64) -> Option<usize> {
        (0..CLAIMS).map(claim_at).find(|&at| {
            is_busy(&self.map, at) && self.map.word(at + UNIQUE).load(Ordering::Relaxed) == unique
        })
    }
}

fn claim_at(index: usize) -> usize {
    CLAIM_LIST.start + index.min(CLAIMS - 1) * SLOT
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

impl Earlier {
    /// Reads a slot or a claim; what is damaged of it is left out.
    pub(super) fn read(map: &SharedMap, at: usize) -> Self {
        let load = |word: usize| map.word(at + word).load(Ordering::Relaxed);
        let low = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
        let unique = load(UNIQUE);
        let given = |word: usize| {
            let number = load(word);
            (number != 0 && load(word + 1) == given_seal(word, unique, number)).then_some(number)
        };
        let phase = map.word(at + PHASE).load(Ordering::Acquire);
        let is_described = phase & 0xff == DESCRIBED;
        Self {
            asked: Asked {
                unique,
                opcode: low(phase >> 32),
                node: NodeId::new(load(NODE)),
                caller: Caller {
                    uid: low(load(WHO)),
                    gid: low(load(WHO) >> 32),
                    pid: low(load(PID)),
                },
            },
            offset: load(OFFSET),
            size: load(SIZE),
            node: given(GIVEN_NODE).map(NodeId::new),
            handle: given(GIVEN_HANDLE).map(HandleId::new),
            description: is_described.then(|| Description::read(map, at)).flatten(),
        }
    }
}

impl Description {
    fn read(map: &SharedMap, at: usize) -> Option<Self> {
        let load = |word: usize| map.word(at + word).load(Ordering::Relaxed);
        if load(DESCRIPTION_SEAL) != description_seal(map, at) {
            return None;
        }
        let lengths = load(STEP);
        let step = usize::try_from(lengths >> 32).ok()?;
        let name = |start: usize, length: u64| {
            let length = usize::try_from(length).ok()?;
            let mut name = vec![0; length.min(NAME_BYTES)];
            map.load_bytes(at + start, &mut name);
            Some(std::os::unix::ffi::OsStringExt::from_vec(name))
        };
        Some(Self {
            step: *STEPS.get(step)?,
            parent: NodeId::new(load(PARENT)),
            name: name(NAME, lengths & 0xffff)?,
            new_parent: NodeId::new(load(NEW_PARENT)),
            new_name: name(NEW_NAME, lengths >> 16 & 0xffff)?,
            source: load(SOURCE),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::FIXED;
    use super::*;

    fn map() -> Arc<SharedMap> {
        Arc::new(SharedMap::create(c"test", FIXED).unwrap())
    }

    fn asked(unique: u64) -> Asked {
        Asked {
            unique,
            opcode: 35,
            node: NodeId::new(7),
            caller: Caller {
                uid: 1000,
                gid: u32::MAX,
                pid: 4,
            },
        }
    }

    fn intent(name: &OsStr) -> Intent<'_> {
        Intent {
            step: Step::Rename,
            parent: NodeId::new(7),
            name,
            to: Some((NodeId::new(8), OsStr::new("new"))),
            source: 55,
        }
    }

    /// A process that dies here: nothing of it is dropped.
    fn die(flights: Flights, flight: impl FnOnce(&Flights)) {
        flight(&flights);
        drop(flights);
    }

    fn begin_and_die(map: &Arc<SharedMap>, unique: u64, act: impl FnOnce(&Flight<'_>)) {
        let (flights, _) = Flights::adopt(map.clone());
        die(flights, |flights| {
            let flight = flights.begin(flights.enlist().unwrap(), asked(unique));
            act(&flight);
            std::mem::forget(flight);
        });
    }

    #[test]
    fn an_answered_request_leaves_nothing() {
        let map = map();
        let flights = Flights::create(map.clone());
        let worker = flights.enlist().unwrap();
        let flight = flights.begin(worker, asked(2));
        assert!(is_busy(&map, worker.0));
        flight.describe(&intent(OsStr::new("x")));
        drop(flight);
        assert_eq!(
            (is_busy(&map, worker.0), finished(&map, worker.0)),
            (false, 1)
        );
        assert!(Flights::adopt(map).1.is_empty());
    }

    #[test]
    fn a_successor_learns_what_was_under_way() {
        let map = map();
        let name = "n".repeat(255);
        begin_and_die(&map, 12, |flight| {
            flight.note_range(4096, 10);
            flight.describe(&intent(OsStr::new(&name)));
            flight.hand_out_node(NodeId::new(70));
            flight.hand_out_handle(HandleId::new(3));
        });
        let (flights, cut_off) = Flights::adopt(map.clone());
        let [earlier] = &cut_off[..] else {
            panic!("{cut_off:?}");
        };
        assert_eq!(earlier.asked, asked(12));
        assert_eq!((earlier.offset, earlier.size), (4096, 10));
        let description = earlier.description.clone().unwrap();
        assert_eq!(description.name, *name);
        assert_eq!(description.source, 55);
        assert_eq!(description.new_name, "new");

        let worker = flights.enlist().unwrap();
        assert!(
            flights
                .begin(worker, asked(14 | RESENT))
                .earlier()
                .is_none()
        );
        assert!(
            flights.begin(worker, asked(12)).earlier().is_none(),
            "not sent again"
        );
        let again = flights.begin(worker, asked(12 | RESENT));
        assert_eq!(again.earlier(), Some(earlier));
        assert_eq!(again.take_back_node(), Some(NodeId::new(70)));
        assert_eq!(again.take_back_node(), None, "told once");
        assert_eq!(again.handed_out_handle(), Some(HandleId::new(3)));
        again.handle_is_back();
        assert_eq!(again.handed_out_handle(), None);
        drop(again);
        assert!(
            flights
                .begin(worker, asked(12 | RESENT))
                .earlier()
                .is_none()
        );
    }

    #[test]
    fn a_second_death_loses_nothing_of_the_first() {
        let map = map();
        begin_and_die(&map, 12, |flight| {
            flight.describe(&intent(OsStr::new("x")));
            flight.hand_out_node(NodeId::new(70));
        });
        // The second daemon took the lookup back, counted one of its own, and died.
        begin_and_die(&map, 12 | RESENT, |flight| {
            assert!(flight.take_back_node().is_some());
            flight.hand_out_node(NodeId::new(71));
        });
        // The third did not even begin with it.
        let (flights, cut_off) = Flights::adopt(map.clone());
        assert_eq!(cut_off.len(), 1);
        drop(flights);
        let (flights, cut_off) = Flights::adopt(map);
        assert!(cut_off.is_empty());
        let again = flights.begin(flights.enlist().unwrap(), asked(12 | RESENT));
        assert_eq!(again.described().unwrap().source, 55);
        assert_eq!(again.take_back_node(), Some(NodeId::new(71)));
    }

    #[test]
    fn what_a_second_daemon_did_not_come_to_take_back_the_third_does() {
        let map = map();
        begin_and_die(&map, 12, |flight| {
            flight.hand_out_node(NodeId::new(70));
            flight.hand_out_handle(HandleId::new(3));
        });
        begin_and_die(&map, 12 | RESENT, |_| {});
        begin_and_die(&map, 12 | RESENT, |flight| {
            assert_eq!(flight.take_back_node(), Some(NodeId::new(70)));
            assert_eq!(flight.handed_out_handle(), Some(HandleId::new(3)));
        });
        let (flights, _) = Flights::adopt(map);
        let again = flights.begin(flights.enlist().unwrap(), asked(12 | RESENT));
        assert_eq!(again.take_back_node(), None);
        assert_eq!(
            again.handed_out_handle(),
            Some(HandleId::new(3)),
            "nobody said that it is closed"
        );
    }

    #[test]
    fn the_oldest_claims_make_room() {
        let map = map();
        let count = u64::try_from(CLAIMS).unwrap();
        for unique in 1..=count + 5 {
            begin_and_die(&map, unique, |_| {});
        }
        let (flights, _) = Flights::adopt(map);
        let worker = flights.enlist().unwrap();
        for unique in 1..=count + 5 {
            let flight = flights.begin(worker, asked(unique | RESENT));
            assert_eq!(flight.earlier().is_some(), unique > 5, "{unique}");
        }
    }

    #[test]
    fn what_is_damaged_is_left_out() {
        let map = map();
        begin_and_die(&map, 12, |flight| {
            flight.describe(&intent(OsStr::new("name")));
            flight.hand_out_node(NodeId::new(70));
        });
        let slot = FLIGHTS.start;
        for word in [
            PARENT,
            NEW_PARENT,
            SOURCE,
            STEP,
            DESCRIPTION_SEAL,
            NAME,
            NEW_NAME,
        ] {
            for bit in 0..64 {
                map.word(slot + word).fetch_xor(1 << bit, Ordering::Relaxed);
                assert_eq!(Earlier::read(&map, slot).description, None, "{word} {bit}");
                map.word(slot + word).fetch_xor(1 << bit, Ordering::Relaxed);
            }
        }
        for word in [UNIQUE, GIVEN_NODE, GIVEN_NODE + 1] {
            map.word(slot + word).fetch_xor(1 << 9, Ordering::Relaxed);
            assert_eq!(Earlier::read(&map, slot).node, None, "{word}");
            map.word(slot + word).fetch_xor(1 << 9, Ordering::Relaxed);
        }
        assert!(Earlier::read(&map, slot).description.is_some());
    }

    #[test]
    fn a_panic_is_no_answer() {
        let map = map();
        let flights = Flights::create(map.clone());
        let worker = flights.enlist().unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _flight = flights.begin(worker, asked(2));
            panic!("as a test");
        }));
        assert!(result.is_err() && is_busy(&map, worker.0));
    }

    #[test]
    fn there_are_slots_for_so_many_workers_and_no_more() {
        let flights = Flights::create(map());
        let given: Vec<_> = (0..WORKERS).filter_map(|_| flights.enlist()).collect();
        assert_eq!(given.len(), WORKERS);
        assert!(flights.enlist().is_none() && flights.enlist().is_none());
    }
}
