//! Slots of a dead daemon's workers: kept as claims until their requests come again, and read as plain values.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::earlier::{Description, Earlier};
use super::super::layout::{CLAIM_LIST, CLAIMS, FLIGHTS, SLOT, WORKERS};
use super::{
    Asked, DESCRIBED, DESCRIPTION_SEAL, Flights, GIVEN_HANDLE, GIVEN_NODE, IDLE, LISTED, LISTING,
    NAME, NAME_BYTES, NEW_NAME, NEW_PARENT, NODE, OFFSET, PARENT, PHASE, PID, SIZE, SOURCE, STEP,
    STEPS, UNIQUE, WHO, description_seal, given_seal, is_busy, listing,
};
use crate::id::{Caller, HandleId, NodeId};
use crate::sys::shared_map::SharedMap;

impl Flights {
    /// Takes over from a predecessor: what its workers were at becomes claims, and is returned.
    pub(in crate::shared) fn adopt(map: Arc<SharedMap>) -> (Self, Vec<Earlier>) {
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
        let is_listing_kept =
            same.is_some() && listing::len(&self.map, claim) > 0 && load(slot + LISTING) == 0;
        let stays = |word: usize| {
            let given = is_kept
                .iter()
                .find(|(given, _)| word == *given || word == given + 1);
            let is_listing = word == LISTING || word >= LISTED;
            word == PHASE || is_listing && is_listing_kept || given.is_some_and(|(_, kept)| *kept)
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

    pub(super) fn find_claim(&self, unique: u64) -> Option<usize> {
        (0..CLAIMS).map(claim_at).find(|&at| {
            is_busy(&self.map, at) && self.map.word(at + UNIQUE).load(Ordering::Relaxed) == unique
        })
    }
}

fn claim_at(index: usize) -> usize {
    CLAIM_LIST.start + index.min(CLAIMS - 1) * SLOT
}

impl Earlier {
    /// Reads a slot or a claim; what is damaged of it is left out.
    pub(in crate::shared) fn read(map: &SharedMap, at: usize) -> Self {
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
