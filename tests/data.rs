//! Content: reading, writing, holes, allocation, copies, locks.

use rustix::fs::{
    FallocateFlags, FlockOperation, OFlags, SeekFrom, copy_file_range, fallocate, flock, seek,
};
use rustix::io::{Errno, pread, pwrite};

use crate::harness::command::run;
use crate::harness::compare::Pair;
use crate::harness::content::Aligned;
use crate::harness::files::{create, fill, occupied, open, put, write_at};
use crate::harness::tree::{describe, dump};
use crate::harness::user::{ALICE, ROOT};
use crate::harness::{KIB, Kind, MIB, Spec};

#[test]
fn what_is_written_is_read() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ROOT, "writes of odd sizes", |root| {
        let file = create(root.join("file")).unwrap();
        for (offset, len) in [
            (0, 1),
            (4095, 2),
            (10, 8191),
            (MIB - 1, 70_000),
            (3 * MIB, 2 * MIB),
        ] {
            let data: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            assert_eq!(write_at(&file, offset, &data).1, None);
        }
        let ends = (
            seek(&file, SeekFrom::Hole(0)),
            seek(&file, SeekFrom::Data(2 * MIB)),
        );
        (ends, describe(&root.join("file")))
    });
    pair.ve.assert_exact();
}

// S30: what a guest says when it creates a file holds for its descriptor, and no longer than it wants.
#[test]
fn flags_of_a_new_file() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ALICE, "O_APPEND that is given up", |root| {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND;
        let file = open(root.join("appended"), flags).unwrap();
        let first = rustix::io::write(&file, b"first");
        rustix::fs::fcntl_setfl(&file, OFlags::empty()).unwrap();
        (
            first,
            pwrite(&file, b"F", 0),
            describe(&root.join("appended")),
        )
    });
    pair.same(ALICE, "O_DIRECT", |root| {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::DIRECT;
        let file = open(root.join("direct"), flags).unwrap();
        let data = Aligned::new(&[7; 8192]);
        let mut back = Aligned::new(&[0; 8192]);
        let written = pwrite(&file, data.get(), 4096);
        let read = pread(&file, back.get_mut(), 4096);
        (
            written,
            read,
            back.get().to_vec(),
            describe(&root.join("direct")),
        )
    });
    pair.ve.assert_exact();
}

#[test]
fn open_flags() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ALICE, "flags", |root| {
        put(root.join("file"), 9000);
        let read_only = open(root.join("file"), OFlags::RDONLY).unwrap();
        let append = open(root.join("file"), OFlags::WRONLY | OFlags::APPEND).unwrap();
        let answers = (
            pwrite(&read_only, b"x", 0),
            pread(&append, &mut [0_u8; 4], 0),
            rustix::io::write(&append, b"tail"),
            open(root.join("file"), OFlags::CREATE | OFlags::EXCL).map(drop),
            open(root.join("file"), OFlags::DIRECTORY).map(drop),
            open(root.join("absent"), OFlags::RDONLY).map(drop),
            open(root, OFlags::WRONLY).map(drop),
        );
        let after_append = describe(&root.join("file"));
        open(root.join("file"), OFlags::WRONLY | OFlags::TRUNC).unwrap();
        (answers, after_append, describe(&root.join("file")))
    });
    pair.ve.assert_exact();
}

// S36: whatever way it is written, it is there and charged.
#[test]
fn direct_and_synchronous_writes() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    for flags in [OFlags::DIRECT, OFlags::SYNC, OFlags::DSYNC] {
        let name = format!("{flags:?}").replace(['(', ')', '|', ' '], "_");
        let file = open(ve.path(&name), OFlags::RDWR | OFlags::CREATE | flags).unwrap();
        if flags == OFlags::DIRECT {
            // O_DIRECT needs aligned memory on some file systems; only that it opens is promised.
            continue;
        }
        assert_eq!(fill(&file, 256 * KIB).1, None);
        assert_eq!(occupied(ve.path(&name)), 256 * KIB);
    }
    ve.assert_exact();
}

#[test]
fn allocation_modes() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    let keep = FallocateFlags::KEEP_SIZE;
    let modes = [
        FallocateFlags::empty(),
        keep,
        FallocateFlags::PUNCH_HOLE | keep,
        FallocateFlags::ZERO_RANGE,
        FallocateFlags::ZERO_RANGE | keep,
    ];
    for (n, mode) in modes.into_iter().enumerate() {
        pair.same(ROOT, &format!("{mode:?}"), |root| {
            let path = root.join(n.to_string());
            put(&path, 64 * KIB);
            let file = open(&path, OFlags::RDWR).unwrap();
            let inside = fallocate(&file, mode, 8 * KIB, 16 * KIB);
            let beyond = fallocate(&file, mode, 60 * KIB, 32 * KIB);
            (inside, beyond, occupied(&path), describe(&path))
        });
    }
    pair.ve.assert_exact();
}

#[test]
fn copies_within_the_mount() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    let copied = pair.agreed(ROOT, "copy_file_range", |root| {
        put(root.join("from"), 300 * KIB);
        let from = open(root.join("from"), OFlags::RDONLY).unwrap();
        let to = create(root.join("to")).unwrap();
        let (mut at, mut into) = (100, 50);
        copy_file_range(&from, Some(&mut at), &to, Some(&mut into), 200 * 1024)
            .map(|n| (n, at, into, describe(&root.join("to"))))
    });
    assert!(copied.is_ok());
    pair.ve.assert_exact();
}

#[test]
fn truncation_gives_space_back() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    put(ve.path("file"), MIB);
    let full = ve.used();
    let file = open(ve.path("file"), OFlags::RDWR).unwrap();
    rustix::fs::ftruncate(&file, 4096).unwrap();
    ve.assert_exact();
    assert_eq!(ve.used().space, full.space - MIB + 4096);
    rustix::fs::ftruncate(&file, 1 << 40).unwrap();
    ve.assert_exact();
    assert_eq!(ve.used().space, full.space - MIB + 4096);
}

#[test]
fn locks_exclude_between_descriptions() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    put(ve.path("file"), 1);
    let one = open(ve.path("file"), OFlags::RDWR).unwrap();
    let two = open(ve.path("file"), OFlags::RDWR).unwrap();
    flock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(
        flock(&two, FlockOperation::NonBlockingLockShared),
        Err(Errno::WOULDBLOCK)
    );
    flock(&one, FlockOperation::Unlock).unwrap();
    flock(&two, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn two_descriptors_see_each_other() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ROOT, "reader and writer", |root| {
        let writer = create(root.join("file")).unwrap();
        let reader = open(root.join("file"), OFlags::RDONLY).unwrap();
        let mut seen = Vec::new();
        for n in 0..50_u64 {
            assert_eq!(pwrite(&writer, &n.to_le_bytes(), n * 4090), Ok(8));
            let mut back = [0_u8; 8];
            seen.push((
                pread(&reader, &mut back, n * 4090),
                u64::from_le_bytes(back),
            ));
        }
        seen
    });
}

/// The daemon answers these reads, each of them as far as the file goes: a shorter answer would be the file's end. Memory
/// decides how many pages one is of.
// S30
#[test]
fn large_reads_by_the_daemon_are_whole() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ROOT, "2 MiB in one call", |root| {
        let data: Vec<u8> = (0..2 * MIB).map(|n| (n % 251) as u8).collect();
        let path = root.join("file");
        assert_eq!(write_at(&create(&path).unwrap(), 0, &data).1, None);
        let _reader = open(&path, OFlags::RDONLY).unwrap();
        let both = open(&path, OFlags::RDWR).unwrap();
        let mut memory = vec![0_u8; data.len() + 8192];
        let page = memory.as_ptr().align_offset(4096);
        [0, 16, 4095].map(|start| {
            let from = page + start;
            let buffer = &mut memory[from..from + data.len()];
            buffer.fill(0);
            let read = pread(&both, &mut *buffer, 0);
            (read, *buffer == data[..])
        })
    });
}

#[test]
fn programs_run_from_the_mount() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    // Written by others: what another test starts meanwhile has this process's files open for a moment, and a program that is
    // open for writing is not executed.
    let path = |name: &str| ve.path(name).display().to_string();
    run("cp", ["/bin/true", &path("true")]).ok();
    assert!(
        std::process::Command::new(ve.path("true"))
            .status()
            .unwrap()
            .success()
    );
    let script = path("script");
    run(
        "sh",
        ["-c", "printf '#!/bin/sh\nexit 7\n' >\"$0\"", &script],
    )
    .ok();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(ve.path("script"), mode).unwrap();
    assert_eq!(
        std::process::Command::new(ve.path("script"))
            .status()
            .unwrap()
            .code(),
        Some(7)
    );
}

#[test]
fn content_survives_a_remount() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ROOT, "files", |root| {
        for n in 0..20 {
            put(root.join(n.to_string()), n * 1000);
        }
    });
    pair.ve.remount();
    pair.same(ROOT, "after remount", dump);
}

// S37: what no FUSE file system offers is refused as programs expect it, so that they fall back.
#[test]
fn what_is_absent_is_refused_politely() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    put(ve.path("file"), 64 * KIB);
    let file = open(ve.path("file"), OFlags::RDWR).unwrap();
    let copy = create(ve.path("copy")).unwrap();
    let collapse = fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096);
    let insert = fallocate(&file, FallocateFlags::INSERT_RANGE, 0, 4096);
    assert_eq!(
        (collapse, insert),
        (Err(Errno::OPNOTSUPP), Err(Errno::OPNOTSUPP))
    );
    let reflink = rustix::fs::ioctl_ficlone(&copy, &file);
    assert!(
        matches!(reflink, Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL)),
        "{reflink:?}"
    );
    let unnamed = open(ve.root(), OFlags::RDWR | OFlags::TMPFILE);
    assert_eq!(unnamed.map(drop), Err(Errno::OPNOTSUPP));
}

// S5: blocks of the extent tree appear at write-out; they are charged in the end.
#[test]
fn late_blocks_are_settled() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let file = create(ve.path("fragments")).unwrap();
    for n in 0..3000 {
        assert_eq!(write_at(&file, n * 16 * KIB, b"x").1, None);
    }
    rustix::fs::fsync(&file).unwrap();
    ve.assert_exact();
    assert!(
        ve.used().space > 3000 * 4 * KIB,
        "{:?}: no block of the tree was charged",
        ve.used()
    );
}

// S5: space behind the end of a file goes with its close, on XFS; that is settled by the close, however far the next look is.
#[test]
fn what_a_close_gives_back_is_settled_by_it() {
    let Some(ve) = Spec::default().backing(Kind::Xfs { mib: 400 }).mount() else {
        return;
    };
    let file = create(ve.path("file")).expect("create");
    for step in 0..64 {
        assert_eq!(write_at(&file, step * 16 * KIB, &[1; 16 * 1024]).1, None);
    }
    rustix::fs::fsync(&file).expect("fsync");
    let occupied = occupied(ve.private().join("file"));
    assert!(
        occupied > MIB,
        "nothing behind its end: the test shows nothing"
    );
    // Past the first late look, if all goes well: the second comes much later.
    std::thread::sleep(std::time::Duration::from_secs(6));
    drop(file);
    ve.assert_exact();
}
