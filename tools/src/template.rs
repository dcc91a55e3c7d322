//! The templates that are there to make VEs from.
//!
//! A template is a file `NAME.tar`, also compressed, or a directory `NAME`, in the cache. What begins with a dot is
//! being made.

use std::fs;
use std::path::Path;

/// The ends of template files' names.
const SUFFIXES: [&str; 5] = [".tar", ".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2"];

/// The names of all templates in the cache, sorted.
pub fn names(cache: &Path) -> Vec<String> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| name(&entry.path())).collect();
    names.sort();
    names.dedup();
    names
}

/// The name of the template that a file of the cache is.
pub fn name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    if name.starts_with('.') {
        return None;
    }
    if path.is_dir() {
        return Some(name.to_owned());
    }
    let mut suffixes = SUFFIXES.iter();
    let short = suffixes.find_map(|suffix| name.strip_suffix(suffix))?;
    Some(short.to_owned())
}
