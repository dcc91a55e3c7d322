//! Requests whose answer was lost with the daemon, asked again.

use super::super::data::Opened;
use super::super::testbed::{Bed, PLAIN, at, no_backing};
use super::*;
use crate::handle::HandleId;
use crate::node::NodeId;
use rustix::fs::XattrFlags;

type Act = fn(&Fs, Call<'_>) -> FsResult<Done>;

/// What an answer hands out.
#[derive(Debug, Default, PartialEq)]
struct Done {
    node: Option<NodeId>,
    handle: Option<HandleId>,
}

fn node(entry: Entry) -> Done {
    Done {
        node: Some(entry.node.id()),
        handle: None,
    }
}

fn create(fs: &Fs, call: Call<'_>, name: &str) -> FsResult<(Entry, HandleId, Opened)> {
    fs.create(
        call,
        at(name),
        0o100_644,
        0o022,
        libc::O_RDWR | libc::O_EXCL,
        &mut no_backing,
    )
}

const OPS: [(&str, Act); 14] = [
    ("mkdir new", |fs, call| {
        Ok(node(fs.mkdir(call, at("new"), 0o755, 0)?))
    }),
    ("mknod new", |fs, call| {
        Ok(node(fs.mknod(
            call,
            at("new"),
            libc::S_IFIFO | 0o600,
            0,
            0,
        )?))
    }),
    ("symlink new", |fs, call| {
        Ok(node(fs.symlink(call, at("new"), OsStr::new("target"))?))
    }),
    ("create new", |fs, call| {
        let (entry, handle, _) = create(fs, call, "new")?;
        Ok(Done {
            node: Some(entry.node.id()),
            handle: Some(handle),
        })
    }),
    ("link new", |fs, call| {
        let id = inode(fs, "a");
        Ok(node(fs.link(call, id, at("new"))?))
    }),
    ("unlink", |fs, call| {
        fs.unlink(call, at("a")).map(|()| Done::default())
    }),
    ("rmdir", |fs, call| {
        fs.rmdir(call, at("dir")).map(|()| Done::default())
    }),
    ("rename to a free name", |fs, call| {
        rename(fs, call, "a", "new", RenameFlags::empty())
    }),
    ("rename over another", |fs, call| {
        rename(fs, call, "a", "b", RenameFlags::empty())
    }),
    ("exchange", |fs, call| {
        rename(fs, call, "a", "b", RenameFlags::EXCHANGE)
    }),
    ("whiteout", |fs, call| {
        rename(fs, call, "a", "new", RenameFlags::WHITEOUT)
    }),
    ("rename one inode to itself", |fs, call| {
        rename(fs, call, "b", "b2", RenameFlags::empty())
    }),
    ("create an attribute", |fs, call| {
        let id = inode(fs, "a");
        fs.setxattr(call, id, OsStr::new("user.new"), b"1", XattrFlags::CREATE)?;
        Ok(Done::default())
    }),
    ("remove an attribute", |fs, call| {
        let id = inode(fs, "a");
        fs.removexattr(call, id, OsStr::new("user.old"))?;
        Ok(Done::default())
    }),
];

fn rename(fs: &Fs, call: Call<'_>, from: &str, to: &str, flags: RenameFlags) -> FsResult<Done> {
    fs.rename(call, at(from), at(to), flags)?;
    Ok(Done::default())
}

/// The node of a name that the kernel knows already.
fn inode(fs: &Fs, name: &str) -> NodeId {
    let root = fs.nodes().descriptor(fs.nodes().root()).unwrap();
    NodeId::new(inode_at(&root, OsStr::new(name)).unwrap())
}

/// a (with an attribute), b = b2, dir; each looked up once by the kernel.
fn bed() -> Bed {
    let mut bed = Bed::new();
    for name in ["a", "b"] {
        let (_, handle, _) = bed.ask(|fs, call| create(fs, call, name)).unwrap();
        bed.fs.release(handle).unwrap();
    }
    let a = inode(&bed.fs, "a");
    bed.ask(|fs, call| fs.setxattr(call, a, OsStr::new("user.old"), b"1", PLAIN))
        .unwrap();
    bed.ask(|fs, call| fs.mkdir(call, at("dir"), 0o755, 0))
        .unwrap();
    let b = inode(&bed.fs, "b");
    bed.ask(|fs, call| fs.link(call, b, at("b2"))).unwrap();
    bed
}

/// Names, inode numbers, kinds and attributes.
fn picture(bed: &Bed) -> Vec<(String, u64, u32, Vec<String>)> {
    let root = bed.fs.nodes().descriptor(bed.fs.nodes().root()).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(bed.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    let look = |name: std::ffi::OsString| {
        let stat = stat_at(&root, &name).unwrap();
        let fd = crate::sys::file::open_path_at(&root, &name).unwrap();
        let mut list = [0; 256];
        let length = crate::sys::xattr::list(fd.as_fd(), &mut list).unwrap_or(0);
        let list = String::from_utf8_lossy(&list[..length]).into_owned();
        let list = list
            .split_terminator('\0')
            .filter(|name| name.starts_with("user."))
            .map(str::to_owned)
            .collect();
        (name.into_string().unwrap(), stat.ino, stat.mode, list)
    };
    names.into_iter().map(look).collect()
}

/// The same names and kinds; a new inode may have another number.
fn shape(picture: &[(String, u64, u32, Vec<String>)]) -> Vec<(String, u32, Vec<String>)> {
    let plain = |(name, _, mode, list): &(String, u64, u32, Vec<String>)| {
        (name.clone(), *mode, list.clone())
    };
    picture.iter().map(plain).collect()
}

/// What was handed out counts once: nothing is known or open that the second answer did not give.
fn assert_counted_once(bed: &mut Bed, what: &str, before: &[(NodeId, u64)], done: &Done) {
    let handles = usize::from(done.handle.is_some());
    assert_eq!(bed.fs.open_count(), handles, "{what}");
    for (id, lookups) in before {
        let more = u64::from(done.node == Some(*id));
        assert_eq!(bed.lookups(*id), lookups + more, "{what}: {id}");
    }
    if let Some(id) = done
        .node
        .filter(|id| before.iter().all(|(other, _)| other != id))
    {
        assert_eq!(bed.lookups(id), 1, "{what}");
    }
    if let Some(handle) = done.handle {
        bed.fs.release(handle).unwrap();
    }
}

fn known(bed: &Bed) -> Vec<(NodeId, u64)> {
    ["a", "b", "dir"]
        .map(|name| inode(&bed.fs, name))
        .map(|id| (id, bed.lookups(id)))
        .into()
}

/// The daemon dies right before its answer is sent: the second one gives the same answer and changes nothing.
#[test]
fn what_was_done_is_not_done_again() {
    for (what, act) in OPS {
        let mut bed = bed();
        let before = known(&bed);
        let (first, second) = bed.ask_twice(act);
        let (first, second) = (
            first.unwrap(),
            second.unwrap_or_else(|e| panic!("{what}: {e}")),
        );
        assert_eq!(first.node, second.node, "{what}");
        let mut plain = self::bed();
        plain.ask(act).unwrap();
        assert_eq!(shape(&picture(&bed)), shape(&picture(&plain)), "{what}");
        assert_counted_once(&mut bed, what, &before, &second);
    }
}

/// The daemon dies at each point of each operation.
#[test]
fn what_is_cut_off_is_done_once() {
    let mut passed = 0;
    for (what, act) in OPS {
        let mut plain = bed();
        plain.ask(act).unwrap();
        let expected = shape(&picture(&plain));
        for point in crate::fault::POINTS {
            let mut bed = bed();
            let before = known(&bed);
            let Some(answer) = bed.ask_through(point, act) else {
                continue;
            };
            passed += 1;
            let done = answer.unwrap_or_else(|error| panic!("{what} at {point}: {error}"));
            assert_eq!(shape(&picture(&bed)), expected, "{what} at {point}");
            assert_counted_once(&mut bed, &format!("{what} at {point}"), &before, &done);
        }
    }
    assert!(passed >= 30, "{passed} points were passed");
}

/// What failed in the first try fails in the second.
#[test]
fn a_failure_is_not_taken_for_success() {
    let mut bed = bed();
    let (first, second) = bed.ask_twice(|fs, call| fs.mkdir(call, at("a"), 0o755, 0));
    assert!(first.is_err() && second.is_err(), "a exists");
    let (first, second) = bed.ask_twice(|fs, call| fs.unlink(call, at("nothing")));
    assert!(first.is_err() && second.is_err());
    let (first, second) = bed.ask_twice(|fs, call| fs.rmdir(call, at("a")));
    assert!(first.is_err() && second.is_err(), "a is no directory");
    let a = inode(&bed.fs, "a");
    let (first, second) = bed.ask_twice(|fs, call| {
        fs.setxattr(call, a, OsStr::new("user.old"), b"1", XattrFlags::CREATE)
    });
    assert!(first.is_err() && second.is_err(), "it is there");
    let (first, second) =
        bed.ask_twice(|fs, call| fs.removexattr(call, a, OsStr::new("user.none")));
    assert!(first.is_err() && second.is_err(), "it is not there");
    let (first, second) =
        bed.ask_twice(|fs, call| fs.rename(call, at("nothing"), at("b"), RenameFlags::empty()));
    assert!(first.is_err() && second.is_err());
}

/// Another request, or one that was not sent again, is none of this.
#[test]
fn only_the_same_request_gets_the_first_answer() {
    let mut bed = bed();
    let (first, second) = bed.ask_twice(|fs, call| fs.mkdir(call, at("new"), 0o755, 0));
    assert!(first.is_ok() && second.is_ok());
    let third = bed.ask(|fs, call| fs.mkdir(call, at("new"), 0o755, 0).map(drop));
    assert!(third.is_err());
    let gone = bed.ask(|fs, call| fs.rmdir(call, at("new")));
    assert!(gone.is_ok());
    assert!(bed.ask(|fs, call| fs.rmdir(call, at("new"))).is_err());
}

/// Several daemons die of one request one after the other.
#[test]
fn many_deaths_are_as_one() {
    for (what, act) in OPS {
        let mut bed = bed();
        let before = known(&bed);
        bed.cut_off("described", act);
        for point in [
            "made",
            "counted",
            "removed",
            "renamed",
            "attribute",
            "handed-out",
            "opened",
        ] {
            bed.cut_off_again(point, act);
        }
        let done = bed
            .again(act)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut plain = self::bed();
        plain.ask(act).unwrap();
        assert_eq!(shape(&picture(&bed)), shape(&picture(&plain)), "{what}");
        assert_counted_once(&mut bed, what, &before, &done);
    }
}

/// What is there under the name cannot be opened as the caller wants it: an error counts nothing.
#[test]
fn a_file_that_cannot_be_opened_again_is_not_counted() {
    let mut bed = bed();
    let make = |fs: &Fs, call: Call<'_>| create(fs, call, "new").map(drop);
    assert!(bed.cut_off("opened", make));
    let new = bed.dir.path().join("new");
    std::fs::remove_file(&new).unwrap();
    std::fs::create_dir(&new).unwrap();
    let there = inode(&bed.fs, "new");
    assert!(bed.again(make).is_err());
    assert_eq!(bed.lookups(there), 0);
    assert!(!bed.cut_off_again("handed-out", make), "it ends in between");
    assert!(bed.again(make).is_err());
    assert_eq!(bed.lookups(there), 0, "taken back once");
}

/// The nodes that a listing from this position hands out, `room` of them at most, and where the next one begins.
fn list(
    (fs, call): (&Fs, Call<'_>),
    (mut position, room): (u64, usize),
) -> FsResult<(Vec<NodeId>, u64)> {
    let mut nodes = Vec::new();
    fs.readdirplus(call, NodeId::ROOT, position, &mut |listed, entry| {
        let is_full = nodes.len() == room;
        if !is_full {
            nodes.extend(entry.map(|entry| entry.node.id()));
            position = listed.position;
        }
        is_full
    })?;
    Ok((nodes, position))
}

/// A directory of 250 files.
fn crowd() -> Bed {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    for number in 0..250 {
        std::fs::write(dir.path().join(format!("file{number}")), b"").unwrap();
    }
    Bed::over(dir)
}

/// All lookups that the kernel owes.
fn owed(bed: &Bed) -> u64 {
    let names = std::fs::read_dir(bed.dir.path()).unwrap();
    let id = |name: std::ffi::OsString| inode(&bed.fs, name.to_str().unwrap());
    names
        .map(|entry| bed.lookups(id(entry.unwrap().file_name())))
        .sum()
}

#[test]
fn a_listing_is_counted_once() {
    for room in [0, 1, 7, 95, 96, 300] {
        let mut bed = crowd();
        let act = |fs: &Fs, call: Call<'_>| list((fs, call), (0, room));
        assert!(bed.cut_off("counted", act), "{room}");
        assert!(!bed.cut_off_again("described", act), "{room}");
        assert!(bed.cut_off_again("counted", act), "{room}");
        let (nodes, _) = bed.again(act).unwrap();
        assert_eq!(nodes.len(), room.min(96), "{room}");
        assert_eq!(owed(&bed), nodes.len() as u64, "{room}");
        for node in nodes {
            assert_eq!(bed.lookups(node), 1, "{room}");
            bed.fs.forget(node, 1);
        }
        bed.assert_empty();
    }
}

/// A daemon dies after each answer was ready and before it was sent.
#[test]
fn a_long_listing_goes_on_over_deaths() {
    let mut bed = crowd();
    let (mut all, mut position) = (Vec::new(), 0);
    loop {
        let act = |fs: &Fs, call: Call<'_>| list((fs, call), (position, 300));
        let (first, second) = bed.ask_twice(act);
        let (nodes, next) = second.unwrap();
        assert_eq!(first.unwrap().0, nodes);
        assert!(nodes.len() <= 96);
        all.extend(nodes);
        if next == position {
            break;
        }
        position = next;
    }
    assert_eq!((all.len(), owed(&bed)), (250, 250));
}

/// A name that was missing a moment ago is there by a rename: who makes it anew has not made it before.
#[test]
fn what_came_by_a_rename_was_not_made_by_the_request() {
    let mut bed = Bed::new();
    let _created = bed.create("c");
    let missing = bed.ask(|fs, call| fs.lookup(call, at("a")).map(drop));
    assert!(missing.is_err());
    let none = RenameFlags::empty();
    bed.ask(|fs, call| fs.rename(call, at("c"), at("a"), none))
        .unwrap();
    let (first, second) = bed.ask_twice(|fs, call| fs.mkdir(call, at("a"), 0o755, 0).map(drop));
    assert!(first.is_err() && second.is_err(), "{first:?} {second:?}");
}
