//! Who keeps a mount from going away: processes that have something of it open, and mount namespaces that show it.
//!
//! Looked for in /proc, without a request to the file system itself: its server may be dead.
//!
//! # Source
//! proc_pid_fd(5), proc_pid_mountinfo(5).

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use simfs::sys::task::DeviceNumber;

/// How long to look.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most holders that a message names.
const NAMED: usize = 4;

/// What a holder does with the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// It has a file open, runs one, or stands in a directory.
    Open,
    /// It lives in a mount namespace of its own that shows the mount.
    Namespace,
}

/// A process that holds a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pid: u32,
    command: String,
    hold: Hold,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, command, hold } = self;
        match hold {
            Hold::Open => write!(f, "process {pid} ({command})"),
            Hold::Namespace => {
                write!(
                    f,
                    "process {pid} ({command}) in a mount namespace of its own"
                )
            }
        }
    }
}

/// The holders of the file system with this device number, but for these processes and the caller. Of the processes
/// that share a mount namespace one is named. Whatever is not found in `PATIENCE` is left out: to look at a process
/// that waits for a file system which does not answer can take as long as that.
pub fn of(device: DeviceNumber, except: &[u32]) -> Vec<Holder> {
    let (send, found) = mpsc::channel();
    let except = except.to_vec();
    // It ends with the program at the latest.
    std::thread::spawn(move || look(device, &except, &send));
    let deadline = Instant::now() + PATIENCE;
    let next = || {
        let left = deadline.saturating_duration_since(Instant::now());
        found.recv_timeout(left).ok()
    };
    std::iter::from_fn(next).collect()
}

fn look(device: DeviceNumber, except: &[u32], found: &mpsc::Sender<Holder>) {
    let own = std::process::id();
    let mut namespaces = BTreeSet::new();
    namespaces.extend(namespace(own));
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in processes {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if pid == own || except.contains(&pid) {
            continue;
        }
        let dir = entry.path();
        let hold = if has_open(&dir, device) {
            Hold::Open
        } else if namespace(pid).is_some_and(|namespace| namespaces.insert(namespace))
            && shows(&dir, device)
        {
            Hold::Namespace
        } else {
            continue;
        };
        let command = fs::read_to_string(dir.join("comm")).unwrap_or_default();
        let holder = Holder {
            pid,
            command: command.trim_end().escape_debug().to_string(),
            hold,
        };
        if found.send(holder).is_err() {
            return;
        }
    }
}

/// The holders in words; `None` if none was found.
pub fn in_words(holders: &[Holder]) -> Option<String> {
    let mut names: Vec<String> = holders.iter().take(NAMED).map(Holder::to_string).collect();
    let more = holders.len().saturating_sub(NAMED);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    (!names.is_empty()).then(|| names.join(", "))
}

/// Which mount namespace a process is in.
fn namespace(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

fn has_open(dir: &Path, device: DeviceNumber) -> bool {
    let is_there = |path: PathBuf| device_of(&path) == Some(device);
    let files = fs::read_dir(dir.join("fd"));
    ["cwd", "root", "exe"]
        .iter()
        .any(|name| is_there(dir.join(name)))
        || files
            .into_iter()
            .flatten()
            .flatten()
            .any(|file| is_there(file.path()))
}

/// The file system that a link of /proc leads to, from what the kernel knows.
fn device_of(path: &Path) -> Option<DeviceNumber> {
    let seen = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::empty()).ok()?;
    Some((seen.stx_dev_major, seen.stx_dev_minor))
}

/// Whether a process's mount table has it.
fn shows(dir: &Path, (major, minor): DeviceNumber) -> bool {
    let device = format!("{major}:{minor}");
    let text = fs::read_to_string(dir.join("mountinfo")).unwrap_or_default();
    text.lines()
        .any(|line| line.split(' ').nth(2) == Some(&device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_file_open_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let device = device_of(dir.path()).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .current_dir(dir.path())
            .spawn()
            .unwrap();
        let found = of(device, &[]);
        let excepted = of(device, &[child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        let is_child = |holder: &&Holder| holder.pid == child.id();
        let holder = found.iter().find(is_child).unwrap();
        assert_eq!(holder.hold, Hold::Open);
        assert!(!excepted.iter().any(|holder| is_child(&holder)));
        assert!(of((0, u32::MAX), &[]).is_empty());
    }

    #[test]
    fn words_are_few() {
        assert_eq!(in_words(&[]), None);
        let holder = |pid| Holder {
            pid,
            command: "cat".into(),
            hold: Hold::Open,
        };
        let all: Vec<Holder> = (1..=6).map(holder).collect();
        let words = in_words(&all).unwrap();
        assert!(words.ends_with("process 4 (cat), 2 more"), "{words}");
    }
}
