//! Epochs of the journal: a new one begins at once, and what goes on is named in it before anything of it changes. And
//! its bytes: what was damaged is not taken for what was never written.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests state what they expect"
)]

use std::collections::HashMap;
use std::sync::Arc;

use quota::journal::{Identity, Image, Unusable};
use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Change, Charged, Engine, Environment, Epoch, FileJournal, InodeId, IntentSlot, Journal,
    Owner, Setup, Usage, VeId,
};

struct Bench {
    dir: tempfile::TempDir,
    journal: FileJournal,
}

fn inode(number: u64) -> InodeId {
    InodeId::new(number, 1, &number.to_ne_bytes())
}

fn charged(bytes: u64) -> Option<Charged> {
    Some(Charged {
        owner: Owner::new(1, 1),
        usage: Usage::inode(Bytes::new(bytes)),
    })
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = FileJournal::create(&dir.path().join("journal"), identity()).unwrap();
        Self { dir, journal }
    }

    fn settle(&self, number: u64, before: u64, after: u64) {
        let change = Change {
            inode: inode(number),
            before: charged(before),
            after: charged(after),
        };
        self.journal.settle(&[change], None);
    }

    /// A name is about to be made.
    fn intend(&self, name: &str) -> IntentSlot {
        self.journal.intend(&inode(1), name.as_bytes()).unwrap()
    }

    /// A new inode is there, under the name; whether that is all there is to say.
    fn settle_new(&self, number: u64, slot: IntentSlot) -> bool {
        let directory = Change {
            inode: inode(1),
            before: charged(10),
            after: charged(11),
        };
        let new = Change {
            inode: inode(number),
            before: None,
            after: charged(1),
        };
        self.journal.settle(&[directory, new], Some(slot))
    }

    /// The names that somebody was about to make, if the process died now.
    fn intents(&self) -> Vec<String> {
        let image = Image::read(&self.dir.path().join("journal"), &identity()).unwrap();
        let name = |(_, name): (_, &[u8])| String::from_utf8(name.to_vec()).unwrap();
        image.intents().map(name).collect()
    }

    /// What a store at this epoch would have to look at, if the process died now.
    fn touched(&self, epoch: u64) -> HashMap<InodeId, Option<Charged>> {
        let image = Image::read(&self.dir.path().join("journal"), &identity()).unwrap();
        image.touched_since(Epoch::new(epoch))
    }
}

fn identity() -> Identity {
    Identity {
        ve: VeId::new(1),
        boot: "boot".into(),
        session: 1,
    }
}

#[test]
fn what_goes_on_is_named_in_the_new_epoch_with_what_its_totals_hold() {
    let bench = Bench::new();
    bench.journal.begin(&[(inode(1), charged(10))]);
    bench.journal.begin(&[(inode(2), charged(20))]);
    bench.journal.begin(&[(inode(3), charged(30))]);
    bench.settle(1, 10, 11);
    bench.journal.end(&[inode(3)], None);
    bench.journal.rotate(Epoch::new(1));
    // Changes before it is carried over: named first.
    bench.settle(1, 11, 12);
    assert_eq!(bench.touched(1), [(inode(1), charged(11))].into());
    bench.journal.begin(&[(inode(2), charged(20))]);
    let both = [(inode(1), charged(11)), (inode(2), charged(20))];
    assert_eq!(bench.touched(1), both.into());
    bench.journal.carry();
    // What had ended is not carried over, and comes in anew.
    assert_eq!(bench.touched(1), both.into());
    bench.settle(3, 30, 31);
    assert_eq!(bench.touched(1)[&inode(3)], charged(30));
    // As long as the store may be at the epoch before, its records count.
    let before = [10, 20, 30].map(charged);
    assert_eq!(bench.touched(0), (1..).map(inode).zip(before).collect());
}

#[test]
fn what_ends_between_two_epochs_is_not_carried_over() {
    let bench = Bench::new();
    for number in 0..5000 {
        bench.journal.begin(&[(inode(number), charged(number))]);
    }
    bench.journal.rotate(Epoch::new(1));
    for number in 0..2000 {
        bench.journal.end(&[inode(number)], None);
    }
    bench.journal.carry();
    let expected = (2000..5000).map(|number| (inode(number), charged(number)));
    assert_eq!(bench.touched(1), expected.collect());
    bench.journal.committed(Epoch::new(1));
    // Carried over again by the next one, and the file does not grow with every commit.
    let length = || {
        std::fs::metadata(bench.dir.path().join("journal"))
            .unwrap()
            .len()
    };
    let mut lengths = Vec::new();
    for epoch in 2..12 {
        bench.journal.rotate(Epoch::new(epoch));
        bench.journal.carry();
        assert_eq!(bench.touched(epoch).len(), 3000);
        bench.journal.committed(Epoch::new(epoch));
        lengths.push(length());
    }
    assert_eq!(lengths.last(), lengths.get(2));
}

#[test]
fn a_recount_that_restates_an_inode_does_not_change_what_the_present_epoch_says() {
    let bench = Bench::new();
    bench.journal.begin(&[(inode(1), charged(10))]);
    bench.journal.rotate(Epoch::new(1));
    bench.journal.restate(&inode(1), charged(15));
    bench.journal.carry();
    assert_eq!(bench.touched(1), [(inode(1), charged(10))].into());
    bench.journal.rotate(Epoch::new(2));
    bench.journal.carry();
    assert_eq!(bench.touched(2), [(inode(1), charged(15))].into());
}

#[test]
fn the_record_of_what_was_made_ends_the_intent() {
    let bench = Bench::new();
    bench.journal.begin(&[(inode(1), charged(10))]);
    let (first, second) = (bench.intend("first"), bench.intend("second"));
    assert_eq!(bench.intents(), ["first", "second"]);
    assert!(bench.settle_new(2, first));
    assert_eq!(bench.intents(), ["second"]);
    // The place is used again.
    let third = bench.intend("third");
    assert_eq!(bench.intents(), ["third", "second"]);
    // Nothing was made: there is no record that could say so.
    bench.journal.end(&[], Some(second));
    assert_eq!(bench.intents(), ["third"]);
    // An inode that the journal knows gets no record.
    bench.journal.begin(&[(inode(3), None)]);
    assert!(!bench.settle_new(3, third));
    assert_eq!(bench.intents(), ["third"]);
    bench.journal.end(&[], Some(third));
    assert!(bench.intents().is_empty());
}

#[test]
fn an_inode_that_was_there_before_ends_no_intent() {
    let bench = Bench::new();
    let slot = bench.intend("name");
    let change = Change {
        inode: inode(9),
        before: charged(5),
        after: charged(6),
    };
    assert!(!bench.journal.settle(&[change], Some(slot)));
    assert_eq!(bench.intents(), ["name"]);
}

/// The records of an epoch are written over after the commit; what they ended does not begin again.
#[test]
fn an_intent_that_ended_is_not_alive_again_after_a_commit() {
    let bench = Bench::new();
    bench.journal.begin(&[(inode(1), charged(10))]);
    let (ended, going_on) = (bench.intend("ended"), bench.intend("going on"));
    assert!(bench.settle_new(2, ended));
    for epoch in 1..4 {
        bench.journal.rotate(Epoch::new(epoch));
        bench.journal.carry();
        bench.journal.committed(Epoch::new(epoch));
        // More than one chunk: all that was freed is used again.
        for number in 0..2000 {
            let touched = inode(1000 * 1000 * epoch + number);
            bench.journal.begin(&[(touched, None)]);
            bench.journal.end(&[touched], None);
        }
        assert_eq!(bench.intents(), ["going on"], "{epoch}");
    }
    assert!(bench.settle_new(3, going_on));
    assert!(bench.intents().is_empty());
}

/// A commit comes between the making of a name and its end.
#[test]
fn what_ends_in_the_next_epoch_is_ended_there() {
    let bench = Bench::new();
    bench.journal.begin(&[(inode(1), charged(10))]);
    let slot = bench.intend("name");
    bench.journal.rotate(Epoch::new(1));
    bench.journal.carry();
    assert!(bench.settle_new(2, slot));
    bench.journal.committed(Epoch::new(1));
    assert!(bench.intents().is_empty());
    assert_eq!(bench.touched(1).get(&inode(2)), Some(&None));
}

/// Where the places of names and of records start, and how long they are.
const NAMES: (usize, usize) = (4096, 512);
const RECORDS: (usize, usize) = (36_864, 128);

/// The journal says so when this is done to its bytes.
#[track_caller]
fn is_named(bench: &Bench, cause: &str, spoil: impl FnOnce(&mut Vec<u8>)) {
    let path = bench.dir.path().join("journal");
    let sound = std::fs::read(&path).unwrap();
    let mut bytes = sound.clone();
    spoil(&mut bytes);
    assert_ne!(bytes, sound);
    std::fs::write(&path, bytes).unwrap();
    let error = Image::read(&path, &identity()).unwrap_err().to_string();
    std::fs::write(&path, sound).unwrap();
    assert!(error.contains(cause), "{error}");
}

// S53: A journal that is damaged, cut off or foreign is named in the log and never used; the VE mounts and is recounted while it works.
#[test]
fn no_place_can_be_emptied_in_silence() {
    let bench = Bench::new();
    bench.journal.begin(&[(inode(1), charged(10))]);
    bench.journal.begin(&[(inode(2), charged(20))]);
    let slot = bench.journal.intend(&inode(2), b"made");
    assert!(bench.journal.intend(&inode(2), b"being made").is_some());
    bench.journal.end(&[], slot);
    // The first two of each are used or were, those after never.
    for ((start, length), cause) in [
        (NAMES, "damaged: an intent"),
        (RECORDS, "damaged: a record"),
    ] {
        for place in [0, 1, 2, 50] {
            let at = start + place * length;
            let elsewhere = start + 40 * length;
            is_named(&bench, cause, |bytes| bytes[at..at + length].fill(0));
            is_named(&bench, cause, |bytes| bytes[at] = 0);
            is_named(&bench, cause, |bytes| {
                bytes.copy_within(elsewhere..elsewhere + length, at);
            });
            is_named(&bench, cause, |bytes| {
                bytes.copy_within(at..at + length, elsewhere);
            });
        }
    }
    is_named(&bench, "cut off", |bytes| {
        bytes.pop();
    });
}

#[test]
fn a_journal_of_another_release_is_foreign() {
    let bench = Bench::new();
    bench.journal.begin(&[(inode(1), charged(10))]);
    for format in [0, 1, 2, 4_u32] {
        is_named(&bench, "of another release", |bytes| {
            bytes[8..12].copy_from_slice(&format.to_le_bytes());
            let crc = crc32fast::hash(&bytes[..4092]);
            bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
        });
    }
}

// S53: A journal that is damaged, cut off or foreign is named in the log and never used; the VE mounts and is recounted while it works.
#[test]
fn a_journal_that_was_changed_is_refused() {
    let bench = Bench::new();
    for number in 0..3 {
        bench.journal.begin(&[(inode(number), charged(10))]);
    }
    assert_eq!(bench.touched(0).len(), 3);
    let (records, length) = RECORDS;
    for at in [
        0,
        9,
        17,
        25,
        records,
        records + 130,
        records + 2 * length + 90,
    ] {
        is_named(&bench, "damaged", |bytes| bytes[at] ^= 4);
    }
    for length in [0, 100, 4096, records] {
        is_named(&bench, "damaged", |bytes| bytes.truncate(length));
    }
    let path = bench.dir.path().join("journal");
    let refused = |identity| Image::read(&path, &identity).unwrap_err();
    for (foreign, why) in [
        (
            Identity {
                ve: VeId::new(8),
                ..identity()
            },
            "another VE",
        ),
        (
            Identity {
                session: 2,
                ..identity()
            },
            "another mount",
        ),
        (
            Identity {
                boot: "later".into(),
                ..identity()
            },
            "another boot",
        ),
    ] {
        let refused = refused(foreign);
        assert!(matches!(refused, Unusable::Foreign(_)), "{why}: {refused}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(refused(identity()), Unusable::Missing));
}

#[test]
fn the_file_shrinks_after_a_burst() {
    let Bench { dir, journal } = Bench::new();
    let store = Arc::new(MemoryStore::new());
    let setup = Setup::new(VeId::new(1), "/private");
    drop(Engine::create(store.clone(), Environment::default(), setup).unwrap());
    let engine = Engine::open_journaled(store, Environment::default(), Arc::new(journal)).unwrap();
    engine.begin_service(1, false).unwrap();
    for number in 0..40_000 {
        drop(engine.watch(inode(number), None));
    }
    assert!(engine.wants_commit());
    let path = dir.path().join("journal");
    let size = || std::fs::metadata(&path).unwrap().len();
    let burst = size();
    engine.record(&[Change {
        inode: inode(1),
        before: None,
        after: charged(0),
    }]);
    engine.commit().unwrap();
    assert!(!engine.wants_commit());
    assert!(size() < burst / 3, "{} of {burst} bytes are left", size());
    assert!(Image::read(&path, &identity()).is_ok());
}
