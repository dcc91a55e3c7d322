//! The stored formats byte for byte: a change of one is noticed here, before a release that cannot read the one before.
//!
//! The bytes were made by another program, from the layouts in the documentation alone. Each is there a second time as a machine
//! of the other byte order would have written it, had the format no order of its own: that is refused by name.

use std::fs;
use std::path::Path;

use quota::store::record::{self, AccountRecord, InfoRecord, Record, RecordError, key};
use quota::store::{Batch, DiskStore, Store as _, StoreError};
use quota::{
    Bytes, Deadlines, Engine, Environment, Epoch, GracePeriods, Inodes, Limit, Limits, Standing,
    Timestamp, Usage,
};
use tempfile::TempDir;

use crate::sample::{VE, change, open_error, user};

const IDENTITY: &str = "0173696d66732d646265000000d39df237";
const IDENTITY_ELSEWHERE: &str = "0162642d73666d697300000065b35804e5";
const ACCOUNT: &str = "010010000000000000010000000000000000200000000000000200000000000000030000000000000004000000000000 \
    0013002800000000000000500000000000000000000000000000000000000000000000f1536500000000000000000000 \
    00007f939508";
const ACCOUNT_ELSEWHERE: &str = "010000000000001000000000000000000100000000000020000000000000000002000000000000000300000000000000 \
    04130000000000002800000000000000500000000000000000000000000000000000000000006553f100000000000000 \
    00001cec70ec";
const INFO: &str = "01650000000700000009000000000000000100000000000000803a090000000000803a090000000000803a0900000000 \
    00803a090000000000803a090000000000803a090000000000052f767a2f707269766174652f313031c23c2f23";
const INFO_ELSEWHERE: &str = "010000006500000007000000000000000900000000000000010000000000093a800000000000093a800000000000093a \
    800000000000093a800000000000093a800000000000093a80052f767a2f707269766174652f3130316c5667d0";
const STANDING: &str = "01014d000000000000000900000000000000ef977675";
const STANDING_ELSEWHERE: &str = "0101000000000000004d00000000000000091b0c6493";

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn account() -> AccountRecord {
    AccountRecord {
        usage: Usage::new(Bytes::new(4096), Inodes::new(1)),
        peak: Usage::new(Bytes::new(8192), Inodes::new(2)),
        refused: quota::Refusals {
            space: 3,
            inodes: 4,
        },
        limits: Limits {
            space: Limit::new(Some(Bytes::new(10_240)), Some(Bytes::new(20_480))),
            inodes: Limit::UNLIMITED,
        },
        deadlines: Deadlines {
            space: Some(Timestamp::new(1_700_000_000)),
            inodes: None,
        },
    }
}

fn info() -> InfoRecord {
    InfoRecord {
        ve: VE,
        private: "/vz/private/101".into(),
        grace: [GracePeriods::default(); 3],
        enforced: [true, false, true],
        ugid_limit: 7,
        epoch: 9,
        created: Timestamp::new(1),
    }
}

const STANDS: Standing = Standing::Journaled {
    session: 77,
    epoch: Epoch::new(9),
};

#[track_caller]
fn check<T: Record + PartialEq + std::fmt::Debug>(key: &[u8], value: &T, here: &str, other: &str) {
    assert_eq!(record::encode(key, value), bytes(here));
    assert_eq!(record::decode::<T>(key, &bytes(here)).as_ref(), Ok(value));
    let other = record::decode::<T>(key, &bytes(other));
    assert_eq!(other, Err(RecordError::Checksum));
}

#[test]
fn records_are_what_they_were_in_every_release() {
    check(
        &key::account(user(1000)),
        &account(),
        ACCOUNT,
        ACCOUNT_ELSEWHERE,
    );
    check(&key::info(), &info(), INFO, INFO_ELSEWHERE);
    check(&key::standing(), &STANDS, STANDING, STANDING_ELSEWHERE);
}

fn identity(dir: &Path) -> std::path::PathBuf {
    dir.join("identity")
}

// S54: a store of a machine with another byte order is named, not used.
#[test]
fn a_store_of_another_byte_order_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::create(dir.path(), VE).unwrap();
    assert_eq!(fs::read(identity(dir.path())).unwrap(), bytes(IDENTITY));
    let put = |key: Vec<u8>, value: &str| {
        let mut batch = Batch::new();
        batch.put(key, bytes(value));
        store.commit(&batch).unwrap();
    };
    put(key::info(), INFO_ELSEWHERE);
    let error = Engine::open(std::sync::Arc::new(store), Environment::default()).unwrap_err();
    assert!(
        error.is_damage() && error.to_string().contains("(key i)"),
        "{error}"
    );
    fs::write(identity(dir.path()), bytes(IDENTITY_ELSEWHERE)).unwrap();
    let error = open_error(dir.path());
    assert!(
        error.is_damage() && error.to_string().contains("/identity)"),
        "{error}"
    );
}

/// The copy is text, which has no byte order: what it says, line for line.
#[test]
fn the_readable_copy_is_what_it_was_in_every_release() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::create(dir.path(), VE).unwrap();
    let mut order = change(9, &[(user(1000), account())]);
    order.info = info();
    store.keep_copy(&order).unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let (limits, settings) = (read("limits.copy"), read("settings.copy"));
    assert_eq!(limits, LIMITS_COPY);
    assert_eq!(settings, SETTINGS_COPY);
    drop(store);
    // Whoever cannot read a format says which one.
    for (name, text) in [("limits.copy", &limits), ("settings.copy", &settings)] {
        let (_, json) = text.lines().next().unwrap().split_once(' ').unwrap();
        let newer = json.replacen("\"format\":3", "\"format\":200", 1);
        crate::sample::write_line(&dir.path().join(name), &newer);
        let error = quota::store::LimitsCopy::read(dir.path(), VE);
        assert!(
            matches!(
                error,
                Err(StoreError::NewerFormat {
                    found: 200,
                    known: 3
                })
            ),
            "{name}: {error:?}"
        );
        fs::write(dir.path().join(name), text).unwrap();
    }
}

const LIMITS_COPY: &str = r#"abce081a {"format":3,"ve":101,"epoch":0,"size":0}
427925ba {"epoch":9,"subject":{"user":1000},"limits":{"space":{"soft":10240,"hard":20480},"inodes":{"soft":null,"hard":null}},"deadlines":{"space":1700000000,"inodes":null}}
7e334018 {"lines":1}
"#;
const SETTINGS_COPY: &str = r#"c2ef2cfd {"format":3,"ve":101,"private":"/vz/private/101","grace":[{"space":604800,"inodes":604800},{"space":604800,"inodes":604800},{"space":604800,"inodes":604800}],"enforced":[true,false,true],"ugid_limit":7,"created":1,"epoch":9}
"#;
