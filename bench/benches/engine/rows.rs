//! What is measured in nanoseconds: one row each.

use anyhow::{Context, Result};
use quota::{Bytes, Limit, Limits, Owner};

use super::bench::{BLOCK, Writer, engine, far, journaled, nanoseconds};

const STEPS: u32 = 100_000;
const IDS: u32 = 100_000;

/// One row.
pub(crate) struct Row {
    /// What is done.
    pub(crate) name: &'static str,
    /// Nanoseconds of each step.
    pub(crate) measure: fn() -> Result<f64>,
}

/// All of them.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "reserve and settle, 1 thread",
        measure: || write(1, |thread| Owner::new(thread, thread), BLOCK),
    },
    Row {
        name: "reserve the worst case and settle less, 1 thread",
        measure: || write(1, |thread| Owner::new(thread, thread), 4 * BLOCK),
    },
    Row {
        name: "reserve and settle, 2 threads, different users",
        measure: || write(2, |thread| Owner::new(thread, thread), BLOCK),
    },
    Row {
        name: "reserve and settle, 2 threads, one user",
        measure: || write(2, |_| Owner::new(0, 0), BLOCK),
    },
    Row {
        name: "reserve and settle, 4 threads, different users",
        measure: || write(4, |thread| Owner::new(thread, thread), BLOCK),
    },
    Row {
        name: "record growth and its return (2 steps), 1 thread",
        measure: grow_and_shrink,
    },
    Row {
        name: "reserve and settle above a soft limit, 1 thread",
        measure: above_soft,
    },
    Row {
        name: "reserve and settle, 100000 users in turn, 1 thread",
        measure: many_ids,
    },
    Row {
        name: "reserve and settle, journal, 1 thread",
        measure: || with_journal(1),
    },
    Row {
        name: "reserve and settle, journal, 2 threads",
        measure: || with_journal(2),
    },
];

fn write(threads: u32, owner: fn(u32) -> Owner, promised: u64) -> Result<f64> {
    let engine = engine(far())?;
    nanoseconds(threads, STEPS, |thread, steps| {
        let mut writer = Writer::new(&engine, u64::from(thread), owner(thread));
        (0..steps).try_for_each(|_| writer.write(promised))
    })
}

fn grow_and_shrink() -> Result<f64> {
    let engine = engine(far())?;
    nanoseconds(1, STEPS, |_, steps| {
        let mut writer = Writer::new(&engine, 1, Owner::new(0, 0));
        (0..steps).for_each(|_| writer.grow_and_shrink());
        Ok(())
    })
}

/// The timer runs: every step has to look at the rules.
fn above_soft() -> Result<f64> {
    let space = Limit::new(Some(Bytes::new(1)), Some(Bytes::new(1 << 50)));
    let engine = engine(Limits { space, ..far() })?;
    nanoseconds(1, STEPS, |_, steps| {
        let mut writer = Writer::new(&engine, 1, Owner::new(0, 0));
        (0..steps).try_for_each(|_| writer.write(BLOCK))
    })
}

/// No account is the one of the step before.
fn many_ids() -> Result<f64> {
    let engine = engine(far())?;
    let mut writers: Vec<_> = (0..IDS)
        .map(|id| Writer::new(&engine, u64::from(id), Owner::new(id, id)))
        .collect();
    writers
        .iter_mut()
        .try_for_each(|writer| writer.write(BLOCK))?;
    let writers = std::sync::Mutex::new(writers);
    nanoseconds(1, IDS, |_, _| {
        let mut writers = writers.lock().ok().context("poisoned")?;
        // In no order that a cache could foresee.
        let count = u64::try_from(writers.len())?;
        (0..count).try_for_each(|step| {
            let at = usize::try_from(step * 61_803 % count)?;
            writers.get_mut(at).context("none")?.write(BLOCK)
        })
    })
}

fn with_journal(threads: u32) -> Result<f64> {
    let dir = tempfile::tempdir_in("/dev/shm")?;
    let engine = journaled(dir.path())?;
    nanoseconds(threads, STEPS, |thread, steps| {
        let owner = Owner::new(thread, thread);
        let mut writer = Writer::new(&engine, u64::from(thread), owner);
        (0..steps).try_for_each(|_| writer.write(BLOCK))
    })
}

/// What 100,000 users with their groups need in memory, each of the 200,000 accounts.
pub(crate) fn bytes_per_account() -> Result<f64> {
    let engine = engine(far())?;
    let before = resident_kib()?;
    for id in 10..IDS {
        Writer::new(&engine, u64::from(id), Owner::new(id, id)).write(BLOCK)?;
    }
    let kib = resident_kib()?.saturating_sub(before);
    Ok(f64::from(kib) * 1024.0 / f64::from(2 * (IDS - 10)))
}

fn resident_kib() -> Result<u32> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let figure = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(figure.context("no VmRSS")?.parse()?)
}
