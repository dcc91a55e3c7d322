//! Does each step on both sides and compares everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Change, Charged, DenyReason, Engine, Environment, GracePeriod, GracePeriods, InodeId,
    Inodes, ManualClock, Owner, PerScope, Reservation, Resource, Scope, Setup, StoreError, Subject,
    Timestamp, Usage, VeId, Want,
};

use super::ops::Op;
use super::reference::{RESOURCES, Reference, Two, accounts_of};

pub(crate) const START: i64 = 1000;
const GRACE: u64 = 20;
pub(crate) const INODES: usize = 5;

struct Held {
    promise: Reservation,
    wants: Vec<(Owner, Usage)>,
}

/// An inode: what the totals hold for it.
type Inode = Option<(Owner, Usage)>;

pub(crate) struct Driver {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    pub(crate) engine: Engine,
    held: Vec<Held>,
    pub(crate) inodes: [Inode; INODES],
    /// As of the last commit.
    stored_inodes: [Inode; INODES],
    pub(crate) reference: Reference,
    /// A commit failed, and the store may have it all the same.
    unsure: bool,
}

impl Driver {
    pub(crate) fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(ManualClock::new(Timestamp::new(START)));
        let setup = Setup {
            grace: PerScope::all(GracePeriods::both(GracePeriod::new(GRACE))),
            ..Setup::new(VeId::new(1), "/private")
        };
        let environment = Environment {
            clock: clock.clone(),
            ..Environment::default()
        };
        Self {
            engine: Engine::create(store.clone(), environment, setup).unwrap(),
            store,
            clock,
            held: Vec::new(),
            inodes: [None; INODES],
            stored_inodes: [None; INODES],
            reference: Reference::new(START, GRACE),
            unsure: false,
        }
    }

    pub(crate) fn step(&mut self, op: &Op, place: &str) {
        match op {
            Op::Reserve {
                wants,
                exempt,
                counted,
            } => self.reserve(wants, *exempt, *counted, place),
            Op::Settle {
                promise,
                inode,
                after,
            } => self.settle(*promise, *inode, *after),
            Op::SettlePart { promise, percent } => self.settle_part(*promise, *percent),
            Op::Merge { promise, other } => self.merge(*promise, *other),
            Op::Cancel { promise } => {
                if let Some(held) = self.take_held(*promise) {
                    self.reference.apply(&sums(&held.wants), None, None);
                }
            }
            Op::Record { inode, after } => {
                let change = self.change(*inode, *after);
                self.engine.record(&[change]);
                self.reference_apply(&[], change);
            }
            Op::Wait(seconds) => {
                self.clock.advance(*seconds);
                self.reference.now += seconds;
            }
            Op::FailStore { nth, late } => {
                let error = StoreError::NoSpace {
                    dir: "/nowhere".into(),
                };
                match late {
                    true => self.store.fail_nth_late(*nth, error),
                    false => self.store.fail_nth(*nth, error),
                }
                // The failure is for the next step.
                return;
            }
            Op::Commit => {
                let done = self.engine.commit();
                self.committed(done.is_ok());
            }
            Op::Reopen => self.reopen(),
            Op::Crash => self.crash(),
            _ => self.administer(op),
        }
        self.disarm();
        self.compare(place);
    }

    pub(crate) fn finish(&mut self) {
        self.disarm();
        for held in std::mem::take(&mut self.held) {
            self.reference.apply(&sums(&held.wants), None, None);
        }
        self.compare("the end");
        assert_eq!(self.engine.reserved(), Usage::ZERO);
        assert_eq!(self.engine.invariant_violations(), 0);
    }

    fn reserve(&mut self, wants: &[(Owner, Usage)], exempt: bool, counted: bool, place: &str) {
        let asked: Vec<_> = wants
            .iter()
            .map(|&(owner, usage)| Want::new(owner, usage))
            .collect();
        let promise = match counted {
            true => self.engine.reserve(&[], &asked, &|| exempt),
            false => self.engine.try_reserve(&[], &asked, &|| exempt),
        };
        let amounts = sums(wants);
        let mut expected = self.reference.refusal(&amounts, false);
        if expected.is_some_and(|(subject, _, _)| subject != Subject::Ve) && exempt {
            expected = self.reference.refusal(&amounts, true);
        }
        match (promise, expected) {
            (Ok(promise), None) => {
                self.reference.promise(&amounts);
                self.held.push(Held {
                    promise,
                    wants: wants.to_vec(),
                });
                self.check_limits(&amounts, exempt, place);
            }
            (Err(denied), _) if denied.reason == DenyReason::AccountUnavailable => {}
            (Err(denied), Some((subject, r, hard))) => {
                let resource = Resource::ALL[r];
                let reason = if hard {
                    DenyReason::HardLimit
                } else {
                    DenyReason::GraceExpired
                };
                let got = (denied.subject, denied.resource, denied.reason);
                assert_eq!(got, (subject, resource, reason), "{place}");
                if counted {
                    self.reference.account_mut(subject).refused[r] += 1;
                }
            }
            (got, expected) => panic!("{place}: {got:?}, expected {expected:?}"),
        }
    }

    /// What was granted is within the hard limits.
    fn check_limits(&self, amounts: &[(Subject, Two)], exempt: bool, place: &str) {
        for &(subject, want) in amounts {
            let enforced = self.engine.is_enforced(Scope::of(subject));
            if !enforced || (exempt && subject != Subject::Ve) {
                continue;
            }
            let account = self.engine.account(subject).unwrap();
            for (r, resource) in Resource::ALL.into_iter().enumerate() {
                let total = account.usage.get(resource) + account.reserved.get(resource);
                let hard = account.limits.get(resource).hard.unwrap_or(u64::MAX);
                assert!(want[r] == 0 || total <= hard, "{place}: {account:?}");
            }
        }
    }

    fn settle(&mut self, promise: usize, inode: usize, after: Inode) {
        if let Some(held) = self.take_held(promise) {
            let change = self.change(inode, after);
            held.promise.settle(&[change]);
            self.reference_apply(&sums(&held.wants), change);
        }
    }

    fn settle_part(&mut self, promise: usize, percent: u64) {
        let Some(mut held) = self.take_held(promise) else {
            return;
        };
        let part = |n: u64| n * percent / 100;
        let keep = |&(owner, usage): &(Owner, Usage)| {
            let inodes = Inodes::new(part(usage.inodes.get()));
            (
                owner,
                Usage::new(Bytes::new(part(usage.space.get())), inodes),
            )
        };
        let kept: Vec<_> = held.wants.iter().map(keep).collect();
        let wants: Vec<_> = kept
            .iter()
            .map(|&(owner, usage)| Want::new(owner, usage))
            .collect();
        held.promise.settle_part(&wants, &[]);
        let less = sums(&kept);
        let mut back = sums(&held.wants);
        for (subject, amount) in &mut back {
            let kept = less
                .iter()
                .find(|(kept, _)| kept == subject)
                .map_or([0, 0], |(_, two)| *two);
            RESOURCES.iter().for_each(|&r| amount[r] -= kept[r]);
        }
        self.reference.apply(&back, None, None);
        self.held.push(Held {
            wants: kept,
            ..held
        });
    }

    fn merge(&mut self, promise: usize, other: usize) {
        let Some(mut first) = self.take_held(promise) else {
            return;
        };
        if let Some(second) = self.take_held(other) {
            first.promise.merge(second.promise);
            first.wants.extend(second.wants);
        }
        self.held.push(first);
    }

    /// Notes a commit, or one of which nobody knows.
    pub(crate) fn committed(&mut self, done: bool) {
        if done {
            self.reference.commit();
            self.stored_inodes = self.inodes;
            self.unsure = false;
        } else {
            self.unsure = true;
        }
    }

    fn reopen(&mut self) {
        self.disarm();
        self.engine.commit().unwrap();
        assert!(!self.engine.is_dirty());
        self.committed(true);
        self.crash();
    }

    fn crash(&mut self) {
        self.disarm();
        if self.unsure {
            // Either image may be there; a commit decides which.
            self.engine.commit().unwrap();
            self.committed(true);
        }
        self.held.clear();
        self.store = Arc::new(self.store.crash());
        let environment = Environment {
            clock: self.clock.clone(),
            ..Environment::default()
        };
        self.engine = Engine::open(self.store.clone(), environment).unwrap();
        self.reference.crash();
        self.inodes = self.stored_inodes;
    }

    fn disarm(&self) {
        self.store.fail_nth(
            u64::MAX,
            StoreError::NoSpace {
                dir: "/nowhere".into(),
            },
        );
    }

    fn take_held(&mut self, promise: usize) -> Option<Held> {
        let at = promise.checked_rem(self.held.len())?;
        Some(self.held.remove(at))
    }

    fn change(&mut self, inode: usize, after: Inode) -> Change {
        let at = inode % INODES;
        let before = std::mem::replace(&mut self.inodes[at], after);
        let charged = |held: Inode| held.map(|(owner, usage)| Charged { owner, usage });
        let inode = InodeId::new(u64::try_from(at).unwrap(), 0, &[]);
        Change {
            inode,
            before: charged(before),
            after: charged(after),
        }
    }

    fn reference_apply(&mut self, back: &[(Subject, Two)], change: Change) {
        let plain =
            |charged: Option<Charged>| charged.map(|charged| (charged.owner, two(charged.usage)));
        self.reference
            .apply(back, plain(change.before), plain(change.after));
    }
}

pub(crate) fn two(usage: Usage) -> Two {
    [usage.space.get(), usage.inodes.get()]
}

/// Amounts by account, the VE first, then users, then groups.
fn sums(wants: &[(Owner, Usage)]) -> Vec<(Subject, Two)> {
    let mut sums: BTreeMap<Subject, Two> = BTreeMap::new();
    for &(owner, usage) in wants {
        for subject in accounts_of(owner) {
            let sum = sums.entry(subject).or_default();
            RESOURCES.iter().for_each(|&r| sum[r] += two(usage)[r]);
        }
    }
    sums.into_iter().filter(|(_, sum)| *sum != [0, 0]).collect()
}
