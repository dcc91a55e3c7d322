//! A private area and the daemon that takes it over, without a mount.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use quota::store::memory::MemoryStore;
use quota::{Engine, Environment, Setup};
use simfs::accounting::Accounting;
use simfs::accounting::growth::Growth;
use simfs::fs::adopt::{Adopted, Pins};
use simfs::fs::{Fs, Settings};
use simfs::housekeeper::Housekeeper;
use simfs::keeper::{DepositNumber, Depository};
use simfs::node::{Found, NodeId, Nodes};
use simfs::open::BackingToken;
use simfs::private::{AtimePolicy, PrivateArea};
use simfs::privileges::Privileges;
use simfs::shared::{Refused, Shape, Shared};
use simfs::sys::handle::KernelHandle;
use simfs::sys::stat::stat_fd;

use crate::VE;

/// A directory with four files, one of them open without a name.
#[derive(Debug)]
pub struct Area {
    _dir: tempfile::TempDir,
    area: PrivateArea,
    privileges: Arc<Privileges>,
    files: Vec<(File, NodeId, Option<KernelHandle>)>,
}

/// A daemon that took over, before its first request.
#[derive(Debug)]
pub struct Successor {
    /// Its file operations.
    pub fs: Fs,
    /// What it took over.
    pub adopted: Adopted,
}

#[derive(Debug)]
struct NoKeeper;

impl Depository for NoKeeper {
    fn deposit(&self, _: BorrowedFd<'_>) -> io::Result<DepositNumber> {
        Err(io::Error::other("no keeper"))
    }

    fn withdraw(&self, _: DepositNumber) {}
}

#[derive(Debug)]
struct Token(u32);

impl BackingToken for Token {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn number(&self) -> u32 {
        self.0
    }
}

impl Area {
    /// Makes it.
    ///
    /// # Panics
    /// Where the system refuses: CAP_DAC_READ_SEARCH is needed.
    pub fn make() -> Self {
        let dir = tempfile::tempdir_in(crate::IN_MEMORY).expect("directory");
        let files: Vec<_> = (0..4)
            .map(|n| File::create_new(dir.path().join(n.to_string())).expect("file"))
            .collect();
        std::fs::remove_file(dir.path().join("3")).expect("unlink");
        let area = PrivateArea::open(dir.path(), AtimePolicy::Noatime).expect("private area");
        let files = files.into_iter().map(|file| {
            let id = NodeId::new(stat_fd(&file).expect("stat").ino);
            let handle = area.identify(&file).expect("handle");
            (file, id, handle)
        });
        Self {
            files: files.collect(),
            _dir: dir,
            area,
            privileges: Arc::new(Privileges::new(false).expect("/proc")),
        }
    }

    /// The memory of a new mount.
    ///
    /// # Panics
    /// Without memory.
    pub fn memory(&self) -> Shared {
        Shared::create(Shape::for_area(VE, &self.area)).expect("memory")
    }

    /// The number and the handle of one of the files.
    pub fn file(&self, index: u8) -> (NodeId, Option<KernelHandle>) {
        let index = usize::from(index) % self.files.len();
        self.files
            .get(index)
            .map_or((NodeId::ROOT, None), |(_, id, handle)| (*id, *handle))
    }

    fn deposit(&self, number: u32) -> Option<OwnedFd> {
        let (file, ..) = self.files.get(usize::try_from(number).ok()?)?;
        file.as_fd().try_clone_to_owned().ok()
    }

    /// Takes over.
    ///
    /// # Errors
    /// Where the memory is refused.
    ///
    /// # Panics
    /// Where the system fails.
    pub fn take_over(&self, memory: OwnedFd) -> Result<Successor, Refused> {
        let (shared, inheritance) = Shared::adopt(memory)?;
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().expect("descriptor");
        let area = PrivateArea::adopt(copy(self.area.root_fd()), copy(self.area.lock_fd()));
        let area = Arc::new(area.expect("private area"));
        let pins = Pins::collect(&inheritance, &area, &mut |number| self.deposit(number));
        let fs = self.assemble(area, Arc::new(shared));
        let adopted = fs.adopt(&inheritance, pins, &|number| Arc::new(Token(number)));
        Ok(Successor { fs, adopted })
    }

    fn assemble(&self, area: Arc<PrivateArea>, shared: Arc<Shared>) -> Fs {
        let store = Arc::new(MemoryStore::new());
        let engine = Engine::create(
            store,
            Environment::default(),
            Setup::new(VE, "/vz/private/101"),
        );
        let root = area.root_fd().try_clone_to_owned().expect("descriptor");
        let found = Found {
            stat: stat_fd(&root).expect("stat"),
            handle: area.root_handle().copied(),
            held: Some(Arc::new(root)),
        };
        let nodes = Arc::new(Nodes::new(area.clone(), found, 64, shared.clone()));
        let accounting = Accounting::new(
            engine.expect("engine"),
            Growth::new(area.backing(), 4096),
            nodes.clone(),
            self.privileges.clone(),
            Arc::new(Housekeeper::default()),
        );
        let settings = Settings {
            passthrough: true,
            open_files: 20_000,
        };
        Fs::new(
            area,
            nodes,
            accounting,
            settings,
            shared,
            Arc::new(NoKeeper),
        )
    }
}
