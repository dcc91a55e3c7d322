//! An engine to measure, and a writer that grows one file of one user.

use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use quota::journal::Identity;
use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Change, Charged, Engine, Environment, FileJournal, InodeId, Inodes, Limit, Limits,
    LimitsChange, Owner, Setup, Subject, Uid, Usage, VeId, Want,
};
use rustix::time::{ClockId, clock_gettime};

/// More than is ever asked for.
const PLENTY: u64 = 1 << 50;
/// What each step adds.
pub(crate) const BLOCK: u64 = 4096;
const VE: u32 = 101;

/// Limits that nobody comes near to.
pub(crate) fn far() -> Limits {
    Limits {
        space: Limit::new(Some(Bytes::new(PLENTY)), Some(Bytes::new(PLENTY))),
        inodes: Limit::new(Some(Inodes::new(PLENTY)), Some(Inodes::new(PLENTY))),
    }
}

/// An engine without a journal, limits on the VE.
pub(crate) fn engine(limits: Limits) -> Result<Engine> {
    let setup = Setup {
        limits,
        ..Setup::new(VeId::new(VE), "/private")
    };
    let engine = Engine::create(Arc::new(MemoryStore::new()), Environment::default(), setup)?;
    for user in 0..4 {
        let subject = Subject::User(Uid::new(user));
        let _changed = engine.set_limits(subject, &LimitsChange::to(far()))?;
    }
    Ok(engine)
}

/// An engine in service, with its journal in this directory.
pub(crate) fn journaled(dir: &Path) -> Result<Engine> {
    let store = Arc::new(MemoryStore::new());
    let setup = Setup::new(VeId::new(VE), "/private");
    drop(Engine::create(
        store.clone(),
        Environment::default(),
        setup,
    )?);
    let identity = Identity {
        ve: VeId::new(VE),
        boot: "bench".into(),
        session: 1,
    };
    let journal = FileJournal::create(&dir.join("journal"), identity)?;
    let engine = Engine::open_journaled(store, Environment::default(), Arc::new(journal))?;
    engine.begin_service(1, false)?;
    Ok(engine)
}

/// The inode of this number, with a kernel handle as ext4 gives it.
pub(crate) fn inode(number: u64) -> InodeId {
    InodeId::new(number, 1, &number.to_ne_bytes())
}

/// A file that grows.
pub(crate) struct Writer<'a> {
    engine: &'a Engine,
    inode: InodeId,
    charged: Charged,
}

impl<'a> Writer<'a> {
    /// A file of this user and group, empty.
    pub(crate) fn new(engine: &'a Engine, number: u64, owner: Owner) -> Self {
        Self {
            engine,
            inode: inode(number),
            charged: Charged {
                owner,
                usage: Usage::ZERO,
            },
        }
    }

    /// Promises as many bytes and settles with a block.
    pub(crate) fn write(&mut self, promised: u64) -> Result<()> {
        let want = [Want::new(
            self.charged.owner,
            Usage::space(Bytes::new(promised)),
        )];
        let touched = [(self.inode, Some(self.charged))];
        let promise = self
            .engine
            .reserve(&touched, &want, &|| false)
            .map_err(|denied| anyhow!("{denied}"))?;
        let change = self.resized(BLOCK);
        promise.settle(&[change]);
        Ok(())
    }

    /// Grows by a block without asking, and loses it again: two steps.
    pub(crate) fn grow_and_shrink(&mut self) {
        let change = self.resized(BLOCK);
        self.engine.record(&[change]);
        let back = Change {
            before: change.after,
            after: change.before,
            ..change
        };
        self.engine.record(&[back]);
        self.charged.usage.space = self.charged.usage.space.saturating_sub(Bytes::new(BLOCK));
    }

    fn resized(&mut self, by: u64) -> Change {
        let before = Some(self.charged);
        self.charged.usage.space = self.charged.usage.space.saturating_add(Bytes::new(by));
        Change {
            inode: self.inode,
            before,
            after: Some(self.charged),
        }
    }
}

/// Nanoseconds of each of so many steps, where these threads work at once; of the slowest thread. For a thread alone it is
/// the processor's time, which other programs do not disturb; for several the clock's, which has the waiting in it.
pub(crate) fn nanoseconds(
    threads: u32,
    steps: u32,
    work: impl Fn(u32, u32) -> Result<()> + Sync,
) -> Result<f64> {
    let start = Barrier::new(usize::try_from(threads)?);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    start.wait();
                    let (begun, began) = (Instant::now(), processor_time()?);
                    work(thread, steps)?;
                    let took = match threads {
                        1 => processor_time()?.saturating_sub(began),
                        _ => begun.elapsed(),
                    };
                    anyhow::Ok(took.as_secs_f64() * 1e9 / f64::from(steps))
                })
            })
            .collect();
        let mut slowest = 0.0_f64;
        for worker in workers {
            slowest = slowest.max(worker.join().map_err(|_| anyhow!("a worker panicked"))??);
        }
        Ok(slowest)
    })
}

fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::ThreadCPUTime).try_into()?)
}
