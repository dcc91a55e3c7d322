//! What the store's bytes mean survives a round trip, and no bytes can hurt the reader.

use proptest::prelude::*;
use quota::store::record::{self, AccountRecord, InfoRecord, RecordError, key};
use quota::{
    Bytes, Deadlines, GracePeriod, GracePeriods, Inodes, Limit, Limits, Refusals, Subject,
    Timestamp, Uid, Usage, VeId,
};

fn usage() -> impl Strategy<Value = Usage> {
    any::<(u64, u64)>()
        .prop_map(|(space, inodes)| Usage::new(Bytes::new(space), Inodes::new(inodes)))
}

fn limits() -> impl Strategy<Value = Limits> {
    any::<[Option<u64>; 4]>().prop_map(|[a, b, c, d]| Limits {
        space: Limit::new(a.map(Bytes::new), b.map(Bytes::new)),
        inodes: Limit::new(c.map(Inodes::new), d.map(Inodes::new)),
    })
}

fn account() -> impl Strategy<Value = AccountRecord> {
    let refused = any::<(u64, u64)>().prop_map(|(space, inodes)| Refusals { space, inodes });
    let deadlines = any::<[Option<i64>; 2]>().prop_map(|[space, inodes]| Deadlines {
        space: space.map(Timestamp::new),
        inodes: inodes.map(Timestamp::new),
    });
    (usage(), usage(), refused, limits(), deadlines).prop_map(
        |(usage, peak, refused, limits, deadlines)| AccountRecord {
            usage,
            peak,
            refused,
            limits,
            deadlines,
        },
    )
}

fn info() -> impl Strategy<Value = InfoRecord> {
    let periods = any::<(u64, u64)>().prop_map(|(space, inodes)| GracePeriods {
        space: GracePeriod::new(space),
        inodes: GracePeriod::new(inodes),
    });
    let grace = proptest::array::uniform3(periods);
    let rest = any::<(u32, String, [bool; 3], u32, u64, i64)>();
    (grace, rest).prop_map(
        |(grace, (ve, private, enforced, ugid_limit, epoch, created))| InfoRecord {
            ve: VeId::new(ve),
            private,
            grace,
            enforced,
            ugid_limit,
            epoch,
            created: Timestamp::new(created),
        },
    )
}

proptest! {
    #[test]
    fn an_account_survives_the_round_trip(id in any::<u32>(), account in account()) {
        let key = key::account(Subject::User(Uid::new(id)));
        prop_assert_eq!(record::decode::<AccountRecord>(&key, &record::encode(&key, &account)), Ok(account));
    }

    #[test]
    fn the_settings_survive_the_round_trip(info in info()) {
        let key = key::info();
        prop_assert_eq!(record::decode::<InfoRecord>(&key, &record::encode(&key, &info)), Ok(info));
    }

    #[test]
    fn one_flipped_bit_is_noticed(account in account(), at in any::<prop::sample::Index>()) {
        let key = key::account(Subject::Ve);
        let mut value = record::encode(&key, &account);
        let bit = at.index(value.len() * 8);
        value[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(record::decode::<AccountRecord>(&key, &value), Err(RecordError::Checksum));
    }
}

#[test]
fn a_value_under_another_key_is_noticed() {
    let key = key::account(Subject::User(Uid::new(1)));
    let value = record::encode(&key, &AccountRecord::default());
    let other = key::account(Subject::User(Uid::new(2)));
    assert_eq!(
        record::decode::<AccountRecord>(&other, &value),
        Err(RecordError::Checksum)
    );
}

#[test]
fn no_limit_and_a_limit_of_zero_stay_apart() {
    let key = key::account(Subject::Ve);
    let nothing = Limit::new(None, Some(Bytes::ZERO));
    let limits = Limits {
        space: nothing,
        inodes: Limit::UNLIMITED,
    };
    let account = AccountRecord {
        limits,
        ..AccountRecord::default()
    };
    let read: AccountRecord = record::decode(&key, &record::encode(&key, &account)).unwrap();
    assert_eq!(read.limits, limits);
}

#[test]
fn a_newer_format_is_refused_by_number() {
    let key = key::info();
    let mut body = vec![9, 1, 2, 3];
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&key);
    hasher.update(&body);
    body.extend_from_slice(&hasher.finalize().to_le_bytes());
    let found = record::decode::<InfoRecord>(&key, &body);
    assert_eq!(found, Err(RecordError::NewerFormat { found: 9, known: 1 }));
}

#[test]
fn the_layout_does_not_change_by_accident() {
    let key = key::account(Subject::Ve);
    let account = AccountRecord {
        usage: Usage::new(Bytes::new(0x0102), Inodes::new(3)),
        deadlines: Deadlines {
            space: Some(Timestamp::new(-1)),
            inodes: None,
        },
        ..AccountRecord::default()
    };
    let value = record::encode(&key, &account);
    assert_eq!(value.len(), 1 + 97 + 4);
    assert_eq!(value[..10], [1, 2, 1, 0, 0, 0, 0, 0, 0, 3]);
    assert_eq!(value[49], 1 << 4);
    assert_eq!(value[82..90], [0xff; 8]);
}
