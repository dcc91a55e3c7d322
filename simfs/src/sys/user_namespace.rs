//! A user namespace that nobody lives in, as a table of ids for a mount.
//!
//! # Source
//! user_namespaces(7), mount_setattr(2).

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};

/// The ids of a user namespace: `count` from 0 on inside, from these on outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first user id outside.
    pub uid: u32,
    /// The first group id outside.
    pub gid: u32,
    /// How many of each.
    pub count: u32,
}

/// Makes one; it lasts as long as the descriptor.
///
/// A namespace begins with a process of its own that has one thread, so unshare(1) makes it.
///
/// # Errors
/// The kernel's: `EPERM` without the right to map these ids.
pub fn make(range: IdRange) -> io::Result<OwnedFd> {
    let mut child = Command::new("unshare")
        .args(["--user", "sh", "-c", "echo; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("unshare: {error}")))?;
    let made = look(&mut child, range);
    // The end of its input is its own.
    drop(child.stdin.take());
    child.wait()?;
    made
}

fn look(child: &mut Child, range: IdRange) -> io::Result<OwnedFd> {
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    if line.is_empty() {
        return Err(io::Error::other(
            "unshare --user failed: are user namespaces allowed here?",
        ));
    }
    let dir = Path::new("/proc").join(child.id().to_string());
    for (name, first) in [("uid_map", range.uid), ("gid_map", range.gid)] {
        fs::write(dir.join(name), format!("0 {first} {}\n", range.count))?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir.join("ns/user"), flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mount;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_mount_shows_its_files_with_the_ids_of_a_namespace() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (area, view) = (dir.path().join("area"), dir.path().join("view"));
        fs::create_dir(&area).unwrap();
        fs::create_dir(&view).unwrap();
        fs::write(area.join("file"), "").unwrap();
        std::os::unix::fs::chown(area.join("file"), Some(7), Some(8)).unwrap();
        let range = IdRange {
            uid: 200_000,
            gid: 300_000,
            count: 65_536,
        };
        let namespace = make(range).unwrap();
        let source = crate::sys::open::open_dir_path(&area).unwrap();
        let tree = mount::clone_detached(&source).unwrap();
        mount::map_ids(&tree, &namespace).unwrap();
        mount::attach(&tree, &view).unwrap();
        let seen = fs::metadata(view.join("file"));
        mount::unmount(&view, rustix::mount::UnmountFlags::DETACH).unwrap();
        let seen = seen.unwrap();
        assert_eq!((seen.uid(), seen.gid()), (200_007, 300_008));
        assert!(
            make(IdRange {
                uid: u32::MAX,
                ..range
            })
            .is_err()
        );
    }
}
