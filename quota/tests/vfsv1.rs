//! Quota files: those that the quota tools wrote are read, those that we write the tools read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test states what it expects"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use quota::vfsv1::{BlockFault, QuotaFile, QuotaFileEntry, QuotaFileError, read, write};
use quota::{
    Blocks, Bytes, Deadlines, GracePeriod, GracePeriods, Inodes, Limit, Limits, QuotaType,
    Timestamp, Usage,
};
use tempfile::TempDir;

const BLOCK: usize = 1024;

fn fixture(name: &str) -> Vec<u8> {
    fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(name),
    )
    .unwrap()
}

fn grace(space: u64, inodes: u64) -> GracePeriods {
    GracePeriods {
        space: GracePeriod::new(space),
        inodes: GracePeriod::new(inodes),
    }
}

/// An entry in the columns of repquota(8): blocks used, soft, hard, deadline, then inodes the same way.
fn entry(id: u32, blocks: [u64; 4], inodes: [u64; 4]) -> QuotaFileEntry {
    let bytes = |count| Blocks::new(count).saturating_bytes();
    let deadline = |at: u64| (at != 0).then(|| Timestamp::new(at.try_into().unwrap()));
    QuotaFileEntry {
        id,
        limits: Limits {
            space: Limit::from_zero_as_none(bytes(blocks[1]), bytes(blocks[2])),
            inodes: Limit::from_zero_as_none(Inodes::new(inodes[1]), Inodes::new(inodes[2])),
        },
        usage: Usage::new(bytes(blocks[0]), Inodes::new(inodes[0])),
        deadlines: Deadlines {
            space: deadline(blocks[3]),
            inodes: deadline(inodes[3]),
        },
    }
}

/// Compares entry by entry, so that a failure shows one and not all.
fn assert_same(found: &[QuotaFileEntry], expected: &[QuotaFileEntry]) {
    let ids = |entries: &[QuotaFileEntry]| entries.iter().map(|it| it.id).collect::<Vec<_>>();
    assert_eq!(ids(found), ids(expected));
    found
        .iter()
        .zip(expected)
        .for_each(|(found, expected)| assert_eq!(found, expected));
}

#[test]
fn users_written_by_the_tools_are_read() {
    let file = read(&fixture("user.vfsv1")).unwrap();
    let mut expected = vec![
        entry(0, [14, 0, 0, 0], [3, 0, 0, 0]),
        entry(1000, [9, 4, 200, 1_795_270_219], [1, 10, 20, 0]),
        entry(1001, [3, 1, 5_000_000_000, 1_795_870_019], [1, 0, 7, 0]),
        entry(2000, [8, 0, 0, 0], [1, 0, 0, 0]),
        entry(3000, [0, 11, 22, 0], [0, 33, 44, 0]),
    ];
    expected.extend((5000..5040).map(|id| {
        let n = u64::from(id);
        entry(id, [0, n - 4000, n - 3000, 0], [0, n - 2000, n - 1000, 0])
    }));
    expected.push(entry(70_000, [3, 0, 0, 0], [1, 0, 0, 0]));
    expected.push(entry(4_000_000_000, [6, 0, 0, 0], [1, 0, 0, 0]));
    assert_eq!(file.kind, QuotaType::User);
    assert_eq!(file.grace, grace(86_400, 3600));
    assert_same(&file.entries, &expected);
}

#[test]
fn groups_written_by_the_tools_are_read() {
    let file = read(&fixture("group.vfsv1")).unwrap();
    let expected = [
        entry(0, [14, 0, 0, 0], [3, 0, 0, 0]),
        entry(1001, [9, 9, 10, 0], [1, 11, 12, 0]),
        entry(1002, [3, 0, 0, 0], [1, 0, 0, 0]),
        entry(2001, [8, 0, 0, 0], [1, 0, 0, 0]),
        entry(70_001, [3, 0, 0, 0], [1, 0, 0, 0]),
        entry(4_000_000_001, [6, 0, 0, 0], [1, 0, 0, 0]),
    ];
    assert_eq!(
        (file.kind, file.grace),
        (QuotaType::Group, grace(1200, 3400))
    );
    assert_same(&file.entries, &expected);
}

#[test]
fn the_older_format_is_read() {
    let file = read(&fixture("user.vfsv0")).unwrap();
    let expected = [
        entry(0, [14, 0, 0, 0], [3, 0, 0, 0]),
        entry(1000, [9, 4, 200, 1_795_870_019], [1, 10, 20, 0]),
        entry(1001, [3, 0, 0, 0], [1, 0, 0, 0]),
        entry(2000, [8, 0, 0, 0], [1, 0, 0, 0]),
        entry(70_000, [3, 0, 900, 0], [1, 0, 6, 0]),
        entry(4_000_000_000, [6, 0, 0, 0], [1, 0, 0, 0]),
    ];
    assert_eq!((file.kind, file.grace), (QuotaType::User, grace(7200, 60)));
    assert_same(&file.entries, &expected);
}

#[test]
fn an_entry_of_nothing_is_kept() {
    let nothing = [entry(0, [0; 4], [0; 4]), entry(5, [0; 4], [0; 4])];
    let file = QuotaFile {
        kind: QuotaType::User,
        grace: grace(1, 2),
        entries: nothing.to_vec(),
    };
    assert_eq!(read(&write(&file)).unwrap(), file);
}

#[test]
fn what_the_format_cannot_say_becomes_stricter_and_never_unlimited() {
    let limits = Limits {
        space: Limit::new(Some(Bytes::new(1025)), Some(Bytes::ZERO)),
        inodes: Limit::new(None, Some(Inodes::ZERO)),
    };
    let entry = QuotaFileEntry {
        limits,
        ..entry(7, [0; 4], [0; 4])
    };
    let file = QuotaFile {
        kind: QuotaType::Group,
        grace: grace(1 << 40, 0),
        entries: vec![entry],
    };
    let found = read(&write(&file)).unwrap();
    let expected = Limits {
        space: Limit::new(Some(Bytes::new(2048)), Some(Bytes::new(1024))),
        inodes: Limit::new(None, Some(Inodes::new(1))),
    };
    assert_eq!(found.entries[0].limits, expected);
    assert_eq!(found.grace, grace(u64::from(u32::MAX), 0));
}

#[test]
fn of_two_entries_with_one_id_the_last_counts() {
    let (first, last) = (entry(7, [1; 4], [1; 4]), entry(7, [2; 4], [2; 4]));
    let entries = vec![first, last];
    let file = QuotaFile {
        kind: QuotaType::User,
        grace: grace(1, 1),
        entries,
    };
    assert_eq!(read(&write(&file)).unwrap().entries, [last]);
}

fn put_u32(bytes: &mut [u8], block: usize, index: usize, value: u32) {
    let at = block * BLOCK + index * 4;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn each_kind_of_damage_is_named_with_its_block() {
    let one = entry(0x0102_0304, [1; 4], [1; 4]);
    let file = QuotaFile {
        kind: QuotaType::User,
        grace: grace(1, 1),
        entries: vec![one],
    };
    let sound = write(&file);
    // Blocks: 0 header, 1 root, 2 entries, 3 to 5 the tree below the root.
    let fault = |block, reason| QuotaFileError::Block { block, reason };
    let beyond = BlockFault::Reference {
        target: 6,
        blocks: 6,
    };
    let header = BlockFault::Reference {
        target: 1 << 30,
        blocks: 6,
    };
    let field = BlockFault::Field {
        id: 0x0102_0304,
        field: "limit of space",
    };
    let no_entry = BlockFault::NoEntry { id: 0x0102_0304 };
    type Damage = fn(&mut Vec<u8>);
    let rows: [(&str, Damage, QuotaFileError); 10] = [
        (
            "cut to one block",
            |b| b.truncate(BLOCK),
            QuotaFileError::Short { len: BLOCK },
        ),
        (
            "other magic",
            |b| put_u32(b, 0, 0, 7),
            QuotaFileError::Magic { found: 7 },
        ),
        (
            "other version",
            |b| put_u32(b, 0, 1, 2),
            QuotaFileError::Version { found: 2 },
        ),
        (
            "reference beyond the end",
            |b| put_u32(b, 3, 2, 6),
            fault(3, beyond),
        ),
        (
            "reference far beyond",
            |b| put_u32(b, 1, 0, 1 << 30),
            fault(1, header),
        ),
        (
            "cycle to the root",
            |b| put_u32(b, 3, 2, 1),
            fault(1, BlockFault::Cycle),
        ),
        (
            "cycle to itself",
            |b| put_u32(b, 4, 3, 4),
            fault(4, BlockFault::Cycle),
        ),
        (
            "tree block as entries",
            |b| put_u32(b, 5, 4, 3),
            fault(3, BlockFault::Mixed),
        ),
        (
            "entry is gone",
            |b| b[2 * BLOCK..3 * BLOCK].fill(0),
            fault(2, no_entry),
        ),
        (
            "limit beyond 64 bits",
            |b| b[2 * BLOCK + 16 + 32 + 7] = 0xff,
            fault(2, field),
        ),
    ];
    for (name, damage, expected) in rows {
        let mut bytes = sound.clone();
        damage(&mut bytes);
        assert_eq!(read(&bytes), Err(expected), "{name}");
    }
}

fn entries() -> impl Strategy<Value = Vec<QuotaFileEntry>> {
    let id = prop_oneof![any::<u32>(), 0..3000_u32];
    let number = prop_oneof![Just(0), 1..10_000_u64, 1..(1_u64 << 53)];
    let numbers = proptest::array::uniform4(number);
    let row = (id, numbers.clone(), numbers).prop_map(|(id, b, i)| (id, entry(id, b, i)));
    proptest::collection::btree_map(any::<u16>(), row, 0..120).prop_map(|rows| {
        let by_id: std::collections::BTreeMap<_, _> = rows.into_values().collect();
        by_id.into_values().collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(entries in entries(), space in any::<u32>(), inodes in any::<u32>()) {
        let grace = grace(space.into(), inodes.into());
        let file = QuotaFile { kind: QuotaType::Group, grace, entries };
        prop_assert_eq!(read(&write(&file)), Ok(file));
    }

    #[test]
    fn no_bytes_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..8192), version in 0..3_u32) {
        let mut bytes = bytes;
        if bytes.len() >= BLOCK {
            put_u32(&mut bytes, 0, 0, 0xd9c0_1f11);
            put_u32(&mut bytes, 0, 1, version);
        }
        let _ = read(&bytes);
    }

    #[test]
    fn no_damage_to_a_real_file_panics_or_loops(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..24_u8), 1..40),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = fixture("user.vfsv1");
        for (at, value) in changes {
            let at = at.index(bytes.len() / 4) * 4;
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read(&bytes);
    }
}

/// Mounts a small ext4 with our file as `aquota.user`, lets the tools show it, change it and show it again. The mount
/// and its loop device end with the namespace.
const TOOLS: &str = r#"
set -e
cd "$1"
truncate -s 4M image
mkfs.ext4 -q -O ^quota -b 1024 image
mkdir mnt
mount -o loop,usrjquota=aquota.user,jqfmt=vfsv1 image mnt
cp ours mnt/aquota.user
repquota -unvp mnt > before
setquota -u 6000 1 2 3 4 mnt
setquota -u 70001 0 0 0 0 mnt
setquota -t -u 11 22 mnt
repquota -unvp mnt > after
cp mnt/aquota.user theirs
"#;

/// The columns of `repquota -unvp`.
fn shown(report: &str) -> Vec<QuotaFileEntry> {
    let rows = report.lines().filter_map(|line| line.strip_prefix('#'));
    let mut entries: Vec<_> = rows
        .map(|row| {
            let columns: Vec<&str> = row.split_whitespace().collect();
            let number = |at: usize| columns[at].parse::<u64>().unwrap();
            let four = |at| [number(at), number(at + 1), number(at + 2), number(at + 3)];
            entry(columns[0].parse().unwrap(), four(2), four(6))
        })
        .collect();
    entries.sort_by_key(|entry| entry.id);
    entries
}

#[test]
fn the_tools_read_and_change_what_we_write() {
    if !rustix::process::geteuid().is_root() || Command::new("repquota").output().is_err() {
        assert!(
            std::env::var_os("SIMFS_STRICT").is_none(),
            "needs root and the quota tools"
        );
        println!("skipped: needs root and the quota tools");
        return;
    }
    let dir = TempDir::new().unwrap();
    let ids = (0..40)
        .map(|n| 1000 + n)
        .chain((0..30).map(|n| 70_000 + n))
        .chain([4_000_000_000]);
    let mut entries: Vec<_> = ids
        .map(|id| {
            let n = u64::from(id);
            // Some usage, else the tools drop an entry when its limits go; a deadline where they show it.
            let inodes = n % 7 + 1;
            let deadline = if inodes > 5 { 1_900_000_000 } else { 0 };
            entry(
                id,
                [1, n + 1, n + (1 << 33), 0],
                [inodes, 5, n + 3, deadline],
            )
        })
        .collect();
    let file = QuotaFile {
        kind: QuotaType::User,
        grace: grace(77, 88),
        entries: entries.clone(),
    };
    fs::write(dir.path().join("ours"), write(&file)).unwrap();
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            TOOLS,
            "sh",
        ])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let report = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_same(&shown(&report("before")), &entries);
    let theirs = read(&fs::read(dir.path().join("theirs")).unwrap()).unwrap();
    assert_same(&shown(&report("after")), &theirs.entries);
    assert_eq!(theirs.grace, grace(11, 22));
    entries.insert(40, entry(6000, [0, 1, 2, 0], [0, 3, 4, 0]));
    let cleared = entries.iter_mut().find(|entry| entry.id == 70_001).unwrap();
    cleared.limits = Limits::UNLIMITED;
    cleared.deadlines = Deadlines::default();
    assert_same(&theirs.entries, &entries);
}
