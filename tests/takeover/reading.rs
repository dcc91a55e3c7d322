//! A daemon that dies while the kernel copies a request into its memory.
//!
//! The kernel fails a request with EIO where it cannot copy it (`fs/fuse/dev.c`, `fuse_dev_do_read`), and for a process with
//! SIGKILL pending it brings in no page that is not there yet (`mm/gup.c`). So the daemon's buffers must be there before.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};

use super::daemon_of;
use crate::harness::command::eventually;
use crate::harness::files::{open, write_at};
use crate::harness::{KIB, MIB, Spec, crash};

/// The threads of a daemon that read requests.
fn workers(daemon: u32) -> Vec<PathBuf> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{daemon}/task")) else {
        return Vec::new();
    };
    let tasks = tasks.flatten().map(|task| task.path());
    tasks
        .filter(|task| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("fuser-"))
        })
        .collect()
}

/// Pages that a thread had to wait for so far (proc_pid_stat(5), `minflt`).
fn faults(task: impl AsRef<Path>) -> u64 {
    let stat = fs::read_to_string(task.as_ref().join("stat")).unwrap_or_default();
    let (_, rest) = stat.rsplit_once(") ").unwrap_or_default();
    let field = rest.split(' ').nth(7);
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Kills a daemon as soon as one of its workers brings pages in, or when it has had its time.
fn kill_while_pages_come(daemon: u32) {
    let pid = Pid::from_raw(daemon.try_into().expect("pid")).expect("pid");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500)
        && !workers(daemon).iter().any(|task| faults(task) > 40)
    {}
    let _may_be_gone = kill_process(pid, Signal::KILL);
}

// S73: whoever asks waits for the successor, whatever the dead one was at.
#[test]
fn nobody_notices_a_death_while_a_request_is_read() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let (_, keeper) = crash::pids(&ve);
    let file = open(ve.path("file"), OFlags::RDWR | OFlags::CREATE).expect("create");
    for round in 0..20 {
        let dead = eventually("there is a daemon", || {
            daemon_of(keeper).ok_or("none".to_owned())
        });
        crash::kill(dead);
        std::thread::scope(|scope| {
            let data = vec![round; MIB as usize];
            let file = &file;
            let writer = scope.spawn(move || write_at(file, 0, &data));
            let next = eventually("there is a successor", || match daemon_of(keeper) {
                Some(next) if next != dead => Ok(next),
                found => Err(format!("{found:?}")),
            });
            kill_while_pages_come(next);
            assert_eq!(
                writer.join().expect("writer"),
                (MIB as usize, None),
                "round {round}"
            );
        });
    }
}

/// What a request brings into the daemon's memory is there before: no page is waited for, so none can be refused.
#[test]
fn a_large_request_is_read_without_a_page_fault() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let file = open(ve.path("file"), OFlags::RDWR | OFlags::CREATE).expect("create");
    let daemon = ve.pid();
    let all = || workers(daemon).iter().map(faults).sum::<u64>();
    // What the way of a write needs besides: code, stack.
    for number in 0..20 {
        assert_eq!(write_at(&file, number * KIB, &[1; 1024]).1, None);
    }
    let before = all();
    assert_eq!(write_at(&file, 0, &vec![2; 4 * MIB as usize]).1, None);
    let pages = all() - before;
    assert!(pages < 32, "{pages} pages came with a request");
}
