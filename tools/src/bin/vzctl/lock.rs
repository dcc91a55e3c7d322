//! One command at a time on a VE.
//!
//! The kernel holds the lock, so a command that is killed leaves none. The file says who holds it: process number and
//! what it does.
//!
//! # Source
//! vzctl `src/lib/lock.c` for the file's place and content; flock(2).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use quota::VeId;
use rustix::fs::{FlockOperation, flock};
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::paths::Paths;

use crate::Fallible;

/// Held until dropped.
pub(crate) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Takes the VE's lock for a command that does `what`.
    ///
    /// # Errors
    /// `Locked` when another command has it.
    pub(crate) fn take(paths: &Paths, ve: VeId, what: &str) -> Fallible<Self> {
        let dir = paths.lock_dir();
        let path = dir.join(format!("{ve}.lck"));
        let system = |error: io::Error| {
            Failure::new(VzctlExit::System, format!("{}: {error}", path.display()))
        };
        fs::create_dir_all(&dir).map_err(system)?;
        loop {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(system)?;
            if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
                return Err(held(&path, error.into()));
            }
            // The holder before may have removed the file between the two calls.
            if is_same(&file, &path) {
                let pid = std::process::id();
                file.set_len(0).map_err(system)?;
                write!(file, "{pid}\n{what}\n").map_err(system)?;
                return Ok(Self { path, file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _stays_without_harm = fs::remove_file(&self.path);
        let _closed_in_any_case = flock(&self.file, FlockOperation::Unlock);
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(open), Ok(named)) => open.dev() == named.dev() && open.ino() == named.ino(),
        _ => false,
    }
}

fn held(path: &Path, error: io::Error) -> Failure<VzctlExit> {
    if error.kind() != io::ErrorKind::WouldBlock {
        return Failure::new(VzctlExit::System, format!("{}: {error}", path.display()));
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    let holder = match (lines.next(), lines.next()) {
        (Some(pid), Some(what)) => format!("process {pid}, {what}"),
        _ => "another command".into(),
    };
    Failure::new(
        VzctlExit::Locked,
        format!("locked by {holder}: wait for it to end"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_left() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::open(Some(dir.path())).unwrap();
        let ve = VeId::new(101);
        let lock = Lock::take(&paths, ve, "starting").unwrap();
        let refused = Lock::take(&paths, ve, "stopping").map(|_| ()).unwrap_err();
        assert_eq!(refused.exit, VzctlExit::Locked);
        assert!(refused.message.contains("starting"), "{}", refused.message);
        Lock::take(&paths, VeId::new(102), "starting").unwrap();
        drop(lock);
        assert!(!paths.lock_dir().join("101.lck").exists());
        // What a killed command leaves is a file that nobody holds.
        fs::write(paths.lock_dir().join("101.lck"), "1\nstarting\n").unwrap();
        Lock::take(&paths, ve, "stopping").unwrap();
    }
}
