//! Many threads at the limit: nobody ever sees more than the limit, and the sums agree at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Change, Charged, Engine, Environment, InodeId, Inodes, Limit, Limits, LimitsChange,
    Owner, Setup, Subject, Tally, Uid, Usage, VeId, Want,
};

use super::{Finish, add, assert_sums, dice};

const THREADS: u32 = 8;
const ROUNDS: u64 = 4_000;
/// Less than the threads would take together, so that refusals happen all the while.
const VE_HARD: u64 = 300;
const USER_HARD: u64 = 90;

fn hard(space: u64, inodes: u64) -> LimitsChange {
    LimitsChange::to(Limits {
        space: Limit::new(None, Some(Bytes::new(space))),
        inodes: Limit::new(None, Some(Inodes::new(inodes))),
    })
}

fn start() -> (Arc<MemoryStore>, Engine) {
    let store = Arc::new(MemoryStore::new());
    let setup = Setup::new(VeId::new(1), "/private");
    let engine = Engine::create(store.clone(), Environment::default(), setup).unwrap();
    let _ = engine.set_limits(Subject::Ve, &hard(VE_HARD, 60)).unwrap();
    for uid in 0..THREADS / 2 {
        let user = Subject::User(Uid::new(uid));
        let _ = engine.set_limits(user, &hard(USER_HARD, 60)).unwrap();
    }
    (store, engine)
}

/// Creates, grows, shrinks, gives away and removes its own inodes. Returns what is left of them.
fn work(engine: &Engine, thread: u32, granted: &AtomicU64, refused: &AtomicU64) -> Tally {
    let seed = &mut (u64::from(thread) + 1);
    let mut inodes: [Option<Charged>; 6] = [None; 6];
    for round in 0..ROUNDS {
        let at = usize::try_from(dice(seed, 6)).unwrap();
        let uid = u32::try_from(dice(seed, u64::from(THREADS / 2))).unwrap();
        let owner = Owner::new(uid, uid % 2);
        let ino = InodeId::new(u64::from(thread) << 32 | round, 0, &[]);
        let before = inodes[at];
        if dice(seed, 3) == 0 {
            engine.record(&[Change {
                inode: ino,
                before,
                after: None,
            }]);
            inodes[at] = None;
            continue;
        }
        // Asks for the whole new inode, although the old one's place becomes free.
        let asked = Usage::inode(Bytes::new(dice(seed, 40)));
        match engine.reserve(&[(ino, before)], &[Want::new(owner, asked)], &|| false) {
            Ok(promise) if dice(seed, 4) == 0 => drop(promise),
            Ok(promise) => {
                let usage = Usage::inode(Bytes::new(dice(seed, asked.space.get() + 1)));
                let after = Some(Charged { owner, usage });
                promise.settle(&[Change {
                    inode: ino,
                    before,
                    after,
                }]);
                inodes[at] = after;
                granted.fetch_add(1, Ordering::Relaxed);
            }
            Err(denied) => {
                assert!(denied.used <= denied.limit, "{denied}");
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    let mut left = Tally::default();
    inodes
        .iter()
        .flatten()
        .for_each(|held| left.add(held.owner, held.usage));
    left
}

/// Looks at every limited account until the work is done, and once more then.
fn watch(engine: &Engine, done: &AtomicBool) {
    loop {
        let is_done = done.load(Ordering::Relaxed);
        let users = (0..THREADS / 2).map(|uid| Subject::User(Uid::new(uid)));
        for subject in [Subject::Ve].into_iter().chain(users) {
            let account = engine.account(subject).unwrap();
            let held = account.usage.saturating_add(account.reserved);
            let hard = account.limits.space.hard.unwrap();
            assert!(
                held.space <= hard && held.inodes <= Inodes::new(60),
                "{account:?}"
            );
        }
        if is_done {
            return;
        }
    }
}

/// Commits all the while; what a crash would leave adds up at every moment.
fn commit(engine: &Engine, store: &MemoryStore, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        engine.commit().unwrap();
        let after = Arc::new(store.crash());
        let tally = Engine::open(after, Environment::default())
            .unwrap()
            .tally()
            .unwrap();
        assert_sums(&tally);
        assert!(tally.ve.space <= Bytes::new(VE_HARD));
    }
}

#[test]
fn used_and_reserved_never_pass_the_limit_and_the_sums_agree() {
    let (store, engine) = start();
    let done = AtomicBool::new(false);
    let (granted, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut expected = Tally::default();
    std::thread::scope(|scope| {
        let finish = Finish(&done);
        scope.spawn(|| watch(&engine, &done));
        scope.spawn(|| commit(&engine, &store, &done));
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let (engine, granted, refused) = (&engine, &granted, &refused);
                    move || work(engine, thread, granted, refused)
                })
            })
            .collect();
        for worker in workers {
            add(&mut expected, &worker.join().unwrap());
        }
        drop(finish);
    });
    // How the threads take turns is not ours to say; both must have happened.
    assert!(granted.into_inner() > 100 && refused.into_inner() > 100);
    assert_eq!(engine.reserved(), Usage::ZERO);
    assert_eq!(engine.invariant_violations(), 0);
    assert_sums(&expected);
    assert_eq!(engine.tally().unwrap().differences(&expected), []);
    engine.commit().unwrap();
    let reopened = Engine::open(Arc::new(store.crash()), Environment::default()).unwrap();
    assert_eq!(reopened.tally().unwrap().differences(&expected), []);
}
