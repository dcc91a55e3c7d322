//! What a private area lies on: the host's file system, or one made for the test on a loop device or in memory.

use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use super::command::{eventually, run};
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
    /// What the loop device shows, where there is one.
    image: Option<PathBuf>,
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
                    image: None,
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
        let backing = Self {
            dir,
            mounted: true,
            image: Some(image),
        };
        backing.attach();
        Some(backing)
    }

    /// Mounts the image. The loop device ends with the mount: mount(8) sets autoclear.
    fn attach(&self) {
        let image = self.image.as_deref().expect("a loop device");
        run(
            "mount",
            [
                "-o".as_ref(),
                "loop".as_ref(),
                image.as_os_str(),
                self.dir.as_os_str(),
            ],
        )
        .ok();
    }

    /// The host loses power: from now on nothing is written out, what was not is lost, and all else fails with EIO.
    pub(crate) fn cut_power(&self) {
        run(
            "xfs_io",
            [
                "-x".as_ref(),
                "-c".as_ref(),
                "shutdown".as_ref(),
                self.dir.as_os_str(),
            ],
        )
        .ok();
    }

    /// The power is back: mounts what is on the disk. What used the file system must have ended.
    #[track_caller]
    pub(crate) fn power_up(&self) {
        let image = self.image.as_deref().expect("a loop device");
        eventually("the file system without power is let go", || {
            unmount(&self.dir, UnmountFlags::empty()).map_err(|error| error.to_string())
        });
        // As long as anybody holds the device, a mount of it would show the old file system again.
        eventually("the loop device ends", || {
            let users = run("losetup", ["-j".as_ref(), image.as_os_str()]).ok();
            match users.stdout.as_str() {
                "" => Ok(()),
                held => Err(held.to_owned()),
            }
        });
        self.attach();
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
        Self {
            dir,
            mounted: true,
            image: None,
        }
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
