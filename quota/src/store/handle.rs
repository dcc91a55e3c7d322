//! The open database, given up after an error and opened again with growing pauses. As long as it does not open, because it cannot
//! be written, a copy of it in memory is read: nobody changes the file meanwhile.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::subject::VeId;

use super::dir::DATABASE;
use super::record::{self, SchemaRecord, key, schema_batch};
use super::redb::Database;
use super::{Store as _, StoreError, identity, sync_file};

/// The pause after the second failure in a row; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// The database, or why it is closed. Only the worker's thread touches it.
pub(super) struct Handle {
    dir: PathBuf,
    ve: VeId,
    db: Option<Database>,
    /// What is read while the database does not open.
    copy: Option<Database>,
    /// Failures in a row; a commit that worked ends the row.
    failures: u32,
    closed: Option<Closed>,
}

struct Closed {
    cause: String,
    until: Instant,
}

impl Handle {
    /// For the database of the store in this directory.
    pub(super) fn new(dir: &Path, ve: VeId) -> Self {
        Self {
            dir: dir.to_path_buf(),
            ve,
            db: None,
            copy: None,
            failures: 0,
            closed: None,
        }
    }

    /// Makes the database; durable when it returns.
    pub(super) fn create(&mut self) -> Result<(), StoreError> {
        let db = Database::create(&self.dir.join(DATABASE))?;
        db.commit(&schema_batch(self.ve))?;
        sync_file::sync_dir(&self.dir)?;
        self.db = Some(db);
        Ok(())
    }

    /// Runs a call on the database, which is opened first if it is not; gives it up after an error.
    pub(super) fn with<T>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let db = match self.db.take() {
            Some(db) => db,
            None => self.reopen()?,
        };
        match work(&db) {
            Ok(value) => {
                self.db = Some(db);
                Ok(value)
            }
            Err(error) => {
                drop(db);
                self.fail(&error);
                Err(error)
            }
        }
    }

    /// Runs a call that only reads, on the database, or on a copy where that does not open.
    pub(super) fn read<T>(
        &mut self,
        work: impl Fn(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let failure = match self.with(&work) {
            Err(
                failure @ (StoreError::Poisoned { .. }
                | StoreError::NoSpace { .. }
                | StoreError::Io { .. }),
            ) => failure,
            answer => return answer,
        };
        if self.copy.is_none() {
            self.copy = Database::open_copy(&self.dir.join(DATABASE))
                .and_then(|copy| check_schema(&copy, self.ve).map(|()| copy))
                .ok();
        }
        self.copy.as_ref().map_or(Err(failure), work)
    }

    /// Says that the store works again: the next failure is the first of its row.
    pub(super) const fn end_failures(&mut self) {
        self.failures = 0;
    }

    /// Closes the database.
    pub(super) fn close(&mut self) {
        self.db = None;
    }

    fn reopen(&mut self) -> Result<Database, StoreError> {
        if let Some(closed) = &self.closed {
            let rest = closed.until.saturating_duration_since(Instant::now());
            if !rest.is_zero() {
                let retry_ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
                return Err(StoreError::Poisoned {
                    cause: closed.cause.clone(),
                    retry_ms,
                });
            }
        }
        let opened = Database::open(&self.dir.join(DATABASE))
            .and_then(|db| check_schema(&db, self.ve).map(|()| db));
        match &opened {
            Ok(_) => {
                self.closed = None;
                self.copy = None;
            }
            Err(error) => self.fail(error),
        }
        opened
    }

    /// Notes a failure: the first of a row may be tried again at once.
    fn fail(&mut self, error: &StoreError) {
        let doublings = self.failures.saturating_sub(1);
        let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        let pause = if self.failures == 0 {
            Duration::ZERO
        } else {
            pause.min(LAST_PAUSE)
        };
        self.failures = self.failures.saturating_add(1);
        let until = Instant::now()
            .checked_add(pause)
            .unwrap_or_else(Instant::now);
        tracing::error!(ve = %self.ve, %error, ?pause, "quota store closed after an error");
        self.closed = Some(Closed {
            cause: error.to_string(),
            until,
        });
    }
}

/// Checks that the database is the VE's.
fn check_schema(db: &Database, ve: VeId) -> Result<(), StoreError> {
    let key = key::schema();
    let value = db.get(&key)?;
    let value = value.ok_or_else(|| StoreError::damaged_key("no schema record", &key))?;
    let schema: SchemaRecord = record::decode(&key, &value).map_err(|error| error.at(&key))?;
    identity::check(ve, schema.ve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, Op};

    fn no_space(_: &Database) -> Result<(), StoreError> {
        Err(StoreError::NoSpace {
            dir: PathBuf::new(),
        })
    }

    #[test]
    fn after_an_error_the_first_try_is_free_and_later_ones_wait_longer_each_time() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut handle = Handle::new(dir.path(), VeId::new(1));
        handle.create().unwrap();
        let mut waits = Vec::new();
        for _ in 0..3 {
            assert!(matches!(
                handle.with(no_space),
                Err(StoreError::NoSpace { .. })
            ));
            if let Err(StoreError::Poisoned { retry_ms, .. }) = handle.with(|_| Ok(())) {
                waits.push(retry_ms);
                std::thread::sleep(Duration::from_millis(retry_ms + 1));
            }
        }
        assert!(matches!(waits[..], [90..=100, 190..=200]), "{waits:?}");
        handle.with(|_| Ok(())).unwrap();
        handle.end_failures();
        assert!(matches!(
            handle.with(no_space),
            Err(StoreError::NoSpace { .. })
        ));
        handle.with(|_| Ok(())).unwrap();
    }

    // S60: what is stored can be read as long as it cannot be written, and nothing old once it can.
    #[test]
    fn a_database_that_does_not_open_is_read_from_a_copy() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut handle = Handle::new(dir.path(), VeId::new(1));
        handle.create().unwrap();
        let write = |handle: &mut Handle, value: u8| {
            let (key, value) = (b"key".to_vec(), vec![value]);
            handle.with(|db| db.commit(&Batch::from_iter([Op::Put { key, value }])))
        };
        let read = |handle: &mut Handle| handle.read(|db| db.get(b"key")).unwrap();
        for value in 1..=3 {
            write(&mut handle, value).unwrap();
            // The second failure of a row is followed by a pause.
            while handle.failures < 2 {
                let _no_space = handle.with(no_space);
            }
            assert!(matches!(
                write(&mut handle, 9),
                Err(StoreError::Poisoned { .. })
            ));
            assert_eq!(read(&mut handle), Some(vec![value]));
            assert!(handle.copy.is_some());
            handle.closed = None;
            assert_eq!(read(&mut handle), Some(vec![value]));
            assert!(handle.copy.is_none(), "it is out of date from now on");
            handle.end_failures();
        }
    }
}
