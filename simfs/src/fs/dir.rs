//! Directories: readdir with and without attributes, fsyncdir. The kernel opens and closes directories without asking.
//!
//! Positions are the backing directory's own (`d_off`), and any of them can be sought by any stream of the directory: a
//! listing goes on in the right place whatever is made or removed meanwhile, also under a successor.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::sys::stat::FileKind;

use super::{Call, Entry, Fs};
use crate::error::FsResult;
use crate::fault;
use crate::node::{Node, NodeId, Presence};
use crate::sys::dirent::DirStream;
use crate::sys::file;

/// One entry of a listing.
#[derive(Debug)]
pub struct Listed<'a> {
    /// Where to go on behind this entry.
    pub position: u64,
    /// Number of the inode, as `st_ino` shows it.
    pub ino: u64,
    /// Kind of file.
    pub kind: FileKind,
    /// The name.
    pub name: &'a OsStr,
}

impl Fs {
    /// Lists entries from a position until `add` says that the buffer is full; of a directory that was removed, none.
    ///
    /// # Errors
    /// ESTALE for an unknown inode; the backing file system's own.
    pub fn readdir(
        &self,
        id: NodeId,
        position: u64,
        add: &mut dyn FnMut(Listed<'_>) -> bool,
    ) -> FsResult<()> {
        let node = self.nodes.get(id)?;
        match self.present_dir(&node)? {
            Some(dir) => self.go_on(&node, &dir, position, add),
            None => Ok(()),
        }
    }

    /// Lists entries with their attributes; each but "." and ".." counts as a lookup. `add` gets the entry as it was found
    /// and says whether the buffer was full, in which case it was not taken. Also full is a listing that has handed out as
    /// many nodes as a successor can be told of.
    ///
    /// # Errors
    /// As [`Self::readdir`].
    pub fn readdirplus(
        &self,
        call: Call<'_>,
        id: NodeId,
        position: u64,
        add: &mut dyn FnMut(Listed<'_>, Option<&Entry>) -> bool,
    ) -> FsResult<()> {
        let node = self.nodes.get(id)?;
        let Some(dir) = self.present_dir(&node)? else {
            return Ok(());
        };
        self.go_on(&node, &dir, position, &mut |listed| {
            if call.flight.is_listing_full() {
                return true;
            }
            let dots = listed.name == "." || listed.name == "..";
            // An entry that vanished between listing and looking is listed without attributes.
            let found = match dots {
                false => self.find(dir.as_fd(), listed.name).ok(),
                true => None,
            };
            let entry = found.and_then(|found| self.entry(found).ok());
            if let Some(entry) = &entry {
                call.flight.hand_out_listed(entry.node.id());
                fault::point("counted");
            }
            let full = add(listed, entry.as_ref());
            if full && let Some(entry) = &entry {
                call.flight.retract_listed();
                self.nodes.forget(entry.node.id(), 1);
            }
            full
        })
    }

    /// The directory, unless it was removed: somebody may still stand in it, and there is nothing in it.
    fn present_dir(&self, node: &Node) -> FsResult<Option<Arc<OwnedFd>>> {
        let mut state = node.state();
        if !matches!(state.presence, Presence::Linked) {
            return Ok(None);
        }
        // Reading moves the time of last access.
        state.fresh = None;
        drop(state);
        Ok(Some(self.nodes.descriptor(node)?))
    }

    /// The next part of a listing.
    fn go_on(
        &self,
        node: &Node,
        dir: &OwnedFd,
        position: u64,
        add: &mut dyn FnMut(Listed<'_>) -> bool,
    ) -> FsResult<()> {
        // None stands at the start: a listing that begins sees the directory as it is now.
        let mut stream = match self.listings.take(node, position) {
            Some(stream) => stream,
            None => DirStream::new(file::open_dir(dir.as_fd())?),
        };
        stream.seek(position)?;
        let mut next = position;
        while let Some(entry) = stream.next()? {
            let behind = entry.position;
            let listed = Listed {
                position: behind,
                ino: self.listed_ino(node, entry.ino, entry.name),
                kind: entry.kind,
                name: entry.os_name(),
            };
            if add(listed) {
                break;
            }
            next = behind;
        }
        // Who got nothing will not go on.
        if next != position {
            self.listings.keep(node, next, stream);
        }
        Ok(())
    }

    fn listed_ino(&self, dir: &Node, ino: u64, name: &[u8]) -> u64 {
        let root = self.nodes.root();
        let above_root = name == b".." && dir.id() == root.id();
        if above_root || root.is_inode(ino) {
            super::ROOT_INO
        } else {
            ino
        }
    }

    /// Brings a directory to the disk.
    ///
    /// # Errors
    /// As [`Self::readdir`].
    pub fn fsyncdir(&self, id: NodeId) -> FsResult<()> {
        let node = self.nodes.get(id)?;
        match self.present_dir(&node)? {
            Some(dir) => Ok(file::fsync(&file::open_dir(dir.as_fd())?)?),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsString;

    use super::super::testbed::{Bed, at};
    use super::*;

    /// Lists at most `most` entries from a position; says where to go on.
    fn list(bed: &Bed, id: NodeId, from: u64, most: usize) -> (Vec<OsString>, u64) {
        let (mut names, mut position) = (Vec::new(), from);
        let add = &mut |listed: Listed<'_>| {
            let full = names.len() == most;
            if !full {
                names.push(listed.name.to_owned());
                position = listed.position;
            }
            full
        };
        bed.fs.readdir(id, from, add).unwrap();
        (names, position)
    }

    fn mkdir(bed: &mut Bed, name: &str) -> NodeId {
        let made = bed.ask(|fs, call| fs.mkdir(call, at(name), 0o755, 0));
        made.unwrap().node.id()
    }

    #[test]
    fn a_listing_opens_its_directory_once() {
        let bed = Bed::new();
        for number in 0..9 {
            std::fs::write(bed.dir.path().join(format!("f{number}")), b"").unwrap();
        }
        let (first, position) = list(&bed, NodeId::ROOT, 0, 4);
        assert_eq!((first.len(), bed.fs.listings.len()), (4, 1));
        let (second, end) = list(&bed, NodeId::ROOT, position, 40);
        assert_eq!((second.len(), bed.fs.listings.len()), (7, 1));
        assert_eq!(list(&bed, NodeId::ROOT, end, 40).0.len(), 0);
        assert_eq!(bed.fs.listings.len(), 0, "it is over");
        let all: BTreeSet<_> = first.into_iter().chain(second).collect();
        assert_eq!(all.len(), 11);
    }

    /// S34: each listing goes on where it was, however many there are beside it.
    #[test]
    fn listings_side_by_side_go_on_in_their_places() {
        let bed = Bed::new();
        for number in 0..60 {
            std::fs::write(bed.dir.path().join(format!("f{number}")), b"").unwrap();
        }
        let mut seen = vec![(BTreeSet::new(), 0); 40];
        for round in 0..62 {
            for (lister, (names, position)) in seen.iter_mut().enumerate() {
                let (listed, next) = list(&bed, NodeId::ROOT, *position, 1 + lister % 3);
                *position = next;
                for name in listed {
                    assert!(names.insert(name), "lister {lister}, round {round}: twice");
                }
            }
            assert!(bed.fs.listings.len() <= 16);
        }
        assert!(seen.iter().all(|(names, _)| names.len() == 62));
    }

    #[test]
    fn a_listing_that_begins_sees_what_is_there_now() {
        let bed = Bed::new();
        list(&bed, NodeId::ROOT, 0, 1);
        std::fs::write(bed.dir.path().join("new"), b"").unwrap();
        assert_eq!(list(&bed, NodeId::ROOT, 0, 9).0.len(), 3);
    }

    /// A listing comes to where an earlier one stands: it must not be given what that one has read ahead.
    #[test]
    fn a_listing_is_not_shown_what_another_has_read_before() {
        let bed = Bed::new();
        let make = |kind: &str| {
            for number in 0..20 {
                std::fs::write(bed.dir.path().join(format!("{kind}{number}")), b"").unwrap();
            }
        };
        make("old");
        list(&bed, NodeId::ROOT, 0, 10);
        make("new");
        let (mut seen, mut position) = (BTreeSet::new(), 0);
        loop {
            let (names, next) = list(&bed, NodeId::ROOT, position, 1);
            if names.is_empty() {
                break;
            }
            seen.extend(names);
            position = next;
        }
        assert_eq!(seen.len(), 42, "{seen:?}");
    }

    /// S3: what nobody has open is given back at once; a listing that nobody ended is no opening.
    #[test]
    fn a_removed_directory_is_held_by_no_listing() {
        let mut bed = Bed::new();
        let (d, e) = (mkdir(&mut bed, "d"), mkdir(&mut bed, "e"));
        list(&bed, d, 0, 1);
        list(&bed, e, 0, 1);
        bed.ask(|fs, call| fs.rmdir(call, at("d"))).unwrap();
        assert_eq!(bed.fs.listings.len(), 1);
        assert_eq!(list(&bed, d, 0, 9).0.len(), 0);
        let none = crate::sys::file::RenameFlags::empty();
        mkdir(&mut bed, "over");
        bed.ask(|fs, call| fs.rename(call, at("over"), at("e"), none))
            .unwrap();
        assert_eq!(bed.fs.listings.len(), 0);
        let (charged, counted) = bed.usage();
        assert_eq!(charged, counted);
    }
}
