//! What keeper and daemon ask of the kernel for themselves.
//!
//! The daemon is part of the way on which memory is freed: dirty pages of the guest's mappings go through it. So
//! 1. its own allocations must not wait for write-out (`PR_SET_IO_FLUSHER`), or the two could wait for each other;
//! 2. when memory runs out it is nearly the last to be killed (`oom_score_adj`): its guests' processes can be started again,
//!    what they had in memory cannot;
//! 3. it may have as many files open as the host's administrator allows, not as a shell does by default.
//!
//! Memory is not locked, but for what requests are read into ([`crate::sys::present`]): the daemon is small, its working set is in use all the time, and a fault on its program's pages is
//! served from a file system that is not its own.
//!
//! To be called before any thread is started and any process forked: all of it is inherited. Where it cannot be had
//! (it takes CAP_SYS_RESOURCE) the daemon works without, as it did before the kernel knew of it.
//!
//! # Source
//! prctl(2) PR_SET_IO_FLUSHER, proc_pid_oom_score_adj(5), getrlimit(2).

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit};

/// How far the daemon is spared when memory runs out: behind everything but what is exempt (-1000).
pub const OOM_SCORE_ADJ: i16 = -900;
const OOM_FILE: &str = "/proc/self/oom_score_adj";

/// Asks for all of it.
pub fn claim(oom_score_adj: i16) {
    let steps = [
        ("write-out comes first", claim_io_flusher()),
        ("spared when memory runs out", spare(oom_score_adj)),
        ("all descriptors", raise_open_files()),
    ];
    for (step, result) in steps {
        if let Err(error) = result {
            tracing::debug!(step, %error, "not granted");
        }
    }
}

fn claim_io_flusher() -> io::Result<()> {
    Ok(rustix::process::configure_io_flusher_behavior(true)?)
}

/// Who is spared more than that already stays so: a service manager's word counts more than our default.
fn spare(wanted: i16) -> io::Result<()> {
    let present = fs::read_to_string(OOM_FILE)?;
    let is_spared = present
        .trim()
        .parse::<i16>()
        .is_ok_and(|present| present <= OOM_SCORE_ADJ);
    match is_spared && wanted == OOM_SCORE_ADJ {
        true => Ok(()),
        false => fs::write(OOM_FILE, wanted.to_string()),
    }
}

fn raise_open_files() -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(rustix::process::setrlimit(Resource::Nofile, raised)?)
}
