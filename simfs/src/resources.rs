//! What keeper and daemon ask of the kernel for themselves.
//!
//! The daemon is part of the way on which memory is freed: dirty pages of the guest's mappings go through it. So
//! 1. its own allocations must not wait for write-out (`PR_SET_IO_FLUSHER`), or the two could wait for each other;
//! 2. when memory runs out it is nearly the last to be killed (`oom_score_adj`): its guests' processes can be started again,
//!    what they had in memory cannot;
//! 3. it may have as many files open as the host's administrator allows, not as a shell does by default;
//! 4. stores through mappings may wait for write-out as on a disk, not only as the kernel trusts a server in userspace with.
//!
//! Memory is not locked, but for what requests are read into ([`crate::sys::present`]): the daemon is small, its working set is in use all the time, and a fault on its program's pages is
//! served from a file system that is not its own.
//!
//! The first three are to be called before any thread is started and any process forked: all of it is inherited; the last one is
//! the mount's. What cannot be had (the first takes CAP_SYS_RESOURCE, the last /sys) the daemon works without, as it did before
//! the kernel knew of it.
//!
//! # Source
//! prctl(2) PR_SET_IO_FLUSHER, proc_pid_oom_score_adj(5), getrlimit(2); Linux `Documentation/ABI/testing/sysfs-class-bdi`,
//! `fs/fuse/inode.c` (`fuse_bdi_init`), `mm/page-writeback.c` (`BDI_CAP_STRICTLIMIT`).

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit};

use crate::sys::task::DeviceNumber;

/// How far the daemon is spared when memory runs out: behind everything but what is exempt (-1000).
pub const OOM_SCORE_ADJ: i16 = -900;
const OOM_FILE: &str = "/proc/self/oom_score_adj";

/// Percent of the pages that may wait for write-out on this host (`vm.dirty_ratio`) which may be those of one mount. By itself
/// the kernel grants 1, and whoever stores beyond that is made to wait. A daemon that hangs can withhold no more than this.
const DIRTY_SHARE: &str = "20";

/// Asks for all of it, but for what is the mount's.
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

/// Asks for the share of a mount that was just made. Without write-out first ([`claim`]) the daemon is slowed down like any writer
/// where memory is short; it waits for none of these pages.
pub fn raise_dirty_share((major, minor): DeviceNumber) {
    let bound = format!("/sys/class/bdi/{major}:{minor}/max_ratio");
    if let Err(error) = fs::write(bound, DIRTY_SHARE) {
        tracing::debug!(%error, "no larger share of what waits for write-out");
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
