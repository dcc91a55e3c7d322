//! File operations on a scratch directory without a mount, with deaths and successors. For tests of this crate only.
//!
//! A death forgets everything that lives in the process; what lives on are the directory, the shared memory, and the
//! descriptors and backing files that a keeper and a kernel would hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use quota::{Engine, Environment, Setup, Tally, VeId};
use rustix::fs::XattrFlags;

use super::adopt::{Adopted, Pins};
use super::write::WriteRequest;
use super::{Call, Fs, Place, Settings};
use crate::accounting::growth::Growth;
use crate::accounting::{Accounting, Caller};
use crate::error::FsResult;
use crate::handle::HandleId;
use crate::housekeeper::Housekeeper;
use crate::keeper::{DepositNumber, Depository};
use crate::node::{Found, NodeId, Nodes};
use crate::open::BackingToken;
use crate::private::PrivateArea;
use crate::privileges::Privileges;
use crate::shared::flights::{Asked, RESENT, Worker};
use crate::shared::{Flight, LeftForgets, Shape, Shared};
use crate::sys::stat::stat_fd;

/// What outlives a daemon beside the shared memory.
#[derive(Debug, Default)]
pub(super) struct World {
    next: AtomicU32,
    deposits: Mutex<BTreeMap<u32, OwnedFd>>,
    /// Backing files that are registered with the kernel.
    backings: Mutex<BTreeSet<u32>>,
    /// Set: the keeper takes nothing.
    pub(super) is_full: std::sync::atomic::AtomicBool,
}

impl World {
    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed) + 10
    }

    pub(super) fn deposits(&self) -> usize {
        self.deposits.lock().len()
    }

    pub(super) fn backings(&self) -> usize {
        self.backings.lock().len()
    }
}

#[derive(Debug)]
struct Keeper(Arc<World>);

impl Depository for Keeper {
    fn deposit(&self, fd: BorrowedFd<'_>) -> io::Result<DepositNumber> {
        if self.0.is_full.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let number = self.0.number();
        self.0
            .deposits
            .lock()
            .insert(number, fd.try_clone_to_owned()?);
        Ok(DepositNumber::new(number))
    }

    fn withdraw(&self, number: DepositNumber) {
        let number = number.get();
        assert!(
            self.0.deposits.lock().remove(&number).is_some(),
            "{number} is withdrawn twice"
        );
    }
}

#[derive(Debug)]
struct Token(u32, Arc<World>);

impl BackingToken for Token {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn number(&self) -> u32 {
        self.0
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.1.backings.lock().remove(&self.0);
    }
}

/// One mount.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(super) dir: tempfile::TempDir,
    pub(crate) fs: Arc<Fs>,
    pub(super) world: Arc<World>,
    pub(super) adopted: Adopted,
    /// The orders to forget that came, all of which are done.
    pub(super) orders: Vec<LeftForgets>,
    area: (OwnedFd, OwnedFd),
    worker: Worker,
    unique: u64,
}

/// What a request does.
pub(super) const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 0,
};

impl Bed {
    pub(crate) fn new() -> Self {
        Self::over(tempfile::tempdir_in("/var/tmp").unwrap())
    }

    /// The same over what is in a directory already.
    pub(super) fn over(dir: tempfile::TempDir) -> Self {
        // As a worker does; it concerns this thread alone.
        crate::sys::creds::prepare_thread().unwrap();
        let area = PrivateArea::open(dir.path(), crate::private::AtimePolicy::Noatime).unwrap();
        let kept = (
            area.root_fd().try_clone_to_owned().unwrap(),
            area.lock_fd().try_clone_to_owned().unwrap(),
        );
        let shared = Shared::create(Shape::for_area(VeId::new(101), &area)).unwrap();
        let world = Arc::new(World::default());
        let fs = Arc::new(assemble(&dir, area, Arc::new(shared), &world));
        let worker = fs.shared().flights().enlist().unwrap();
        Self {
            dir,
            fs,
            world,
            adopted: Adopted::default(),
            orders: Vec::new(),
            area: kept,
            worker,
            unique: 2,
        }
    }

    /// The daemon dies, and a successor takes over.
    pub(super) fn die(&mut self) {
        self.try_die().unwrap();
    }

    /// The same; the successor may refuse.
    pub(super) fn try_die(&mut self) -> Result<(), crate::shared::Refused> {
        let memory = self.fs.shared().fd().try_clone_to_owned().unwrap();
        // A dead process closes nothing in the kernel. Whatever else is dropped with it touches nothing that lives on.
        self.fs.nodes().leak_backings();
        let copy = |fd: &OwnedFd| fd.try_clone().unwrap();
        let area = PrivateArea::adopt(copy(&self.area.0), copy(&self.area.1)).unwrap();
        let (shared, inheritance) = Shared::adopt(memory)?;
        let world = self.world.clone();
        let pins = Pins::collect(&inheritance, &area, &mut |number| {
            let kept = world.deposits.lock();
            kept.get(&number).map(|fd| fd.try_clone().unwrap())
        });
        self.fs = Arc::new(assemble(&self.dir, area, Arc::new(shared), &world));
        // The recovery keeps what has no name but is held charged.
        let unnamed = pins.without_names();
        for change in &unnamed {
            assert!(pins.stat_of(&change.inode).is_some());
        }
        self.fs.accounting().engine().record(&unnamed);
        self.adopted = self.fs.adopt(&inheritance, pins, &|number| {
            Arc::new(Token(number, world.clone()))
        });
        self.worker = self.fs.shared().flights().enlist().unwrap();
        Ok(())
    }

    /// A request of its own.
    pub(super) fn ask<T>(&mut self, act: impl FnOnce(&Fs, Call<'_>) -> T) -> T {
        self.unique += 2;
        let fs = self.fs.clone();
        let flight = self.flight(&fs, self.unique);
        act(&fs, fs.call(ROOT, &flight))
    }

    /// Makes a file in the root directory, open for reading and writing.
    pub(super) fn create(&mut self, name: &str) -> (NodeId, HandleId) {
        let made = self.ask(|fs, call| {
            let (place, mode) = (at(name), 0o100_644);
            fs.create(call, place, mode, 0o022, libc::O_RDWR, &mut no_backing)
        });
        let (entry, handle, _) = made.unwrap();
        (entry.node.id(), handle)
    }

    /// A request whose answer is lost with the daemon, then the same sent again: the second answer.
    pub(super) fn ask_twice<T>(
        &mut self,
        act: impl Fn(&Fs, Call<'_>) -> FsResult<T>,
    ) -> (FsResult<T>, FsResult<T>) {
        self.unique += 2;
        let fs = self.fs.clone();
        let first = {
            let flight = self.flight(&fs, self.unique);
            let first = act(&fs, fs.call(ROOT, &flight));
            std::mem::forget(flight);
            first
        };
        drop(fs);
        self.die();
        (first, self.again(act))
    }

    /// A request that ends the daemon at a fault point, then the same sent again. `None` where it did not come by there.
    pub(super) fn ask_through<T>(
        &mut self,
        point: &'static str,
        act: impl Fn(&Fs, Call<'_>) -> FsResult<T>,
    ) -> Option<FsResult<T>> {
        self.cut_off(point, &act).then(|| self.again(act))
    }

    /// A request that ends the daemon at a fault point; where it does not come by there, right before the answer.
    pub(super) fn cut_off<T>(
        &mut self,
        point: &'static str,
        act: impl Fn(&Fs, Call<'_>) -> FsResult<T>,
    ) -> bool {
        self.unique += 2;
        self.cut_off_as(self.unique, point, act)
    }

    /// The last request is sent again, and ends the next daemon as well.
    pub(super) fn cut_off_again<T>(
        &mut self,
        point: &'static str,
        act: impl Fn(&Fs, Call<'_>) -> FsResult<T>,
    ) -> bool {
        self.cut_off_as(self.unique | RESENT, point, act)
    }

    fn cut_off_as<T>(
        &mut self,
        unique: u64,
        point: &'static str,
        act: impl Fn(&Fs, Call<'_>) -> FsResult<T>,
    ) -> bool {
        let fs = self.fs.clone();
        let flight = self.flight(&fs, unique);
        let finished = crate::fault::stop_at(point, || act(&fs, fs.call(ROOT, &flight)));
        std::mem::forget(flight);
        drop(fs);
        self.die();
        finished.is_none()
    }

    /// The last request is sent again.
    pub(super) fn again<T>(&self, act: impl Fn(&Fs, Call<'_>) -> FsResult<T>) -> FsResult<T> {
        let flight = self.flight(&self.fs, self.unique | RESENT);
        act(&self.fs, self.fs.call(ROOT, &flight))
    }

    fn flight<'a>(&self, fs: &'a Fs, unique: u64) -> Flight<'a> {
        let asked = Asked {
            unique,
            opcode: 1,
            node: NodeId::ROOT,
            caller: ROOT,
        };
        fs.shared().flights().begin(self.worker, asked)
    }

    /// An order to forget; where it comes by the fault point, a successor carries out the rest.
    pub(super) fn forget(&mut self, entries: Vec<(NodeId, u64)>, point: Option<&'static str>) {
        self.unique += 2;
        let order = [LeftForgets {
            place: 1,
            unique: self.unique,
            entries,
        }];
        let fs = self.fs.clone();
        let act = || fs.forget_left(&order);
        let finished = match point {
            Some(point) => crate::fault::stop_at(point, act).is_some(),
            None => {
                act();
                true
            }
        };
        drop(fs);
        if !finished {
            self.die();
            self.fs.end_forgets(&order);
            self.fs.forget_left(&order);
        }
        self.orders.extend(order);
    }

    /// Registers a backing file, as the transport does.
    pub(super) fn register(&self) -> Arc<dyn BackingToken> {
        let number = self.world.number();
        self.world.backings.lock().insert(number);
        Arc::new(Token(number, self.world.clone()))
    }

    /// Lookups that the records hold for a node.
    pub(super) fn lookups(&self, id: NodeId) -> u64 {
        self.fs.nodes().lookups_of(id)
    }

    /// What is charged, and what is there.
    pub(super) fn usage(&self) -> (Tally, Tally) {
        let charged = self.fs.accounting().engine().tally().unwrap();
        (charged, crate::scan::scan(&self.fs.area, &mut ()).unwrap())
    }

    /// Nothing is left of what was known, open or held.
    pub(super) fn assert_empty(&self) {
        self.fs.accounting().finish_late();
        assert_eq!(self.fs.open_count(), 0);
        assert_eq!(self.world.deposits(), 0, "deposits");
        let memory = self.fs.shared().fd().try_clone_to_owned().unwrap();
        self.fs.nodes().index_rest(&mut || true);
        assert_eq!(self.fs.nodes().len(), 1, "{:?}", self.fs.nodes().snapshot());
        let idle = self.world.backings();
        let (_, left) = Shared::adopt(memory).unwrap();
        assert!(left.handles.is_empty(), "{left:?}");
        assert_eq!(left.holds.len(), idle, "{left:?}");
    }
}

fn assemble(
    dir: &tempfile::TempDir,
    area: PrivateArea,
    shared: Arc<Shared>,
    world: &Arc<World>,
) -> Fs {
    let area = Arc::new(area);
    let environment = Environment {
        clock: Arc::new(quota::SystemClock),
        events: Arc::new(quota::NoEvents),
    };
    let setup = Setup {
        usage: crate::scan::scan(&area, &mut ()).unwrap(),
        ..Setup::new(VeId::new(101), dir.path())
    };
    let store = Arc::new(quota::store::memory::MemoryStore::default());
    let engine = Engine::create(store, environment, setup).unwrap();
    let root = area.root_fd().try_clone_to_owned().unwrap();
    let found = Found {
        stat: stat_fd(&root).unwrap(),
        handle: area.root_handle().copied(),
        held: Some(Arc::new(root)),
    };
    let nodes = Arc::new(Nodes::new(area.clone(), found, 64, shared.clone()));
    let accounting = Accounting::new(
        engine,
        Growth::new(area.backing(), 4096),
        nodes.clone(),
        Arc::new(Privileges::new(false).unwrap()),
        Arc::new(Housekeeper::default()),
    );
    let settings = Settings {
        passthrough: true,
        open_files: 20_000,
    };
    let keeper = Arc::new(Keeper(world.clone()));
    Fs::new(area, nodes, accounting, settings, shared, keeper)
}

/// A name in the root directory.
pub(super) fn at(name: &str) -> Place<'_> {
    Place {
        parent: NodeId::ROOT,
        name: OsStr::new(name),
    }
}

/// No backing file can be registered.
pub(super) fn no_backing(_: BorrowedFd<'_>) -> io::Result<Arc<dyn BackingToken>> {
    Err(io::Error::other("none"))
}

/// A write(2) of a guest, as the kernel passes it on.
pub(super) fn write_at(offset: u64, data: &[u8]) -> WriteRequest<'_> {
    WriteRequest {
        offset,
        data,
        from_cache: false,
        kill_setid: false,
        sync: false,
        whole: false,
        is_repeated: false,
    }
}

/// No flags of setxattr(2).
pub(super) const PLAIN: XattrFlags = XattrFlags::empty();

/// Whether a descriptor can be made of an id.
pub(super) fn is_reachable(fs: &Fs, id: NodeId) -> bool {
    fs.nodes()
        .get(id)
        .and_then(|node| Ok(fs.nodes().descriptor(&node)?))
        .is_ok_and(|fd| stat_fd(fd.as_fd()).is_ok())
}
