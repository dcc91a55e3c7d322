//! Killing processes that serve a mount, and what comes after.

use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use super::Ve;
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

/// Ends these processes of a mount where a test fails: a guest that waits for them would wait for ever, and the test with it.
#[derive(Debug)]
pub(crate) struct EndOnFailure(pub(crate) [u32; 2]);

impl Drop for EndOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let raw = self.0.iter().filter_map(|&pid| i32::try_from(pid).ok());
            for pid in raw.filter_map(Pid::from_raw) {
                let _may_be_gone = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Stops a process, whatever it is at.
pub(crate) fn stop(pid: u32) {
    let raw = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    kill_process(raw, Signal::STOP).expect("stop");
}

/// The processes of a mount: the daemon and its keeper.
#[track_caller]
pub(crate) fn pids(ve: &Ve) -> (u32, u32) {
    let status = ve.status();
    let pid = |key: &str| u32::try_from(status[key].as_u64().expect(key)).expect("a process id");
    (pid("pid"), pid("keeper_pid"))
}

/// Kills keeper and daemon, and takes the dead mount away.
#[track_caller]
pub(crate) fn kill_both(ve: &Ve) {
    let (daemon, keeper) = pids(ve);
    kill(keeper);
    kill(daemon);
    let _already_gone = unmount(ve.root(), UnmountFlags::DETACH);
}

/// Mounts after a kill; a thread that is still in a system call lets go of the private area a moment later.
#[track_caller]
pub(crate) fn mount_again(ve: &Ve) {
    eventually("the VE can be mounted again", || {
        let outcome = ve.mount();
        if outcome.code == 0 {
            Ok(())
        } else {
            Err(outcome.stderr)
        }
    });
}

/// The daemon's log; empty before the first mount.
pub(crate) fn log(ve: &Ve) -> String {
    let path = ve.prefix().join("run/simfs").join(Ve::ID).join("log");
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Waits for the recount, after which the totals are right.
#[track_caller]
pub(crate) fn wait_for_recount(ve: &Ve) {
    let start = Instant::now();
    while ve.status()["state"] == "recovering" {
        assert!(
            start.elapsed() < Duration::from_secs(600),
            "no end: {}",
            ve.status()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    ve.check();
}
