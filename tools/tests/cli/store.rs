//! A quota store that is held, damaged, or half made.

use std::path::Path;

use quota::store::record::key;
use quota::store::{Batch, DiskStore, Store as _};
use quota::{Subject, Uid, VeId};

use crate::host::{Host, words};

// A store that stays held is an error; one that is let go soon, as by the daemon of a mount that ends, is waited for.
#[test]
fn a_held_store_is_an_error_and_a_wait_of_seconds() {
    let host = Host::new();
    host.init();
    let store = || DiskStore::open(&host.path("var/lib/simfs/101"), VeId::new(101)).unwrap();
    let private = host.path("vz/private/101");
    let init = format!(
        "init 101 -p {} -b 1 -B 1 -i 1 -I 1 -e 1 -n 1",
        private.display()
    );
    let held = store();
    std::thread::scope(|scope| {
        for line in [
            "stat 101",
            "setlimit 101 -b 1",
            "drop 101",
            "off 101",
            &init,
        ] {
            let host = &host;
            scope.spawn(move || {
                let ended = host.vzquota(&words(line));
                assert_eq!(ended.code, 7, "{line}: {ended:?}");
                let reason = ended.err.lines().last().unwrap_or_default();
                assert!(
                    reason.contains("held by another process"),
                    "{line}: {ended:?}"
                );
            });
        }
        assert!(host.simfs(&["status"]).out.contains("unknown"));
    });
    drop(held);
    assert!(host.vzquota_ok("-b stat 101").contains(" 102400 204800 "));
    let held = store();
    std::thread::scope(|scope| {
        scope.spawn(|| host.vzquota_ok("setlimit 101 -b 50000"));
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(held);
    });
    assert!(host.vzquota_ok("-b stat 101").contains(" 50000 204800 "));
}

// S54, S64: a damaged database, or one that is gone, is named; one command mends it.
#[test]
fn a_damaged_store_is_named_and_mended_on_request() {
    let host = Host::new();
    host.init();
    host.vzquota_ok("setlimit2 101 -u 1000 0 500 0 50");
    let before = host.vzquota_ok("-b stat 101 -t");
    let state = host.path("var/lib/simfs/101");
    let damages: [fn(&Path); 4] = [
        |state| std::fs::write(state.join("quota.redb"), b"spoilt").unwrap(),
        |state| std::fs::remove_file(state.join("quota.redb")).unwrap(),
        |state| {
            std::fs::remove_file(state.join("quota.redb")).unwrap();
            std::fs::remove_file(state.join("identity")).unwrap();
        },
        // One record that is none.
        |state| {
            let store = DiskStore::open(state, VeId::new(101)).unwrap();
            let mut batch = Batch::new();
            batch.put(key::account(Subject::User(Uid::new(1000))), b"spoilt");
            store.commit(&batch).unwrap();
        },
    ];
    for (number, damage) in damages.iter().enumerate() {
        damage(&state);
        let ended = host.simfs(&["check", "101"]);
        assert_eq!(ended.code, 8, "{number}: {ended:?}");
        assert!(ended.err.contains("simfs check VEID --repair"), "{ended:?}");
        assert_eq!(ended.err.lines().count(), 1, "{number}: {ended:?}");
        let mended = host.simfs(&["check", "101", "--repair"]);
        assert_eq!(mended.code, 1, "{number}: {mended:?}");
        assert!(mended.err.contains("mended"), "{number}: {mended:?}");
        assert_eq!(host.vzquota_ok("-b stat 101 -t"), before, "{number}");
        assert_eq!(host.simfs(&["check", "101"]).code, 0, "{number}");
    }
}

#[test]
fn a_store_of_another_version_is_named_with_what_to_do_and_kept() {
    let host = Host::new();
    host.init();
    let state = host.path("var/lib/simfs/101");
    std::fs::remove_file(state.join("quota.redb")).unwrap();
    std::fs::create_dir(state.join("db")).unwrap();
    let private = host.path("vz/private/101");
    let init = format!(
        "init 101 -p {} -b 1 -B 1 -i 1 -I 1 -e 1 -n 1",
        private.display()
    );
    for line in ["stat 101", "setlimit 101 -b 1", "drop 101", &init] {
        let ended = host.vzquota(&words(line));
        assert_ne!(ended.code, 0, "{line}: {ended:?}");
        assert!(ended.err.contains("another version"), "{line}: {ended:?}");
        assert!(ended.err.contains("vzquota init"), "{line}: {ended:?}");
    }
    assert_eq!(host.simfs(&["check", "101", "--repair"]).code, 8);
    assert!(state.join("db").is_dir() && state.join("limits.copy").exists());
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
    std::fs::create_dir_all(host.path("var/lib/simfs/.101.new")).unwrap();
    std::fs::write(host.path("var/lib/simfs/.101.new/quota.redb"), b"half").unwrap();
    assert_eq!(host.vzquota(&["stat", "101"]).code, 11);
    host.init();
    assert!(!host.path("var/lib/simfs/.101.new").exists());
    assert_eq!(host.simfs(&["check", "101"]).code, 0);
}
