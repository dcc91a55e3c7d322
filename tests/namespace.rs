//! Names: making, linking, renaming and removing entries as on the backing file system.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::harness::compare::Pair;
use crate::harness::files::{create, mkdir, open, put, rename, stat};
use crate::harness::tree::{describe, dump};
use crate::harness::user::{ALICE, BOB, ROOT};
use crate::harness::{MIB, Spec};

/// One entry of each kind, with set-id bits, as several users.
// S31, S1: at once, and every kind is charged.
#[test]
fn new_entries_belong_to_their_maker() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    for user in [ROOT, ALICE, BOB] {
        pair.same(user, "entries of all kinds", |root| {
            let at = |name: &str| root.join(format!("{name}-{}", user.uid));
            let fifo = rustix::fs::mknodat(
                CWD,
                at("fifo"),
                FileType::Fifo,
                Mode::from_raw_mode(0o620),
                0,
            );
            let device = rustix::fs::mknodat(
                CWD,
                at("dev"),
                FileType::CharacterDevice,
                Mode::from_raw_mode(0o600),
                rustix::fs::makedev(1, 3),
            );
            let socket = std::os::unix::net::UnixListener::bind(at("socket")).is_ok();
            let made = (
                create(at("file")).map(drop),
                mkdir(at("dir")),
                fifo,
                device,
                socket,
            );
            let link = rustix::fs::symlinkat("nowhere", CWD, at("symlink"));
            let names = ["file", "dir", "fifo", "dev", "socket", "symlink"];
            (made, link, names.map(|name| describe(&at(name))))
        });
    }
    pair.same(ROOT, "all", dump);
}

// S31
#[test]
fn a_setgid_directory_hands_its_group_down() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.agreed(ROOT, "setgid directory", |root| {
        mkdir(root.join("shared"))?;
        let group = Some(rustix::fs::Gid::from_raw(2000));
        rustix::fs::chownat(CWD, root.join("shared"), None, group, AtFlags::empty())?;
        rustix::fs::chmodat(
            CWD,
            root.join("shared"),
            Mode::from_raw_mode(0o2777),
            AtFlags::empty(),
        )
    })
    .unwrap();
    for user in [ROOT, ALICE, BOB] {
        pair.same(user, "below it", |root| {
            let (dir, file) = (
                format!("shared/d{}", user.uid),
                format!("shared/f{}", user.uid),
            );
            let made = (mkdir(root.join(&dir)), create(root.join(&file)).map(drop));
            let chmod = rustix::fs::chmodat(
                CWD,
                root.join(&file),
                Mode::from_raw_mode(0o2755),
                AtFlags::empty(),
            );
            (
                made,
                chmod,
                describe(&root.join(dir)),
                describe(&root.join(file)),
            )
        });
    }
}

// S2
#[test]
fn all_names_of_a_file_show_the_same() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ROOT, "hard links", |root| {
        put(root.join("one"), 5000);
        let link = |to: &str| {
            rustix::fs::linkat(CWD, root.join("one"), CWD, root.join(to), AtFlags::empty())
        };
        link("two").unwrap();
        link("three").unwrap();
        let nodes = ["one", "two", "three"].map(|name| stat(root.join(name)).unwrap().st_ino);
        assert!(nodes.iter().all(|ino| *ino == nodes[0]), "{nodes:?}");
        put(root.join("four"), 1);
        rename(root.join("four"), root.join("two"), RenameFlags::empty()).unwrap();
        (describe(&root.join("one")), describe(&root.join("three")))
    });
}

#[test]
fn renames_follow_the_rules() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.same(ROOT, "renames", |root| {
        for dir in ["empty", "full", "full/sub", "other"] {
            mkdir(root.join(dir)).unwrap();
        }
        put(root.join("file"), 10);
        put(root.join("full/file"), 20);
        let to = |from: &str, to: &str, flags| rename(root.join(from), root.join(to), flags);
        let plain = RenameFlags::empty();
        [
            to("empty", "full", plain),
            to("full", "full/sub/below", plain),
            to("file", "empty", plain),
            to("empty", "file", plain),
            to("file", "full/file", RenameFlags::NOREPLACE),
            to("file", "full/sub", RenameFlags::EXCHANGE),
            to("file/file", "other/x", plain),
            to("other", "empty", plain),
            to("absent", "x", plain),
            to("full/sub", "full/sub", plain),
        ]
    });
    pair.same(ROOT, "result", dump);
    pair.ve.assert_exact();
}

#[test]
fn the_sticky_bit_protects() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    pair.agreed(ALICE, "own file", |root| {
        create(root.join("hers")).map(drop)
    })
    .unwrap();
    let refused = pair.agreed(BOB, "another's file", |root| {
        (
            rustix::fs::unlinkat(CWD, root.join("hers"), AtFlags::empty()),
            rename(root.join("hers"), root.join("mine"), RenameFlags::empty()),
        )
    });
    assert_eq!(refused, (Err(Errno::PERM), Err(Errno::PERM)));
}

#[test]
fn long_names_and_long_paths() {
    let Some(pair) = Pair::new(Spec::default()) else {
        return;
    };
    let answers = pair.agreed(ROOT, "names", |root| {
        let deep = root.join(vec!["x".repeat(60); 60].join("/"));
        (
            create(root.join("n".repeat(255))).map(drop),
            create(root.join("n".repeat(256))).map(drop),
            create(root.join("\u{fffd} \n\t")).map(drop),
            std::fs::create_dir_all(&deep).map_err(|error| error.kind()),
            create(deep.join("file")).map(drop),
        )
    });
    assert_eq!(answers.1, Err(Errno::NAMETOOLONG));
}

// S3
#[test]
fn an_unlinked_file_lives_until_its_last_close() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let before = ve.used();
    let file = create(ve.path("gone")).unwrap();
    assert_eq!(crate::harness::files::fill(&file, MIB).1, None);
    std::fs::remove_file(ve.path("gone")).unwrap();
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_nlink, 0);
    assert_eq!(ve.used().inodes, before.inodes + 1);
    assert!(ve.used().space >= before.space + MIB);
    let mut byte = [0_u8; 1];
    assert_eq!(rustix::io::pread(&file, &mut byte, MIB - 1), Ok(1));
    drop(file);
    ve.assert_exact();
    assert_eq!(ve.used(), before);
}

#[test]
fn many_files_in_one_directory() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    for n in 0..3000 {
        create(ve.path(format!("file-{n}"))).unwrap();
    }
    assert_eq!(std::fs::read_dir(ve.root()).unwrap().count(), 3000);
    ve.assert_exact();
    for n in 0..3000 {
        std::fs::remove_file(ve.path(format!("file-{n}"))).unwrap();
    }
    assert!(open(ve.path("file-1"), OFlags::RDONLY).is_err());
    assert_eq!(ve.used().inodes, 1);
}
