//! VEs side by side: what they share with each other and with the host is nothing.

use std::collections::BTreeSet;

use super::Host;

const KINDS: [&str; 6] = ["mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// The namespaces of a VE's first process, or of this one.
fn namespaces(host: &Host, ve: Option<&str>) -> Vec<String> {
    let Some(ve) = ve else {
        let link = |kind| std::fs::read_link(format!("/proc/self/ns/{kind}"));
        let all = KINDS.map(|kind| link(kind).expect(kind).display().to_string());
        return all.to_vec();
    };
    let read = KINDS.map(|kind| format!("busybox readlink /proc/1/ns/{kind}"));
    let text = host.exec(ve, &read.join(";")).ok().stdout;
    text.lines().map(str::to_owned).collect()
}

fn neighbours(runtime: &'static str) {
    let Some(host) = Host::small(runtime) else {
        return;
    };
    for ve in ["101", "102"] {
        host.create(ve, &["--diskspace", "20M:20M"]).ok();
        host.vzctl(&["start", ve]).ok();
    }
    let all = [
        namespaces(&host, None),
        namespaces(&host, Some("101")),
        namespaces(&host, Some("102")),
    ];
    for (number, kind) in KINDS.into_iter().enumerate() {
        let different: BTreeSet<&String> = all.iter().map(|one| &one[number]).collect();
        assert_eq!(different.len(), 3, "{kind}: {all:?}");
    }

    // Neither sees files, shared memory, processes or groups of the other.
    host.exec("102", "sleep 1000 < /dev/null > /dev/null 2>&1 &")
        .ok();
    host.exec(
        "101",
        "echo one > /dev/shm/mark; echo one > /mark; echo one > /tmp/mark",
    )
    .ok();
    host.exec("102", "cat /dev/shm/mark /mark /tmp/mark")
        .expect(1);
    let processes = host.exec("101", "cat /proc/[0-9]*/cmdline").stdout;
    assert!(!processes.contains("1000\0"), "{processes}");
    let groups = host.exec("101", "cat /proc/1/cgroup").ok().stdout;
    assert!(!groups.contains("simfs"), "{groups}");

    // What one does to all that it can reach, to its disk and to its processes, the other does not notice.
    let full = "busybox dd if=/dev/zero of=/full bs=1M count=30 2> /dev/null";
    assert_ne!(host.exec("101", full).code, 0);
    host.exec("102", "echo two > /mark; cat /mark").ok();
    let _ended_with_the_others = host.exec("101", "kill -KILL -1");
    let still = host.exec("102", "ps").ok().stdout;
    assert!(still.contains("sleep 1000"), "{still}");
    for ve in ["101", "102"] {
        host.assert_status(ve, "exist mounted running");
    }
    host.vzctl(&["stop", "101", "--fast"]).ok();
    assert_eq!(host.exec("102", "cat /mark").ok().stdout, "two\n");
    host.vzctl(&["stop", "102", "--fast"]).ok();
    for ve in ["101", "102"] {
        host.vzctl(&["destroy", ve]).ok();
    }
    host.assert_nothing_left();
}

#[test]
fn neighbours_share_nothing_with_crun() {
    neighbours("crun");
}

#[test]
fn neighbours_share_nothing_with_runc() {
    neighbours("runc");
}
