//! What a private area lies on: the host's file system, or one made for the test on a loop device or in memory.

use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use super::command::run;
use super::require;

/// The kinds of file system below a private area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// Whatever holds the test directory.
    #[default]
    Host,
    /// A loop device of this many MiB with ext4, 1 KiB or 4 KiB blocks as mke2fs decides.
    Ext4 {
        mib: u64,
    },
    Xfs {
        mib: u64,
    },
    Btrfs {
        mib: u64,
    },
    /// Memory, of this many MiB.
    Tmpfs {
        mib: u64,
    },
}

/// A mounted file system that goes away on drop.
#[derive(Debug)]
pub(crate) struct Backing {
    dir: PathBuf,
    mounted: bool,
}

impl Backing {
    /// Makes the file system at `base/backing`; `None` after a skip.
    pub(crate) fn new(kind: Kind, base: &Path) -> Option<Self> {
        let dir = base.join("backing");
        std::fs::create_dir(&dir).expect("directory of the backing");
        let (mkfs, args, mib): (&str, &[&str], u64) = match kind {
            Kind::Host => {
                return Some(Self {
                    dir,
                    mounted: false,
                });
            }
            Kind::Tmpfs { mib } => return Some(Self::in_memory(dir, mib)),
            Kind::Ext4 { mib } => ("ext4", &["-q", "-F"], mib),
            Kind::Xfs { mib } => ("xfs", &["-q", "-f"], mib),
            Kind::Btrfs { mib } => ("btrfs", &["-q", "-f"], mib),
        };
        let program = format!("mkfs.{mkfs}");
        if !require::file_system(mkfs) || !require::programs(&[&program, "losetup"]) {
            return None;
        }
        let image = base.join("image");
        let file = std::fs::File::create(&image).expect("image");
        file.set_len(mib << 20).expect("size of the image");
        run(
            &program,
            args.iter().map(AsRef::as_ref).chain([image.as_os_str()]),
        )
        .ok();
        // The loop device ends with the mount: mount(8) sets autoclear.
        run(
            "mount",
            [
                "-o".as_ref(),
                "loop".as_ref(),
                image.as_os_str(),
                dir.as_os_str(),
            ],
        )
        .ok();
        Some(Self { dir, mounted: true })
    }

    fn in_memory(dir: PathBuf, mib: u64) -> Self {
        let size = format!("size={mib}m");
        run(
            "mount",
            [
                "-t".as_ref(),
                "tmpfs".as_ref(),
                "-o".as_ref(),
                size.as_ref(),
                "tmpfs".as_ref(),
                dir.as_os_str(),
            ],
        )
        .ok();
        Self { dir, mounted: true }
    }

    /// Its root directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        if self.mounted {
            let _already_gone = unmount(&self.dir, UnmountFlags::DETACH);
        }
    }
}
