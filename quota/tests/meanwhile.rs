//! Requests that arrive while a batch is being written: they are served at once, and neither lost nor stored twice.

#![allow(clippy::unwrap_used, reason = "tests state what they expect")]

use std::sync::{Arc, Mutex};

use quota::store::memory::MemoryStore;
use quota::store::{Batch, Entry};
use quota::{
    Bytes, Change, Charged, Engine, Environment, Epoch, GracePeriod, InodeId, IntentSlot, Journal,
    Limit, Limits, LimitsChange, ManualClock, Owner, Scope, Setup, Store, StoreError, Subject,
    Tally, Timestamp, Uid, Usage, VeId, Want,
};

const OWNER: Owner = Owner::new(5, 6);
const USER: Subject = Subject::User(Uid::new(5));

type Work = Box<dyn FnOnce() + Send>;

/// Does something during the next commit, before it becomes durable.
#[derive(Default)]
struct Meanwhile {
    store: MemoryStore,
    work: Mutex<Option<Work>>,
}

impl Store for Meanwhile {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.store.scan(prefix, from, limit)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let work = self.work.lock().unwrap().take();
        if let Some(work) = work {
            work();
        }
        self.store.commit(batch)
    }
}

struct Bench {
    store: Arc<Meanwhile>,
    clock: Arc<ManualClock>,
    engine: Engine,
}

impl Bench {
    fn new() -> Self {
        let store = Arc::new(Meanwhile::default());
        let clock = Arc::new(ManualClock::new(Timestamp::new(0)));
        let environment = Environment {
            clock: clock.clone(),
            ..Environment::default()
        };
        let setup = Setup::new(VeId::new(1), "/private");
        let engine = Engine::create(store.clone(), environment, setup).unwrap();
        Self {
            store,
            clock,
            engine,
        }
    }

    /// During the next commit.
    fn meanwhile(&self, work: impl FnOnce(&Engine) + Send + 'static) {
        let engine = self.engine.clone();
        *self.store.work.lock().unwrap() = Some(Box::new(move || work(&engine)));
    }

    /// What a start after the next commit finds.
    fn reopened(&self) -> Engine {
        self.engine.commit().unwrap();
        let environment = Environment {
            clock: self.clock.clone(),
            ..Environment::default()
        };
        Engine::open(Arc::new(self.store.store.crash()), environment).unwrap()
    }

    fn assert_used(&self, bytes: u64) {
        for engine in [self.engine.clone(), self.reopened()] {
            for subject in [Subject::Ve, USER] {
                assert_eq!(
                    engine.account(subject).unwrap().usage.space,
                    Bytes::new(bytes)
                );
            }
        }
    }
}

/// Inode 1 goes from one size to another; zero is no inode.
fn resize(engine: &Engine, before: u64, after: u64) {
    let held = |bytes| {
        let usage = Usage::inode(Bytes::new(bytes));
        (bytes > 0).then_some(Charged {
            owner: OWNER,
            usage,
        })
    };
    let inode = InodeId::new(1, 0, &[]);
    engine.record(&[Change {
        inode,
        before: held(before),
        after: held(after),
    }]);
}

fn space(soft: Option<u64>, hard: Option<u64>) -> LimitsChange {
    let space = Limit::new(soft.map(Bytes::new), hard.map(Bytes::new));
    LimitsChange::to(Limits {
        space,
        ..Limits::UNLIMITED
    })
}

/// Does something between the instant of which a commit is and the copying of what it writes.
#[derive(Default)]
struct AtTheCut(Mutex<Option<Work>>);

impl Journal for AtTheCut {
    fn begin(&self, _touched: &[(InodeId, Option<Charged>)]) {}

    fn settle(&self, _changes: &[Change], _intent: Option<IntentSlot>) -> bool {
        true
    }

    fn rotate(&self, _epoch: Epoch) {}

    fn carry(&self) {
        let work = self.0.lock().unwrap().take();
        if let Some(work) = work {
            work();
        }
    }

    fn committed(&self, _epoch: Epoch) {}
}

#[test]
fn a_commit_is_of_one_instant_though_it_copies_later() {
    let store = Arc::new(MemoryStore::new());
    let setup = Setup::new(VeId::new(1), "/private");
    drop(Engine::create(store.clone(), Environment::default(), setup).unwrap());
    let journal = Arc::new(AtTheCut::default());
    let engine =
        Engine::open_journaled(store.clone(), Environment::default(), journal.clone()).unwrap();
    let stored = || Engine::open(Arc::new(store.crash()), Environment::default()).unwrap();
    let used = |engine: &Engine| {
        let account = |subject| engine.account(subject).unwrap().usage.space.get();
        [Subject::Ve, USER].map(account)
    };
    resize(&engine, 0, 10);
    // At once, and, with a limit that is passed, by the rules: neither is part of this commit, all of it is of the next.
    for (before, limit) in [(10, None), (25, Some(20))] {
        let _ = engine.set_limits(USER, &space(limit, None)).unwrap();
        resize(&engine, before, before + 5);
        let (other, after) = (engine.clone(), before + 15);
        *journal.0.lock().unwrap() = Some(Box::new(move || resize(&other, after - 10, after)));
        engine.commit().unwrap();
        assert_eq!(used(&stored()), [after - 10; 2]);
        assert_eq!(used(&engine), [after; 2]);
        engine.commit().unwrap();
        assert_eq!(used(&stored()), [after; 2]);
    }
}

#[test]
fn an_emptied_account_is_not_read_again_from_before_the_commit() {
    let bench = Bench::new();
    resize(&bench.engine, 0, 10);
    bench.engine.commit().unwrap();
    resize(&bench.engine, 10, 0);
    bench.meanwhile(|engine| {
        let want = Want::new(OWNER, Usage::space(Bytes::new(1)));
        drop(engine.reserve(&[], &[want], &|| false).unwrap());
        drop(engine.reserve(&[], &[want], &|| false).unwrap());
    });
    bench.engine.commit().unwrap();
    bench.assert_used(0);
}

#[test]
fn what_changes_during_a_commit_is_in_the_next() {
    let bench = Bench::new();
    resize(&bench.engine, 0, 10);
    bench.meanwhile(|engine| resize(engine, 10, 25));
    bench.engine.commit().unwrap();
    assert!(bench.engine.is_dirty());
    bench.assert_used(25);
}

#[test]
fn new_limits_meet_the_usage_of_the_moment_they_come_into_force() {
    let bench = Bench::new();
    bench.meanwhile(|engine| {
        // Not in force yet.
        let want = Want::new(OWNER, Usage::space(Bytes::new(100)));
        assert!(engine.reserve(&[], &[want], &|| false).is_ok());
        resize(engine, 0, 30);
    });
    let _ = bench
        .engine
        .set_limits(USER, &space(Some(20), Some(40)))
        .unwrap();
    let week = Timestamp::new(0).saturating_add(GracePeriod::WEEK);
    for engine in [bench.engine.clone(), bench.reopened()] {
        let account = engine.account(USER).unwrap();
        assert_eq!(account.usage.space, Bytes::new(30));
        assert_eq!(account.limits.space.hard, Some(Bytes::new(40)));
        assert_eq!(account.deadlines.space, Some(week));
    }
}

#[test]
fn a_timer_that_new_limits_start_for_a_promise_is_stored_later() {
    let bench = Bench::new();
    let promise = Arc::new(Mutex::new(None));
    let kept = promise.clone();
    bench.meanwhile(move |engine| {
        let want = Want::new(OWNER, Usage::space(Bytes::new(30)));
        *kept.lock().unwrap() = engine.reserve(&[], &[want], &|| false).ok();
    });
    let _ = bench
        .engine
        .set_limits(USER, &space(Some(20), Some(40)))
        .unwrap();
    assert!(
        bench
            .engine
            .account(USER)
            .unwrap()
            .deadlines
            .space
            .is_some()
    );
    assert!(bench.engine.is_dirty());
    drop(promise.lock().unwrap().take());
    assert!(
        bench
            .engine
            .account(USER)
            .unwrap()
            .deadlines
            .space
            .is_none()
    );
}

#[test]
fn a_timer_that_starts_while_periods_change_gets_the_new_period() {
    let bench = Bench::new();
    let _ = bench
        .engine
        .set_limits(USER, &space(Some(20), None))
        .unwrap();
    bench.clock.advance(100);
    bench.meanwhile(|engine| resize(engine, 0, 30));
    let period = Some(GracePeriod::new(60));
    let _ = bench
        .engine
        .set_grace_periods(Scope::Users, period, period)
        .unwrap();
    for engine in [bench.engine.clone(), bench.reopened()] {
        let deadline = engine.account(USER).unwrap().deadlines.space;
        assert_eq!(deadline, Some(Timestamp::new(160)));
    }
}

#[test]
fn a_repair_keeps_what_is_charged_while_it_is_written() {
    let bench = Bench::new();
    resize(&bench.engine, 0, 10);
    bench.meanwhile(|engine| resize(engine, 10, 15));
    // The recount of the moment before found 7 where 10 were charged.
    let mut counted = Tally::default();
    counted.add(OWNER, Usage::inode(Bytes::new(7)));
    let _ = bench.engine.replace_usage(&counted).unwrap();
    bench.assert_used(12);
}

#[test]
fn accounts_and_settings_are_read_during_a_commit() {
    let bench = Bench::new();
    resize(&bench.engine, 0, 10);
    bench.meanwhile(|engine| {
        // Neither of these waits for the commit.
        assert_eq!(engine.account(USER).unwrap().usage.space, Bytes::new(10));
        assert_eq!(engine.info().ve, VeId::new(1));
        assert!(engine.room(OWNER, true).space > Bytes::ZERO);
    });
    bench.engine.commit().unwrap();
}
