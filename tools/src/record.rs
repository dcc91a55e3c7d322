//! Making and removing a VE's quota store.
//!
//! Invariants:
//! 1. At any instant, also after a power loss, the VE has its old store, its new one or none; never half of one.
//! 2. A store that somebody uses is neither replaced nor removed.
//! 3. A new store that cannot be made leaves the old one as it was.
//!
//! A new store is built beside its place and renamed into it. What an interrupted command leaves beside is removed by
//! the next.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quota::store::{self, DiskStore, StoreError};
use quota::{Engine, EngineError, Setup, VeId};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use crate::paths::Paths;
use crate::ve_handle::{VeError, environment, store_failure};

/// Whether the VE has a store, in whatever condition.
pub fn exists(paths: &Paths, ve: VeId) -> bool {
    paths.state_dir(ve).symlink_metadata().is_ok()
}

/// Makes the VE's store, in place of the one it has.
///
/// # Errors
/// `Held` when the old one is in use; else what the system or the database says.
pub fn replace(paths: &Paths, setup: Setup) -> Result<(), VeError> {
    let ve = setup.ve;
    let dir = paths.state_dir(ve);
    let states = Stores::lock(paths).map_err(|error| failed(&dir, error))?;
    let fresh = states.beside(ve);
    remove_tree(&fresh).map_err(|error| failed(&fresh, error))?;
    DiskStore::create(&fresh, ve)
        .map_err(EngineError::Store)
        .and_then(|store| Engine::create(Arc::new(store), environment(), setup))
        .map_err(|error| store_failure(ve, &fresh, error))?;
    match store::when_free(|| DiskStore::remove(&dir, ve)) {
        Ok(()) | Err(StoreError::Missing { .. }) => {}
        Err(error) => return Err(store_failure(ve, &dir, error.into())),
    }
    // What is left of a store that was mended once keeps its directory.
    let how = if exists(paths, ve) {
        RenameFlags::EXCHANGE
    } else {
        RenameFlags::NOREPLACE
    };
    renameat_with(CWD, &fresh, CWD, &dir, how).map_err(|error| failed(&dir, error.into()))?;
    states
        .sync()
        .and_then(|()| remove_tree(&fresh))
        .map_err(|error| failed(&dir, error))
}

/// Removes the VE's store.
///
/// # Errors
/// `NoRecord` when it has none, `Held` when it is in use.
pub fn remove(paths: &Paths, ve: VeId) -> Result<(), VeError> {
    let dir = paths.state_dir(ve);
    if !exists(paths, ve) {
        return Err(VeError::NoRecord { ve });
    }
    let states = Stores::lock(paths).map_err(|error| failed(&dir, error))?;
    remove_tree(&states.beside(ve)).map_err(|error| failed(&dir, error))?;
    store::when_free(|| DiskStore::remove(&dir, ve))
        .map_err(|error| store_failure(ve, &dir, error.into()))?;
    states.sync().map_err(|error| failed(&dir, error))
}

/// The directory of all stores, locked against other commands that make or remove one.
struct Stores {
    path: PathBuf,
    dir: File,
}

impl Stores {
    fn lock(paths: &Paths) -> io::Result<Self> {
        let path = paths.states();
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        let dir = File::open(&path)?;
        flock(&dir, FlockOperation::LockExclusive)?;
        Ok(Self { path, dir })
    }

    /// Where a store is while it is made; no VE's number begins with a dot.
    fn beside(&self, ve: VeId) -> PathBuf {
        self.path.join(format!(".{ve}.new"))
    }

    fn sync(&self) -> io::Result<()> {
        self.dir.sync_all()
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn failed(dir: &Path, source: io::Error) -> VeError {
    let error = StoreError::Io {
        op: "replace",
        path: dir.into(),
        source,
    };
    VeError::Store {
        error: error.into(),
    }
}
