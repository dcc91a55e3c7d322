//! A damaged store is told from a sound one, and salvage saves what can be saved.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use quota::store::record::{self, AccountRecord, key};
use quota::store::salvage::{Salvage, salvage, told};
use quota::store::{Batch, DiskStore, Store as _, StoreError};
use quota::{Engine, EngineError, Environment, QuotaType, Standing, Subject, VeId};
use tempfile::TempDir;

use crate::sample::{
    VE, account, change, data, info, limits, open, open_error, put_account, put_info, read_account,
    read_info, remove_copy, user, write_line,
};

const USERS: u32 = 2000;
/// The commit that the sample was made by.
const EPOCH: u64 = 9;
/// The database's pages.
const BLOCK: usize = 4096;

/// A store with settings, users, and the copy of their limits.
fn store(dir: &Path) {
    let store = DiskStore::create(dir, VE).unwrap();
    let mut batch = Batch::new();
    put_info(&mut batch, &info(EPOCH));
    let accounts: Vec<_> = (0..USERS).map(|id| (user(id), account(id))).collect();
    for (subject, account) in &accounts {
        put_account(&mut batch, *subject, account);
    }
    store.commit(&batch).unwrap();
    store.keep_copy(&change(EPOCH, &accounts)).unwrap();
}

/// Checks that all limits are in force again, and says how many accounts kept their usage.
#[track_caller]
fn check_limits(dir: &Path) -> usize {
    let store = open(dir);
    assert_eq!(read_info(&store).unwrap().private, info(0).private);
    let mut kept = 0;
    for id in 0..USERS {
        let found = read_account(&store, user(id));
        let found = found.unwrap_or_else(|| panic!("limits of {id} are gone"));
        assert_eq!(found.limits, account(id).limits);
        kept += usize::from(found == account(id));
    }
    kept
}

/// Every way in which a file is damaged, at its first, middle and last block.
fn damages(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut damaged = Vec::new();
    let last = bytes.len().saturating_sub(1) / BLOCK;
    for block in [0, last / 2, last] {
        let from = block * BLOCK;
        let range = from..(from + BLOCK).min(bytes.len());
        let mut add = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let mut copy = bytes.to_vec();
            change(&mut copy);
            damaged.push((format!("{what} in block {block} of {last}"), copy));
        };
        let middle = (range.start + range.end) / 2;
        add("a flipped bit", &|copy| copy[middle] ^= 1);
        add("another first byte", &|copy| copy[range.start] ^= 0xff);
        add("zeros", &|copy| copy[range.clone()].fill(0));
        add("noise", &|copy| {
            let mut random = 1_u32;
            for byte in &mut copy[range.clone()] {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = random.to_be_bytes()[0];
            }
        });
        add("the end", &|copy| copy.truncate(middle));
    }
    damaged.push(("nothing left".into(), Vec::new()));
    damaged
}

// S54: damage anywhere in the files.
#[test]
fn no_damage_to_the_database_panics_hangs_or_loses_limits() {
    let sample = TempDir::new().unwrap();
    store(sample.path());
    let sound = fs::read(data(sample.path())).unwrap();
    let (mut noticed, mut rescued) = (0, 0);
    for (what, bytes) in damages(&sound) {
        fs::write(data(sample.path()), bytes).unwrap();
        match DiskStore::open(sample.path(), VE).err() {
            // Where the damage hit a page that is not in use.
            None => assert_eq!(check_limits(sample.path()), USERS as usize, "{what}"),
            Some(error) => {
                assert!(error.is_damage(), "{what}: {error}");
                noticed += 1;
            }
        }
        let report = salvage(sample.path(), VE).unwrap();
        let kept = check_limits(sample.path());
        assert_eq!(
            kept + report.from_copy.len(),
            USERS as usize,
            "{what}: {report:?}"
        );
        assert!(report.lost_limits.is_empty(), "{what}: {report:?}");
        rescued += usize::from(kept > 0);
        let aside = report.moved_to.expect("kept");
        assert!(aside.exists(), "{what}");
        fs::remove_file(aside).unwrap();
    }
    assert!(
        noticed >= 6 && rescued >= 6,
        "{noticed} noticed, {rescued} rescued"
    );
}

/// Every user whose limits are not in the store is in one of the ranges that the report names.
#[track_caller]
fn assert_lost_are_named(dir: &Path, report: &Salvage) {
    let id = |text: &str| {
        text.strip_prefix("user ")
            .and_then(|id| id.parse::<u32>().ok())
    };
    let ranges: Vec<_> = report
        .lost_limits
        .iter()
        .filter_map(|whose| {
            let (range, _) = whose.split_once(',')?;
            let (first, last) = range.split_once(" to ")?;
            Some(id(first)?..=id(last)?)
        })
        .collect();
    let store = open(dir);
    for number in (0..USERS).filter(|&number| read_account(&store, user(number)).is_none()) {
        let is_named = ranges.iter().any(|range| range.contains(&number));
        assert!(is_named, "user {number}: {report:?}");
    }
}

/// Every page of the database in turn: what is in the others is saved, and what is lost is named.
#[test]
fn a_damaged_page_costs_no_more_than_its_own_records() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    remove_copy(dir.path());
    let sound = fs::read(data(dir.path())).unwrap();
    let (mut part, mut all, mut nothing) = (0, 0, 0);
    for from in (0..sound.len()).step_by(BLOCK) {
        let mut bytes = sound.clone();
        bytes[from..from + BLOCK].fill(0);
        fs::write(data(dir.path()), bytes).unwrap();
        let found: Result<Salvage, StoreError> = salvage(dir.path(), VE);
        let Ok(report) = found else {
            // The settings were in it, or the way to every page.
            nothing += 1;
            for name in crate::sample::names(dir.path()) {
                if name.contains("damaged") {
                    fs::remove_file(dir.path().join(name)).unwrap();
                }
            }
            continue;
        };
        let expected = u64::from(USERS) + 1;
        match report.recovered {
            recovered if recovered == expected => all += 1,
            recovered => {
                assert!(!report.lost.is_empty(), "{report:?}");
                assert_lost_are_named(dir.path(), &report);
                part += usize::from(expected - recovered < 60);
            }
        }
        fs::remove_file(report.moved_to.unwrap()).unwrap();
    }
    println!("{all} whole, {part} but for one page, {nothing} not at all");
    assert!(
        part > 50,
        "{all} whole, {part} in part, {nothing} not at all"
    );
    assert!(nothing < 10, "{nothing}");
}

#[test]
fn a_database_that_is_gone_or_empty_is_damage_and_not_a_new_ve() {
    let ways: [fn(&Path); 4] = [
        |dir| fs::remove_file(data(dir)).unwrap(),
        |dir| fs::write(data(dir), b"").unwrap(),
        |dir| {
            fs::remove_file(data(dir)).unwrap();
            fs::create_dir(data(dir)).unwrap();
        },
        // The copy alone, as from a backup.
        |dir| {
            fs::remove_file(data(dir)).unwrap();
            fs::remove_file(dir.join("identity")).unwrap();
            fs::remove_file(dir.join("lock")).unwrap();
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
            report.usage_unknown && report.from_copy.len() == USERS as usize,
            "way {number}: {report:?}"
        );
        assert_eq!(check_limits(dir.path()), 0, "way {number}");
    }
}

#[test]
fn a_database_that_lost_an_administrative_change_is_noticed_and_brought_up_to_it() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    // A later change that only the copy knows.
    let newer = info(EPOCH + 1);
    let raised = limits(76);
    let changed = AccountRecord {
        limits: raised,
        ..account(3)
    };
    let ve = AccountRecord {
        limits: raised,
        ..AccountRecord::default()
    };
    let accounts = [(user(3), changed), (Subject::Ve, ve)];
    let store = open(dir.path());
    store.keep_copy(&change(newer.epoch, &accounts)).unwrap();
    drop(store);
    assert!(open_error(dir.path()).is_damage());
    salvage(dir.path(), VE).unwrap();
    let open = open(dir.path());
    assert_eq!(read_account(&open, user(3)), Some(changed));
    assert_eq!(read_account(&open, Subject::Ve), Some(ve));
    assert_eq!(read_account(&open, user(4)), Some(account(4)));
    assert!(read_info(&open).unwrap().epoch > newer.epoch);
}

#[test]
fn a_value_with_a_wrong_checksum_costs_its_usage_only() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    let bad = user(7);
    let open = open(dir.path());
    let mut batch = Batch::new();
    batch.put(key::account(bad), b"not a record".to_vec());
    open.commit(&batch).unwrap();
    drop(open);
    let report = salvage(dir.path(), VE).unwrap();
    assert_eq!(report.from_copy, [bad]);
    assert_eq!(report.lost, ["the record of user 7"]);
    assert!(report.lost_limits.is_empty(), "{report:?}");
    assert_eq!(report.recovered, u64::from(USERS));
    assert_eq!(check_limits(dir.path()), USERS as usize - 1);
}

// S54: limits that neither the database nor the copy has are named one by one; a VE whose own are lost may use no more.
#[test]
fn lost_limits_are_named_and_a_ve_without_its_own_gets_none_at_all() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    let opened = open(dir.path());
    let mut batch = Batch::new();
    for subject in [Subject::Ve, user(7), QuotaType::Group.subject(9)] {
        batch.put(key::account(subject), b"not a record".to_vec());
    }
    opened.commit(&batch).unwrap();
    drop(opened);
    // The copy ends before the VE's line, if it had one.
    let path = dir.path().join("limits.copy");
    let copy = fs::read_to_string(&path).unwrap();
    let head = copy.lines().next().unwrap();
    fs::write(&path, format!("{head}\n")).unwrap();
    let report = salvage(dir.path(), VE).unwrap();
    let [ve, rest @ ..] = &report.lost_limits[..] else {
        panic!("{report:?}")
    };
    assert!(ve.contains("'vzquota setlimit'"), "{ve}");
    // What follows may have been in the same damage.
    assert!(
        rest.starts_with(&["group 9".into(), "user 7".into()]),
        "{rest:?}"
    );
    let mended = open(dir.path());
    let limits = read_account(&mended, Subject::Ve).unwrap().limits;
    assert_eq!(limits.space.hard.map(|hard| hard.get()), Some(0));
    assert_eq!(limits.inodes.hard.map(|hard| hard.get()), Some(0));
    assert_eq!(read_account(&mended, user(8)), Some(account(8)));
    let reports = told(dir.path());
    let [(file, lines)] = &reports[..] else {
        panic!("{reports:?}")
    };
    assert!(file.exists() && *lines == report.lines(), "{reports:?}");
    assert!(lines.contains(&"limits are lost: user 7: set them again".into()));
}

// S54: each kind of record, damaged inside a sound page.
#[test]
fn every_kind_of_record_is_checked_and_mended() {
    let group = QuotaType::Group.subject(7);
    let keys = [
        key::schema(),
        key::info(),
        key::standing(),
        key::account(Subject::Ve),
        key::account(user(7)),
        key::account(group),
    ];
    for damaged in keys {
        let dir = TempDir::new().unwrap();
        store(dir.path());
        let open = open(dir.path());
        let mut batch = Batch::new();
        let accounts = [(Subject::Ve, account(1)), (group, account(7))];
        for (subject, account) in &accounts {
            put_account(&mut batch, *subject, account);
        }
        open.commit(&batch).unwrap();
        open.keep_copy(&change(EPOCH, &accounts)).unwrap();
        let mut batch = Batch::new();
        let standing = record::encode(&key::standing(), &Standing::Final);
        batch.put(key::standing(), standing);
        let mut value = open.get(&damaged).unwrap().unwrap_or(vec![0; 9]);
        value[2] ^= 1;
        batch.put(damaged.clone(), value);
        open.commit(&batch).unwrap();
        let environment = Environment::default();
        drop(open);
        let error = match DiskStore::open(dir.path(), VE) {
            Err(error) => error,
            // What opening does not need is found by what reads it.
            Ok(store) => {
                match Engine::open(Arc::new(store), environment).map(|engine| engine.tally()) {
                    Err(EngineError::Store(error)) | Ok(Err(EngineError::Store(error))) => error,
                    other => panic!("{}: {other:?}", damaged.escape_ascii()),
                }
            }
        };
        assert!(error.is_damage(), "{}: {error}", damaged.escape_ascii());
        salvage(dir.path(), VE).unwrap();
        check_limits(dir.path());
        let mended = self::open(dir.path());
        for (subject, account) in accounts {
            let found = read_account(&mended, subject).map(|found| found.limits);
            assert_eq!(found, Some(account.limits), "{subject}");
        }
    }
}

#[test]
fn a_damaged_or_lost_identity_is_mended() {
    for lost in [false, true] {
        let dir = TempDir::new().unwrap();
        store(dir.path());
        let path = dir.path().join("identity");
        let sound = fs::read(&path).unwrap();
        for (_, damaged) in damages(&sound) {
            fs::write(&path, damaged).unwrap();
            assert!(open_error(dir.path()).is_damage());
        }
        if lost {
            fs::remove_file(&path).unwrap();
        }
        assert!(open_error(dir.path()).is_damage());
        assert!(
            DiskStore::create(dir.path(), VE)
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
        data(dir.path()),
        dir.path().join("quota.redb.damaged.1700000000000"),
    )
    .unwrap();
    fs::write(dir.path().join("quota.redb.new"), b"half").unwrap();
    assert!(open_error(dir.path()).is_damage());
    let report = salvage(dir.path(), VE).unwrap();
    assert_eq!(report.from_copy, []);
    assert_eq!(check_limits(dir.path()), USERS as usize);
}

#[test]
fn without_settings_anywhere_salvage_says_so_and_changes_nothing_for_good() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    remove_copy(dir.path());
    fs::write(data(dir.path()), b"").unwrap();
    assert!(salvage(dir.path(), VE).is_err_and(|error| error.is_damage()));
    assert!(open_error(dir.path()).is_damage());
}

#[test]
fn salvage_leaves_a_held_a_foreign_and_a_newer_store_alone() {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    let held = open(dir.path());
    assert!(matches!(
        salvage(dir.path(), VE),
        Err(StoreError::Held { .. })
    ));
    drop(held);
    assert!(matches!(
        salvage(dir.path(), VeId::new(5)),
        Err(StoreError::ForeignVe { .. })
    ));
    let before = fs::read(data(dir.path())).unwrap();
    write_line(&dir.path().join("settings.copy"), r#"{"format": 7}"#);
    assert!(matches!(
        salvage(dir.path(), VE),
        Err(StoreError::NewerFormat { found: 7, .. })
    ));
    assert_eq!(fs::read(data(dir.path())).unwrap(), before);
}
