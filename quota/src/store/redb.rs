//! The embedded database: the only file that names it.
//!
//! A database is one file, copy-on-write, with one table of records. Invariants:
//! 1. A commit is one transaction of any size, on the disk when it returns. It is made in two phases, so a last commit
//!    that does not verify is damage, never a commit that is taken back in silence.
//! 2. Opening verifies the checksum of every page that the last commit reaches, whatever way the last process ended:
//!    about 10 ms for 100 000 records. A file that was changed from outside is [`StoreError::Damaged`].
//! 3. Each commit also records which pages are in use, so that [`Database::open_remains`] can read what is left of a
//!    file that does not verify.
//! 4. A panic inside the database is caught and is damage.
//! 5. No thread, no timer: an idle database costs its cache.
//!
//! Who holds the directory's lock has the file for himself; the database locks it as well. What to do after an error is
//! [`super::handle`]'s business.

use std::any::Any;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

use ::redb::backends::InMemoryBackend;
use ::redb::{
    Builder, Durability, ReadableDatabase as _, ReadableTableMetadata as _, StorageBackend as _,
    TableDefinition,
};

use super::{Batch, Entry, Op, Store, StoreError};

/// The one table.
const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("records");
/// Bytes of pages that the database may keep; what it reads again comes from the kernel's cache.
const CACHE: usize = 256 << 10;
/// Files up to this length are never made smaller.
const SMALL: u64 = 1 << 20;
/// Room that a record takes in a file that need not be made smaller: some four times what it has.
const ROOM: u64 = 512;

/// An open database. Every method may fail with [`StoreError::Damaged`] where the database panics.
pub(super) struct Database {
    path: PathBuf,
    /// `None` only while the handle is being dropped.
    db: Option<::redb::Database>,
}

impl Database {
    /// Makes an empty database in a file that must not be there yet. It is durable with its first commit, its name when
    /// the caller has synced the directory.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| StoreError::io("create", path, error))?;
        Self::start(path, "create", || Ok(builder().create(path)?))
    }

    /// Opens the database in this file and verifies it. One that holds much more room than its records need is made
    /// smaller.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        Self::start(path, "open", || {
            let mut db = builder().set_check_integrity_on_open(true).open(path)?;
            if is_mostly_empty(&db, path)? {
                db.compact()?;
            }
            Ok(db)
        })
    }

    /// Opens a copy in memory of the database in this file and verifies it, as it was after the last commit: for reading where
    /// the file cannot be written. It takes as much memory as the file has bytes.
    pub(super) fn open_copy(path: &Path) -> Result<Self, StoreError> {
        let bytes = std::fs::read(path).map_err(|error| StoreError::io("read", path, error))?;
        Self::start(path, "read", || {
            let mut builder = builder();
            builder.set_check_integrity_on_open(true);
            Ok(builder.create_with_backend(in_memory(&bytes)?)?)
        })
    }

    /// Opens a copy in memory of what is left of a database, without verifying it: calls may panic, and show what was
    /// never written. `path` is named in errors.
    pub(super) fn open_remains(path: &Path, remains: &[u8]) -> Result<Self, StoreError> {
        Self::start(path, "read", || {
            Ok(builder().create_with_backend(in_memory(remains)?)?)
        })
    }

    fn start(
        path: &Path,
        op: &'static str,
        open: impl FnOnce() -> Result<::redb::Database, ::redb::Error>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_path_buf(),
            db: Some(catch(path, op, open)?),
        })
    }

    /// Runs a call of the database; errors and panics become ours.
    fn call<T>(
        &self,
        op: &'static str,
        work: impl FnOnce(&::redb::Database) -> Result<T, ::redb::Error>,
    ) -> Result<T, StoreError> {
        let Some(db) = &self.db else {
            return Err(StoreError::damaged_file("database is closed", &self.path));
        };
        catch(&self.path, op, || work(db))
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

fn in_memory(bytes: &[u8]) -> io::Result<InMemoryBackend> {
    let backend = InMemoryBackend::new();
    backend.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    backend.write(0, bytes)?;
    Ok(backend)
}

fn is_mostly_empty(db: &::redb::Database, path: &Path) -> Result<bool, ::redb::Error> {
    let len = path.metadata()?.len();
    let records = db.begin_read()?.open_table(RECORDS)?.len()?;
    Ok(len > SMALL && len > records.saturating_mul(ROOM))
}

impl Store for Database {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.call("get", |db| {
            let records = db.begin_read()?.open_table(RECORDS)?;
            Ok(records.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StoreError> {
        let start = from.max(prefix);
        self.call("scan", |db| {
            let records = db.begin_read()?.open_table(RECORDS)?;
            let mut found = Vec::new();
            for entry in records.range(start..)?.take(limit) {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.call("commit", |db| {
            let mut transaction = db.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            // Commits in two phases as well.
            transaction.set_quick_repair(true);
            let mut records = transaction.open_table(RECORDS)?;
            for op in batch.ops() {
                match op {
                    Op::Put { key, value } => records.insert(key.as_slice(), value.as_slice())?,
                    Op::Remove { key } => records.remove(key.as_slice())?,
                };
            }
            drop(records);
            Ok(transaction.commit()?)
        })
    }
}

impl Drop for Database {
    /// Closing writes once more, so that the next open finds a clean end; what counts was durable before.
    fn drop(&mut self) {
        let Some(db) = mem::take(&mut self.db) else {
            return;
        };
        if let Err(error) = catch(&self.path, "close", || Ok(db.close()?)) {
            tracing::warn!(%error, "quota database closed with an error");
        }
    }
}

thread_local! {
    /// Whether a panic of this thread is caught and reported as damage.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

fn catch<T>(
    path: &Path,
    op: &'static str,
    work: impl FnOnce() -> Result<T, ::redb::Error>,
) -> Result<T, StoreError> {
    keep_caught_panics_quiet();
    CATCHING.set(true);
    let caught = panic::catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    match caught {
        Ok(result) => result.map_err(|error| translate(path, op, error)),
        Err(payload) => {
            let what = format!("{op} panicked: {}", panic_text(payload.as_ref()));
            Err(StoreError::damaged_file(what, path))
        }
    }
}

/// A panic that becomes an error is told once, by whoever gets the error.
fn keep_caught_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                usual(info);
            }
        }));
    });
}

fn translate(path: &Path, op: &'static str, error: ::redb::Error) -> StoreError {
    use ::redb::Error as E;
    use io::ErrorKind::{InvalidData, IsADirectory, UnexpectedEof};
    let dir = || path.parent().unwrap_or(path).to_path_buf();
    match error {
        E::Io(error) if matches!(error.kind(), InvalidData | IsADirectory | UnexpectedEof) => {
            StoreError::damaged_file(error.to_string(), path)
        }
        E::Io(error) => StoreError::io(op, path, error),
        E::PreviousIo => {
            let error = io::Error::other("an earlier input or output failed");
            StoreError::io(op, path, error)
        }
        E::DatabaseAlreadyOpen | E::LockProtocolMismatch => StoreError::Held { dir: dir() },
        E::UpgradeRequired(_) => StoreError::OtherVersion { dir: dir() },
        other => StoreError::damaged_file(other.to_string(), path),
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

#[cfg(test)]
mod torn;

#[cfg(test)]
mod tests {
    use ::redb::Error as E;

    use super::*;

    fn translated(error: E) -> StoreError {
        translate(Path::new("/store/quota.redb"), "commit", error)
    }

    #[test]
    fn each_error_of_the_database_has_its_meaning() {
        let io = |kind: io::ErrorKind| translated(E::Io(io::Error::from(kind)));
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidData] {
            assert!(io(kind).is_damage());
        }
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            assert!(matches!(io(kind), StoreError::NoSpace { dir } if dir == Path::new("/store")));
        }
        assert!(matches!(
            io(io::ErrorKind::Other),
            StoreError::Io { op: "commit", .. }
        ));
        assert!(matches!(translated(E::PreviousIo), StoreError::Io { .. }));
        assert!(matches!(
            translated(E::DatabaseAlreadyOpen),
            StoreError::Held { .. }
        ));
        assert!(matches!(
            translated(E::UpgradeRequired(2)),
            StoreError::OtherVersion { .. }
        ));
        assert!(translated(E::Corrupted("page 7".into())).is_damage());
        assert!(translated(E::TableDoesNotExist("records".into())).is_damage());
    }

    #[test]
    fn a_panic_is_damage_with_its_text() {
        let caught = catch::<()>(Path::new("/store/quota.redb"), "get", || {
            panic!("page {}", 7)
        });
        let Err(StoreError::Damaged { what, .. }) = caught else {
            panic!("must be damage")
        };
        assert_eq!(what, "get panicked: page 7");
    }
}
