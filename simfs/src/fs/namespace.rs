//! Names: lookup, create, mkdir, mknod, symlink, link, unlink, rmdir, rename.
//!
//! The kernel holds the directory's inode lock over each request that changes names in it, and the victim's over
//! unlink and rename. The states of all nodes whose usage changes are locked from the promise to the settlement.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use quota::{Bytes, Change, Owner, Reservation, Usage, Want, Watch};

use super::{Entry, Fs};
use crate::accounting::{Caller, Wants, change, charged_as};
use crate::error::{FsError, FsResult};
use crate::handle::HandleId;
use crate::node::{Found, Locked, Node, NodeId, Presence, State};
use crate::sys::file::{self, RenameFlags};
use crate::sys::stat::{FileKind, Stat, stat_at, stat_fd};
use crate::sys::xattr;

use super::data::{BackingMaker, Opened, own_flags};

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The directory.
    pub parent: NodeId,
    /// The name.
    pub name: &'a OsStr,
}

/// What a new inode is to be.
#[derive(Clone, Copy, Debug)]
struct NewInode {
    kind: FileKind,
    /// Length of a symbolic link's target.
    target: u64,
}

impl Fs {
    /// Looks a name up; "." is the directory itself and ".." its parent, never beyond the root.
    ///
    /// # Errors
    /// ENOENT and the like from the backing file system.
    pub fn lookup(&self, place: Place<'_>) -> FsResult<Entry> {
        let parent = self.nodes.get(place.parent)?;
        if place.name == "." || (place.name == ".." && parent.id() == NodeId::ROOT) {
            let found = self.identify(self.nodes.descriptor(&parent)?.as_fd())?;
            return Ok(self.entry(found));
        }
        let dir = self.nodes.descriptor(&parent)?;
        let found = self.find(dir.as_fd(), place.name)?;
        Ok(self.entry(found))
    }

    pub(super) fn entry(&self, found: Found) -> Entry {
        let stat = found.stat;
        let node = self.nodes.look_up(found);
        Entry { node, stat }
    }

    /// Creates and opens a file.
    ///
    /// # Errors
    /// EDQUOT by the account that is full; the backing file system's own.
    pub fn create(
        &self,
        caller: Caller,
        place: Place<'_>,
        mode: u32,
        umask: u32,
        flags: i32,
        backing: &mut BackingMaker<'_>,
    ) -> FsResult<(Entry, HandleId, Opened)> {
        self.check_descriptors()?;
        let new = NewInode {
            kind: FileKind::File,
            target: 0,
        };
        let (entry, fd) = self.add_inode(caller, place, umask, new, |dir| {
            let fd = file::create_at(dir, place.name, own_flags(flags), mode)?;
            Ok(Some(fd))
        })?;
        let (handle, opened) = self.open_new(&entry.node, flags, fd, backing)?;
        Ok((entry, handle, opened))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn mkdir(
        &self,
        caller: Caller,
        place: Place<'_>,
        mode: u32,
        umask: u32,
    ) -> FsResult<Entry> {
        let new = NewInode {
            kind: FileKind::Directory,
            target: 0,
        };
        let (entry, _) = self.add_inode(caller, place, umask, new, |dir| {
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
        caller: Caller,
        place: Place<'_>,
        mode: u32,
        umask: u32,
        device: u64,
    ) -> FsResult<Entry> {
        let new = NewInode {
            kind: FileKind::from_mode(mode),
            target: 0,
        };
        let (entry, _) = self.add_inode(caller, place, umask, new, |dir| {
            file::mknod_at(dir, place.name, mode, device).map(|()| None)
        })?;
        Ok(entry)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn symlink(&self, caller: Caller, place: Place<'_>, target: &OsStr) -> FsResult<Entry> {
        let length = u64::try_from(target.len()).map_err(|_| FsError::Invalid)?;
        let new = NewInode {
            kind: FileKind::Symlink,
            target: length,
        };
        let (entry, _) = self.add_inode(caller, place, 0, new, |dir| {
            file::symlink_at(target, dir, place.name).map(|()| None)
        })?;
        Ok(entry)
    }

    /// Gives a file one more name.
    ///
    /// # Errors
    /// EDQUOT where the directory would have to grow and may not; the backing file system's own.
    pub fn link(&self, caller: Caller, id: NodeId, place: Place<'_>) -> FsResult<Entry> {
        let node = self.nodes.get(id)?;
        let parent = self.nodes.get(place.parent)?;
        let dir = self.nodes.descriptor(&parent)?;
        let source = self.nodes.descriptor(&node)?;
        let mut state = parent.state();
        let promise = self.promise_name(caller, &parent, &state, &dir, place.name, None)?;
        let linked = file::link_fd(&source, &dir, place.name);
        self.settle_parent(&parent, &mut state, &dir, promise)?;
        drop(state);
        linked?;
        self.follow(&dir, place.name)?;
        let stat = stat_fd(source.as_fd())?;
        let handle = node.handle().cloned();
        let held = handle.is_none().then_some(source);
        Ok(self.entry(Found { stat, handle, held }))
    }

    /// Removes the name of a file that is no directory.
    ///
    /// # Errors
    /// The backing file system's own.
    pub fn unlink(&self, place: Place<'_>) -> FsResult<()> {
        self.remove(place, false)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The backing file system's own.
    pub fn rmdir(&self, place: Place<'_>) -> FsResult<()> {
        self.remove(place, true)
    }

    fn remove(&self, place: Place<'_>, directory: bool) -> FsResult<()> {
        let parent = self.nodes.get(place.parent)?;
        let dir = self.nodes.descriptor(&parent)?;
        let found = self.find(dir.as_fd(), place.name)?;
        let stat = found.stat;
        let victim = self.nodes.intern(found);
        {
            let mut locked = Locked::new([Some(&parent), Some(&victim)]);
            let _watched = [
                self.accounting.watch(&parent, locked.of(&parent)),
                self.accounting.watch(&victim, locked.of(&victim)),
            ];
            let last = directory || stat.nlink <= 1;
            let pin = last
                .then(|| self.pin_if_open(&victim, locked.of(&victim)))
                .transpose()?;
            file::unlink_at(&dir, place.name, directory)?;
            if last {
                self.last_name_gone(&victim, locked.of(&victim), &stat, pin.flatten());
            }
            self.refresh_parent(&parent, locked.of(&parent), &dir);
        }
        self.nodes.tidy(&victim);
        Ok(())
    }

    /// Renames, as renameat2(2) does.
    ///
    /// # Errors
    /// EDQUOT where the target directory would have to grow and may not; the backing file system's own.
    pub fn rename(
        &self,
        caller: Caller,
        from: Place<'_>,
        to: Place<'_>,
        flags: RenameFlags,
    ) -> FsResult<()> {
        let old_parent = self.nodes.get(from.parent)?;
        let new_parent = self.nodes.get(to.parent)?;
        let old_dir = self.nodes.descriptor(&old_parent)?;
        let new_dir = self.nodes.descriptor(&new_parent)?;
        let source = stat_at(old_dir.as_fd(), from.name)?;
        let victim = self.victim_of_rename(&new_dir, to.name, &source, flags)?;
        let _source = self.watch_source(&old_dir, from.name, flags)?;
        {
            let victim_node = victim.as_ref().map(|(node, _)| &**node);
            let mut locked = Locked::new([Some(&*old_parent), Some(&*new_parent), victim_node]);
            let _watched: smallvec::SmallVec<[_; 3]> =
                [Some(&*old_parent), Some(&*new_parent), victim_node]
                    .into_iter()
                    .flatten()
                    .map(|node| self.accounting.watch(node, locked.of(node)))
                    .collect();
            let pin = match &victim {
                Some((node, _)) => self.pin_if_open(node, locked.of(node))?,
                None => None,
            };
            let mut promise =
                self.promise_rename(caller, (&new_parent, &new_dir), to.name, &mut locked, flags)?;
            if flags.contains(RenameFlags::WHITEOUT) {
                promise.intend(&old_parent.inode_id(), from.name.as_bytes());
            }
            // Only the whiteout is made, and must not be made for somebody whom the request does not name.
            let is_needed = flags.contains(RenameFlags::WHITEOUT) || caller.is_named();
            let identity = is_needed.then(|| Self::identity(caller, 0)).transpose()?;
            let renamed = file::rename_at(&old_dir, from.name, &new_dir, to.name, flags);
            drop(identity);
            if renamed.is_ok()
                && let Some((node, stat)) = &victim
            {
                self.last_name_gone(node, locked.of(node), stat, pin);
            }
            let whiteout = if renamed.is_ok() && flags.contains(RenameFlags::WHITEOUT) {
                Some(self.find(old_dir.as_fd(), from.name)?)
            } else {
                None
            };
            self.settle_rename(
                promise,
                &mut locked,
                whiteout,
                &[(&old_parent, &old_dir), (&new_parent, &new_dir)],
            )?;
            renamed?;
        }
        self.follow(&new_dir, to.name)?;
        if flags.contains(RenameFlags::EXCHANGE) {
            self.follow(&old_dir, from.name)?;
        }
        if let Some((node, _)) = victim {
            self.nodes.tidy(&node);
        }
        Ok(())
    }

    /// Where a rename leaves a new inode under the old name, the journal must know the one that is there before.
    fn watch_source(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        flags: RenameFlags,
    ) -> io::Result<Option<Watch>> {
        if !flags.contains(RenameFlags::WHITEOUT) {
            return Ok(None);
        }
        let node = self.nodes.intern(self.find(dir.as_fd(), name)?);
        let watch = self.accounting.watch(&node, &node.state());
        self.nodes.tidy(&node);
        Ok(Some(watch))
    }

    /// The inode whose last name a rename removes.
    fn victim_of_rename(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        source: &Stat,
        flags: RenameFlags,
    ) -> FsResult<Option<(Arc<Node>, Stat)>> {
        if flags.intersects(RenameFlags::EXCHANGE | RenameFlags::NOREPLACE) {
            return Ok(None);
        }
        let found = match self.find(dir.as_fd(), name) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let last = found.stat.nlink <= 1 || found.stat.kind() == FileKind::Directory;
        if !last || found.stat.ino == source.ino {
            return Ok(None);
        }
        let stat = found.stat;
        Ok(Some((self.nodes.intern(found), stat)))
    }

    fn promise_rename(
        &self,
        caller: Caller,
        (parent, dir): (&Node, &OwnedFd),
        name: &OsStr,
        locked: &mut Locked<'_>,
        flags: RenameFlags,
    ) -> FsResult<Reservation> {
        let whiteout = flags.contains(RenameFlags::WHITEOUT).then_some(NewInode {
            kind: FileKind::CharDevice,
            target: 0,
        });
        if flags.contains(RenameFlags::EXCHANGE) || file::exists_at(dir, name) {
            // The entry is there already: no directory grows.
            let wants = self.wants_of_new(caller, parent, locked.of(parent), whiteout, true);
            return self
                .accounting
                .reserve(caller, &[], &wants, || Ok(wants.clone()));
        }
        self.promise_name(caller, parent, locked.of(parent), dir, name, whiteout)
    }

    fn settle_rename(
        &self,
        promise: Reservation,
        locked: &mut Locked<'_>,
        whiteout: Option<Found>,
        parents: &[(&Arc<Node>, &OwnedFd); 2],
    ) -> FsResult<()> {
        let mut changes: smallvec::SmallVec<[Change; 3]> = smallvec::SmallVec::new();
        if let Some(found) = whiteout {
            let after = Some(charged_as(&found.stat));
            let node = self.nodes.intern(found);
            changes.push(Change {
                inode: node.inode_id(),
                before: None,
                after,
            });
            self.nodes.tidy(&node);
        }
        for (node, dir) in parents {
            let seen = stat_fd(dir.as_fd())?;
            changes.push(change(node, locked.of(node), Some(&seen)));
        }
        self.accounting.settle_changes(promise, &changes);
        Ok(())
    }

    /// Creates an inode under a new name and charges it to its owner, with what the directory grew by.
    fn add_inode(
        &self,
        caller: Caller,
        place: Place<'_>,
        umask: u32,
        new: NewInode,
        make: impl FnOnce(&OwnedFd) -> io::Result<Option<OwnedFd>>,
    ) -> FsResult<(Entry, Option<OwnedFd>)> {
        let parent = self.nodes.get(place.parent)?;
        let dir = self.nodes.descriptor(&parent)?;
        let mut state = parent.state();
        let mut promise =
            self.promise_name(caller, &parent, &state, &dir, place.name, Some(new))?;
        if !file::exists_at(&dir, place.name) {
            promise.intend(&parent.inode_id(), place.name.as_bytes());
        }
        let identity = Self::identity(caller, umask)?;
        let made = make(&dir);
        drop(identity);
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
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                // It was made but cannot be served (no descriptor left, say): it must not stay behind uncharged.
                let _ = file::unlink_at(&dir, place.name, new.kind == FileKind::Directory);
                self.settle_parent(&parent, &mut state, &dir, promise)?;
                return Err(error.into());
            }
        };
        let after = Some(charged_as(&found.stat));
        let entry = self.entry(found);
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
        Ok((entry, fd))
    }

    /// Promises what one more name, and the inode behind it, may take.
    fn promise_name(
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
            let names = super::dir::name_lengths(dir, growth.block())?;
            if !growth.fits_one_block(occupied, names.into_iter(), name.as_bytes().len()) {
                need.push(Want::new(owner, Usage::space(growth.directory(occupied))));
            }
            Ok(need)
        })
    }

    fn wants_of_new(
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
        Ok(())
    }

    /// A directory that lost a name may have become smaller.
    fn refresh_parent(&self, parent: &Node, state: &mut State, dir: &OwnedFd) {
        if let Ok(seen) = stat_fd(dir.as_fd()) {
            self.accounting.record(parent, state, &seen);
        }
    }

    /// A descriptor that keeps an open file in being when its last name goes.
    fn pin_if_open(&self, node: &Node, state: &State) -> io::Result<Option<Arc<OwnedFd>>> {
        state
            .open
            .as_ref()
            .map(|_| self.nodes.descriptor(node))
            .transpose()
    }

    /// The last name of an inode is gone: it stays charged while it is open, and no longer.
    fn last_name_gone(
        &self,
        node: &Node,
        state: &mut State,
        stat: &Stat,
        pin: Option<Arc<OwnedFd>>,
    ) {
        self.nodes.drop_descriptor(node);
        if state.open.is_some() {
            state.presence = Presence::Unlinked;
            state.pin = pin;
            self.accounting.keep_watch(node, state);
            self.accounting.note_unlinked_open(true);
        } else {
            state.presence = Presence::Gone(Box::new(Stat { nlink: 0, ..*stat }));
            self.accounting.record_gone(node, state);
        }
    }
}
