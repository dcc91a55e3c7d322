//! Each way to bring something to the disk, alone: nothing else is synced between it and the loss of power.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use rustix::fs::{AtFlags, CWD, FallocateFlags, OFlags, RenameFlags};

use crate::harness::command::eventually;
use crate::harness::files::{create, mkdir, open, put, rename, write_at};
use crate::harness::{KIB, Kind, Spec, Ve, crash, require};
use crate::power;

const LEN: u64 = 64 * KIB;

/// What a guest does and is told to be on the disk, and whether it is there afterwards.
struct Way {
    name: &'static str,
    act: fn(&Ve) -> Option<Child>,
    is_kept: fn(&Ve) -> bool,
}

const WAYS: [Way; 10] = [
    Way {
        name: "fsync",
        act: |ve| {
            let file = write(ve, OFlags::empty());
            rustix::fs::fsync(&file).expect("fsync");
            None
        },
        is_kept: has_content,
    },
    Way {
        name: "fdatasync",
        act: |ve| {
            let file = write(ve, OFlags::empty());
            rustix::fs::fdatasync(&file).expect("fdatasync");
            None
        },
        is_kept: has_content,
    },
    Way {
        name: "O_SYNC",
        act: |ve| {
            write(ve, OFlags::SYNC);
            None
        },
        is_kept: has_content,
    },
    Way {
        name: "O_DSYNC",
        act: |ve| {
            write(ve, OFlags::DSYNC);
            None
        },
        is_kept: has_content,
    },
    Way {
        name: "fallocate with O_SYNC",
        act: |ve| allocate(ve, OFlags::SYNC),
        is_kept: has_length,
    },
    Way {
        name: "fallocate with O_DSYNC",
        act: |ve| allocate(ve, OFlags::DSYNC),
        is_kept: has_length,
    },
    Way {
        name: "copy_file_range with O_DSYNC",
        act: |ve| {
            let from = open(ve.path("mapped"), OFlags::RDONLY).expect("source");
            let to = open(ve.path("empty"), OFlags::WRONLY | OFlags::DSYNC).expect("target");
            let (mut read, mut written) = (0, 0);
            let copied = rustix::fs::copy_file_range(
                &from,
                Some(&mut read),
                &to,
                Some(&mut written),
                LEN as usize,
            );
            assert_eq!(copied, Ok(LEN as usize));
            None
        },
        is_kept: |ve| content(ve, "empty") == content(ve, "mapped"),
    },
    Way {
        name: "msync",
        act: |ve| Some(store_through_mapping(ve)),
        is_kept: |ve| content(ve, "mapped") == [0x41; LEN as usize],
    },
    Way {
        name: "fsync of a directory after a rename",
        act: |ve| {
            let (old, new) = (ve.path("dir/old"), ve.path("dir/new"));
            rename(old, new, RenameFlags::empty()).expect("rename");
            sync_dir(ve);
            None
        },
        is_kept: |ve| content(ve, "dir/new").len() as u64 == LEN && !ve.path("dir/old").exists(),
    },
    Way {
        name: "fsync of a directory after a link",
        act: |ve| {
            let (old, new) = (ve.path("dir/old"), ve.path("dir/new"));
            rustix::fs::linkat(CWD, old, CWD, new, AtFlags::empty()).expect("link");
            sync_dir(ve);
            None
        },
        is_kept: |ve| content(ve, "dir/new").len() as u64 == LEN && ve.path("dir/old").exists(),
    },
];

fn content(ve: &Ve, name: &str) -> Vec<u8> {
    std::fs::read(ve.path(name)).unwrap_or_default()
}

fn has_content(ve: &Ve) -> bool {
    content(ve, "empty") == [1; LEN as usize]
}

fn has_length(ve: &Ve) -> bool {
    content(ve, "empty").len() as u64 == LEN
}

/// Allocates a file whose name is on the disk.
fn allocate(ve: &Ve, flags: OFlags) -> Option<Child> {
    let file = open(ve.path("empty"), OFlags::WRONLY | flags).expect("open");
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, LEN).expect("fallocate");
    None
}

/// Writes to a file whose name is on the disk.
fn write(ve: &Ve, flags: OFlags) -> std::os::fd::OwnedFd {
    let file = open(ve.path("empty"), OFlags::WRONLY | flags).expect("open");
    assert_eq!(write_at(&file, 0, &[1; LEN as usize]).1, None);
    file
}

fn sync_dir(ve: &Ve) {
    let dir = open(ve.path("dir"), OFlags::RDONLY | OFlags::DIRECTORY).expect("directory");
    rustix::fs::fsync(&dir).expect("fsync of the directory");
}

/// Stores through a mapping, which stands until the power is lost.
fn store_through_mapping(ve: &Ve) -> Child {
    let mut command = Command::new("xfs_io");
    command.arg(ve.path("mapped")).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().expect("xfs_io");
    // Made when the msync(2) has returned; not on the backing file system.
    let done = ve.prefix().join("stored");
    let stores = "mmap -rw 0 64k\nmwrite -S 0x41 0 64k\nmsync -s 0 64k\n";
    let commands = format!("{stores}open -f {}\n", done.display());
    let stdin = child.stdin.as_mut().expect("its input");
    stdin.write_all(commands.as_bytes()).expect("commands");
    eventually("what was stored is synced", || match done.exists() {
        true => Ok(()),
        false => Err("not yet".to_owned()),
    });
    child
}

/// Makes the files anew and brings all to the disk.
fn prepare(ve: &Ve) {
    for name in ["empty", "mapped", "dir/old", "dir/new"] {
        let _not_there = std::fs::remove_file(ve.path(name));
    }
    create(ve.path("empty")).expect("create");
    put(ve.path("mapped"), LEN);
    put(ve.path("dir/old"), LEN);
    let disk = open(ve.backing().dir(), OFlags::RDONLY).expect("backing");
    rustix::fs::syncfs(&disk).expect("syncfs");
}

fn every_way_survives(kind: Kind) {
    if !require::programs(&["xfs_io"]) {
        return;
    }
    let Some(ve) = Spec::default().backing(kind).loses_power().mount() else {
        return;
    };
    mkdir(ve.path("dir")).expect("mkdir");
    let mut lost = Vec::new();
    for way in WAYS {
        prepare(&ve);
        let child = (way.act)(&ve);
        ve.lose_power();
        if let Some(mut child) = child {
            child.kill().expect("kill");
            child.wait().expect("its end");
        }
        power::boot(&ve, 0);
        crash::wait_for_recount(&ve);
        if !(way.is_kept)(&ve) {
            lost.push(way.name);
        }
    }
    assert!(lost.is_empty(), "lost although synced: {lost:?}");
}

// S52: what a guest was told is on the disk is there.
#[test]
fn whatever_a_guest_synced_survives_a_loss_of_power_on_ext4() {
    every_way_survives(Kind::Ext4 { mib: 128 });
}

#[test]
fn whatever_a_guest_synced_survives_a_loss_of_power_on_xfs() {
    every_way_survives(Kind::Xfs { mib: 320 });
}
