//! Any number of users: each has its account, and walking over them all stays cheap.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests state what they expect"
)]

use std::sync::Arc;

use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Change, Charged, Engine, Environment, InodeId, Inodes, Limit, Limits, LimitsChange,
    Owner, QuotaType, Setup, Tally, Uid, Usage, VeId,
};

const IDS: u32 = 100_000;

fn charged(engine: &Engine) {
    for id in 0..IDS {
        let owner = Owner::new(id * 7, id * 7);
        let after = Some(Charged {
            owner,
            usage: Usage::inode(Bytes::new(u64::from(id))),
        });
        let inode = InodeId::new(u64::from(id), 0, &[]);
        engine.record(&[Change {
            inode,
            before: None,
            after,
        }]);
    }
}

/// Every account in the order of ids, one at a time as quotactl(2) asks.
fn assert_all_are_found(engine: &Engine) {
    for kind in QuotaType::ALL {
        let mut from = 0;
        for id in 0..IDS {
            let account = engine.next_account(kind, from).unwrap().unwrap();
            assert_eq!(account.subject, kind.subject(id * 7));
            assert_eq!(account.usage, Usage::inode(Bytes::new(u64::from(id))));
            from = id * 7 + 1;
        }
        assert_eq!(engine.next_account(kind, from).unwrap(), None);
    }
}

/// A recount that finds owners of whom nothing was known brings them all in before it is written.
#[test]
fn a_recount_finds_any_number_of_new_ids() {
    let store = Arc::new(MemoryStore::new());
    let setup = Setup::new(VeId::new(1), "/private");
    let engine = Engine::create(store.clone(), Environment::default(), setup).unwrap();
    let mut counted = Tally::default();
    for id in 0..20_000 {
        counted.add(Owner::new(id, id), Usage::inode(Bytes::new(u64::from(id))));
    }
    assert!(engine.replace_usage(&counted).unwrap().is_yes());
    assert_eq!(engine.tally().unwrap().differences(&counted), []);
    drop(engine);
    let engine = Engine::open(store, Environment::default()).unwrap();
    assert_eq!(engine.tally().unwrap().differences(&counted), []);
}

// S29: the number of users and groups is not limited.
#[test]
fn a_hundred_thousand_ids_have_accounts() {
    let store = Arc::new(MemoryStore::new());
    let setup = Setup::new(VeId::new(1), "/private");
    let engine = Engine::create(store.clone(), Environment::default(), setup).unwrap();
    charged(&engine);
    assert_all_are_found(&engine);
    // Stored as well, and still in memory.
    engine.commit().unwrap();
    assert_all_are_found(&engine);
    drop(engine);
    // Stored only, but for some.
    let engine = Engine::open(store, Environment::default()).unwrap();
    assert_all_are_found(&engine);
    let change = LimitsChange::to(Limits {
        space: Limit::UNLIMITED,
        inodes: Limit::new(None, Some(Inodes::new(5))),
    });
    let user = quota::Subject::User(Uid::new(7 * (IDS - 1)));
    let _ = engine.set_limits(user, &change).unwrap();
    assert_all_are_found(&engine);
}
