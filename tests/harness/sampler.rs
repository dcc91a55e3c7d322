//! Watches what a private area occupies while others work on it.
//!
//! A walk that adds up files is no snapshot: it can count one file before it shrinks and another after it grew into
//! the room. The file system's own count of free blocks is one number at one moment, so the private area must be
//! alone on its file system.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::fs::statvfs;

/// Asks a file system again and again how much of it is used, until stopped.
#[derive(Debug)]
pub(crate) struct Sampler {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<(u64, u64)>>,
}

/// Bytes in use.
pub(crate) fn used(file_system: &Path) -> u64 {
    let figures = statvfs(file_system).expect("statvfs");
    (figures.f_blocks - figures.f_bfree) * figures.f_frsize
}

impl Sampler {
    pub(crate) fn start(file_system: &Path) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (place, seen): (PathBuf, _) = (file_system.to_owned(), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let (mut most, mut samples) = (0, 0);
            while !seen.load(Ordering::Relaxed) {
                most = most.max(used(&place));
                samples += 1;
                // Two processors are shared with the workers.
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            (most, samples)
        });
        Self {
            ended,
            thread: Some(thread),
        }
    }

    /// The most bytes in use at one moment, and the number of samples.
    pub(crate) fn stop(mut self) -> (u64, u64) {
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
