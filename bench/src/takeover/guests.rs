//! Programs in the VE that must not notice anything: those whose waits are measured, and those that make load.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::crowd::{CrowdedVe, place};

/// Guests whose waits are measured.
pub(super) const READERS: u32 = 2;
/// Guests that make load.
pub(super) const WRITERS: u32 = 4;
/// From one file to the next: prime, so that all of the tree is visited, and far, so that neighbours are not.
const STRIDE: u32 = 7_919;

/// Asks the daemon for each file, whatever the kernel knows of it.
pub(super) fn ask_for_all(ve: &CrowdedVe<'_>) -> Result<()> {
    let ask = |first: u32| -> Result<()> {
        let step = usize::try_from(READERS)?;
        for file in (first..ve.files).step_by(step) {
            let path = ve.path(file);
            let flags = AtFlags::STATX_FORCE_SYNC;
            statx(CWD, &path, flags, StatxFlags::BASIC_STATS).with_context(|| said_of(&path))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let parts: Vec<_> = (0..READERS).map(|n| scope.spawn(move || ask(n))).collect();
        parts.into_iter().try_for_each(|part| joined(part.join()))
    })
}

/// Guests at work; ended by drop.
pub(super) struct Guests {
    ended: Arc<AtomicBool>,
    readers: Vec<JoinHandle<Result<Duration>>>,
    writers: Vec<JoinHandle<Result<()>>>,
}

impl Guests {
    /// Starts those that are measured, and with `load` the others.
    pub(super) fn start(ve: &CrowdedVe<'_>, load: bool) -> Result<Self> {
        let mut guests = Self {
            ended: Arc::default(),
            readers: Vec::new(),
            writers: Vec::new(),
        };
        for number in 0..READERS {
            let paths = Paths {
                root: ve.root.clone(),
                files: ve.files,
                next: number.wrapping_mul(STRIDE / 2),
            };
            let ended = Arc::clone(&guests.ended);
            guests
                .readers
                .push(thread::spawn(move || read(paths, &ended)));
        }
        for number in 0..if load { WRITERS } else { 0 } {
            let dir = ve.root.join(format!("load-{number}"));
            std::fs::create_dir_all(&dir)?;
            let ended = Arc::clone(&guests.ended);
            guests
                .writers
                .push(thread::spawn(move || write(&dir, &ended)));
        }
        Ok(guests)
    }

    /// Ends them; how long one waited at most.
    ///
    /// # Errors
    /// What one of them was told: then the takeover was seen.
    pub(super) fn end(mut self) -> Result<Duration> {
        self.ended.store(true, Ordering::Relaxed);
        for writer in std::mem::take(&mut self.writers) {
            joined(writer.join())?;
        }
        let mut longest = Duration::ZERO;
        for reader in std::mem::take(&mut self.readers) {
            longest = longest.max(joined(reader.join())?);
        }
        Ok(longest)
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn joined<T>(result: thread::Result<Result<T>>) -> Result<T> {
    result.map_err(|_| anyhow!("a guest panicked"))?
}

/// The files of the tree, one far from the other.
struct Paths {
    root: PathBuf,
    files: u32,
    next: u32,
}

impl Paths {
    fn next(&mut self) -> PathBuf {
        self.next = self.next.wrapping_add(STRIDE);
        self.root.join(place(self.next % self.files.max(1)))
    }
}

/// Opens and closes files; how long one of them took at most.
fn read(mut paths: Paths, ended: &AtomicBool) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    while !ended.load(Ordering::Relaxed) {
        let path = paths.next();
        let start = Instant::now();
        drop(File::open(&path).with_context(|| said_of(&path))?);
        longest = longest.max(start.elapsed());
    }
    Ok(longest)
}

/// Makes, fills, renames and removes files.
fn write(dir: &Path, ended: &AtomicBool) -> Result<()> {
    let data = vec![7; 64 * 1024];
    let (made, kept) = (dir.join("made"), dir.join("kept"));
    while !ended.load(Ordering::Relaxed) {
        let mut file = File::create_new(&made).with_context(|| said_of(&made))?;
        file.write_all(&data).with_context(|| said_of(&made))?;
        drop(file);
        std::fs::rename(&made, &kept).with_context(|| said_of(&kept))?;
        std::fs::remove_file(&kept).with_context(|| said_of(&kept))?;
    }
    Ok(())
}

fn said_of(path: &Path) -> String {
    format!("a guest was told of {}", path.display())
}
