//! The decoy: a tiny read-only ext4, mounted with the source `/dev/simfs`, that gives a VE's mount table a line of a
//! type that quota tools accept. One superblock serves every VE of the host; VEs bind it.
//!
//! ```text
//! PREFIX/run/simfs/decoy/image    1 MiB, made by mkfs.ext4
//!                        mnt      where it is mounted: the source of the VEs' bind mounts
//!                        ve/101   one empty file for each VE that was given it
//! ```
//!
//! The source string must be the path of a node when the filesystem is mounted, and stays as it was afterwards. So a
//! thread with a mount namespace of its own makes a node of that name there, mounts it detached, and ends; the mount
//! is then attached in the namespace of the process. Nothing of this needs to exist after that: the loop device goes
//! away with its last mount.
//!
//! It goes away with the last VE that was given it. [`ensure`] and [`release`] are for programs of the host, not for a
//! confined daemon. Processes may call them at the same time: a lock on PREFIX/run/simfs excludes one another.
//!
//! # Source
//! mount_namespaces(7); Linux `fs/namespace.c`, `fsmount` and `move_mount`; linuxquota `quotasys.c` for what the
//! tools accept.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use quota::VeId;
use rustix::fs::{CWD, FileType, FlockOperation, Mode};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags};

use crate::quotactl::serve::DEVICE_PATH;
use crate::sys::{loop_device, mount};

const NAME: &str = "decoy";
/// Whoever was given the decoy.
const HOLDERS: &str = "ve";
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

/// Makes the decoy unless it is there, and returns the path to bind into this VE. `run_root` is `PREFIX/run/simfs`.
///
/// # Errors
/// [`DecoyError`]; needs root, the loop driver and mkfs.ext4 (package e2fsprogs).
pub fn ensure(run_root: &Path, ve: VeId) -> Result<PathBuf, DecoyError> {
    let _lock = lock(run_root)?;
    let dir = run_root.join(NAME);
    let (target, holders) = (dir.join("mnt"), dir.join(HOLDERS));
    for path in [&dir, &target, &holders] {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
        made.map_err(failed("creating", path))?;
    }
    let holder = holders.join(ve.to_string());
    File::create(&holder).map_err(failed("creating", &holder))?;
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

/// This VE needs the decoy no more; when it was the last, the decoy is removed from the host. What containers have
/// bound stays with them until they end. Nothing there is no error.
///
/// # Errors
/// [`DecoyError`] if something of it could not be removed.
pub fn release(run_root: &Path, ve: VeId) -> Result<(), DecoyError> {
    let dir = run_root.join(NAME);
    let holders = dir.join(HOLDERS);
    if !holders.exists() {
        return Ok(());
    }
    let _lock = lock(run_root)?;
    let holder = holders.join(ve.to_string());
    match fs::remove_file(&holder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("removing", &holder)(error));
        }
        _ => {}
    }
    // Fails as long as another VE stands there, or when another process was faster.
    match fs::remove_dir(&holders) {
        Ok(()) => remove(&dir),
        Err(_) => Ok(()),
    }
}

fn remove(dir: &Path) -> Result<(), DecoyError> {
    let target = dir.join("mnt");
    while target.exists() && is_mounted(&target).map_err(failed("looking at", &target))? {
        mount::unmount(&target, UnmountFlags::DETACH).map_err(failed("unmounting", &target))?;
    }
    fs::remove_dir_all(dir).map_err(failed("removing", dir))
}

/// The directory outlives the decoy, so whoever waited for the lock sees what is there now.
fn lock(run_root: &Path) -> Result<File, DecoyError> {
    let dir = File::open(run_root).map_err(failed("opening", run_root))?;
    rustix::fs::flock(&dir, FlockOperation::LockExclusive).map_err(failed("locking", run_root))?;
    Ok(dir)
}

/// Whether something is mounted there; only we have the directory, so it is the decoy.
fn is_mounted(target: &Path) -> io::Result<bool> {
    let parent = target.parent().unwrap_or(target);
    Ok(fs::metadata(target)?.dev() != fs::metadata(parent)?.dev())
}

/// Makes the image under another name first: one that exists is complete.
fn make_image(image: &Path) -> Result<(), DecoyError> {
    let unfinished = image.with_extension("new");
    let _ = fs::remove_file(&unfinished);
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
    fs::rename(&unfinished, image).map_err(failed("renaming", &unfinished))
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
            let dir = self.0.path().join(NAME);
            if dir.exists() {
                let _ = remove(&dir);
            }
        }
    }

    fn table_line(target: &Path) -> Option<String> {
        let table = fs::read_to_string("/proc/mounts").unwrap();
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
        let target = ensure(run_root, VeId::new(101)).unwrap();
        let line = table_line(&target).unwrap();
        assert!(
            line.starts_with(&format!("/dev/simfs {} ext4 ro,", target.display())),
            "{line}"
        );
        for option in ["nosuid", "nodev", "noexec"] {
            assert!(line.contains(option), "{line}");
        }
        assert_eq!(ensure(run_root, VeId::new(101)).unwrap(), target);
        assert_eq!(loops(run_root), 1);
        // The source was named in another namespace only.
        assert!(!Path::new(DEVICE_PATH).exists());
        release(run_root, VeId::new(101)).unwrap();
        assert_eq!(table_line(&target), None);
        assert_eq!(loops(run_root), 0);
        assert!(!run_root.join("decoy").exists());
        release(run_root, VeId::new(101)).unwrap();
        // And again, from nothing.
        assert_eq!(ensure(run_root, VeId::new(101)).unwrap(), target);
    }

    #[test]
    fn many_at_once_make_one() {
        let host = Host(tempfile::tempdir().unwrap());
        std::thread::scope(|scope| {
            for ve in 1..5 {
                let run_root = host.0.path();
                scope.spawn(move || ensure(run_root, VeId::new(ve)).unwrap());
            }
        });
        assert_eq!(loops(host.0.path()), 1);
    }

    #[test]
    fn it_stays_until_the_last_ve_goes() {
        let host = Host(tempfile::tempdir().unwrap());
        let run_root = host.0.path();
        let target = ensure(run_root, VeId::new(101)).unwrap();
        ensure(run_root, VeId::new(102)).unwrap();
        for _ in 0..2 {
            release(run_root, VeId::new(101)).unwrap();
            assert!(table_line(&target).is_some());
        }
        release(run_root, VeId::new(102)).unwrap();
        assert_eq!(table_line(&target), None);
        assert!(!run_root.join(NAME).exists());
    }
}
