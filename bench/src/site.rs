//! Where a measurement takes place: the programs it is of, a directory to work in, another for what is recorded.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use tempfile::TempDir;

/// What every measurement but those of `run` and `compare` is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct Site {
    /// The programs of simfs.
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: PathBuf,
    /// Where the VEs are made (default: the temporary directory).
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where tables, figures and plots are recorded, as files named for what is measured.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Site {
    /// As [`scratch`].
    pub(crate) fn scratch(&self, name: &str) -> Result<TempDir> {
        scratch(self.dir.as_deref(), name)
    }

    /// Writes files by their names, if anything is to be recorded.
    pub(crate) fn record(&self, files: &[(&str, &str)]) -> Result<()> {
        let Some(out) = &self.out else { return Ok(()) };
        fs::create_dir_all(out).with_context(|| format!("{}", out.display()))?;
        for (name, content) in files {
            let path = out.join(name);
            fs::write(&path, content).with_context(|| format!("{}", path.display()))?;
        }
        Ok(())
    }
}

/// A directory for one run, below `base` or the temporary directory; removed on drop.
///
/// # Errors
/// Whoever is not root cannot mount what is measured there; what making a directory fails with.
pub(crate) fn scratch(base: Option<&Path>, name: &str) -> Result<TempDir> {
    if !rustix::process::geteuid().is_root() {
        bail!("mounting needs root: run as root");
    }
    let base = base.map_or_else(std::env::temp_dir, Path::to_path_buf);
    tempfile::Builder::new()
        .prefix(&format!("simfs-{name}"))
        .tempdir_in(&base)
        .with_context(|| format!("{}", base.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_goes_where_it_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let site = |out| Site {
            bin_dir: PathBuf::new(),
            dir: None,
            out,
        };
        site(None).record(&[("a.md", "lost")]).unwrap();
        let out = dir.path().join("new/runs");
        site(Some(out.clone()))
            .record(&[("a.md", "table"), ("a.csv", "1,2")])
            .unwrap();
        assert_eq!(fs::read_to_string(out.join("a.md")).unwrap(), "table");
        assert_eq!(fs::read_to_string(out.join("a.csv")).unwrap(), "1,2");
    }
}
