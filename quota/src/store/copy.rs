//! The readable copy of what cannot be recounted: limits, deadlines, grace periods, enforcement.
//!
//! A damaged store is mended from it, and a database that lost commits in silence is told by it. The file is replaced whole (temporary file, fsync, rename,
//! fsync of the directory), so a reader finds the earlier copy or the new one.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::grace::{Deadlines, GracePeriods, Timestamp};
use crate::limit::Limits;
use crate::subject::{Subject, VeId};

use super::record::{AccountRecord, InfoRecord};
use super::{StoreError, sync_file};

/// The file's name in the store's directory.
pub const FILE: &str = "limits.json";
/// The largest copy that is read: far above any real one.
const MAX_LEN: u64 = 256 << 20;
/// The format that is written, and the newest that is read.
const FORMAT: u8 = 1;

/// The limits of one VE and of all its accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsCopy {
    /// Format number.
    pub format: u8,
    /// Whose limits.
    pub ve: VeId,
    /// The private area.
    pub private: String,
    /// Grace periods of the VE, of users, of groups.
    pub grace: [GracePeriods; 3],
    /// Whether limits of the VE, of users, of groups are enforced.
    pub enforced: [bool; 3],
    /// As in [`InfoRecord`].
    pub ugid_limit: u32,
    /// As in [`InfoRecord`].
    pub created: Timestamp,
    /// As in [`InfoRecord`]: a database with a lower one has lost commits.
    pub epoch: u64,
    /// The accounts that have limits or a running deadline.
    pub accounts: Vec<AccountCopy>,
}

/// The limits of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountCopy {
    /// Whose.
    pub subject: Subject,
    /// Its limits.
    pub limits: Limits,
    /// Its running deadlines.
    pub deadlines: Deadlines,
}

impl LimitsCopy {
    /// The copy of these records; accounts without limits and deadlines are left out.
    pub fn new(
        info: &InfoRecord,
        accounts: impl IntoIterator<Item = (Subject, AccountRecord)>,
    ) -> Self {
        let worth = |account: &AccountRecord| {
            !account.limits.is_unlimited() || account.deadlines != Deadlines::default()
        };
        let accounts = accounts.into_iter().filter(|(_, account)| worth(account));
        Self {
            format: FORMAT,
            ve: info.ve,
            private: info.private.clone(),
            grace: info.grace,
            enforced: info.enforced,
            ugid_limit: info.ugid_limit,
            created: info.created,
            epoch: info.epoch,
            accounts: accounts
                .map(
                    |(
                        subject,
                        AccountRecord {
                            limits, deadlines, ..
                        },
                    )| AccountCopy {
                        subject,
                        limits,
                        deadlines,
                    },
                )
                .collect(),
        }
    }

    /// The info record that this copy can restore.
    pub fn info(&self) -> InfoRecord {
        InfoRecord {
            ve: self.ve,
            private: self.private.clone(),
            grace: self.grace,
            enforced: self.enforced,
            ugid_limit: self.ugid_limit,
            epoch: self.epoch,
            created: self.created,
        }
    }

    /// Replaces the copy in this store directory; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] or [`StoreError::Io`]; the earlier copy is then untouched.
    pub fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let path = dir.join(FILE);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| StoreError::io("write", &path, error.into()))?;
        sync_file::replace(&path, &text)
    }

    /// The copy in this store directory; `None` when there is no such file.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the file is not a copy, [`StoreError::NewerFormat`], [`StoreError::Io`].
    pub fn read(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(FILE);
        let Some(text) = sync_file::read(&path, MAX_LEN)? else {
            return Ok(None);
        };
        let damaged = |error: serde_json::Error| StoreError::damaged_file(error.to_string(), &path);
        let format = serde_json::from_slice::<FormatOnly>(&text)
            .map_err(damaged)?
            .format;
        if format > FORMAT {
            return Err(StoreError::NewerFormat {
                found: format,
                known: FORMAT,
            });
        }
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }
}

/// Reads the format of a copy whose other fields may be unknown.
#[derive(Deserialize)]
struct FormatOnly {
    format: u8,
}
