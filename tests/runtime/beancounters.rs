//! What a VE and its host see of its user beancounters.

use super::Host;
use crate::harness::command::eventually;

/// held, maxheld, barrier, limit, failcnt of a row.
fn row(text: &str, name: &str) -> [u64; 5] {
    let line = text
        .lines()
        .find(|line| line.split_whitespace().any(|word| word == name))
        .unwrap_or_else(|| panic!("no {name} in {text}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let numbers = words[words.len() - 5..].iter();
    let numbers: Vec<u64> = numbers.map(|word| word.parse().expect(line)).collect();
    numbers.try_into().expect("five numbers")
}

fn inside(host: &Host, ve: &str) -> String {
    host.exec(ve, "cat /run/user_beancounters").ok().stdout
}

// S55: live, complete, the VE's own, and nobody's to change; the host sees the same.
fn counters_are_live(runtime: &'static str) {
    let Some(host) = Host::new(runtime) else {
        return;
    };
    let limits = ["--diskspace", "600M:700M", "--diskinodes", "100000:110000"];
    host.create("101", &[&limits[..], &["--numproc", "40"]].concat())
        .ok();
    host.vzctl(&["start", "101"]).ok();
    let before = inside(&host, "101");
    assert!(before.starts_with("Version: 2.5\n"), "{before}");
    assert!(before.contains("\n      101:  kmemsize "), "{before}");
    let [held, maxheld, barrier, limit, failures] = row(&before, "diskspace");
    assert_eq!((barrier, limit, failures), (600 << 10, 700 << 10, 0));
    assert!(maxheld >= held);
    let listed = host.vzlist(&["-H", "-o", "diskspace"]).ok().stdout;
    assert_eq!(listed.trim(), held.to_string());

    // Live: what was done last is there at the next reading; a refusal is counted.
    host.exec("101", "dd if=/dev/zero of=/big bs=1M count=10 status=none")
        .ok();
    let after = inside(&host, "101");
    assert_eq!(row(&after, "diskspace")[0], held + 10 * 1024);
    assert_eq!(
        row(&after, "diskinodes")[0],
        row(&before, "diskinodes")[0] + 1
    );
    host.exec("101", "fallocate -l 1G /big").expect(1);
    assert_eq!(row(&inside(&host, "101"), "diskspace")[4], 1);
    let [.., most, _] = row(&before, "numproc");
    assert_eq!(most, 40);
    host.exec(
        "101",
        "sh -c 'i=0; while [ $i -lt 50 ]; do sleep 2 & i=$((i+1)); done' 2>&1",
    );
    let full = inside(&host, "101");
    let [_, most_held, .., refused] = row(&full, "numproc");
    assert!(refused > 0 && most_held <= 40, "{full}");

    // The host sees the same; it is nobody's to change.
    eventually("the rows inside and outside agree", || {
        let (inside, outside) = (
            inside(&host, "101"),
            host.vzctl(&["ubc", "101"]).ok().stdout,
        );
        let differs = ["diskspace", "diskinodes", "swappages", "numfile"]
            .into_iter()
            .find(|name| row(&inside, name) != row(&outside, name));
        differs.map_or(Ok(()), |name| Err(name.to_owned()))
    });
    for spoof in [
        "echo x > /run/user_beancounters",
        "rm -f /run/user_beancounters",
        "mv /etc/hostname /run/user_beancounters",
        "umount /run/user_beancounters",
        "chmod 666 /run/user_beancounters",
    ] {
        assert_ne!(host.exec("101", spoof).code, 0, "{spoof}");
    }
    host.exec(
        "101",
        "su -s /bin/sh nobody -c 'cat /run/user_beancounters'",
    )
    .expect(1);

    let columns = "numproc.l,numproc.b,diskspace.f,diskinodes.m";
    let line = host.vzlist(&["-H", "-o", columns]).ok().stdout;
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..3], ["40", "40", "1"]);
    let quota = host.vzlist(&["--vzquota"]).ok().stdout;
    let lines: Vec<&str> = quota.lines().collect();
    assert!(
        lines[1].contains("101: ") && lines[1].ends_with("/vz/private/101"),
        "{quota}"
    );
    assert_eq!(
        row(&quota, "1k-blocks")[1..],
        [600 << 10, 700 << 10, 0, 259_200]
    );
    host.vzctl(&["stop", "101", "--fast"]).ok();
    // What is counted by the quota engine is known of a VE that does not run, too.
    let stopped = host.vzctl(&["ubc", "101"]).ok().stdout;
    assert_eq!(row(&stopped, "diskspace")[4], 1);
    let listing = host.vzctl(&["ubc"]).ok().stdout;
    assert_eq!(listing.lines().count(), 2, "none runs: {listing}");
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

#[test]
fn a_ve_reads_its_counters_with_crun() {
    counters_are_live("crun");
}

#[test]
fn a_ve_reads_its_counters_with_runc() {
    counters_are_live("runc");
}
