//! What is told on the terminal.

use std::io::Write as _;

use anyhow::Result;

/// One line for who waits.
pub(crate) fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A finished table.
pub(crate) fn say(text: &str) -> Result<()> {
    Ok(write!(std::io::stdout().lock(), "{text}")?)
}
