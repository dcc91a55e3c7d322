//! A VE whose state directory is damaged: its mount says what is wrong and what mends it, and once mended it is the VE that it was.

use std::path::Path;

use serde_json::Value;

use crate::harness::files::{create, put, write_at};
use crate::harness::load::Dice;
use crate::harness::{KIB, MIB, Spec, Ve};

/// A way to damage a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Zeroed,
    Halved,
    Emptied,
    Random,
    Gone,
}

const DAMAGES: [Damage; 5] = [
    Damage::Zeroed,
    Damage::Halved,
    Damage::Emptied,
    Damage::Random,
    Damage::Gone,
];

fn damage(file: &Path, how: Damage) {
    let mut bytes = std::fs::read(file).expect("the file");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    match how {
        Damage::Zeroed => bytes.fill(0),
        Damage::Halved => bytes.truncate(bytes.len() / 2),
        Damage::Emptied => bytes.clear(),
        Damage::Random => bytes.fill_with(|| dice.roll(256) as u8),
        Damage::Gone => return std::fs::remove_file(file).expect("unlink"),
    }
    std::fs::write(file, bytes).expect("write");
}

/// Limits, deadlines and usage of the VE, of its users and of its groups.
fn record(ve: &Ve) -> Vec<Value> {
    let stat = ve.stat();
    let of = |account: &Value| {
        let parts = ["id", "limits", "deadlines", "used"];
        Value::from_iter(parts.map(|part| (part, account[part].clone())))
    };
    let mut record = vec![of(&stat)];
    for kind in ["users", "groups"] {
        let accounts = stat["second_level"][kind]["accounts"].as_array();
        record.extend(accounts.expect("accounts").iter().map(of));
    }
    record
}

/// Mounts the VE, mended first where its mount asks for that; whether it did.
fn mount_mended(ve: &Ve, what: &str) -> bool {
    let refused = ve.mount();
    if refused.code == 0 {
        return false;
    }
    let told = &refused.stderr;
    assert!(told.contains("quota store is damaged"), "{what}: {told}");
    let state = ve.prefix().join("var/lib/simfs").join(Ve::ID);
    let names_place = told.contains(state.to_str().expect("UTF-8")) || told.contains("(key ");
    assert!(names_place, "{what}: {told}");
    assert!(told.contains("simfs check VEID --repair"), "{what}: {told}");
    assert!(!ve.is_mounted(), "{what}");
    ve.simfs(["check", Ve::ID, "--repair"]).expect(1);
    ve.mount().ok();
    true
}

// S54: damage of each file of the state directory.
#[test]
fn a_damaged_state_is_named_mended_and_the_ve_is_what_it_was() {
    let spec = Spec::default().second_level();
    let Some(ve) = spec.space(4096, 8192).inodes(50, 60).mount() else {
        return;
    };
    put(ve.path("file"), MIB);
    ve.setlimit2(&["-u", "1001", "100", "200", "30", "40"]);
    ve.setlimit2(&["-g", "1002", "300", "400", "50", "60"]);
    ve.umount().ok();
    let before = record(&ve);
    for (name, must_be_mended) in [
        ("quota.redb", true),
        ("identity", true),
        ("settings.copy", false),
        ("limits.copy", false),
        ("lock", false),
    ] {
        for how in DAMAGES {
            let what = format!("{name} {how:?}");
            damage(
                &ve.prefix().join("var/lib/simfs").join(Ve::ID).join(name),
                how,
            );
            assert_eq!(mount_mended(&ve, &what), must_be_mended, "{what}");
            assert_eq!(record(&ve), before, "{what}");
            ve.assert_exact();
            let room = 8 * MIB - ve.used().space;
            let file = create(ve.path("big")).expect("create");
            let (written, refused) = write_at(&file, 0, &vec![1; 9 << 20]);
            assert!(
                refused.is_some() && written as u64 <= room,
                "{what}: {written}"
            );
            assert!(written as u64 >= room - 64 * KIB, "{what}: {written}");
            drop(file);
            std::fs::remove_file(ve.path("big")).expect("unlink");
            ve.assert_exact();
            ve.umount().ok();
        }
    }
}
