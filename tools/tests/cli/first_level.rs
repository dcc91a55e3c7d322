//! The VE's own account, not mounted.

use crate::host::{Host, du, rows, words};

#[test]
fn init_counts_what_is_there() {
    let host = Host::new();
    let (kib, inodes) = du(&host.init());
    let text = host.vzquota_ok("stat 101");
    let rows = rows(&text);
    assert_eq!(
        rows[0],
        ["resource", "usage", "softlimit", "hardlimit", "grace"]
    );
    assert_eq!(rows[1], ["1k-blocks", &kib.to_string(), "102400", "204800"]);
    assert_eq!(rows[2], ["inodes", &inodes.to_string(), "1000", "2000"]);
    assert_eq!(host.vzquota_ok("show 101"), text);
}

#[test]
fn the_machine_form_stands_before_the_command() {
    let host = Host::new();
    let (kib, inodes) = du(&host.init());
    let expected = format!("{kib} 102400 204800 0 604800\n{inodes} 1000 2000 0 3600\n");
    assert_eq!(host.vzquota_ok("-b stat 101"), expected);
    assert_eq!(host.vzquota_ok("-b show 101"), expected);
}

#[test]
fn an_absent_private_area_costs_nothing() {
    let host = Host::new();
    let absent = host.path("vz/private/101");
    let line = format!(
        "init 101 -p {} -b 1G -B 1.1G -i 10 -I 20 -e 1 -n 1",
        absent.display()
    );
    host.vzquota_ok(&line);
    assert_eq!(
        host.vzquota_ok("-b stat 101"),
        "0 1048576 1153433 0 1\n0 10 20 0 1\n"
    );
    assert!(!absent.exists());
}

#[test]
fn a_record_is_overwritten_with_a_warning() {
    let host = Host::new();
    let private = host.init();
    host.vzquota_ok("setlimit2 101 -u 1000 1M 2M 0 0");
    let line = format!(
        "init 101 -p {} -b 1G -B 1G -i 9 -I 9 -e 1 -n 1",
        private.display()
    );
    let ended = host.vzquota(&words(&line));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.err.contains("overwritten"), "{ended:?}");
    assert!(host.vzquota_ok("-b stat 101").contains(" 1048576 1048576 "));
    assert!(!host.vzquota_ok("stat 101 -t").contains("2048"));
    let left: Vec<_> = std::fs::read_dir(host.path("var/lib/simfs"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn setlimit_changes_only_what_is_given() {
    let host = Host::new();
    host.init();
    host.vzquota_ok("setlimit 101 -B 1T");
    host.vzquota_ok("setlimit 101 -i 1500 -n 1w");
    let text = host.vzquota_ok("-b stat 101");
    let rows = rows(&text);
    assert_eq!(rows[0][1..], ["102400", "1073741824", "0", "604800"]);
    assert_eq!(rows[1][1..], ["1500", "2000", "0", "604800"]);
}

#[test]
fn limits_below_usage_are_accepted_with_a_warning() {
    let host = Host::new();
    let (kib, _) = du(&host.init());
    let ended = host.vzquota(&words("setlimit 101 -b 1 -B 2"));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.err.contains("warning"), "{ended:?}");
    let text = host.vzquota_ok("stat 101");
    let over = format!("{kib}*");
    assert_eq!(rows(&text)[1][..4], ["1k-blocks", &over, "1", "2"]);
    assert_eq!(rows(&text)[1][4], "7days");
    let quiet = host.vzquota(&words("-q setlimit 101 -b 1 -B 2"));
    assert_eq!((quiet.code, quiet.err.as_str()), (0, ""));
}

#[test]
fn unlimited_is_not_zero() {
    let host = Host::new();
    host.init();
    host.vzquota_ok("setlimit 101 -b unlimited -B unlimited");
    assert_eq!(
        rows(&host.vzquota_ok("stat 101"))[1][2..],
        ["unlimited", "unlimited"]
    );
    host.vzquota_ok("setlimit 101 -i 0 -I 0");
    assert_eq!(rows(&host.vzquota_ok("stat 101"))[2][2..4], ["0", "0"]);
    let json: serde_json::Value =
        serde_json::from_str(&host.vzquota_ok("stat 101 --json")).unwrap();
    assert!(json["limits"]["space"]["hard"].is_null());
    assert_eq!(json["limits"]["inodes"]["hard"], 0);
}

#[test]
fn on_and_off_can_be_repeated() {
    let host = Host::new();
    host.init();
    let enforced = || -> bool {
        let text = host.vzquota_ok("--json stat 101");
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["enforced"]
            .as_bool()
            .unwrap()
    };
    // S21: whoever asks for figures is told.
    let is_told = || {
        ["stat", "show"]
            .map(|verb| host.vzquota_ok(&format!("{verb} 101")))
            .into_iter()
            .chain([host.simfs(&["status", "101"]).out])
            .all(|text| text.contains("not enforced: 'vzquota on 101'"))
    };
    let in_batch = host.vzquota_ok("-b stat 101");
    assert!(enforced() && !is_told());
    for _ in 0..2 {
        host.vzquota_ok("off 101");
        assert!(!enforced() && is_told());
    }
    assert_eq!(
        host.vzquota_ok("-b stat 101"),
        in_batch,
        "two lines, whatever happens"
    );
    for _ in 0..2 {
        host.vzquota_ok("on 101");
        assert!(enforced() && !is_told());
    }
}

#[test]
fn a_dropped_record_is_gone() {
    let host = Host::new();
    host.init();
    host.vzquota_ok("drop 101");
    assert_eq!(host.vzquota(&["stat", "101"]).code, 11);
    assert_eq!(
        std::fs::read_dir(host.path("var/lib/simfs"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn the_prefix_may_stand_on_both_sides_of_the_command() {
    let host = Host::new();
    host.init();
    let prefix = host.prefix().to_str().unwrap();
    for arguments in [
        ["--prefix", prefix, "stat", "101"],
        ["stat", "101", "--prefix", prefix],
    ] {
        let ended = Host::new().vzquota(&arguments);
        assert_eq!(ended.code, 0, "{ended:?}");
    }
}
