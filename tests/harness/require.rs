//! Tests that cannot run here say why, are counted, and fail in strict mode.

use std::fs::OpenOptions;
use std::io::Write;

/// Notes that a test is skipped; with `SIMFS_STRICT=1` it fails instead.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("unnamed").to_owned();
    assert!(
        std::env::var_os("SIMFS_STRICT").is_none_or(|v| v != "1"),
        "{test}: {reason}"
    );
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("SIMFS_SKIP_LOG") {
        let mut log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .expect("skip log");
        writeln!(log, "{test}: {reason}").expect("skip log");
    }
}

/// Whether these programs are installed; if not, the test is skipped.
#[must_use]
pub(crate) fn programs(names: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let places: Vec<_> = path.split(':').chain(["/usr/sbin", "/sbin"]).collect();
    let missing = names.iter().find(|name| {
        !places
            .iter()
            .any(|dir| std::path::Path::new(dir).join(name).exists())
    });
    if let Some(name) = missing {
        skip(&format!("'{name}' is not installed"));
    }
    missing.is_none()
}

/// Whether the kernel knows this file system; if not, the test is skipped.
#[must_use]
pub(crate) fn file_system(name: &str) -> bool {
    let _loads_the_module = std::process::Command::new("modprobe")
        .arg("-q")
        .arg(name)
        .status();
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let is_known = known.split_whitespace().any(|word| word == name);
    if !is_known {
        skip(&format!("this kernel has no {name}"));
    }
    is_known
}
