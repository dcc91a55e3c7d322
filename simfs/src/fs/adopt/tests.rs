//! A successor in the same process: what was open before a death is open after it.

use std::ffi::OsStr;
use std::sync::atomic::Ordering;

use super::super::data::Opened;
use super::super::testbed::{Bed, ROOT, at, is_reachable, write_at};
use super::*;
use crate::error::{FsError, FsResult};
use crate::fs::Place;

fn open(bed: &mut Bed, id: NodeId, flags: i32) -> (HandleId, Opened) {
    let token = bed.register();
    bed.ask(|fs, call| fs.open(call, id, flags, &mut |_| Ok(token.clone())))
        .unwrap()
}

fn write(bed: &Bed, handle: HandleId, offset: u64, data: &[u8]) -> FsResult<usize> {
    bed.fs.write(ROOT, handle, write_at(offset, data))
}

fn read(bed: &Bed, handle: HandleId) -> FsResult<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let length = bed.fs.read(handle, 0, &mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

fn is_unknown(error: &FsError) -> bool {
    matches!(error, FsError::UnknownHandle(_))
}

#[test]
fn what_is_open_stays_open_by_its_number() {
    let mut bed = Bed::new();
    let (a, first) = bed.create("a");
    write(&bed, first, 0, b"one").unwrap();
    let (second, opened) = open(&mut bed, a, libc::O_RDONLY);
    assert!(
        opened.backing.is_none(),
        "the first open decided for the cached mode"
    );
    bed.die();
    assert_eq!((bed.adopted.files, bed.adopted.lost), (2, 0));
    write(&bed, first, 3, b" two").unwrap();
    assert_eq!(read(&bed, second).unwrap(), b"one two");
    assert!(
        write(&bed, second, 0, b"x").is_err(),
        "it is open for reading"
    );
    let (third, _) = open(&mut bed, a, libc::O_WRONLY);
    assert!(third > second, "numbers go on");
    for handle in [first, second, third] {
        bed.fs.release(handle).unwrap();
        assert!(is_unknown(&bed.fs.release(handle).unwrap_err()));
    }
    bed.die();
    assert_eq!(bed.adopted.files, 0);
    bed.fs.forget(a, 1);
    bed.assert_empty();
}

#[test]
fn a_file_without_a_name_lives_as_long_as_it_is_open() {
    let mut bed = Bed::new();
    let (a, handle) = bed.create("a");
    write(&bed, handle, 0, &[7; 9000]).unwrap();
    bed.ask(|fs, call| fs.unlink(call, at("a"))).unwrap();
    assert_eq!(bed.world.deposits(), 1);
    for _ in 0..3 {
        bed.die();
        assert_eq!((bed.adopted.files, bed.adopted.pinned), (1, 1));
        assert!(read(&bed, handle).unwrap() == [7; 9000]);
        assert_eq!(bed.fs.getattr(a).unwrap().nlink, 0);
        assert!(write(&bed, handle, 8999, &[7]).is_ok());
    }
    let held = bed
        .fs
        .accounting()
        .engine()
        .account(quota::Subject::Ve)
        .unwrap();
    bed.fs.release(handle).unwrap();
    let left = bed
        .fs
        .accounting()
        .engine()
        .account(quota::Subject::Ve)
        .unwrap();
    assert_eq!(
        held.usage.inodes.get() - left.usage.inodes.get(),
        1,
        "it was charged"
    );
    assert_eq!(bed.world.deposits(), 0);
    bed.fs.forget(a, 1);
    bed.assert_empty();
}

#[test]
fn a_file_that_lost_its_last_opener_with_the_daemon_goes() {
    let mut bed = Bed::new();
    let (a, handle) = bed.create("a");
    bed.ask(|fs, call| fs.unlink(call, at("a"))).unwrap();
    // The daemon dies between the end of the handle's record and that of the inode.
    let (_, place) = bed.fs.files.remove(handle).unwrap();
    bed.fs.files.forget(place);
    bed.die();
    assert_eq!((bed.adopted.files, bed.adopted.pinned), (0, 1));
    assert_eq!(bed.world.deposits(), 0);
    assert_eq!(bed.fs.open_count(), 0);
    bed.fs.forget(a, 1);
    bed.assert_empty();
}

#[test]
fn a_name_that_did_not_go_needs_no_keeping() {
    let mut bed = Bed::new();
    let (a, handle) = bed.create("a");
    assert!(bed.cut_off("deposited", |fs, call| fs.unlink(call, at("a"))));
    assert_eq!(bed.world.deposits(), 0, "withdrawn by the successor");
    bed.again(|fs, call| fs.unlink(call, at("a"))).unwrap();
    assert_eq!(bed.world.deposits(), 1);
    bed.die();
    assert_eq!(bed.adopted.pinned, 1);
    bed.fs.release(handle).unwrap();
    bed.fs.forget(a, 1);
    bed.assert_empty();
}

/// S30: an unlink never fails for the keeper's sake.
#[test]
fn where_the_keeper_is_full_only_that_file_is_lost() {
    let mut bed = Bed::new();
    let (a, lost) = bed.create("a");
    let (b, kept) = bed.create("b");
    bed.world.is_full.store(true, Ordering::Relaxed);
    bed.ask(|fs, call| fs.unlink(call, at("a"))).unwrap();
    write(&bed, lost, 0, b"still there").unwrap();
    // In this process nothing closes by itself.
    drop(bed.fs.files.remove(lost).unwrap());
    let node = bed.fs.nodes().get(a).unwrap();
    drop(node.state().pin.take());
    bed.fs.nodes().drop_descriptor(&node);
    bed.die();
    assert!(read(&bed, lost).is_err(), "its content is gone");
    assert_eq!(read(&bed, kept).unwrap(), b"");
    bed.fs.release(lost).unwrap();
    bed.fs.release(kept).unwrap();
    bed.fs.forget(a, 1);
    bed.fs.forget(b, 1);
    bed.assert_empty();
}

/// The kernel's own hold of a backing file keeps the inode in being as well.
#[test]
fn what_the_kernel_still_holds_is_charged_and_given_to_the_keeper() {
    let mut bed = Bed::new();
    let (a, handle) = bed.create("a");
    write(&bed, handle, 0, &[7; 4096]).unwrap();
    let held = std::fs::File::open(bed.dir.path().join("a")).unwrap();
    bed.world.is_full.store(true, Ordering::Relaxed);
    bed.ask(|fs, call| fs.unlink(call, at("a"))).unwrap();
    bed.world.is_full.store(false, Ordering::Relaxed);
    bed.die();
    drop(held);
    assert_eq!(bed.world.deposits(), 1);
    assert!(read(&bed, handle).unwrap() == [7; 4096]);
    let account = |bed: &Bed| {
        let engine = bed.fs.accounting().engine();
        engine
            .account(quota::Subject::Ve)
            .unwrap()
            .usage
            .inodes
            .get()
    };
    assert_eq!(account(&bed), 2, "the root directory and the file");
    bed.fs.release(handle).unwrap();
    assert_eq!(account(&bed), 1);
    bed.fs.forget(a, 1);
    bed.assert_empty();
}

#[test]
fn passthrough_goes_on_with_the_same_backing_file() {
    let mut bed = Bed::new();
    let (a, handle) = bed.create("a");
    write(&bed, handle, 0, &[1; 4096]).unwrap();
    bed.fs.release(handle).unwrap();
    let (first, opened) = open(&mut bed, a, libc::O_RDONLY);
    let number = opened.backing.unwrap().number();
    bed.die();
    assert_eq!(bed.world.backings(), 1);
    let (second, opened) = open(&mut bed, a, libc::O_RDWR);
    assert_eq!(opened.backing.unwrap().number(), number);
    bed.die();
    bed.fs.release(first).unwrap();
    bed.fs.release(second).unwrap();
    // A backing file that nobody has open is not kept for a successor.
    let (third, opened) = open(&mut bed, a, libc::O_RDONLY);
    let idle = opened.backing.unwrap().number();
    bed.fs.release(third).unwrap();
    assert_eq!(bed.world.backings(), 1, "{idle} is kept for the next open");
    bed.die();
    assert_eq!(bed.world.backings(), 0);
    bed.fs.forget(a, 1);
    bed.assert_empty();
}

/// S7: stores through a mapping that nobody sees must find their space promised, also after a takeover.
#[test]
fn holes_of_a_mapped_file_are_promised_again() {
    let mut bed = Bed::new();
    let (a, writer) = bed.create("a");
    write(&bed, writer, 0, &[1; 4096]).unwrap();
    bed.fs.release(writer).unwrap();
    let (reader, _) = open(&mut bed, a, libc::O_RDONLY);
    let (mapper, _) = open(&mut bed, a, libc::O_RDWR);
    write(&bed, mapper, 1 << 20, &[1; 4096]).unwrap();
    bed.fs.accounting().finish_late();
    let promised = bed.fs.accounting().engine().reserved().space;
    assert!(promised.get() >= (1 << 20) - 4096, "{promised:?}");
    bed.die();
    assert_eq!(bed.fs.accounting().engine().reserved().space, promised);
    bed.fs.release(mapper).unwrap();
    bed.fs.release(reader).unwrap();
    assert!(bed.fs.accounting().engine().reserved().space < promised);
    bed.fs.forget(a, 1);
    bed.assert_empty();
}

#[test]
fn a_listing_goes_on_where_it_was() {
    let mut bed = Bed::new();
    for number in 0..300 {
        std::fs::write(bed.dir.path().join(format!("file{number}")), b"").unwrap();
    }
    let mut names = std::collections::BTreeSet::new();
    let mut position = 0;
    loop {
        let mut taken = 0;
        bed.fs
            .readdir(NodeId::ROOT, position, &mut |listed| {
                let is_full = taken == 7;
                if !is_full {
                    assert!(names.insert(listed.name.to_owned()), "listed twice");
                    position = listed.position;
                    taken += 1;
                }
                is_full
            })
            .unwrap();
        if taken == 0 {
            break;
        }
        bed.die();
    }
    assert_eq!(names.len(), 302);
    bed.assert_empty();
}

#[test]
fn a_removed_directory_can_still_be_stood_in() {
    let mut bed = Bed::new();
    let made = bed
        .ask(|fs, call| fs.mkdir(call, at("d"), 0o755, 0))
        .unwrap();
    let id = made.node.id();
    bed.ask(|fs, call| fs.rmdir(call, at("d"))).unwrap();
    let listed = |bed: &Bed| bed.fs.readdir(id, 0, &mut |_| panic!("it is empty"));
    listed(&bed).unwrap();
    bed.die();
    // It is somebody's working directory.
    let seen = bed.fs.getattr(id).unwrap();
    assert_eq!((seen.is_dir(), seen.nlink), (true, 0));
    let inside = Place {
        parent: id,
        name: OsStr::new("x"),
    };
    assert!(
        bed.ask(|fs, call| fs.mkdir(call, inside, 0o755, 0).map(drop))
            .is_err()
    );
    listed(&bed).unwrap();
    bed.fs.fsyncdir(id).unwrap();
    bed.fs.forget(id, 1);
    bed.assert_empty();
}

#[test]
fn nodes_are_known_by_their_numbers_and_lookups() {
    let mut bed = Bed::new();
    let mut nodes = Vec::new();
    for number in 0..500 {
        let name = format!("file{number}");
        std::fs::write(bed.dir.path().join(&name), b"").unwrap();
        for _ in 0..=number % 3 {
            let found = bed.ask(|fs, call| fs.lookup(call, at(&name))).unwrap();
            nodes.push(found.node.id());
        }
    }
    bed.die();
    for (step, id) in nodes.iter().enumerate() {
        if step % 2 == 0 {
            assert!(is_reachable(&bed.fs, *id));
        }
        if step == 300 {
            bed.die();
        }
        bed.fs.forget(*id, 1);
    }
    assert!(nodes.iter().all(|id| bed.fs.nodes().get(*id).is_err()));
    bed.assert_empty();
}

/// An inode number that is used again while the successor has not looked at the old one.
#[test]
fn a_reused_number_is_another_file() {
    let mut bed = Bed::new();
    let (a, handle) = bed.create("a");
    bed.fs.release(handle).unwrap();
    let generation = bed.fs.nodes().get(a).unwrap().generation();
    bed.die();
    std::fs::remove_file(bed.dir.path().join("a")).unwrap();
    for try_number in 0..64 {
        let name = format!("b{try_number}");
        std::fs::write(bed.dir.path().join(&name), b"").unwrap();
        let found = bed.ask(|fs, call| fs.lookup(call, at(&name))).unwrap();
        if found.node.id() == a {
            assert_ne!(found.node.generation(), generation);
            assert_eq!(bed.lookups(a), 2, "the sum is what the kernel will forget");
            bed.fs.forget(a, 2);
            assert!(bed.fs.nodes().get(a).is_err());
            return;
        }
    }
    eprintln!("the file system did not use the number again");
}
