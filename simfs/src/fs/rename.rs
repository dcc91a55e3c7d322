//! Rename: a name moves, takes the place of another, changes places with it, or leaves a whiteout.
//!
//! Locks and notes are those of [`super::namespace`].

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use quota::{Change, Reservation, Watch};

use super::again::renamed_before;
use super::namespace::NewInode;
use super::{Call, Fs, Place};
use crate::accounting::{Caller, change, charged_as};
use crate::error::FsResult;
use crate::fault;
use crate::node::{Found, Locked, Node};
use crate::sys::file::{self, RenameFlags};
use crate::sys::stat::{FileKind, Stat, stat_at, stat_fd};

/// What a rename finds under the name to which it leads.
#[derive(Debug, Default)]
struct Target {
    /// The inode, where there is one.
    ino: Option<u64>,
    /// The same where the rename takes its last name.
    victim: Option<(Arc<Node>, Stat)>,
}

impl Fs {
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
        let target = self.target_of_rename(&new_dir, to.name, &source, flags)?;
        let renamed = self.rename_over(
            call,
            (from, &old_parent, &old_dir),
            (to, &new_parent, &new_dir),
            (source.ino, &target),
            flags,
        );
        for moved in std::iter::once(source.ino).chain(target.ino) {
            self.forget_times(moved);
        }
        if let Some((node, _)) = target.victim {
            self.nodes.tidy(&node);
        }
        renamed?;
        // It may have been looked up and found missing: that is over.
        let _was_missing = self.absent.take(to);
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
        (source, target): (u64, &Target),
        flags: RenameFlags,
    ) -> FsResult<()> {
        let _source = self.watch_source(old_dir, from.name, flags)?;
        let victim = target.victim.as_ref();
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
            (to.name, target),
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
            .then(|| Self::identity(call.caller, None))
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

    /// What a directory looked like before it was moved is not what it looks like now.
    fn forget_times(&self, ino: u64) {
        if let Some(node) = self.nodes.known(ino)
            && node.kind() == FileKind::Directory
        {
            node.state().fresh = None;
        }
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

    /// What a rename finds where it leads.
    fn target_of_rename(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        source: &Stat,
        flags: RenameFlags,
    ) -> FsResult<Target> {
        let is_kept = flags.intersects(RenameFlags::EXCHANGE | RenameFlags::NOREPLACE);
        let found = match self.find(dir.as_fd(), name) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Target::default()),
            Err(error) => return Err(error.into()),
        };
        let stat = found.stat;
        let is_last = stat.nlink <= 1 || stat.kind() == FileKind::Directory;
        let victim = if !is_kept && is_last && stat.ino != source.ino {
            Some((self.nodes.intern(found)?, stat))
        } else {
            None
        };
        let ino = Some(stat.ino);
        Ok(Target { ino, victim })
    }

    fn promise_rename(
        &self,
        caller: Caller,
        (parent, dir): (&Node, &OwnedFd),
        (name, target): (&OsStr, &Target),
        locked: &mut Locked<'_>,
        flags: RenameFlags,
    ) -> FsResult<Reservation> {
        let whiteout = flags.contains(RenameFlags::WHITEOUT).then_some(NewInode {
            kind: FileKind::CharDevice,
            target: 0,
        });
        if flags.contains(RenameFlags::EXCHANGE) || target.ino.is_some() {
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
        let [(old, _), (new, _)] = parents;
        let is_one = Arc::ptr_eq(old, new);
        for (node, dir) in parents.iter().skip(usize::from(is_one)) {
            let seen = stat_fd(dir.as_fd())?;
            let state = locked.of(node);
            changes.push(change(node, state, Some(&seen)));
            state.fresh = Some(Box::new(seen));
        }
        self.accounting.settle_changes(promise, &changes);
        Ok(())
    }
}
