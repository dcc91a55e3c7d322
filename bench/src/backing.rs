//! The file system that a run happens on.
//!
//! An ext4 without a journal does not give the number of a removed file to a new one for minutes, and looks for another one
//! each time: where many files were removed, making one takes a millisecond instead of a few microseconds, natively as through
//! any server. Every peer then seems as fast as the native file system. A run on such a file system therefore makes one of
//! its own: an ext4 with a journal, in a sparse image on a loop device.
//!
//! # Source
//! Linux `fs/ext4/ialloc.c`, `recently_deleted`.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::programs::{command, output};
use crate::terminal::progress;

/// None of the commands takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than the largest workload of all peers together needs, in bytes.
const IMAGE: u64 = 16 << 30;
/// Of ext2, ext3 and ext4 alike.
const EXT_MAGIC: u64 = 0xEF53;

/// Where the run works, and what it is.
#[derive(Debug)]
pub(crate) struct Backing {
    dir: PathBuf,
    about: String,
    is_image: bool,
}

impl Backing {
    /// Below this directory: itself, or an image mounted in it. Must be dropped before the directory is removed.
    pub(crate) fn below(dir: &Path, as_it_is: bool) -> Result<Self> {
        let kind = output(command("stat", ["-f", "-c", "%T"]).arg(dir), PATIENCE)?;
        let own = |about: String| Self {
            dir: dir.to_owned(),
            about,
            is_image: false,
        };
        if !lacks_journal(dir)? {
            return Ok(own(kind.trim().to_owned()));
        }
        if !as_it_is {
            match Self::image(dir) {
                Ok(image) => return Ok(image),
                Err(error) => progress(&format!("no image with a journal: {error:#}")),
            }
        }
        let about = "ext4 without a journal: figures of making files are not fit for comparison with other machines";
        progress(about);
        Ok(own(about.to_owned()))
    }

    fn image(dir: &Path) -> Result<Self> {
        let (image, mountpoint) = (dir.join("image"), dir.join("ext4"));
        File::create_new(&image)?.set_len(IMAGE)?;
        fs::create_dir(&mountpoint)?;
        // All is made before the run begins, nothing in the background during it.
        let options = ["-q", "-F", "-i", "65536", "-E", "lazy_itable_init=0"];
        let mut make = command("mkfs.ext4", options);
        output(make.arg(&image), PATIENCE)?;
        let mut attach = command("losetup", ["--find", "--show", "--direct-io=on"]);
        let device = output(attach.arg(&image), PATIENCE)?.trim().to_owned();
        let mounted = output(
            command("mount", ["-t", "ext4", &device]).arg(&mountpoint),
            PATIENCE,
        );
        // It goes with its last user, which is the mount.
        let detached = output(&mut command("losetup", ["-d", &device]), PATIENCE);
        mounted?;
        let backing = Self {
            dir: mountpoint,
            about:
                "ext4 with a journal, in an image on a loop device (the directory's own has none)"
                    .to_owned(),
            is_image: true,
        };
        detached?;
        Ok(backing)
    }

    /// Where to work.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it is, for the record.
    pub(crate) fn about(&self) -> &str {
        &self.about
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        if self.is_image && output(command("umount", ["--"]).arg(&self.dir), PATIENCE).is_err() {
            let _ = output(command("umount", ["-l"]).arg(&self.dir), PATIENCE);
        }
    }
}

/// Whether this is an ext4 without a journal.
fn lacks_journal(dir: &Path) -> Result<bool> {
    let kind = u64::try_from(rustix::fs::statfs(dir)?.f_type)?;
    if kind != EXT_MAGIC {
        return Ok(false);
    }
    let number = fs::metadata(dir)?.dev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))?;
    let device = device.file_name().context("a device without a name")?;
    let journals = match fs::read_dir("/proc/fs/jbd2") {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?,
        // No journal on the whole machine.
        Err(_) => Vec::new(),
    };
    Ok(!journals
        .iter()
        .any(|journal| is_of(journal, &device.to_string_lossy())))
}

/// Whether a journal, named for its device and inode, is that of a device.
fn is_of(journal: &str, device: &str) -> bool {
    journal
        .rsplit_once('-')
        .is_some_and(|(name, inode)| name == device && inode.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_found_by_its_device() {
        assert!(is_of("vda-8", "vda"));
        assert!(is_of("dm-0-8", "dm-0"));
        assert!(!is_of("vda1-8", "vda"));
        assert!(!is_of("dm-0-8", "dm"));
        assert!(!is_of("vda-", "vda"));
    }

    #[test]
    fn another_file_system_lacks_nothing() {
        assert!(!lacks_journal(Path::new("/proc")).unwrap());
    }
}
