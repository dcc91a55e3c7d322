//! A process that is killed, and a host that loses power, at any moment: every acknowledged commit is found, and none
//! is torn.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quota::store::record::{self, AccountRecord, key};
use quota::store::{Batch, DiskStore, Store as _};
use quota::{Bytes, Inodes, QuotaType, Subject, Usage};
use tempfile::TempDir;

use crate::sample::{VE, can_run_as_root, open, put_account, read_account, run, run_apart, user};

/// Names the store's directory to the child.
const DIR: &str = "SIMFS_TEST_STORE";
/// Names the directory of image and mount point to the test that cuts the power.
const CUT_DIR: &str = "SIMFS_TEST_CUT";
/// Names the file system to it.
const CUT_TYPE: &str = "SIMFS_TEST_CUT_TYPE";
/// Rounds of kills, and of power cuts on each file system, unless this variable names another number.
const ROUNDS: (&str, u64) = ("SIMFS_STORE_ROUNDS", 12);
/// Space that moves between the users, never lost.
const SUM: u64 = 1 << 40;
/// Users that share the sum.
const USERS: u32 = 8;
/// Groups that all hold the number of the last large commit.
const GROUPS: u32 = 1500;

fn put(batch: &mut Batch, subject: Subject, space: u64, inodes: u64) {
    let usage = Usage::new(Bytes::new(space), Inodes::new(inodes));
    let account = AccountRecord {
        usage,
        ..AccountRecord::default()
    };
    put_account(batch, subject, &account);
}

fn usages(store: &DiskStore, kind: QuotaType) -> Vec<Usage> {
    let found = store.scan(key::prefix(kind), b"", usize::MAX).unwrap();
    let usage = |(key, value): (Vec<u8>, Vec<u8>)| {
        record::decode::<AccountRecord>(&key, &value).unwrap().usage
    };
    found.into_iter().map(usage).collect()
}

fn sequence(store: &DiskStore) -> u64 {
    read_account(store, Subject::Ve).map_or(0, |account| account.usage.inodes.get())
}

/// Checks the invariants of the store, and says which commit was the last.
fn check(dir: &Path) -> u64 {
    let store = open(dir);
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
    let store = open(Path::new(&dir));
    let mut number = sequence(&store);
    loop {
        number += 1;
        let mut batch = Batch::new();
        put(&mut batch, Subject::Ve, 0, number);
        let part = number % 1000;
        for id in 0..USERS {
            let space = if id == 0 {
                SUM - part * u64::from(USERS - 1)
            } else {
                part
            };
            put(&mut batch, user(id), space, number);
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
            .args(["--exact", "crash::child", "--ignored", "--nocapture"])
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
fn rounds(dir: &Path, stop: impl Fn(Running) -> u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut random = u64::from(now.subsec_nanos());
    let mut last = 0;
    let (variable, usual) = ROUNDS;
    let given = std::env::var(variable).ok();
    let count = given.map_or(usual, |count| count.parse().expect(variable));
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
    drop(DiskStore::create(dir.path(), VE).unwrap());
    rounds(dir.path(), Running::kill);
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
    let kind = std::env::var(CUT_TYPE).unwrap();
    run(&["truncate", "-s", "320M", image]);
    run(&[&format!("mkfs.{kind}"), "-q", image]);
    run(&["mount", "-o", "loop", image, mountpoint]);
    let store = Path::new(mountpoint).join("store");
    // Made just before the first cut, so that its files are as new as can be.
    drop(DiskStore::create(&store, VE).unwrap());
    rounds(&store, |running| {
        // What is not on the disk now is lost, the journal of the file system too.
        run(&["xfs_io", "-x", "-c", "shutdown", mountpoint]);
        let acknowledged = running.kill();
        run(&["umount", mountpoint]);
        run(&["mount", "-o", "loop", image, mountpoint]);
        acknowledged
    });
}

fn cut_power_of(kind: &str) {
    if !can_run_as_root(&["unshare", "xfs_io", &format!("mkfs.{kind}")]) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let env = [(CUT_DIR, dir.path()), (CUT_TYPE, Path::new(kind))];
    run_apart("crash::cut", "", &env);
}

// S52: what was acknowledged is there after a power cut.
#[test]
fn every_acknowledged_commit_survives_a_power_cut_on_ext4() {
    cut_power_of("ext4");
}

#[test]
fn every_acknowledged_commit_survives_a_power_cut_on_xfs() {
    cut_power_of("xfs");
}
