//! `simfs umount`.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use quota::VeId;
use rustix::mount::{UnmountFlags, unmount};
use simfs::control::{
    Client, ClientError, ErrorKind, Request, RequestError, SOCKET_NAME, VeStatus,
};
use simfs::ve::{MOUNTPOINT_NOTE, clear_up};
use simfs_tools::ending::{ask, have_ended, processes, status_of};
use simfs_tools::exit::{Failure, SimfsExit};
use simfs_tools::holders::{self, Holder};
use simfs_tools::paths::Paths;

use crate::{Outcome, failed, must_be_known};

/// How long a daemon may take to end after its mount is gone.
const END: Duration = Duration::from_secs(60);
/// How long the last users of a root that was taken away may take to go: those of a VE that was ended are on their way out.
const LAST_USERS: Duration = Duration::from_secs(8);
/// Who is still there after this time is not on his way out.
const SETTLED: Duration = Duration::from_secs(2);
/// How often a root that nobody seems to use is tried.
const RETRY: Duration = Duration::from_millis(50);

pub(crate) fn run(paths: &Paths, ve: VeId, lazy: bool) -> Outcome {
    let found = ask(&paths.run_dir(ve), |mut client| {
        let status = status_of(&mut client)?;
        Ok((client, status))
    });
    match found {
        Ok((client, status)) => stop(paths, ve, client, &status, lazy),
        Err(ClientError::NotRunning) => {
            must_be_known(paths, ve)?;
            detach_dead(paths, ve)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Asks the daemon to unmount, and waits until it has ended.
fn stop(paths: &Paths, ve: VeId, mut client: Client, status: &VeStatus, lazy: bool) -> Outcome {
    let processes = processes(status);
    let is_kept = status.keeper_pid.is_some();
    match is_kept {
        true => have_taken_away(&mut client, status, lazy)?,
        // Nobody is left who could do it for the daemon.
        false => take_away(status, lazy)?,
    }
    if lazy {
        return Ok(SimfsExit::Ok);
    }
    if !have_ended(&processes, END) {
        return Err(failed(
            "unmounted, but the daemon does not end: see its log",
        ));
    }
    if !is_kept {
        clear_up(&paths.run_dir(ve), ve).map_err(failed)?;
    }
    Ok(SimfsExit::Ok)
}

/// Has the daemon see to it that its mount is gone.
fn have_taken_away(
    client: &mut Client,
    status: &VeStatus,
    lazy: bool,
) -> Result<(), Failure<SimfsExit>> {
    match order(client, lazy, status) {
        Ok(()) => Ok(()),
        Err(ClientError::Refused(error)) => Err(refused(&error, status)),
        // It did not answer; the mount can be taken away from it all the same.
        Err(_) if is_mount(&status.mountpoint) => detach(&status.mountpoint, lazy),
        Err(_) => Ok(()),
    }
}

/// Takes away the mount of a daemon that has no keeper.
fn take_away(status: &VeStatus, lazy: bool) -> Result<(), Failure<SimfsExit>> {
    let place = &status.mountpoint;
    match unmount(place, flags(lazy)) {
        // By umount(8): the daemon is ending.
        Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(rustix::io::Errno::BUSY) => {
            let message = format!("{} is in use", place.display());
            let error = RequestError::new(ErrorKind::Busy, message);
            Err(refused(&error, status))
        }
        Err(error) => Err(failed(format!("{}: {error}", place.display()))),
    }
}

/// Has the daemon unmount. Where the root is held from elsewhere, or in use by nobody who can be seen, waits as long as
/// whoever holds it may be on his way out.
fn order(client: &mut Client, lazy: bool, status: &VeStatus) -> Result<(), ClientError> {
    let begin = Instant::now();
    loop {
        let answer = client.request(&Request::Stop { lazy });
        match &answer {
            Err(ClientError::Refused(error)) if error.kind == ErrorKind::Held => {
                let waited = begin.elapsed();
                if waited > LAST_USERS || waited > SETTLED && !holders(status).is_empty() {
                    return answer.map(drop);
                }
            }
            Err(ClientError::Refused(error)) if error.kind == ErrorKind::Busy => {
                if begin.elapsed() > SETTLED || !holders(status).is_empty() {
                    return answer.map(drop);
                }
                thread::sleep(RETRY);
            }
            _ => return answer.map(drop),
        }
    }
}

/// Who holds the mount, but for those that serve it.
fn holders(status: &VeStatus) -> Vec<Holder> {
    let daemon = [Some(status.pid), status.keeper_pid];
    let daemon: Vec<u32> = daemon.into_iter().flatten().collect();
    holders::of(status.device, &daemon)
}

/// Why it is not gone, and whose doing that is.
fn refused(error: &RequestError, status: &VeStatus) -> Failure<SimfsExit> {
    let who = || {
        holders::in_words(&holders(status))
            .unwrap_or_else(|| "nobody who can be seen from here".into())
    };
    match error.kind {
        ErrorKind::Busy => failed(format!(
            "{error} by {}: end that, or detach it with --lazy",
            who()
        )),
        ErrorKind::Held => failed(format!(
            "{error}, by {}: the daemon serves and counts it until that ends",
            who()
        )),
        _ => failed(error),
    }
}

/// Takes away what a daemon that died left: its mount, its socket.
fn detach_dead(paths: &Paths, ve: VeId) -> Outcome {
    let run_dir = paths.run_dir(ve);
    let is_left = take_dead_away(paths, ve)?;
    clear_up(&run_dir, ve).map_err(failed)?;
    let socket = run_dir.join(SOCKET_NAME);
    match std::fs::remove_file(&socket) {
        Ok(()) => Ok(SimfsExit::Ok),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(format!("{}: {error}", socket.display())))
        }
        Err(_) if is_left => Ok(SimfsExit::Ok),
        Err(_) => Err(failed(format!(
            "not mounted (nothing at {})",
            paths.root(ve).map_err(failed)?.display()
        ))),
    }
}

/// Takes a mount out of the tree whose processes are dead; says whether there was one. To be called where no daemon runs.
pub(crate) fn take_dead_away(paths: &Paths, ve: VeId) -> Result<bool, Failure<SimfsExit>> {
    let root = paths.root(ve).map_err(failed)?;
    let noted = std::fs::read(paths.run_dir(ve).join(MOUNTPOINT_NOTE));
    let noted = noted.map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
    let places = [noted.ok(), Some(root)];
    let mut is_left = false;
    for place in places.into_iter().flatten() {
        if is_dead_mount(&place) {
            detach(&place, true)?;
            is_left = true;
        }
    }
    Ok(is_left)
}

fn detach(mountpoint: &Path, lazy: bool) -> Result<(), Failure<SimfsExit>> {
    let unmounted = unmount(mountpoint, flags(lazy));
    unmounted.map_err(|error| failed(format!("{}: {error}", mountpoint.display())))
}

fn flags(lazy: bool) -> UnmountFlags {
    match lazy {
        true => UnmountFlags::DETACH,
        false => UnmountFlags::empty(),
    }
}

/// Whether a file system of this program is mounted there whose daemon is dead. Attributes of the root may be in the
/// kernel's cache, its statistics never are.
fn is_dead_mount(path: &Path) -> bool {
    is_mount(path) && rustix::fs::statfs(path).is_err()
}

/// Whether a file system of this program is mounted there.
fn is_mount(path: &Path) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/self/mounts") else {
        return false;
    };
    table.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next().map(unescape);
        place.is_some_and(|place| place == path) && fields.next() == Some("fuse.simfs")
    })
}

/// A path of the mount table, where awkward letters are octal (proc_pid_mounts(5)).
fn unescape(field: &str) -> PathBuf {
    let text = field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\043", "#")
        .replace("\\134", "\\");
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
    }
}
