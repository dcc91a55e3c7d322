//! A process that is killed at any moment: every acknowledged commit is found, and none is torn.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quota::store::record::{self, AccountRecord, key};
use quota::store::sled::SledStore;
use quota::store::{Batch, Store as _};
use quota::{Bytes, Inodes, QuotaType, Subject, Uid, Usage, VeId};
use tempfile::TempDir;

const VE: VeId = VeId::new(101);
/// Names the store's directory to the child.
const DIR: &str = "SIMFS_TEST_STORE";
/// How often the child is killed.
const KILLS: u64 = 30;
/// Space that moves between the users, never lost.
const SUM: u64 = 1 << 40;
/// Users that share the sum.
const USERS: u32 = 8;
/// Groups that all hold the number of the last large commit.
const GROUPS: u32 = 1500;

fn put(batch: &mut Batch, subject: Subject, space: u64, inodes: u64) {
    let key = key::account(subject);
    let usage = Usage::new(Bytes::new(space), Inodes::new(inodes));
    let value = record::encode(&key, &AccountRecord { usage, ..AccountRecord::default() });
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
        record::decode::<AccountRecord>(&key, &value).unwrap().usage.inodes.get()
    })
}

/// Checks the invariants of the store, and says which commit was the last.
fn check(dir: &Path) -> u64 {
    let store = SledStore::open(dir, VE).unwrap();
    let sequence = sequence(&store);
    let users = usages(&store, QuotaType::User);
    let sum: u64 = users.iter().map(|usage| usage.space.get()).sum();
    assert_eq!(sum, if sequence == 0 { 0 } else { SUM }, "a commit is torn: {users:?}");
    let groups = usages(&store, QuotaType::Group);
    let first = groups.first().copied();
    assert!(groups.iter().all(|&usage| Some(usage) == first), "a large commit is torn");
    assert!(groups.is_empty() || groups.len() == 1500);
    sequence
}

/// The child: commits for ever, and names each commit once it is acknowledged.
#[test]
#[ignore = "the process that the kill test starts and kills"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = SledStore::open(Path::new(&dir), VE).unwrap();
    let mut number = sequence(&store);
    loop {
        number += 1;
        let mut batch = Batch::new();
        put(&mut batch, Subject::Ve, 0, number);
        let part = number % 1000;
        for user in 0..USERS {
            let space = if user == 0 { SUM - part * u64::from(USERS - 1) } else { part };
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

/// Runs the child for a while, kills it, and says which commit it acknowledged last.
fn run_and_kill(dir: &Path, life: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reader = thread::spawn(move || {
        let acks = lines.map_while(Result::ok);
        acks.filter_map(|line| line.strip_prefix("ack ")?.parse().ok()).last().unwrap_or(0)
    });
    thread::sleep(life);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn every_acknowledged_commit_survives_a_kill_whole() {
    let dir = TempDir::new().unwrap();
    drop(SledStore::create(dir.path(), VE).unwrap());
    let mut random = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut last = 0;
    for round in 0..KILLS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let life = Duration::from_micros(10_000 + (random >> 33) % 150_000);
        let acknowledged = run_and_kill(dir.path(), life).max(last);
        let found = check(dir.path());
        assert!(
            (acknowledged..=acknowledged + 1).contains(&found),
            "round {round}: acknowledged {acknowledged}, found {found}"
        );
        last = found;
    }
    assert!(last > KILLS, "the child hardly ran: {last}");
}
