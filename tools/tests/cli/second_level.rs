//! Users and groups, set from the host.

use crate::host::{Host, rows, words};

fn json(host: &Host, line: &str) -> serde_json::Value {
    serde_json::from_str(&host.vzquota_ok(line)).unwrap()
}

#[test]
fn limits_are_set_by_id_or_by_the_ves_own_name() {
    let host = Host::new();
    host.init();
    host.vzquota_ok("setlimit2 101 -u ann 1M 2M 10 20");
    host.vzquota_ok("setlimit2 101 -g 50 0 5M 0 0");
    let text = host.vzquota_ok("stat 101 -t");
    let rows = rows(&text);
    let row = |start: &[&str]| {
        rows.iter()
            .find(|row| row.starts_with(start))
            .unwrap()
            .clone()
    };
    assert_eq!(
        row(&["1000", "user", "1k-blocks"])[3..],
        ["0", "1024", "2048", "loaded", "ann"]
    );
    assert_eq!(
        row(&["1000", "user", "inodes"])[3..],
        ["0", "10", "20", "loaded", "ann"]
    );
    assert_eq!(
        row(&["50", "group", "1k-blocks"])[3..],
        ["0", "0", "5120", "loaded", "staff"]
    );
    assert_eq!(
        row(&["User/group", "quota:"]),
        ["User/group", "quota:", "on,inactive"]
    );
}

#[test]
fn zero_is_no_limit_here() {
    let host = Host::new();
    host.init();
    host.vzquota_ok("setlimit2 101 -u 1000 1M 2M 10 20");
    host.vzquota_ok("setlimit2 101 -u 1000 0 0 0 unlimited");
    let report = json(&host, "stat 101 -t --json");
    let accounts = report["second_level"]["users"]["accounts"]
        .as_array()
        .unwrap();
    assert!(
        accounts.iter().all(|account| account["id"] != 1000),
        "{accounts:?}"
    );
}

#[test]
fn grace_periods_are_set_for_all_users_or_all_groups() {
    let host = Host::new();
    host.init();
    host.vzquota_ok("setlimit2 101 -u -t 1h 2h");
    host.vzquota_ok("setlimit2 101 -g -t 30 00:01:00");
    let report = json(&host, "stat 101 -t --json");
    let level = &report["second_level"];
    assert_eq!(level["users"]["grace_periods"]["space"], 3600);
    assert_eq!(level["users"]["grace_periods"]["inodes"], 7200);
    assert_eq!(level["groups"]["grace_periods"]["space"], 30);
    assert_eq!(level["groups"]["grace_periods"]["inodes"], 60);
}

#[test]
fn what_is_switched_off_is_kept_and_said_to_be_off() {
    let host = Host::new();
    host.init();
    host.vzquota_ok("setlimit 101 -s 0");
    let ended = host.vzquota(&words("setlimit2 101 -u 1000 1M 2M 0 0"));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.err.contains("-s 1"), "{ended:?}");
    assert_eq!(host.vzquota(&words("stat 101 -t")).code, 9);
    assert_eq!(host.vzquota(&words("stat 101")).code, 0);
    host.vzquota_ok("setlimit 101 -s 1 -u 500");
    let report = json(&host, "stat 101 -t --json");
    assert_eq!(report["second_level"]["ugid_limit"], 500);
    assert_eq!(report["second_level"]["users"]["enforced"], true);
}

#[test]
fn a_number_of_ids_after_none_switches_on() {
    let host = Host::new();
    host.init();
    let is_on = || host.vzquota(&words("stat 101 -t")).code == 0;
    host.vzquota_ok("setlimit 101 -s 0 -u 0");
    assert!(!is_on());
    host.vzquota_ok("setlimit 101 -u 1");
    assert!(is_on());
    host.vzquota_ok("setlimit 101 -s 0");
    host.vzquota_ok("setlimit 101 -u 2");
    assert!(!is_on(), "what was switched off stays off");
}

#[test]
fn the_machine_form_names_each_account() {
    let host = Host::new();
    host.init();
    host.vzquota_ok("setlimit2 101 -u 1000 1M 2M 10 20");
    let text = host.vzquota_ok("-b stat 101 -t");
    assert!(
        text.contains("\nuser 1000 0 1024 2048 0 604800\nuser 1000 0 10 20 0 604800\n"),
        "{text}"
    );
}
