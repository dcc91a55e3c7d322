//! Each thing that can be set: set on a VE that runs, kept, and there after the next start.

use super::Host;
use crate::harness::command::finish;

/// Key and value of a line of the configuration.
fn kept(host: &Host, key: &str) -> String {
    let text = std::fs::read_to_string(host.path("etc/vz/conf/101.conf")).expect("configuration");
    let start = format!("{key}=\"");
    let value = text.lines().find_map(|line| line.strip_prefix(&start));
    value.unwrap_or_default().trim_end_matches('"').to_owned()
}

fn quota(host: &Host) -> serde_json::Value {
    let mut stat = host.command("vzquota");
    let text = finish(stat.args(["stat", "101", "--json"])).ok().stdout;
    serde_json::from_str(&text).expect("JSON")
}

/// Option, value, key, what is kept, and a column of vzlist with what it shows.
type Row = [&'static str; 6];

#[rustfmt::skip]
const ROWS: [Row; 12] = [
    ["--diskspace", "30M:40M", "DISKSPACE", "30720:40960", "diskspace.h", "40960"],
    ["--diskinodes", "3000:4000", "DISKINODES", "3000:4000", "diskinodes.s", "3000"],
    ["--hostname", "web", "HOSTNAME", "web", "hostname", "web"],
    ["--nameserver", "192.0.2.1", "NAMESERVER", "192.0.2.1", "nameserver", "192.0.2.1"],
    ["--searchdomain", "example.org", "SEARCHDOMAIN", "example.org", "searchdomain", "example.org"],
    ["--onboot", "yes", "ONBOOT", "yes", "onboot", "yes"],
    ["--bootorder", "7", "BOOTORDER", "7", "bootorder", "7"],
    ["--name", "one", "NAME", "one", "name", "one"],
    ["--description", "a note", "DESCRIPTION", "a note", "description", "a note"],
    ["--cpuunits", "2000", "CPUUNITS", "2000", "cpuunits", "2000"],
    ["--cpulimit", "150", "CPULIMIT", "150", "cpulimit", "150"],
    ["--numproc", "77", "NUMPROC", "77:77", "numproc.l", "77"],
];

// S70: what is set on a VE that runs is kept with --save, and holds after the next start.
#[test]
fn what_is_set_on_a_running_ve_holds_after_the_next_start() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &["--diskspace", "20M:22M"]).ok();
    host.vzctl(&["start", "101"]).ok();
    let check = |when: &str| {
        for [option, _, key, value, column, shown] in ROWS {
            assert_eq!(kept(&host, key), value, "{when}: {option}");
            let listed = host.vzlist(&["-H", "-o", column]).ok().stdout;
            assert_eq!(listed.trim(), shown, "{when}: {option}");
        }
        let grace = &quota(&host)["grace_periods"];
        assert_eq!(grace["space"], 3600, "{when}: {grace}");
        assert_eq!(grace["inodes"], 3600, "{when}: {grace}");
        let inside = host.exec("one", "hostname; cat /etc/hostname /etc/resolv.conf");
        assert_eq!(
            inside.ok().stdout,
            "web\nweb\nsearch example.org\nnameserver 192.0.2.1\n",
            "{when}"
        );
    };
    for [option, value, ..] in ROWS {
        host.vzctl(&["set", "101", option, value, "--save"]).ok();
    }
    host.vzctl(&["set", "101", "--quotatime", "3600", "--save"])
        .ok();
    check("at once");
    host.vzctl(&["restart", "101", "--fast"]).ok();
    check("after the next start");
    // Nothing of it is lost by a change of something else, kept or not.
    host.vzctl(&["set", "101", "--searchdomain", "example.net"])
        .ok();
    host.vzctl(&["set", "101", "--nameserver", "192.0.2.2"])
        .ok();
    let inside = host.exec("101", "cat /etc/resolv.conf").ok().stdout;
    assert_eq!(inside, "search example.net\nnameserver 192.0.2.2\n");
    host.vzctl(&["set", "101", "--disabled", "yes", "--save"])
        .ok();
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["start", "101"]).refused(12, "--disabled no");
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

// S21: the thin commands of OpenVZ over the quota record.
#[test]
fn quota_is_switched_and_made_anew() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &["--diskspace", "20M:20M"]).ok();
    host.vzctl(&["start", "101"]).ok();
    let fill = |mib: u32| {
        let line = format!("busybox dd if=/dev/zero of=/fill bs=1M count={mib} 2> /dev/null");
        host.exec("101", &line).code == 0
    };
    assert!(!fill(30));
    host.vzctl(&["quotaoff", "101"]).ok();
    assert!(fill(30), "not enforced");
    host.vzctl(&["quotaon", "101"]).ok();
    assert!(!fill(25), "enforced again, with the limits it had");
    host.vzctl(&["quotainit", "101"]).refused(61, "unmount");
    host.vzctl(&["stop", "101", "--fast"]).ok();

    // What is done behind the record is counted by a new one, which has the configured limits.
    let mut other = host.command("vzquota");
    finish(other.args(["setlimit", "101", "-b", "5000", "-B", "6000"])).ok();
    std::fs::write(host.path("vz/private/101/behind"), vec![1; 1 << 20]).expect("a file");
    let before = quota(&host);
    host.vzctl(&["quotainit", "101"]).ok();
    let shown = host.vzlist(&["-a", "-H", "-o", "diskspace.s,diskspace.h"]);
    let shown = shown.ok().stdout;
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert_eq!(words, ["20480", "20480"]);
    assert_ne!(quota(&host)["used"]["space"], before["used"]["space"]);
    host.vzctl(&["quotaon", "102"]).expect(60);
    host.vzctl(&["quotaoff", "102"]).expect(66);
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}
