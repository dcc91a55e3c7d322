//! The file that says that a store must be here, and whose it is.
//!
//! It stands beside the database, so a database that is gone or empty is damage and not a new VE. It is the schema
//! record in a file of its own: magic, format, VE, checksum.

use std::path::Path;

use crate::subject::VeId;

use super::record::{self, SchemaRecord};
use super::{StoreError, sync_file};

pub(super) const FILE: &str = "identity";
const MAX_LEN: u64 = 1024;

/// Writes the file; durable when it returns.
pub(super) fn write(dir: &Path, ve: VeId) -> Result<(), StoreError> {
    let bytes = record::encode(FILE.as_bytes(), &SchemaRecord { ve });
    sync_file::replace(&dir.join(FILE), &bytes)
}

/// The VE named in the file, `None` when there is no file.
pub(super) fn read(dir: &Path) -> Result<Option<VeId>, StoreError> {
    let path = dir.join(FILE);
    let Some(bytes) = sync_file::read(&path, MAX_LEN)? else {
        return Ok(None);
    };
    match record::decode::<SchemaRecord>(FILE.as_bytes(), &bytes) {
        Ok(schema) => Ok(Some(schema.ve)),
        Err(record::RecordError::NewerFormat { found, known }) => {
            Err(StoreError::NewerFormat { found, known })
        }
        Err(error) => Err(StoreError::damaged_file(error.to_string(), &path)),
    }
}

/// Checks that a store belongs to this VE.
pub(super) fn check(expected: VeId, found: VeId) -> Result<(), StoreError> {
    if expected == found {
        Ok(())
    } else {
        Err(StoreError::ForeignVe { expected, found })
    }
}
