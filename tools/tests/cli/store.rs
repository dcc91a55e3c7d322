//! A quota store that is held, damaged, or half made.

use std::path::Path;

use quota::VeId;
use quota::store::sled::SledStore;

use crate::host::{Host, words};

#[test]
fn a_held_store_is_an_error_at_once() {
    let host = Host::new();
    host.init();
    let held = SledStore::open(&host.path("var/lib/simfs/101"), VeId::new(101)).unwrap();
    for line in ["stat 101", "setlimit 101 -b 1", "drop 101", "off 101"] {
        let ended = host.vzquota(&words(line));
        assert_eq!(ended.code, 7, "{line}: {ended:?}");
        assert!(
            ended.err.contains("held by another process"),
            "{line}: {ended:?}"
        );
        assert_eq!(ended.err.lines().count(), 1, "{line}: {ended:?}");
    }
    let private = host.path("vz/private/101");
    let init = format!(
        "init 101 -p {} -b 1 -B 1 -i 1 -I 1 -e 1 -n 1",
        private.display()
    );
    assert_eq!(host.vzquota(&words(&init)).code, 7);
    assert!(host.simfs(&["status"]).out.contains("unknown"));
    drop(held);
    assert!(host.vzquota_ok("-b stat 101").contains(" 102400 204800 "));
}

/// Makes every file of the database unreadable as such.
fn spoil(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            spoil(&path);
        } else {
            std::fs::write(path, b"spoilt").unwrap();
        }
    }
}

#[test]
fn a_damaged_store_is_named_and_mended_on_request() {
    let host = Host::new();
    host.init();
    let before = host.vzquota_ok("-b stat 101");
    spoil(&host.path("var/lib/simfs/101/db"));
    let ended = host.vzquota(&["stat", "101"]);
    assert_eq!(ended.code, 4, "{ended:?}");
    assert!(ended.err.contains("simfs check VEID --repair"), "{ended:?}");
    assert_eq!(host.simfs(&["check", "101"]).code, 8);
    let mended = host.simfs(&["check", "101", "--repair"]);
    assert_eq!(mended.code, 1, "{mended:?}");
    assert!(mended.err.contains("mended"), "{mended:?}");
    assert_eq!(host.vzquota_ok("-b stat 101"), before);
    assert_eq!(host.simfs(&["check", "101"]).code, 0);
}

#[test]
fn a_store_of_another_ve_is_not_used() {
    let host = Host::new();
    host.init();
    std::fs::rename(
        host.path("var/lib/simfs/101"),
        host.path("var/lib/simfs/102"),
    )
    .unwrap();
    let ended = host.vzquota(&["stat", "102"]);
    assert_eq!(ended.code, 4, "{ended:?}");
    assert!(ended.err.contains("101"), "{ended:?}");
}

#[test]
fn what_an_interrupted_init_left_does_no_harm() {
    let host = Host::new();
    std::fs::create_dir_all(host.path("var/lib/simfs/.101.new/db")).unwrap();
    std::fs::write(host.path("var/lib/simfs/.101.new/db/conf"), b"half").unwrap();
    assert_eq!(host.vzquota(&["stat", "101"]).code, 11);
    host.init();
    assert!(!host.path("var/lib/simfs/.101.new").exists());
    assert_eq!(host.simfs(&["check", "101"]).code, 0);
}
