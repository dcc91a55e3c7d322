//! The quota engine alone: one promise and its settlement on three accounts with limits, in nanoseconds.
//!
//! `cargo bench -p simfs-bench --bench engine`

use std::io::Write;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Change, Charged, Engine, Environment, InodeId, Inodes, Limit, Limits, LimitsChange,
    Owner, Setup, Subject, Uid, Usage, VeId, Want,
};

/// Promises of one measurement.
const COUNT: u32 = 200_000;
/// Measurements; the middle one is shown, with the ends.
const ROUNDS: usize = 7;
const VE: u32 = 101;
const USERS: [u32; 2] = [1000, 1001];
/// More than is ever asked for.
const PLENTY: u64 = 1 << 50;

fn main() -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "reserve + settle of one 4 KiB block, VE + user + group, limits on VE and users"
    )?;
    for (name, threads) in [("1 thread", 1), ("2 threads, different users", 2)] {
        let mut figures = Vec::new();
        for _ in 0..ROUNDS {
            figures.push(measure(threads)?);
        }
        figures.sort_by(f64::total_cmp);
        let (low, high) = (
            figures.first().context("none")?,
            figures.last().context("none")?,
        );
        let middle = figures.get(ROUNDS / 2).context("none")?;
        writeln!(out, "{name:28} {middle:7.0} ns each ({low:.0}-{high:.0})")?;
    }
    Ok(())
}

/// Nanoseconds that a promise takes a thread, where so many work at once.
fn measure(threads: usize) -> Result<f64> {
    let engine = engine()?;
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let workers: Vec<_> = USERS
            .iter()
            .take(threads)
            .map(|user| {
                let (engine, start) = (&engine, &start);
                scope.spawn(move || {
                    start.wait();
                    write_blocks(engine, *user)
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

fn engine() -> Result<Engine> {
    let limits = Limits {
        space: Limit {
            soft: Some(Bytes::new(PLENTY)),
            hard: Some(Bytes::new(PLENTY)),
        },
        inodes: Limit {
            soft: Some(Inodes::new(PLENTY)),
            hard: Some(Inodes::new(PLENTY)),
        },
    };
    let ve = VeId::new(VE);
    let setup = Setup {
        limits,
        ..Setup::new(ve, "/private")
    };
    let engine = Engine::create(Arc::new(MemoryStore::new()), Environment::default(), setup)?;
    for user in USERS {
        let _changed =
            engine.set_limits(Subject::User(Uid::new(user)), &LimitsChange::to(limits))?;
    }
    Ok(engine)
}

fn write_blocks(engine: &Engine, user: u32) -> Result<f64> {
    let owner = Owner::new(user, user);
    let inode = InodeId::new(u64::from(user), 1, &user.to_ne_bytes());
    let block = Bytes::new(4096);
    let mut charged = Charged {
        owner,
        usage: Usage::ZERO,
    };
    let start = Instant::now();
    for _ in 0..COUNT {
        let promise = engine
            .reserve(
                &[(inode, Some(charged))],
                &[Want::new(owner, Usage::space(block))],
                &|| false,
            )
            .map_err(|denied| anyhow!("{denied}"))?;
        let mut after = charged;
        after.usage.space = after.usage.space.saturating_add(block);
        promise.settle(&[Change {
            inode,
            before: Some(charged),
            after: Some(after),
        }]);
        charged = after;
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(COUNT))
}
