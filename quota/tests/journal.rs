//! Epochs of the journal: a new one begins at once, and what goes on is named in it before anything of it changes. And
//! its bytes: what was damaged is not taken for what was never written.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests state what they expect"
)]

use std::collections::HashMap;

use quota::journal::{Identity, Image};
use quota::{Bytes, Change, Charged, Epoch, FileJournal, InodeId, Journal, Owner, Usage, VeId};

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
        self.journal.settle(&[Change {
            inode: inode(number),
            before: charged(before),
            after: charged(after),
        }]);
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
    for format in [0, 1, 3_u32] {
        is_named(&bench, "of another release", |bytes| {
            bytes[8..12].copy_from_slice(&format.to_le_bytes());
            let crc = crc32fast::hash(&bytes[..4092]);
            bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
        });
    }
}
