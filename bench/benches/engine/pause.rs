//! How long a writer waits while totals are committed: every write of one thread is timed, while another commits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use quota::{Bytes, Change, Charged, Engine, Owner, Usage};

use super::bench::{BLOCK, Writer, inode, journaled};

const COMMITS: u32 = 20;

/// What the VE is busy with.
pub(crate) struct Scene {
    /// In words.
    pub(crate) name: &'static str,
    /// Files that may change by themselves: a commit carries each over to the next journal.
    watched: u32,
    /// Accounts that change between two commits.
    accounts: u32,
}

/// All of them.
pub(crate) const SCENES: &[Scene] = &[
    Scene {
        name: "200000 watched files",
        watched: 200_000,
        accounts: 1,
    },
    Scene {
        name: "200000 changed accounts",
        watched: 0,
        accounts: 100_000,
    },
];

/// The longest wait of each commit, in one line: of the best, the middle and the worst commit. On a busy machine a wait may be
/// for the processor; then the best is the one to look at.
pub(crate) fn measure(scene: &Scene) -> Result<String> {
    let dir = tempfile::tempdir_in("/dev/shm")?;
    let engine = journaled(dir.path())?;
    let _watches: Vec<_> = (0..u64::from(scene.watched))
        .map(|number| engine.watch(inode(1_000_000 + number), None))
        .collect();
    let committing = AtomicU32::new(0);
    let mut took = Duration::ZERO;
    let waits = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&engine, &committing));
        let commits = (1..=COMMITS).try_for_each(|round| {
            change(&engine, scene.accounts, round);
            let begun = Instant::now();
            committing.store(round, Ordering::Release);
            engine.commit()?;
            committing.store(0, Ordering::Release);
            took += begun.elapsed();
            anyhow::Ok(())
        });
        committing.store(u32::MAX, Ordering::Release);
        let waits = writer.join().map_err(|_| anyhow!("the writer panicked"))?;
        commits.and(waits)
    })?;
    let mut longest: Vec<_> = waits.into_values().collect();
    longest.sort_unstable();
    let of = |wait: Option<&Duration>| wait.map_or(0.0, |wait| wait.as_secs_f64() * 1e6);
    Ok(format!(
        "longest wait {:.0} us in the best commit, {:.0} us in the middle one, {:.0} us in the worst; a commit takes {:.1} ms",
        of(longest.first()),
        of(longest.get(longest.len() / 2)),
        of(longest.last()),
        took.as_secs_f64() * 1e3 / f64::from(COMMITS)
    ))
}

/// Writes until the end; returns the longest wait of each commit.
fn write(engine: &Engine, committing: &AtomicU32) -> Result<BTreeMap<u32, Duration>> {
    let mut writer = Writer::new(engine, 1, Owner::new(1, 1));
    let mut waits: BTreeMap<u32, Duration> = BTreeMap::new();
    loop {
        let before = committing.load(Ordering::Acquire);
        if before == u32::MAX {
            return Ok(waits);
        }
        let begun = Instant::now();
        writer.write(BLOCK)?;
        let took = begun.elapsed();
        // One that began before the commit or ended after it may have waited for it, too.
        let commit = before.max(committing.load(Ordering::Acquire));
        if (1..=COMMITS).contains(&commit) {
            let longest = waits.entry(commit).or_default();
            *longest = took.max(*longest);
        }
    }
}

/// Each account gets one more inode.
fn change(engine: &Engine, accounts: u32, round: u32) {
    for id in 0..accounts {
        let after = Some(Charged {
            owner: Owner::new(id, id),
            usage: Usage::inode(Bytes::new(BLOCK)),
        });
        let number = u64::from(round) << 32 | u64::from(id);
        let change = Change {
            inode: inode(number),
            before: None,
            after,
        };
        engine.record(&[change]);
    }
}
