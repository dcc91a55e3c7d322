//! What the store's tests put into it, and the means they share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quota::store::copy::{AccountCopy, CopyChange};
use quota::store::record::{self, AccountRecord, InfoRecord, key};
use quota::store::{Batch, DiskStore, Store as _, StoreError};
use quota::{Bytes, GracePeriods, Inodes, Limit, Limits, Subject, Timestamp, Uid, Usage, VeId};

pub(crate) const VE: VeId = VeId::new(101);
/// The name of the database's file.
pub(crate) const DATABASE: &str = "quota.redb";

pub(crate) fn data(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
}

/// Settings of this commit.
pub(crate) fn info(epoch: u64) -> InfoRecord {
    InfoRecord {
        ve: VE,
        private: "/vz/private/101".into(),
        grace: [GracePeriods::default(); 3],
        enforced: [true; 3],
        ugid_limit: 0,
        epoch,
        created: Timestamp::new(1),
    }
}

/// Limits of no other number.
pub(crate) fn limits(number: u64) -> Limits {
    Limits {
        space: Limit::new(None, Some(Bytes::new(number + 1))),
        inodes: Limit::UNLIMITED,
    }
}

/// The account of a user with this number.
pub(crate) fn account(id: u32) -> AccountRecord {
    AccountRecord {
        usage: Usage::new(Bytes::new(u64::from(id)), Inodes::new(1)),
        limits: limits(u64::from(id)),
        ..AccountRecord::default()
    }
}

pub(crate) const fn user(id: u32) -> Subject {
    Subject::User(Uid::new(id))
}

pub(crate) fn put_account(batch: &mut Batch, subject: Subject, account: &AccountRecord) {
    let key = key::account(subject);
    let value = record::encode(&key, account);
    batch.put(key, value);
}

pub(crate) fn put_info(batch: &mut Batch, info: &InfoRecord) {
    let key = key::info();
    let value = record::encode(&key, info);
    batch.put(key, value);
}

pub(crate) fn read_account(store: &DiskStore, subject: Subject) -> Option<AccountRecord> {
    let key = key::account(subject);
    let value = store.get(&key).unwrap()?;
    Some(record::decode(&key, &value).unwrap())
}

pub(crate) fn read_info(store: &DiskStore) -> Result<InfoRecord, StoreError> {
    let key = key::info();
    let value = store.get(&key)?.expect("settings");
    Ok(record::decode(&key, &value).unwrap())
}

/// What the copy is to know of these accounts.
pub(crate) fn change<'a>(
    epoch: u64,
    accounts: impl IntoIterator<Item = &'a (Subject, AccountRecord)>,
) -> CopyChange {
    let accounts = accounts.into_iter();
    CopyChange {
        info: info(epoch),
        accounts: accounts
            .map(|(subject, record)| AccountCopy::new(*subject, record))
            .collect(),
    }
}

pub(crate) fn open(dir: &Path) -> DiskStore {
    DiskStore::open(dir, VE).unwrap()
}

pub(crate) fn open_error(dir: &Path) -> StoreError {
    DiskStore::open(dir, VE).err().expect("an error")
}

pub(crate) fn remove_copy(dir: &Path) {
    fs::remove_file(dir.join("settings.copy")).unwrap();
    fs::remove_file(dir.join("limits.copy")).unwrap();
}

/// A file of one line of a copy, with a right checksum.
pub(crate) fn write_line(path: &Path, json: &str) {
    let checksum = crc32fast::hash(json.as_bytes());
    fs::write(path, format!("{checksum:08x} {json}\n")).unwrap();
}

/// All names in a directory.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Whether this test can run as root with these programs; one that is skipped says so, and fails in strict mode.
pub(crate) fn can_run_as_root(programs: &[&str]) -> bool {
    let lacks = |program: &&&str| Command::new(program).arg("-V").output().is_err();
    let missing = match programs.iter().find(lacks) {
        _ if !rustix::process::geteuid().is_root() => "root",
        Some(program) => program,
        None => return true,
    };
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var_os("SIMFS_STRICT").is_none(),
        "needs {missing}"
    );
    println!("skipped: needs {missing}");
    if let Some(log) = std::env::var_os("SIMFS_SKIP_LOG") {
        let mut log = fs::File::options().append(true).open(log).unwrap();
        std::io::Write::write_all(&mut log, format!("{test}: needs {missing}\n").as_bytes())
            .unwrap();
    }
    false
}

#[track_caller]
pub(crate) fn run(command: &[&str]) {
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

/// Runs an ignored test of this program alone, in a mount namespace of its own, after this shell script. What is
/// mounted ends with it.
#[track_caller]
pub(crate) fn run_apart(test: &str, script: &str, env: &[(&str, &Path)]) {
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!("{script} exec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let (text, errors) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(
        status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
}
