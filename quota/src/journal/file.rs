//! A journal in a file that is never synced: the page cache outlives the process, not the host.
//!
//! Which records count: each says what the totals of one commit, its epoch, hold for an inode that was touched after
//! that commit. For a store at epoch S, the record of an inode with the lowest epoch from S on is the right
//! one: the inode was not touched between S and that epoch. Records below S are done with.
//!
//! The crash cases:
//! 1. A record is written before the change that it is for is made, or taken into the totals: an inode that may differ
//!    from the totals is always named.
//! 2. Between `rotate` and the end of the commit the store may be at the old epoch or the new one: the records of both
//!    are there.
//! 3. A write that fails turns the journal unsound, which the header says from then on: a recount is due.
//! 4. A name that is about to be made is written before it is made. What says that this has ended is, where the new inode
//!    gets its record then, that record: both are known after one write, or neither.
//!
//! A new epoch begins at once, whatever the number of inodes: those that may still change are carried over a stride at a
//! time, before the commit is made, and earlier where one of them is about to change.
//!
//! Bound: the records of the epochs since the last durable commit. A commit is asked for above [`CROWD`] new ones.
//! Lock order: after the ledger's; parts, all of them only in order, before `tail`. `intents` is a leaf.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::inode::{Charged, InodeId};
use crate::request::Change;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

use super::format::{Entry, RECORD};
use super::{Epoch, Identity, IntentSlot, Journal};

mod intents;
mod known;
mod tail;

use intents::Intents;
use known::{First, Inode, Known, Touched};
use tail::Tail;

/// New records above which a commit is asked for.
const CROWD: usize = 16_384;
/// Parts of the inodes that have a lock each.
const PARTS: usize = 16;
/// Inodes that are carried over without letting others in.
const STRIDE: usize = 256;

/// The journal of a VE in service.
#[derive(Debug)]
pub struct FileJournal {
    file: File,
    session: u64,
    sound: AtomicBool,
    /// New records of this epoch, those carried over not counted.
    fresh: AtomicUsize,
    /// Inodes by number. Before `tail` in the lock order; all of them only in order.
    parts: [Mutex<Known>; PARTS],
    tail: Mutex<Tail>,
    intents: Mutex<Intents>,
}

impl FileJournal {
    /// Makes an empty journal; a file that is there already is replaced.
    ///
    /// # Errors
    /// The file system's own.
    pub fn create(path: &Path, identity: Identity) -> io::Result<Self> {
        let _ = std::fs::remove_file(path);
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            session: identity.session,
            tail: Mutex::new(Tail::create(&file, identity)?),
            file,
            sound: AtomicBool::new(true),
            fresh: AtomicUsize::new(0),
            parts: Default::default(),
            intents: Mutex::default(),
        })
    }

    /// The number by which the store names this journal.
    pub fn session(&self) -> u64 {
        self.session
    }

    fn part(&self, inode: &InodeId) -> MutexGuard<'_, Known> {
        let [first, ..] = &self.parts;
        let number = usize::try_from(inode.ino()).unwrap_or(0) % PARTS;
        self.parts.get(number).unwrap_or(first).lock()
    }

    /// From now on a crash needs a recount.
    fn give_up(&self, tail: &Tail, error: &io::Error) {
        if self.sound.swap(false, Ordering::AcqRel) {
            tracing::error!(%error, "the journal cannot be kept: after a crash the VE will be recounted");
        }
        if tail.write_header(&self.file, false).is_err() {
            // An empty file is no journal either.
            let _ = self.file.set_len(0);
        }
    }

    /// Writes records of the present epoch. The caller holds the lock of the inodes' part, so the epoch stays.
    fn append(&self, entries: &[Entry]) {
        let mut left = entries;
        while !left.is_empty() && self.is_sound() {
            let taken = self.tail.lock().take(&self.file, left.len());
            let written = taken.and_then(|room| {
                self.write(left.get(..room.records).unwrap_or(left), room.at)
                    .map(|()| room.records)
            });
            match written {
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(error) => self.give_up(&self.tail.lock(), &error),
            }
        }
    }

    fn write(&self, entries: &[Entry], at: u64) -> io::Result<()> {
        match entries {
            [only] => self.file.write_all_at(&only.encode(at), at),
            several => {
                let places = (at..).step_by(RECORD);
                let bytes: Vec<u8> = several
                    .iter()
                    .zip(places)
                    .flat_map(|(entry, at)| entry.encode(at))
                    .collect();
                self.file.write_all_at(&bytes, at)
            }
        }
    }

    /// Names an inode for the first time in this epoch.
    fn first_touch(&self, part: &mut Known, first: First) {
        if self.is_sound() {
            let entry = part.insert(first);
            self.fresh.fetch_add(1, Ordering::Relaxed);
            self.append(&[entry]);
        }
    }

    /// Works on an inode that is known, in the present epoch; false where it is not.
    fn touch(&self, part: &mut Known, inode: &InodeId, work: impl FnOnce(&mut Inode)) -> bool {
        match part.touch(inode) {
            Touched::Named(known) => work(known),
            Touched::Carried(known, entry) => {
                self.append(&[entry]);
                work(known);
            }
            Touched::Unknown => return false,
        }
        true
    }
}

impl Journal for FileJournal {
    fn begin(&self, touched: &[(InodeId, Option<Charged>)]) {
        for &(inode, charged) in touched {
            let mut part = self.part(&inode);
            let pin = |known: &mut Inode| known.pins = known.pins.saturating_add(1);
            if !self.touch(&mut part, &inode, pin) {
                let first = First {
                    inode,
                    held: charged,
                    known: Inode { charged, pins: 1 },
                    ends: None,
                };
                self.first_touch(&mut part, first);
            }
        }
    }

    fn intend(&self, parent: &InodeId, name: &[u8]) -> Option<IntentSlot> {
        if !self.is_sound() {
            return None;
        }
        let written = self.intents.lock().write(&self.file, parent, name);
        written
            .inspect_err(|error| self.give_up(&self.tail.lock(), error))
            .ok()
    }

    fn settle(&self, changes: &[Change], intent: Option<IntentSlot>) -> bool {
        let mut ending = intent;
        for change in changes {
            let mut part = self.part(&change.inode);
            let (before, charged) = (change.before, change.after);
            let known = self.touch(&mut part, &change.inode, |known| known.charged = charged);
            if !known && before != charged {
                // What was there before was not made under the name.
                let ended = ending.take_if(|_| before.is_none());
                let first = First {
                    inode: change.inode,
                    held: before,
                    known: Inode { charged, pins: 0 },
                    ends: ended.map(|slot| slot.number),
                };
                self.first_touch(&mut part, first);
                if let Some(slot) = ended {
                    self.intents.lock().end_by_record(slot);
                }
            }
        }
        ending.is_none()
    }

    fn end(&self, touched: &[InodeId], intent: Option<IntentSlot>) {
        for inode in touched {
            self.part(inode).unpin(inode);
        }
        if let Some(slot) = intent {
            let ended = self.intents.lock().end(&self.file, slot);
            if let Err(error) = ended {
                self.give_up(&self.tail.lock(), &error);
            }
        }
    }

    fn restate(&self, inode: &InodeId, charged: Option<Charged>) {
        let mut part = self.part(inode);
        let _known = self.touch(&mut part, inode, |known| known.charged = charged);
    }

    fn rotate(&self, epoch: Epoch) {
        let mut parts = self.parts.each_ref().map(Mutex::lock);
        self.tail.lock().rotate(epoch);
        parts.iter_mut().for_each(|part| part.rotate(epoch));
        self.fresh.store(0, Ordering::Relaxed);
    }

    fn carry(&self) {
        for part in &self.parts {
            loop {
                let mut part = part.lock();
                if !self.is_sound() {
                    part.clear();
                }
                let Some(entries) = part.stride(STRIDE) else {
                    break;
                };
                self.append(&entries);
            }
        }
    }

    fn committed(&self, epoch: Epoch) {
        let cleared = self.intents.lock().clear_void(&self.file);
        let mut tail = self.tail.lock();
        if let Err(error) = cleared {
            self.give_up(&tail, &error);
        }
        if let Err(error) = tail.committed(&self.file, epoch, self.is_sound()) {
            self.give_up(&tail, &error);
        }
    }

    fn distrust(&self) {
        let cause = io::Error::other("the private area may have lost writes");
        self.give_up(&self.tail.lock(), &cause);
    }

    fn is_sound(&self) -> bool {
        self.sound.load(Ordering::Acquire)
    }

    fn wants_commit(&self) -> bool {
        self.fresh.load(Ordering::Relaxed) > CROWD
    }
}
