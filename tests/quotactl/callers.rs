//! Callers of another kind than the tools: programs of 32 bits, and calls by descriptor, through a runtime's own filter.

use super::{answers, debian};
use crate::harness::container::Guest;
use crate::harness::i386::{self, Call};

const PATH: &[u8] = b"/dev/simfs\0\0\0\0\0\0";
/// Room for the data of one call.
const ROOM: usize = 256;
const UNTOUCHED: u8 = 0xee;
/// A descriptor of the root directory, which the shell opens for the program.
const ROOT: u32 = 4;

/// How a call finds its file system.
#[derive(Clone, Copy)]
enum By {
    Path,
    Descriptor,
}

/// Name, way, command, type, id, what is handed in, result, how many bytes come back.
type Row = (&'static str, By, u32, u32, u32, &'static [u8], i32, usize);

const LIMITS: [u8; 68] = {
    let mut quota = [0; 68];
    quota[0] = 200; // hard, KiB
    quota[8] = 100; // soft
    quota[64] = 1; // limits of space are valid
    quota
};
const XFS_LIMITS: [u8; 112] = {
    let mut quota = [0; 112];
    quota[0] = 1; // version
    quota[2] = 2; // hard limit of inodes
    quota[24] = 77;
    quota
};
const SIXTY_SECONDS: [u8; 24] = {
    let mut info = [0; 24];
    info[0] = 60;
    info[20] = 1;
    info
};

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("Q_SYNC", By::Path, 0x80_0001, 0, 0, &[], 0, 0),
    ("Q_GETFMT", By::Path, 0x80_0004, 0, 0, &[], 0, 4),
    ("Q_GETINFO", By::Path, 0x80_0005, 1, 0, &[], 0, 24),
    ("Q_SETINFO", By::Path, 0x80_0006, 1, 0, &SIXTY_SECONDS, 0, 0),
    ("Q_SETQUOTA", By::Path, 0x80_0008, 0, 1001, &LIMITS, 0, 0),
    ("Q_XSETQLIM", By::Path, 0x5804, 0, 1001, &XFS_LIMITS, 0, 0),
    ("Q_GETQUOTA", By::Path, 0x80_0007, 0, 1001, &[], 0, 68),
    ("Q_GETNEXTQUOTA", By::Path, 0x80_0009, 0, 1001, &[], 0, 72),
    ("Q_XGETQUOTA", By::Path, 0x5803, 0, 1001, &[], 0, 112),
    ("Q_XGETNEXTQUOTA", By::Path, 0x5809, 0, 1001, &[], 0, 112),
    ("Q_XGETQSTAT", By::Path, 0x5805, 0, 0, &[], 0, 68),
    ("Q_XGETQSTATV", By::Path, 0x5808, 0, 0, &[1], 0, 160),
    ("Q_XQUOTASYNC", By::Path, 0x5807, 0, 0, &[], 0, 0),
    ("Q_XQUOTARM", By::Path, 0x5806, 0, 0, &[2, 0, 0, 0], -libc::ENOSYS, 0),
    ("Q_QUOTAOFF", By::Path, 0x80_0003, 1, 0, &[], 0, 0),
    ("Q_QUOTAOFF again", By::Path, 0x80_0003, 1, 0, &[], -libc::EEXIST, 0),
    ("Q_QUOTAON", By::Path, 0x80_0002, 1, 4, b".\0", 0, 0),
    ("Q_XQUOTAOFF", By::Path, 0x5802, 0, 0, &[2, 0, 0, 0], 0, 0),
    ("Q_XQUOTAON", By::Path, 0x5801, 0, 0, &[2, 0, 0, 0], 0, 0),
    ("projects", By::Path, 0x80_0005, 2, 0, &[], -libc::ESRCH, 0),
    ("no such type", By::Path, 0x80_0005, 3, 0, &[], -libc::EINVAL, 0),
    ("no such command", By::Path, 0x80_000a, 0, 0, &[], -libc::EINVAL, 0),
    ("by descriptor", By::Descriptor, 0x80_0007, 0, 1001, &[], 0, 68),
    ("by descriptor, next", By::Descriptor, 0x80_0009, 1, 1001, &[], 0, 72),
    ("by descriptor, state", By::Descriptor, 0x5805, 0, 0, &[], 0, 68),
    ("by descriptor, set", By::Descriptor, 0x80_0008, 0, 1002, &LIMITS, 0, 0),
    ("by descriptor, projects", By::Descriptor, 0x80_0005, 2, 0, &[], -libc::ESRCH, 0),
];

fn program() -> (Vec<Call>, Vec<u8>) {
    let mut data = PATH.to_vec();
    let path = i386::address(ROWS.len(), 0);
    let calls = ROWS.iter().map(|(_, by, command, kind, id, input, ..)| {
        let room = i386::address(ROWS.len(), data.len());
        data.extend(*input);
        data.resize(data.len() + ROOM - input.len(), UNTOUCHED);
        let word = command << 8 | kind;
        match by {
            By::Path => [131, word, path, *id, room],
            By::Descriptor => [443, ROOT, word, *id, room],
        }
    });
    (calls.collect(), data)
}

/// What the program wrote, from the text of od(1).
fn bytes(text: &str) -> Vec<u8> {
    let digits = text.split_ascii_whitespace();
    digits
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut whole = [0; 8];
    whole[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(whole)
}

// S44: programs of 32 bits are answered too, in their own layouts.
#[test]
fn programs_of_32_bits_are_answered_in_their_own_layouts() {
    let Some(ve) = debian("crun", "rw") else {
        return;
    };
    if !i386::runs(&ve.beside("")) {
        return;
    }
    let (calls, data) = program();
    i386::build(&ve.path("usr/bin/call-i386"), &calls, &data);
    let run = "call-i386 4< / | od -An -v -tx1";
    let answers = answers(&Guest::new(&ve, "crun"), "i386", &[("calls", run)]);
    let output = bytes(&answers["calls"].text);
    assert_eq!(output.len(), calls.len() * 4 + data.len(), "{answers:?}");
    let (results, found) = output.split_at(calls.len() * 4);
    let mut rooms = std::collections::BTreeMap::new();
    for (index, (name, .., input, result, length)) in ROWS.iter().enumerate() {
        let returned = i32::from_le_bytes(results[index * 4..][..4].try_into().unwrap());
        assert_eq!(returned, *result, "{name}");
        let room = &found[PATH.len() + index * ROOM..][..ROOM];
        let written = (*length).max(input.len());
        assert!(
            room[written..].iter().all(|byte| *byte == UNTOUCHED),
            "{name}: more than {written} bytes were written: {room:x?}"
        );
        if *length == 0 {
            assert_eq!(&room[..input.len()], *input, "{name}");
        } else {
            assert_ne!(room[*length - 1], UNTOUCHED, "{name}: {room:x?}");
        }
        rooms.insert(*name, room);
    }
    // KiB, bytes, inodes; the same in the older form, and in sectors of 512 bytes.
    for name in ["Q_GETQUOTA", "Q_GETNEXTQUOTA", "by descriptor"] {
        let quota = rooms[name];
        let expected = [200, 100, 12 << 10, 77, 0, 2];
        let read = [0, 8, 16, 24, 32, 40].map(|at| number::<8>(quota, at));
        assert_eq!(read, expected, "{name}");
    }
    assert_eq!(number::<4>(rooms["Q_GETNEXTQUOTA"], 68), 1001);
    assert_eq!(number::<4>(rooms["by descriptor, next"], 68), 1001);
    for name in ["Q_XGETQUOTA", "Q_XGETNEXTQUOTA"] {
        let read = [8, 16, 24, 40].map(|at| number::<8>(rooms[name], at));
        assert_eq!(read, [400, 200, 77, 24], "{name}");
        assert_eq!(number::<4>(rooms[name], 4), 1001, "{name}");
    }
    assert_eq!(number::<4>(rooms["Q_GETFMT"], 0), 4);
    assert_eq!(number::<8>(rooms["Q_GETINFO"], 0), 604_800);
    assert_eq!(number::<2>(rooms["Q_XGETQSTAT"], 2), 15, "all is on");
    let stat = ve.stat();
    let periods = &stat["second_level"]["groups"]["grace_periods"];
    assert_eq!(periods["space"], 60, "{stat}");
}
