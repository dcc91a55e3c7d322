//! Killing processes that serve a mount.

use rustix::process::{Pid, Signal, kill_process};

use super::command::eventually;

/// Whether a process exists and is not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(") ")
                .map(|(_, rest)| !rest.starts_with(['Z', 'X']))
        })
        .unwrap_or(false)
}

/// Kills a process at once and waits until it is gone.
pub(crate) fn kill(pid: u32) {
    let raw = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    let _may_be_gone = kill_process(raw, Signal::KILL);
    eventually("a killed process ends", || {
        if is_alive(pid) {
            Err(format!("{pid} is alive"))
        } else {
            Ok(())
        }
    });
}
