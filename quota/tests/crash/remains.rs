//! What a process leaves that dies, and what the next one makes of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use quota::journal::{Identity, Image, Unusable};
use quota::recovery::missed;
use quota::store::memory::MemoryStore;
use quota::store::{Batch, Entry};
use quota::{Engine, Environment, FileJournal, Standing, Store, StoreError};

use super::VE;
use super::tree::Tree;

/// What is left of a process that died.
pub(crate) struct Remains {
    pub(crate) store: MemoryStore,
    journals: Vec<(PathBuf, Vec<u8>)>,
}

impl Remains {
    pub(crate) fn of(store: &MemoryStore, dir: &Path) -> Self {
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

    pub(crate) fn lay_out(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in &self.journals {
            std::fs::write(dir.path().join(path.file_name().unwrap()), bytes).unwrap();
        }
        dir
    }
}

/// A store that also keeps what a death just before and just after each commit would leave.
pub(crate) struct Watched {
    pub(crate) inner: MemoryStore,
    pub(crate) journals: PathBuf,
    pub(crate) deaths: Mutex<Vec<Remains>>,
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
pub(crate) fn mount(
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

/// Recovers, also when the recovery itself is cut off at its commit.
pub(crate) fn recover(remains: &Remains, tree: &Tree, session: u64, depth: u32) {
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
pub(crate) fn power_loss(remains: &Remains, tree: &Tree) {
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
