//! A store's directory: the database's name there, and the names of those that were moved aside.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::lock::DirLock;
use super::{StoreError, sync_file};

/// The database's file.
pub(super) const DATABASE: &str = "quota.redb";
/// The database's directory in stores of before the first release.
const OLD_DATABASE: &str = "db";
/// What the names of databases moved aside start with.
pub(super) const ASIDE: &str = "quota.redb.damaged.";

/// Takes the lock of a directory for a store of this version.
pub(super) fn take_existing(dir: &Path) -> Result<DirLock, StoreError> {
    if !dir.is_dir() {
        return Err(StoreError::Missing { dir: dir.into() });
    }
    if dir.join(OLD_DATABASE).is_dir() {
        return Err(StoreError::OtherVersion { dir: dir.into() });
    }
    DirLock::take(dir)
}

/// Renames the database to a name with the time in it; durable when it returns.
pub(super) fn move_aside(dir: &Path) -> Result<Option<PathBuf>, StoreError> {
    let database = dir.join(DATABASE);
    let aside = free_aside(dir);
    fs::rename(&database, &aside).map_err(|error| StoreError::io("rename", &database, error))?;
    sync_file::sync_dir(dir)?;
    Ok(Some(aside))
}

/// A name with the time in it that is not in use: two in a millisecond, or a clock set back.
pub(super) fn free_aside(dir: &Path) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut stamp = now.map_or(0, |time| time.as_millis());
    loop {
        let path = dir.join(format!("{ASIDE}{stamp}"));
        if !path.exists() {
            return path;
        }
        stamp = stamp.saturating_add(1);
    }
}

/// The database that was moved aside last, by a salvage that was interrupted.
pub(super) fn last_aside(dir: &Path) -> Result<Option<PathBuf>, StoreError> {
    let entries = fs::read_dir(dir).map_err(|error| StoreError::io("read", dir, error))?;
    let stamps = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let stamp = path
            .file_name()?
            .to_str()?
            .strip_prefix(ASIDE)?
            .parse::<u128>()
            .ok()?;
        Some((stamp, path))
    });
    Ok(stamps.max().map(|(_, path)| path))
}
