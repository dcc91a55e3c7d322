//! One account under test, driven through the engine.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use quota::store::memory::MemoryStore;
use quota::{
    Account, Bytes, Change, Changed, Charged, Denied, DenyReason, Engine, Environment, Event,
    EventKind, EventSink, GracePeriod, GracePeriods, InodeId, Inodes, Limit, Limits, LimitsChange,
    ManualClock, PerScope, Reservation, Resource, Scope, Setup, Subject, Timestamp, Usage, VeId,
    Want,
};

use super::Step::{self, *};
use super::{OWNER, Row, START, Seen};

#[derive(Default)]
struct Log(Mutex<Vec<Event>>);

impl EventSink for Log {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(*event);
    }
}

/// One account under test.
pub(crate) struct Bench {
    row: &'static Row,
    subject: Subject,
    resource: Resource,
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    log: Arc<Log>,
    engine: Engine,
    held: VecDeque<Reservation>,
    used: u64,
}

impl Bench {
    pub(crate) fn new(row: &'static Row, subject: Subject, resource: Resource) -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(ManualClock::new(Timestamp::new(START)));
        let log = Arc::new(Log::default());
        let environment = Environment {
            clock: clock.clone(),
            events: log.clone(),
        };
        let setup = Setup {
            grace: PerScope::all(GracePeriods::both(GracePeriod::new(row.grace))),
            ..Setup::new(VeId::new(101), "/vz/private/101")
        };
        let engine = Engine::create(store.clone(), environment, setup).unwrap();
        let change = LimitsChange::to(limits(resource, row.soft, row.hard));
        let _ = engine.set_limits(subject, &change).unwrap();
        let held = VecDeque::new();
        Self {
            row,
            subject,
            resource,
            store,
            clock,
            log,
            engine,
            held,
            used: 0,
        }
    }

    pub(crate) fn run(mut self) {
        for (number, step) in self.row.steps.iter().enumerate() {
            let place = format!(
                "{:?}, {} of {}, step {number} {step:?}",
                self.row.rule, self.resource, self.subject
            );
            self.step(*step, &place);
        }
        self.held.clear();
        assert_eq!(self.engine.reserved(), Usage::ZERO, "{}", self.row.rule);
        assert_eq!(self.engine.invariant_violations(), 0);
    }

    fn step(&mut self, step: Step, place: &str) {
        match step {
            Take(n) => self.take(n, false, place),
            TakeExempt(n) => self.take(n, true, place),
            Refused(n, reason) => self.refused(n, reason, place),
            Hold(n) => {
                let promise = self.reserve(n, false).unwrap_or_else(|_| panic!("{place}"));
                self.held.push_back(promise);
            }
            Settle(n) => {
                let change = self.change(i128::from(n));
                self.held.pop_front().unwrap().settle(&[change]);
            }
            Cancel => drop(self.held.pop_front().unwrap()),
            Give(n) => {
                let change = self.change(-i128::from(n));
                self.engine.record(&[change]);
            }
            Late(n) => {
                let change = self.change(i128::from(n));
                self.engine.record(&[change]);
            }
            Wait(seconds) => self.clock.advance(seconds),
            LimitsTo(soft, hard) => {
                let change = LimitsChange::to(limits(self.resource, soft, hard));
                assert_eq!(
                    self.engine.set_limits(self.subject, &change).unwrap(),
                    Changed::Yes
                );
            }
            Grace(seconds) => {
                let period = Some(GracePeriod::new(seconds));
                let scope = Scope::of(self.subject);
                let _ = self
                    .engine
                    .set_grace_periods(scope, period, period)
                    .unwrap();
            }
            Enforce(on) => {
                let _ = self
                    .engine
                    .set_enforced(Scope::of(self.subject), on)
                    .unwrap();
            }
            MoveDeadline(at) => self.move_deadline(at),
            Reopen => self.reopen(),
            _ => self.look(step, place),
        }
    }

    fn look(&mut self, step: Step, place: &str) {
        let account = self.account();
        let resource = self.resource;
        match step {
            Used(n) => assert_eq!(account.usage.get(resource), n, "{place}"),
            Peak(n) => assert_eq!(account.peak.get(resource), n, "{place}"),
            Refusals(n) => assert_eq!(account.refused.get(resource), n, "{place}"),
            Room(n) => assert_eq!(self.engine.room(OWNER, true).get(resource), n, "{place}"),
            Deadline(at) => {
                let at = at.map(|after| Timestamp::new(START + after));
                assert_eq!(account.deadlines.get(resource), at, "{place}");
            }
            Events(expected) => {
                let events = std::mem::take(&mut *self.log.0.lock().unwrap());
                let mine = |event: &Event| {
                    assert_eq!((event.subject, event.resource), (self.subject, resource));
                    match event.kind {
                        EventKind::SoftExceeded { deadline } => {
                            assert_eq!(deadline, account.deadlines.get(resource));
                            Seen::Soft
                        }
                        EventKind::GraceExpired => Seen::Expired,
                        EventKind::HardReached => Seen::Hard,
                    }
                };
                assert_eq!(
                    events.iter().map(mine).collect::<Vec<_>>(),
                    expected,
                    "{place}"
                );
            }
            _ => unreachable!("{place}"),
        }
    }

    fn take(&mut self, n: u64, exempt: bool, place: &str) {
        let promise = self
            .reserve(n, exempt)
            .unwrap_or_else(|denied| panic!("{place}: {denied}"));
        let change = self.change(i128::from(n));
        promise.settle(&[change]);
    }

    fn refused(&mut self, n: u64, reason: DenyReason, place: &str) {
        let before = self.account();
        // Nobody is exempt at the first level, so ask as one who would be.
        let exempt = self.subject == Subject::Ve;
        let tried = self
            .engine
            .try_reserve(&[], &[self.want(n)], &|| exempt)
            .map(drop);
        assert_eq!(self.account(), before, "{place}");
        let Err(denied) = self.reserve(n, exempt) else {
            panic!("{place}: granted")
        };
        assert_eq!(tried, Err(denied), "{place}");
        let what = (denied.subject, denied.resource, denied.reason);
        assert_eq!(what, (self.subject, self.resource, reason), "{place}");
        let mut after = self.account();
        let counted = after.refused.get(self.resource) - before.refused.get(self.resource);
        assert_eq!(counted, 1, "{place}");
        after.refused = before.refused;
        assert_eq!(after, before, "{place}");
    }

    fn move_deadline(&self, after: Option<i64>) {
        let at = Some(after.map(|after| Timestamp::new(START + after)));
        let (space, inodes) = match self.resource {
            Resource::Space => (at, None),
            Resource::Inodes => (None, at),
        };
        let _ = self
            .engine
            .set_deadlines(self.subject, space, inodes)
            .unwrap();
    }

    fn reopen(&mut self) {
        self.engine.commit().unwrap();
        self.store = Arc::new(self.store.crash());
        let environment = Environment {
            clock: self.clock.clone(),
            events: self.log.clone(),
        };
        self.engine = Engine::open(self.store.clone(), environment).unwrap();
    }

    fn reserve(&self, n: u64, exempt: bool) -> Result<Reservation, Denied> {
        self.engine.reserve(&[], &[self.want(n)], &|| exempt)
    }

    fn want(&self, n: u64) -> Want {
        Want::new(OWNER, amount(self.resource, n))
    }

    /// The one inode of the owner grows or shrinks by this.
    fn change(&mut self, by: i128) -> Change {
        let charged = |n| Charged {
            owner: OWNER,
            usage: amount(self.resource, n),
        };
        let before = self.used;
        let after = u64::try_from(i128::from(before) + by).unwrap();
        let change = Change {
            inode: InodeId::new(1, 0, &[]),
            before: Some(charged(before)),
            after: Some(charged(after)),
        };
        self.used = after;
        change
    }

    fn account(&self) -> Account {
        self.engine.account(self.subject).unwrap()
    }
}

fn amount(resource: Resource, n: u64) -> Usage {
    match resource {
        Resource::Space => Usage::space(Bytes::new(n)),
        Resource::Inodes => Usage::new(Bytes::ZERO, Inodes::new(n)),
    }
}

pub(crate) fn limits(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> Limits {
    let mut limits = Limits::UNLIMITED;
    match resource {
        Resource::Space => {
            limits.space = Limit::new(soft.map(Bytes::new), hard.map(Bytes::new));
        }
        Resource::Inodes => {
            limits.inodes = Limit::new(soft.map(Inodes::new), hard.map(Inodes::new));
        }
    }
    limits
}
