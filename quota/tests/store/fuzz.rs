//! Whatever bytes stand where something was stored: no reader panics, and none takes damage for the truth.
//!
//! `SIMFS_FUZZ_CASES` sets how many cases each test tries.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use quota::inode::{Charged, InodeId};
use quota::journal::{Identity, Image, Journal as _};
use quota::store::copy::{self, LimitsCopy};
use quota::store::record::{self, AccountRecord, InfoRecord, Record, SchemaRecord, key};
use quota::store::{DiskStore, Store as _, StoreError};
use quota::{Bytes, Epoch, FileJournal, Owner, Standing, Subject, Usage, VeId, vfsv1};
use tempfile::TempDir;

use crate::sample::{VE, account, change, info, user};

fn config() -> ProptestConfig {
    let cases = std::env::var("SIMFS_FUZZ_CASES").ok();
    let cases = cases.map_or(128, |cases| cases.parse().expect("SIMFS_FUZZ_CASES"));
    ProptestConfig {
        // What fails is printed; sources are not the place to keep it.
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

/// One way of damaging bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Zero(Index, Index),
    Noise(Index, Vec<u8>),
    Cut(Index),
    Longer(Vec<u8>),
    Swap(Index, Index, u8),
    Other(Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    let bytes = || prop::collection::vec(any::<u8>(), 1..600);
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), at()).prop_map(|(from, to)| Damage::Zero(from, to)),
        (at(), bytes()).prop_map(|(at, noise)| Damage::Noise(at, noise)),
        at().prop_map(Damage::Cut),
        bytes().prop_map(Damage::Longer),
        (at(), at(), 1..64_u8).prop_map(|(from, to, len)| Damage::Swap(from, to, len)),
        bytes().prop_map(Damage::Other),
    ]
}

fn damaged(sound: &[u8], damage: &Damage) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    let len = bytes.len();
    match damage {
        Damage::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
        Damage::Zero(from, to) => {
            let (from, to) = (from.index(len), to.index(len));
            bytes[from.min(to)..=from.max(to)].fill(0);
        }
        Damage::Noise(at, noise) => {
            let at = at.index(len);
            let end = (at + noise.len()).min(len);
            bytes[at..end].copy_from_slice(&noise[..end - at]);
        }
        Damage::Cut(at) => bytes.truncate(at.index(len)),
        Damage::Longer(more) => bytes.extend_from_slice(more),
        Damage::Swap(from, to, many) => {
            let many = usize::from(*many).min(len);
            let (from, to) = (from.index(len - many + 1), to.index(len - many + 1));
            let part = sound[from..from + many].to_vec();
            bytes[to..to + many].copy_from_slice(&part);
        }
        Damage::Other(other) => bytes.clone_from(other),
    }
    bytes
}

/// Decoding damaged bytes gives an error, or what was there.
fn decodes_truly<T: Record + PartialEq + std::fmt::Debug>(key: &[u8], sound: &T, damage: &Damage) {
    let bytes = damaged(&record::encode(key, sound), damage);
    if let Ok(found) = record::decode::<T>(key, &bytes) {
        assert_eq!(found, *sound);
    }
}

fn inode(number: u64) -> InodeId {
    InodeId::new(number, 1, &number.to_be_bytes())
}

/// A journal as a process that is killed leaves it.
fn journal(path: &Path, identity: &Identity) {
    let journal = FileJournal::create(path, identity.clone()).unwrap();
    for number in 1..200 {
        let charged = Charged {
            owner: Owner::new(1, 2),
            usage: Usage::inode(Bytes::new(number)),
        };
        journal.begin(&[(inode(number), Some(charged))]);
    }
    for number in 1..8 {
        let _slot = journal.intend(&inode(number), format!("name{number}").as_bytes());
    }
}

/// What a recovery would take from a journal, sorted.
fn content(image: &Image) -> (Vec<String>, Vec<String>) {
    let touched = image.touched_since(Epoch::default());
    let mut touched: Vec<_> = touched.iter().map(|entry| format!("{entry:?}")).collect();
    let mut intents: Vec<_> = image.intents().map(|entry| format!("{entry:?}")).collect();
    touched.sort();
    intents.sort();
    (touched, intents)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_damaged_record_is_taken_for_one(damage in damage()) {
        decodes_truly(&key::account(user(7)), &account(7), &damage);
        decodes_truly(&key::info(), &info(9), &damage);
        decodes_truly(&key::schema(), &SchemaRecord { ve: VE }, &damage);
        let standing = Standing::Journaled { session: 7, epoch: Epoch::new(9) };
        decodes_truly(&key::standing(), &standing, &damage);
    }

    #[test]
    fn no_record_of_another_kind_is_taken_for_one(key in any::<Vec<u8>>(), body in any::<Vec<u8>>()) {
        // A right checksum, so that the payload is looked at too.
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&key);
        hasher.update(&body);
        let value = [body.as_slice(), &hasher.finalize().to_le_bytes()].concat();
        let _ = record::decode::<AccountRecord>(&key, &value);
        let _ = record::decode::<InfoRecord>(&key, &value);
        let _ = record::decode::<SchemaRecord>(&key, &value);
        let _ = record::decode::<Standing>(&key, &value);
        let _ = key::subject(&key);
    }

    #[test]
    fn no_damaged_journal_is_taken_for_one(damage in damage()) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal");
        let identity = Identity { ve: VE, boot: "boot".into(), session: 7 };
        journal(&path, &identity);
        let sound = content(&Image::read(&path, &identity).unwrap());
        assert!(sound.0.len() == 199 && !sound.1.is_empty());
        fs::write(&path, damaged(&fs::read(&path).unwrap(), &damage)).unwrap();
        if let Ok(image) = Image::read(&path, &identity) {
            // Neither something else nor less than was there.
            assert_eq!(content(&image), sound);
        }
    }

    #[test]
    fn no_damaged_copy_of_limits_is_taken_for_one(damage in damage(), of_settings in any::<bool>()) {
        let dir = TempDir::new().unwrap();
        let store = DiskStore::create(dir.path(), VE).unwrap();
        let accounts: Vec<_> = (0..40).map(|id| (user(id), account(id))).collect();
        store.keep_copy(&change(9, &accounts)).unwrap();
        drop(store);
        let sound = LimitsCopy::read(dir.path(), VE).unwrap().unwrap();
        let name = if of_settings { copy::SETTINGS } else { copy::LIMITS };
        let path = dir.path().join(name);
        let bytes = fs::read(&path).unwrap();
        let damaged = damaged(&bytes, &damage);
        fs::write(&path, &damaged).unwrap();
        let found = LimitsCopy::read(dir.path(), VE).unwrap().unwrap();
        assert!(found.info.is_none() || found.info == sound.info);
        for (subject, account) in &found.accounts {
            assert_eq!(sound.accounts.get(subject), Some(account));
        }
        // A file that is cut off may end like one to which nothing more was written.
        let is_cut = bytes.starts_with(&damaged);
        let lost = found.accounts.len() < sound.accounts.len() || found.info.is_none();
        assert!(is_cut || !lost || !found.damaged.is_empty(), "lost in silence: {found:?}");
    }

    #[test]
    fn no_damaged_identity_is_taken_for_one(damage in damage()) {
        let dir = TempDir::new().unwrap();
        drop(DiskStore::create(dir.path(), VE).unwrap());
        let path = dir.path().join("identity");
        let sound = fs::read(&path).unwrap();
        let damaged = damaged(&sound, &damage);
        fs::write(&path, &damaged).unwrap();
        match DiskStore::open(dir.path(), VE) {
            Ok(_) => assert_eq!(damaged, sound),
            Err(error) => assert!(error.is_damage(), "{error}"),
        }
    }

    #[test]
    fn any_bytes_are_a_quota_file_or_an_error(damage in damage(), bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        let _ = vfsv1::read(&bytes);
        let file = fs::read("tests/fixtures/user.vfsv1").unwrap();
        let _ = vfsv1::read(&damaged(&file, &damage));
    }
}

// Whose they are counts, whatever else they say.
#[test]
fn a_sound_journal_and_a_sound_copy_of_another_ve_are_foreign() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal");
    let identity = Identity {
        ve: VE,
        boot: "boot".into(),
        session: 7,
    };
    journal(&path, &identity);
    let other = Identity {
        ve: VeId::new(5),
        ..identity
    };
    assert!(Image::read(&path, &other).is_err());
    let store = DiskStore::create(dir.path(), VE).unwrap();
    store
        .keep_copy(&change(1, &[(Subject::Ve, account(1))]))
        .unwrap();
    let foreign = LimitsCopy::read(dir.path(), VeId::new(5));
    assert!(matches!(foreign, Err(StoreError::ForeignVe { .. })));
}
