//! Resource groups: a VE that is frozen, and the daemons that serve it from beside it.

use std::path::PathBuf;
use std::time::Duration;

use super::Host;
use crate::harness::command::{eventually, finish};
use crate::harness::{crash, require};

/// What `simfs status` says of the VE.
pub(super) fn status(host: &Host, ve: &str) -> serde_json::Value {
    let mut status = host.command("simfs");
    let text = finish(status.args(["status", ve, "--json"])).ok().stdout;
    let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    list[0].clone()
}

pub(super) fn process(status: &serde_json::Value, key: &str) -> u32 {
    let pid = status[key].as_u64().expect("a process id");
    u32::try_from(pid).expect("a process id")
}

/// The groups of a process, a line for each hierarchy.
fn groups_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups")
}

/// How far a process is spared when memory runs out.
fn spared(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("oom_score_adj")
}

/// The VE's group in a hierarchy, by the daemon's, which is beside that of the VE's processes.
pub(super) fn group(host: &Host, ve: &str, controller: &str) -> PathBuf {
    let text = groups_of(process(&status(host, ve), "pid"));
    let own = text
        .lines()
        .find_map(|line| line.strip_suffix("/daemon"))
        .unwrap_or_else(|| panic!("the daemon is in none of the VE's groups: {text}"));
    let name = own.rsplit(':').next().expect("a path");
    PathBuf::from(format!("/sys/fs/cgroup/{controller}{name}"))
}

/// The group in which the VE's processes can be frozen; `None` after a skip.
fn freezer(host: &Host) -> Option<PathBuf> {
    let places = ["unified", "."].into_iter();
    let found = places
        .map(|place| group(host, "101", place).join("ve"))
        .find(|dir| dir.join("cgroup.freeze").exists());
    if found.is_none() {
        require::skip("no cgroups of the second generation");
    }
    found
}

#[track_caller]
fn freeze(dir: &std::path::Path) {
    std::fs::write(dir.join("cgroup.freeze"), "1").expect("freezing");
    eventually("it is frozen", || {
        let events = std::fs::read_to_string(dir.join("cgroup.events")).expect("events");
        events.contains("frozen 1").then_some(()).ok_or(events)
    });
}

// S71: a frozen VE does not freeze its file system.
#[test]
fn a_frozen_ve_is_served_and_changed() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &[]).ok();
    host.vzctl(&["start", "101"]).ok();
    let Some(dir) = freezer(&host) else {
        return;
    };
    host.exec(
        "101",
        "while :; do echo x >> /log; sleep 0.05; done > /dev/null 2>&1 &",
    )
    .ok();
    let length = || {
        host.path("vz/root/101/log")
            .metadata()
            .map_or(0, |data| data.len())
    };
    eventually("the VE writes", || {
        (length() > 0).then_some(()).ok_or_else(|| "nothing".into())
    });
    freeze(&dir);
    let frozen_at = length();
    // From the host everything works as before.
    std::fs::write(host.path("vz/root/101/from-host"), vec![1; 100_000]).expect("a file");
    host.vzctl(&["set", "101", "--diskspace", "50M", "--numproc", "50"])
        .ok();
    let soft = host.vzlist(&["-H", "-o", "diskspace.s"]).ok().stdout;
    assert_eq!(soft.trim(), "51200");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(length(), frozen_at, "it was frozen");
    std::fs::write(dir.join("cgroup.freeze"), "0").expect("thawing");
    eventually("it goes on", || {
        (length() > frozen_at)
            .then_some(())
            .ok_or_else(|| "not yet".into())
    });
    // Ended by force also while it is frozen.
    std::fs::write(dir.join("cgroup.freeze"), "1").expect("freezing");
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

// S71: a daemon that follows another serves from the same groups, under the same limits and outside the frozen one.
#[test]
fn successors_serve_from_the_groups_of_the_first_daemon() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &[]).ok();
    host.vzctl(&["start", "101"]).ok();
    let first = status(&host, "101");
    let groups = groups_of(process(&first, "pid"));
    let of_the_ve = groups.lines().filter(|line| line.ends_with("/daemon"));
    assert!(of_the_ve.count() > 0, "{groups}");
    assert_eq!(groups_of(process(&first, "keeper_pid")), groups);
    let Some(dir) = freezer(&host) else {
        return;
    };
    freeze(&dir);
    let as_the_first = spared(process(&first, "pid"));
    let serves_as_the_first = |why: &str| {
        std::fs::write(host.path("vz/root/101/from-host"), why).expect("a file");
        let next = status(&host, "101");
        let pid = process(&next, "pid");
        assert_ne!(pid, process(&first, "pid"), "{why}");
        assert_eq!(groups_of(pid), groups, "{why}");
        assert_eq!(spared(pid), as_the_first, "{why}");
    };
    crash::kill(process(&first, "pid"));
    serves_as_the_first("after a death");
    let mut upgrade = host.command("simfs");
    finish(upgrade.args(["upgrade", "101"])).ok();
    serves_as_the_first("after an upgrade");
    std::fs::write(dir.join("cgroup.freeze"), "0").expect("thawing");
    host.vzctl(&["stop", "101"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}
