//! Requests that are sent again after a daemon died: what it had done of them, and what it had counted for the answer.
//!
//! The kernel keeps the directories of an unanswered request locked, so what is there now is what the dead daemon left, and
//! what it said it was about to do ([`Intent`]) tells whether it did it. Whoever edits the private area behind the mount
//! can make this wrong for the one name, as it can for any request.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::namespace::Place;
use super::{Call, Entry, Fs};
use crate::accounting::Caller;
use crate::error::FsResult;
use crate::fault;
use crate::node::NodeId;
use crate::shared::flights::{Intent, Step};
use crate::shared::{Description, Flight};
use crate::sys::file::RenameFlags;
use crate::sys::stat::stat_at;

impl Fs {
    /// A request, as the operations want it. What a dead daemon counted for its answer is taken back first.
    pub fn call<'a>(&self, caller: Caller, flight: &'a Flight<'a>) -> Call<'a> {
        if flight.earlier().is_some() {
            if let Some(handle) = flight.handed_out_handle() {
                // It is one or the other, or was not opened after all.
                let _ = self.release(handle).or_else(|_| self.releasedir(handle));
                flight.handle_is_back();
            }
            if let Some(node) = flight.take_back_node() {
                self.nodes.forget(node, 1);
            }
        }
        Call { caller, flight }
    }

    /// Says what is about to be done under one name; `source` is the inode that it is about, 0 for a new one.
    pub(super) fn describe(&self, call: Call<'_>, step: Step, place: Place<'_>, source: u64) {
        call.flight.describe(&Intent {
            step,
            parent: place.parent,
            name: place.name,
            to: None,
            source,
        });
        fault::point("described");
    }

    /// Says what is about to be renamed.
    pub(super) fn describe_rename(
        &self,
        call: Call<'_>,
        (from, source): (Place<'_>, u64),
        to: Place<'_>,
        flags: RenameFlags,
    ) {
        let step = if flags.contains(RenameFlags::EXCHANGE) {
            Step::Exchange
        } else if flags.contains(RenameFlags::WHITEOUT) {
            Step::Whiteout
        } else {
            Step::Rename
        };
        call.flight.describe(&Intent {
            step,
            parent: from.parent,
            name: from.name,
            to: Some((to.parent, to.name)),
            source,
        });
        fault::point("described");
    }

    /// The inode that a dead daemon made or linked under this name for this very call. It is charged already: by that daemon
    /// or by the recovery.
    pub(super) fn made_before(&self, call: Call<'_>, place: Place<'_>) -> FsResult<Option<Entry>> {
        let Some(said) = said(call, place, &[Step::Make, Step::Link]) else {
            return Ok(None);
        };
        let parent = self.nodes.get(place.parent)?;
        let dir = self.nodes.descriptor(&parent)?;
        let found = match self.find(dir.as_fd(), place.name) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if said.step == Step::Link && found.stat.ino != said.source {
            return Ok(None);
        }
        Ok(Some(self.answer(call, found)?))
    }
}

/// What the dead daemon said of this name, if it was one of these steps.
fn said<'a>(call: Call<'a>, place: Place<'_>, steps: &[Step]) -> Option<&'a Description> {
    let said = call.flight.described()?;
    let is_it = said.parent == place.parent && said.name == place.name;
    (is_it && steps.contains(&said.step)).then_some(said)
}

/// Whether a name is missing because a dead daemon removed it for this very call.
pub(super) fn removed_before(call: Call<'_>, place: Place<'_>, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound && said(call, place, &[Step::Remove]).is_some()
}

/// Whether a dead daemon renamed this for this very call.
pub(super) fn renamed_before(
    call: Call<'_>,
    (from, old_dir): (Place<'_>, &OwnedFd),
    (to, new_dir): (Place<'_>, &OwnedFd),
) -> bool {
    let steps = [Step::Rename, Step::Exchange, Step::Whiteout];
    let Some(said) = said(call, from, &steps) else {
        return false;
    };
    if said.new_parent != to.parent || said.new_name != to.name {
        return false;
    }
    if inode_at(new_dir, to.name) != Some(said.source) {
        return false;
    }
    // Where both are names of one inode nothing moves: it can be done again, or fails again.
    let old = stat_at(old_dir, from.name).ok();
    match said.step {
        Step::Rename => old.is_none(),
        _ => old.is_some_and(|old| old.ino != said.source),
    }
}

/// Whether a dead daemon said that it was about to do this with an attribute.
pub(super) fn said_of_attribute(call: Call<'_>, id: NodeId, name: &OsStr, step: Step) -> bool {
    let place = Place { parent: id, name };
    said(call, place, &[step]).is_some()
}

fn inode_at(dir: &OwnedFd, name: &OsStr) -> Option<u64> {
    stat_at(dir, name).ok().map(|stat| stat.ino)
}

#[cfg(test)]
mod tests {
    use super::super::data::Opened;
    use super::super::testbed::{Bed, PLAIN, at};
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
        let none = &mut |_: std::os::fd::BorrowedFd<'_>| Err(io::Error::other("none"));
        fs.create(
            call,
            at(name),
            0o100_644,
            0o022,
            libc::O_RDWR | libc::O_EXCL,
            none,
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
        assert_eq!(bed.fs.open_counts(), (handles, 0), "{what}");
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
}
