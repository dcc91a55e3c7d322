//! The daemon dies at named points of operations that cannot be repeated; a successor does what is left of them, once.
//!
//! Each round kills at one point of `simfs::fault`, again and again, while one guest does every such operation and looks
//! at each result. The points exist in debug builds only. `SIMFS_CUT_OFF_KILLS` asks for more kills at each point.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, XattrFlags, linkat, lremovexattr, lsetxattr,
    mknodat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::harness::command::{eventually, finish};
use crate::harness::files::{create, mkdir, open, rename, stat, write_at};
use crate::harness::{Spec, Ve, require};

fn kills() -> u64 {
    let text = std::env::var("SIMFS_CUT_OFF_KILLS").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Mounts with a fault point armed, see `simfs::fault`.
#[track_caller]
pub(crate) fn mount_with(ve: &Ve, order: &str) {
    let mut command = ve.command("simfs");
    command.args(["mount", Ve::ID]);
    if let Ok(options) = std::env::var("SIMFS_TEST_OPTIONS") {
        command.args(["-o", &options]);
    }
    command.env("SIMFS_FAULT", order);
    finish(&mut command).ok();
}

fn deaths(ve: &Ve) -> u64 {
    ve.status()["restarts"].as_u64().expect("restarts")
}

fn holds(fd: impl AsFd) -> String {
    let mut file = std::fs::File::from(fd.as_fd().try_clone_to_owned().expect("duplicate"));
    std::io::Seek::rewind(&mut file).expect("rewind");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("read");
    text
}

/// Every operation that cannot be repeated, each exactly once, in a directory that is new and gone in the end.
pub(crate) fn every_operation(root: &Path) {
    let dir = root.join("dir");
    mkdir(&dir).expect("mkdir");
    assert_eq!(mkdir(&dir), Err(Errno::EXIST));
    let (a, b, c) = (dir.join("a"), dir.join("b"), dir.join("c"));
    let file = create(&a).expect("create");
    assert_eq!(write_at(&file, 0, b"content of a"), (12, None));
    drop(file);
    assert_eq!(create(&a).map(drop), Err(Errno::EXIST));
    linkat(CWD, &a, CWD, &b, AtFlags::empty()).expect("link");
    assert_eq!(stat(&a).expect("stat").st_nlink, 2);
    rename(&b, &c, RenameFlags::NOREPLACE).expect("rename");
    assert_eq!(stat(&b).map(drop), Err(Errno::NOENT));
    unlinkat(CWD, &c, AtFlags::empty()).expect("unlink");
    assert_eq!(unlinkat(CWD, &c, AtFlags::empty()), Err(Errno::NOENT));
    symlinkat("target", CWD, &b).expect("symlink");
    rename(&a, &b, RenameFlags::EXCHANGE).expect("exchange");
    assert_eq!(
        std::fs::read_link(&a).expect("readlink"),
        Path::new("target")
    );
    lsetxattr(&b, "user.new", b"1", XattrFlags::CREATE).expect("setxattr");
    lremovexattr(&b, "user.new").expect("removexattr");
    mknodat(CWD, &c, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("mknod");
    // What it replaces is open, and then without a name.
    let old = open(&b, OFlags::RDWR).expect("open");
    let new = create(dir.join("d")).expect("create");
    rename(dir.join("d"), &b, RenameFlags::empty()).expect("rename over an open file");
    assert_eq!(holds(&old), "content of a");
    unlinkat(CWD, &b, AtFlags::empty()).expect("unlink an open file");
    assert_eq!(write_at(&new, 0, b"new"), (3, None));
    assert_eq!(
        (holds(&old), holds(&new)),
        ("content of a".into(), "new".into())
    );
    assert_eq!(rustix::fs::fstat(&new).expect("fstat").st_nlink, 0);
    let listed: Vec<_> = std::fs::read_dir(&dir)
        .expect("opendir")
        .flatten()
        .collect();
    assert_eq!(listed.len(), 2, "{listed:?}");
    for name in [&a, &c] {
        unlinkat(CWD, name, AtFlags::empty()).expect("unlink");
    }
    unlinkat(CWD, &dir, AtFlags::REMOVEDIR).expect("rmdir");
}

#[track_caller]
fn cut_off_at(point: &str) {
    if !cfg!(debug_assertions) {
        require::skip("fault points exist in debug builds only");
        return;
    }
    let Some(ve) = Spec::default().init() else {
        return;
    };
    // Every third pass is the daemon's end.
    mount_with(&ve, &format!("{point}:3:{}", kills()));
    let mut rounds = 0;
    while deaths(&ve) < kills() {
        rounds += 1;
        assert!(
            rounds < 10 * kills() + 10,
            "{point}: {} deaths",
            deaths(&ve)
        );
        every_operation(&ve.root());
    }
    ve.assert_exact();
    assert_eq!(std::fs::read_dir(ve.private()).expect("private").count(), 0);
}

// S85: the lookups of a listing that was cut off are taken back.
#[test]
fn a_listing_that_is_cut_off_leaves_no_lookups() {
    if !cfg!(debug_assertions) {
        require::skip("fault points exist in debug builds only");
        return;
    }
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let dir = ve.path("dir");
    mkdir(&dir).expect("mkdir");
    for number in 0..700 {
        drop(create(dir.join(number.to_string())).expect("create"));
    }
    ve.umount_and_wait();
    // Each death comes 34 names or more behind the answer before it.
    mount_with(&ve, "counted:130:5");
    let listed = std::fs::read_dir(&dir).expect("opendir");
    let names: std::collections::BTreeSet<_> = listed
        .map(|entry| {
            let entry = entry.expect("entry");
            // The kernel goes on asking for attributes as long as they are asked for.
            assert!(entry.metadata().expect("metadata").is_file());
            entry.file_name()
        })
        .collect();
    assert_eq!((names.len(), deaths(&ve)), (700, 5));
    for name in names {
        unlinkat(CWD, dir.join(name), AtFlags::empty()).expect("unlink");
    }
    unlinkat(CWD, &dir, AtFlags::REMOVEDIR).expect("rmdir");
    eventually("less is left than one death would leave", || {
        let status = ve.status();
        let nodes = status["nodes"].as_u64().filter(|nodes| *nodes < 34);
        nodes.map(drop).ok_or_else(|| status["nodes"].to_string())
    });
}

// S85: an order to forget that is cut off is carried out to its end, each part of it once.
#[test]
fn an_order_to_forget_that_is_cut_off_leaves_no_lookups() {
    if !cfg!(debug_assertions) {
        require::skip("fault points exist in debug builds only");
        return;
    }
    for point in ["ordered", "forgetting", "forgotten"] {
        let Some(ve) = Spec::default().mount() else {
            return;
        };
        let name = |kind: &str, number: u32| ve.path(format!("{kind}-{number}"));
        for number in 0..200 {
            drop(create(name("stays", number)).expect("create"));
            drop(create(name("goes", number)).expect("create"));
        }
        ve.umount_and_wait();
        mount_with(&ve, &format!("{point}:5:{}", 10 * kills()));
        let known = || {
            for number in 0..200 {
                assert!(stat(name("stays", number)).is_ok(), "{point}");
            }
        };
        known();
        for number in 0..200 {
            assert!(stat(name("goes", number)).is_ok());
            unlinkat(CWD, name("goes", number), AtFlags::empty()).expect("unlink");
        }
        eventually("nothing but the root and what stays is known", || {
            // The kernel may forget these too, at any time.
            known();
            match ve.status()["nodes"].as_u64() {
                // A look-up beside it may be cut off as well, which leaves one inode. Orders that were lost would leave one
                // for each death.
                Some(201..=203) => Ok(()),
                other => Err(format!("{point}: {other:?}")),
            }
        });
        assert_eq!(deaths(&ve), 10 * kills(), "{point}");
        ve.assert_exact();
    }
}

macro_rules! points {
    ($($name:ident: $point:literal,)*) => {
        $(
            #[test]
            fn $name() {
                cut_off_at($point);
            }
        )*
    };
}

points! {
    when_it_said_what_it_will_do: "described",
    when_an_inode_is_made: "made",
    when_a_lookup_is_counted: "counted",
    when_a_handle_has_its_number: "handed-out",
    when_a_handle_is_there: "opened",
    when_the_keeper_has_the_descriptor: "deposited",
    when_a_name_is_gone: "removed",
    when_a_name_has_moved: "renamed",
    when_an_attribute_is_set_or_gone: "attribute",
    when_the_answer_is_sent: "answered",
}
