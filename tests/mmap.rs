//! Stores through mappings, by xfs_io(8).

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::command::{Outcome, eventually, run};
use crate::harness::files::{create, occupied, put};
use crate::harness::tree::describe;
use crate::harness::{KIB, MIB, Spec, Ve, crash, require};

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

/// An xfs_io that has a file of `name` mapped and has stored in its first page. Of the rest nothing is in memory, but for
/// what is read ahead: what was written is dropped before.
fn mapped(ve: &Ve, name: &str) -> Child {
    std::fs::write(ve.path(name), vec![0x5a; 8 << 20]).expect("write");
    let mut command = Command::new("xfs_io");
    command.arg(ve.path(name)).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("xfs_io");
    tell(
        &mut child,
        "fsync\nfadvise -d 0 8m\nmmap -rw 0 8m\nmwrite -S 0x41 0 4k\nmsync -s 0 4k\n",
    );
    eventually("the store is written out", || {
        let data = std::fs::read(ve.private().join(name)).expect("read");
        if data[0] == 0x41 {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    });
    child
}

fn tell(child: &mut Child, commands: &str) {
    let stdin = child.stdin.as_mut().expect("its input");
    stdin.write_all(commands.as_bytes()).expect("a command");
}

fn end_with(mut child: Child, commands: &str) -> Output {
    tell(&mut child, commands);
    child.wait_with_output().expect("its end")
}

// S78: a page that would have to be asked for is SIGBUS, and stores that were not written out are told of.
#[test]
fn a_mapping_of_a_dead_mount_never_hangs_and_never_lies() {
    if !require::programs(&["xfs_io"]) {
        return;
    }
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let (asks, stores, reads) = (
        mapped(&ve, "asks"),
        mapped(&ve, "stores"),
        mapped(&ve, "reads"),
    );
    crash::kill_both(&ve);
    let asked = end_with(asks, "mread 6m 4k\n");
    assert_eq!(asked.status.signal(), Some(7), "{asked:?}");
    let stored = end_with(stores, "mwrite -S 0x42 0 4k\nmsync -s 0 4k\n");
    let told = String::from_utf8_lossy(&stored.stderr) + String::from_utf8_lossy(&stored.stdout);
    assert!(told.contains("not connected"), "{told}");
    let read = end_with(reads, "mread -v 0 16\n");
    let shown = String::from_utf8_lossy(&read.stdout);
    assert!(shown.contains("41 41 41 41"), "{shown}");
    crash::mount_again(&ve);
    assert_eq!(
        std::fs::read(ve.path("stores")).map(|data| data[0]).ok(),
        Some(0x41)
    );
}
