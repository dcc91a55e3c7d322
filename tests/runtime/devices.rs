//! Devices and capabilities of a VE that runs.

use std::path::Path;

use super::Host;

/// Opens a device and does nothing with it.
const OPEN: &str = ": < /dev/fuse";
/// The same by a node that the VE made itself.
const OPEN_OWN: &str = "busybox mknod /tmp/own c 10 229; : < /tmp/own";

fn is_open(host: &Host, command: &str) -> bool {
    host.exec("101", command).code == 0
}

// S70: devices are given and taken at once where the host can, else named; a change of a list keeps the rest of it.
fn devices(runtime: &'static str) {
    let Some(host) = Host::small(runtime) else {
        return;
    };
    host.create("101", &["--devnodes", "zero:rw"]).ok();
    host.vzctl(&["start", "101"]).ok();
    assert!(!is_open(&host, OPEN_OWN), "not given yet");
    let given = host.vzctl(&["set", "101", "--devnodes", "fuse:rw"]);
    let has_lists = Path::new("/sys/fs/cgroup/devices").exists();
    if runtime == "runc" && !has_lists {
        given.refused(1, "DEVNODES: runc");
    } else {
        given.ok();
        assert!(is_open(&host, OPEN) && is_open(&host, OPEN_OWN));
        host.vzctl(&["set", "101", "--devnodes", "fuse:none"]).ok();
        assert!(!is_open(&host, OPEN) && !is_open(&host, OPEN_OWN));
        assert!(!is_open(&host, "ls /dev/fuse"), "the node is gone");
        host.vzctl(&["set", "101", "--devnodes", "fuse:rw", "--save"])
            .ok();
        assert!(is_open(&host, OPEN));
    }
    host.vzctl(&["set", "101", "--devnodes", "none-such:rw", "--save"])
        .refused(14, "/dev/none-such");
    let _named = host.vzctl(&["set", "101", "--devnodes", "fuse:rw", "--save"]);
    let file = host.path("etc/vz/conf/101.conf");
    let text = std::fs::read_to_string(file).expect("configuration");
    assert!(text.contains("DEVNODES=\"zero:rw fuse:rw\""), "{text}");
    host.vzctl(&["restart", "101", "--fast"]).ok();
    assert!(is_open(&host, OPEN), "kept");
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

#[test]
fn devices_are_given_at_once_with_crun() {
    devices("crun");
}

#[test]
fn devices_are_given_at_once_with_runc() {
    devices("runc");
}

// S70: what processes have cannot be changed from outside; it is kept, and told.
#[test]
fn capabilities_hold_from_the_next_start() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &["--capability", "net_raw:off"]).ok();
    host.vzctl(&["start", "101"]).ok();
    let bounding = || {
        let text = host.exec("101", "cat /proc/1/status").ok().stdout;
        let line = text.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        u64::from_str_radix(line.expect("a set").trim(), 16).expect("a set")
    };
    // capabilities(7): CAP_KILL is 5, CAP_NET_RAW 13.
    let before = bounding();
    assert_eq!((before >> 5 & 1, before >> 13 & 1), (1, 0));
    let set = ["set", "101", "--capability", "kill:off", "--save"];
    let told = host.vzctl(&set).refused(1, "CAPABILITY");
    assert!(told.stderr.contains("next start"), "{told:?}");
    assert_eq!(bounding(), before);
    // It is kept: the same again tells nothing.
    host.vzctl(&set).ok();
    host.vzctl(&["restart", "101", "--fast"]).ok();
    let after = bounding();
    assert_eq!((after >> 5 & 1, after >> 13 & 1), (0, 0));
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}
