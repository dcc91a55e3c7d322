//! The adapter to the FUSE protocol: convert, call [`Fs`], reply. With `fuse/` the only place that names `fuser`.
//!
//! Every number, name and size in a request is a guest's: what cannot be converted is refused here, once.
//!
//! Longer than other files: the protocol is one trait, whose implementation stands in one place.

mod backing;
pub mod convert;
pub mod errno;
pub mod gate;
pub mod handshake;
mod locality;
pub mod opcode;
mod replay;
pub mod session;
pub mod text;
mod turn;

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::XattrFlags;

use crate::error::{FsError, FsResult};
use crate::fault;
use crate::fs::attr::SetAttr;
use crate::fs::data::{BackingMaker, Opened};
use crate::fs::write::WriteRequest;
use crate::fs::{Entry, Fs, Place};
use crate::handle::HandleId;
use crate::node::NodeId;
use crate::open::BackingToken;
use crate::shared::{ForgetMark, Intake, Shared};
use crate::sys::cpu::CpuOf;
use crate::sys::creds;
use crate::sys::file::FallocateMode;
use crate::sys::present::{self, PresentBuffers};

use backing::Backing;
use convert::{attributes, dev_from_kernel, set_time};
use errno::errno;
use gate::Gate;

/// How long the kernel may keep names and attributes: for good, since nobody else changes the private area.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Attributes that may change without a request are asked for each time.
const NEVER: Duration = Duration::ZERO;
/// The largest value of an extended attribute.
///
/// # Source
/// Linux `include/uapi/linux/limits.h`, `XATTR_SIZE_MAX` and `XATTR_LIST_MAX`.
const XATTR_MAX: u32 = 65536;
/// The largest write that is asked for, in bytes. Each worker has as much memory in use all the time ([`BUFFERS`]).
pub const MAX_REQUEST: u32 = 512 << 10;
/// The largest read that is answered whole, in bytes: requests have one page more ([`handshake`]), of at most 64 KiB.
const MAX_READ: u32 = MAX_REQUEST + (64 << 10);
/// The protocol library reads requests into zeroed memory of a little more than this, in bytes; nothing else is as large.
const LIBRARY_BUFFER: usize = 16 << 20;
/// Room for what comes with the data of a request: header, arguments, names.
const REQUEST_HEAD: u32 = 4096;
/// The largest request, in bytes.
const REQUEST_MAX: u32 = MAX_REQUEST + REQUEST_HEAD;
/// The allocator for a program that serves [`Fs`]: a request is read into memory that is there, so that the death of the
/// daemon at that moment fails nobody ([`crate::sys::present`]).
pub const BUFFERS: PresentBuffers = PresentBuffers::new(LIBRARY_BUFFER, REQUEST_MAX as usize);

thread_local! {
    /// Holds what is read, one per worker; grows to the largest request that the worker has seen.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static PREPARED: Cell<bool> = const { Cell::new(false) };
    /// The order to forget that the worker was at last, and the entry that comes next.
    static FORGETTING: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// What the kernel is asked for when the connection begins.
#[derive(Clone, Copy, Debug)]
pub struct Negotiation {
    /// Ask for passthrough; what came of it is told to `Fs`.
    pub passthrough: bool,
    /// The mount may be shown with ids mapped: the ids on the disk are then those of the VE's user namespace.
    pub own_ids: bool,
}

/// Serves [`Fs`] to the kernel.
#[derive(Debug)]
pub struct Adapter {
    fs: Arc<Fs>,
    negotiation: Negotiation,
    /// The largest write that a predecessor agreed on.
    agreed: Option<u32>,
    callers: Option<CpuOf>,
    /// Where it serves a single request of a predecessor.
    detour: Option<Arc<replay::Detour>>,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    /// For passthrough: another number of the connection's descriptor.
    device: Arc<OwnedFd>,
}

impl Adapter {
    /// A worker acts for its callers; once, before it does so first, it gets an identity of its own.
    fn prepare_worker() -> io::Result<()> {
        if !PREPARED.get() {
            creds::prepare_thread()?;
            PREPARED.set(true);
        }
        Ok(())
    }

    /// Registers a backing file for passthrough.
    fn register(&self, file: BorrowedFd<'_>) -> io::Result<Arc<dyn BackingToken>> {
        Ok(Arc::new(Backing::open(&self.device, file)?))
    }

    fn made(&self, make: impl FnOnce() -> FsResult<Entry>, reply: ReplyEntry) {
        let made = Self::prepare_worker()
            .map_err(FsError::from)
            .and_then(|()| make());
        self.reply_entry(made, reply);
    }

    fn reply_entry(&self, entry: FsResult<Entry>, reply: ReplyEntry) {
        match entry {
            Ok(entry) => {
                let id = entry.node.id();
                let ttl = self.attribute_ttl(id);
                let attr = attributes(id.get(), &entry.stat);
                let generation = Generation(entry.node.generation());
                reply.entry_with_ttls(&ttl, &FOREVER, &attr, generation);
            }
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn done(&self, result: FsResult<()>, reply: ReplyEmpty) {
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn reply_xattr(
        &self,
        size: u32,
        reply: ReplyXattr,
        mut read: impl FnMut(&mut [u8]) -> FsResult<usize>,
    ) {
        if size == 0 {
            let length = read(&mut []).map(|length| u32::try_from(length).unwrap_or(u32::MAX));
            return match length {
                Ok(length) => reply.size(length),
                Err(error) => reply.error(self.errno(&error)),
            };
        }
        with_buffer(size.min(XATTR_MAX), |buffer| match read(buffer) {
            Ok(length) => reply.data(buffer.get(..length).unwrap_or_default()),
            Err(error) => reply.error(self.errno(&error)),
        });
    }

    /// Which entry of an order to forget comes now, and where a successor finds that; `None` where it finds no orders. The
    /// protocol library takes an order apart, and tells the entries in turn.
    fn forget_entry(&self, req: &Request) -> Option<(ForgetMark<'_>, usize)> {
        let place = Intake::place_at(present::laid_here()?, session::PLACE);
        let unique = req.unique().0;
        let (order, next) = FORGETTING.get();
        let entry = if order == unique { next } else { 0 };
        if entry == 0 {
            fault::point("ordered");
        }
        FORGETTING.set((unique, entry + 1));
        Some((self.shared.forgets().mark(place, unique), entry))
    }

    /// What the guest sees of an error; one that is the host's to mend is noted.
    fn errno(&self, error: &FsError) -> Errno {
        self.fs.note_error(error);
        errno(error)
    }

    fn attribute_ttl(&self, id: NodeId) -> Duration {
        if self.fs.attributes_may_drift(id) {
            NEVER
        } else {
            FOREVER
        }
    }
}

fn node(ino: INodeNo) -> NodeId {
    NodeId::new(ino.0)
}

fn handle(fh: FileHandle) -> HandleId {
    HandleId::new(fh.0)
}

/// The flags of an open reply, and the backing id where there is one.
fn open_flags(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if opened.direct {
        flags |= FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    }
    if opened.keep_cache {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    flags
}

fn backing_of(opened: &Opened) -> Option<&Backing> {
    opened.backing.as_ref()?.as_any().downcast_ref()
}

fn with_buffer<R>(size: u32, use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    let size = usize::try_from(size.min(MAX_READ)).unwrap_or(0);
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        use_it(buffer.get_mut(..size).unwrap_or_default())
    })
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        session::negotiate(config, self.negotiation, self.agreed, &self.fs);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let turn = match self.turn(req, opcode::LOOKUP, parent) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        match self.fs.lookup(
            call,
            Place {
                parent: node(parent),
                name,
            },
        ) {
            Err(FsError::System(error)) if error.kind() == io::ErrorKind::NotFound => {
                // Entry number 0: the kernel remembers that there is no such name.
                reply.entry(&FOREVER, &convert::absent(), Generation(0));
            }
            result => self.reply_entry(result, reply),
        }
    }

    fn forget(&self, req: &Request, ino: INodeNo, nlookup: u64) {
        match self.forget_entry(req) {
            Some((mark, entry)) => self.fs.forget_entry(&mark, entry, node(ino), nlookup),
            None => self.fs.forget(node(ino), nlookup),
        }
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let _turn = match self.turn(req, opcode::GETATTR, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let id = node(ino);
        match self.fs.getattr(id) {
            Ok(stat) => {
                reply.attr(
                    &self.attribute_ttl(id),
                    &attributes(Fs::shown_ino(id), &stat),
                );
            }
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        fh: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let turn = match self.turn(req, opcode::SETATTR, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let id = node(ino);
        let set = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
        };
        match self.fs.setattr(turn.caller(), id, fh.map(handle), set) {
            Ok(stat) => {
                reply.attr(
                    &self.attribute_ttl(id),
                    &attributes(Fs::shown_ino(id), &stat),
                );
            }
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        let _turn = match self.turn(req, opcode::READLINK, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        match self.fs.readlink(node(ino)) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let turn = match self.turn(req, opcode::MKNOD, parent) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        let place = Place {
            parent: node(parent),
            name,
        };
        let device = dev_from_kernel(rdev);
        self.made(|| self.fs.mknod(call, place, mode, umask, device), reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let turn = match self.turn(req, opcode::MKDIR, parent) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        let place = Place {
            parent: node(parent),
            name,
        };
        self.made(|| self.fs.mkdir(call, place, mode, umask), reply);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let turn = match self.turn(req, opcode::UNLINK, parent) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        self.done(
            self.fs.unlink(
                call,
                Place {
                    parent: node(parent),
                    name,
                },
            ),
            reply,
        );
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let turn = match self.turn(req, opcode::RMDIR, parent) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        self.done(
            self.fs.rmdir(
                call,
                Place {
                    parent: node(parent),
                    name,
                },
            ),
            reply,
        );
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let turn = match self.turn(req, opcode::SYMLINK, parent) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        let place = Place {
            parent: node(parent),
            name: link_name,
        };
        self.made(|| self.fs.symlink(call, place, target.as_os_str()), reply);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let turn = match self.turn(req, opcode::RENAME, parent) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        let from = Place {
            parent: node(parent),
            name,
        };
        let to = Place {
            parent: node(newparent),
            name: newname,
        };
        let flags = crate::sys::file::RenameFlags::from_bits_retain(flags.bits());
        let result = Self::prepare_worker()
            .map_err(FsError::from)
            .and_then(|()| self.fs.rename(call, from, to, flags));
        self.done(result, reply);
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let turn = match self.turn(req, opcode::LINK, newparent) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        let place = Place {
            parent: node(newparent),
            name: newname,
        };
        self.reply_entry(self.fs.link(call, node(ino), place), reply);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let turn = match self.turn(req, opcode::OPEN, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        let make: &mut BackingMaker<'_> = &mut |fd| self.register(fd);
        let result = self.fs.open(call, node(ino), flags.0, make);
        match result {
            Ok((id, opened)) => {
                let (fh, flags) = (FileHandle(id.get()), open_flags(&opened));
                match backing_of(&opened) {
                    Some(backing) => backing.reply_open(reply, fh, flags),
                    None => reply.opened(fh, flags),
                }
            }
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let turn = match self.turn(req, opcode::CREATE, parent) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        if let Err(error) = Self::prepare_worker() {
            return reply.error(self.errno(&error.into()));
        }
        let place = Place {
            parent: node(parent),
            name,
        };
        let make: &mut BackingMaker<'_> = &mut |fd| self.register(fd);
        let result = self.fs.create(call, place, mode, umask, flags, make);
        match result {
            Ok((entry, id, opened)) => {
                let attr = attributes(entry.node.id().get(), &entry.stat);
                let generation = Generation(entry.node.generation());
                let (fh, flags) = (FileHandle(id.get()), open_flags(&opened));
                match backing_of(&opened) {
                    Some(backing) => {
                        backing.reply_create(reply, &FOREVER, &attr, generation, fh, flags);
                    }
                    None => reply.created(&FOREVER, &attr, generation, fh, flags),
                }
            }
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _turn = match self.turn(req, opcode::READ, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        with_buffer(size, |buffer| {
            match self.fs.read(handle(fh), offset, buffer) {
                Ok(length) => reply.data(buffer.get(..length).unwrap_or_default()),
                Err(error) => reply.error(self.errno(&error)),
            }
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let turn = match self.turn(req, opcode::WRITE, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let request = WriteRequest {
            offset,
            data,
            from_cache: write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
            kill_setid: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            sync: flags.0 & libc::O_DSYNC != 0,
            whole: flags.0 & libc::O_DIRECT != 0,
            is_repeated: turn.flight().earlier().is_some(),
        };
        match self.fs.write(turn.caller(), handle(fh), request) {
            Ok(written) => reply.written(u32::try_from(written).unwrap_or(0)),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Said once: from then on the kernel closes without asking. Writes were charged when they were made.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = match self.turn(req, opcode::RELEASE, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        self.done(self.fs.release(handle(fh)), reply);
    }

    fn fsync(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = match self.turn(req, opcode::FSYNC, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        self.done(self.fs.fsync(handle(fh), datasync), reply);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Said once: from then on the kernel opens and closes directories without asking, keeps their listings, and asks by
        // inode for what it has not (Linux 5.1).
        reply.error(Errno::ENOSYS);
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _turn = match self.turn(req, opcode::READDIR, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let result = self.fs.readdir(node(ino), offset, &mut |listed| {
            let kind = convert::kind(listed.kind);
            reply.add(INodeNo(listed.ino), listed.position, kind, listed.name)
        });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let turn = match self.turn(req, opcode::READDIRPLUS, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        let result = self
            .fs
            .readdirplus(call, node(ino), offset, &mut |listed, entry| {
                let (attr, generation, ttl) = match entry {
                    Some(Entry { node, stat }) => (
                        attributes(node.id().get(), stat),
                        node.generation(),
                        self.attribute_ttl(node.id()),
                    ),
                    // Number 0 tells the kernel to take the name and nothing else.
                    None => (convert::listed(listed.ino, listed.kind), 0, NEVER),
                };
                let generation = Generation(generation);
                reply.add(
                    attr.ino,
                    listed.position,
                    listed.name,
                    &ttl,
                    &attr,
                    generation,
                )
            });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn fsyncdir(&self, req: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let _turn = match self.turn(req, opcode::FSYNCDIR, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        self.done(self.fs.fsyncdir(node(ino)), reply);
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let _turn = match self.turn(req, opcode::STATFS, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        match self.fs.statfs() {
            Ok(view) => reply.statfs(
                view.total,
                view.free,
                view.available,
                view.files,
                view.files_free,
                view.block_size,
                view.name_max,
                view.block_size,
            ),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let turn = match self.turn(req, opcode::SETXATTR, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        self.done(self.fs.setxattr(call, node(ino), name, value, flags), reply);
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _turn = match self.turn(req, opcode::GETXATTR, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        self.reply_xattr(size, reply, |buffer| {
            self.fs.getxattr(node(ino), name, buffer)
        });
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _turn = match self.turn(req, opcode::LISTXATTR, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        self.reply_xattr(size, reply, |buffer| self.fs.listxattr(node(ino), buffer));
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let turn = match self.turn(req, opcode::REMOVEXATTR, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let call = self.fs.call(turn.caller(), turn.flight());
        self.done(self.fs.removexattr(call, node(ino), name), reply);
    }

    fn ioctl(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        let _turn = match self.turn(req, opcode::IOCTL, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        match self.fs.ioctl(node(ino), handle(fh), cmd, in_data) {
            Ok(data) => reply.ioctl(0, &data),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let turn = match self.turn(req, opcode::FALLOCATE, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        let mode = FallocateMode::from_raw(mode);
        self.done(
            self.fs
                .fallocate(turn.caller(), handle(fh), mode, offset, length),
            reply,
        );
    }

    fn lseek(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _turn = match self.turn(req, opcode::LSEEK, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        match self.fs.lseek(handle(fh), offset, whence) {
            Ok(offset) => reply.offset(offset),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let turn = match self.turn(req, opcode::COPY_FILE_RANGE, ino) {
            Ok(turn) => turn,
            Err(errno) => return reply.error(errno),
        };
        // The reply has 32 bits for the number of bytes.
        let len = len.min(u64::from(u32::MAX) & !0xfff);
        let from = (handle(fh_in), offset_in);
        let to = (handle(fh_out), offset_out);
        match self.fs.copy_file_range(turn.caller(), from, to, len) {
            Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(0)),
            Err(error) => reply.error(self.errno(&error)),
        }
    }
}
