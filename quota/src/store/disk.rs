//! The store of one VE on disk.
//!
//! ```text
//! DIR/lock         held while the store is open
//! DIR/identity     says that there must be a database, and whose
//! DIR/quota.redb   the database
//! DIR/*.copy       readable copy of settings and limits, see `copy`
//! ```
//! Invariants:
//! 1. A store that another process holds is an error at once, never a wait.
//! 2. The identity is written last and removed first: a database alone is a creation or a removal that was
//!    interrupted, and counts as no store. A copy of limits without identity is damage.
//! 3. After an error the handle is given up; the next call opens the database again, later ones only after a pause
//!    that doubles with each failure. What is read afterwards is the durable state, also where it cannot be opened for writing.
//! 4. Every call ends: within the time limit, or with [`StoreError::Timeout`] and the end of the process.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::subject::VeId;

use super::copy::files::CopyFiles;
use super::copy::{self, AccountCopy, LimitsCopy, log};
use super::dir::{DATABASE, move_aside, take_existing};
use super::handle::Handle;
use super::lock::DirLock;
use super::record::{self, InfoRecord, key};
use super::worker::{Options, Worker};
use super::{Batch, CopyChange, Entry, Store, StoreError, identity, sync_file};

/// Entries read at a time.
const PAGE: usize = 1024;
/// Bytes of a line of the copy.
const COPY_LINE: usize = 256;

/// The store of one VE on disk; others are kept out while it is open.
pub struct DiskStore {
    dir: PathBuf,
    /// Before the lock: the database is closed first.
    worker: Worker,
    /// Locked by the worker's thread only, like `copy`.
    handle: Arc<Mutex<Handle>>,
    copy: Arc<Mutex<CopyFiles>>,
    _lock: DirLock,
}

impl DiskStore {
    /// Makes an empty store; the directory is made too.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::Held`], [`StoreError::NoSpace`], [`StoreError::Io`].
    pub fn create(dir: &Path, ve: VeId) -> Result<Self, StoreError> {
        Self::create_with(dir, ve, Options::default())
    }

    /// Opens a store.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none, [`StoreError::Held`], [`StoreError::Damaged`] when
    /// [`super::salvage::salvage`] is the remedy, [`StoreError::ForeignVe`], [`StoreError::NewerFormat`],
    /// [`StoreError::NoSpace`], [`StoreError::Io`].
    pub fn open(dir: &Path, ve: VeId) -> Result<Self, StoreError> {
        Self::open_with(dir, ve, Options::default())
    }

    /// As [`DiskStore::create`].
    ///
    /// # Errors
    /// As [`DiskStore::create`].
    pub fn create_with(dir: &Path, ve: VeId, options: Options) -> Result<Self, StoreError> {
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(dir);
        made.map_err(|error| StoreError::io("create", dir, error))?;
        let lock = take_existing(dir)?;
        if identity::read(dir)?.is_some() {
            return Err(StoreError::Exists {
                dir: dir.to_path_buf(),
            });
        }
        refuse_lost_identity(dir)?;
        if dir.join(DATABASE).exists() {
            move_aside(dir)?;
        }
        let store = Self::start(dir, ve, lock, options)?;
        store.handle_call("create", Handle::create)?;
        identity::write(dir, ve)?;
        sync_file::sync_dir(dir.parent().unwrap_or(dir))?;
        Ok(store)
    }

    /// As [`DiskStore::open`].
    ///
    /// # Errors
    /// As [`DiskStore::open`].
    pub fn open_with(dir: &Path, ve: VeId, options: Options) -> Result<Self, StoreError> {
        let lock = take_existing(dir)?;
        let Some(found) = identity::read(dir)? else {
            refuse_lost_identity(dir)?;
            return Err(StoreError::Missing {
                dir: dir.to_path_buf(),
            });
        };
        identity::check(ve, found)?;
        if !dir.join(DATABASE).exists() {
            return Err(StoreError::damaged_file(
                "database is gone",
                &dir.join(DATABASE),
            ));
        }
        let len = fs::metadata(dir.join(DATABASE)).map_or(0, |data| data.len());
        let store = Self::start(dir, ve, lock, options)?;
        store.sized_call("open", usize::try_from(len).unwrap_or(0), |handle| {
            handle.with(|_| Ok(()))
        })?;
        store.check_age(ve)?;
        Ok(store)
    }

    /// Removes a store and its directory, unless other files are there.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Held`], [`StoreError::ForeignVe`], [`StoreError::Io`]. An
    /// interrupted removal can be repeated.
    pub fn remove(dir: &Path, ve: VeId) -> Result<(), StoreError> {
        let lock = take_existing(dir)?;
        match identity::read(dir) {
            Ok(Some(found)) => identity::check(ve, found)?,
            Ok(None) | Err(StoreError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        for name in [copy::SETTINGS, copy::LIMITS, identity::FILE] {
            ignore_missing(&dir.join(name), fs::remove_file(dir.join(name)))?;
        }
        sync_file::sync_dir(dir)?;
        let database = dir.join(DATABASE);
        ignore_missing(&database, fs::remove_file(&database))?;
        lock.remove()?;
        // What a salvage moved aside stays, and the directory with it.
        let _ = fs::remove_dir(dir);
        Ok(())
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn start(dir: &Path, ve: VeId, lock: DirLock, options: Options) -> Result<Self, StoreError> {
        let worker = Worker::start(options.time_limit, options.on_hang)
            .map_err(|error| StoreError::io("start a thread for", dir, error))?;
        let handle = Arc::new(Mutex::new(Handle::new(dir, ve)));
        Ok(Self {
            dir: dir.to_path_buf(),
            worker,
            handle,
            copy: Arc::new(Mutex::new(CopyFiles::new(dir, ve))),
            _lock: lock,
        })
    }

    /// Checks that the database holds the commit that the copy of limits knows of; makes a copy that is lost anew.
    fn check_age(&self, ve: VeId) -> Result<(), StoreError> {
        let key = key::info();
        let Some(value) = self.get(&key)? else {
            return match copy::settings(&self.dir) {
                Ok(Some(_)) => Err(StoreError::damaged_key("settings are gone", &key)),
                _ => Ok(()),
            };
        };
        let info: InfoRecord = record::decode(&key, &value).map_err(|error| error.at(&key))?;
        let settings = match copy::settings(&self.dir) {
            Err(StoreError::Damaged { .. }) => None,
            settings => settings?.map(|settings| settings.epoch),
        };
        match settings.zip(log::newest(&self.dir, ve)?) {
            Some((settings, limits)) if info.epoch < settings.max(limits) => Err(
                StoreError::damaged_key("older than the copy of limits", &key),
            ),
            Some(_) => Ok(()),
            None => {
                tracing::warn!(%ve, "the copy of limits is incomplete and is made anew");
                self.restore_copy(info)
            }
        }
    }

    fn restore_copy(&self, info: InfoRecord) -> Result<(), StoreError> {
        let mut copy = LimitsCopy {
            epoch: info.epoch,
            info: Some(info),
            ..LimitsCopy::default()
        };
        let mut from = Vec::new();
        loop {
            let entries = self.scan(&[], &from, PAGE)?;
            let Some((last, _)) = entries.last() else {
                break;
            };
            from = [last.as_slice(), &[0]].concat();
            for (key, value) in &entries {
                let Some(subject) = key::subject(key) else {
                    continue;
                };
                let account = record::decode(key, value).map_err(|error| error.at(key))?;
                let account = AccountCopy::new(subject, &account);
                if account.is_worth_keeping() {
                    copy.accounts.insert(subject, account);
                }
            }
        }
        let files = Arc::clone(&self.copy);
        self.worker
            .run("copy", move || files.lock().replace(&copy))?
    }

    fn handle_call<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&mut Handle) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.sized_call(op, 0, work)
    }

    fn sized_call<T: Send + 'static>(
        &self,
        op: &'static str,
        bytes: usize,
        work: impl FnOnce(&mut Handle) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let handle = Arc::clone(&self.handle);
        self.worker
            .run_sized(op, bytes, move || work(&mut handle.lock()))?
    }
}

impl Store for DiskStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.to_vec();
        self.handle_call("get", move |handle| handle.read(|db| db.get(&key)))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StoreError> {
        let (prefix, from) = (prefix.to_vec(), from.to_vec());
        self.handle_call("scan", move |handle| {
            handle.read(|db| db.scan(&prefix, &from, limit))
        })
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let batch = batch.clone();
        self.sized_call("commit", batch.size(), move |handle| {
            handle.with(|db| db.commit(&batch))?;
            handle.end_failures();
            Ok(())
        })
    }

    fn keep_copy(&self, change: &CopyChange) -> Result<(), StoreError> {
        let files = Arc::clone(&self.copy);
        let change = change.clone();
        let bytes = change.accounts.len().saturating_mul(COPY_LINE);
        self.worker
            .run_sized("copy", bytes, move || files.lock().keep(&change))?
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        let _ = self.handle_call("close", |handle| {
            handle.close();
            Ok(())
        });
    }
}

fn refuse_lost_identity(dir: &Path) -> Result<(), StoreError> {
    if [copy::SETTINGS, copy::LIMITS]
        .iter()
        .any(|name| dir.join(name).exists())
    {
        return Err(StoreError::damaged_file(
            "identity is gone",
            &dir.join(identity::FILE),
        ));
    }
    Ok(())
}

fn ignore_missing(path: &Path, result: std::io::Result<()>) -> Result<(), StoreError> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}
