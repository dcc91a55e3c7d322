//! A mount that ends at any moment: what the journal says, and the store, together are exact.
//!
//! Random histories on a made-up tree. After every step of every operation the process dies: memory is lost, the
//! journal's file and the store stay. Then the totals are recovered and compared with the tree.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests state what they expect"
)]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use quota::journal::{Identity, Image, Unusable};
use quota::recovery::{Look, missed};
use quota::store::memory::MemoryStore;
use quota::store::{Batch, Entry};
use quota::{
    Bytes, Change, Charged, Engine, Environment, FileJournal, InodeId, Inodes, Owner, Reservation,
    Setup, Standing, Store, StoreError, Subject, Tally, Usage, VeId, Want, Watch,
};

const VE: VeId = VeId::new(7);
/// The directories in which names are made.
const DIRS: [u64; 2] = [1, 2];

/// The private area: what exists, and under which name.
#[derive(Clone, Debug, Default)]
struct Tree {
    inodes: BTreeMap<u64, (InodeId, Charged)>,
    names: BTreeMap<(u64, Vec<u8>), u64>,
    generation: u8,
}

impl Tree {
    /// An inode with this number; numbers are used again, generations are not.
    fn make(&mut self, ino: u64, charged: Charged) -> InodeId {
        self.generation = self.generation.wrapping_add(1);
        let inode = InodeId::new(ino, 1, &[self.generation, ino as u8, 9]);
        self.inodes.insert(ino, (inode, charged));
        inode
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.inodes
            .values()
            .for_each(|(_, held)| tally.add(held.owner, held.usage));
        tally
    }
}

impl Look for Tree {
    fn inode(&self, inode: &InodeId) -> io::Result<Option<Charged>> {
        let found = self
            .inodes
            .get(&inode.ino())
            .filter(|(known, _)| known == inode);
        Ok(found.map(|(_, charged)| *charged))
    }

    fn name(&self, parent: &InodeId, name: &[u8]) -> io::Result<Option<(InodeId, Charged)>> {
        let found = self.names.get(&(parent.ino(), name.to_vec()));
        Ok(found.and_then(|ino| self.inodes.get(ino)).copied())
    }
}

/// What is left of a process that died.
struct Remains {
    store: MemoryStore,
    journals: Vec<(PathBuf, Vec<u8>)>,
}

impl Remains {
    fn of(store: &MemoryStore, dir: &Path) -> Self {
        let journals = std::fs::read_dir(dir).unwrap().map(|entry| {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        });
        Self {
            store: store.crash(),
            journals: journals.collect(),
        }
    }

    fn lay_out(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in &self.journals {
            std::fs::write(dir.path().join(path.file_name().unwrap()), bytes).unwrap();
        }
        dir
    }
}

/// A store that also keeps what a death just before and just after each commit would leave.
struct Watched {
    inner: MemoryStore,
    journals: PathBuf,
    deaths: Mutex<Vec<Remains>>,
}

impl Store for Watched {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key)
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.inner.scan(prefix, from, limit)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let before = Remains::of(&self.inner, &self.journals);
        let result = self.inner.commit(batch);
        let after = Remains::of(&self.inner, &self.journals);
        self.deaths.lock().unwrap().extend([before, after]);
        result
    }
}

fn identity(session: u64, boot: &str) -> Identity {
    Identity {
        ve: VE,
        boot: boot.into(),
        session,
    }
}

fn journal_file(dir: &Path, session: u64) -> PathBuf {
    dir.join(session.to_string())
}

/// A mount: takes what was left into service.
fn mount(
    store: Arc<dyn Store>,
    dir: &Path,
    session: u64,
    boot: &str,
    tree: &Tree,
) -> Result<Engine, Unusable> {
    let journal =
        FileJournal::create(&journal_file(dir, session), identity(session, boot)).unwrap();
    let engine =
        Engine::open_journaled(store, Environment::default(), Arc::new(journal)).expect("opens");
    if let Standing::Journaled {
        session: last,
        epoch,
    } = engine.standing()
    {
        let image = Image::read(&journal_file(dir, last), &identity(last, boot))?;
        engine.record(&missed(&image, epoch, tree).unwrap());
    }
    engine.begin_service(session, false).expect("begins");
    Ok(engine)
}

/// An operation between two of its steps.
enum Open {
    Create {
        parent: u64,
        ino: u64,
        name: Vec<u8>,
        promise: Reservation,
        done: Option<InodeId>,
    },
    Write {
        ino: u64,
        to: Charged,
        promise: Reservation,
        done: bool,
    },
    Unlink {
        parent: u64,
        ino: u64,
        watches: [Watch; 2],
        done: Option<(InodeId, Charged)>,
    },
    Drift {
        ino: u64,
        watch: Watch,
        steps: u64,
    },
}

struct World {
    dice: u64,
    tree: Tree,
    /// What the totals hold, as a daemon knows it.
    charged: BTreeMap<u64, Charged>,
    engine: Engine,
    store: Arc<Watched>,
    dir: tempfile::TempDir,
    open: Vec<Open>,
    session: u64,
}

fn usage(dice: u64) -> Usage {
    Usage::inode(Bytes::new(4096 * (dice % 20)))
}

impl World {
    fn new(seed: u64) -> Self {
        let mut tree = Tree::default();
        for dir in DIRS {
            let _ = tree.make(
                dir,
                Charged {
                    owner: Owner::new(0, 0),
                    usage: usage(1),
                },
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup {
            usage: tree.tally(),
            ..Setup::new(VE, "/private")
        };
        let store = Arc::new(Watched {
            inner: MemoryStore::new(),
            journals: dir.path().into(),
            deaths: Mutex::default(),
        });
        drop(Engine::create(store.clone(), Environment::default(), setup).unwrap());
        let engine = mount(store.clone(), dir.path(), 1, "boot", &tree).unwrap();
        store.deaths.lock().unwrap().clear();
        let charged = tree
            .inodes
            .iter()
            .map(|(&ino, (_, held))| (ino, *held))
            .collect();
        Self {
            dice: seed | 1,
            tree,
            charged,
            engine,
            store,
            dir,
            open: Vec::new(),
            session: 1,
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    fn id(&self, ino: u64) -> InodeId {
        self.tree.inodes[&ino].0
    }

    fn is_busy(&self, ino: u64) -> bool {
        self.open.iter().any(|open| match open {
            Open::Create {
                parent, ino: own, ..
            }
            | Open::Unlink {
                parent, ino: own, ..
            } => *parent == ino || *own == ino,
            Open::Write { ino: own, .. } | Open::Drift { ino: own, .. } => *own == ino,
        })
    }

    /// Begins an operation, or takes one a step further.
    fn step(&mut self) {
        if !self.open.is_empty() && self.roll(3) > 0 {
            let at = self.roll(self.open.len() as u64) as usize;
            let open = self.open.swap_remove(at);
            return self.go_on(open);
        }
        match self.roll(9) {
            0 => self.engine.commit().unwrap(),
            1 => {
                let n = 1 + self.roll(3);
                let error = StoreError::Poisoned {
                    cause: "made up".into(),
                    retry_ms: 0,
                };
                match self.roll(2) {
                    0 => self.store.inner.fail_nth(n, error),
                    _ => self.store.inner.fail_nth_late(n, error),
                }
                let _ = self.engine.commit();
                let never = StoreError::Poisoned {
                    cause: "never".into(),
                    retry_ms: 0,
                };
                self.store.inner.fail_nth(u64::MAX / 2, never);
            }
            2..=4 => self.begin_create(),
            kind => self.begin_on_present(kind),
        }
    }

    fn begin_create(&mut self) {
        let (parent, ino) = (DIRS[self.roll(2) as usize], 10 + self.roll(12));
        if self.is_busy(parent) || self.is_busy(ino) || self.tree.inodes.contains_key(&ino) {
            return;
        }
        let name = ino.to_string().into_bytes();
        let touched = [(self.id(parent), Some(self.charged[&parent]))];
        let want = [Want::new(Owner::new(3, 3), usage(19))];
        let mut promise = self.engine.reserve(&touched, &want, &|| false).unwrap();
        promise.intend(&self.id(parent), &name);
        self.open.push(Open::Create {
            parent,
            ino,
            name,
            promise,
            done: None,
        });
    }

    fn begin_on_present(&mut self, kind: u64) {
        let present: Vec<_> = self.tree.names.keys().cloned().collect();
        if present.is_empty() {
            return;
        }
        let (parent, name) = present[self.roll(present.len() as u64) as usize].clone();
        let ino = self.tree.names[&(parent, name)];
        if self.is_busy(ino) {
            return;
        }
        let before = self.charged[&ino];
        match kind {
            5 if !self.is_busy(parent) => {
                let watches = [
                    self.engine
                        .watch(self.id(parent), Some(self.charged[&parent])),
                    self.engine.watch(self.id(ino), Some(before)),
                ];
                self.open.push(Open::Unlink {
                    parent,
                    ino,
                    watches,
                    done: None,
                });
            }
            6 => {
                let watch = self.engine.watch(self.id(ino), Some(before));
                let steps = self.roll(8);
                self.open.push(Open::Drift { ino, watch, steps });
            }
            _ => {
                let owner = Owner::new(self.roll(3) as u32, self.roll(3) as u32);
                let to = Charged {
                    owner,
                    usage: usage(self.roll(20)),
                };
                let want = [Want::new(owner, to.usage)];
                let touched = [(self.id(ino), Some(before))];
                let promise = self.engine.reserve(&touched, &want, &|| false).unwrap();
                self.open.push(Open::Write {
                    ino,
                    to,
                    promise,
                    done: false,
                });
            }
        }
    }

    fn go_on(&mut self, open: Open) {
        match open {
            Open::Create {
                parent,
                ino,
                name,
                promise,
                done: None,
            } => {
                if self.roll(8) == 0 {
                    // The system call failed.
                    return drop(promise);
                }
                let charged = Charged {
                    owner: Owner::new(3, 3),
                    usage: usage(self.dice),
                };
                let done = Some(self.tree.make(ino, charged));
                self.tree.names.insert((parent, name.clone()), ino);
                let grown = usage(self.roll(20));
                self.tree.inodes.get_mut(&parent).unwrap().1.usage = grown;
                self.open.push(Open::Create {
                    parent,
                    ino,
                    name,
                    promise,
                    done,
                });
            }
            Open::Create {
                parent,
                ino,
                promise,
                done: Some(inode),
                ..
            } => {
                let made = Change {
                    inode,
                    before: None,
                    after: Some(self.tree.inodes[&ino].1),
                };
                self.charged.insert(ino, self.tree.inodes[&ino].1);
                promise.settle(&[self.seen(parent), made]);
            }
            Open::Write {
                ino,
                to,
                promise,
                done: false,
            } => {
                self.tree.inodes.get_mut(&ino).unwrap().1 = to;
                self.open.push(Open::Write {
                    ino,
                    to,
                    promise,
                    done: true,
                });
            }
            Open::Write { ino, promise, .. } => promise.settle(&[self.seen(ino)]),
            Open::Unlink {
                parent,
                ino,
                watches,
                done: None,
            } => {
                self.tree.names.retain(|_, named| *named != ino);
                let done = self.tree.inodes.remove(&ino);
                self.tree.inodes.get_mut(&parent).unwrap().1.usage = usage(self.dice);
                self.open.push(Open::Unlink {
                    parent,
                    ino,
                    watches,
                    done,
                });
            }
            Open::Unlink {
                parent,
                ino,
                done: Some((inode, _)),
                watches,
            } => {
                let before = self.charged.remove(&ino);
                let gone = Change {
                    inode,
                    before,
                    after: None,
                };
                self.engine.record(&[gone]);
                let grown = self.seen(parent);
                self.engine.record(&[grown]);
                drop(watches);
            }
            Open::Drift { ino, watch, steps } => {
                self.tree.inodes.get_mut(&ino).unwrap().1.usage = usage(self.dice);
                if self.roll(2) == 0 || steps == 0 {
                    let change = self.seen(ino);
                    self.engine.record(&[change]);
                }
                if steps > 0 {
                    self.open.push(Open::Drift {
                        ino,
                        watch,
                        steps: steps - 1,
                    });
                }
            }
        }
    }

    /// What a look at an inode finds, as a change of what is charged.
    fn seen(&mut self, ino: u64) -> Change {
        let (inode, after) = self.tree.inodes[&ino];
        let before = self.charged.insert(ino, after);
        Change {
            inode,
            before,
            after: Some(after),
        }
    }

    /// The process dies here; and at every moment of a commit since the last call, when the tree was the same.
    fn die(&self) {
        let mut deaths = std::mem::take(&mut *self.store.deaths.lock().unwrap());
        deaths.push(Remains::of(&self.store.inner, self.dir.path()));
        for remains in &deaths {
            recover(remains, &self.tree, self.session + 1, 1);
            power_loss(remains, &self.tree);
        }
    }

    /// Goes on as the next mount, after a death.
    fn remount(&mut self) {
        self.session += 1;
        // What the dead process had in memory is gone; its cancelled promises must not reach the journal.
        let remains = Remains::of(&self.store.inner, self.dir.path());
        self.open.clear();
        self.dir = remains.lay_out();
        self.store = Arc::new(Watched {
            inner: remains.store,
            journals: self.dir.path().into(),
            deaths: Mutex::default(),
        });
        self.engine = mount(
            self.store.clone(),
            self.dir.path(),
            self.session,
            "boot",
            &self.tree,
        )
        .unwrap();
        self.charged = self
            .tree
            .inodes
            .iter()
            .map(|(&ino, (_, held))| (ino, *held))
            .collect();
    }
}

/// Recovers, also when the recovery itself is cut off at its commit.
fn recover(remains: &Remains, tree: &Tree, session: u64, depth: u32) {
    let dir = remains.lay_out();
    let store = Arc::new(Watched {
        inner: remains.store.crash(),
        journals: dir.path().into(),
        deaths: Mutex::default(),
    });
    let engine = mount(store.clone(), dir.path(), session, "boot", tree).unwrap();
    assert_eq!(
        engine.tally().unwrap().differences(&tree.tally()),
        [],
        "{:?}",
        engine.standing()
    );
    if depth > 0 {
        for again in std::mem::take(&mut *store.deaths.lock().unwrap()) {
            recover(&again, tree, session + 1, depth - 1);
        }
    }
}

/// After another boot the journal is refused, and the store does not claim that its totals are final.
fn power_loss(remains: &Remains, tree: &Tree) {
    let store: Arc<dyn Store> = Arc::new(remains.store.crash());
    let engine = Engine::open(store.clone(), Environment::default()).unwrap();
    let Standing::Journaled { .. } = engine.standing() else {
        panic!("a store in service says {:?}", engine.standing())
    };
    let dir = remains.lay_out();
    let refused = mount(store, dir.path(), 999, "another boot", tree);
    assert!(matches!(refused, Err(Unusable::Foreign(_))), "{refused:?}");
    engine.begin_service(1000, true).unwrap();
    assert!(matches!(engine.standing(), Standing::Unknown { .. }));
    let _ = engine.replace_usage(&tree.tally()).unwrap();
    engine.totals_are_known().unwrap();
    assert!(matches!(engine.standing(), Standing::Journaled { .. }));
    assert_eq!(engine.tally().unwrap().differences(&tree.tally()), []);
}

// S51: a death at any step; S52: and a loss of power, which keeps the last commit.
#[test]
fn totals_are_exact_after_a_death_at_any_step() {
    for seed in 1..=12 {
        let mut world = World::new(seed * 0x9e37_79b9);
        for step in 0..80 {
            world.step();
            world.die();
            if step % 25 == 24 {
                world.remount();
            }
        }
    }
}

#[test]
fn a_clean_end_needs_no_journal() {
    let mut world = World::new(5);
    for _ in 0..50 {
        world.step();
    }
    while let Some(open) = world.open.pop() {
        world.go_on(open);
    }
    world.engine.end_service().unwrap();
    let engine = Engine::open(world.store.clone(), Environment::default()).unwrap();
    assert_eq!(engine.standing(), Standing::Final);
    assert_eq!(engine.tally().unwrap().differences(&world.tree.tally()), []);
}

#[test]
fn orders_given_between_a_death_and_the_next_mount_keep_the_journal_valid() {
    let mut world = World::new(11);
    for _ in 0..60 {
        world.step();
    }
    let remains = Remains::of(&world.store.inner, world.dir.path());
    let store: Arc<dyn Store> = Arc::new(remains.store.crash());
    let offline = Engine::open(store.clone(), Environment::default()).unwrap();
    let limits = quota::LimitsChange::default();
    for limit in [10, 20] {
        let _ = offline.set_limits(Subject::Ve, &limits).unwrap();
        let _ = offline.set_ugid_limit(limit).unwrap();
    }
    drop(offline);
    let dir = remains.lay_out();
    let engine = mount(store, dir.path(), 2, "boot", &world.tree).unwrap();
    assert_eq!(engine.tally().unwrap().differences(&world.tree.tally()), []);
}

/// Usage that was counted while no daemon ran needs no journal.
#[test]
fn a_recount_between_a_death_and_the_next_mount_voids_the_journal() {
    let mut world = World::new(13);
    while world.tree.tally() == world.engine.tally().unwrap() {
        world.step();
    }
    let store: Arc<dyn Store> = Arc::new(world.store.inner.crash());
    let offline = Engine::open(store, Environment::default()).unwrap();
    assert!(matches!(offline.standing(), Standing::Journaled { .. }));
    let _ = offline.replace_usage(&world.tree.tally()).unwrap();
    assert_eq!(offline.standing(), Standing::Final);
}

/// A journal with something in it, and where.
fn filled(dir: &Path, records: u64) -> PathBuf {
    let path = journal_file(dir, 1);
    let journal = Arc::new(FileJournal::create(&path, identity(1, "boot")).unwrap());
    let store = Arc::new(MemoryStore::new());
    drop(Engine::create(store.clone(), Environment::default(), Setup::new(VE, "/p")).unwrap());
    let engine = Engine::open_journaled(store, Environment::default(), journal).unwrap();
    engine.begin_service(1, false).unwrap();
    for ino in 0..records {
        drop(engine.watch(InodeId::new(ino, 1, &[1; 12]), None));
    }
    path
}

#[test]
fn a_journal_that_was_changed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), 3);
    let whole = std::fs::read(&path).unwrap();
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Image::read(&path, &identity(1, "boot"))
    };
    assert_eq!(
        read(&whole)
            .unwrap()
            .touched_since(quota::Epoch::new(1))
            .len(),
        3
    );
    // The records start behind the header and the slots for names.
    for at in [0, 9, 17, 25, 36_864, 36_864 + 130, 36_864 + 2 * 128 + 90] {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        assert!(
            matches!(read(&bytes), Err(Unusable::Damaged(_))),
            "byte {at}"
        );
    }
    for length in [0, 100, 4096, 36_864, whole.len() - 1] {
        assert!(
            matches!(read(&whole[..length]), Err(Unusable::Damaged(_))),
            "{length} bytes"
        );
    }
    read(&whole).unwrap();
    for (foreign, why) in [
        (
            Identity {
                ve: VeId::new(8),
                ..identity(1, "boot")
            },
            "another VE",
        ),
        (identity(2, "boot"), "another mount"),
        (identity(1, "later"), "another boot"),
    ] {
        let refused = Image::read(&path, &foreign);
        assert!(matches!(refused, Err(Unusable::Foreign(_))), "{why}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        Image::read(&path, &identity(1, "boot")),
        Err(Unusable::Missing)
    ));
}

#[test]
fn the_file_shrinks_after_a_burst() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal_file(dir.path(), 1);
    let journal = Arc::new(FileJournal::create(&path, identity(1, "boot")).unwrap());
    let store = Arc::new(MemoryStore::new());
    drop(Engine::create(store.clone(), Environment::default(), Setup::new(VE, "/p")).unwrap());
    let engine = Engine::open_journaled(store, Environment::default(), journal).unwrap();
    engine.begin_service(1, false).unwrap();
    for ino in 0..40_000 {
        drop(engine.watch(InodeId::new(ino, 1, &[1; 12]), None));
    }
    assert!(engine.wants_commit());
    let size = || std::fs::metadata(&path).unwrap().len();
    let burst = size();
    let one = Change {
        inode: InodeId::new(1, 1, &[1; 12]),
        before: None,
        after: Some(Charged {
            owner: Owner::new(0, 0),
            usage: Usage::new(Bytes::ZERO, Inodes::new(1)),
        }),
    };
    engine.record(&[one]);
    engine.commit().unwrap();
    assert!(!engine.wants_commit());
    assert!(size() < burst / 3, "{} of {burst} bytes are left", size());
    assert!(Image::read(&path, &identity(1, "boot")).is_ok());
}
