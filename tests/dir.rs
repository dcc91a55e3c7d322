//! Reading directories.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::fs::{Dir, OFlags};

use crate::harness::Spec;
use crate::harness::files::{create, mkdir, open};

fn names(path: &Path) -> BTreeSet<String> {
    std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn fill(dir: &Path, many: usize) {
    for n in 0..many {
        create(dir.join(format!("entry-{n:05}"))).unwrap();
    }
}

#[test]
fn every_entry_once_whatever_the_size() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    for many in [0, 1, 100, 2500] {
        let dir = ve.path(format!("with-{many}"));
        mkdir(&dir).unwrap();
        fill(&dir, many);
        let listed = std::fs::read_dir(&dir).unwrap().count();
        assert_eq!((listed, names(&dir).len()), (many, many));
    }
}

#[test]
fn dot_entries_and_inode_numbers() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    mkdir(ve.path("dir")).unwrap();
    create(ve.path("dir/file")).unwrap();
    let entries: Vec<_> = Dir::read_from(open(ve.path("dir"), OFlags::RDONLY).unwrap())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.ino(),
            )
        })
        .collect();
    let ino = |path: &str| crate::harness::files::stat(ve.path(path)).unwrap().st_ino;
    for (name, path) in [(".", "dir"), ("..", ""), ("file", "dir/file")] {
        let found = entries
            .iter()
            .find(|(entry, _)| entry == name)
            .map(|(_, ino)| *ino);
        assert_eq!(found, Some(ino(path)), "{name} in {entries:?}");
    }
}

/// POSIX: entries that are neither made nor removed during a walk are seen exactly once.
// S34
#[test]
fn a_walk_while_others_remove_and_make() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    mkdir(ve.path("dir")).unwrap();
    fill(&ve.path("dir"), 2000);
    let mut seen = Vec::new();
    for (step, entry) in std::fs::read_dir(ve.path("dir")).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if step % 10 == 0 && step < 1000 {
            create(ve.path(format!("dir/new-{step}"))).unwrap();
        }
        if name.starts_with("entry") && name.ends_with('7') {
            std::fs::remove_file(ve.path("dir").join(&name)).unwrap();
        }
        seen.push(name);
    }
    let kept: Vec<_> = seen
        .iter()
        .filter(|name| name.starts_with("entry"))
        .collect();
    let unique: BTreeSet<_> = kept.iter().collect();
    assert_eq!((kept.len(), unique.len()), (2000, 2000));
}

#[test]
fn any_earlier_position_can_be_returned_to() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    mkdir(ve.path("dir")).unwrap();
    fill(&ve.path("dir"), 1000);
    let mut dir = Dir::read_from(open(ve.path("dir"), OFlags::RDONLY).unwrap()).unwrap();
    let mut walk = Vec::new();
    while let Some(entry) = dir.read() {
        let entry = entry.unwrap();
        walk.push((entry.file_name().to_owned(), entry.offset()));
    }
    for at in [0, 1, 500, 998] {
        dir.seek(walk[at].1).unwrap();
        let next = dir.read().unwrap().unwrap();
        assert_eq!(
            next.file_name(),
            walk[at + 1].0.as_c_str(),
            "after entry {at}"
        );
    }
    dir.rewind();
    assert_eq!(
        dir.read().unwrap().unwrap().file_name(),
        walk[0].0.as_c_str()
    );
}

#[test]
fn a_removed_directory_is_empty() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    mkdir(ve.path("dir")).unwrap();
    let held = open(ve.path("dir"), OFlags::RDONLY).unwrap();
    std::fs::remove_dir(ve.path("dir")).unwrap();
    assert_eq!(Dir::read_from(&held).unwrap().count(), 0);
    rustix::fs::fsync(&held).unwrap();
    let new = rustix::fs::openat(&held, "x", OFlags::CREATE, rustix::fs::Mode::RWXU);
    assert_eq!(new.map(drop), Err(rustix::io::Errno::NOENT));
}

/// The number of a removed directory, used again under somebody who has it open, would make errors of all his calls.
#[test]
fn a_removed_directory_stays_what_it_was() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    mkdir(ve.path("dir")).unwrap();
    let held = open(ve.path("dir"), OFlags::RDONLY).unwrap();
    let before = rustix::fs::fstat(&held).unwrap();
    std::fs::remove_dir(ve.path("dir")).unwrap();
    for name in 0..50 {
        mkdir(ve.path(format!("new-{name}"))).unwrap();
        let new = crate::harness::files::stat(ve.path(format!("new-{name}"))).unwrap();
        assert_ne!(new.st_ino, before.st_ino);
    }
    let after = rustix::fs::fstat(&held).unwrap();
    assert_eq!((after.st_ino, after.st_nlink), (before.st_ino, 0));
}
