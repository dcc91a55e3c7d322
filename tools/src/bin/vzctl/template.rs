//! Unpacking a template into a directory that no quota counts as yet.
//!
//! A template is `TEMPLATE/cache/NAME.tar`, also `.gz`, `.xz`, `.bz2` or `.zst`, or the directory `NAME` there: that
//! one is cloned where the file system can. Owners are taken by number.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::paths::Paths;
use simfs_tools::progress::Bar;

use crate::{Fallible, program};

/// Suffixes of template files and the option that makes tar read them, in the order they are looked for.
const FORMS: [(&str, &str); 5] = [
    ("tar", ""),
    ("tar.gz", "--gzip"),
    ("tar.xz", "--xz"),
    ("tar.zst", "--zstd"),
    ("tar.bz2", "--bzip2"),
];
const CHUNK: usize = 1 << 20;
const MIB: u64 = 1 << 20;

/// A template that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    Archive { path: PathBuf, option: &'static str },
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
    let found = FORMS.into_iter().find_map(|(suffix, option)| {
        let path = cache.join(format!("{name}.{suffix}"));
        path.is_file().then_some(Template::Archive { path, option })
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
        Template::Archive { path, option } => untar(path, option, target),
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

fn untar(archive: &Path, option: &str, target: &Path) -> Result<(), String> {
    let said = |error: io::Error| format!("{}: {error}", archive.display());
    let file = File::open(archive).map_err(said)?;
    let size = file.metadata().map_err(said)?.len();
    let mut command = Command::new("tar");
    command
        .args(["--extract", "--numeric-owner", "--same-owner"])
        .args(["--preserve-permissions", "--xattrs", "--xattrs-include=*"])
        .args(["--sparse", "--file=-", "--directory"])
        .arg(target)
        .args(Some(option).filter(|option| !option.is_empty()))
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("tar: {error}"))?;
    let fed = feed(&mut child, file, size);
    let output = child
        .wait_with_output()
        .map_err(|error| format!("tar: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // The first complaint is the cause, the rest follows from it.
        let line = text.lines().next().unwrap_or("tar failed");
        return Err(format!("{}: {line}", archive.display()));
    }
    fed.map_err(said)
}

/// Hands the archive to tar, and shows how much of it is done.
fn feed(child: &mut Child, mut archive: File, size: u64) -> io::Result<()> {
    let Some(mut input) = child.stdin.take() else {
        return Ok(());
    };
    let mut bar = Bar::counting("unpacking", "MiB");
    let mut chunk = vec![0; CHUNK];
    let mut done = 0u64;
    loop {
        let length = archive.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        match input.write_all(bytes) {
            // tar has ended, well or not: its exit code tells.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        done = done.saturating_add(u64::try_from(length).unwrap_or(0));
        bar.show(done / MIB, size / MIB);
    }
}

/// Removes a tree, also one that is not there.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
