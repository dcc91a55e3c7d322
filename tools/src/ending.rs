//! Daemons whose mount was taken away: they commit and end, and answer meanwhile.
//!
//! umount(8) returns before its file system's server has ended, so the next command may still meet it.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use simfs::control::{Client, ClientError, ErrorKind, FrameError, Reply, Request, VeStatus};

use crate::ve_state::is_mount_point;

/// How long a command waits for the daemon of a mount that is gone to commit and end.
pub const PATIENCE: Duration = Duration::from_secs(5);

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
    match client.request(&Request::Status) {
        Ok(Reply::Status(status)) => {
            !is_mount_point(&status.mountpoint) && have_ended(&processes(&status), PATIENCE)
        }
        Ok(_) => false,
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
