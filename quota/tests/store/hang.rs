//! A disk that does not answer: callers go on, and the process is told to end.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use quota::store::{Batch, DiskStore, Options, Store as _, StoreError};
use tempfile::TempDir;

use crate::sample::{VE, can_run_as_root, change, info, open, put_info, read_info, run, run_apart};

/// Names the mount point to the child.
const DIR: &str = "SIMFS_TEST_HANG";

/// The child, on a file system of its own that is frozen: what would write to it waits.
#[test]
#[ignore = "needs the file system that the test below mounts for it"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let mountpoint = Path::new(&dir);
    let dir = mountpoint.join("store");
    let (report, reported) = mpsc::channel();
    let options = Options {
        time_limit: Duration::from_millis(300),
        on_hang: Arc::new(move |op| report.send(op).unwrap()),
    };
    let store = DiskStore::create_with(&dir, VE, options).unwrap();
    let mut batch = Batch::new();
    put_info(&mut batch, &info(1));
    store.commit(&batch).unwrap();
    store.keep_copy(&change(1, [])).unwrap();

    let freeze = |how| run(&["xfs_freeze", how, mountpoint.to_str().unwrap()]);
    freeze("-f");
    let mut batch = Batch::new();
    put_info(&mut batch, &info(2));
    let timeout = |result| matches!(result, Err(StoreError::Timeout { .. }));
    let hung = timeout(store.commit(&batch));
    let later = timeout(store.get(b"i").map(drop)) && timeout(store.keep_copy(&change(2, [])));
    let reports: Vec<_> = reported.try_iter().collect();
    freeze("-u");
    assert!(hung && later);
    assert_eq!(reports, ["commit"], "told once");
    drop(store);
    // The process would have ended; the lock ends with the call that hung.
    let epoch = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let store = DiskStore::open(&dir, VE).ok()?;
        Some(read_info(&store).unwrap().epoch)
    });
    assert!(matches!(epoch, Some(1 | 2)), "{epoch:?}");
    drop(open(&dir));
}

#[test]
fn a_disk_that_does_not_answer_is_reported_and_holds_nobody_up() {
    if !can_run_as_root(&["unshare", "xfs_freeze", "mkfs.ext4"]) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let (image, mountpoint) = (dir.path().join("image"), dir.path().join("mnt"));
    std::fs::create_dir(&mountpoint).unwrap();
    run(&["truncate", "-s", "64M", image.to_str().unwrap()]);
    run(&["mkfs.ext4", "-q", image.to_str().unwrap()]);
    let script = format!("mount -o loop {} \"$SIMFS_TEST_HANG\" &&", image.display());
    run_apart("hang::child", &script, &[(DIR, &mountpoint)]);
}
