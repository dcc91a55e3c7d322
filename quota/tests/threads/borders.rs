//! Limits that move while threads work below them: whatever is in force bounds what is granted from then on, at every
//! look, on the way of every day and by the rules alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quota::store::memory::MemoryStore;
use quota::{
    Account, Bytes, Change, Charged, Engine, Environment, GracePeriod, GracePeriods, InodeId,
    Inodes, Limit, LimitsChange, ManualClock, Owner, PerScope, QuotaType, Resource, Scope, Setting,
    Setup, Subject, Tally, Timestamp, Uid, Usage, VeId, Want,
};

use super::{Finish, add, assert_sums, dice};

const WORKERS: u32 = 4;
/// Files of each worker.
const FILES: usize = 8;
/// No request is larger.
const LARGEST: u64 = 64;
/// Looks at the accounts after each order.
const LOOKS: usize = 200;
const ORDERS: u64 = 150;

/// The account whose limits move; the other workers write for others.
const SUBJECTS: [Subject; 2] = [Subject::Ve, Subject::User(Uid::new(1))];

struct Scene {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    engine: Engine,
    done: AtomicBool,
    refused: AtomicU64,
}

fn held(account: &Account) -> u64 {
    account.usage.space.get() + account.reserved.space.get()
}

impl Scene {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(ManualClock::new(Timestamp::new(0)));
        let environment = Environment {
            clock: clock.clone(),
            ..Environment::default()
        };
        let setup = Setup {
            // The request that passes the soft limit is the last one.
            grace: PerScope::all(GracePeriods::both(GracePeriod::new(0))),
            ..Setup::new(VeId::new(1), "/private")
        };
        Self {
            engine: Engine::create(store.clone(), environment, setup).unwrap(),
            store,
            clock,
            done: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        }
    }

    /// Promises, settles with less, cancels, shrinks, removes. Returns what is left.
    fn work(&self, worker: u32) -> Tally {
        let seed = &mut (u64::from(worker) + 77);
        let owner = Owner::new(worker % 3, worker % 2);
        let mut files: [Option<Charged>; FILES] = [None; FILES];
        while !self.done.load(Ordering::Relaxed) {
            let at = usize::try_from(dice(seed, FILES as u64)).unwrap();
            let inode = InodeId::new(u64::from(worker) * 100 + at as u64, 0, &[]);
            let before = files[at];
            let asked = dice(seed, LARGEST + 1);
            if dice(seed, 3) == 0 {
                self.engine.record(&[Change {
                    inode,
                    before,
                    after: None,
                }]);
                files[at] = None;
                continue;
            }
            let want = [Want::new(owner, Usage::inode(Bytes::new(asked)))];
            let touched = [(inode, before)];
            match self.engine.reserve(&touched, &want, &|| false) {
                Ok(promise) if dice(seed, 4) == 0 => drop(promise),
                Ok(promise) => {
                    let grown = before.map_or(0, |charged| charged.usage.space.get());
                    let space = grown + dice(seed, asked + 1);
                    let after = Some(Charged {
                        owner,
                        usage: Usage::inode(Bytes::new(space)),
                    });
                    promise.settle(&[Change {
                        inode,
                        before,
                        after,
                    }]);
                    files[at] = after;
                }
                Err(_) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let mut left = Tally::default();
        let all = files.iter().flatten();
        all.for_each(|charged| left.add(charged.owner, charged.usage));
        left
    }

    /// Changes something and returns the bound that holds from then on for what is held, beside what is held already.
    fn order(&self, subject: Subject, seed: &mut u64) -> Option<u64> {
        let scope = Scope::of(subject);
        let at = held(&self.engine.account(subject).unwrap());
        // Now above what is held, now below.
        let near = at.saturating_add(dice(seed, 200)).saturating_sub(100);
        let limit = match dice(seed, 4) {
            0 => Limit::new(Some(near), None),
            1 => Limit::new(Some(near), Some(near + 50)),
            2 => Limit::new(None, Some(near)),
            _ => Limit::UNLIMITED,
        };
        let change = LimitsChange {
            space_soft: Setting::exactly(limit.soft.map(Bytes::new)),
            space_hard: Setting::exactly(limit.hard.map(Bytes::new)),
            ..LimitsChange::default()
        };
        let _ = self.engine.set_enforced(scope, dice(seed, 5) > 0).unwrap();
        let _ = self.engine.set_limits(subject, &change).unwrap();
        self.clock.advance(1);
        if !self.engine.is_enforced(scope) {
            return None;
        }
        match limit {
            Limit {
                soft: Some(soft),
                hard,
            } => Some(hard.unwrap_or(u64::MAX).min(soft + LARGEST)),
            Limit { hard, .. } => hard,
        }
    }

    /// Looks for a while, with commits in between.
    fn watch(&self, subject: Subject, bound: Option<u64>) {
        let start = held(&self.engine.account(subject).unwrap());
        for look in 0..LOOKS {
            let account = self.engine.account(subject).unwrap();
            if let Some(bound) = bound {
                let most = bound.max(start);
                assert!(held(&account) <= most, "above {most}: {account:?}");
            }
            if look % 50 == 0 {
                self.engine.commit().unwrap();
                let after = Arc::new(self.store.crash());
                let stored = Engine::open(after, Environment::default()).unwrap();
                assert_sums(&stored.tally().unwrap());
            }
        }
    }

    fn refusals(&self) -> u64 {
        let kinds = QuotaType::ALL.into_iter();
        let ids = kinds.flat_map(|kind| (0..WORKERS).map(move |id| kind.subject(id)));
        let accounts = [Subject::Ve].into_iter().chain(ids);
        let of = |subject| self.engine.account(subject).unwrap().refused;
        let both = |subject| Resource::ALL.map(|resource| of(subject).get(resource));
        accounts.flat_map(both).sum()
    }
}

#[test]
fn what_is_in_force_bounds_what_is_granted_from_then_on() {
    let scene = Scene::new();
    // Limits that nobody reaches, so that the accounts are worth keeping and count their refusals all the while.
    for subject in (0..3).map(|id| QuotaType::User.subject(id)) {
        let change = LimitsChange {
            inodes_hard: Setting::To(Inodes::new(1 << 40)),
            ..LimitsChange::default()
        };
        let _ = scene.engine.set_limits(subject, &change).unwrap();
    }
    let mut expected = Tally::default();
    std::thread::scope(|scope| {
        let finish = Finish(&scene.done);
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                scope.spawn({
                    let scene = &scene;
                    move || scene.work(worker)
                })
            })
            .collect();
        let seed = &mut 4711;
        for number in 0..ORDERS {
            let subject = SUBJECTS[usize::try_from(number % 2).unwrap()];
            let bound = scene.order(subject, seed);
            scene.watch(subject, bound);
        }
        drop(finish);
        for worker in workers {
            add(&mut expected, &worker.join().unwrap());
        }
    });
    assert_eq!(scene.engine.reserved(), Usage::ZERO);
    assert_eq!(scene.engine.invariant_violations(), 0);
    assert_eq!(scene.engine.tally().unwrap().differences(&expected), []);
    assert_eq!(scene.refusals(), scene.refused.into_inner());
}
