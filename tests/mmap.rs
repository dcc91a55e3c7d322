//! Stores through mappings, by xfs_io(8).

use std::path::Path;

use crate::harness::command::{Outcome, run};
use crate::harness::files::{create, occupied, put};
use crate::harness::tree::describe;
use crate::harness::{KIB, MIB, Spec, Ve, require};

/// Runs xfs_io commands on a file.
fn xfs_io(file: &Path, commands: &[&str]) -> Outcome {
    let mut args = Vec::new();
    for command in commands {
        args.extend(["-c".as_ref(), std::ffi::OsStr::new(command)]);
    }
    args.push(file.as_os_str());
    run("xfs_io", args)
}

fn with_room(room: u64) -> Option<Ve> {
    if !require::programs(&["xfs_io"]) {
        return None;
    }
    let ve = Spec::default().mount()?;
    let hard = ((ve.used().space + room) / KIB).to_string();
    ve.setlimit(&["-b", &hard, "-B", &hard]);
    Some(ve)
}

#[test]
fn stores_into_a_shared_mapping_are_kept() {
    let Some(ve) = with_room(8 * MIB) else { return };
    put(ve.path("file"), MIB);
    let outcome = xfs_io(
        &ve.path("file"),
        &[
            "mmap -rw 0 1m",
            "mwrite -S 0x41 0 64k",
            "mwrite -S 0x42 512k 4k",
            "msync -s 0 1m",
        ],
    );
    outcome.ok();
    let data = std::fs::read(ve.path("file")).unwrap();
    assert!(data[..65_536].iter().all(|byte| *byte == 0x41));
    assert_eq!((data[512 * 1024], data[512 * 1024 + 4096]), (0x42, 0x5a));
    ve.assert_exact();
    ve.remount();
    assert_eq!(std::fs::read(ve.path("file")).unwrap(), data);
}

#[test]
fn stores_into_holes_are_charged() {
    let Some(ve) = with_room(8 * MIB) else { return };
    let file = create(ve.path("sparse")).unwrap();
    rustix::fs::ftruncate(&file, 4 * MIB).unwrap();
    drop(file);
    xfs_io(
        &ve.path("sparse"),
        &[
            "mmap -rw 0 4m",
            "mwrite -S 0x43 1m 1m",
            "msync -s 0 4m",
            "fsync",
        ],
    )
    .ok();
    ve.assert_exact();
    assert!(occupied(ve.path("sparse")) >= MIB);
    assert!(ve.used().space >= MIB);
}

// S7: what does not fit is refused at write-out, and the program is told.
#[test]
fn stores_into_holes_at_the_limit_are_reported() {
    let Some(ve) = with_room(256 * KIB) else {
        return;
    };
    let file = create(ve.path("sparse")).unwrap();
    rustix::fs::ftruncate(&file, 4 * MIB).unwrap();
    drop(file);
    let outcome = xfs_io(
        &ve.path("sparse"),
        &[
            "mmap -rw 0 4m",
            "mwrite -S 0x44 0 2m",
            "msync -s 0 4m",
            "fsync",
        ],
    );
    let told = format!("{}{}", outcome.stdout, outcome.stderr);
    let is_told = ["quota exceeded", "No space left", "Bus error"]
        .iter()
        .any(|text| told.contains(text));
    assert!(
        is_told || outcome.code >= 128,
        "nobody is told: {outcome:?}"
    );
    ve.assert_exact();
    let hard = ve.stat()["limits"]["space"]["hard"].as_u64().unwrap();
    assert!(ve.used().space <= hard, "{:?} above {hard}", ve.used());
}

/// Programs and libraries are mapped privately: nothing of that is charged or written back.
#[test]
fn private_mappings_charge_nothing() {
    let Some(ve) = with_room(8 * MIB) else { return };
    std::fs::copy("/bin/cat", ve.path("cat")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(ve.path("cat"), mode).unwrap();
    ve.assert_exact();
    let before = (ve.used(), describe(&ve.path("cat")));
    let program = ve.path("cat");
    run(program.to_str().unwrap(), ["/etc/hostname"]).ok();
    assert_eq!((ve.used(), describe(&ve.path("cat"))), before);
}
