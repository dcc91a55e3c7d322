//! The host has no memory left for what outlives the daemon: the requests that need more of it fail with ENOMEM, and have
//! changed nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::thread;

use rustix::fs::FallocateFlags;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::testbed::{Bed, at, no_backing};
use super::{Call, Fs};
use crate::error::{FsError, FsResult};
use crate::node::NodeId;
use crate::sys::creds;
use crate::sys::file::RenameFlags;

type Act = fn(&Fs, Call<'_>) -> FsResult<()>;

fn create(fs: &Fs, call: Call<'_>, name: &str) -> FsResult<()> {
    let (entry, handle, _) = fs.create(
        call,
        at(name),
        0o100_644,
        0o022,
        libc::O_RDWR,
        &mut no_backing,
    )?;
    fs.release(handle)?;
    fs.nodes().forget(entry.node.id(), 1);
    Ok(())
}

/// Opens the one inode that needs no room.
fn opened(fs: &Fs, call: Call<'_>) -> FsResult<()> {
    let (handle, _) = fs.open(call, NodeId::ROOT, libc::O_RDONLY, &mut no_backing)?;
    fs.release(handle)
}

fn cut_short(fs: &Fs, call: Call<'_>) -> FsResult<()> {
    let id = fs.lookup(call, at("old"))?.node.id();
    let opened = fs.open(call, id, libc::O_WRONLY | libc::O_TRUNC, &mut no_backing);
    let released = opened.and_then(|(handle, _)| fs.release(handle));
    fs.nodes().forget(id, 1);
    released
}

const CREATE: Act = |fs, call| create(fs, call, "new");
const OPEN: Act = opened;
/// So many names that there is room for one more inode, whatever its number.
const CROWD: Act = |fs, call| {
    (0..1000).try_for_each(|number| {
        fs.mkdir(call, at(&format!("d{number}")), 0o755, 0)
            .map(drop)
    })
};

/// What is there beforehand (what a request brings with it is not asked for again), and the request.
const ROWS: [(&str, &[Act], Act); 8] = [
    ("create: no room for the open file", &[CROWD], CREATE),
    ("create: no room for the inode", &[OPEN], CREATE),
    ("mkdir", &[], |fs, call| {
        let entry = fs.mkdir(call, at("new"), 0o755, 0)?;
        fs.nodes().forget(entry.node.id(), 1);
        Ok(())
    }),
    ("symlink", &[], |fs, call| {
        let entry = fs.symlink(call, at("new"), OsStr::new("target"))?;
        fs.nodes().forget(entry.node.id(), 1);
        Ok(())
    }),
    ("lookup", &[], |fs, call| {
        let entry = fs.lookup(call, at("old"))?;
        fs.nodes().forget(entry.node.id(), 1);
        Ok(())
    }),
    ("open", &[], OPEN),
    (
        "open with O_TRUNC",
        &[|fs, call| fs.lookup(call, at("old")).map(drop)],
        cut_short,
    ),
    ("rename that leaves a whiteout", &[], |fs, call| {
        fs.rename(call, at("old"), at("new"), RenameFlags::WHITEOUT)
    }),
];

/// From now on this thread is refused more of the memory: fallocate(2) as [`crate::sys::shared_map`] does it.
fn refuse_growth() {
    let mode = u64::from(FallocateFlags::KEEP_SIZE.bits());
    let condition =
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, mode).unwrap();
    let rule = SeccompRule::new(vec![condition]).unwrap();
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_fallocate, vec![rule])]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOMEM.unsigned_abs()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// A request in a thread whose host has no memory left.
fn ask_in_need(bed: &mut Bed, act: Act) -> FsResult<()> {
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            creds::prepare_thread().unwrap();
            refuse_growth();
            bed.ask(act)
        });
        asking.join().unwrap()
    })
}

fn content(bed: &Bed) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(bed.dir.path()).unwrap();
    let described = entries.map(|entry| {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let held = match kind.is_file() {
            true => std::fs::read_to_string(entry.path()).unwrap(),
            false => format!("{kind:?}"),
        };
        (entry.file_name().into_string().unwrap(), held)
    });
    described.collect()
}

// S20: a refused request has changed nothing but the count of refusals.
#[test]
fn a_request_without_memory_is_refused_and_changed_nothing() {
    for (name, before, act) in ROWS {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(dir.path().join("old"), "content").unwrap();
        let mut bed = Bed::over(dir);
        for act in before {
            bed.ask(act).unwrap();
        }
        let (files, usage) = (content(&bed), bed.usage());
        let refused = ask_in_need(&mut bed, act);
        let errno = match &refused {
            Err(FsError::System(error)) => error.raw_os_error(),
            _ => None,
        };
        assert_eq!(errno, Some(libc::ENOMEM), "{name}: {refused:?}");
        assert_eq!((content(&bed), bed.usage()), (files, usage), "{name}");
        bed.ask(act).unwrap();
        let (charged, counted) = bed.usage();
        assert_eq!(charged, counted, "{name}");
    }
}
