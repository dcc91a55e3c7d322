//! Names: lookup, create, mkdir, mknod, symlink, link, unlink, rmdir; `rename` stands beside it.
//!
//! The kernel holds the directory's inode lock over each request that changes names in it, and the victim's over
//! unlink and rename. The states of all nodes whose usage changes are locked from the promise to the settlement.
//! Before its system call each of these says what it is about to do, so that a successor can tell whether it was done:
//! see [`super::again`].

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use quota::{Bytes, Change, Owner, Reservation, Usage, Want};

use super::{Call, Entry, Fs, Place};
use crate::accounting::{Caller, Wants, change, charged_as};
use crate::error::{FsError, FsResult};
use crate::fault;
use crate::handle::HandleId;
use crate::node::{Found, Locked, Node, NodeId, Presence, State};
use crate::shared::flights::Step;
use crate::sys::dirent;
use crate::sys::file;
use crate::sys::stat::{FileKind, Stat, stat_fd};
use crate::sys::xattr;

use super::again::removed_before;
use super::data::{BackingMaker, Opened, own_flags};
use super::pin::Pin;

/// What a new inode is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewInode {
    pub(super) kind: FileKind,
    /// Length of a symbolic link's target.
    pub(super) target: u64,
}

impl Fs {
    /// Looks a name up; "." is the directory itself and ".." its parent, never beyond the root.
    ///
    /// # Errors
    /// ENOENT and the like from the backing file system.
    pub fn lookup(&self, call: Call<'_>, place: Place<'_>) -> FsResult<Entry> {
        let parent = self.nodes.get(place.parent)?;
        if place.name == "." || (place.name == ".." && parent.id() == NodeId::ROOT) {
            let found = self.identify(self.nodes.descriptor(&parent)?.as_fd())?;
            return Ok(self.answer(call, found)?);
        }
        let dir = self.nodes.descriptor(&parent)?;
        let found = self.find(dir.as_fd(), place.name).inspect_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                self.absent.note(place);
            }
        })?;
        Ok(self.answer(call, found)?)
    }

    /// Whether a name that is about to be made is there already.
    fn is_there(&self, dir: &OwnedFd, place: Place<'_>) -> bool {
        !self.absent.take(place) && file::exists_at(dir, place.name)
    }

    /// Counts a lookup for the kernel.
    pub(super) fn entry(&self, found: Found) -> io::Result<Entry> {
        let stat = found.stat;
        let node = self.nodes.look_up(found)?;
        Ok(Entry { node, stat })
    }

    /// Counts the lookup of this call's answer, and notes that it did.
    pub(super) fn answer(&self, call: Call<'_>, found: Found) -> io::Result<Entry> {
        let entry = self.entry(found)?;
        call.flight.hand_out_node(entry.node.id());
        fault::point("counted");
        Ok(entry)
    }

    /// Takes the lookup of an answer back that will be an error.
    fn retract(&self, call: Call<'_>, entry: &Entry) {
        call.flight.retract_node();
        self.nodes.forget(entry.node.id(), 1);
    }

    /// Creates and opens a file.
    ///
    /// # Errors
    /// EDQUOT by the account that is full; the backing file system's own.
    pub fn create(
        &self,
        call: Call<'_>,
        place: Place<'_>,
        mode: u32,
        umask: u32,
        flags: i32,
        backing: &mut BackingMaker<'_>,
    ) -> FsResult<(Entry, HandleId, Opened)> {
        self.check_descriptors()?;
        let room = self.files.make_room()?;
        let new = NewInode {
            kind: FileKind::File,
            target: 0,
        };
        let (entry, fd) = match self.made_before(call, place)? {
            Some(entry) => {
                let path = self.nodes.descriptor(&entry.node);
                let fd = path.and_then(|path| file::reopen(&path, own_flags(flags)));
                let fd = fd.inspect_err(|_| self.retract(call, &entry))?;
                (entry, Some(fd))
            }
            None => self.add_inode(call, place, Some(umask), new, |dir| {
                let fd = file::create_at(dir, place.name, own_flags(flags), mode)?;
                Ok(Some(fd))
            })?,
        };
        let (handle, opened) = self
            .open_new(call, room, &entry, flags, fd, backing)
            .inspect_err(|_| self.retract(call, &entry))?;
        Ok((entry, handle, opened))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn mkdir(
        &self,
        call: Call<'_>,
        place: Place<'_>,
        mode: u32,
        umask: u32,
    ) -> FsResult<Entry> {
        let new = NewInode {
            kind: FileKind::Directory,
            target: 0,
        };
        let (entry, _) = self.make(call, place, Some(umask), new, |dir| {
            file::mkdir_at(dir, place.name, mode).map(|()| None)
        })?;
        Ok(entry)
    }

    /// Makes a file, fifo, socket or device node.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn mknod(
        &self,
        call: Call<'_>,
        place: Place<'_>,
        mode: u32,
        umask: u32,
        device: u64,
    ) -> FsResult<Entry> {
        let new = NewInode {
            kind: FileKind::from_mode(mode),
            target: 0,
        };
        let (entry, _) = self.make(call, place, Some(umask), new, |dir| {
            file::mknod_at(dir, place.name, mode, device).map(|()| None)
        })?;
        Ok(entry)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn symlink(&self, call: Call<'_>, place: Place<'_>, target: &OsStr) -> FsResult<Entry> {
        let length = u64::try_from(target.len()).map_err(|_| FsError::Invalid)?;
        let new = NewInode {
            kind: FileKind::Symlink,
            target: length,
        };
        let (entry, _) = self.make(call, place, None, new, |dir| {
            file::symlink_at(target, dir, place.name).map(|()| None)
        })?;
        Ok(entry)
    }

    /// Gives a file one more name.
    ///
    /// # Errors
    /// EDQUOT where the directory would have to grow and may not; the backing file system's own.
    pub fn link(&self, call: Call<'_>, id: NodeId, place: Place<'_>) -> FsResult<Entry> {
        if let Some(entry) = self.made_before(call, place)? {
            return Ok(entry);
        }
        let node = self.nodes.get(id)?;
        let parent = self.nodes.get(place.parent)?;
        let dir = self.nodes.descriptor(&parent)?;
        let source = self.nodes.descriptor(&node)?;
        let mut state = parent.state();
        let promise = self.promise_name(call.caller, &parent, &state, &dir, place.name, None)?;
        if !self.is_there(&dir, place) {
            self.describe(call, Step::Link, place, node.ino());
        }
        let linked = file::link_fd(&source, &dir, place.name);
        fault::point("made");
        self.settle_parent(&parent, &mut state, &dir, promise)?;
        drop(state);
        linked?;
        self.follow(&dir, place.name)?;
        let stat = stat_fd(source.as_fd())?;
        let handle = node.handle().cloned();
        let held = handle.is_none().then_some(source);
        Ok(self.answer(call, Found { stat, handle, held })?)
    }

    /// Removes the name of a file that is no directory.
    ///
    /// # Errors
    /// The backing file system's own.
    pub fn unlink(&self, call: Call<'_>, place: Place<'_>) -> FsResult<()> {
        self.remove(call, place, false)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The backing file system's own.
    pub fn rmdir(&self, call: Call<'_>, place: Place<'_>) -> FsResult<()> {
        self.remove(call, place, true)
    }

    fn remove(&self, call: Call<'_>, place: Place<'_>, directory: bool) -> FsResult<()> {
        let parent = self.nodes.get(place.parent)?;
        let dir = self.nodes.descriptor(&parent)?;
        let found = match self.find(dir.as_fd(), place.name) {
            Err(error) if removed_before(call, place, &error) => return Ok(()),
            other => other?,
        };
        let stat = found.stat;
        let victim = self.nodes.intern(found)?;
        let removed = self.remove_found(call, place, directory, (&parent, &dir), (&victim, &stat));
        self.nodes.tidy(&victim);
        removed
    }

    fn remove_found(
        &self,
        call: Call<'_>,
        place: Place<'_>,
        directory: bool,
        (parent, dir): (&Node, &OwnedFd),
        (victim, stat): (&Node, &Stat),
    ) -> FsResult<()> {
        let mut locked = Locked::new([Some(parent), Some(victim)]);
        let _watched = [
            self.accounting.watch(parent, locked.of(parent)),
            self.accounting.watch(victim, locked.of(victim)),
        ];
        let last = directory || stat.nlink <= 1;
        let pin = last
            .then(|| self.pin_if_open(victim, locked.of(victim)))
            .transpose()?
            .flatten();
        self.describe(call, Step::Remove, place, stat.ino);
        if let Err(error) = file::unlink_at(dir, place.name, directory) {
            self.unpin(pin);
            return Err(error.into());
        }
        fault::point("removed");
        if last {
            self.last_name_gone(victim, locked.of(victim), stat, pin);
        }
        self.refresh_parent(parent, locked.of(parent), dir);
        Ok(())
    }

    /// Creates an inode, unless a dead daemon has done so for this very call.
    fn make(
        &self,
        call: Call<'_>,
        place: Place<'_>,
        umask: Option<u32>,
        new: NewInode,
        make: impl FnOnce(&OwnedFd) -> io::Result<Option<OwnedFd>>,
    ) -> FsResult<(Entry, Option<OwnedFd>)> {
        match self.made_before(call, place)? {
            Some(entry) => Ok((entry, None)),
            None => self.add_inode(call, place, umask, new, make),
        }
    }

    /// Creates an inode under a new name and charges it to its owner, with what the directory grew by.
    fn add_inode(
        &self,
        call: Call<'_>,
        place: Place<'_>,
        umask: Option<u32>,
        new: NewInode,
        make: impl FnOnce(&OwnedFd) -> io::Result<Option<OwnedFd>>,
    ) -> FsResult<(Entry, Option<OwnedFd>)> {
        let caller = call.caller;
        let parent = self.nodes.get(place.parent)?;
        let dir = self.nodes.descriptor(&parent)?;
        let mut state = parent.state();
        let mut promise =
            self.promise_name(caller, &parent, &state, &dir, place.name, Some(new))?;
        if !self.is_there(&dir, place) {
            promise.intend(&parent.inode_id(), place.name.as_bytes());
            self.describe(call, Step::Make, place, 0);
        }
        let identity = Self::identity(caller, umask)?;
        let made = make(&dir);
        drop(identity);
        fault::point("made");
        let fd = match made {
            Ok(fd) => fd,
            Err(error) => {
                self.settle_parent(&parent, &mut state, &dir, promise)?;
                return Err(error.into());
            }
        };
        let found = match &fd {
            Some(fd) => self.identify(fd.as_fd()),
            None => self.find(dir.as_fd(), place.name),
        };
        let answered = found.and_then(|found| {
            let after = charged_as(&found.stat);
            Ok((self.answer(call, found)?, Some(after)))
        });
        let (entry, after) = match answered {
            Ok(answered) => answered,
            Err(error) => {
                // It was made but cannot be served (no descriptor left, say): it must not stay behind uncharged.
                let _ = file::unlink_at(&dir, place.name, new.kind == FileKind::Directory);
                self.settle_parent(&parent, &mut state, &dir, promise)?;
                return Err(error.into());
            }
        };
        let seen = stat_fd(dir.as_fd())?;
        let changes = [
            change(&parent, &mut state, Some(&seen)),
            Change {
                inode: entry.node.inode_id(),
                before: None,
                after,
            },
        ];
        self.accounting.settle_changes(promise, &changes);
        state.fresh = Some(Box::new(seen));
        Ok((entry, fd))
    }

    /// Promises what one more name, and the inode behind it, may take.
    pub(super) fn promise_name(
        &self,
        caller: Caller,
        parent: &Node,
        state: &State,
        dir: &OwnedFd,
        name: &OsStr,
        new: Option<NewInode>,
    ) -> FsResult<Reservation> {
        let growth = self.accounting.growth();
        let occupied = state
            .charged
            .map_or(Bytes::ZERO, |charged| charged.usage.space);
        let owner = state.owner().ok_or(FsError::UnknownNode(parent.id()))?;
        let mut worst = self.wants_of_new(caller, parent, state, new, false);
        worst.push(Want::new(owner, Usage::space(growth.directory(occupied))));
        let touched = [(parent.inode_id(), state.charged)];
        self.accounting.reserve(caller, &touched, &worst, || {
            let bare = !xattr::has_default_acl(dir);
            let mut need = self.wants_of_new(caller, parent, state, new, bare);
            let names = dirent::name_lengths(dir, growth.block())?;
            if !growth.fits_one_block(occupied, names.into_iter(), name.as_bytes().len()) {
                need.push(Want::new(owner, Usage::space(growth.directory(occupied))));
            }
            Ok(need)
        })
    }

    pub(super) fn wants_of_new(
        &self,
        caller: Caller,
        parent: &Node,
        state: &State,
        new: Option<NewInode>,
        bare: bool,
    ) -> Wants {
        let mut wants = Wants::new();
        if let Some(NewInode { kind, target }) = new {
            let growth = self.accounting.growth();
            let space = if bare {
                growth.bare_inode(kind, target)
            } else {
                growth.new_inode(kind, target)
            };
            let gid = match state.owner() {
                Some(owner) if parent.passes_on_group() => owner.gid.get(),
                _ => caller.gid,
            };
            wants.push(Want::new(Owner::new(caller.uid, gid), Usage::inode(space)));
        }
        wants
    }

    fn settle_parent(
        &self,
        parent: &Node,
        state: &mut State,
        dir: &OwnedFd,
        promise: Reservation,
    ) -> FsResult<()> {
        let seen = stat_fd(dir.as_fd())?;
        self.accounting.settle(parent, state, promise, &seen);
        state.fresh = Some(Box::new(seen));
        Ok(())
    }

    /// A directory that lost a name may have become smaller.
    fn refresh_parent(&self, parent: &Node, state: &mut State, dir: &OwnedFd) {
        state.fresh = None;
        if let Ok(seen) = stat_fd(dir.as_fd()) {
            self.accounting.record(parent, state, &seen);
            state.fresh = Some(Box::new(seen));
        }
    }

    /// The last name of an inode is gone: it stays charged while it is open, and no longer.
    pub(super) fn last_name_gone(
        &self,
        node: &Node,
        state: &mut State,
        stat: &Stat,
        pin: Option<Pin>,
    ) {
        let fd = self.nodes.take_descriptor(node);
        self.listings.forget(node);
        state.fresh = None;
        if state.open.is_some() {
            state.presence = Presence::Unlinked;
            if let Some(pin) = pin {
                state.pin = Some(pin.fd);
                state.deposit = pin.deposit;
            }
            self.accounting.keep_watch(node, state);
            self.accounting.note_unlinked_open(true);
        } else {
            state.presence = Presence::Gone(Box::new(Stat { nlink: 0, ..*stat }));
            self.accounting.record_gone(node, state);
            let is_small = stat.blocks.bytes().get() <= self.accounting.growth().block();
            if stat.is_dir() && is_small {
                state.pin = fd.and_then(|fd| self.removed.hold(fd));
            }
        }
    }
}
