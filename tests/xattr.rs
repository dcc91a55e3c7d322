//! Extended attributes and access control lists.

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, lremovexattr, lsetxattr};

use crate::harness::command::run;
use crate::harness::compare::Pair;
use crate::harness::files::{mkdir, put};
use crate::harness::tree::{describe, xattrs};
use crate::harness::user::{ALICE, BOB, ROOT};
use crate::harness::{Spec, require};

#[test]
fn attributes_of_every_kind_of_inode() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ALICE, "make", |root| {
        put(root.join("file"), 1);
        mkdir(root.join("dir")).unwrap();
        rustix::fs::symlinkat("nowhere", CWD, root.join("symlink")).unwrap();
        rustix::fs::mknodat(
            CWD,
            root.join("fifo"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
    });
    for name in ["file", "dir", "symlink", "fifo", "absent"] {
        for attribute in [
            "user.a",
            "trusted.b",
            "security.simfs",
            "nonsense",
            "system.unknown",
        ] {
            for user in [ROOT, ALICE, BOB] {
                pair.same(user, &format!("{attribute} on {name}"), |root| {
                    let path = root.join(name);
                    let set = |flags| lsetxattr(&path, attribute, b"value", flags);
                    let answers = (
                        set(XattrFlags::REPLACE),
                        set(XattrFlags::CREATE),
                        set(XattrFlags::CREATE),
                        lgetxattr(&path, attribute, &mut [0_u8; 100][..]),
                        lgetxattr(&path, attribute, &mut [0_u8; 2][..]),
                    );
                    let listed = xattrs(&path);
                    (
                        answers,
                        listed,
                        lremovexattr(&path, attribute),
                        lremovexattr(&path, attribute),
                    )
                });
            }
        }
    }
}

#[test]
fn large_values_are_charged() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    put(ve.path("file"), 1);
    let before = ve.used();
    lsetxattr(
        ve.path("file"),
        "user.large",
        &[7; 3000],
        XattrFlags::empty(),
    )
    .unwrap();
    ve.assert_exact();
    assert!(
        ve.used().space > before.space,
        "an attribute block of ext4 is charged"
    );
    lremovexattr(ve.path("file"), "user.large").unwrap();
    ve.assert_exact();
}

#[test]
fn access_control_lists_decide() {
    if !require::programs(&["setfacl", "getfacl"]) {
        return;
    }
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ROOT, "setfacl", |root| {
        put(root.join("file"), 1);
        mkdir(root.join("dir")).unwrap();
        let set = |args: &[&str], name: &str| {
            let path = root.join(name);
            run(
                "setfacl",
                args.iter()
                    .map(std::ffi::OsStr::new)
                    .chain([path.as_os_str()]),
            )
            .ok();
        };
        set(&["-m", "u:1001:r,o::-"], "file");
        set(&["-m", "d:u:1001:rwx,d:o::-,u:1001:rwx"], "dir");
        (describe(&root.join("file")), describe(&root.join("dir")))
    });
    for user in [ALICE, BOB] {
        pair.same(user, "access", |root| {
            let read = std::fs::read(root.join("file")).map_err(|error| error.kind());
            let made = std::fs::write(root.join(format!("dir/{}", user.uid)), "x");
            (read, made.map_err(|error| error.kind()))
        });
    }
    pair.same(ROOT, "inherited", |root| {
        mkdir(root.join("dir/sub")).unwrap();
        (
            describe(&root.join("dir/1001")),
            describe(&root.join("dir/sub")),
        )
    });
    pair.ve.assert_exact();
}

#[test]
fn capabilities_of_a_program_end_with_a_write() {
    if !require::programs(&["setcap", "getcap"]) {
        return;
    }
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ROOT, "setcap, write", |root| {
        put(root.join("program"), 100);
        run(
            "setcap",
            ["cap_net_raw+ep".as_ref(), root.join("program").as_os_str()],
        )
        .ok();
        let before = xattrs(&root.join("program"));
        let file =
            crate::harness::files::open(root.join("program"), rustix::fs::OFlags::WRONLY).unwrap();
        crate::harness::files::write_at(&file, 0, b"changed");
        (before, xattrs(&root.join("program")))
    });
}
