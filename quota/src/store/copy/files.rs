//! The two files of the copy, as one thing that orders are kept in.

use std::path::{Path, PathBuf};

use crate::subject::VeId;

use super::super::StoreError;
use super::super::record::InfoRecord;
use super::log::LimitsLog;
use super::{CopyChange, LIMITS, LimitsCopy, settings, write_settings};

/// The files, and what is known of them.
pub(in crate::store) struct CopyFiles {
    dir: PathBuf,
    limits: LimitsLog,
    /// What the settings' file is known to say.
    settings: Option<InfoRecord>,
}

impl CopyFiles {
    pub(in crate::store) fn new(dir: &Path, ve: VeId) -> Self {
        Self {
            dir: dir.to_path_buf(),
            limits: LimitsLog::new(dir, ve),
            settings: None,
        }
    }

    /// Writes what a change concerns.
    pub(in crate::store) fn keep(&mut self, change: &CopyChange) -> Result<(), StoreError> {
        let info = &change.info;
        if self.settings.is_none() {
            self.settings = settings(&self.dir).ok().flatten();
        }
        let is_known = self.settings.as_ref().is_some_and(|known| {
            let epoch = info.epoch;
            *info
                == InfoRecord {
                    epoch,
                    ..known.clone()
                }
        });
        if !is_known || change.accounts.is_empty() {
            write_settings(&self.dir, info)?;
            self.settings = Some(info.clone());
        }
        if change.accounts.is_empty() && self.dir.join(LIMITS).exists() {
            return Ok(());
        }
        self.limits.append(info.epoch, &change.accounts)
    }

    /// Replaces both files.
    pub(in crate::store) fn replace(&mut self, copy: &LimitsCopy) -> Result<(), StoreError> {
        if let Some(info) = &copy.info {
            write_settings(&self.dir, info)?;
        }
        self.limits.replace(copy)
    }
}
