//! The readable copy of what cannot be recounted: settings, limits, deadlines.
//!
//! ```text
//! DIR/settings.copy  one line: private area, grace periods, enforcement; replaced whole
//! DIR/limits.copy    a line for each change of an account's limits; the last line of an account counts
//! ```
//! A damaged store is mended from it, and a database that lost commits is told by it. Lines are JSON behind a checksum,
//! see [`line`]; the file of limits is written by `log`. A change costs one line, however many accounts there are.
//!
//! Deadlines are those of the last order on their account; one that usage started since is not in the copy.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::grace::{Deadlines, GracePeriods, Timestamp};
use crate::limit::Limits;
use crate::subject::{Subject, VeId};

use super::record::{AccountRecord, InfoRecord};
use super::{StoreError, identity, sync_file};

pub(super) mod files;
mod line;
pub(super) mod log;

/// The name of the settings' file in the store's directory.
pub const SETTINGS: &str = "settings.copy";
/// The name of the limits' file.
pub const LIMITS: &str = "limits.copy";
/// The longest settings that are read.
const MAX_SETTINGS: u64 = 64 << 10;
/// The format that is written, and the newest that is read.
const FORMAT: u8 = 3;

/// What an order changed, for the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyChange {
    /// The settings after it, and its commit.
    pub info: InfoRecord,
    /// The accounts it concerned, as they are after it.
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

impl AccountCopy {
    /// What the copy keeps of this record.
    pub const fn new(subject: Subject, record: &AccountRecord) -> Self {
        Self {
            subject,
            limits: record.limits,
            deadlines: record.deadlines,
        }
    }

    /// Whether there is anything that could not be recounted.
    pub fn is_worth_keeping(&self) -> bool {
        !self.limits.is_unlimited() || self.deadlines != Deadlines::NONE
    }
}

/// All that a copy says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsCopy {
    /// The settings; `None` where they cannot be read.
    pub info: Option<InfoRecord>,
    /// The last commit that the copy knows of: a database with a lower one has lost commits.
    pub epoch: u64,
    /// The accounts that have limits or a deadline.
    pub accounts: BTreeMap<Subject, AccountCopy>,
    /// Whether no account with limits can be missing.
    pub is_whole: bool,
    /// What cannot be read, in words.
    pub damaged: Vec<String>,
}

impl LimitsCopy {
    /// The copy in this store directory; `None` when there is none. Damage is in the result.
    ///
    /// # Errors
    /// [`StoreError::NewerFormat`], [`StoreError::ForeignVe`], [`StoreError::Io`].
    pub fn read(dir: &Path, ve: VeId) -> Result<Option<Self>, StoreError> {
        let mut copy = Self::default();
        let mut is_there = true;
        match settings(dir) {
            Ok(Some(info)) => {
                identity::check(ve, info.ve)?;
                copy.epoch = info.epoch;
                copy.info = Some(info);
            }
            Ok(None) => is_there = false,
            Err(StoreError::Damaged { what, place }) => {
                copy.damaged.push(format!("{place}: {what}"));
            }
            Err(error) => return Err(error),
        }
        let known = copy.damaged.len();
        let has_limits = log::read(&dir.join(LIMITS), ve, &mut copy)?;
        copy.is_whole = has_limits && copy.damaged.len() == known;
        if is_there && !has_limits {
            copy.damaged.push(dir.join(LIMITS).display().to_string());
        }
        Ok((is_there || has_limits).then_some(copy))
    }

    /// Takes a change in.
    pub fn apply(&mut self, change: &CopyChange) {
        self.epoch = self.epoch.max(change.info.epoch);
        self.info = Some(change.info.clone());
        change
            .accounts
            .iter()
            .for_each(|account| self.set(*account));
    }

    fn set(&mut self, account: AccountCopy) {
        if account.is_worth_keeping() {
            self.accounts.insert(account.subject, account);
        } else {
            self.accounts.remove(&account.subject);
        }
    }
}

/// The settings in this store directory; `None` when there is no such file.
///
/// # Errors
/// [`StoreError::Damaged`], [`StoreError::NewerFormat`], [`StoreError::Io`].
pub fn settings(dir: &Path) -> Result<Option<InfoRecord>, StoreError> {
    let path = dir.join(SETTINGS);
    let Some(text) = sync_file::read(&path, MAX_SETTINGS)? else {
        return Ok(None);
    };
    let damaged = || StoreError::damaged_file("not settings with their checksum", &path);
    let json = line::open(text.strip_suffix(b"\n").ok_or_else(damaged)?).ok_or_else(damaged)?;
    check_format(json).ok_or_else(damaged)??;
    let settings: Settings = serde_json::from_slice(json).map_err(|_| damaged())?;
    Ok(Some(settings.into()))
}

/// Replaces the settings; durable when it returns.
pub(super) fn write_settings(dir: &Path, info: &InfoRecord) -> Result<(), StoreError> {
    let path = dir.join(SETTINGS);
    let line = line::seal(&Settings::from(info))
        .map_err(|error| StoreError::io("write", &path, error.into()))?;
    sync_file::replace(&path, &line)
}

/// Fails for a format of a later release; `None` where there is no format.
fn check_format(json: &[u8]) -> Option<Result<(), StoreError>> {
    /// Reads the format of a line whose other fields may be unknown.
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u8,
    }
    let found = serde_json::from_slice::<FormatOnly>(json).ok()?.format;
    Some(match found {
        ..=FORMAT => Ok(()),
        _ => Err(StoreError::NewerFormat {
            found,
            known: FORMAT,
        }),
    })
}

/// The line of settings.
#[derive(Serialize, Deserialize)]
struct Settings {
    format: u8,
    ve: VeId,
    private: String,
    grace: [GracePeriods; 3],
    enforced: [bool; 3],
    ugid_limit: u32,
    created: Timestamp,
    epoch: u64,
}

impl From<&InfoRecord> for Settings {
    fn from(info: &InfoRecord) -> Self {
        Self {
            format: FORMAT,
            ve: info.ve,
            private: info.private.clone(),
            grace: info.grace,
            enforced: info.enforced,
            ugid_limit: info.ugid_limit,
            created: info.created,
            epoch: info.epoch,
        }
    }
}

impl From<Settings> for InfoRecord {
    fn from(settings: Settings) -> Self {
        Self {
            ve: settings.ve,
            private: settings.private,
            grace: settings.grace,
            enforced: settings.enforced,
            ugid_limit: settings.ugid_limit,
            epoch: settings.epoch,
            created: settings.created,
        }
    }
}
