//! File data: open, read, copy_file_range, lseek, fsync. Writes are in [`super::write`], fallocate in `allocate.rs`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use quota::{Usage, Want};

use super::append::{append_flag, may_pass_through};
use super::policy::{Decision, decide};
use super::spare::spare_for;
use super::{Call, Entry, Fs};
use crate::accounting::Caller;
use crate::accounting::data::{DataRange, Holes, Least};
use crate::error::{FsError, FsResult};
use crate::fault;
use crate::handle::{HandleId, OpenFile};
use crate::node::{Node, NodeId, Presence, State};
use crate::open::{Access, Backing, BackingToken, IoMode, OpenState};
use crate::shared::HandleRoom;
use crate::sys::file;
use crate::sys::stat::{Stat, stat_fd};

/// Registers a backing file with the kernel, for passthrough.
pub type BackingMaker<'a> = dyn FnMut(BorrowedFd<'_>) -> io::Result<Arc<dyn BackingToken>> + 'a;

/// Flags of open(2) that the daemon's own descriptor gets too, beside the access mode. O_DIRECT it must not have, nor O_APPEND
/// unless the file can be opened no other way ([`super::append`]): the kernel says where each write goes, a guest can change
/// both later, and requests lie at any address.
pub(super) const KEPT_OPEN_FLAGS: i32 = libc::O_NOATIME;

/// The flags with which the daemon makes a file that a guest creates with these.
pub(super) fn own_flags(flags: i32) -> i32 {
    flags & (libc::O_ACCMODE | KEPT_OPEN_FLAGS)
}

/// What a handle is for.
#[derive(Clone, Copy, Debug)]
struct How {
    access: Access,
    /// Whether its file could be opened for appending only.
    appends: bool,
    /// Whether each change is to be on the disk before it is answered.
    sync: bool,
}

impl How {
    /// As these flags of open(2) say, and not for appending only.
    fn plain(flags: i32) -> Self {
        Self {
            access: Access::from_flags(flags),
            appends: false,
            // O_SYNC has the bit of O_DSYNC.
            sync: flags & libc::O_DSYNC != 0,
        }
    }
}

/// How the kernel is to treat a new handle.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Reads and mappings go to this backing file.
    pub backing: Option<Arc<dyn BackingToken>>,
    /// read(2) and write(2) come to the daemon, uncached.
    pub direct: bool,
    /// What the kernel has cached of the file is still right.
    pub keep_cache: bool,
}

impl Fs {
    /// Opens a file.
    ///
    /// # Errors
    /// ESTALE for a file that is gone; EDQUOT where holes of a mapping would have to be promised and do not fit.
    pub fn open(
        &self,
        call: Call<'_>,
        id: NodeId,
        flags: i32,
        backing: &mut BackingMaker<'_>,
    ) -> FsResult<(HandleId, Opened)> {
        let caller = call.caller;
        let node = self.nodes.get(id)?;
        let access = Access::from_flags(flags);
        let mut state = node.state();
        if matches!(state.presence, Presence::Gone(_)) {
            return Err(FsError::UnknownNode(id));
        }
        let room = self.files.make_room()?;
        if access == Access::Read
            && flags & libc::O_TRUNC == 0
            && let Some(opened) = self.open_again(&node, &mut state)
        {
            let handle = self.insert_file(call, room, &node, (How::plain(flags), None), &opened);
            return Ok((handle, opened));
        }
        self.check_descriptors()?;
        let path = match &state.pin {
            Some(pin) => pin.clone(),
            None => self.nodes.descriptor(&node)?,
        };
        let fd = if flags & libc::O_TRUNC != 0 {
            let fd = Arc::new(file::reopen(&path, access_or_write(access).flag())?);
            self.truncate_open(&node, &mut state, &fd)?;
            self.take_setid(caller, &node, &fd)?;
            Some(fd)
        } else {
            None
        };
        let seen = stat_fd(path.as_fd())?;
        let append = append_flag(flags, &seen);
        let opened = self.admit(caller, &node, &mut state, access, &seen, &path, backing)?;
        let fd = match fd {
            Some(fd) => Some(fd),
            // Errors of opening (an executable in use, an append-only file) belong to open(2), not to the first write.
            None if access.writes() || opened.backing.is_none() => {
                match file::reopen(&path, access.flag() | append | (flags & KEPT_OPEN_FLAGS)) {
                    Ok(fd) => Some(Arc::new(fd)),
                    Err(error) => {
                        self.dismiss(&node, &mut state, access, opened.backing.is_some());
                        return Err(error.into());
                    }
                }
            }
            None => None,
        };
        let how = How {
            appends: append != 0,
            ..How::plain(flags)
        };
        let handle = self.insert_file(call, room, &node, (how, fd), &opened);
        Ok((handle, opened))
    }

    /// The handle of a file that was just created.
    pub(super) fn open_new(
        &self,
        call: Call<'_>,
        room: HandleRoom<'_>,
        Entry { node, stat }: &Entry,
        flags: i32,
        fd: Option<OwnedFd>,
        backing: &mut BackingMaker<'_>,
    ) -> FsResult<(HandleId, Opened)> {
        let access = Access::from_flags(flags);
        let fd = fd.ok_or(FsError::Invalid)?;
        let mut state = node.state();
        let nobody = Caller {
            uid: 0,
            gid: 0,
            pid: 0,
        };
        let opened = self.admit(nobody, node, &mut state, access, stat, &fd, backing)?;
        let fd = Some(Arc::new(fd));
        let handle = self.insert_file(call, room, node, (How::plain(flags), fd), &opened);
        Ok((handle, opened))
    }

    /// Gives a handle that was counted in its number.
    fn insert_file(
        &self,
        call: Call<'_>,
        room: HandleRoom<'_>,
        node: &Arc<Node>,
        (how, fd): (How, Option<Arc<OwnedFd>>),
        opened: &Opened,
    ) -> HandleId {
        if let Some(fd) = &fd {
            self.descriptors.note(fd);
        }
        let file = OpenFile {
            node: node.clone(),
            access: how.access,
            direct: opened.direct,
            passthrough: opened.backing.is_some(),
            appends: how.appends,
            sync: how.sync,
            changed: AtomicBool::new(false),
            fd: Mutex::new(fd),
        };
        let handle = self.files.insert(room, file, |handle| {
            call.flight.hand_out_handle(handle);
            fault::point("handed-out");
        });
        fault::point("opened");
        handle
    }

    /// A read-only open of a file whose backing id is still at hand takes no system call. Files that were written since
    /// have none: they may have got holes.
    fn open_again(&self, node: &Node, state: &mut State) -> Option<Opened> {
        if !self.passthrough.load(Ordering::Acquire) {
            return None;
        }
        let present = state.open.as_ref().map(|open| open.mode);
        let decision = decide(present, Access::Read, false, true);
        if !decision.passthrough {
            return None;
        }
        let token = match state.open.as_ref().and_then(|open| open.backing.clone()) {
            Some(token) => token,
            None => self.nodes.take_backing(node)?,
        };
        let open = state
            .open
            .get_or_insert_with(|| Box::new(OpenState::new(decision.mode)));
        open.mode = decision.mode;
        open.handles = open.handles.saturating_add(1);
        open.backing = Some(token.clone());
        Some(opened_as(decision, Some(token), false))
    }

    /// Counts a new handle in and decides how its data travels.
    #[expect(
        clippy::too_many_arguments,
        reason = "one step of open, split off for its length"
    )]
    fn admit(
        &self,
        caller: Caller,
        node: &Node,
        state: &mut State,
        access: Access,
        seen: &Stat,
        path: &OwnedFd,
        backing: &mut BackingMaker<'_>,
    ) -> FsResult<Opened> {
        if access.writes() {
            self.nodes.drop_backing(node);
        }
        let present = state.open.as_ref().map(|open| open.mode);
        let has_holes = seen.blocks.bytes().get() < seen.size;
        let passthrough = self.passthrough.load(Ordering::Acquire);
        let mut decision = decide(
            present,
            access,
            has_holes,
            passthrough && may_pass_through(present, access, seen)?,
        );
        let mut token = state.open.as_ref().and_then(|open| open.backing.clone());
        if decision.passthrough && token.is_none() {
            let made =
                backing(path.as_fd()).and_then(|made| Backing::keep(&self.shared, node.id(), made));
            match made {
                Ok(made) => token = Some(made),
                // Only a first handle gets here, so the inode is free to take the other mode.
                Err(_) => decision = decide(present, access, has_holes, false),
            }
        }
        let mut holes = None;
        if decision.promise_holes && has_holes {
            holes = Some(self.promise_holes(caller, node, state, path, seen)?);
        }
        let open = state
            .open
            .get_or_insert_with(|| Box::new(OpenState::new(decision.mode)));
        open.mode = decision.mode;
        open.handles = open.handles.saturating_add(1);
        open.writers = open.writers.saturating_add(u32::from(access.writes()));
        open.written |= access.writes();
        if decision.passthrough {
            open.backing.clone_from(&token);
        }
        if decision.promise_holes {
            open.mappers = open.mappers.saturating_add(1);
            node.pass_cache();
            open.promise(holes);
            self.accounting.keep_watch(node, state);
        }
        if access.writes() {
            self.accounting.note_tail(node, state, seen);
        }
        let keep_cache = decision.mode == IoMode::Cached && node.enter_cache();
        Ok(opened_as(decision, token, keep_cache))
    }

    /// Takes back what [`Self::admit`] counted.
    pub(super) fn dismiss(
        &self,
        node: &Node,
        state: &mut State,
        access: Access,
        passthrough: bool,
    ) {
        if let Some(open) = &mut state.open {
            open.handles = open.handles.saturating_sub(1);
            open.writers = open.writers.saturating_sub(u32::from(access.writes()));
            if passthrough && access == Access::ReadWrite {
                open.mappers = open.mappers.saturating_sub(1);
            }
            if open.mappers == 0 {
                open.holes = None;
            }
            if open.writers == 0 {
                self.drop_spare(open.spare.take());
            }
            if open.handles == 0
                && let Some(last) = state.open.take()
                && state.is_linked()
                && !last.written
                && let Some(token) = last.backing
            {
                self.nodes.keep_backing(node, token);
            }
        }
        state.release_watch();
    }

    pub(super) fn promise_holes(
        &self,
        caller: Caller,
        node: &Node,
        state: &State,
        path: &OwnedFd,
        seen: &Stat,
    ) -> FsResult<quota::Reservation> {
        let fd = file::reopen(path, libc::O_RDONLY)?;
        let holes = Holes::find(&fd, self.accounting.growth(), 0, seen.size)?;
        let owner = state.owner().ok_or(FsError::UnknownNode(node.id()))?;
        let want = [Want::new(owner, Usage::space(holes.total()))];
        self.accounting
            .reserve(caller, &[], &want, || Ok(want.iter().copied().collect()))
    }

    fn truncate_open(&self, node: &Arc<Node>, state: &mut State, fd: &OwnedFd) -> FsResult<()> {
        let _watch = self.accounting.watch(node, state);
        node.cut_dense(0);
        file::truncate(fd, 0)?;
        let seen = stat_fd(fd.as_fd())?;
        self.accounting.record(node, state, &seen);
        Ok(())
    }

    /// The handle's own descriptor, opened on first use.
    pub(super) fn file_descriptor(
        &self,
        open: &OpenFile,
        state: &State,
    ) -> io::Result<Arc<OwnedFd>> {
        let mut fd = open.fd.lock();
        if let Some(fd) = &*fd {
            return Ok(fd.clone());
        }
        let path = match &state.pin {
            Some(pin) => pin.clone(),
            None => self.nodes.descriptor(&open.node)?,
        };
        let append = if open.appends { libc::O_APPEND } else { 0 };
        let made = match file::reopen(&path, open.access.flag() | append) {
            Ok(made) => Arc::new(made),
            Err(error) => spare_for(open, state, error)?,
        };
        *fd = Some(made.clone());
        Ok(made)
    }

    pub(super) fn descriptor_of(&self, open: &OpenFile) -> io::Result<Arc<OwnedFd>> {
        if let Some(fd) = &*open.fd.lock() {
            return Ok(fd.clone());
        }
        let state = open.node.state();
        self.file_descriptor(open, &state)
    }

    /// Reads into the buffer; fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// The backing file system's own.
    pub fn read(&self, handle: HandleId, offset: u64, buffer: &mut [u8]) -> FsResult<usize> {
        let open = self.files.get(handle)?;
        let fd = self.descriptor_of(&open)?;
        Ok(file::read_full(&fd, buffer, offset)?)
    }

    /// Copies between two files without the data passing here.
    ///
    /// # Errors
    /// EDQUOT where not even a part fits; the backing file system's own.
    pub fn copy_file_range(
        &self,
        caller: Caller,
        from: (HandleId, u64),
        to: (HandleId, u64),
        length: u64,
    ) -> FsResult<usize> {
        let source = self.files.get(from.0)?;
        let target = self.files.get(to.0)?;
        let source_fd = self.descriptor_of(&source)?;
        let target_fd = self.descriptor_of(&target)?;
        let node = &target.node;
        let available = stat_fd(source_fd.as_fd())?.size.saturating_sub(from.1);
        let length = length.min(available);
        if length == 0 {
            return Ok(0);
        }
        target.note_change();
        let mut state = node.state();
        let range = DataRange {
            file: &target_fd,
            offset: to.1,
            length,
            at_least: Least::Part,
        };
        let grant = self
            .accounting
            .reserve_data(caller, node, &mut state, range)?;
        node.cut_dense(to.1);
        self.take_setid(caller, node, &target_fd)?;
        let prepared = if grant.is_exact {
            self.allocate_exactly(&target_fd, to.1, grant.length)
        } else {
            Ok(())
        };
        let result = prepared
            .and_then(|()| file::copy_range(&source_fd, from.1, &target_fd, to.1, grant.length));
        let seen = stat_fd(target_fd.as_fd())?;
        let copied = result.as_ref().copied().unwrap_or(0);
        let bytes = u64::try_from(copied).unwrap_or(0);
        self.accounting
            .settle_data(node, &mut state, grant.promise, &seen, bytes);
        sync_change(&target, &target_fd, result)
    }

    /// Finds data or a hole, as lseek(2) does.
    ///
    /// # Errors
    /// ENXIO past the end; the backing file system's own.
    pub fn lseek(&self, handle: HandleId, offset: i64, whence: i32) -> FsResult<i64> {
        let open = self.files.get(handle)?;
        let fd = self.descriptor_of(&open)?;
        Ok(file::seek_data_or_hole(&fd, offset, whence)?)
    }

    /// Brings a file to the disk; its allocation is final then and is settled.
    ///
    /// # Errors
    /// The backing file system's own.
    pub fn fsync(&self, handle: HandleId, data_only: bool) -> FsResult<()> {
        let open = self.files.get(handle)?;
        let fd = self.descriptor_of(&open)?;
        let before = open.node.state().unsettled;
        if data_only {
            file::fdatasync(&fd)?;
        } else {
            file::fsync(&fd)?;
        }
        let mut state = open.node.state();
        if state.charged.is_some() && before > 0 {
            let seen = stat_fd(fd.as_fd())?;
            if state.unsettled == before {
                self.accounting.record_final(&open.node, &mut state, &seen);
            } else {
                self.accounting.record(&open.node, &mut state, &seen);
            }
        }
        Ok(())
    }
}

/// Brings a change to the disk where the file was opened for that.
///
/// # Source
/// Linux `ext4_fallocate` and `xfs_file_fallocate` commit for such a file; a copy ends in writes to it.
pub(super) fn sync_change<T>(open: &OpenFile, fd: &OwnedFd, done: io::Result<T>) -> FsResult<T> {
    let done = done?;
    if open.sync {
        file::fdatasync(fd)?;
    }
    Ok(done)
}

fn opened_as(decision: Decision, backing: Option<Arc<Backing>>, keep_cache: bool) -> Opened {
    let backing = backing.filter(|_| decision.passthrough);
    Opened {
        backing: backing.and_then(|backing| backing.token()),
        direct: decision.direct,
        keep_cache,
    }
}

fn access_or_write(access: Access) -> Access {
    if access == Access::Read {
        Access::Write
    } else {
        access
    }
}
