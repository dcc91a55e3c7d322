//! A file system without room: a clear error, nothing durable lost, and work goes on when there is room again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test states what it expects"
)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use quota::VeId;
use quota::store::copy::LimitsCopy;
use quota::store::record::{self, InfoRecord, key};
use quota::store::sled::SledStore;
use quota::store::{Batch, Store, StoreError};
use quota::{GracePeriods, Timestamp};
use tempfile::TempDir;

const VE: VeId = VeId::new(101);
/// Names the small file system to the child.
const DIR: &str = "SIMFS_TEST_FULL";

fn info(epoch: u64) -> InfoRecord {
    InfoRecord {
        ve: VE,
        private: "p".repeat(4000),
        grace: [GracePeriods::default(); 3],
        enforced: [true; 3],
        ugid_limit: 0,
        epoch,
        created: Timestamp::new(1),
    }
}

fn commit(store: &SledStore, epoch: u64) -> Result<(), StoreError> {
    let key = key::info();
    let mut batch = Batch::new();
    let value = record::encode(&key, &info(epoch));
    batch.put(key, value);
    store.commit(&batch)
}

fn epoch(store: &SledStore) -> Result<u64, StoreError> {
    let key = key::info();
    let value = store.get(&key)?.unwrap();
    Ok(record::decode::<InfoRecord>(&key, &value).unwrap().epoch)
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
    let store = SledStore::create(&dir.join("store"), VE).unwrap();
    commit(&store, 1).unwrap();
    store.write_copy(&LimitsCopy::new(&info(1), [])).unwrap();
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
    let copied = store.write_copy(&LimitsCopy::new(&info(9), []));
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

    fs::remove_file(dir.join("filler")).unwrap();
    let started = Instant::now();
    let found = loop {
        match epoch(&store) {
            Ok(found) => break found,
            Err(StoreError::Poisoned { retry_ms, .. }) => {
                thread::sleep(Duration::from_millis(retry_ms + 1));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(started.elapsed() < Duration::from_secs(10));
    };
    assert!(
        found == acknowledged || found == acknowledged + 1,
        "{acknowledged} became {found}"
    );
    commit(&store, 7000).unwrap();
    drop(store);
    let store = SledStore::open(&dir.join("store"), VE).unwrap();
    assert_eq!(epoch(&store).unwrap(), 7000);
    assert_eq!(
        LimitsCopy::read(&dir.join("store"))
            .unwrap()
            .unwrap()
            .private,
        info(1).private
    );
}

#[test]
fn a_full_file_system_is_an_error_that_ends_by_itself() {
    if !rustix::process::geteuid().is_root() {
        assert!(
            std::env::var_os("SIMFS_STRICT").is_none(),
            "needs root to mount"
        );
        println!("skipped: needs root to mount a small file system");
        return;
    }
    let dir = TempDir::new().unwrap();
    // The mount ends with the namespace, that is with the child.
    let script = r#"mount -t tmpfs -o size=4m none "$SIMFS_TEST_FULL" && exec "$0" "$@""#;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "{text}{errors}");
}
