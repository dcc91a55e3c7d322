//! A damaged store is told from a sound one, and salvage saves what can be saved.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test states what it expects"
)]

use std::fs;
use std::path::{Path, PathBuf};

use quota::store::copy::LimitsCopy;
use quota::store::record::{self, AccountRecord, InfoRecord, key};
use quota::store::salvage::salvage;
use quota::store::sled::SledStore;
use quota::store::{Batch, Store as _, StoreError};
use quota::{
    Bytes, GracePeriods, Inodes, Limit, Limits, QuotaType, Subject, Timestamp, Uid, Usage, VeId,
};
use tempfile::TempDir;

const VE: VeId = VeId::new(101);
const USERS: u32 = 200;

fn info() -> InfoRecord {
    InfoRecord {
        ve: VE,
        private: "/vz/private/101".into(),
        grace: [GracePeriods::default(); 3],
        enforced: [true; 3],
        ugid_limit: 0,
        epoch: 9,
        created: Timestamp::new(1),
    }
}

fn account(id: u32) -> AccountRecord {
    let space = Limit::new(None, Some(Bytes::new(u64::from(id) + 1)));
    AccountRecord {
        usage: Usage::new(Bytes::new(u64::from(id)), Inodes::new(1)),
        limits: Limits {
            space,
            inodes: Limit::UNLIMITED,
        },
        ..AccountRecord::default()
    }
}

/// A store with settings, two hundred users, and the copy of their limits.
fn store(dir: &Path) {
    let store = SledStore::create(dir, VE).unwrap();
    let mut batch = Batch::new();
    let key = key::info();
    batch.put(key.clone(), record::encode(&key, &info()));
    let accounts: Vec<_> = (0..USERS)
        .map(|id| (Subject::User(Uid::new(id)), account(id)))
        .collect();
    for (subject, account) in &accounts {
        let key = key::account(*subject);
        let value = record::encode(&key, account);
        batch.put(key, value);
    }
    store.commit(&batch).unwrap();
    store
        .write_copy(&LimitsCopy::new(&info(), accounts))
        .unwrap();
}

/// Checks that all limits are in force again, and says how many accounts kept their usage.
fn check_limits(dir: &Path) -> usize {
    let store = SledStore::open(dir, VE).unwrap();
    let value = store.get(&key::info()).unwrap().unwrap();
    let found: InfoRecord = record::decode(&key::info(), &value).unwrap();
    assert_eq!(found.private, info().private);
    let mut kept = 0;
    for id in 0..USERS {
        let key = key::account(Subject::User(Uid::new(id)));
        let value = store
            .get(&key)
            .unwrap()
            .unwrap_or_else(|| panic!("limits of {id} are gone"));
        let found: AccountRecord = record::decode(&key, &value).unwrap();
        assert_eq!(found.limits, account(id).limits);
        kept += usize::from(found == account(id));
    }
    store.commit(&Batch::new()).unwrap();
    kept
}

fn open_error(dir: &Path) -> StoreError {
    SledStore::open(dir, VE)
        .err()
        .expect("damage must be noticed")
}

fn data(dir: &Path) -> PathBuf {
    dir.join("db/db")
}

fn flip(path: &Path, at: usize, len: usize) {
    let mut bytes = fs::read(path).unwrap();
    let end = (at + len).min(bytes.len());
    bytes[at..end].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_database_that_is_gone_or_empty_is_damage_and_not_a_new_ve() {
    let ways: [fn(&Path); 4] = [
        |dir| fs::remove_dir_all(dir.join("db")).unwrap(),
        |dir| {
            fs::remove_dir_all(dir.join("db")).unwrap();
            fs::create_dir(dir.join("db")).unwrap();
        },
        |dir| fs::write(data(dir), b"").unwrap(),
        |dir| {
            fs::remove_dir_all(dir.join("db")).unwrap();
            fs::remove_file(dir.join("identity")).unwrap();
            fs::create_dir(dir.join("db")).unwrap();
        },
    ];
    for (number, way) in ways.into_iter().enumerate() {
        let dir = TempDir::new().unwrap();
        store(dir.path());
        way(dir.path());
        let error = open_error(dir.path());
        assert!(error.is_damage(), "way {number}: {error}");
        let report = salvage(dir.path(), VE).unwrap();
        assert!(
            report.usage_unknown && !report.from_copy.is_empty(),
            "way {number}: {report:?}"
        );
        assert_eq!(check_limits(dir.path()), 0, "way {number}");
    }
}

// S54: damage anywhere in the files.
#[test]
fn no_damage_to_the_files_panics_hangs_or_loses_limits() {
    let sample = TempDir::new().unwrap();
    store(sample.path());
    let len = fs::read(data(sample.path())).unwrap().len();
    for step in 0..24 {
        let dir = TempDir::new().unwrap();
        store(dir.path());
        let at = len.min(64 << 10) * step / 24;
        match step % 3 {
            0 => flip(&data(dir.path()), at, 1),
            1 => flip(&data(dir.path()), at, 4096),
            _ => {
                let bytes = fs::read(data(dir.path())).unwrap();
                fs::write(data(dir.path()), &bytes[..at.min(bytes.len())]).unwrap();
            }
        }
        match SledStore::open(dir.path(), VE) {
            // The database may lose the end of its log in silence; what it shows is sound.
            Ok(_) => {}
            Err(error) => assert!(error.is_damage(), "step {step}: {error}"),
        }
        let report = salvage(dir.path(), VE).unwrap();
        let kept = check_limits(dir.path());
        assert_eq!(
            kept + report.from_copy.len(),
            USERS as usize,
            "step {step}: {report:?}"
        );
        assert!(
            report
                .moved_to
                .is_some_and(|moved| moved.join("db").exists())
        );
    }
}

#[test]
fn a_database_that_lost_an_administrative_change_is_noticed_and_brought_up_to_it() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    // A later change that only the copy knows: the database lost the end of its log.
    let newer = InfoRecord {
        epoch: 10,
        ..info()
    };
    let raised = Limit::new(None, Some(Bytes::new(77)));
    let raised = Limits {
        space: raised,
        inodes: Limit::UNLIMITED,
    };
    let changed = AccountRecord {
        limits: raised,
        ..account(3)
    };
    let ve = AccountRecord {
        limits: raised,
        ..AccountRecord::default()
    };
    let accounts = [(Subject::User(Uid::new(3)), changed), (Subject::Ve, ve)];
    LimitsCopy::new(&newer, accounts).write(dir.path()).unwrap();
    assert!(open_error(dir.path()).is_damage());
    salvage(dir.path(), VE).unwrap();
    let open = SledStore::open(dir.path(), VE).unwrap();
    let read = |subject| {
        let key = key::account(subject);
        record::decode::<AccountRecord>(&key, &open.get(&key).unwrap().unwrap()).unwrap()
    };
    assert_eq!(read(Subject::User(Uid::new(3))), changed);
    assert_eq!(read(Subject::Ve), ve);
    let unlimited = AccountRecord {
        limits: Limits::UNLIMITED,
        ..account(4)
    };
    assert_eq!(read(Subject::User(Uid::new(4))), unlimited);
    let value = open.get(&key::info()).unwrap().unwrap();
    assert!(
        record::decode::<InfoRecord>(&key::info(), &value)
            .unwrap()
            .epoch
            > newer.epoch
    );
}

#[test]
fn torn_settings_of_the_database_are_damage_or_harmless() {
    for len in [0, 5, 20, 40] {
        let dir = TempDir::new().unwrap();
        store(dir.path());
        let path = dir.path().join("db/conf");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..len.min(bytes.len())]).unwrap();
        if let Err(error) = SledStore::open(dir.path(), VE) {
            assert!(error.is_damage(), "{len}: {error}");
            salvage(dir.path(), VE).unwrap();
        }
        check_limits(dir.path());
    }
}

#[test]
fn a_value_with_a_wrong_checksum_is_damage_and_only_its_usage_is_lost() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    let bad = Subject::User(Uid::new(7));
    let open = SledStore::open(dir.path(), VE).unwrap();
    let mut batch = Batch::new();
    batch.put(key::account(bad), b"not a record".to_vec());
    open.commit(&batch).unwrap();
    drop(open);
    assert!(open_error(dir.path()).is_damage());
    let report = salvage(dir.path(), VE).unwrap();
    assert_eq!(report.from_copy, [bad]);
    assert_eq!(report.lost, ["the record of user 7"]);
    assert_eq!(report.recovered, u64::from(USERS));
    assert_eq!(check_limits(dir.path()), USERS as usize - 1);
}

#[test]
fn a_damaged_or_lost_identity_is_mended() {
    for lost in [false, true] {
        let dir = TempDir::new().unwrap();
        store(dir.path());
        let path = dir.path().join("identity");
        if lost {
            fs::remove_file(&path).unwrap()
        } else {
            flip(&path, 3, 1)
        }
        assert!(open_error(dir.path()).is_damage());
        assert!(
            SledStore::create(dir.path(), VE)
                .err()
                .is_some_and(|error| error.is_damage())
        );
        salvage(dir.path(), VE).unwrap();
        assert_eq!(check_limits(dir.path()), USERS as usize);
    }
}

#[test]
fn a_salvage_that_was_interrupted_goes_on_where_it_was() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    fs::rename(
        dir.path().join("db"),
        dir.path().join("db.damaged.1700000000000"),
    )
    .unwrap();
    fs::create_dir_all(dir.path().join("db.new/blobs")).unwrap();
    assert!(open_error(dir.path()).is_damage());
    let report = salvage(dir.path(), VE).unwrap();
    assert_eq!(report.from_copy, []);
    assert_eq!(check_limits(dir.path()), USERS as usize);
}

#[test]
fn without_settings_anywhere_salvage_says_so_and_changes_nothing_for_good() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    fs::remove_file(dir.path().join("limits.json")).unwrap();
    fs::write(data(dir.path()), b"").unwrap();
    assert!(salvage(dir.path(), VE).is_err_and(|error| error.is_damage()));
    assert!(open_error(dir.path()).is_damage());
}

#[test]
fn salvage_leaves_a_held_a_foreign_and_a_newer_store_alone() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    let held = SledStore::open(dir.path(), VE).unwrap();
    assert!(matches!(
        salvage(dir.path(), VE),
        Err(StoreError::Held { .. })
    ));
    drop(held);
    assert!(matches!(
        salvage(dir.path(), VeId::new(5)),
        Err(StoreError::ForeignVe { .. })
    ));
    fs::write(dir.path().join("limits.json"), r#"{"format": 7}"#).unwrap();
    assert!(matches!(
        salvage(dir.path(), VE),
        Err(StoreError::NewerFormat { found: 7, .. })
    ));
    let users = QuotaType::User;
    let open = SledStore::open(dir.path(), VE).unwrap();
    assert_eq!(
        open.scan(key::prefix(users), b"", 1000).unwrap().len(),
        USERS as usize
    );
}
