//! A VE with many files: empty ones, in directories of a hundred.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use rustix::mount::{UnmountFlags, unmount};

use crate::host::number;
use crate::interrupt::Interrupt;
use crate::programs::{command, output};

/// A command of simfs takes no longer than this; counting a million files when the record is made is the longest.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// Files in a directory.
const CROWD: u32 = 100;
/// The number of the first VE.
pub(crate) const FIRST: u32 = 20_001;
/// `vzquota init`: limits that are set and out of reach.
const LIMITS: [&str; 15] = [
    "-b",
    "1000G",
    "-B",
    "1000G",
    "-i",
    "100000000",
    "-I",
    "100000000",
    "-e",
    "7D",
    "-n",
    "7D",
    "-s",
    "1",
    "-p",
];

/// The VE; unmounted on drop.
pub(crate) struct CrowdedVe<'a> {
    prefix: &'a Path,
    bin_dir: &'a Path,
    name: String,
    pub(crate) files: u32,
    pub(crate) root: PathBuf,
}

impl<'a> CrowdedVe<'a> {
    /// Makes the files and the record; not mounted yet.
    pub(crate) fn new(
        prefix: &'a Path,
        bin_dir: &'a Path,
        number: u32,
        files: u32,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let name = number.to_string();
        let private = prefix.join("vz/private").join(&name);
        let root = prefix.join("vz/root").join(&name);
        fs::create_dir_all(&root)?;
        for file in 0..files {
            let path = private.join(place(file));
            if file % CROWD == 0 {
                interrupt.check()?;
                fs::create_dir_all(path.parent().unwrap_or(&private))?;
            }
            fs::File::create_new(path)?;
        }
        let ve = Self {
            prefix,
            bin_dir,
            name,
            files,
            root,
        };
        let path = private.to_string_lossy();
        let words = [&["init", &ve.name], &LIMITS[..], &[&*path]].concat();
        ve.run("vzquota", &words)?;
        Ok(ve)
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut program = command(self.bin_dir.join(program), ["--prefix"]);
        output(program.arg(self.prefix).args(words), PATIENCE)
    }

    /// `simfs VERB` on this VE.
    pub(crate) fn simfs(&self, verb: &str) -> Result<String> {
        self.run("simfs", &[verb, &self.name])
    }

    /// What `simfs status` says, in JSON.
    pub(crate) fn status(&self) -> Result<String> {
        self.run("simfs", &["status", &self.name, "--json"])
    }

    /// The daemon's process.
    pub(crate) fn daemon(&self) -> Result<u32> {
        number(&self.status()?, "pid")
    }

    /// Where the n-th file lies below the mount.
    pub(crate) fn path(&self, file: u32) -> PathBuf {
        self.root.join(place(file))
    }
}

impl Drop for CrowdedVe<'_> {
    fn drop(&mut self) {
        let _may_be_unmounted = self.simfs("umount");
        let _gone = unmount(&self.root, UnmountFlags::DETACH);
    }
}

/// Where the n-th file lies below the root.
pub(crate) fn place(file: u32) -> PathBuf {
    let dir = file / CROWD;
    PathBuf::from(format!("{}/{}/{file}", dir / CROWD, dir % CROWD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_have_one_place() {
        let places: std::collections::HashSet<_> = (0..25_000).map(place).collect();
        assert_eq!(places.len(), 25_000);
        assert_eq!(place(12_345), Path::new("1/23/12345"));
    }
}
