//! A file system without room: a clear error, nothing durable lost, and work goes on when there is room again.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use quota::store::copy::{AccountCopy, CopyChange, LimitsCopy};
use quota::store::record::InfoRecord;
use quota::store::{Batch, DiskStore, Store as _, StoreError};
use tempfile::TempDir;

use crate::sample::{
    self, VE, account, can_run_as_root, open, put_account, put_info, read_info, run_apart, user,
};

/// Names the small file system to the child.
const DIR: &str = "SIMFS_TEST_FULL";

/// Settings of some length.
fn info(epoch: u64) -> InfoRecord {
    InfoRecord {
        private: "p".repeat(4000),
        ..sample::info(epoch)
    }
}

fn commit(store: &DiskStore, epoch: u64) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    put_info(&mut batch, &info(epoch));
    // Each commit needs more room than the one before.
    let first = u32::try_from(epoch * 500).unwrap();
    for id in first..first + 500 {
        put_account(&mut batch, user(id), &account(id));
    }
    store.commit(&batch)
}

fn change(epoch: u64, accounts: u32) -> CopyChange {
    let copied = |id| AccountCopy::new(user(id), &account(id));
    CopyChange {
        info: info(epoch),
        accounts: (0..accounts).map(copied).collect(),
    }
}

fn fill(path: &Path) {
    let zeros = vec![0; 64 << 10];
    let mut file = fs::File::create(path).unwrap();
    for size in [zeros.len(), 4096] {
        while std::io::Write::write_all(&mut file, &zeros[..size]).is_ok() {}
    }
}

/// The child, in a mount namespace of its own.
#[test]
#[ignore = "needs the small file system that the test below mounts for it"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let store = DiskStore::create(&dir.join("store"), VE).unwrap();
    commit(&store, 1).unwrap();
    store.keep_copy(&change(1, 1)).unwrap();
    fill(&dir.join("filler"));

    let mut acknowledged = 1;
    let refused = (2..5000)
        .find_map(|epoch| match commit(&store, epoch) {
            Ok(()) => {
                acknowledged = epoch;
                None
            }
            Err(error) => Some(error),
        })
        .expect("the file system gets full");
    assert!(matches!(refused, StoreError::NoSpace { .. }), "{refused}");
    let copied = store.keep_copy(&change(9, 500));
    assert!(matches!(copied, Err(StoreError::NoSpace { .. })));
    // The first tries open the store again at once, later ones have to wait.
    let mut paused = false;
    for _ in 0..6 {
        match commit(&store, acknowledged + 1).unwrap_err() {
            StoreError::NoSpace { .. } => {}
            StoreError::Poisoned { retry_ms, .. } => paused = retry_ms <= 5000,
            other => panic!("{other}"),
        }
    }
    assert!(paused);

    let found = read_info(&store).unwrap().epoch;
    assert!(
        found == acknowledged || found == acknowledged + 1,
        "{acknowledged} became {found}"
    );

    fs::remove_file(dir.join("filler")).unwrap();
    let started = Instant::now();
    while let Err(error) = commit(&store, 7000) {
        let StoreError::Poisoned { retry_ms, .. } = error else {
            panic!("{error}");
        };
        thread::sleep(Duration::from_millis(retry_ms + 1));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    drop(store);
    let store = open(&dir.join("store"));
    assert_eq!(read_info(&store).unwrap().epoch, 7000);
    let copy = LimitsCopy::read(&dir.join("store"), VE).unwrap().unwrap();
    let (info, accounts) = (copy.info.unwrap(), copy.accounts);
    assert_eq!(info.private, self::info(1).private);
    assert_eq!((accounts.len(), copy.damaged.len()), (1, 0));
}

#[test]
fn a_full_file_system_is_an_error_that_ends_by_itself() {
    if !can_run_as_root(&["unshare"]) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let script = r#"mount -t tmpfs -o size=4m none "$SIMFS_TEST_FULL" &&"#;
    run_apart("full::child", script, &[(DIR, dir.path())]);
}
