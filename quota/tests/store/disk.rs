//! The store on disk: made, opened, held, removed; large commits; stores of other versions.

use std::fs;

use quota::VeId;
use quota::store::record::{self, InfoRecord, key};
use quota::store::salvage::salvage;
use quota::store::{Batch, DiskStore, Store as _, StoreError};
use tempfile::TempDir;

use crate::sample::{DATABASE, VE, change, data, info, names, open, open_error, user};

fn put(store: &DiskStore, key: &[u8], info: &InfoRecord) {
    let mut batch = Batch::new();
    batch.put(key, record::encode(key, info));
    store.commit(&batch).unwrap();
}

fn epoch(store: &DiskStore, key: &[u8]) -> Option<u64> {
    let value = store.get(key).unwrap()?;
    Some(record::decode::<InfoRecord>(key, &value).unwrap().epoch)
}

fn error(result: Result<DiskStore, StoreError>) -> StoreError {
    result.err().expect("an error")
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("101");
    let store = DiskStore::create(&dir, VE).unwrap();
    put(&store, b"a", &info(7));
    drop(store);
    let store = open(&dir);
    assert_eq!(epoch(&store, b"a"), Some(7));
    assert_eq!(store.get(b"b").unwrap(), None);
    assert_eq!(names(&dir), ["identity", "lock", DATABASE]);
}

#[test]
fn a_second_opener_is_refused_at_once() {
    let dir = TempDir::new().unwrap();
    let held = DiskStore::create(dir.path(), VE).unwrap();
    let started = std::time::Instant::now();
    assert!(matches!(open_error(dir.path()), StoreError::Held { .. }));
    assert!(matches!(
        error(DiskStore::create(dir.path(), VE)),
        StoreError::Held { .. }
    ));
    assert!(matches!(
        DiskStore::remove(dir.path(), VE),
        Err(StoreError::Held { .. })
    ));
    assert!(started.elapsed().as_millis() < 200);
    drop(held);
    open(dir.path());
}

#[test]
fn a_store_that_is_not_there_is_missing_and_nothing_is_made() {
    let dir = TempDir::new().unwrap();
    let absent = dir.path().join("5");
    assert!(matches!(
        error(DiskStore::open(&absent, VE)),
        StoreError::Missing { .. }
    ));
    assert!(!absent.exists());
    assert!(matches!(open_error(dir.path()), StoreError::Missing { .. }));
}

#[test]
fn another_ve_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(DiskStore::create(dir.path(), VE).unwrap());
    let found = error(DiskStore::open(dir.path(), VeId::new(5)));
    assert!(matches!(found, StoreError::ForeignVe { expected, found }
        if expected == VeId::new(5) && found == VE));
    assert!(DiskStore::remove(dir.path(), VeId::new(5)).is_err());
    assert!(matches!(
        error(DiskStore::create(dir.path(), VE)),
        StoreError::Exists { .. }
    ));
    // Whose it is counts before what state it is in.
    fs::remove_file(data(dir.path())).unwrap();
    let found = error(DiskStore::open(dir.path(), VeId::new(5)));
    assert!(matches!(found, StoreError::ForeignVe { .. }));
}

#[test]
fn a_database_of_another_ve_beside_the_right_identity_is_refused() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    drop(DiskStore::create(dir.path(), VE).unwrap());
    drop(DiskStore::create(other.path(), VeId::new(5)).unwrap());
    fs::rename(data(other.path()), data(dir.path())).unwrap();
    assert!(matches!(
        open_error(dir.path()),
        StoreError::ForeignVe { .. }
    ));
}

#[test]
fn a_removed_store_is_missing_and_can_be_made_again() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("101");
    let store = DiskStore::create(&dir, VE).unwrap();
    put(&store, b"a", &info(7));
    store.keep_copy(&change(7, [])).unwrap();
    drop(store);
    DiskStore::remove(&dir, VE).unwrap();
    assert!(!dir.exists());
    assert!(matches!(
        DiskStore::remove(&dir, VE),
        Err(StoreError::Missing { .. })
    ));
    let store = DiskStore::create(&dir, VE).unwrap();
    assert_eq!(epoch(&store, b"a"), None);
}

#[test]
fn a_creation_that_was_interrupted_can_be_repeated() {
    let dir = TempDir::new().unwrap();
    drop(DiskStore::create(dir.path(), VE).unwrap());
    fs::remove_file(dir.path().join("identity")).unwrap();
    assert!(matches!(open_error(dir.path()), StoreError::Missing { .. }));
    drop(DiskStore::create(dir.path(), VE).unwrap());
    open(dir.path());
}

#[test]
fn a_scan_is_bounded_by_prefix_start_and_limit() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::create(dir.path(), VE).unwrap();
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
fn a_commit_of_ten_thousand_records_is_whole() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::create(dir.path(), VE).unwrap();
    let ids = 0..10_000_u32;
    let key = |id| key::account(user(id));
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
    let store = open(dir.path());
    for id in ids {
        let expected = (id % 2 == 1).then_some(u64::from(id));
        assert_eq!(epoch(&store, &key(id)), expected, "{id}");
    }
}

// Of before the first release: named, with the remedy; nothing is touched.
#[test]
fn a_store_of_another_version_is_named_and_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(DiskStore::create(dir.path(), VE).unwrap());
    fs::remove_file(data(dir.path())).unwrap();
    fs::create_dir(dir.path().join("db")).unwrap();
    fs::write(dir.path().join("db/conf"), b"segment_size: 524288").unwrap();
    let before = names(dir.path());
    let errors = [
        open_error(dir.path()),
        error(DiskStore::create(dir.path(), VE)),
        DiskStore::remove(dir.path(), VE).unwrap_err(),
        salvage(dir.path(), VE).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::OtherVersion { .. }), "{error}");
        assert!(error.to_string().contains("vzquota init"), "{error}");
    }
    assert_eq!(names(dir.path()), before);
}
