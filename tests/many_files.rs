//! A VE with more files than the daemon may have descriptors, or should have in memory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::harness::command::{eventually, finish, program};
use crate::harness::files::{open, write_at};
use crate::harness::{Spec, Ve, require};

/// Two fifths of the daemon's numbers go to cached descriptors and its own use at most.
const DESCRIPTORS: usize = 1024;
const DIRS: usize = 40;
const FILES: usize = 1000;

fn private_dirty(pid: u32) -> usize {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("memory");
    let line = rollup
        .lines()
        .find(|line| line.starts_with("Private_Dirty:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kib.expect("an amount") << 10
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("descriptors")
        .count()
}

fn all(root: &Path) -> impl Iterator<Item = PathBuf> {
    let root = root.to_owned();
    (0..DIRS * FILES).map(move |n| root.join(format!("d{}/f{}", n / FILES, n % FILES)))
}

/// Each file once; says how many descriptors the daemon had at most.
fn look_at_all(ve: &Ve, pid: u32) -> usize {
    let mut most = 0;
    for (number, path) in all(&ve.root()).enumerate() {
        assert_eq!(fs::symlink_metadata(path).expect("a file").size(), 0);
        if number % 500 == 0 {
            most = most.max(descriptors(pid));
        }
    }
    most
}

// S87: memory for each known inode, descriptors, and what comes back.
#[test]
fn many_files_take_little_memory_and_few_descriptors() {
    if !require::programs(&["prlimit"]) {
        return;
    }
    let Some(ve) = Spec::default().bare() else {
        return;
    };
    for dir in 0..DIRS {
        fs::create_dir(ve.private().join(format!("d{dir}"))).expect("mkdir");
    }
    for path in all(ve.private()) {
        fs::File::create(path).expect("create");
    }
    ve.init().ok();
    let mut command = std::process::Command::new("prlimit");
    command.arg(format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}"));
    command.arg(program("simfs")).args(["mount", Ve::ID]);
    finish(command.env("SIMFS_PREFIX", ve.prefix())).ok();
    let pid = ve.pid();
    let before = private_dirty(pid);
    // A second time, as well: then most of them are known and at rest.
    let most = look_at_all(&ve, pid).max(look_at_all(&ve, pid));
    assert!(most < DESCRIPTORS / 2, "{most} descriptors");
    let known = ve.status()["nodes"].as_u64().expect("nodes");
    assert!(
        known > (DIRS * FILES) as u64,
        "{known}: the kernel has dropped some"
    );
    let grown = private_dirty(pid).saturating_sub(before);
    let each = grown / (DIRS * FILES);
    assert!(each <= 250, "{each} bytes for each known inode");

    fs::write("/proc/sys/vm/drop_caches", "2").expect("drop_caches");
    eventually("what the kernel forgets takes no memory", || {
        let kept = private_dirty(pid).saturating_sub(before);
        match kept * 3 <= grown {
            true => Ok(()),
            false => Err(format!("{kept} of {grown} bytes")),
        }
    });

    let held: Vec<_> = all(&ve.root())
        .step_by(100)
        .map(|path| open(path, OFlags::RDWR).expect("open"))
        .collect();
    assert!(descriptors(pid) < DESCRIPTORS);
    for file in &held {
        assert_eq!(write_at(file, 0, &[1; 5000]), (5000, None));
    }
    drop(held);
    ve.assert_exact();
}
