//! The decoy: a tiny read-only ext4, mounted with the source `/dev/simfs`, that gives a VE's mount table a line of a
//! type that quota tools accept. One superblock serves every VE of the host; VEs bind it.
//!
//! ```text
//! PREFIX/run/simfs/decoy/lock    held while it is made or removed
//!                        image   1 MiB, made once by mkfs.ext4
//!                        mnt     where it is mounted: the source of the VEs' bind mounts
//! ```
//!
//! The source string must be the path of a node when the filesystem is mounted, and stays as it was afterwards. So a
//! thread with a mount namespace of its own makes a node of that name there, mounts it detached, and ends; the mount
//! is then attached in the namespace of the process. Nothing of this needs to exist after that: the loop device goes
//! away with its last mount.
//!
//! [`ensure`] and [`remove`] are for programs of the host, not for a confined daemon. Processes may call them at the
//! same time.
//!
//! # Source
//! mount_namespaces(7); Linux `fs/namespace.c`, `fsmount` and `move_mount`; linuxquota `quotasys.c` for what the
//! tools accept.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, FlockOperation, Mode};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags};

use crate::quotactl::serve::DEVICE_PATH;
use crate::sys::{loop_device, mount};

const IMAGE_SIZE: &str = "1M";
const IMAGE_INODES: &str = "16";

/// Why there is no decoy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecoyError {
    /// A step failed.
    #[error("decoy: {step} {}: {error}", path.display())]
    Io {
        /// What was done.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        error: io::Error,
    },
    /// mkfs.ext4 ended with an error.
    #[error("decoy: mkfs.ext4 {}: {message}", path.display())]
    MakeFilesystem {
        /// The image.
        path: PathBuf,
        /// What it said.
        message: String,
    },
}

/// Adds what was done to an error of the system.
fn failed<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> DecoyError {
    let path = path.to_owned();
    move |error| DecoyError::Io {
        step,
        path,
        error: error.into(),
    }
}

/// Makes the decoy unless it is there, and returns the path to bind into VEs. `run_root` is `PREFIX/run/simfs`.
///
/// # Errors
/// [`DecoyError`]; needs root, the loop driver and mkfs.ext4 (package e2fsprogs).
pub fn ensure(run_root: &Path) -> Result<PathBuf, DecoyError> {
    let dir = run_root.join("decoy");
    let target = dir.join("mnt");
    for path in [&dir, &target] {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
        made.map_err(failed("creating", path))?;
    }
    let _lock = lock(&dir)?;
    if is_mounted(&target).map_err(failed("looking at", &target))? {
        return Ok(target);
    }
    let image = dir.join("image");
    if !image.exists() {
        make_image(&image)?;
    }
    let device = loop_device::attach_read_only(&image);
    let device = device.map_err(failed("attaching a loop device to", &image))?;
    let tree = std::thread::scope(|scope| {
        let made = scope.spawn(|| mount_detached(&device)).join();
        made.unwrap_or_else(|_| Err(io::Error::other("the mounting thread failed")))
    });
    let tree = tree.map_err(failed("mounting", &image))?;
    mount::attach(tree.as_fd(), &target).map_err(failed("attaching to", &target))?;
    Ok(target)
}

/// Removes the decoy from the host; what VEs have bound stays with them until they end. Nothing there is no error.
///
/// # Errors
/// [`DecoyError`] if something of it could not be removed.
pub fn remove(run_root: &Path) -> Result<(), DecoyError> {
    let dir = run_root.join("decoy");
    if !dir.exists() {
        return Ok(());
    }
    let _lock = lock(&dir)?;
    let target = dir.join("mnt");
    while target.exists() && is_mounted(&target).map_err(failed("looking at", &target))? {
        mount::unmount(&target, UnmountFlags::DETACH).map_err(failed("unmounting", &target))?;
    }
    std::fs::remove_dir_all(&dir).map_err(failed("removing", &dir))
}

fn lock(dir: &Path) -> Result<File, DecoyError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(failed("creating", &path))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(failed("locking", &path))?;
    Ok(file)
}

/// Whether something is mounted there; only we have the directory, so it is the decoy.
fn is_mounted(target: &Path) -> io::Result<bool> {
    let parent = target.parent().unwrap_or(target);
    Ok(std::fs::metadata(target)?.dev() != std::fs::metadata(parent)?.dev())
}

/// Makes the image under another name first: one that exists is complete.
fn make_image(image: &Path) -> Result<(), DecoyError> {
    let unfinished = image.with_extension("new");
    let _ = std::fs::remove_file(&unfinished);
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-b", "1024", "-m", "0", "-N", IMAGE_INODES])
        .args(["-O", "^has_journal,^quota"])
        .arg(&unfinished)
        .arg(IMAGE_SIZE)
        .stdin(Stdio::null())
        .output()
        .map_err(failed("running mkfs.ext4 (package e2fsprogs) for", image))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DecoyError::MakeFilesystem {
            path: image.to_owned(),
            message,
        });
    }
    std::fs::rename(&unfinished, image).map_err(failed("renaming", &unfinished))
}

/// Mounts the device under the name `/dev/simfs`, attached nowhere. Takes the calling thread out of the process's
/// mount namespace, so it must end afterwards.
fn mount_detached(device: &File) -> io::Result<OwnedFd> {
    mount::unshare_mounts()?;
    mount::make_private(Path::new("/"))?;
    mount::mount(
        Path::new("simfs"),
        Path::new("/dev"),
        "tmpfs",
        MountFlags::empty(),
        c"",
    )?;
    let mode = Mode::from_raw_mode(0o600);
    let number = device.metadata()?.rdev();
    rustix::fs::mknodat(CWD, DEVICE_PATH, FileType::BlockDevice, mode, number)?;
    let context = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", DEVICE_PATH)?;
    rustix::mount::fsconfig_set_flag(context.as_fd(), "ro")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(rustix::mount::fsmount(context.as_fd(), flags, attributes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Removes the decoy also when the test fails.
    struct Host(tempfile::TempDir);

    impl Drop for Host {
        fn drop(&mut self) {
            let _ = remove(self.0.path());
        }
    }

    fn table_line(target: &Path) -> Option<String> {
        let table = std::fs::read_to_string("/proc/mounts").unwrap();
        let target = format!(" {} ", target.display());
        table
            .lines()
            .find(|line| line.contains(&target))
            .map(str::to_owned)
    }

    fn loops(dir: &Path) -> usize {
        let output = Command::new("losetup")
            .args(["-l", "-n", "-O", "BACK-FILE"])
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.lines()
            .filter(|line| line.starts_with(dir.to_str().unwrap()))
            .count()
    }

    #[test]
    fn the_decoy_is_made_once_and_leaves_nothing() {
        let host = Host(tempfile::tempdir().unwrap());
        let run_root = host.0.path();
        let target = ensure(run_root).unwrap();
        let line = table_line(&target).unwrap();
        assert!(
            line.starts_with(&format!("/dev/simfs {} ext4 ro,", target.display())),
            "{line}"
        );
        for option in ["nosuid", "nodev", "noexec"] {
            assert!(line.contains(option), "{line}");
        }
        assert_eq!(ensure(run_root).unwrap(), target);
        assert_eq!(loops(run_root), 1);
        // The source was named in another namespace only.
        assert!(!Path::new(DEVICE_PATH).exists());
        remove(run_root).unwrap();
        assert_eq!(table_line(&target), None);
        assert_eq!(loops(run_root), 0);
        assert!(!run_root.join("decoy").exists());
        remove(run_root).unwrap();
        // And again, from nothing.
        assert_eq!(ensure(run_root).unwrap(), target);
    }

    #[test]
    fn many_at_once_make_one() {
        let host = Host(tempfile::tempdir().unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| ensure(host.0.path()).unwrap());
            }
        });
        assert_eq!(loops(host.0.path()), 1);
    }
}
