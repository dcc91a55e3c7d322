//! Counters that several processes read: what the keeper watches, and what it tells.
//!
//! The keeper maps the same memory and uses this module only: it reads numbers, and follows none.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{BOARD, FLIGHTS, SLOT, WORKERS, open_number, sealed_number};
use super::{Cell, CellName, flights};
use crate::sys::shared_map::SharedMap;

/// A descriptor that the keeper holds for the VE as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deposited {
    /// The private area's root.
    AreaRoot,
    /// The private area's lock.
    AreaLock,
    /// The shared memory itself.
    Memory,
    /// The listening control socket.
    ControlSocket,
    /// The listening socket for quota tools' containers.
    QuotactlSocket,
    /// What requests are read into; see [`super::Intake`].
    Intake,
}

const NEXT_HANDLE: usize = 0;
const RESTARTS: usize = 1;
const LAST_DEATH: usize = 2;
const FAULT_PASSES: usize = 3;
const LOSS: usize = 4;
const DEPOSITS: usize = 8;
/// How much of each growing part has room; see [`Grown`]. What follows belongs to the inbox.
const GROWN: usize = 16;
const KIND: u64 = 0x200;

/// A part of the memory that gets room as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grown {
    Holds,
    Listeners,
    Notifications,
    Handles,
    Chunks,
}

/// The counters.
#[derive(Clone, Debug)]
pub struct Board {
    map: Arc<SharedMap>,
}

impl Board {
    pub(super) fn new(map: Arc<SharedMap>) -> Self {
        Self { map }
    }

    /// For the keeper: maps the memory for its counters alone.
    ///
    /// # Errors
    /// Where the descriptor is not one that [`super::Shared::create`] made.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        let map = SharedMap::adopt(fd)?;
        if map.words() < super::layout::FIXED {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self::new(Arc::new(map)))
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        self.map.word(BOARD.start + index)
    }

    /// Requests that were answered since the mount.
    pub fn finished(&self) -> u64 {
        (0..WORKERS)
            .map(|worker| flights::finished(&self.map, FLIGHTS.start + worker * SLOT))
            .fold(0, u64::wrapping_add)
    }

    /// Requests that a worker is at.
    pub fn in_work(&self) -> usize {
        (0..WORKERS)
            .filter(|worker| flights::is_busy(&self.map, FLIGHTS.start + worker * SLOT))
            .count()
    }

    /// Takes the next number for an open file.
    pub fn next_handle(&self) -> u64 {
        self.word(NEXT_HANDLE)
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1)
    }

    /// Numbers up to this one are in use, whatever the counter says. One that no mount lives to reach is damage.
    pub(super) fn correct_next_handle(&self, used: u64) {
        let next = self.word(NEXT_HANDLE);
        if next.fetch_max(used, Ordering::Relaxed) > u64::MAX / 2 {
            next.store(used, Ordering::Relaxed);
        }
    }

    /// How many successors were started.
    pub fn restarts(&self) -> u64 {
        self.word(RESTARTS).load(Ordering::Relaxed)
    }

    /// Counts a successor.
    pub fn note_restart(&self) {
        self.word(RESTARTS).fetch_add(1, Ordering::Relaxed);
    }

    /// How the last daemon ended, as waitpid(2) tells it; `None` where none has.
    pub fn last_death(&self) -> Option<u32> {
        open_number(KIND, self.word(LAST_DEATH).load(Ordering::Acquire))
    }

    /// Notes how a daemon ended.
    pub fn note_death(&self, status: u32) {
        self.word(LAST_DEATH)
            .store(sealed_number(KIND, status), Ordering::Release);
    }

    /// Whether a daemon of this mount met an error with which the private area may have lost what it was given. Damage counts
    /// as one.
    pub fn has_lost(&self) -> bool {
        self.word(LOSS).load(Ordering::Acquire) != 0
    }

    /// Notes such an error, for successors.
    pub fn note_loss(&self) {
        self.word(LOSS).store(1, Ordering::Release);
    }

    /// The keeper's number of a descriptor.
    pub fn deposit(&self, what: Deposited) -> Option<u32> {
        open_number(
            deposit_kind(what),
            self.word(deposit_word(what)).load(Ordering::Acquire),
        )
    }

    /// Notes the keeper's number of a descriptor.
    pub fn set_deposit(&self, what: Deposited, number: Option<u32>) {
        let word = number.map_or(0, |number| sealed_number(deposit_kind(what), number));
        self.word(deposit_word(what)).store(word, Ordering::Release);
    }

    /// How the last replacement of the program went; the keeper writes it.
    pub fn upgrade(&self) -> Cell {
        Cell::new(self.map.clone(), CellName::Upgrade)
    }

    /// Counts passes of the armed fault point over all daemons; see [`crate::fault::arm`].
    pub(crate) fn fault_counter(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let board = self.clone();
        move || board.word(FAULT_PASSES).fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many units of a part have room; `None` where that is not to be known any more.
    pub(super) fn grown(&self, part: Grown) -> Option<u32> {
        match self.word(grown_word(part)).load(Ordering::Acquire) {
            0 => Some(0),
            word => open_number(KIND + 1, word),
        }
    }

    pub(super) fn set_grown(&self, part: Grown, units: u32) {
        self.word(grown_word(part))
            .store(sealed_number(KIND + 1, units), Ordering::Release);
    }
}

fn deposit_word(what: Deposited) -> usize {
    DEPOSITS
        + match what {
            Deposited::AreaRoot => 0,
            Deposited::AreaLock => 1,
            Deposited::Memory => 2,
            Deposited::ControlSocket => 3,
            Deposited::QuotactlSocket => 4,
            Deposited::Intake => 5,
        }
}

fn deposit_kind(what: Deposited) -> u64 {
    KIND + 0x10 + u64::try_from(deposit_word(what)).unwrap_or(0)
}

fn grown_word(part: Grown) -> usize {
    GROWN
        + match part {
            Grown::Holds => 0,
            Grown::Listeners => 1,
            Grown::Notifications => 2,
            Grown::Handles => 3,
            Grown::Chunks => 4,
        }
}
