//! A server that does nothing: the cost of asking any server through FUSE.
//!
//! Names and sizes are kept in memory, what is written is dropped, reads give zeros. Timeouts and capabilities are
//! those of simfs. One lock, because there is nothing to do under it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::Ground;
use super::mounted::Mounted;
use crate::programs::command;

/// Nobody else changes anything.
const FOREVER: Duration = Duration::from_secs(1 << 30);
/// Bytes of one request.
const MAX_REQUEST: usize = 1024 * 1024;
const WANTED: [InitFlags; 6] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
];

/// Starts this program again as the server.
pub(super) fn mount(ground: &Ground) -> Result<Mounted> {
    let mut server = command(std::env::current_exe()?, ["floor"]);
    Mounted::served(server.arg(&ground.mountpoint), &ground.mountpoint)
}

/// Serves until it is unmounted.
pub(crate) fn serve(mountpoint: &Path) -> Result<()> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("floor".to_owned()),
        MountOption::DefaultPermissions,
    ];
    config.n_threads = Some(2);
    fuser::mount(Floor::default(), mountpoint, &config).context("the server ended")
}

#[derive(Debug)]
struct Floor {
    state: Mutex<State>,
    zeros: Vec<u8>,
}

#[derive(Debug)]
struct State {
    nodes: HashMap<u64, Node>,
    last: u64,
}

#[derive(Debug)]
struct Node {
    attr: FileAttr,
    names: HashMap<OsString, u64>,
    /// The same by number, which is the place in a listing.
    order: BTreeMap<u64, OsString>,
}

impl Default for Floor {
    fn default() -> Self {
        let mut state = State {
            nodes: HashMap::new(),
            last: 1,
        };
        state
            .nodes
            .insert(1, Node::new(1, FileType::Directory, 0o755));
        Self {
            state: Mutex::new(state),
            zeros: vec![0; MAX_REQUEST],
        }
    }
}

impl Node {
    fn new(number: u64, kind: FileType, perm: u16) -> Self {
        let now = SystemTime::now();
        let attr = FileAttr {
            ino: INodeNo(number),
            size: 0,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        };
        Self {
            attr,
            names: HashMap::new(),
            order: BTreeMap::new(),
        }
    }
}

impl State {
    fn attr(&self, number: INodeNo) -> Result<FileAttr, Errno> {
        self.nodes
            .get(&number.0)
            .map(|node| node.attr)
            .ok_or(Errno::ENOENT)
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let parent = self.nodes.get(&parent.0).ok_or(Errno::ENOENT)?;
        let number = parent.names.get(name).ok_or(Errno::ENOENT)?;
        self.attr(INodeNo(*number))
    }

    fn make(
        &mut self,
        parent: INodeNo,
        name: &OsStr,
        kind: FileType,
        mode: u32,
    ) -> Result<FileAttr, Errno> {
        let perm = u16::try_from(mode & 0o7777).unwrap_or(0o644);
        let number = self.last + 1;
        let dir = self.nodes.get_mut(&parent.0).ok_or(Errno::ENOENT)?;
        if dir.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        dir.names.insert(name.to_owned(), number);
        dir.order.insert(number, name.to_owned());
        self.last = number;
        let node = Node::new(number, kind, perm);
        let attr = node.attr;
        self.nodes.insert(number, node);
        Ok(attr)
    }

    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let number = self.find(parent, name)?.ino.0;
        if self
            .nodes
            .get(&number)
            .is_some_and(|node| !node.names.is_empty())
        {
            return Err(Errno::ENOTEMPTY);
        }
        let dir = self.nodes.get_mut(&parent.0).ok_or(Errno::ENOENT)?;
        dir.names.remove(name);
        dir.order.remove(&number);
        self.nodes.remove(&number);
        Ok(())
    }

    /// The entries after a place: number, name, attributes.
    fn list(&self, dir: INodeNo, after: u64) -> Vec<(OsString, FileAttr)> {
        let Some(node) = self.nodes.get(&dir.0) else {
            return Vec::new();
        };
        let behind = node.order.range(after + 1..);
        let found =
            behind.filter_map(|(number, name)| Some((name.clone(), self.nodes.get(number)?.attr)));
        // One reply holds no more.
        found.take(1024).collect()
    }
}

impl Floor {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(found: Result<FileAttr, Errno>, reply: ReplyEntry) {
        match found {
            Ok(attr) => reply.entry(&FOREVER, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn attributes(found: Result<FileAttr, Errno>, reply: ReplyAttr) {
        match found {
            Ok(attr) => reply.attr(&FOREVER, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn done(done: Result<(), Errno>, reply: ReplyEmpty) {
        match done {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }
}

impl Filesystem for Floor {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(u32::try_from(MAX_REQUEST).unwrap_or(4096));
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.state().find(parent, name);
        if found.is_err() {
            // Absence is remembered too.
            let mut absent = Node::new(0, FileType::RegularFile, 0).attr;
            absent.ino = INodeNo(0);
            return reply.entry(&FOREVER, &absent, Generation(0));
        }
        Self::entry(found, reply);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        Self::attributes(self.state().attr(ino), reply);
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        if let Some(node) = state.nodes.get_mut(&ino.0) {
            node.attr.size = size.unwrap_or(node.attr.size);
            node.attr.perm = mode
                .and_then(|mode| u16::try_from(mode & 0o7777).ok())
                .unwrap_or(node.attr.perm);
        }
        Self::attributes(state.attr(ino), reply);
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        Self::entry(
            self.state().make(parent, name, FileType::Directory, mode),
            reply,
        );
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.state().make(parent, name, FileType::RegularFile, mode) {
            Ok(attr) => reply.created(
                &FOREVER,
                &attr,
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH,
            ),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Self::done(self.state().remove(parent, name), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Self::done(self.state().remove(parent, name), reply);
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(
            FileHandle(0),
            FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH,
        );
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = usize::try_from(size).unwrap_or(0);
        reply.data(self.zeros.get(..length).unwrap_or(&self.zeros));
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let length = u32::try_from(data.len()).unwrap_or(0);
        if let Some(node) = self.state().nodes.get_mut(&ino.0) {
            node.attr.size = node.attr.size.max(offset + u64::from(length));
        }
        reply.written(length);
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for (name, attr) in self.state().list(ino, offset) {
            if reply.add(attr.ino, attr.ino.0, attr.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        for (name, attr) in self.state().list(ino, offset) {
            if reply.add(attr.ino, attr.ino.0, name, &FOREVER, &attr, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }
}
