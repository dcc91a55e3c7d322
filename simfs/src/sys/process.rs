//! What `/proc` says of the caller of a request.
//!
//! Read through a held descriptor of `/proc`, which works after the process gave up its view of the host. A caller that
//! is gone, or not visible from here (pid 0), is an error; callers then decide as for an unprivileged stranger.
//!
//! No locks.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use quota::Gid;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::thread::CapabilitySet;

use super::creds::GROUPS_MAX;

/// Bound on the length of a status file: all groups that Linux allows, and the rest.
const STATUS_MAX: usize = GROUPS_MAX * 11 + 16 * 1024;

/// A held `/proc`.
#[derive(Debug)]
pub struct CallerLook {
    proc_dir: OwnedFd,
}

/// A user namespace, as its inode number names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserNamespace(u64);

impl UserNamespace {
    /// The namespace with this inode number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}

impl CallerLook {
    /// Opens `/proc`.
    pub fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc_dir = rustix::fs::open(Path::new("/proc"), flags, Mode::empty())?;
        Ok(Self { proc_dir })
    }

    /// All groups of a thread, the one it makes files with first. Numbers are those of the host.
    pub fn groups(&self, pid: u32) -> io::Result<Vec<Gid>> {
        let status = self.status(pid)?;
        // Real, effective, saved, filesystem.
        let own = field(&status, "Gid:")?.split_whitespace().nth(3);
        let others = field(&status, "Groups:")?.split_whitespace();
        own.into_iter()
            .chain(others)
            .map(|group| group.parse().map(Gid::new).map_err(|_| malformed()))
            .collect()
    }

    /// How a thread's user namespace names the host's groups: the text of its `gid_map`.
    pub fn gid_map(&self, pid: u32) -> io::Result<String> {
        self.text(pid, "gid_map")
    }

    /// The effective capabilities of a thread, in its own user namespace.
    pub fn effective_capabilities(&self, pid: u32) -> io::Result<CapabilitySet> {
        let status = self.status(pid)?;
        let bits =
            u64::from_str_radix(field(&status, "CapEff:")?.trim(), 16).map_err(|_| malformed())?;
        Ok(CapabilitySet::from_bits_retain(bits))
    }

    /// The user namespace of a thread.
    pub fn user_namespace(&self, pid: u32) -> io::Result<UserNamespace> {
        namespace_of(&self.proc_dir, &visible(pid)?.to_string())
    }

    fn status(&self, pid: u32) -> io::Result<String> {
        self.text(pid, "status")
    }

    fn text(&self, pid: u32, name: &str) -> io::Result<String> {
        let path = format!("{}/{name}", visible(pid)?);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = std::fs::File::from(rustix::fs::openat(
            &self.proc_dir,
            path,
            flags,
            Mode::empty(),
        )?);
        let mut text = Vec::with_capacity(2048);
        let bound = u64::try_from(STATUS_MAX).map_err(io::Error::other)?;
        io::Read::read_to_end(&mut io::Read::take(file, bound), &mut text)?;
        // The name of the program may be any bytes.
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// A pid that is one: 0 stands for a thread outside of our pid namespace.
fn visible(pid: u32) -> io::Result<u32> {
    if pid == 0 {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    } else {
        Ok(pid)
    }
}

fn namespace_of(proc_dir: &OwnedFd, process: &str) -> io::Result<UserNamespace> {
    // The entry is a magic link to the namespace: it is followed, and its inode number is the answer.
    let path = format!("{process}/ns/user");
    Ok(UserNamespace(
        rustix::fs::statat(proc_dir, path, AtFlags::empty())?.st_ino,
    ))
}

/// What stands behind `key` at the start of a line. A newline in the name of the program is escaped there, so no
/// guest can forge a line.
fn field<'a>(status: &'a str, key: &str) -> io::Result<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a process status file that is not understood",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::creds::{self, Identity};

    fn own_thread() -> u32 {
        rustix::thread::gettid().as_raw_pid().cast_unsigned()
    }

    #[test]
    fn a_thread_is_described_as_it_is() {
        let look = CallerLook::open().unwrap();
        let groups = [Gid::new(7), Gid::new(70_000)];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                creds::prepare_thread().unwrap();
                let own = own_thread();
                let caller = Identity::assume_with_groups(0, 0, &groups, None).unwrap();
                assert_eq!(look.groups(own).unwrap().get(1..).unwrap(), groups);
                drop(caller);
                assert_eq!(look.groups(own).unwrap().len(), 1);
                let sets = rustix::thread::capabilities(None).unwrap();
                assert_eq!(look.effective_capabilities(own).unwrap(), sets.effective);
            });
        });
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        child.wait().unwrap();
        let look = CallerLook::open().unwrap();
        for pid in [child.id(), 0, u32::MAX] {
            assert!(look.groups(pid).is_err());
            assert!(look.effective_capabilities(pid).is_err());
            assert!(look.user_namespace(pid).is_err());
        }
    }
}
