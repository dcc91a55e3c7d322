//! Daemons that end while they are asked.
//!
//! umount(8) returns before its file system's server has ended, so the next command may still meet it: it commits and
//! ends, and answers meanwhile. One that was killed may still take a connection, and drops it when it is gone.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use simfs::control::{Client, ClientError, ErrorKind, FrameError, Reply, Request, VeStatus};

use crate::ve_state::is_mount_point;

/// How long a command waits for the daemon of a mount that is gone to commit and end.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How often who ends, or starts, is asked anew.
pub const RETRY: Duration = Duration::from_millis(10);

/// Puts a question to the daemon of this run directory. One that dies, ends or is replaced before it has answered is
/// followed by whoever serves then, for [`PATIENCE`] at most.
///
/// # Errors
/// `NotRunning` where nobody serves, also after the one that was asked; else what the question ran into.
pub fn ask<T>(
    run_dir: &Path,
    mut question: impl FnMut(Client) -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match Client::connect(run_dir).and_then(&mut question) {
            Err(error) if is_end(&error) && Instant::now() < end => thread::sleep(RETRY),
            answer => return answer,
        }
    }
}

/// Asks the daemon of this run directory for its state, as [`ask`] does.
///
/// # Errors
/// As [`ask`]; `Unexpected` for the answer of another version.
pub fn status(run_dir: &Path) -> Result<VeStatus, ClientError> {
    ask(run_dir, |mut client| status_of(&mut client))
}

/// As [`status`], on a connection that is there.
///
/// # Errors
/// What the connection ran into; `Unexpected` for the answer of another version.
pub fn status_of(client: &mut Client) -> Result<VeStatus, ClientError> {
    match client.request(&Request::Status)? {
        Reply::Status(status) => Ok(*status),
        _ => Err(ClientError::Unexpected("to a request of its state".into())),
    }
}

/// The processes that serve a VE, by descriptors that no other process can take over.
pub fn processes(status: &VeStatus) -> Vec<OwnedFd> {
    [Some(status.pid), status.keeper_pid]
        .into_iter()
        .flatten()
        .filter_map(|pid| i32::try_from(pid).ok().and_then(Pid::from_raw))
        .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        .collect()
}

/// Waits until all of these processes have ended, at most for this long; whether they have.
pub fn have_ended(processes: &[OwnedFd], limit: Duration) -> bool {
    let end = Instant::now() + limit;
    processes.iter().all(|process| {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(process, PollFlags::IN)];
        Timespec::try_from(left)
            .is_ok_and(|left| poll(&mut fds, Some(&left)).is_ok_and(|ready| ready > 0))
    })
}

/// Whether the daemon's mount is gone and the daemon itself ends meanwhile, for which this waits.
pub fn is_ending(mut client: Client) -> bool {
    match status_of(&mut client) {
        Ok(status) => {
            !is_mount_point(&status.mountpoint) && have_ended(&processes(&status), PATIENCE)
        }
        Err(error) => is_end(&error),
    }
}

/// Whether a daemon did not carry out a request because it ends, or because another takes its place.
pub fn is_end(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(error) => error.kind == ErrorKind::Ending,
        ClientError::Closed => true,
        ClientError::Frame(FrameError::Io(error)) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use simfs::control::SOCKET_NAME;

    use super::*;

    #[test]
    fn a_daemon_that_dies_while_it_is_asked_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap();
        let killed = thread::spawn(move || {
            for stream in listener.incoming().take(3) {
                // The question has come and nobody has read it, so that the connection is reset.
                let stream = stream.unwrap();
                let mut fds = [PollFd::new(&stream, PollFlags::IN)];
                poll(&mut fds, None).unwrap();
            }
        });
        let answer = status(dir.path());
        assert!(matches!(answer, Err(ClientError::NotRunning)), "{answer:?}");
        killed.join().unwrap();
    }
}
