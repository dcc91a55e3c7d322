//! Rules about several accounts at once.

use std::sync::Arc;

use quota::store::memory::MemoryStore;
use quota::{
    Accounts, Bytes, Change, Charged, Clock, Engine, Environment, GracePeriod, InodeId, Inodes,
    LimitsChange, ManualClock, Owner, Resource, Scope, Setting, Setup, Subject, Timestamp, Uid,
    Usage, VeId, Want,
};

use super::bench::limits;
use super::{OWNER, START};

fn engine() -> (Engine, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::new(START)));
    let environment = Environment {
        clock: clock.clone(),
        ..Environment::default()
    };
    let setup = Setup::new(VeId::new(101), "/vz/private/101");
    (
        Engine::create(Arc::new(MemoryStore::new()), environment, setup).unwrap(),
        clock,
    )
}

fn limit(engine: &Engine, subject: Subject, soft: Option<u64>, hard: Option<u64>) {
    let change = LimitsChange::to(limits(Resource::Space, soft, hard));
    let _ = engine.set_limits(subject, &change).unwrap();
}

fn deny(engine: &Engine, n: u64) -> Subject {
    let want = Want::new(OWNER, Usage::space(Bytes::new(n)));
    engine
        .reserve(&[], &[want], &|| false)
        .map(drop)
        .unwrap_err()
        .subject
}

#[test]
fn the_ve_refuses_before_the_user_and_the_user_before_the_group() {
    let (engine, _) = engine();
    let [user, group] = [Subject::User(OWNER.uid), Subject::Group(OWNER.gid)];
    limit(&engine, group, None, Some(10));
    assert_eq!(deny(&engine, 40), group);
    limit(&engine, user, None, Some(20));
    assert_eq!(deny(&engine, 40), user);
    limit(&engine, Subject::Ve, None, Some(30));
    assert_eq!(deny(&engine, 40), Subject::Ve);
    for subject in [Subject::Ve, user, group] {
        let account = engine.account(subject).unwrap();
        assert_eq!(
            (account.usage, account.reserved),
            (Usage::ZERO, Usage::ZERO)
        );
        assert_eq!(account.refused.space, 1, "{subject}");
    }
}

/// OpenVZ starts the first level's timer even where the second level then refuses.
#[test]
fn a_refusal_by_a_later_account_starts_no_timer_on_an_earlier_one() {
    let (engine, _) = engine();
    limit(&engine, Subject::Ve, Some(10), Some(100));
    limit(&engine, Subject::Group(OWNER.gid), None, Some(15));
    assert_eq!(deny(&engine, 20), Subject::Group(OWNER.gid));
    assert_eq!(engine.account(Subject::Ve).unwrap().deadlines.space, None);
}

#[test]
fn one_resource_that_does_not_fit_refuses_both() {
    let (engine, _) = engine();
    let change = LimitsChange::to(limits(Resource::Inodes, None, Some(0)));
    let _ = engine.set_limits(Subject::Ve, &change).unwrap();
    let want = Want::new(OWNER, Usage::inode(Bytes::new(5)));
    let denied = engine
        .reserve(&[], &[want], &|| false)
        .map(drop)
        .unwrap_err();
    assert_eq!((denied.resource, denied.limit), (Resource::Inodes, 0));
    assert_eq!(engine.reserved(), Usage::ZERO);
}

// S12, S16: what is above its own limit refuses no request that asks nothing of it.
#[test]
fn a_resource_above_its_limit_does_not_refuse_the_other() {
    // Without a timer at once, with one by the rules.
    for soft in [None, Some(5)] {
        let (engine, _) = engine();
        let held = Want::new(OWNER, Usage::space(Bytes::new(9)));
        let _held = engine.reserve(&[], &[held], &|| false).unwrap();
        for subject in [
            Subject::Ve,
            Subject::User(OWNER.uid),
            Subject::Group(OWNER.gid),
        ] {
            limit(&engine, subject, soft, Some(5));
        }
        let one = Want::new(OWNER, Usage::inode(Bytes::ZERO));
        assert!(engine.reserve(&[], &[one], &|| false).is_ok());
        assert_eq!(deny(&engine, 1), Subject::Ve);
    }
}

// S12: each resource has its own grace period.
#[test]
fn each_resource_has_a_grace_period_of_its_own() {
    let (engine, _) = engine();
    let [space, inodes] = [60, 5].map(|seconds| Some(GracePeriod::new(seconds)));
    for scope in Scope::ALL {
        let _ = engine.set_grace_periods(scope, space, inodes).unwrap();
    }
    let subjects = [
        Subject::Ve,
        Subject::User(OWNER.uid),
        Subject::Group(OWNER.gid),
    ];
    for subject in subjects {
        let change = LimitsChange {
            space_soft: Setting::To(Bytes::ZERO),
            inodes_soft: Setting::To(Inodes::ZERO),
            ..LimitsChange::default()
        };
        let _ = engine.set_limits(subject, &change).unwrap();
    }
    let want = Want::new(OWNER, Usage::inode(Bytes::new(1)));
    let _held = engine.reserve(&[], &[want], &|| false).unwrap();
    for subject in subjects {
        let deadlines = engine.account(subject).unwrap().deadlines;
        assert_eq!(deadlines.space, Some(Timestamp::new(START + 60)));
        assert_eq!(deadlines.inodes, Some(Timestamp::new(START + 5)));
    }
}

#[test]
fn wants_of_one_owner_are_checked_as_a_sum() {
    let (engine, _) = engine();
    limit(&engine, Subject::User(OWNER.uid), None, Some(10));
    let want = Want::new(OWNER, Usage::space(Bytes::new(6)));
    assert!(engine.reserve(&[], &[want, want], &|| false).is_err());
    let other = Want::new(Owner::new(9, 8), want.usage);
    assert!(engine.reserve(&[], &[want, other], &|| false).is_ok());
}

#[test]
fn a_change_of_owner_asks_the_new_owner_alone() {
    let (engine, _) = engine();
    let usage = Usage::inode(Bytes::new(8));
    let inode = InodeId::new(1, 0, &[]);
    let old = Charged {
        owner: Owner::new(1, 1),
        usage,
    };
    engine.record(&[Change {
        inode,
        before: None,
        after: Some(old),
    }]);
    limit(&engine, Subject::Ve, None, Some(8));
    limit(&engine, Subject::User(Uid::new(2)), None, Some(7));
    let to = |uid| Accounts {
        ve: false,
        uid: Some(Uid::new(uid)),
        gid: None,
    };
    let want = |uid| {
        [Want {
            accounts: to(uid),
            usage,
        }]
    };
    let denied = engine
        .reserve(&[], &want(2), &|| false)
        .map(drop)
        .unwrap_err();
    assert_eq!(denied.subject, Subject::User(Uid::new(2)));
    // The VE is full, and that does not matter: nothing comes.
    let promise = engine.reserve(&[], &want(3), &|| false).unwrap();
    let new = Charged {
        owner: Owner::new(3, 1),
        usage,
    };
    promise.settle(&[Change {
        inode,
        before: Some(old),
        after: Some(new),
    }]);
    let used = |subject| engine.account(subject).unwrap().usage;
    assert_eq!(used(Subject::User(Uid::new(1))), Usage::ZERO);
    assert_eq!(used(Subject::User(Uid::new(3))), usage);
    assert_eq!(used(Subject::Ve), usage);
}

#[test]
fn the_caller_is_looked_up_only_when_the_second_level_refuses() {
    let (engine, _) = engine();
    let asked = std::cell::Cell::new(0);
    let exempt = || {
        asked.set(asked.get() + 1);
        // No lock is held here, or this would hang.
        engine.reserved().is_zero()
    };
    let want = |n| [Want::new(OWNER, Usage::space(Bytes::new(n)))];
    limit(&engine, Subject::Ve, None, Some(20));
    limit(&engine, Subject::User(OWNER.uid), None, Some(10));
    drop(engine.reserve(&[], &want(10), &exempt).unwrap());
    assert!(engine.reserve(&[], &want(21), &exempt).is_err());
    assert_eq!(asked.get(), 0);
    drop(engine.reserve(&[], &want(11), &exempt).unwrap());
    assert_eq!(asked.get(), 1);
}

/// While the caller is looked up others may take what there was.
#[test]
fn the_ve_is_asked_again_for_a_caller_that_passes() {
    let (engine, _) = engine();
    limit(&engine, Subject::Ve, None, Some(20));
    limit(&engine, Subject::User(OWNER.uid), None, Some(10));
    let want = |owner, n| Want::new(owner, Usage::space(Bytes::new(n)));
    let others = std::cell::RefCell::new(None);
    let exempt = || {
        let promise = engine.reserve(&[], &[want(Owner::new(1, 1), 10)], &|| false);
        *others.borrow_mut() = promise.ok();
        true
    };
    let denied = engine
        .reserve(&[], &[want(OWNER, 11)], &exempt)
        .map(drop)
        .unwrap_err();
    assert_eq!(denied.subject, Subject::Ve);
    assert_eq!(engine.reserved().space, Bytes::new(10));
}

#[test]
fn the_first_level_demands_soft_up_to_hard() {
    let (engine, _) = engine();
    limit(&engine, Subject::Ve, Some(5), Some(9));
    let bad = LimitsChange {
        space_soft: quota::Setting::To(Bytes::new(10)),
        ..LimitsChange::default()
    };
    let error = engine.set_limits(Subject::Ve, &bad).unwrap_err();
    let expected = quota::EngineError::SoftAboveHard {
        resource: Resource::Space,
        soft: 10,
        hard: 9,
    };
    assert_eq!(error.to_string(), expected.to_string());
    assert_eq!(
        engine.account(Subject::Ve).unwrap().limits.space.soft,
        Some(Bytes::new(5))
    );
}

#[test]
fn a_promise_can_be_kept_in_part_and_joined_with_another() {
    let (engine, _) = engine();
    let want = |n| Want::new(OWNER, Usage::space(Bytes::new(n)));
    let mut first = engine.reserve(&[], &[want(10)], &|| false).unwrap();
    first.settle_part(&[want(4)], &[]);
    assert_eq!(first.reserved(), want(4).usage);
    let second = engine.reserve(&[], &[want(3)], &|| false).unwrap();
    first.merge(second);
    assert_eq!(
        (first.reserved(), engine.reserved()),
        (want(7).usage, want(7).usage)
    );
    drop(first);
    assert_eq!(engine.reserved(), Usage::ZERO);
}

#[test]
fn the_clock_is_the_engines() {
    let (engine, clock) = engine();
    clock.advance(5);
    assert_eq!(clock.now(), Timestamp::new(START + 5));
    assert_eq!(engine.info().created, Timestamp::new(START));
}
