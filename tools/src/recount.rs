//! Counting a private area that is not mounted.

use std::path::Path;

use quota::{Inodes, Tally};
use simfs::private::{AtimePolicy, PrivateArea, PrivateError};
use simfs::scan::{Progress, ScanError, scan_at_rest};
use thiserror::Error;

use crate::progress::Bar;

/// Why a private area could not be counted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecountError {
    /// It cannot be used.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// The walk failed.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// A walk's progress on a bar.
struct Shown<'a> {
    bar: &'a mut Bar,
    expected: Inodes,
}

impl Progress for Shown<'_> {
    fn inodes(&mut self, seen: Inodes) {
        self.bar.show(seen.get(), self.expected.get());
    }
}

/// What the private area holds. Nobody can mount it meanwhile.
///
/// # Errors
/// Missing, not a directory, in use by a mount, spanning file systems, or unreadable.
pub fn recount(private: &Path, expected: Inodes, bar: &mut Bar) -> Result<Tally, RecountError> {
    let area = PrivateArea::open(private, AtimePolicy::Noatime)?;
    Ok(scan_at_rest(&area, &mut Shown { bar, expected })?)
}
