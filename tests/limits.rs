//! The first level: what is refused at the limits, by which call, and what goes on.

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags, copy_file_range,
    fallocate, ftruncate, lsetxattr,
};
use rustix::io::Errno;

use crate::harness::files::{create, fill, mkdir, occupied, open, put, rename, write_at};
use crate::harness::tree::dump;
use crate::harness::user::{ALICE, ROOT};
use crate::harness::{KIB, Kind, MIB, Spec, Ve};

const EDQUOT: Option<Errno> = Some(Errno::DQUOT);

/// Memory: a file system without late blocks, on which nothing is promised for them.
const EXACT: Kind = Kind::Tmpfs { mib: 64 };

/// A VE whose space ends `room` bytes after what `prepare` put into it.
fn with_room(room: u64, prepare: impl Fn(&Ve)) -> Option<Ve> {
    with_room_on(Kind::Host, room, prepare)
}

fn with_room_on(kind: Kind, room: u64, prepare: impl Fn(&Ve)) -> Option<Ve> {
    let ve = Spec::default().backing(kind).mount()?;
    prepare(&ve);
    ve.assert_exact();
    let hard = ((ve.used().space + room) / KIB).to_string();
    ve.setlimit(&["-b", &hard, "-B", &hard]);
    Some(ve)
}

/// How many requests for want of space or of inodes the VE refused.
fn refused(ve: &Ve, resource: &str) -> u64 {
    ve.stat()["refused"][resource].as_u64().unwrap()
}

// S6: reaching the limit exactly is allowed, passing it is refused by the call itself. S14: root too.
#[test]
fn the_hard_limit_can_be_reached_but_not_passed() {
    for user in [ROOT, ALICE] {
        let opened = |ve: &Ve| chmod(ve, 0o777);
        let Some(ve) = with_room_on(EXACT, MIB, opened) else {
            return;
        };
        user.run(|| {
            let file = create(ve.path("file")).unwrap();
            assert_eq!(fill(&file, MIB), (MIB as usize, None));
            assert_eq!(write_at(&file, MIB, b"x"), (0, EDQUOT));
        });
        assert_eq!(refused(&ve, "space"), 1);
        ve.assert_exact();
    }
}

fn chmod(ve: &Ve, mode: u32) {
    rustix::fs::chmodat(CWD, ve.root(), Mode::from_raw_mode(mode), AtFlags::empty()).unwrap();
}

// S8: short down to a block edge, then refused.
#[test]
fn a_write_that_fits_in_part_is_short() {
    let Some(ve) = with_room_on(EXACT, 70 * KIB, |_| ()) else {
        return;
    };
    let file = create(ve.path("file")).unwrap();
    let data = vec![1; 256 * 1024];
    let block = 4096;
    let room = 70 * 1024 / block * block;
    assert_eq!(rustix::io::pwrite(&file, &data, 0), Ok(room));
    assert_eq!(
        rustix::io::pwrite(&file, &data, room as u64),
        Err(Errno::DQUOT)
    );
    ve.assert_exact();
}

// S8: allocation is all or nothing.
#[test]
fn allocation_is_all_or_nothing() {
    let Some(ve) = with_room_on(EXACT, MIB, |_| ()) else {
        return;
    };
    let file = create(ve.path("file")).unwrap();
    let allocate = |len| fallocate(&file, FallocateFlags::empty(), 0, len);
    let before = (ve.used(), dump(&ve.root()));
    assert_eq!(allocate(MIB + 4096), Err(Errno::DQUOT));
    assert_eq!((ve.used(), dump(&ve.root())), before);
    assert_eq!(allocate(MIB), Ok(()));
    ve.assert_exact();
}

// S8: what extents might need stands in nobody's way who has room for what they need.
#[test]
fn allocation_near_the_limit_needs_room_for_its_extents_only() {
    let (room, left) = (48 * MIB, 16 * KIB);
    let Some(ve) = with_room_on(Kind::Ext4 { mib: 128 }, room, |ve| put(ve.path("file"), 1)) else {
        return;
    };
    let file = open(ve.path("file"), OFlags::RDWR).unwrap();
    let allocate = |len| fallocate(&file, FallocateFlags::empty(), 4096, len);
    let before = (ve.used(), dump(&ve.root()));
    assert_eq!(allocate(room + 4096), Err(Errno::DQUOT));
    assert_eq!((ve.used(), dump(&ve.root())), before);
    assert_eq!(refused(&ve, "space"), 1);
    assert_eq!(allocate(room - left), Ok(()));
    assert_eq!(
        std::fs::metadata(ve.path("file")).unwrap().len(),
        4096 + room - left
    );
    ve.assert_exact();
    assert_eq!(write_at(&file, 4096, &[1; 4096]), (4096, None));
    assert_eq!(allocate(room + 4096), Err(Errno::DQUOT));
    ve.assert_exact();
}

// S8, S20: a file of many holes needs more for its extents than there is room for.
#[test]
fn allocation_that_its_extents_make_too_large_changes_nothing() {
    let holes: u64 = 4000;
    let holed = |ve: &Ve| {
        let file = create(ve.path("file")).unwrap();
        for hole in 0..holes {
            assert_eq!(write_at(&file, hole * 8192, &[1; 4096]).1, None);
        }
        rustix::fs::fsync(&file).unwrap();
    };
    let Some(ve) = with_room_on(Kind::Ext4 { mib: 128 }, holes * 4096 + 4096, holed) else {
        return;
    };
    let file = open(ve.path("file"), OFlags::WRONLY).unwrap();
    let before = (ve.used(), dump(&ve.root()));
    let allocated = fallocate(&file, FallocateFlags::empty(), 0, holes * 8192);
    assert_eq!(allocated, Err(Errno::DQUOT));
    assert_eq!((ve.used(), dump(&ve.root())), before);
    ve.assert_exact();
}

// S8: of a short answer to an O_DIRECT write the kernel would make EIO. Without passthrough and with it the same.
#[test]
fn a_direct_write_that_fits_in_part_is_refused_whole() {
    let Some(ve) = with_room(256 * KIB, |_| ()) else {
        return;
    };
    for (name, access) in [("both", OFlags::RDWR), ("write-only", OFlags::WRONLY)] {
        let file = open(ve.path(name), access | OFlags::CREATE | OFlags::DIRECT).unwrap();
        let data = vec![1; 512 * 1024];
        let before = (ve.used(), dump(&ve.root()));
        assert_eq!(
            rustix::io::pwrite(&file, &data, 0),
            Err(Errno::DQUOT),
            "{name}"
        );
        assert_eq!((ve.used(), dump(&ve.root())), before, "{name}");
        assert_eq!(rustix::io::pwrite(&file, &data[..65536], 0), Ok(65536));
    }
}

// S6: where blocks may come late (S5), one is promised during a write: the last block below the limit may stay free.
#[test]
fn late_blocks_are_promised_below_the_limit() {
    let Some(ve) = with_room_on(Kind::Ext4 { mib: 64 }, MIB, |_| ()) else {
        return;
    };
    let file = create(ve.path("file")).unwrap();
    let (written, error) = fill(&file, 2 * MIB);
    assert_eq!(error, EDQUOT);
    let stat = ve.stat();
    let figure = |key: &str| stat[key]["space"].as_u64().unwrap();
    let hard = stat["limits"]["space"]["hard"].as_u64().unwrap();
    assert!(figure("used") + figure("reserved") <= hard, "{stat}");
    assert!(
        written as u64 + 4096 >= MIB,
        "{written} written: more than one block was held back"
    );
}

/// One request that needs space or an inode.
type Request = fn(&Ve) -> Result<(), Errno>;

fn answer((_, error): (usize, Option<Errno>)) -> Result<(), Errno> {
    error.map_or(Ok(()), Err)
}

const NEED_SPACE: [(&str, Request); 6] = [
    ("write", |ve| {
        answer(write_at(&open(ve.path("file"), OFlags::WRONLY)?, MIB, b"x"))
    }),
    ("mkdir", |ve| mkdir(ve.path("new"))),
    ("symlink", |ve| {
        rustix::fs::symlinkat("t".repeat(1000), CWD, ve.path("new"))
    }),
    ("setxattr", |ve| {
        lsetxattr(ve.path("file"), "user.x", &[1; 3000], XattrFlags::empty())
    }),
    ("fallocate", |ve| {
        fallocate(
            open(ve.path("file"), OFlags::WRONLY)?,
            FallocateFlags::KEEP_SIZE,
            MIB,
            4096,
        )
    }),
    ("copy_file_range", |ve| {
        let (from, to) = (
            open(ve.path("file"), OFlags::RDONLY)?,
            open(ve.path("empty"), OFlags::RDWR)?,
        );
        copy_file_range(from, None, to, None, 65_536).map(drop)
    }),
];

const NEED_INODES: [(&str, Request); 4] = [
    ("create", |ve| create(ve.path("new")).map(drop)),
    ("mkdir", |ve| mkdir(ve.path("new"))),
    ("mkfifo", |ve| {
        rustix::fs::mknodat(
            CWD,
            ve.path("new"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
    }),
    ("symlink", |ve| {
        rustix::fs::symlinkat("target", CWD, ve.path("new"))
    }),
];

const NEED_NOTHING: [(&str, Request); 8] = [
    ("overwrite", |ve| {
        answer(write_at(
            &open(ve.path("file"), OFlags::WRONLY)?,
            1,
            b"changed",
        ))
    }),
    ("read", |ve| {
        rustix::io::pread(open(ve.path("file"), OFlags::RDONLY)?, &mut [0_u8; 9], 0).map(drop)
    }),
    ("rename", |ve| {
        rename(ve.path("file"), ve.path("file2"), RenameFlags::empty())
    }),
    ("rename back", |ve| {
        rename(ve.path("file2"), ve.path("file"), RenameFlags::empty())
    }),
    ("link", |ve| {
        rustix::fs::linkat(CWD, ve.path("file"), CWD, ve.path("link"), AtFlags::empty())
    }),
    ("unlink", |ve| {
        rustix::fs::unlinkat(CWD, ve.path("link"), AtFlags::empty())
    }),
    ("extending truncation", |ve| {
        ftruncate(open(ve.path("empty"), OFlags::WRONLY)?, 1 << 30)
    }),
    ("chmod", |ve| {
        rustix::fs::chmodat(
            CWD,
            ve.path("file"),
            Mode::from_raw_mode(0o600),
            AtFlags::empty(),
        )
    }),
];

fn two_files(ve: &Ve) {
    put(ve.path("file"), MIB);
    put(ve.path("empty"), 0);
}

/// At the limit each request is refused and changes nothing; with room it succeeds.
fn table(requests: &[(&str, Request)], resource: &str, full: &[&str], raised: &[&str]) {
    let Some(ve) = with_room(0, two_files) else {
        return;
    };
    for (name, request) in requests {
        ve.setlimit(full);
        let (before, count) = ((ve.used(), dump(&ve.root())), refused(&ve, resource));
        assert_eq!(request(&ve), Err(Errno::DQUOT), "{name}");
        assert_eq!(
            (ve.used(), dump(&ve.root())),
            before,
            "{name} changed something"
        );
        assert_eq!(refused(&ve, resource), count + 1, "{name} is counted");
        // S15: the very next request.
        ve.setlimit(raised);
        assert_eq!(request(&ve), Ok(()), "{name} after the limit was raised");
        let _only_some_make_it = std::fs::remove_file(ve.path("new"));
        let _only_some_make_it = std::fs::remove_dir(ve.path("new"));
        ftruncate(open(ve.path("empty"), OFlags::WRONLY).unwrap(), 0).unwrap();
        let file = open(ve.path("file"), OFlags::WRONLY).unwrap();
        ftruncate(&file, MIB).unwrap();
        fallocate(
            &file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            MIB,
            MIB,
        )
        .unwrap();
        let _only_one_makes_it = rustix::fs::lremovexattr(ve.path("file"), "user.x");
        ve.assert_exact();
    }
}

// S35, S20: everything that takes space is limited, and a refusal changes nothing.
#[test]
fn every_way_to_take_space_is_limited() {
    let Some(probe) = with_room(0, two_files) else {
        return;
    };
    let hard = (probe.used().space / KIB).to_string();
    table(
        &NEED_SPACE,
        "space",
        &["-b", &hard, "-B", &hard],
        &["-b", "8M", "-B", "8M"],
    );
}

// S12, S20: inodes are limited apart from space.
#[test]
fn every_way_to_take_an_inode_is_limited() {
    let full = ["-b", "unlimited", "-B", "unlimited", "-i", "3", "-I", "3"];
    table(&NEED_INODES, "inodes", &full, &["-i", "4", "-I", "4"]);
}

// S13: 0 allows nothing more.
#[test]
fn a_limit_of_zero_allows_nothing() {
    let Some(ve) = with_room(0, two_files) else {
        return;
    };
    ve.setlimit(&["-i", "0", "-I", "0"]);
    assert_eq!(create(ve.path("new")).map(drop), Err(Errno::DQUOT));
    ve.setlimit(&["-b", "0", "-B", "0", "-i", "unlimited", "-I", "unlimited"]);
    create(ve.path("new")).unwrap();
    assert_eq!(
        fill(&open(ve.path("new"), OFlags::WRONLY).unwrap(), 1),
        (0, EDQUOT)
    );
    ve.setlimit(&["-b", "unlimited", "-B", "unlimited"]);
    assert_eq!(
        fill(&open(ve.path("new"), OFlags::WRONLY).unwrap(), 4 * MIB).1,
        None
    );
}

// S16: what needs nothing new goes on at the limit and above it.
#[test]
fn at_the_limit_all_else_goes_on() {
    let Some(ve) = with_room(0, two_files) else {
        return;
    };
    for limit in [["-b", "64", "-B", "64"], ["-i", "1", "-I", "1"]] {
        ve.setlimit(&limit);
        for (name, request) in NEED_NOTHING {
            assert_eq!(request(&ve), Ok(()), "{name} with {limit:?}");
        }
        ve.assert_exact();
    }
}

// S16: lowering below usage deletes nothing; room comes back by deleting.
#[test]
fn a_limit_below_usage() {
    let Some(ve) = with_room(0, |ve| {
        put(ve.path("large"), MIB);
        put(ve.path("small"), 64 * KIB);
    }) else {
        return;
    };
    let before = dump(&ve.root());
    ve.setlimit(&["-b", "512", "-B", "512"]);
    assert_eq!(dump(&ve.root()), before);
    let file = open(ve.path("small"), OFlags::WRONLY).unwrap();
    assert_eq!(write_at(&file, 64 * KIB, b"x"), (0, EDQUOT));
    std::fs::remove_file(ve.path("large")).unwrap();
    assert_eq!(write_at(&file, 64 * KIB, b"x"), (1, None));
}

/// Freed space is there for the next request, for any writer.
#[test]
fn freed_space_is_usable_at_once() {
    let Some(ve) = with_room_on(EXACT, 2 * MIB, |_| ()) else {
        return;
    };
    for round in 0..20 {
        let name = ve.path(format!("file-{round}"));
        let file = create(&name).unwrap();
        assert_eq!(fill(&file, 2 * MIB).1, None, "round {round}");
        drop(file);
        assert_eq!(occupied(&name), 2 * MIB);
        std::fs::remove_file(&name).unwrap();
    }
}

// S21: accounting goes on while enforcement is off.
#[test]
fn enforcement_can_be_switched_off_and_on() {
    let Some(ve) = with_room(0, |_| ()) else {
        return;
    };
    ve.vzquota(["off", Ve::ID]).ok();
    put(ve.path("file"), MIB);
    ve.assert_exact();
    ve.vzquota(["on", Ve::ID]).ok();
    let file = open(ve.path("file"), OFlags::WRONLY).unwrap();
    assert_eq!(write_at(&file, MIB, b"x"), (0, EDQUOT));
}

// S18: peaks and refusals are counted and kept. S41: and so are usage and limits.
#[test]
fn figures_survive_a_remount() {
    let Some(ve) = with_room(MIB, |_| ()) else {
        return;
    };
    let file = create(ve.path("file")).unwrap();
    fill(&file, 2 * MIB);
    drop(file);
    std::fs::remove_file(ve.path("file")).unwrap();
    put(ve.path("kept"), 100 * KIB);
    ve.assert_exact();
    let figures = |ve: &Ve| {
        let stat = ve.stat();
        [
            "used",
            "peak",
            "refused",
            "limits",
            "deadlines",
            "grace_periods",
        ]
        .map(|key| stat[key].clone())
    };
    let before = figures(&ve);
    assert!(before[1]["space"].as_u64().unwrap() >= MIB, "{before:?}");
    assert_eq!(before[2]["space"], 1);
    ve.remount();
    assert_eq!(figures(&ve), before);
}

#[test]
fn users_of_the_host_program_see_the_limits() {
    let Some(ve) = with_room(0, two_files) else {
        return;
    };
    let outcome = ve.vzquota(["-b", "stat", Ve::ID]).ok();
    let rows: Vec<Vec<&str>> = outcome
        .stdout
        .lines()
        .map(|line| line.split(' ').collect())
        .collect();
    let kib = (ve.used().space / KIB).to_string();
    assert_eq!(rows.len(), 2, "{}", outcome.stdout);
    assert_eq!(rows[0][..3], [kib.as_str(); 3]);
    assert_eq!(rows[1][0], "3");
}

// S38: near the limit a name in a large directory may be refused, but usage never passes the limit.
#[test]
fn large_directories_at_the_limit() {
    let Some(ve) = with_room(8 * KIB, |ve| {
        mkdir(ve.path("dir")).unwrap();
        for n in 0..200 {
            create(ve.path(format!("dir/{n}-{}", "long".repeat(50)))).unwrap();
        }
    }) else {
        return;
    };
    let hard = ve.stat()["limits"]["space"]["hard"].as_u64().unwrap();
    let mut refused = false;
    for n in 200..600 {
        match create(ve.path(format!("dir/{n}-{}", "long".repeat(50)))) {
            Ok(_) => {}
            Err(Errno::DQUOT) => refused = true,
            Err(error) => panic!("{error}"),
        }
        assert!(ve.used().space <= hard || n % 20 != 0);
    }
    assert!(refused);
    ve.assert_exact();
    assert!(ve.used().space <= hard);
}
