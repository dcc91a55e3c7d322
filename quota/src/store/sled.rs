//! The embedded database: the only file that names it.
//!
//! Rules that make it safe (each closes a defect of release 0.34.7):
//! 1. The caller holds the directory's lock; leftover `snap.*.generating` files go before the database is opened.
//! 2. The segment size stays the default: it cannot change later, and small ones can deadlock. The cache is small.
//! 3. After opening, `conf`, `db`, their directory and its parent are synced: the database never syncs `conf`.
//! 4. A change is durable after `apply_batch`, `flush` and our own `fdatasync` of `db`: `flush` alone does not sync.
//!    With that the periodic flusher is not needed, and an idle VE does not write.
//! 5. At most 64 KiB are written between two syncs, see `staged`.
//! 6. After any error the handle is given up and the database opened again, see `handle`.
//! 7. A panic inside the database is caught and is damage.

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::{Batch, Entry, Op, Store, StoreError, sync_file};

pub use super::disk::{Options, SledStore};
pub use super::worker::OnHang;

/// Bytes of keys and values in one commit of a [`Database`]: with the database's overhead well below half a segment.
pub(super) const MAX_APPLY: usize = 64 << 10;
/// Bytes of pages that the database may keep.
const CACHE: u64 = 1 << 20;
/// Name of the data file.
const DATA: &str = "db";
/// Name of the settings file.
const SETTINGS: &str = "conf";
/// How often a database is tried that a thread of its own may still hold.
const LOCK_TRIES: u32 = 20;
/// Pause between these tries.
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// An open database. Every method may fail with [`StoreError::Damaged`] where the database panics.
pub(super) struct Database {
    dir: PathBuf,
    data: File,
    /// `None` only while the handle is being dropped.
    db: Option<::sled::Db>,
}

impl Database {
    /// Opens the database in this directory, or makes an empty one.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        remove_leftovers(dir)?;
        let db = open_patiently(dir)?;
        let sync = |path: &Path| sync_file::sync(path);
        sync(&dir.join(SETTINGS))?;
        sync(&dir.join(DATA))?;
        sync_file::sync_dir(dir)?;
        sync_file::sync_dir(dir.parent().unwrap_or(dir))?;
        let path = dir.join(DATA);
        let data = File::open(&path).map_err(|source| StoreError::Io {
            op: "open",
            path,
            source,
        })?;
        Ok(Self {
            dir: dir.to_path_buf(),
            data,
            db: Some(db),
        })
    }

    /// Runs a call of the database; errors and panics become ours.
    fn call<T>(
        &self,
        op: &'static str,
        work: impl FnOnce(&::sled::Db) -> ::sled::Result<T>,
    ) -> Result<T, StoreError> {
        let Some(db) = &self.db else {
            return Err(StoreError::damaged_file("database is closed", &self.dir));
        };
        catch(&self.dir, op, || work(db))
    }
}

impl Store for Database {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.call("get", |db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StoreError> {
        let start = from.max(prefix);
        self.call("scan", |db| {
            let mut found = Vec::new();
            for entry in db.range(start..).take(limit) {
                let (key, value) = entry?;
                if !key.starts_with(prefix) {
                    break;
                }
                found.push((key.to_vec(), value.to_vec()));
            }
            Ok(found)
        })
    }

    /// At most [`MAX_APPLY`] bytes: larger batches go through [`super::staged`].
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut changes = ::sled::Batch::default();
        for op in batch.ops() {
            match op {
                Op::Put { key, value } => changes.insert(key.as_slice(), value.as_slice()),
                Op::Remove { key } => changes.remove(key.as_slice()),
            }
        }
        self.call("commit", |db| {
            db.apply_batch(changes)?;
            db.flush()?;
            Ok(())
        })?;
        let path = self.dir.join(DATA);
        self.data
            .sync_data()
            .map_err(|error| StoreError::io("fdatasync", &path, error))
    }
}

impl Drop for Database {
    /// The database panics when its last sync fails; what counts was synced before.
    fn drop(&mut self) {
        let db = mem::take(&mut self.db);
        if panic::catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!(dir = %self.dir.display(), "quota database closed with an error");
        }
    }
}

/// Removes what a kill left of a snapshot being written: the next open would take it for damage.
fn remove_leftovers(dir: &Path) -> Result<(), StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("read", dir, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| StoreError::io("read", dir, error))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            let path = entry.path();
            fs::remove_file(&path).map_err(|error| StoreError::io("remove", &path, error))?;
        }
    }
    Ok(())
}

/// A thread of a handle just given up may hold the data file for a moment longer.
fn open_patiently(dir: &Path) -> Result<::sled::Db, StoreError> {
    let mut tries = LOCK_TRIES;
    loop {
        let config = ::sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE)
            .flush_every_ms(None)
            .use_compression(false);
        match catch(dir, "open", || config.open()) {
            Err(StoreError::Held { .. }) if tries > 0 => {
                tries = tries.saturating_sub(1);
                thread::sleep(LOCK_PAUSE);
            }
            result => return result,
        }
    }
}

fn catch<T>(
    dir: &Path,
    op: &'static str,
    work: impl FnOnce() -> ::sled::Result<T>,
) -> Result<T, StoreError> {
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| translate(dir, op, error)),
        Err(payload) => {
            let what = format!("{op} panicked: {}", panic_text(payload.as_ref()));
            Err(StoreError::damaged_file(what, dir))
        }
    }
}

fn translate(dir: &Path, op: &'static str, error: ::sled::Error) -> StoreError {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    match error {
        ::sled::Error::Io(error) if matches!(error.kind(), InvalidData | UnexpectedEof) => {
            StoreError::damaged_file(error.to_string(), dir)
        }
        ::sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            StoreError::Held {
                dir: dir.to_path_buf(),
            }
        }
        ::sled::Error::Io(error) => StoreError::io(op, &dir.join(DATA), error),
        other => StoreError::damaged_file(other.to_string(), dir),
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(error: ::sled::Error) -> StoreError {
        translate(Path::new("/store/db"), "commit", error)
    }

    #[test]
    fn each_error_of_the_database_has_its_meaning() {
        use ::sled::Error::{Corruption, Io, ReportableBug, Unsupported};
        let io = |kind: io::ErrorKind| translated(Io(io::Error::from(kind)));
        assert!(io(io::ErrorKind::UnexpectedEof).is_damage());
        assert!(io(io::ErrorKind::InvalidData).is_damage());
        assert!(matches!(
            io(io::ErrorKind::StorageFull),
            StoreError::NoSpace { .. }
        ));
        assert!(matches!(
            io(io::ErrorKind::QuotaExceeded),
            StoreError::NoSpace { .. }
        ));
        assert!(matches!(
            io(io::ErrorKind::Other),
            StoreError::Io { op: "commit", .. }
        ));
        let held = io::Error::other("could not acquire lock on \"db\"");
        assert!(matches!(translated(Io(held)), StoreError::Held { .. }));
        assert!(translated(Corruption { at: None, bt: () }).is_damage());
        assert!(translated(Unsupported("other page size".into())).is_damage());
        assert!(translated(ReportableBug("a thread is gone".into())).is_damage());
    }

    #[test]
    fn a_panic_is_damage_with_its_text() {
        let caught = catch::<()>(Path::new("/store/db"), "get", || panic!("page {}", 7));
        let Err(StoreError::Damaged { what, .. }) = caught else {
            panic!("must be damage")
        };
        assert_eq!(what, "get panicked: page 7");
    }
}
