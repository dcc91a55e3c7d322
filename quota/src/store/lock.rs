//! The lock of a store's directory: whoever holds it may open the database.
//!
//! The lock ends with the descriptor, so a killed process holds none.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::StoreError;

const FILE: &str = "lock";

/// The held lock.
#[derive(Debug)]
pub(super) struct DirLock {
    path: PathBuf,
    _file: File,
}

impl DirLock {
    /// Takes the lock of an existing directory, at once or not at all.
    ///
    /// A process that removes the store removes the lock file too: whoever then got the lock of the removed file
    /// has nothing, and tries again.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        loop {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|error| StoreError::io("open", &path, error))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_same(&file, &path) => return Ok(Self { path, _file: file }),
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(StoreError::Held {
                        dir: dir.to_path_buf(),
                    });
                }
                Err(error) => return Err(StoreError::io("lock", &path, error.into())),
            }
        }
    }

    /// Removes the lock file while it is held.
    pub(super) fn remove(self) -> Result<(), StoreError> {
        fs::remove_file(&self.path).map_err(|error| StoreError::io("remove", &self.path, error))
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}
