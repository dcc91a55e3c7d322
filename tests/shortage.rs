//! Memory that the host does not have: for the kernel's work on a request, for the daemon itself, for its cgroup. The guest
//! sees at most the errno of one request, accounts stay exact, and a daemon that has to end is replaced unseen.

mod memory_group;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, fallocate, ftruncate,
    linkat, mknodat, symlinkat,
};
use rustix::io::{Errno, Result};

use crate::harness::command::{eventually, run};
use crate::harness::files::{mkdir, open, rename, write_at};
use crate::harness::refusal::{Marked, refusing};
use crate::harness::tree::describe;
use crate::harness::{MIB, Spec, Ve, crash, require};
use crate::takeover::daemon_of;
use memory_group::MemoryGroup;

/// A size that only a request of these tests has.
const ODD: u64 = 4321;
const ODD_MODE: u32 = 0o2751;

/// What the guest does, what the daemon does for it, and the guest's call.
type Row = (&'static str, Marked, fn(&Ve) -> Result<()>);

fn old(ve: &Ve) -> Result<std::os::fd::OwnedFd> {
    open(ve.path("old"), OFlags::RDWR)
}

const ROWS: [Row; 10] = [
    ("write", (libc::SYS_pwrite64, Some((2, ODD))), |ve| {
        write_at(&old(ve)?, MIB, &[1; ODD as usize])
            .1
            .map_or(Ok(()), Err)
    }),
    ("truncate", (libc::SYS_ftruncate, Some((1, ODD))), |ve| {
        ftruncate(old(ve)?, ODD)
    }),
    ("fallocate", (libc::SYS_fallocate, Some((3, ODD))), |ve| {
        fallocate(old(ve)?, FallocateFlags::empty(), MIB, ODD)
    }),
    ("mkdir", (libc::SYS_mkdirat, None), |ve| {
        mkdir(ve.path("new"))
    }),
    ("mknod", (libc::SYS_mknodat, None), |ve| {
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, ve.path("new"), FileType::Fifo, mode, 0)
    }),
    ("symlink", (libc::SYS_symlinkat, None), |ve| {
        symlinkat("target", CWD, ve.path("new"))
    }),
    ("link", (libc::SYS_linkat, None), |ve| {
        linkat(CWD, ve.path("old"), CWD, ve.path("new"), AtFlags::empty())
    }),
    (
        "rename",
        (
            libc::SYS_renameat2,
            Some((4, RenameFlags::NOREPLACE.bits() as u64)),
        ),
        |ve| rename(ve.path("old"), ve.path("new"), RenameFlags::NOREPLACE),
    ),
    (
        "rmdir",
        (libc::SYS_unlinkat, Some((2, libc::AT_REMOVEDIR as u64))),
        |ve| rustix::fs::rmdir(ve.path("dir")),
    ),
    (
        "chmod",
        (libc::SYS_fchmodat2, Some((2, ODD_MODE as u64))),
        |ve| rustix::fs::chmod(ve.path("old"), Mode::from_raw_mode(ODD_MODE)),
    ),
];

// S60: ENOMEM. S20: and nothing has changed.
#[test]
fn a_call_that_gets_no_memory_is_refused_and_changed_nothing() {
    let Some(ve) = Spec::default().second_level().init() else {
        return;
    };
    std::fs::write(ve.private().join("old"), [1; 10_000]).expect("write");
    std::fs::create_dir(ve.private().join("dir")).expect("mkdir");
    // What was put there is not in the record yet.
    ve.simfs(["check", Ve::ID, "--repair"]).expect(1);
    let calls = ROWS.iter().map(|(_, call, _)| *call);
    refusing(calls, Errno::NOMEM, || ve.mount().ok());
    let pid = ve.pid();
    let seen = || ["old", "dir", "new"].map(|name| describe(&ve.path(name)));
    let before = (seen(), ve.charged());
    for (name, _, act) in ROWS {
        assert_eq!(act(&ve), Err(Errno::NOMEM), "{name}");
        assert_eq!((seen(), ve.charged()), before, "{name}");
    }
    let degraded = ve.status()["degraded"].to_string();
    assert!(
        degraded.contains("the private area is short of memory"),
        "{degraded}"
    );
    assert!(crash::log(&ve).contains("the private area is short of memory"));
    // The same calls with other arguments go on.
    assert_eq!(write_at(&old(&ve).expect("open"), MIB, &[1; 5000]).1, None);
    rename(ve.path("old"), ve.path("new"), RenameFlags::empty()).expect("rename");
    assert_eq!(ve.pid(), pid, "the daemon lives");
}

/// Makes files, each with its name in it, until told to stop; how many.
fn make_files(ve: &Ve, from: u32, enough: &mut dyn FnMut() -> bool) -> u32 {
    for number in from..from + 50_000 {
        if enough() {
            return number;
        }
        let file = open(ve.path(number.to_string()), OFlags::WRONLY | OFlags::CREATE);
        let file = file.unwrap_or_else(|error| panic!("file {number}: {error}"));
        let text = number.to_string();
        assert_eq!(write_at(&file, 0, text.as_bytes()), (text.len(), None));
    }
    panic!("nothing came of 50000 files");
}

#[track_caller]
fn assert_files(ve: &Ve, count: u32) {
    for number in 0..count {
        let text = std::fs::read_to_string(ve.path(number.to_string())).expect("read");
        assert_eq!(text, number.to_string());
    }
    ve.assert_exact();
}

// S73: a daemon that ends for want of memory is followed by a successor, and programs in the VE see nothing of it.
#[test]
fn a_daemon_that_gets_no_memory_is_replaced_unseen() {
    if !require::programs(&["prlimit"]) {
        return;
    }
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    let (_, keeper) = crash::pids(&ve);
    let mut files = 0;
    for round in 1..=2_u64 {
        let daemon = ve.pid();
        // Nothing of its own from now on; its successor is the keeper's child, and free.
        run("prlimit", ["--pid", &daemon.to_string(), "--data=1"]).ok();
        files = make_files(&ve, files, &mut || {
            daemon_of(keeper).is_some_and(|now| now != daemon)
        });
        let status = ve.status();
        assert_eq!(status["restarts"], round, "{status}");
        assert_eq!(status["last_death"], "signal 6");
    }
    assert_files(&ve, files);
}

// S62: what guests write is charged to the daemon's group first; it is written out, and nobody is killed for it.
#[test]
fn a_daemon_in_a_small_group_needs_no_more_for_more_data() {
    let Some(group) = MemoryGroup::new() else {
        return;
    };
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    group.limit(16 * MIB);
    group.take_in(ve.pid());
    let file = open(ve.path("file"), OFlags::RDWR | OFlags::CREATE).expect("create");
    for part in 0..64 {
        assert_eq!(
            write_at(&file, part * MIB, &vec![part as u8; MIB as usize]).1,
            None
        );
    }
    drop(file);
    let read = std::fs::read(ve.path("file")).expect("read");
    assert!(
        read.chunks(MIB as usize)
            .enumerate()
            .all(|(part, data)| { data.iter().all(|byte| *byte == part as u8) })
    );
    assert_eq!(group.kills(), 0);
    assert_eq!(ve.status()["restarts"], 0);
    ve.assert_exact();
}

/// Memory of a process's own and what it shares, in KiB; pages of its program do not count.
fn held(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse::<u64>().ok())
    };
    of("RssAnon:").expect("RssAnon") + of("RssShmem:").expect("RssShmem")
}

// S62: what it holds does not grow with what it has done, in a group that has no room for that. What was touched is known for
// some seconds, so how much it is in between depends on the machine.
#[test]
fn a_daemon_that_works_on_holds_no_more() {
    let Some(group) = MemoryGroup::new() else {
        return;
    };
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    let pid = ve.pid();
    group.limit(16 * MIB);
    group.take_in(pid);
    for _ in 0..10 {
        let dir = ve.path("dir");
        mkdir(&dir).expect("mkdir");
        for number in 0..600 {
            std::fs::write(dir.join(number.to_string()), [7; 5000]).expect("write");
        }
        assert_eq!(std::fs::read_dir(&dir).expect("list").count(), 600);
        std::fs::remove_dir_all(&dir).expect("remove");
    }
    eventually("only the root is known", || {
        let nodes = ve.status()["nodes"].clone();
        (nodes == 1).then_some(()).ok_or(nodes.to_string())
    });
    let held = held(pid);
    assert!(held < 12 << 10, "{held} KiB");
    assert_eq!((group.kills(), ve.pid()), (0, pid));
    ve.assert_exact();
}

// S73: killed by the kernel for want of memory, while at work.
#[test]
fn a_daemon_that_is_killed_for_memory_is_replaced_unseen() {
    let Some(group) = MemoryGroup::new() else {
        return;
    };
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    let mut files = 0;
    for round in 1..=2_u64 {
        // Its successor comes from the keeper, which is not in the group.
        group.take_in(ve.pid());
        group.squeeze();
        files = make_files(&ve, files, &mut || group.kills() == round);
        let status = ve.status();
        assert_eq!(status["restarts"], round, "{status}");
        assert_eq!(status["last_death"], "signal 9");
    }
    assert_files(&ve, files);
}
