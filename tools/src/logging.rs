//! Where log lines go: standard error, or the file that a daemon in the background writes.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

/// The environment variable that sets the level, in the form of `tracing_subscriber::EnvFilter`.
pub const LEVEL_VARIABLE: &str = "SIMFS_LOG";

fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_env(LEVEL_VARIABLE).unwrap_or_else(|_| EnvFilter::new(default))
}

/// Logs to standard error. A second call changes nothing.
pub fn to_stderr(default_level: &str) {
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(filter(default_level))
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .try_init();
}

/// Appends to a file that only its owner may read. A second call changes nothing.
///
/// # Errors
/// The file cannot be opened.
pub fn to_file(path: &Path, default_level: &str) -> io::Result<()> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(filter(default_level))
        .with_writer(Mutex::new(file))
        .with_ansi(false)
        .try_init();
    Ok(())
}
