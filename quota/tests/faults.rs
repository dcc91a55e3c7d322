//! A store that fails: orders change nothing, what happened is not lost, and later commits put everything right.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests state what they expect"
)]

use std::sync::Arc;

use quota::store::copy::AccountCopy;
use quota::store::memory::MemoryStore;
use quota::store::record::key;
use quota::{
    Bytes, Change, Changed, Charged, Deadlines, DenyReason, Engine, EngineError, Environment,
    GracePeriod, InodeId, Limit, Limits, LimitsChange, Owner, QuotaType, Resource, Scope, Setting,
    Setup, Standing, StoreError, Subject, Tally, Timestamp, Uid, Usage, VeId, Want,
};

const OWNER: Owner = Owner::new(5, 6);
const USER: Subject = Subject::User(Uid::new(5));

fn no_space() -> StoreError {
    StoreError::NoSpace {
        dir: "/nowhere".into(),
    }
}

fn create(store: &Arc<MemoryStore>) -> Engine {
    let setup = Setup::new(VeId::new(1), "/private");
    Engine::create(store.clone(), Environment::default(), setup).unwrap()
}

fn open(store: &Arc<MemoryStore>) -> Engine {
    Engine::open(store.clone(), Environment::default()).unwrap()
}

fn grow(engine: &Engine, bytes: u64) {
    let after = Charged {
        owner: OWNER,
        usage: Usage::inode(Bytes::new(bytes)),
    };
    engine.record(&[Change {
        inode: InodeId::new(1, 0, &[]),
        before: None,
        after: Some(after),
    }]);
}

fn hard(bytes: u64) -> LimitsChange {
    let space = Limit::new(None, Some(Bytes::new(bytes)));
    LimitsChange::to(Limits {
        space,
        ..Limits::UNLIMITED
    })
}

#[test]
fn an_empty_store_has_no_record_and_a_record_is_not_overwritten() {
    let store = Arc::new(MemoryStore::new());
    let none = Engine::open(store.clone(), Environment::default());
    assert!(matches!(none, Err(EngineError::NoRecord)));
    create(&store);
    let setup = Setup::new(VeId::new(2), "/other");
    let twice = Engine::create(store.clone(), Environment::default(), setup);
    assert!(matches!(twice, Err(EngineError::RecordExists)));
    assert_eq!(open(&store).info().ve, VeId::new(1));
}

#[test]
fn a_record_starts_with_what_is_there() {
    let store = Arc::new(MemoryStore::new());
    let mut usage = Tally::default();
    usage.add(OWNER, Usage::inode(Bytes::new(100)));
    let space = Limit::new(Some(Bytes::new(50)), Some(Bytes::new(80)));
    let limits = Limits {
        space,
        ..Limits::UNLIMITED
    };
    let setup = Setup {
        limits,
        usage: usage.clone(),
        ..Setup::new(VeId::new(1), "/private")
    };
    Engine::create(store.clone(), Environment::default(), setup).unwrap();
    let engine = open(&store);
    assert_eq!(engine.tally().unwrap(), usage);
    let ve = engine.account(Subject::Ve).unwrap();
    assert_eq!((ve.peak, ve.limits), (usage.ve, limits));
    assert!(ve.deadlines.space.is_some());
    assert_eq!(store.copy().unwrap().accounts.len(), 1);
}

#[test]
fn a_record_without_the_account_of_the_ve_is_damaged() {
    let store = Arc::new(MemoryStore::new());
    create(&store);
    let mut batch = quota::store::Batch::new();
    batch.remove(key::account(Subject::Ve));
    quota::Store::commit(&*store, &batch).unwrap();
    let damaged = Engine::open(store, Environment::default());
    assert!(matches!(
        damaged,
        Err(EngineError::Store(StoreError::Damaged { .. }))
    ));
}

#[test]
fn an_order_that_could_not_be_written_changed_nothing() {
    let store = Arc::new(MemoryStore::new());
    let engine = create(&store);
    grow(&engine, 10);
    engine.commit().unwrap();
    for late in [false, true] {
        let arm = || match late {
            true => store.fail_nth_late(1, no_space()),
            false => store.fail_nth(1, no_space()),
        };
        // All of these find what they need in memory, so the first call is the commit.
        arm();
        assert!(engine.set_limits(USER, &hard(7)).is_err());
        assert!(engine.account(USER).unwrap().limits.is_unlimited());
        // Where the store took it all the same, the next commit takes it back.
        engine.commit().unwrap();
        let after = open(&Arc::new(store.crash()));
        assert!(after.account(USER).unwrap().limits.is_unlimited());
        arm();
        assert!(engine.set_ugid_limit(9).is_err());
        assert_eq!(engine.info().ugid_limit, u32::MAX);
        engine.commit().unwrap();
        assert_eq!(open(&Arc::new(store.crash())).info().ugid_limit, u32::MAX);
    }
}

#[test]
fn a_failed_commit_is_made_good_by_the_next_under_another_number() {
    let store = Arc::new(MemoryStore::new());
    let engine = create(&store);
    grow(&engine, 10);
    let epoch = engine.epoch();
    store.fail_nth(1, no_space());
    assert!(engine.commit().is_err());
    assert!(engine.is_dirty());
    engine.commit().unwrap();
    assert!(!engine.is_dirty());
    assert_eq!(engine.epoch(), epoch.next().next());
    let after = open(&Arc::new(store.crash()));
    assert_eq!(after.tally().unwrap(), engine.tally().unwrap());
    assert_eq!(after.epoch(), engine.epoch());
}

#[test]
fn many_accounts_are_set_in_one_commit_or_not_at_all() {
    let store = Arc::new(MemoryStore::new());
    let engine = create(&store);
    grow(&engine, 10);
    engine.commit().unwrap();
    let copied = |id: u32, bytes| {
        let space = Limit::new(Some(Bytes::new(bytes)), None);
        AccountCopy {
            subject: Subject::User(Uid::new(id)),
            limits: Limits {
                space,
                ..Limits::UNLIMITED
            },
            deadlines: Deadlines {
                space: Some(Timestamp::new(5)),
                inodes: None,
            },
        }
    };
    let wanted: Vec<_> = (0..100).map(|id| copied(id, 7)).collect();
    store.fail_nth(100, no_space());
    assert!(engine.set_accounts(&wanted).is_err());
    engine.commit().unwrap();
    let limited = |engine: &Engine| {
        let accounts = engine.accounts(QuotaType::User).unwrap();
        let limited = accounts
            .iter()
            .filter(|account| !account.limits.is_unlimited());
        limited.count()
    };
    assert_eq!(limited(&engine), 0);
    let commits = store.commits();
    assert_eq!(engine.set_accounts(&wanted).unwrap(), Changed::Yes);
    assert_eq!(store.commits(), commits + 1);
    let after = open(&Arc::new(store.crash()));
    assert_eq!(limited(&after), 100);
    assert_eq!(store.copy().unwrap().accounts.len(), 100);
    // A timer is moved where one runs: above the soft limit.
    let deadline = |id| {
        let subject = Subject::User(Uid::new(id));
        after.account(subject).unwrap().deadlines.space
    };
    assert_eq!((deadline(5), deadline(6)), (Some(Timestamp::new(5)), None));
    assert_eq!(engine.set_accounts(&wanted).unwrap(), Changed::No);
    // The first level's rule holds here too, and nothing of the order is done.
    let space = Limit::new(Some(Bytes::new(9)), Some(Bytes::new(8)));
    let wrong = AccountCopy {
        subject: Subject::Ve,
        limits: Limits {
            space,
            ..Limits::UNLIMITED
        },
        deadlines: Deadlines::NONE,
    };
    assert!(engine.set_accounts(&[copied(200, 1), wrong]).is_err());
    assert_eq!(limited(&engine), 100);
}

#[test]
fn an_idle_engine_writes_nothing() {
    let store = Arc::new(MemoryStore::new());
    let engine = create(&store);
    let commits = store.commits();
    let want = Want::new(OWNER, Usage::inode(Bytes::new(5)));
    drop(engine.reserve(&[], &[want], &|| false).unwrap());
    engine.commit().unwrap();
    let _ = engine.set_limits(USER, &LimitsChange::default()).unwrap();
    assert_eq!(
        engine.set_enforced(Scope::Users, true).unwrap(),
        Changed::No
    );
    assert_eq!(store.commits(), commits);
}

#[test]
fn an_account_that_cannot_be_read_refuses_and_is_charged_later() {
    let store = Arc::new(MemoryStore::new());
    let first = create(&store);
    grow(&first, 10);
    first.commit().unwrap();
    let engine = open(&store);
    let want = Want::new(OWNER, Usage::space(Bytes::new(1)));
    store.fail_nth(1, no_space());
    let denied = engine
        .reserve(&[], &[want], &|| true)
        .map(drop)
        .unwrap_err();
    assert_eq!(denied.reason, DenyReason::AccountUnavailable);
    assert_eq!(engine.reserved(), Usage::ZERO);
    // What happened anyway is kept until the account can be read.
    store.fail_nth(1, no_space());
    grow(&engine, 7);
    store.fail_nth(1, no_space());
    assert!(engine.commit().is_err());
    store.fail_nth(1, no_space());
    grow(&engine, 3);
    assert_eq!(engine.tally().unwrap().usage(USER).space, Bytes::new(20));
    engine.commit().unwrap();
    let tally = open(&Arc::new(store.crash())).tally().unwrap();
    assert_eq!(tally.users, [(Uid::new(5), tally.ve)].into());
}

#[test]
fn the_readable_copy_follows_every_order() {
    let store = Arc::new(MemoryStore::new());
    let engine = create(&store);
    let _ = engine.set_limits(USER, &hard(7)).unwrap();
    let period = Some(GracePeriod::new(77));
    let _ = engine
        .set_grace_periods(Scope::Groups, period, None)
        .unwrap();
    let copy = store.copy().unwrap();
    assert_eq!(copy.info.unwrap().grace[2].space, GracePeriod::new(77));
    let hard = copy
        .accounts
        .values()
        .map(|account| (account.subject, account.limits.space.hard));
    assert!(hard.eq([(USER, Some(Bytes::new(7)))]));
    // Without the copy the order stands all the same: it is durable.
    let calls = store.calls();
    let _ = engine.set_ugid_limit(1).unwrap();
    store.fail_nth(store.calls() - calls, no_space());
    assert_eq!(engine.set_ugid_limit(2).unwrap(), Changed::Yes);
    assert_eq!(open(&store).info().ugid_limit, 2);
}

#[test]
fn accounts_that_hold_nothing_leave_the_store() {
    let store = Arc::new(MemoryStore::new());
    let engine = create(&store);
    grow(&engine, 10);
    engine.commit().unwrap();
    let stored = |subject| {
        store
            .entries()
            .iter()
            .any(|(key, _)| *key == key::account(subject))
    };
    assert!(stored(USER));
    let before = Some(Charged {
        owner: OWNER,
        usage: Usage::inode(Bytes::new(10)),
    });
    let inode = InodeId::new(1, 0, &[]);
    engine.record(&[Change {
        inode,
        before,
        after: None,
    }]);
    engine.commit().unwrap();
    assert!(!stored(USER) && stored(Subject::Ve));
    // Limits alone are worth keeping, and so is zero.
    let zero = LimitsChange {
        space_hard: Setting::To(Bytes::ZERO),
        ..LimitsChange::default()
    };
    let _ = engine.set_limits(USER, &zero).unwrap();
    assert!(stored(USER));
    let listed = engine.accounts(QuotaType::User).unwrap();
    assert_eq!(listed.len(), 1);
    let want = Want::new(OWNER, Usage::space(Bytes::new(1)));
    let denied = engine
        .reserve(&[], &[want], &|| false)
        .map(drop)
        .unwrap_err();
    assert_eq!((denied.subject, denied.resource), (USER, Resource::Space));
}

/// More accounts than stay in memory, in two histories of the same end.
#[test]
fn accounts_leave_memory_and_come_back_as_they_were() {
    let store = Arc::new(MemoryStore::new());
    let engine = create(&store);
    let charge = |uid: u32, before: u64, after: u64| {
        let held = |bytes| Charged {
            owner: Owner::new(uid, uid % 7),
            usage: Usage::inode(Bytes::new(bytes)),
        };
        let inode = InodeId::new(u64::from(uid), 0, &[]);
        let before = (before > 0).then(|| held(before));
        engine.record(&[Change {
            inode,
            before,
            after: Some(held(after)),
        }]);
    };
    for uid in 0..20_000 {
        charge(uid, 0, 100);
    }
    let want = Want::new(Owner::new(3, 3), Usage::space(Bytes::new(9)));
    let promise = engine.reserve(&[], &[want], &|| false).unwrap();
    for _ in 0..3 {
        engine.commit().unwrap();
        charge(1, 100, 100);
        charge(0, 100, 101);
        charge(0, 101, 100);
    }
    let user = engine.account(Subject::User(Uid::new(3))).unwrap();
    assert_eq!(user.reserved, want.usage);
    drop(promise);
    let reads = store.calls();
    for uid in 0..20_000 {
        charge(uid, 100, 200);
    }
    assert!(store.calls() > reads, "no account had left");
    engine.commit().unwrap();
    let tally = engine.tally().unwrap();
    assert_eq!(tally.users.len(), 20_000);
    assert!(
        tally
            .users
            .values()
            .all(|usage| usage.space == Bytes::new(200))
    );
    assert_eq!(open(&store).tally().unwrap(), tally);
}

/// Giving back more than there is means that the private area was edited behind the mount, or the accounting had gone wrong.
#[test]
fn a_total_that_would_fall_below_zero_is_reported() {
    let store = Arc::new(MemoryStore::new());
    let engine = create(&store);
    grow(&engine, 10);
    let before = Some(Charged {
        owner: OWNER,
        usage: Usage::inode(Bytes::new(11)),
    });
    let change = Change {
        inode: InodeId::new(1, 0, &[]),
        before,
        after: None,
    };
    engine.record(&[change]);
    assert_eq!(engine.invariant_violations(), 3);
    assert_eq!(engine.account(Subject::Ve).unwrap().usage, Usage::ZERO);
}

// S61: neither the end of a recount nor that of the service makes a loss good, and a store that could not be told at
// once is told by the next commit.
#[test]
fn a_loss_outlives_recounts_and_failures_of_the_store() {
    let unknown = Standing::Unknown { session: 1 };
    for (was_unknown, is_told) in [(true, true), (false, true), (false, false)] {
        for commits in [0, 1] {
            let store = Arc::new(MemoryStore::new());
            let engine = create(&store);
            engine.begin_service(1, was_unknown).unwrap();
            if !is_told {
                store.fail_nth(1, no_space());
            }
            assert_eq!(engine.private_area_has_lost().is_ok(), is_told);
            grow(&engine, 10);
            for _ in 0..commits {
                engine.commit().unwrap();
                assert_eq!(open(&Arc::new(store.crash())).standing(), unknown);
            }
            let tally = engine.tally().unwrap();
            let _ = engine.replace_usage(&tally).unwrap();
            engine.totals_are_known().unwrap();
            engine.end_service().unwrap();
            let next = open(&store);
            assert_eq!(
                next.standing(),
                unknown,
                "{was_unknown} {is_told} {commits}"
            );
            // The next mount counts, and that counts.
            next.begin_service(2, true).unwrap();
            next.totals_are_known().unwrap();
            next.end_service().unwrap();
            assert_eq!(open(&store).standing(), Standing::Final);
        }
    }
}
