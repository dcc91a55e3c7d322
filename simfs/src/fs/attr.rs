//! Attributes: getattr and setattr. Truncation and change of owner are quota events.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use quota::{Owner, Usage, Want};

use super::Fs;
use crate::accounting::{Caller, accounts_of_change};
use crate::error::{FsError, FsResult};
use crate::handle::HandleId;
use crate::node::{Node, NodeId, Presence, State};
use crate::sys::file::{self, SetTime};
use crate::sys::stat::{Stat, stat_fd};

/// New values for some attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits and set-id bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Time of last access.
    pub atime: Option<SetTime>,
    /// Time of last change of content.
    pub mtime: Option<SetTime>,
}

impl Fs {
    /// The attributes of an inode, also of one that is gone but still stood in.
    ///
    /// # Errors
    /// ESTALE for an inode that is not known.
    pub fn getattr(&self, id: NodeId) -> FsResult<Stat> {
        let node = self.nodes.get(id)?;
        let fd = {
            let mut state = node.state();
            if let Presence::Gone(last) = &state.presence {
                return Ok(**last);
            }
            if let Some(seen) = state.fresh.take() {
                return Ok(*seen);
            }
            state.pin.clone()
        };
        let fd = match fd {
            Some(pin) => pin,
            None => self.nodes.descriptor(&node)?,
        };
        Ok(stat_fd(fd.as_fd())?)
    }

    /// Whether attributes of this inode may change without a request (stores through a passed-through mapping).
    pub fn attributes_may_drift(&self, id: NodeId) -> bool {
        self.nodes.get(id).is_ok_and(|node| {
            node.state()
                .open
                .as_ref()
                .is_some_and(|open| open.mappers > 0)
        })
    }

    /// Changes attributes and returns the new ones.
    ///
    /// # Errors
    /// EDQUOT where a new owner's account is full; the backing file system's own.
    pub fn setattr(
        &self,
        caller: Caller,
        id: NodeId,
        handle: Option<HandleId>,
        set: SetAttr,
    ) -> FsResult<Stat> {
        let node = self.nodes.get(id)?;
        let mut state = node.state();
        if let Presence::Gone(last) = &state.presence {
            // Nobody can see it again; as on a removed working directory, there is nothing left to change.
            return Ok(**last);
        }
        state.fresh = None;
        let path = match &state.pin {
            Some(pin) => pin.clone(),
            None => self.nodes.descriptor(&node)?,
        };
        let _watch = self.accounting.watch(&node, &state);
        if let Some(size) = set.size {
            self.truncate(caller, &node, &mut state, &path, handle, size)?;
            self.take_setid(caller, &node, &path)?;
        }
        if set == SetAttr::default() {
            // chown(2) with neither id: only the time of change moves, and set-id bits go.
            file::chown(&*path, None, None)?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            self.change_owner(caller, &node, &mut state, &path, set)?;
        }
        if let Some(mode) = set.mode {
            file::chmod(&path, mode)?;
        }
        if set.atime.is_some() || set.mtime.is_some() {
            file::set_times(&path, set.atime, set.mtime)?;
        }
        let seen = stat_fd(path.as_fd())?;
        node.note_mode(&seen);
        self.accounting.record(&node, &mut state, &seen);
        Ok(seen)
    }

    fn truncate(
        &self,
        caller: Caller,
        node: &Arc<Node>,
        state: &mut State,
        path: &OwnedFd,
        handle: Option<HandleId>,
        size: u64,
    ) -> FsResult<()> {
        let open = handle.and_then(|handle| self.files.get(handle).ok());
        let fd = match open {
            Some(open) if open.access.writes() => self.file_descriptor(&open, state)?,
            _ => Arc::new(file::reopen(path, libc::O_WRONLY)?),
        };
        self.nodes.drop_backing(node);
        let before = stat_fd(fd.as_fd())?;
        let mut promise = None;
        if size > before.size {
            self.promise_new_holes(caller, node, state, size - before.size)?;
            let old_end = self.accounting.growth().old_end(before.size, size);
            promise = Some(self.promise_space(caller, node, state, old_end)?);
        }
        // A partial last block is zeroed, not allocated; what it takes in spite of that is recorded below.
        node.cut_dense(size.min(before.size));
        file::truncate(&fd, size)?;
        let seen = stat_fd(fd.as_fd())?;
        match promise {
            Some(promise) => self.accounting.settle(node, state, promise, &seen),
            None => self.accounting.record(node, state, &seen),
        }
        self.accounting.late().push(node, state);
        Ok(())
    }

    /// Set-id bits go with a change of content, unless the caller may keep them.
    pub(super) fn take_setid(&self, caller: Caller, node: &Node, fd: &OwnedFd) -> FsResult<()> {
        if !node.may_have_setid() || self.accounting.may_keep_setid(caller) {
            return Ok(());
        }
        let seen = stat_fd(fd)?;
        let mut mode = seen.mode_without_setid();
        // Without group execution the bit means something else and stays, but not for strangers to the group.
        if mode & libc::S_ISGID != 0 && !self.accounting.may_keep_setgid(caller, seen.owner().gid) {
            mode &= !libc::S_ISGID;
        }
        if mode != seen.permissions() {
            file::chmod(fd, mode)?;
        }
        // Also where it had been done already: a daemon that died may not have come to tell.
        self.forget_attributes(node.id());
        node.note_mode(&stat_fd(fd)?);
        Ok(())
    }

    fn promise_space(
        &self,
        caller: Caller,
        node: &Node,
        state: &State,
        space: quota::Bytes,
    ) -> FsResult<quota::Reservation> {
        let owner = state.owner().ok_or(FsError::UnknownNode(node.id()))?;
        let want = [Want::new(owner, Usage::space(space))];
        let touched = [(node.inode_id(), state.charged)];
        self.accounting.reserve(caller, &touched, &want, || {
            Ok(want.iter().copied().collect())
        })
    }

    fn change_owner(
        &self,
        caller: Caller,
        node: &Node,
        state: &mut State,
        path: &OwnedFd,
        set: SetAttr,
    ) -> FsResult<()> {
        let charged = state.charged.ok_or(FsError::UnknownNode(node.id()))?;
        let from = charged.owner;
        let to = Owner::new(
            set.uid.unwrap_or(from.uid.get()),
            set.gid.unwrap_or(from.gid.get()),
        );
        // What is promised to the old owner ends; the next write asks the new one.
        state.promised = None;
        let want = [Want {
            accounts: accounts_of_change(from, to),
            usage: charged.usage,
        }];
        let touched = [(node.inode_id(), state.charged)];
        let promise = self.accounting.reserve(caller, &touched, &want, || {
            Ok(want.iter().copied().collect())
        })?;
        file::chown(path, set.uid, set.gid)?;
        let seen = stat_fd(path.as_fd())?;
        self.accounting.settle(node, state, promise, &seen);
        Ok(())
    }

    /// Where a mapping stores into the backing file unseen, new holes are promised when they are made.
    pub(super) fn promise_new_holes(
        &self,
        caller: Caller,
        node: &Node,
        state: &mut State,
        length: u64,
    ) -> FsResult<()> {
        if state.open.as_ref().is_none_or(|open| open.mappers == 0) {
            return Ok(());
        }
        let owner = state.owner().ok_or(FsError::UnknownNode(node.id()))?;
        let usage = Usage::space(self.accounting.growth().data(0, length));
        let want = [Want::new(owner, usage)];
        let promise = self
            .accounting
            .reserve(caller, &[], &want, || Ok(want.iter().copied().collect()))?;
        if let Some(open) = &mut state.open {
            open.promise(Some(promise));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::super::Call;
    use super::super::Place;
    use super::super::testbed::{Bed, PLAIN, ROOT, at};
    use super::*;
    use crate::sys::file::{RenameFlags, open_dir_path};

    const MARK: &str = "user.mark";

    fn mkdir(fs: &Fs, call: Call<'_>, place: Place<'_>) -> NodeId {
        fs.mkdir(call, place, 0o755, 0).unwrap().node.id()
    }

    fn rename(fs: &Fs, call: Call<'_>, from: Place<'_>, to: Place<'_>, flags: RenameFlags) {
        fs.rename(call, from, to, flags).unwrap();
    }

    fn set(fs: &Fs, id: NodeId, set: SetAttr) {
        fs.setattr(ROOT, id, None, set).unwrap();
    }

    /// What can change attributes of directory `d` after a name in it was made: with a look at "d", or where it is then.
    type Act = fn(&Fs, Call<'_>, NodeId) -> &'static str;

    const ACTS: [(&str, Act); 11] = [
        ("nothing", |_, _, _| "d"),
        ("mkdir", |fs, call, d| {
            mkdir(
                fs,
                call,
                Place {
                    parent: d,
                    ..at("more")
                },
            );
            "d"
        }),
        ("rmdir", |fs, call, d| {
            fs.rmdir(
                call,
                Place {
                    parent: d,
                    ..at("in")
                },
            )
            .unwrap();
            "d"
        }),
        ("link", |fs, call, d| {
            let file = fs.lookup(call, at("file")).unwrap().node.id();
            fs.link(
                call,
                file,
                Place {
                    parent: d,
                    ..at("l")
                },
            )
            .unwrap();
            "d"
        }),
        ("chmod", |fs, _, d| {
            let mode = Some(0o711);
            set(
                fs,
                d,
                SetAttr {
                    mode,
                    ..SetAttr::default()
                },
            );
            "d"
        }),
        ("chown", |fs, _, d| {
            let uid = Some(7);
            set(
                fs,
                d,
                SetAttr {
                    uid,
                    ..SetAttr::default()
                },
            );
            "d"
        }),
        ("set an attribute", |fs, call, d| {
            fs.setxattr(call, d, OsStr::new(MARK), b"1", PLAIN).unwrap();
            "d"
        }),
        ("remove an attribute", |fs, call, d| {
            fs.removexattr(call, d, OsStr::new("user.old")).unwrap();
            "d"
        }),
        ("rename the directory", |fs, call, _| {
            rename(fs, call, at("d"), at("e"), RenameFlags::empty());
            "e"
        }),
        ("exchange it", |fs, call, _| {
            rename(fs, call, at("file"), at("d"), RenameFlags::EXCHANGE);
            "file"
        }),
        ("rename in it", |fs, call, d| {
            let from = Place {
                parent: d,
                ..at("in")
            };
            let to = Place {
                parent: d,
                ..at("out")
            };
            rename(fs, call, from, to, RenameFlags::empty());
            "d"
        }),
    ];

    /// The kernel keeps what it is told for good.
    #[test]
    fn what_a_directory_is_said_to_look_like_is_what_it_looks_like() {
        let mut wrong = Vec::new();
        for (what, act) in ACTS {
            let mut bed = Bed::new();
            std::fs::write(bed.dir.path().join("file"), b"x").unwrap();
            let shown = bed.ask(|fs, call| {
                let d = mkdir(fs, call, at("d"));
                fs.setxattr(call, d, OsStr::new("user.old"), b"1", PLAIN)
                    .unwrap();
                mkdir(
                    fs,
                    call,
                    Place {
                        parent: d,
                        ..at("in")
                    },
                );
                // Times are those of the kernel's tick.
                std::thread::sleep(std::time::Duration::from_millis(20));
                let is_now = act(fs, call, d);
                (is_now, fs.getattr(d).unwrap())
            });
            let now = open_dir_path(&bed.dir.path().join(shown.0)).unwrap();
            let seen = Stat {
                // The private area is seen through a mount of its own.
                mount: shown.1.mount,
                ..stat_fd(&now).unwrap()
            };
            if shown.1 != seen {
                wrong.push((what, shown.1, seen));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// An inode without a name has no links, whatever it looked like before.
    #[test]
    fn a_removed_directory_has_no_links() {
        let mut bed = Bed::new();
        bed.ask(|fs, call| {
            let d = mkdir(fs, call, at("d"));
            mkdir(
                fs,
                call,
                Place {
                    parent: d,
                    ..at("in")
                },
            );
            fs.rmdir(
                call,
                Place {
                    parent: d,
                    ..at("in")
                },
            )
            .unwrap();
            fs.rmdir(call, at("d")).unwrap();
            assert_eq!(fs.getattr(d).unwrap().nlink, 0);
        });
    }

    #[test]
    fn what_was_seen_is_told_once() {
        let mut bed = Bed::new();
        let root = bed.dir.path().to_owned();
        bed.ask(|fs, call| {
            let d = mkdir(fs, call, at("d"));
            mkdir(
                fs,
                call,
                Place {
                    parent: d,
                    ..at("in")
                },
            );
            let first = fs.getattr(d).unwrap();
            std::fs::create_dir(root.join("d/behind")).unwrap();
            assert_eq!(fs.getattr(d).unwrap().nlink, first.nlink + 1);
        });
    }
}
