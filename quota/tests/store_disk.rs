//! The store on disk: made, opened, held, removed; large commits; leftovers of an interrupted process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test states what it expects"
)]

use std::fs;
use std::path::Path;

use quota::store::copy::{AccountCopy, LimitsCopy};
use quota::store::record::{self, InfoRecord, key};
use quota::store::sled::SledStore;
use quota::store::{Batch, Store as _, StoreError};
use quota::{Bytes, Deadlines, GracePeriods, Limit, Limits, Subject, Timestamp, Uid, VeId};
use tempfile::TempDir;

const VE: VeId = VeId::new(101);

fn put(store: &SledStore, key: &[u8], info: &InfoRecord) {
    let mut batch = Batch::new();
    batch.put(key, record::encode(key, info));
    store.commit(&batch).unwrap();
}

fn info(epoch: u64) -> InfoRecord {
    InfoRecord {
        ve: VE,
        private: "/vz/private/101".into(),
        grace: [GracePeriods::default(); 3],
        enforced: [true; 3],
        ugid_limit: 0,
        epoch,
        created: Timestamp::new(1),
    }
}

fn epoch(store: &SledStore, key: &[u8]) -> Option<u64> {
    let value = store.get(key).unwrap()?;
    Some(record::decode::<InfoRecord>(key, &value).unwrap().epoch)
}

fn error(result: Result<SledStore, StoreError>) -> StoreError {
    result.err().expect("an error")
}

/// All that is in the store's directory, the database's own files aside.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("101");
    let store = SledStore::create(&dir, VE).unwrap();
    put(&store, b"a", &info(7));
    drop(store);
    let store = SledStore::open(&dir, VE).unwrap();
    assert_eq!(epoch(&store, b"a"), Some(7));
    assert_eq!(store.get(b"b").unwrap(), None);
    assert_eq!(names(&dir), ["db", "identity", "lock"]);
}

#[test]
fn a_second_opener_is_refused_at_once() {
    let dir = TempDir::new().unwrap();
    let held = SledStore::create(dir.path(), VE).unwrap();
    let started = std::time::Instant::now();
    assert!(matches!(
        error(SledStore::open(dir.path(), VE)),
        StoreError::Held { .. }
    ));
    assert!(matches!(
        error(SledStore::create(dir.path(), VE)),
        StoreError::Held { .. }
    ));
    assert!(matches!(
        SledStore::remove(dir.path(), VE),
        Err(StoreError::Held { .. })
    ));
    assert!(started.elapsed().as_millis() < 200);
    drop(held);
    SledStore::open(dir.path(), VE).unwrap();
}

#[test]
fn a_store_that_is_not_there_is_missing_and_nothing_is_made() {
    let dir = TempDir::new().unwrap();
    let absent = dir.path().join("5");
    assert!(matches!(
        error(SledStore::open(&absent, VE)),
        StoreError::Missing { .. }
    ));
    assert!(!absent.exists());
    assert!(matches!(
        error(SledStore::open(dir.path(), VE)),
        StoreError::Missing { .. }
    ));
}

#[test]
fn another_ve_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(SledStore::create(dir.path(), VE).unwrap());
    let found = error(SledStore::open(dir.path(), VeId::new(5)));
    assert!(matches!(found, StoreError::ForeignVe { expected, found }
        if expected == VeId::new(5) && found == VE));
    assert!(SledStore::remove(dir.path(), VeId::new(5)).is_err());
    assert!(matches!(
        error(SledStore::create(dir.path(), VE)),
        StoreError::Exists { .. }
    ));
    // Whose it is counts before what state it is in.
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    let found = error(SledStore::open(dir.path(), VeId::new(5)));
    assert!(matches!(found, StoreError::ForeignVe { .. }));
}

#[test]
fn a_database_of_another_ve_beside_the_right_identity_is_refused() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    drop(SledStore::create(dir.path(), VE).unwrap());
    drop(SledStore::create(other.path(), VeId::new(5)).unwrap());
    fs::rename(dir.path().join("db"), dir.path().join("away")).unwrap();
    fs::rename(other.path().join("db"), dir.path().join("db")).unwrap();
    assert!(matches!(
        error(SledStore::open(dir.path(), VE)),
        StoreError::ForeignVe { .. }
    ));
}

#[test]
fn a_removed_store_is_missing_and_can_be_made_again() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("101");
    let store = SledStore::create(&dir, VE).unwrap();
    put(&store, b"a", &info(7));
    store.write_copy(&LimitsCopy::new(&info(7), [])).unwrap();
    drop(store);
    SledStore::remove(&dir, VE).unwrap();
    assert!(!dir.exists());
    assert!(matches!(
        SledStore::remove(&dir, VE),
        Err(StoreError::Missing { .. })
    ));
    let store = SledStore::create(&dir, VE).unwrap();
    assert_eq!(epoch(&store, b"a"), None);
}

#[test]
fn a_creation_that_was_interrupted_can_be_repeated() {
    let dir = TempDir::new().unwrap();
    drop(SledStore::create(dir.path(), VE).unwrap());
    fs::remove_file(dir.path().join("identity")).unwrap();
    assert!(matches!(
        error(SledStore::open(dir.path(), VE)),
        StoreError::Missing { .. }
    ));
    drop(SledStore::create(dir.path(), VE).unwrap());
    SledStore::open(dir.path(), VE).unwrap();
}

#[test]
fn a_snapshot_half_written_by_a_killed_process_does_no_harm() {
    let dir = TempDir::new().unwrap();
    let store = SledStore::create(dir.path(), VE).unwrap();
    put(&store, b"a", &info(7));
    drop(store);
    let leftover = dir.path().join("db/snap.0000000000000040.generating");
    fs::write(&leftover, b"half a snapshot").unwrap();
    let store = SledStore::open(dir.path(), VE).unwrap();
    assert_eq!(epoch(&store, b"a"), Some(7));
    assert!(!leftover.exists());
}

#[test]
fn a_scan_is_bounded_by_prefix_start_and_limit() {
    let dir = TempDir::new().unwrap();
    let store = SledStore::create(dir.path(), VE).unwrap();
    for name in [&b"a"[..], b"u1", b"u2", b"u3", b"v"] {
        put(&store, name, &info(0));
    }
    let keys = |prefix: &str, from: &str, limit| -> Vec<String> {
        let found = store
            .scan(prefix.as_bytes(), from.as_bytes(), limit)
            .unwrap();
        found
            .into_iter()
            .map(|(key, _)| String::from_utf8(key).unwrap())
            .collect()
    };
    assert_eq!(keys("u", "", 9), ["u1", "u2", "u3"]);
    assert_eq!(keys("u", "u2", 1), ["u2"]);
    assert_eq!(keys("u", "v", 9), [""; 0]);
}

#[test]
fn a_commit_larger_than_a_piece_of_the_log_is_whole() {
    let dir = TempDir::new().unwrap();
    let store = SledStore::create(dir.path(), VE).unwrap();
    let ids = 0..10_000_u32;
    let key = |id| key::account(Subject::User(Uid::new(id)));
    let mut batch = Batch::new();
    for id in ids.clone() {
        batch.put(key(id), record::encode(&key(id), &info(u64::from(id))));
    }
    store.commit(&batch).unwrap();
    let mut second = Batch::new();
    for id in ids.clone() {
        second.remove(key(id));
    }
    for id in (1..10_000).step_by(2) {
        second.put(key(id), record::encode(&key(id), &info(u64::from(id))));
    }
    store.commit(&second).unwrap();
    drop(store);
    let store = SledStore::open(dir.path(), VE).unwrap();
    for id in ids {
        let expected = (id % 2 == 1).then_some(u64::from(id));
        assert_eq!(epoch(&store, &key(id)), expected, "{id}");
    }
    assert_eq!(store.scan(b"t", b"", 1).unwrap(), []);
}

#[test]
fn the_copy_of_limits_reads_back_and_replaces_the_earlier_one() {
    let dir = TempDir::new().unwrap();
    let store = SledStore::create(dir.path(), VE).unwrap();
    assert_eq!(LimitsCopy::read(dir.path()).unwrap(), None);
    let mut copy = LimitsCopy::new(&info(0), []);
    store.write_copy(&copy).unwrap();
    let space = Limit::new(None, Some(Bytes::new(4096)));
    copy.accounts.push(AccountCopy {
        subject: Subject::User(Uid::new(1000)),
        limits: Limits {
            space,
            inodes: Limit::UNLIMITED,
        },
        deadlines: Deadlines {
            space: Some(Timestamp::new(9)),
            inodes: None,
        },
    });
    store.write_copy(&copy).unwrap();
    assert_eq!(LimitsCopy::read(dir.path()).unwrap(), Some(copy));
    assert_eq!(names(dir.path()), ["db", "identity", "limits.json", "lock"]);
}

#[test]
fn a_copy_of_a_newer_format_or_with_other_text_is_told_apart() {
    let dir = TempDir::new().unwrap();
    fs::write(
        dir.path().join("limits.json"),
        r#"{"format": 2, "unheard": "of"}"#,
    )
    .unwrap();
    let newer = LimitsCopy::read(dir.path());
    assert!(matches!(
        newer,
        Err(StoreError::NewerFormat { found: 2, known: 1 })
    ));
    fs::write(dir.path().join("limits.json"), r#"{"format": 1}"#).unwrap();
    assert!(LimitsCopy::read(dir.path()).is_err_and(|error| error.is_damage()));
}
