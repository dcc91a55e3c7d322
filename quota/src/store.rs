//! Where totals and limits survive: a small ordered map of bytes with one atomic, durable commit.
//!
//! Invariants every store keeps:
//! 1. After [`Store::commit`] returned `Ok`, the batch is found again after a kill and after a power loss.
//! 2. A batch is there whole or not at all, whatever happened. After an error it may be either.
//! 3. What `get` and `scan` return is durable: they never show a batch that a crash could take back.
//! 4. After an error the next call starts from the durable state again, or fails; it never hangs.
//!
//! The database is named in `redb` only. What the bytes mean is in [`mod@record`].

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::subject::VeId;

pub mod copy;
mod dir;
mod disk;
mod handle;
mod identity;
mod lock;
pub mod memory;
pub mod record;
mod redb;
mod rescue;
pub mod salvage;
mod sync_file;
mod worker;

pub use copy::{CopyChange, LimitsCopy};
pub use disk::DiskStore;
pub use worker::{OnHang, Options};

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// An ordered map of bytes that outlives the process.
pub trait Store: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot say.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The entries whose key starts with `prefix` and is not below `from`, in the order of their keys, at most
    /// `limit` of them.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot say.
    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StoreError>;

    /// Makes every change of the batch, or none; durable when it returns `Ok`.
    ///
    /// # Errors
    /// [`StoreError`]: the batch is then either there whole or not at all; commit it again, or read.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Keeps the readable copy of limits, from which a damaged store is mended, up to date. Call it after each
    /// administrative commit; a store without files keeps none.
    ///
    /// # Errors
    /// [`StoreError`] when the copy could not be made durable; the earlier copy is then still there.
    fn keep_copy(&self, change: &CopyChange) -> Result<(), StoreError> {
        let _ = change;
        Ok(())
    }
}

/// One change of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Gives the key this value.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Takes the key away; nothing happens if it is not there.
    Remove {
        /// The key.
        key: Vec<u8>,
    },
}

impl Op {
    /// The key that is changed.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Remove { key } => key,
        }
    }

    /// Bytes of key and value.
    pub fn size(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len().saturating_add(value.len()),
            Self::Remove { key } => key.len(),
        }
    }
}

/// Changes that happen together. Of several changes of one key the last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    ops: Vec<Op>,
}

impl Batch {
    /// No change yet.
    pub const fn new() -> Self {
        Self { ops: Vec::new() }
    }

    /// Gives a key a value.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.ops.push(Op::Put {
            key: key.into(),
            value: value.into(),
        });
    }

    /// Takes a key away.
    pub fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.ops.push(Op::Remove { key: key.into() });
    }

    /// The changes, in the order they were added.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Bytes of all keys and values.
    pub fn size(&self) -> usize {
        self.ops.iter().map(Op::size).fold(0, usize::saturating_add)
    }
}

impl FromIterator<Op> for Batch {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> Self {
        Self {
            ops: ops.into_iter().collect(),
        }
    }
}

/// How long a store that another process holds is waited for, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(5);

/// Repeats `open` while another process holds the store, for 5 seconds at most: commands hold it for moments, and the
/// daemon of a mount that was taken away until its totals are committed.
///
/// # Errors
/// Those of `open`.
pub fn when_free<T>(mut open: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match open() {
            Err(StoreError::Held { .. }) if Instant::now() < end => thread::sleep(RETRY),
            opened => return opened,
        }
    }
}

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open: the VE's daemon, or a command at work.
    #[error("quota store {} is held by another process", dir.display())]
    Held {
        /// The store's directory.
        dir: PathBuf,
    },
    /// There is no store.
    #[error("no quota store in {}", dir.display())]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// There is a store already.
    #[error("there is a quota store in {} already", dir.display())]
    Exists {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The store holds what was never written, or lacks what was.
    #[error("quota store is damaged: {what} ({place})")]
    Damaged {
        /// What is wrong.
        what: String,
        /// The file or the key where it shows.
        place: String,
    },
    /// A later release wrote this.
    #[error("quota store has format {found}, this program knows up to {known}: use a newer one")]
    NewerFormat {
        /// Format number in the store.
        found: u8,
        /// Highest format number that can be read.
        known: u8,
    },
    /// A version of before the first release wrote this, with another database.
    #[error(
        "quota store {0} is that of another version of simfs: move it away with 'mv {0} {0}.old', make a new one with \
         'vzquota init', and set the limits again that {0}.old/limits.json lists",
        dir.display()
    )]
    OtherVersion {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The store belongs to another VE.
    #[error("quota store belongs to VE {found}, not to VE {expected}")]
    ForeignVe {
        /// Whose store was asked for.
        expected: VeId,
        /// Whose it is.
        found: VeId,
    },
    /// The file system with the store is full. Works again by itself when there is room.
    #[error("no space left for the quota store in {}", dir.display())]
    NoSpace {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier error closed the store, and the time to try again has not come.
    #[error("quota store is closed after an error, next try in {retry_ms} ms: {cause}")]
    Poisoned {
        /// The error that closed it.
        cause: String,
        /// Time until a call tries to open it again.
        retry_ms: u64,
    },
    /// The database did not answer. Final: only a new process can open the store again.
    #[error("quota store did not answer within {limit_ms} ms ({op})")]
    Timeout {
        /// The call that hangs.
        op: &'static str,
        /// How long was waited.
        limit_ms: u64,
    },
}

impl StoreError {
    /// An error of the operating system; a full file system becomes [`StoreError::NoSpace`].
    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded) {
            let dir = path.parent().unwrap_or(path).to_path_buf();
            return Self::NoSpace { dir };
        }
        Self::Io {
            op,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Damage that shows in a file.
    pub(crate) fn damaged_file(what: impl Into<String>, path: &Path) -> Self {
        Self::Damaged {
            what: what.into(),
            place: path.display().to_string(),
        }
    }

    /// Damage that shows in the value of a key.
    pub(crate) fn damaged_key(what: impl Into<String>, key: &[u8]) -> Self {
        Self::Damaged {
            what: what.into(),
            place: format!("key {}", key.escape_ascii()),
        }
    }

    /// Whether salvage is the remedy.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}
