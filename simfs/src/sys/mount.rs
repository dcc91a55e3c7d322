//! Mounts: detached clones, FUSE mounts, the process's own view of the host, and what statfs says.
//!
//! Paths here are the host administrator's. No locks.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

/// When reading updates the access time, on one mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum AtimePolicy {
    /// As the mount that it was made from.
    #[default]
    Inherited,
    /// Never.
    Noatime,
    /// When it is a day old, or older than the modification.
    Relatime,
    /// Always.
    Strictatime,
}

/// A detached copy of the mount that `dir` is on, with `dir` as its root and without the mounts below it.
///
/// Nobody else sees it, and `..` at its root stays there. It lasts as long as the descriptor (O_PATH). `EPERM` without
/// CAP_SYS_ADMIN, `EINVAL` on a mount that must not be cloned, `ENOSYS` before Linux 5.2.
pub fn clone_detached(dir: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(dir, "", flags)?)
}

/// Sets the access-time policy of the mount whose root is `mount`, and cuts it off from mount events elsewhere.
pub fn set_private(mount: impl AsFd, atime: AtimePolicy) -> io::Result<()> {
    let set = match atime {
        AtimePolicy::Inherited => None,
        AtimePolicy::Noatime => Some(libc::MOUNT_ATTR_NOATIME),
        AtimePolicy::Relatime => Some(libc::MOUNT_ATTR_RELATIME),
        AtimePolicy::Strictatime => Some(libc::MOUNT_ATTR_STRICTATIME),
    };
    set_attributes(
        mount.as_fd(),
        &libc::mount_attr {
            attr_set: set.unwrap_or(0),
            // mount_setattr(2): the policy is an enumeration, all of it must be cleared to set one.
            attr_clr: if set.is_some() {
                libc::MOUNT_ATTR__ATIME
            } else {
                0
            },
            propagation: libc::MS_PRIVATE,
            userns_fd: 0,
        },
    )
}

/// Shows a detached mount's ids as those of a user namespace: id 7 of the file system is then what 7 inside the namespace is
/// outside, and the other way round.
///
/// `EINVAL` where the file system does not let its ids be mapped, or the mount is attached already.
pub fn map_ids(mount: impl AsFd, user_namespace: impl AsFd) -> io::Result<()> {
    let number = user_namespace.as_fd().as_raw_fd();
    set_attributes(
        mount.as_fd(),
        &libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_IDMAP,
            attr_clr: 0,
            propagation: libc::MS_PRIVATE,
            userns_fd: u64::from(number.unsigned_abs()),
        },
    )
}

fn set_attributes(mount: BorrowedFd<'_>, attributes: &libc::mount_attr) -> io::Result<()> {
    // SAFETY: the path is a literal with its zero byte; the kernel reads one `struct mount_attr` of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Attaches a detached mount at a path.
pub fn attach(mount: impl AsFd, target: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(
        mount,
        "",
        rustix::fs::CWD,
        target,
        flags,
    )?)
}

/// mount(2) with the filesystem's own options in `data` (FUSE: `fd=N,rootmode=40000,user_id=0,group_id=0,…`).
pub fn mount(
    source: &Path,
    target: &Path,
    fs_type: &str,
    flags: MountFlags,
    data: &CStr,
) -> io::Result<()> {
    Ok(rustix::mount::mount(source, target, fs_type, flags, data)?)
}

/// umount2(2).
pub fn unmount(target: &Path, flags: UnmountFlags) -> io::Result<()> {
    Ok(rustix::mount::unmount(target, flags)?)
}

/// Makes `target` and everything mounted below private: no mount event comes in or goes out.
pub fn make_private(target: &Path) -> io::Result<()> {
    let flags =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change(target, flags)?)
}

/// pivot_root(2).
pub fn pivot_root(new_root: &Path, put_old: &Path) -> io::Result<()> {
    Ok(rustix::process::pivot_root(new_root, put_old)?)
}

/// Gives the calling thread a mount namespace of its own; the other threads of the process stay where they are.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: mount namespace and working directory stop being shared; no descriptor table is touched.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?)
}

/// What statfs(2) says of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsStat {
    /// Its magic number.
    pub magic: u32,
    /// Unit of the block counts, bytes (`f_frsize`).
    pub block_size: u32,
    /// All blocks.
    pub total: u64,
    /// Free blocks.
    pub free: u64,
    /// Blocks free for an ordinary user.
    pub available: u64,
    /// All inodes; 0 where they are made as needed.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Longest name, bytes.
    pub name_max: u32,
    /// Whether the mount is read-only.
    pub read_only: bool,
}

/// The filesystem behind a descriptor; O_PATH will do.
pub fn statfs(fd: impl AsFd) -> io::Result<FsStat> {
    let raw = rustix::fs::fstatfs(fd)?;
    let small = |number: i64| u32::try_from(number).unwrap_or(0);
    // f_type is signed on some architectures; the magic number is its low 32 bits.
    let magic = u32::try_from(raw.f_type & 0xffff_ffff).unwrap_or(0);
    let block_size = if raw.f_frsize > 0 {
        raw.f_frsize
    } else {
        raw.f_bsize
    };
    Ok(FsStat {
        magic,
        block_size: small(block_size),
        total: raw.f_blocks,
        free: raw.f_bfree,
        available: raw.f_bavail,
        files: raw.f_files,
        files_free: raw.f_ffree,
        name_max: small(raw.f_namelen),
        read_only: raw.f_flags & i64::try_from(libc::ST_RDONLY).unwrap_or(0) != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{open, stat};
    use std::ffi::OsStr;

    #[test]
    fn a_clone_is_rooted_in_its_directory() {
        let area = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(area.path().join("f"), b"").unwrap();
        let dir = open::open_dir_path(area.path()).unwrap();
        let clone = clone_detached(&dir).unwrap();
        set_private(&clone, AtimePolicy::Noatime).unwrap();
        let (inside, outside) = (stat::stat_fd(&clone).unwrap(), stat::stat_fd(&dir).unwrap());
        assert_eq!((inside.ino, inside.dev), (outside.ino, outside.dev));
        assert_ne!(inside.mount, outside.mount);
        assert!(stat::stat_at(&clone, OsStr::new("f")).is_ok());
        let above = open::open_parent(open::open_dir(&clone).unwrap()).unwrap();
        assert_eq!(
            stat::stat_fd(&above).unwrap().ino,
            outside.ino,
            "dot-dot stays at the root"
        );
    }

    #[test]
    fn statfs_agrees_with_statvfs() {
        let area = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = open::open_dir_path(area.path()).unwrap();
        let stat = statfs(&dir).unwrap();
        let expected = rustix::fs::fstatvfs(&dir).unwrap();
        assert_eq!(u64::from(stat.block_size), expected.f_frsize);
        assert_eq!(
            (stat.total, stat.files),
            (expected.f_blocks, expected.f_files)
        );
        assert_eq!((stat.name_max, stat.read_only), (255, false));
    }

    #[test]
    fn a_thread_mounts_in_its_own_namespace_only() {
        let area = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                unshare_mounts().unwrap();
                make_private(Path::new("/")).unwrap();
                mount(
                    Path::new("none"),
                    area.path(),
                    "tmpfs",
                    MountFlags::empty(),
                    c"size=64k",
                )
                .unwrap();
                let dir = open::open_dir_path(area.path()).unwrap();
                assert_eq!(statfs(&dir).unwrap().total * 4096, 65536);
                let clone = clone_detached(&dir).unwrap();
                unmount(area.path(), UnmountFlags::DETACH).unwrap();
                attach(&clone, area.path()).unwrap();
                std::fs::write(area.path().join("x"), b"").unwrap();
                unmount(area.path(), UnmountFlags::DETACH).unwrap();
            });
        });
        assert_eq!(std::fs::read_dir(area.path()).unwrap().count(), 0);
    }
}
