//! Watches what a private area occupies while others work on it.
//!
//! A walk that adds up files is no snapshot: it can count one file before it shrinks and another after it grew into
//! the room. So the daemon, which makes every change, is stopped for the time of each walk. The file system's own count
//! of free blocks would not do: while ext4 writes a plain 4 MiB file out, it shows up to 6 MiB in use.
//!
//! The kernel goes on writing out meanwhile, and what it says of one inode is not always whole: xfs adds blocks to the
//! inode and takes them from its delayed ones in two steps (`xfs_bmap_alloc_account`), which stat(2) reads without a
//! lock. So the tree is counted until two counts in a row agree.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::figures::{Amount, count};

/// Counts a tree again and again until stopped.
#[derive(Debug)]
pub(crate) struct Sampler {
    ended: Arc<AtomicBool>,
    samples: Arc<AtomicU64>,
    thread: Option<JoinHandle<Amount>>,
}

impl Sampler {
    /// Counts `tree`, which the process `daemon` alone changes.
    pub(crate) fn start(tree: &Path, daemon: u32) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let samples = Arc::new(AtomicU64::new(0));
        let tree = tree.to_owned();
        let (seen, taken) = (Arc::clone(&ended), Arc::clone(&samples));
        let thread = std::thread::spawn(move || {
            let mut most = Amount::default();
            while !seen.load(Ordering::Relaxed) {
                let now = while_stopped(daemon, || steady(&tree));
                most.space = most.space.max(now.space);
                most.inodes = most.inodes.max(now.inodes);
                taken.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(5));
            }
            most
        });
        Self {
            ended,
            samples,
            thread: Some(thread),
        }
    }

    /// How often the tree was counted until now.
    pub(crate) fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// The most of each amount at one moment.
    pub(crate) fn stop(mut self) -> Amount {
        self.ended.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .expect("stopped once")
            .join()
            .expect("sampler")
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Counts until the kernel changes nothing any more.
fn steady(tree: &Path) -> Amount {
    let mut before = count(tree).ve;
    loop {
        let now = count(tree).ve;
        if now == before {
            return now;
        }
        before = now;
    }
}

/// Runs `look` while no thread of a process does anything.
fn while_stopped<T>(process: u32, look: impl FnOnce() -> T) -> T {
    let pid = i32::try_from(process)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    kill_process(pid, Signal::STOP).expect("stop the daemon");
    while !is_stopped(process) {
        sleep(Duration::from_micros(100));
    }
    let seen = look();
    kill_process(pid, Signal::CONT).expect("continue the daemon");
    seen
}

/// Whether every thread is stopped: system calls that were under way are done then.
pub(crate) fn is_stopped(process: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("threads");
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
    })
}
