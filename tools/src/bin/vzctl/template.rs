//! Unpacking a template into a directory that no quota counts as yet.
//!
//! A template is `TEMPLATE/cache/NAME.tar`, also `.gz`, `.xz`, `.bz2` or `.zst`, or the directory `NAME` there: that
//! one is cloned where the file system can. Owners are taken by number.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use simfs_tools::archive;
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::paths::Paths;

use crate::{Fallible, program};

/// Suffixes of template files, in the order they are looked for.
const FORMS: [&str; 5] = ["tar", "tar.gz", "tar.xz", "tar.zst", "tar.bz2"];

/// A template that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    Archive(PathBuf),
    Tree(PathBuf),
}

/// Finds a template by name.
///
/// # Errors
/// `NoTemplate`, `Value` for what is no name.
pub(crate) fn find(paths: &Paths, name: &str) -> Fallible<Template> {
    if name.contains('/') || name.starts_with('.') || name.is_empty() {
        return Err(Failure::new(
            VzctlExit::Value,
            format!("--ostemplate: '{name}' is not the name of a template"),
        ));
    }
    let cache = paths.template().join("cache");
    let tree = cache.join(name);
    if tree.is_dir() {
        return Ok(Template::Tree(tree));
    }
    let found = FORMS.into_iter().find_map(|suffix| {
        let path = cache.join(format!("{name}.{suffix}"));
        path.is_file().then_some(Template::Archive(path))
    });
    found.ok_or_else(|| {
        Failure::new(
            VzctlExit::NoTemplate,
            format!(
                "template '{name}' is not in {}: see 'vzpkg list', or make it with 'vzpkg cache {name}'",
                cache.display()
            ),
        )
    })
}

/// Unpacks into an empty directory.
///
/// # Errors
/// `NoSpace`, `Private`: what tar or cp says.
pub(crate) fn unpack(template: &Template, target: &Path) -> Fallible<()> {
    let unpacked = match template {
        Template::Tree(tree) => program::host(
            "cp",
            [
                "--archive".as_ref(),
                "--reflink=auto".as_ref(),
                "--sparse=auto".as_ref(),
                tree.join(".").as_os_str(),
                target.as_os_str(),
            ],
        )
        .map(|_| ()),
        Template::Archive(path) => archive::unpack(path, target),
    };
    unpacked.map_err(|why| {
        let exit = if why.contains("No space left") || why.contains("quota exceeded") {
            VzctlExit::NoSpace
        } else {
            VzctlExit::Private
        };
        Failure::new(exit, why)
    })
}

/// Removes a tree, also one that is not there.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
