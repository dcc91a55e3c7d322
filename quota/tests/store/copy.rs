//! The readable copy of limits: what it keeps, what it costs, what a torn or damaged one says.

use std::fs;
use std::path::Path;

use quota::store::copy::{AccountCopy, CopyChange, LimitsCopy};
use quota::store::{DiskStore, Store as _, StoreError};
use quota::{Deadlines, Limits, Subject, Timestamp, VeId};
use tempfile::TempDir;

use crate::sample::{
    VE, account, change, info, limits, names, open, put_account, put_info, user, write_line,
};

fn read(dir: &Path) -> LimitsCopy {
    LimitsCopy::read(dir, VE).unwrap().unwrap()
}

fn copy_of(subject: Subject, number: u64) -> AccountCopy {
    AccountCopy {
        subject,
        limits: limits(number),
        deadlines: Deadlines {
            space: Some(Timestamp::new(9)),
            inodes: None,
        },
    }
}

fn keep(store: &DiskStore, epoch: u64, accounts: Vec<AccountCopy>) {
    let info = info(epoch);
    store.keep_copy(&CopyChange { info, accounts }).unwrap();
}

#[test]
fn the_last_change_of_an_account_counts() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::create(dir.path(), VE).unwrap();
    assert_eq!(LimitsCopy::read(dir.path(), VE).unwrap(), None);
    keep(&store, 1, vec![]);
    keep(
        &store,
        2,
        vec![copy_of(user(5), 1), copy_of(Subject::Ve, 2)],
    );
    keep(&store, 3, vec![copy_of(user(5), 3)]);
    keep(&store, 4, vec![copy_of(user(6), 4)]);
    let none = AccountCopy {
        subject: Subject::Ve,
        limits: Limits::UNLIMITED,
        deadlines: Deadlines::NONE,
    };
    keep(&store, 5, vec![none]);
    let copy = read(dir.path());
    let expected = [copy_of(user(5), 3), copy_of(user(6), 4)];
    assert!(copy.accounts.values().eq(&expected), "{copy:?}");
    assert_eq!((copy.epoch, copy.info), (5, Some(info(1))));
    assert!(copy.damaged.is_empty());
    assert_eq!(
        names(dir.path()),
        [
            "identity",
            "limits.copy",
            "lock",
            "quota.redb",
            "settings.copy"
        ]
    );
}

// S64: one order costs one line, however many accounts have limits, and the file stays bounded.
#[test]
fn the_cost_of_an_order_does_not_grow_with_the_number_of_accounts() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::create(dir.path(), VE).unwrap();
    let many: Vec<_> = (0..20_000).map(|id| copy_of(user(id), 1)).collect();
    keep(&store, 1, many);
    let path = dir.path().join("limits.copy");
    let len = || fs::metadata(&path).unwrap().len();
    let (full, mut longest) = (len(), 0);
    for number in 0..500 {
        let before = len();
        keep(&store, 2 + number, vec![copy_of(user(7), number)]);
        longest = longest.max(len().saturating_sub(before));
    }
    assert!(longest < 256, "{longest} bytes for one order");
    // And no more than twice what it says.
    for number in 0..4 {
        let again = (0..20_000).map(|id| copy_of(user(id), number)).collect();
        keep(&store, 600 + number, again);
        assert!(len() < 2 * full + (200 << 10), "{} bytes", len());
    }
    let copy = read(dir.path());
    assert_eq!((copy.accounts.len(), copy.epoch), (20_000, 603));
    assert_eq!(copy.accounts[&user(7)], copy_of(user(7), 3));
    drop(store);
    // What one process knows of the file's length the next one knows too.
    let store = DiskStore::open(dir.path(), VE);
    assert!(
        store.is_err_and(|error| error.is_damage()),
        "the database knows nothing of it"
    );
}

#[test]
fn a_line_that_was_being_written_is_named_and_in_nobodys_way() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::create(dir.path(), VE).unwrap();
    let mut batch = quota::store::Batch::new();
    put_info(&mut batch, &info(9));
    put_account(&mut batch, user(5), &account(5));
    store.commit(&batch).unwrap();
    keep(&store, 1, vec![copy_of(user(5), 1)]);
    drop(store);
    let path = dir.path().join("limits.copy");
    let whole = fs::read(&path).unwrap();
    for torn in [&b"0123"[..], b"01234567 {\"epoch\":7,", &[0; 9000]] {
        fs::write(&path, [&whole, torn].concat()).unwrap();
        let torn = read(dir.path());
        assert_eq!((torn.damaged.len(), torn.is_whole), (1, false));
        let store = open(dir.path());
        keep(&store, 2, vec![copy_of(user(6), 2)]);
        let copy = read(dir.path());
        assert!(copy.damaged.is_empty(), "{copy:?}");
        assert_eq!(copy.accounts.len(), 2);
    }
}

// S54: however a file was cut off, nobody takes what is left for all limits; and the database, while it is sound, mends it.
#[test]
fn a_copy_that_was_cut_off_anywhere_is_noticed() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::create(dir.path(), VE).unwrap();
    let mut batch = quota::store::Batch::new();
    put_info(&mut batch, &info(9));
    let accounts: Vec<_> = (1..4).map(|id| (user(id), account(id))).collect();
    for (subject, account) in &accounts {
        put_account(&mut batch, *subject, account);
    }
    store.commit(&batch).unwrap();
    for one in &accounts {
        store
            .keep_copy(&change(9, std::slice::from_ref(one)))
            .unwrap();
    }
    drop(store);
    let path = dir.path().join("limits.copy");
    let whole = fs::read(&path).unwrap();
    let before = read(dir.path());
    assert!(before.is_whole && before.accounts.len() == 3, "{before:?}");
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let cut = read(dir.path());
        assert!(!cut.is_whole && !cut.damaged.is_empty(), "{len}: {cut:?}");
    }
    // Lines that were taken out of the middle.
    let text = String::from_utf8(whole).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let shorter = [&lines[..2], &lines[3..], &[""]].concat().join("\n");
    fs::write(&path, shorter).unwrap();
    assert!(!read(dir.path()).is_whole);
    for kept in [1, 2, lines.len() - 1] {
        fs::write(&path, [&lines[..kept], &[""]].concat().join("\n")).unwrap();
        drop(open(dir.path()));
        assert_eq!(read(dir.path()), before, "{kept} lines");
    }
}

#[test]
fn a_file_of_the_format_without_an_end_is_read_and_gets_one() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::create(dir.path(), VE).unwrap();
    keep(&store, 1, vec![copy_of(user(5), 1)]);
    let path = dir.path().join("limits.copy");
    let line = fs::read_to_string(&path).unwrap();
    let line = line.lines().nth(1).unwrap();
    write_line(
        &path,
        &format!(r#"{{"format":2,"ve":{VE},"epoch":1,"size":0}}"#),
    );
    let head = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{head}{line}\n")).unwrap();
    let old = read(dir.path());
    assert!(old.is_whole && old.accounts.len() == 1, "{old:?}");
    drop(store);
    let store = DiskStore::open(dir.path(), VE);
    drop(store);
    fs::remove_file(dir.path().join("quota.redb")).unwrap();
    fs::remove_file(dir.path().join("identity")).unwrap();
    quota::store::salvage::salvage(dir.path(), VE).unwrap();
    let new = read(dir.path());
    assert!(new.is_whole && new.accounts == old.accounts, "{new:?}");
    let end = fs::read_to_string(&path).unwrap();
    assert!(
        end.lines().last().unwrap().contains(r#"{"lines":1}"#),
        "{end}"
    );
}

#[test]
fn a_damaged_line_is_named_and_costs_itself_only() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::create(dir.path(), VE).unwrap();
    let accounts = (0..10).map(|id| copy_of(user(id), 1)).collect();
    keep(&store, 1, accounts);
    drop(store);
    let path = dir.path().join("limits.copy");
    let sound = fs::read_to_string(&path).unwrap();
    let damaged = sound.replacen("\"user\":3", "\"user\":2", 1);
    fs::write(&path, damaged).unwrap();
    let copy = read(dir.path());
    assert_eq!(copy.accounts.len(), 9);
    assert!(!copy.accounts.contains_key(&user(3)));
    let [what] = &copy.damaged[..] else {
        panic!("{copy:?}")
    };
    assert!(
        what.starts_with("line 5 of ") && what.ends_with("limits.copy"),
        "{what}"
    );
}

#[test]
fn a_copy_that_is_lost_is_made_anew_from_the_database() {
    for lost in ["settings.copy", "limits.copy"] {
        let dir = TempDir::new().unwrap();
        let store = DiskStore::create(dir.path(), VE).unwrap();
        let mut batch = quota::store::Batch::new();
        put_info(&mut batch, &info(9));
        let accounts = [(Subject::Ve, account(1)), (user(7), account(7))];
        for (subject, account) in &accounts {
            put_account(&mut batch, *subject, account);
        }
        store.commit(&batch).unwrap();
        store.keep_copy(&change(9, &accounts)).unwrap();
        drop(store);
        let before = read(dir.path());
        for way in ["gone", "damaged"] {
            match way {
                "gone" => fs::remove_file(dir.path().join(lost)).unwrap(),
                _ => fs::write(dir.path().join(lost), b"damaged\n").unwrap(),
            }
            drop(open(dir.path()));
            assert_eq!(read(dir.path()), before, "{lost} {way}");
        }
    }
}

#[test]
fn a_copy_of_a_newer_format_or_of_another_ve_is_told_apart() {
    let dir = TempDir::new().unwrap();
    for file in ["settings.copy", "limits.copy"] {
        let path = dir.path().join(file);
        write_line(&path, r#"{"format":4,"unheard":"of"}"#);
        let newer = LimitsCopy::read(dir.path(), VE);
        assert!(
            matches!(newer, Err(StoreError::NewerFormat { found: 4, known: 3 })),
            "{file}: {newer:?}"
        );
        fs::remove_file(path).unwrap();
    }
    let store = DiskStore::create(dir.path(), VE).unwrap();
    keep(&store, 1, vec![copy_of(user(5), 1)]);
    drop(store);
    let foreign = LimitsCopy::read(dir.path(), VeId::new(5));
    assert!(matches!(foreign, Err(StoreError::ForeignVe { .. })));
    fs::remove_file(dir.path().join("settings.copy")).unwrap();
    let foreign = LimitsCopy::read(dir.path(), VeId::new(5));
    assert!(matches!(foreign, Err(StoreError::ForeignVe { .. })));
}
