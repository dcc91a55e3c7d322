//! Every state in which a loss of power can leave the file: what was synced, and any part of what was written since.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ::redb::StorageBackend;
use ::redb::backends::InMemoryBackend;
use parking_lot::Mutex;

use super::super::{Batch, Store as _, StoreError};
use super::{Database, builder};

/// What is written as a whole.
const SECTOR: usize = 512;
/// Commits that are made.
const COMMITS: usize = 25;
/// States that are tried, unless the variable names another number.
const STATES: (&str, u64) = ("SIMFS_TORN_STATES", 2000);

#[derive(Clone, Debug)]
enum Event {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// A file in memory that notes what is done to it.
#[derive(Clone, Debug, Default)]
struct Noted {
    content: Arc<InMemoryBackend>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl StorageBackend for Noted {
    fn len(&self) -> io::Result<u64> {
        self.content.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.content.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.events.lock().push(Event::SetLen(len));
        self.content.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.events.lock().push(Event::Sync);
        self.content.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.events.lock().push(Event::Write(offset, data.to_vec()));
        self.content.write(offset, data)
    }
}

fn open(backend: impl StorageBackend) -> Result<Database, StoreError> {
    Database::start(Path::new("torn"), "open", || {
        let mut builder = builder();
        builder.set_check_integrity_on_open(true);
        Ok(builder.create_with_backend(backend)?)
    })
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// Changes some records, more in some commits than in others.
fn change(content: &mut Content, random: &mut Random) -> Batch {
    let mut batch = Batch::new();
    let many = [3, 30, 300][random.below(3)];
    for _ in 0..many {
        let key = format!("u{:04}", random.below(600)).into_bytes();
        if random.below(4) == 0 {
            content.remove(&key);
            batch.remove(key);
        } else {
            let value = vec![u8::try_from(random.below(256)).unwrap(); 20 + random.below(200)];
            content.insert(key.clone(), value.clone());
            batch.put(key, value);
        }
    }
    batch
}

/// Does it, or a part of it.
fn replay(file: &mut Vec<u8>, event: &Event, mut keep: impl FnMut() -> bool) {
    match event {
        Event::Sync => {}
        Event::SetLen(len) => {
            if keep() {
                file.resize(usize::try_from(*len).unwrap(), 0);
            }
        }
        Event::Write(offset, data) => {
            for (number, sector) in data.chunks(SECTOR).enumerate() {
                let from = usize::try_from(*offset).unwrap() + number * SECTOR;
                let to = from + sector.len();
                if keep() {
                    let len = file.len().max(to);
                    file.resize(len, 0);
                    file[from..to].copy_from_slice(sector);
                }
            }
        }
    }
}

/// The file after a loss of power behind these events.
fn torn(events: &[Event], random: &mut Random) -> Vec<u8> {
    let synced = events
        .iter()
        .rposition(|event| matches!(event, Event::Sync));
    let synced = synced.map_or(0, |at| at + 1);
    let mut file = Vec::new();
    for event in &events[..synced] {
        replay(&mut file, event, || true);
    }
    let share = random.below(5);
    for event in &events[synced..] {
        replay(&mut file, event, || random.below(4) < share);
    }
    file
}

fn content_of(file: &[u8]) -> Content {
    let backend = InMemoryBackend::new();
    backend.set_len(u64::try_from(file.len()).unwrap()).unwrap();
    backend.write(0, file).unwrap();
    let db = open(backend).unwrap();
    db.scan(b"", b"", usize::MAX).unwrap().into_iter().collect()
}

// S52: no way of losing what was not synced loses what was acknowledged, or tears a commit.
#[test]
fn every_torn_state_is_the_last_acknowledged_commit_or_the_one_under_way() {
    let noted = Noted::default();
    let db = open(noted.clone()).unwrap();
    let (mut random, mut content) = (Random(7), Content::new());
    // What the file must say from this number of events on.
    let mut history = Vec::new();
    for _ in 0..COMMITS {
        db.commit(&change(&mut content, &mut random)).unwrap();
        history.push((noted.events.lock().len(), content.clone()));
    }
    // A process that is killed closes nothing.
    std::mem::forget(db);
    let events = noted.events.lock().clone();
    let first = history[0].0;
    let (name, usual) = STATES;
    let states = std::env::var(name).map_or(usual, |given| given.parse().unwrap());
    let mut between = 0;
    for state in 0..states {
        let end = first + random.below(events.len() - first + 1);
        let found = content_of(&torn(&events[..end], &mut random));
        let acknowledged = history.iter().rposition(|(at, _)| *at <= end).unwrap();
        let under_way = history.get(acknowledged + 1);
        between += usize::from(under_way.is_some_and(|(_, content)| *content == found));
        assert!(
            found == history[acknowledged].1
                || under_way.is_some_and(|(_, content)| *content == found),
            "state {state}: behind event {end}, commit {acknowledged} was acknowledged"
        );
    }
    assert!(between > 0, "no state had the commit under way");
}
