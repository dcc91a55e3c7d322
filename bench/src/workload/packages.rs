//! A Debian package is installed: what apt-get leaves to the file system is dpkg's unpacking, with its fsyncs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Place, Workload};
use crate::measure::{Sample, Unit, timed};
use crate::programs::{Program, command, output, run_in};

pub(super) struct Packages;

/// Where the package is kept between runs.
const CACHE: &str = "/var/cache/simfs-bench";
/// A package of many small files, on which nothing depends here.
const PACKAGE: &str = "perl-modules-5.36";
/// One of a few files.
const SMALL_PACKAGE: &str = "less";
const DOWNLOAD: Duration = Duration::from_secs(120);

impl Workload for Packages {
    fn name(&self) -> String {
        "package".to_owned()
    }

    fn about(&self) -> &'static str {
        "dpkg unpacks and removes a cached Debian package of 1,400 files (of a few quick) in a root of its own"
    }

    fn programs(&self) -> &'static [Program] {
        const { &[Program::new("dpkg", "dpkg"), Program::new("apt-get", "apt")] }
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let package = match place.scale.pick(0, 1) {
            0 => SMALL_PACKAGE,
            _ => PACKAGE,
        };
        let archive = cached(package)?;
        let root = place.dir.join("root");
        fs::create_dir_all(root.join("var/lib/dpkg/info"))?;
        fs::create_dir_all(root.join("var/lib/dpkg/updates"))?;
        fs::write(root.join("var/lib/dpkg/status"), "")?;
        let dpkg = |words: &[&str]| {
            let mut dpkg = command("dpkg", ["--force-all", "--no-triggers"]);
            dpkg.arg("--root").arg(&root);
            dpkg.arg("--log").arg(place.dir.join("log")).args(words);
            run_in(place.dir, &mut dpkg)
        };
        let path = archive.to_string_lossy();
        Ok(vec![
            timed("dpkg-unpack", 1, Unit::Runs, || dpkg(&["--unpack", &path]))?,
            timed("dpkg-purge", 1, Unit::Runs, || dpkg(&["--purge", package]))?,
        ])
    }
}

fn cached(package: &str) -> Result<PathBuf> {
    fs::create_dir_all(CACHE)?;
    if let Some(found) = find(package)? {
        return Ok(found);
    }
    let mut download = command("apt-get", ["download", "-q", package]);
    output(download.current_dir(CACHE), DOWNLOAD)?;
    find(package)?.with_context(|| format!("apt-get did not leave {package}"))
}

fn find(package: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(Path::new(CACHE))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_deb = path.extension().is_some_and(|extension| extension == "deb");
        if is_deb && name.starts_with(&format!("{package}_")) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
