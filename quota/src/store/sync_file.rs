//! Small files that are replaced whole and durably.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::StoreError;

/// Replaces a file: temporary file beside it, fsync, rename, fsync of the directory.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let temporary = path.with_extension("tmp");
    let written = write_new(&temporary, content)
        .map_err(|error| StoreError::io("write", &temporary, error))
        .and_then(|()| {
            fs::rename(&temporary, path).map_err(|error| StoreError::io("rename", path, error))
        });
    if written.is_err() {
        // What is left would only take space; the next replacement truncates it anyway.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_dir(path.parent().unwrap_or(path))
}

/// The content of a file, `None` when there is no such file.
pub(super) fn read(path: &Path, max_len: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path, error)),
    };
    let mut content = Vec::new();
    file.take(max_len.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(|error| StoreError::io("read", path, error))?;
    if u64::try_from(content.len()).is_ok_and(|len| len <= max_len) {
        return Ok(Some(content));
    }
    Err(StoreError::damaged_file(
        format!("longer than {max_len} bytes"),
        path,
    ))
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    sync(dir)
}

/// Makes a file or a directory durable.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| StoreError::io("fsync", path, error))
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
