//! Names: lookup, create, mkdir, mknod, symlink, link, unlink, rmdir, rename.
//!
//! The kernel holds the directory's inode lock over each request that changes names in it, and the victim's over
//! unlink and rename. The states of all nodes whose usage changes are locked from the promise to the settlement.
//! Before its system call each of these says what it is about to do, so that a successor can tell whether it was done:
//! see [`super::again`].

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use quota::{Bytes, Change, Owner, Reservation, Usage, Want, Watch};

use super::{Call, Entry, Fs};
use crate::accounting::{Caller, Wants, change, charged_as};
use crate::error::{FsError, FsResult};
use crate::fault;
use crate::handle::HandleId;
use crate::node::{Found, Locked, Node, NodeId, Presence, State};
use crate::shared::flights::Step;
use crate::sys::file::{self, RenameFlags};
use crate::sys::stat::{FileKind, Stat, stat_at, stat_fd};
use crate::sys::xattr;

use super::again::{removed_before, renamed_before};
use super::data::{BackingMaker, Opened, own_flags};
use super::pin::Pin;

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
    pub fn lookup(&self, call: Call<'_>, place: Place<'_>) -> FsResult<Entry> {
        let parent = self.nodes.get(place.parent)?;
        if place.name == "." || (place.name == ".." && parent.id() == NodeId::ROOT) {
            let found = self.identify(self.nodes.descriptor(&parent)?.as_fd())?;
            return Ok(self.answer(call, found)?);
        }
        let dir = self.nodes.descriptor(&parent)?;
        let found = self.find(dir.as_fd(), place.name)?;
        Ok(self.answer(call, found)?)
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
                let path = self.nodes.descriptor(&entry.node)?;
                let fd = file::reopen(&path, own_flags(flags))?;
                (entry, Some(fd))
            }
            None => self.add_inode(call, place, umask, new, |dir| {
                let fd = file::create_at(dir, place.name, own_flags(flags), mode)?;
                Ok(Some(fd))
            })?,
        };
        let (handle, opened) = self
            .open_new(call, room, &entry.node, flags, fd, backing)
            .inspect_err(|_| self.nodes.forget(entry.node.id(), 1))?;
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
        let (entry, _) = self.make(call, place, umask, new, |dir| {
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
        let (entry, _) = self.make(call, place, umask, new, |dir| {
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
        let (entry, _) = self.make(call, place, 0, new, |dir| {
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
        if !file::exists_at(&dir, place.name) {
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

    /// Renames, as renameat2(2) does.
    ///
    /// # Errors
    /// EDQUOT where the target directory would have to grow and may not; the backing file system's own.
    pub fn rename(
        &self,
        call: Call<'_>,
        from: Place<'_>,
        to: Place<'_>,
        flags: RenameFlags,
    ) -> FsResult<()> {
        let old_parent = self.nodes.get(from.parent)?;
        let new_parent = self.nodes.get(to.parent)?;
        let old_dir = self.nodes.descriptor(&old_parent)?;
        let new_dir = self.nodes.descriptor(&new_parent)?;
        if renamed_before(call, (from, &old_dir), (to, &new_dir)) {
            return Ok(());
        }
        let source = stat_at(old_dir.as_fd(), from.name)?;
        let victim = self.victim_of_rename(&new_dir, to.name, &source, flags)?;
        let renamed = self.rename_over(
            call,
            (from, &old_parent, &old_dir),
            (to, &new_parent, &new_dir),
            (source.ino, victim.as_ref()),
            flags,
        );
        if let Some((node, _)) = victim {
            self.nodes.tidy(&node);
        }
        renamed?;
        self.follow(&new_dir, to.name)?;
        if flags.contains(RenameFlags::EXCHANGE) {
            self.follow(&old_dir, from.name)?;
        }
        Ok(())
    }

    fn rename_over(
        &self,
        call: Call<'_>,
        (from, old_parent, old_dir): (Place<'_>, &Arc<Node>, &OwnedFd),
        (to, new_parent, new_dir): (Place<'_>, &Arc<Node>, &OwnedFd),
        (source, victim): (u64, Option<&(Arc<Node>, Stat)>),
        flags: RenameFlags,
    ) -> FsResult<()> {
        let _source = self.watch_source(old_dir, from.name, flags)?;
        let victim_node = victim.map(|(node, _)| &**node);
        let mut locked = Locked::new([Some(&**old_parent), Some(&**new_parent), victim_node]);
        let _watched: smallvec::SmallVec<[_; 3]> =
            [Some(&**old_parent), Some(&**new_parent), victim_node]
                .into_iter()
                .flatten()
                .map(|node| self.accounting.watch(node, locked.of(node)))
                .collect();
        let mut promise = self.promise_rename(
            call.caller,
            (new_parent, new_dir),
            to.name,
            &mut locked,
            flags,
        )?;
        let pin = match victim {
            Some((node, _)) => self.pin_if_open(node, locked.of(node))?,
            None => None,
        };
        if flags.contains(RenameFlags::WHITEOUT) {
            promise.intend(&old_parent.inode_id(), from.name.as_bytes());
        }
        self.describe_rename(call, (from, source), to, flags);
        // Only the whiteout is made, and must not be made for somebody whom the request does not name.
        let is_needed = flags.contains(RenameFlags::WHITEOUT) || call.caller.is_named();
        let renamed = is_needed
            .then(|| Self::identity(call.caller, 0))
            .transpose()
            .and_then(|_identity| file::rename_at(old_dir, from.name, new_dir, to.name, flags));
        fault::point("renamed");
        match victim {
            Some((node, stat)) if renamed.is_ok() => {
                self.last_name_gone(node, locked.of(node), stat, pin);
            }
            _ => self.unpin(pin),
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
            &[(old_parent, old_dir), (new_parent, new_dir)],
        )?;
        Ok(renamed?)
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
        let node = self.nodes.intern(self.find(dir.as_fd(), name)?)?;
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
        Ok(Some((self.nodes.intern(found)?, stat)))
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
            changes.push(Change {
                inode: found.inode_id(),
                before: None,
                after: Some(charged_as(&found.stat)),
            });
        }
        for (node, dir) in parents {
            let seen = stat_fd(dir.as_fd())?;
            changes.push(change(node, locked.of(node), Some(&seen)));
        }
        self.accounting.settle_changes(promise, &changes);
        Ok(())
    }

    /// Creates an inode, unless a dead daemon has done so for this very call.
    fn make(
        &self,
        call: Call<'_>,
        place: Place<'_>,
        umask: u32,
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
        umask: u32,
        new: NewInode,
        make: impl FnOnce(&OwnedFd) -> io::Result<Option<OwnedFd>>,
    ) -> FsResult<(Entry, Option<OwnedFd>)> {
        let caller = call.caller;
        let parent = self.nodes.get(place.parent)?;
        let dir = self.nodes.descriptor(&parent)?;
        let mut state = parent.state();
        let mut promise =
            self.promise_name(caller, &parent, &state, &dir, place.name, Some(new))?;
        if !file::exists_at(&dir, place.name) {
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

    /// The last name of an inode is gone: it stays charged while it is open, and no longer.
    fn last_name_gone(&self, node: &Node, state: &mut State, stat: &Stat, pin: Option<Pin>) {
        self.nodes.drop_descriptor(node);
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
        }
    }
}
