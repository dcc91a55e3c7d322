//! File system operations as values, for random histories; names are indices modulo a small set.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags, fallocate,
    ftruncate,
};
use rustix::io::{Result, pread, pwrite};

use super::files::{mkdir, open, rename};
use super::tree::describe;
use super::user::{ALICE, BOB, ROOT, User};

/// What can be done to a path.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create(Name),
    Mkdir(Name),
    Mkfifo(Name),
    Symlink(Name, Name),
    Link(Name, Name),
    Unlink(Name),
    Rmdir(Name),
    Rename(Name, Name, RenameFlags),
    Write(Name, u64, usize),
    Append(Name, usize),
    Truncate(Name, u64),
    Fallocate(Name, FallocateFlags, u64, u64),
    Chmod(Name, u32),
    Chown(Name, u32, u32),
    SetXattr(Name, usize),
    RemoveXattr(Name),
    Read(Name, u64, usize),
    Stat(Name),
}

/// One of nine paths: three names at the top and below each of two directories.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name(pub(crate) u8);

impl Name {
    fn below(self, root: &Path) -> PathBuf {
        let file = ["a", "b", "c"][usize::from(self.0 % 3)];
        match self.0 / 3 % 3 {
            0 => root.join(file),
            1 => root.join("a").join(file),
            _ => root.join("b").join(file),
        }
    }
}

/// Does it; the answer is what a program would see.
pub(crate) fn perform(root: &Path, op: &Op) -> Result<String> {
    let at = |name: &Name| name.below(root);
    let bytes = |len: usize| -> Vec<u8> { (0..=255).cycle().take(len).collect() };
    let done = String::new();
    match op {
        Op::Create(name) => {
            open(at(name), OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL).map(|_| done)
        }
        Op::Mkdir(name) => mkdir(at(name)).map(|()| done),
        Op::Mkfifo(name) => {
            let mode = Mode::from_raw_mode(0o640);
            rustix::fs::mknodat(CWD, at(name), FileType::Fifo, mode, 0).map(|()| done)
        }
        Op::Symlink(target, name) => {
            let target = at(target);
            let target = target.file_name().unwrap_or_default();
            rustix::fs::symlinkat(target, CWD, at(name)).map(|()| done)
        }
        Op::Link(from, to) => {
            rustix::fs::linkat(CWD, at(from), CWD, at(to), AtFlags::empty()).map(|()| done)
        }
        Op::Unlink(name) => rustix::fs::unlinkat(CWD, at(name), AtFlags::empty()).map(|()| done),
        Op::Rmdir(name) => rustix::fs::unlinkat(CWD, at(name), AtFlags::REMOVEDIR).map(|()| done),
        Op::Rename(from, to, flags) => rename(at(from), at(to), *flags).map(|()| done),
        Op::Write(name, offset, len) => open(at(name), no_wait(OFlags::WRONLY))
            .and_then(|file| pwrite(&file, &bytes(*len), *offset))
            .map(|n| n.to_string()),
        Op::Append(name, len) => open(at(name), no_wait(OFlags::WRONLY | OFlags::APPEND))
            .and_then(|file| rustix::io::write(&file, &bytes(*len)))
            .map(|n| n.to_string()),
        Op::Truncate(name, len) => open(at(name), no_wait(OFlags::WRONLY))
            .and_then(|file| ftruncate(&file, *len))
            .map(|()| done),
        Op::Fallocate(name, flags, offset, len) => open(at(name), no_wait(OFlags::WRONLY))
            .and_then(|file| fallocate(&file, *flags, *offset, *len))
            .map(|()| done),
        Op::Chmod(name, mode) => {
            rustix::fs::chmodat(CWD, at(name), Mode::from_raw_mode(*mode), AtFlags::empty())
                .map(|()| describe(&at(name)))
        }
        Op::Chown(name, uid, gid) => {
            let (uid, gid) = (
                rustix::fs::Uid::from_raw(*uid),
                rustix::fs::Gid::from_raw(*gid),
            );
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(CWD, at(name), Some(uid), Some(gid), flags)
                .map(|()| describe(&at(name)))
        }
        Op::SetXattr(name, len) => {
            rustix::fs::lsetxattr(at(name), "user.test", &bytes(*len), XattrFlags::empty())
                .map(|()| done)
        }
        Op::RemoveXattr(name) => rustix::fs::lremovexattr(at(name), "user.test").map(|()| done),
        Op::Read(name, offset, len) => {
            let mut buffer = vec![0; *len];
            let file = open(at(name), no_wait(OFlags::RDONLY))?;
            let n = pread(&file, &mut buffer[..], *offset)?;
            Ok(format!("{:?}", buffer.get(..n)))
        }
        Op::Stat(name) => super::files::stat(at(name)).map(|stat| {
            let size = if FileType::from_raw_mode(stat.st_mode).is_dir() {
                0
            } else {
                stat.st_size
            };
            format!(
                "{:o} {} {} {} {size}",
                stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid
            )
        }),
    }
}

/// A fifo must not hold the test up.
fn no_wait(flags: OFlags) -> OFlags {
    flags | OFlags::NONBLOCK
}

/// Any operation.
pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    let name = || (0_u8..9).prop_map(Name);
    let top = || (0_u8..3).prop_map(Name);
    let offset = || prop_oneof![Just(0_u64), 0_u64..20_000, Just(4096), Just(65_536)];
    let len = || prop_oneof![Just(1_usize), 0_usize..9000, Just(4096)];
    let id = || {
        prop_oneof![
            Just(0_u32),
            Just(1001),
            Just(1002),
            Just(2000),
            Just(4_000_000_000)
        ]
    };
    let flags = prop_oneof![
        Just(RenameFlags::empty()),
        Just(RenameFlags::NOREPLACE),
        Just(RenameFlags::EXCHANGE)
    ];
    let modes = prop_oneof![
        Just(FallocateFlags::empty()),
        Just(FallocateFlags::KEEP_SIZE),
        Just(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE),
        Just(FallocateFlags::ZERO_RANGE)
    ];
    prop_oneof![
        4 => name().prop_map(Op::Create),
        3 => top().prop_map(Op::Mkdir),
        1 => name().prop_map(Op::Mkfifo),
        1 => (name(), name()).prop_map(|(target, at)| Op::Symlink(target, at)),
        2 => (name(), name()).prop_map(|(from, to)| Op::Link(from, to)),
        2 => name().prop_map(Op::Unlink),
        1 => name().prop_map(Op::Rmdir),
        3 => (name(), name(), flags).prop_map(|(from, to, flags)| Op::Rename(from, to, flags)),
        4 => (name(), offset(), len()).prop_map(|(at, offset, len)| Op::Write(at, offset, len)),
        1 => (name(), len()).prop_map(|(at, len)| Op::Append(at, len)),
        2 => (name(), offset()).prop_map(|(at, len)| Op::Truncate(at, len)),
        2 => (name(), modes, offset(), 1_u64..9000)
            .prop_map(|(at, mode, offset, len)| Op::Fallocate(at, mode, offset, len)),
        2 => (name(), 0_u32..0o10000).prop_map(|(at, mode)| Op::Chmod(at, mode)),
        2 => (name(), id(), id()).prop_map(|(at, uid, gid)| Op::Chown(at, uid, gid)),
        1 => (name(), 0_usize..3000).prop_map(|(at, len)| Op::SetXattr(at, len)),
        1 => name().prop_map(Op::RemoveXattr),
        2 => (name(), offset(), len()).prop_map(|(at, offset, len)| Op::Read(at, offset, len)),
        2 => name().prop_map(Op::Stat),
    ]
}

/// Anybody.
pub(crate) fn any_user() -> impl Strategy<Value = User> {
    prop_oneof![3 => Just(ROOT), 2 => Just(ALICE), 1 => Just(BOB)]
}
