//! A random history: operations that begin, go on and end side by side, with commits and failures of the store between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Change, Charged, Engine, Environment, InodeId, Owner, Reservation, Setup, StoreError,
    Usage, Want, Watch,
};

use super::VE;
use super::remains::{Remains, Watched, mount, power_loss, recover};
use super::tree::Tree;

/// The directories in which names are made.
const DIRS: [u64; 2] = [1, 2];

/// An operation between two of its steps.
pub(crate) enum Open {
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

pub(crate) struct World {
    dice: u64,
    pub(crate) tree: Tree,
    /// What the totals hold, as a daemon knows it.
    charged: BTreeMap<u64, Charged>,
    pub(crate) engine: Engine,
    pub(crate) store: Arc<Watched>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) open: Vec<Open>,
    session: u64,
}

fn usage(dice: u64) -> Usage {
    Usage::inode(Bytes::new(4096 * (dice % 20)))
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
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
    pub(crate) fn step(&mut self) {
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

    pub(crate) fn go_on(&mut self, open: Open) {
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
    pub(crate) fn die(&self) {
        let mut deaths = std::mem::take(&mut *self.store.deaths.lock().unwrap());
        deaths.push(Remains::of(&self.store.inner, self.dir.path()));
        for remains in &deaths {
            recover(remains, &self.tree, self.session + 1, 1);
            power_loss(remains, &self.tree);
        }
    }

    /// Goes on as the next mount, after a death.
    pub(crate) fn remount(&mut self) {
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
