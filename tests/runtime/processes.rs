//! The limit of a VE's processes, and who is not counted by it.

use super::Host;
use super::groups::{process, status};
use crate::harness::command::eventually;
use crate::harness::crash;

const MOST: u64 = 30;

fn column(host: &Host, name: &str) -> u64 {
    let text = host.vzlist(&["-H", "-o", name]).ok().stdout;
    text.trim().parse().expect("a number")
}

// S82: a full VE keeps neither its daemon nor a successor from serving, and the daemon takes nothing from the VE.
fn full_ves_are_served(runtime: &'static str) {
    let Some(host) = Host::small(runtime) else {
        return;
    };
    host.create("101", &["--numproc", &MOST.to_string()]).ok();
    host.vzctl(&["start", "101"]).ok();
    // The first program and what it waits for: no thread of the daemon is among them.
    eventually("only the VE's own are counted", || {
        let held = column(&host, "numproc");
        (1..=2)
            .contains(&held)
            .then_some(())
            .ok_or(held.to_string())
    });
    let bomb = "while :; do sleep 1000 < /dev/null > /dev/null 2>&1 & done 2> /dev/null";
    let _ended_by_the_limit = host.exec("101", bomb);
    eventually("the VE is full but for the command that filled it", || {
        let held = column(&host, "numproc");
        let is_full = (MOST - 6..=MOST).contains(&held);
        is_full.then_some(()).ok_or(held.to_string())
    });
    assert!(column(&host, "numproc.f") > 0);

    let first = process(&status(&host, "101"), "pid");
    let file = host.path("vz/root/101/from-host");
    std::fs::write(&file, "full").expect("the daemon serves");
    crash::kill(first);
    assert_eq!(std::fs::read_to_string(&file).expect("a successor"), "full");
    std::fs::write(&file, "after a death").expect("the successor serves");
    assert_ne!(process(&status(&host, "101"), "pid"), first);
    // There is room for one more as soon as the limit is higher.
    let more = (MOST + 10).to_string();
    host.vzctl(&["set", "101", "--numproc", &more]).ok();
    assert_eq!(
        host.exec("101", "cat /from-host").ok().stdout,
        "after a death"
    );
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

#[test]
fn full_ves_are_served_with_crun() {
    full_ves_are_served("crun");
}

#[test]
fn full_ves_are_served_with_runc() {
    full_ves_are_served("runc");
}
