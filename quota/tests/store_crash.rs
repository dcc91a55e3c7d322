//! A process that is killed, and a host that loses power, at any moment: every acknowledged commit is found, and none
//! is torn.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test states what it expects"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quota::store::record::{self, AccountRecord, key};
use quota::store::sled::SledStore;
use quota::store::{Batch, Store as _};
use quota::{Bytes, Inodes, QuotaType, Subject, Uid, Usage, VeId};
use tempfile::TempDir;

const VE: VeId = VeId::new(101);
/// Names the store's directory to the child.
const DIR: &str = "SIMFS_TEST_STORE";
/// Names the directory of image and mount point to the test that cuts the power.
const CUT_DIR: &str = "SIMFS_TEST_CUT";
/// How often the child is killed.
const KILLS: u64 = 30;
/// How often the power is cut.
const CUTS: u64 = 12;
/// Space that moves between the users, never lost.
const SUM: u64 = 1 << 40;
/// Users that share the sum.
const USERS: u32 = 8;
/// Groups that all hold the number of the last large commit.
const GROUPS: u32 = 1500;

fn put(batch: &mut Batch, subject: Subject, space: u64, inodes: u64) {
    let key = key::account(subject);
    let usage = Usage::new(Bytes::new(space), Inodes::new(inodes));
    let value = record::encode(
        &key,
        &AccountRecord {
            usage,
            ..AccountRecord::default()
        },
    );
    batch.put(key, value);
}

fn usages(store: &SledStore, kind: QuotaType) -> Vec<Usage> {
    let found = store.scan(key::prefix(kind), b"", usize::MAX).unwrap();
    let usage = |(key, value): (Vec<u8>, Vec<u8>)| {
        record::decode::<AccountRecord>(&key, &value).unwrap().usage
    };
    found.into_iter().map(usage).collect()
}

fn sequence(store: &SledStore) -> u64 {
    let key = key::account(Subject::Ve);
    store.get(&key).unwrap().map_or(0, |value| {
        record::decode::<AccountRecord>(&key, &value)
            .unwrap()
            .usage
            .inodes
            .get()
    })
}

/// Checks the invariants of the store, and says which commit was the last.
fn check(dir: &Path) -> u64 {
    let store = SledStore::open(dir, VE).unwrap();
    let sequence = sequence(&store);
    let users = usages(&store, QuotaType::User);
    let sum: u64 = users.iter().map(|usage| usage.space.get()).sum();
    assert_eq!(
        sum,
        if sequence == 0 { 0 } else { SUM },
        "a commit is torn: {users:?}"
    );
    let groups = usages(&store, QuotaType::Group);
    let first = groups.first().copied();
    assert!(
        groups.iter().all(|&usage| Some(usage) == first),
        "a large commit is torn"
    );
    assert!(groups.is_empty() || groups.len() == GROUPS as usize);
    sequence
}

/// The child: commits for ever, and names each commit once it is acknowledged.
#[test]
#[ignore = "the process that the tests below start and stop"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = SledStore::open(Path::new(&dir), VE).unwrap();
    let mut number = sequence(&store);
    loop {
        number += 1;
        let mut batch = Batch::new();
        put(&mut batch, Subject::Ve, 0, number);
        let part = number % 1000;
        for user in 0..USERS {
            let space = if user == 0 {
                SUM - part * u64::from(USERS - 1)
            } else {
                part
            };
            put(&mut batch, Subject::User(Uid::new(user)), space, number);
        }
        if number.is_multiple_of(16) {
            for group in 0..GROUPS {
                put(&mut batch, QuotaType::Group.subject(group), number, number);
            }
        }
        store.commit(&batch).unwrap();
        println!("ack {number}");
        std::io::stdout().flush().unwrap();
    }
}

/// The child at work, and the thread that hears which commits it acknowledges.
struct Running {
    child: Child,
    reader: JoinHandle<u64>,
}

impl Running {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = thread::spawn(move || {
            let acks = lines.map_while(Result::ok);
            acks.filter_map(|line| line.strip_prefix("ack ")?.parse().ok())
                .last()
                .unwrap_or(0)
        });
        Self { child, reader }
    }

    /// Kills the child, and says which commit it acknowledged last.
    fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.join().unwrap()
    }
}

/// Lets the child work for a random while in each round and stops it; checks what is found each time.
fn rounds(count: u64, dir: &Path, stop: impl Fn(Running) -> u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut random = u64::from(now.subsec_nanos());
    let mut last = 0;
    for round in 0..count {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let running = Running::start(dir);
        thread::sleep(Duration::from_micros(10_000 + (random >> 33) % 150_000));
        let acknowledged = stop(running).max(last);
        let found = check(dir);
        assert!(
            (acknowledged..=acknowledged + 1).contains(&found),
            "round {round}: acknowledged {acknowledged}, found {found}"
        );
        last = found;
    }
    assert!(last > count, "the child hardly ran: {last}");
}

#[test]
fn every_acknowledged_commit_survives_a_kill_whole() {
    let dir = TempDir::new().unwrap();
    drop(SledStore::create(dir.path(), VE).unwrap());
    rounds(KILLS, dir.path(), Running::kill);
}

fn run(command: &[&str]) {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The power cuts, in a mount namespace of their own: what is mounted ends with the process.
#[test]
#[ignore = "needs the mount namespace that the test below makes for it"]
fn cut() {
    let Some(dir) = std::env::var_os(CUT_DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let (image, mountpoint) = (dir.join("image"), dir.join("mnt"));
    let (image, mountpoint) = (image.to_str().unwrap(), mountpoint.to_str().unwrap());
    fs::create_dir(mountpoint).unwrap();
    run(&["truncate", "-s", "64M", image]);
    run(&["mkfs.ext4", "-q", image]);
    run(&["mount", "-o", "loop", image, mountpoint]);
    let store = Path::new(mountpoint).join("store");
    // Made just before the first cut, so that its files are as new as can be.
    drop(SledStore::create(&store, VE).unwrap());
    rounds(CUTS, &store, |running| {
        // What is not on the disk now is lost, the journal of the file system too.
        run(&["xfs_io", "-x", "-c", "shutdown", mountpoint]);
        let acknowledged = running.kill();
        run(&["umount", mountpoint]);
        run(&["mount", "-o", "loop", image, mountpoint]);
        acknowledged
    });
}

// S52: what was acknowledged is there after a power cut.
#[test]
fn every_acknowledged_commit_survives_a_power_cut_whole() {
    let able = rustix::process::geteuid().is_root() && Command::new("xfs_io").output().is_ok();
    if !able {
        assert!(
            std::env::var_os("SIMFS_STRICT").is_none(),
            "needs root and xfs_io"
        );
        println!("skipped: needs root and xfs_io");
        return;
    }
    let dir = TempDir::new().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "cut", "--ignored", "--nocapture"])
        .env(CUT_DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
}
