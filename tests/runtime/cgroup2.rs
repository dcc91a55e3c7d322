//! Hosts that mount version 2 of cgroups alone, as current systems do.

use std::path::Path;
use std::process::Command;

use crate::harness::command::finish;
use crate::harness::{namespace, require};

/// Shows what is run after it nothing else.
const ALONE: &str =
    "umount --lazy /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$@\"";

/// Runs tests of this program again where only cgroup2 is mounted.
fn again(tests: &[&str]) {
    if !rustix::process::geteuid().is_root() {
        require::skip("needs root");
        return;
    }
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        // It was so the first time.
        return;
    }
    let this = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new("timeout");
    command
        .args([
            "--kill-after=5",
            "900",
            "unshare",
            "--mount",
            "--propagation",
            "private",
        ])
        .args(["sh", "-c", &format!("{}{ALONE}", namespace::LET_GO), "sh"])
        .arg(this)
        .args(["--exact", "--test-threads", "1"])
        .args(tests);
    let outcome = finish(&mut command).ok();
    let all = format!("{} passed", tests.len());
    assert!(outcome.stdout.contains(&all), "{}", outcome.stdout);
}

/// CAP_SYS_RESOURCE, capabilities(7): without it crun cannot raise the limit of locked memory for its device filter.
fn may_raise_limits() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> 24 & 1 == 1)
}

#[test]
fn ves_live_with_runc() {
    again(&[
        "runtime::a_ve_lives_with_runc",
        "runtime::systemd::boots_with_runc",
    ]);
}

#[test]
fn ves_live_with_crun() {
    if !may_raise_limits() {
        require::skip(
            "root lacks CAP_SYS_RESOURCE here, which crun needs where only cgroup2 is mounted",
        );
        return;
    }
    again(&[
        "runtime::a_ve_lives_with_crun",
        "runtime::systemd::boots_with_crun",
    ]);
}
