//! Directories: opendir, readdir with and without attributes, releasedir, fsyncdir.
//!
//! Positions are the backing directory's own (`d_off`), and each handle has one backing stream: a listing goes on in the
//! right place whatever is made or removed meanwhile, and any earlier position can be sought.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::sys::stat::FileKind;
use parking_lot::Mutex;

use super::policy::{Access, IoMode, OpenState};
use super::{Call, Entry, Fs};
use crate::error::{FsError, FsResult};
use crate::fault;
use crate::handle::{HandleId, OpenDir};
use crate::node::{NodeId, Presence};
use crate::shared::HandleRoom;
use crate::sys::{dirent, file};

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
    /// Opens a directory for listing.
    ///
    /// # Errors
    /// ESTALE for an unknown inode; EMFILE and the like.
    pub fn opendir(&self, call: Call<'_>, id: NodeId) -> FsResult<HandleId> {
        let node = self.nodes.get(id)?;
        let room = self.dirs.make_room()?;
        let mut state = node.state();
        if matches!(state.presence, Presence::Gone(_)) {
            // Somebody stands in a directory that was removed: there is nothing in it.
            drop(state);
            return Ok(self.insert_dir(call, room, OpenDir { node, stream: None }));
        }
        self.check_descriptors()?;
        let path = match &state.pin {
            Some(pin) => pin.clone(),
            None => self.nodes.descriptor(&node)?,
        };
        let dir = file::open_dir(path.as_fd())?;
        self.descriptors.note(&dir);
        let stream = dirent::DirStream::new(dir);
        let counts = state
            .open
            .get_or_insert_with(|| Box::new(OpenState::new(IoMode::Cached)));
        counts.handles = counts.handles.saturating_add(1);
        let dir = OpenDir {
            node: node.clone(),
            stream: Some(Mutex::new(stream)),
        };
        Ok(self.insert_dir(call, room, dir))
    }

    fn insert_dir(&self, call: Call<'_>, room: HandleRoom<'_>, dir: OpenDir) -> HandleId {
        let handle = self.dirs.insert(room, dir, |handle| {
            call.flight.hand_out_handle(handle);
            fault::point("handed-out");
        });
        fault::point("opened");
        handle
    }

    /// Lists entries from a position until `add` says that the buffer is full.
    ///
    /// # Errors
    /// The backing file system's own.
    pub fn readdir(
        &self,
        handle: HandleId,
        position: u64,
        add: &mut dyn FnMut(Listed<'_>) -> bool,
    ) -> FsResult<()> {
        let open = self.dirs.get(handle)?;
        let Some(stream) = &open.stream else {
            return Ok(());
        };
        // Reading moves the time of last access.
        open.node.state().fresh = None;
        let mut stream = stream.lock();
        stream.seek(position)?;
        loop {
            let before = stream.position();
            let Some(entry) = stream.next()? else {
                return Ok(());
            };
            let listed = Listed {
                position: entry.position,
                ino: self.listed_ino(&open, entry.ino, entry.name),
                kind: entry.kind,
                name: entry.os_name(),
            };
            if add(listed) {
                stream.seek(before)?;
                return Ok(());
            }
        }
    }

    /// Lists entries with their attributes; each but "." and ".." counts as a lookup. `add` gets the entry as it was found
    /// and says whether the buffer was full, in which case it was not taken. Also full is a listing that has handed out as
    /// many nodes as a successor can be told of.
    ///
    /// # Errors
    /// The backing file system's own.
    pub fn readdirplus(
        &self,
        call: Call<'_>,
        handle: HandleId,
        position: u64,
        add: &mut dyn FnMut(Listed<'_>, Option<&Entry>) -> bool,
    ) -> FsResult<()> {
        let open = self.dirs.get(handle)?;
        let dir = open.node.clone();
        let fd = match &open.stream {
            Some(_) => self.nodes.descriptor(&dir).ok(),
            None => None,
        };
        self.readdir(handle, position, &mut |listed| {
            if call.flight.is_listing_full() {
                return true;
            }
            let dots = listed.name == "." || listed.name == "..";
            let found = match &fd {
                // An entry that vanished between listing and looking is listed without attributes.
                Some(fd) if !dots => self.find(fd.as_fd(), listed.name).ok(),
                _ => None,
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

    fn listed_ino(&self, open: &OpenDir, ino: u64, name: &[u8]) -> u64 {
        let root = self.nodes.root();
        let above_root = name == b".." && open.node.id() == root.id();
        if above_root || root.is_inode(ino) {
            super::ROOT_INO
        } else {
            ino
        }
    }

    /// Closes a directory.
    ///
    /// # Errors
    /// [`FsError::UnknownHandle`] for a handle that is not open.
    pub fn releasedir(&self, handle: HandleId) -> FsResult<()> {
        let (open, place) = self
            .dirs
            .remove(handle)
            .ok_or(FsError::UnknownHandle(handle))?;
        let node = open.node.clone();
        let counted = open.stream.is_some();
        // The stream holds a directory that was removed in being: it must be closed before the directory counts as gone.
        drop(open);
        if counted {
            let mut state = node.state();
            self.dismiss(&node, &mut state, Access::Read, false);
            self.finish_unlinked(&node, &mut state);
        }
        self.dirs.forget(place);
        self.nodes.tidy(&node);
        Ok(())
    }

    /// Brings a directory to the disk.
    ///
    /// # Errors
    /// The backing file system's own.
    pub fn fsyncdir(&self, handle: HandleId) -> FsResult<()> {
        let open: Arc<OpenDir> = self.dirs.get(handle)?;
        match &open.stream {
            Some(stream) => Ok(file::fsync(stream.lock().fd())?),
            None => Ok(()),
        }
    }
}

/// The lengths of all names in a directory, for [`crate::accounting::growth`]; stops where they could not fit `limit` bytes.
pub(super) fn name_lengths(dir: impl AsFd, limit: u64) -> std::io::Result<Vec<usize>> {
    let mut stream = dirent::DirStream::new(file::open_dir(dir.as_fd())?);
    let mut lengths = Vec::new();
    let mut total = 0;
    while let Some(entry) = stream.next()? {
        lengths.push(entry.name.len());
        total += u64::try_from(entry.name.len()).unwrap_or(u64::MAX);
        if total > limit {
            break;
        }
    }
    Ok(lengths)
}
