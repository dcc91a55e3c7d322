//! Programs at work that check everything they are told: a wrong byte, a name that is missing or should be, an error that no
//! program expects, each fails the test.

mod programs;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, XattrFlags, flock, ftruncate};
use rustix::io::{Errno, pread};

use crate::harness::Ve;
use crate::harness::files::{create, mkdir, open, rename, write_at};
use crate::harness::load::Dice;
use crate::harness::user::{ALICE, BOB, ROOT, User};
use crate::harness::{KIB, require};

/// Where the workers work.
pub(super) struct Places {
    root: PathBuf,
}

impl Places {
    /// Makes a directory for each worker; two users have little room.
    pub(super) fn make(ve: &Ve) -> Self {
        for (name, user) in WORKERS.iter().map(|worker| (worker.name, worker.user)) {
            let dir = ve.path(name);
            mkdir(&dir).expect("directory");
            std::os::unix::fs::chown(&dir, Some(user.uid), Some(user.gid)).expect("chown");
        }
        for user in [ALICE, BOB] {
            let (soft, hard) = ("600", "1000");
            let id = user.uid.to_string();
            ve.setlimit2(&["-u", &id, soft, hard, "0", "0"]);
        }
        let crowd = ve.path("walker");
        for n in 0..300 {
            drop(create(crowd.join(format!("stays-{n:03}"))).expect("create"));
        }
        Self { root: ve.root() }
    }
}

/// A kind of work.
struct Worker {
    name: &'static str,
    user: User,
    /// Programs without which there is nothing to do.
    needs: &'static [&'static str],
    /// One round.
    work: fn(&mut Work),
}

impl Worker {
    const fn new(
        name: &'static str,
        user: User,
        needs: &'static [&'static str],
        work: fn(&mut Work),
    ) -> Self {
        Self {
            name,
            user,
            needs,
            work,
        }
    }
}

const WORKERS: [Worker; 10] = [
    Worker::new("bytes", ROOT, &[], bytes),
    Worker::new("full", ALICE, &[], near_the_limit),
    Worker::new("full2", BOB, &[], near_the_limit),
    Worker::new("names", ROOT, &[], names),
    Worker::new("append", ROOT, &[], append),
    Worker::new("nameless", ROOT, &[], nameless),
    Worker::new("walker", ROOT, &[], walk),
    Worker::new("mapped", ROOT, &["xfs_io"], mapped),
    Worker::new("database", ROOT, &["sqlite3"], programs::database),
    Worker::new("build", ROOT, &["sh", "make", "cc"], programs::build),
];

/// What a worker knows of its files.
struct Work {
    dir: PathBuf,
    dice: Dice,
    round: u64,
    content: Vec<u8>,
    file: Option<OwnedFd>,
    names: BTreeMap<String, Kind>,
    held: Vec<(OwnedFd, u8)>,
    /// What databases hold.
    counts: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Dir,
    Link,
}

/// The workers, running.
pub(super) struct Load {
    ended: Arc<AtomicBool>,
    threads: Vec<(&'static str, JoinHandle<u64>)>,
}

impl Load {
    pub(super) fn start(_: &Ve, places: &Places) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let start = |(number, worker): (usize, &'static Worker)| {
            let mut work = Work {
                dir: places.root.join(worker.name),
                dice: Dice(number as u64 * 7919 + 1),
                round: 0,
                content: Vec::new(),
                file: None,
                names: BTreeMap::new(),
                held: Vec::new(),
                counts: BTreeMap::new(),
            };
            let ended = Arc::clone(&ended);
            let thread = std::thread::spawn(move || {
                worker.user.run(|| {
                    while !ended.load(Ordering::Relaxed) {
                        (worker.work)(&mut work);
                        work.round += 1;
                    }
                    work.round
                })
            });
            (worker.name, thread)
        };
        let able = WORKERS
            .iter()
            .filter(|worker| require::programs(worker.needs));
        let threads = able.enumerate().map(start).collect();
        Self { ended, threads }
    }

    /// Ends the work; rounds of each worker. Fails where one of them found something wrong.
    pub(super) fn stop(mut self) -> Vec<(&'static str, u64)> {
        self.ended.store(true, Ordering::Relaxed);
        let join = |(name, thread): (&'static str, JoinHandle<u64>)| {
            (
                name,
                thread
                    .join()
                    .unwrap_or_else(|_| panic!("worker '{name}' failed")),
            )
        };
        self.threads.drain(..).map(join).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice(seed | 1);
    (0..len).map(|_| dice.roll(256) as u8).collect()
}

fn read_all(file: &OwnedFd, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len + 1];
    let mut done = 0;
    while let Ok(n @ 1..) = pread(file, &mut bytes[done..], done as u64) {
        done += n;
    }
    bytes.truncate(done);
    bytes
}

/// Writes and truncates at random; the file is always what it should be.
fn bytes(work: &mut Work) {
    let path = work.dir.join("data");
    let file = work
        .file
        .take()
        .unwrap_or_else(|| open(&path, OFlags::RDWR | OFlags::CREATE).expect("open"));
    match work.dice.roll(6) {
        0 => {
            let length = work.dice.roll(200_000);
            ftruncate(&file, length).expect("truncate");
            work.content.resize(length as usize, 0);
        }
        1 => {
            assert!(
                read_all(&file, work.content.len()) == work.content,
                "content"
            );
        }
        2 => {
            rustix::fs::fsync(&file).expect("fsync");
            // Another handle from now on.
            return;
        }
        _ => {
            let offset = work.dice.roll(200_000) as usize;
            let data = pattern(work.round, 1 + work.dice.roll(60_000) as usize);
            assert_eq!(write_at(&file, offset as u64, &data), (data.len(), None));
            let end = offset + data.len();
            work.content.resize(work.content.len().max(end), 0);
            work.content[offset..end].copy_from_slice(&data);
            let mut back = vec![0; data.len()];
            assert_eq!(pread(&file, &mut back[..], offset as u64), Ok(data.len()));
            assert!(back == data, "what was just written");
        }
    }
    work.file = Some(file);
}

/// Writes more than there is room for: refusals are right, a wrong byte is not.
fn near_the_limit(work: &mut Work) {
    let path = work.dir.join(work.dice.roll(5).to_string());
    let file = match open(&path, OFlags::RDWR | OFlags::CREATE) {
        Ok(file) => file,
        Err(Errno::DQUOT) => return,
        Err(error) => panic!("open: {error}"),
    };
    let data = pattern(work.round, 1 + work.dice.roll(300 * KIB) as usize);
    let (written, error) = write_at(&file, 0, &data);
    assert!(matches!(error, None | Some(Errno::DQUOT)), "{error:?}");
    let mut back = vec![0; written];
    assert_eq!(pread(&file, &mut back[..], 0), Ok(written));
    assert!(back == data[..written], "what was accepted");
    if error.is_some() || work.dice.roll(3) == 0 {
        rustix::fs::unlink(&path).expect("unlink");
    }
}

/// Makes, renames, links and removes names. Each must succeed, or fail, as the names that are there say.
fn names(work: &mut Work) {
    let pick = |dice: &mut Dice| format!("n{}", dice.roll(40));
    let (name, other) = (pick(&mut work.dice), pick(&mut work.dice));
    let (path, to) = (work.dir.join(&name), work.dir.join(&other));
    let (known, taken) = (
        work.names.get(&name).copied(),
        work.names.get(&other).copied(),
    );
    match work.dice.roll(9) {
        0 | 1 => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let made = open(&path, flags).map(drop);
            assert_eq!(
                made,
                known.map_or(Ok(()), |_| Err(Errno::EXIST)),
                "create {name}"
            );
            work.names.entry(name).or_insert(Kind::File);
        }
        2 => {
            let made = mkdir(&path);
            assert_eq!(
                made,
                known.map_or(Ok(()), |_| Err(Errno::EXIST)),
                "mkdir {name}"
            );
            work.names.entry(name).or_insert(Kind::Dir);
        }
        3 => {
            let made = rustix::fs::symlinkat("target", CWD, &path);
            assert_eq!(
                made,
                known.map_or(Ok(()), |_| Err(Errno::EXIST)),
                "symlink {name}"
            );
            work.names.entry(name).or_insert(Kind::Link);
        }
        4 if known == Some(Kind::File) && name != other => {
            let made = rustix::fs::link(&path, &to);
            assert_eq!(
                made,
                taken.map_or(Ok(()), |_| Err(Errno::EXIST)),
                "link {name} {other}"
            );
            work.names.entry(other).or_insert(Kind::File);
        }
        5 | 6 => {
            let (expected, gone) = match known {
                None => (Err(Errno::NOENT), false),
                Some(Kind::Dir) => (Err(Errno::ISDIR), false),
                Some(_) => (Ok(()), true),
            };
            assert_eq!(rustix::fs::unlink(&path), expected, "unlink {name}");
            if gone {
                work.names.remove(&name);
            }
        }
        7 => {
            let (expected, gone) = match known {
                None => (Err(Errno::NOENT), false),
                Some(Kind::Dir) => (Ok(()), true),
                Some(_) => (Err(Errno::NOTDIR), false),
            };
            assert_eq!(rustix::fs::rmdir(&path), expected, "rmdir {name}");
            if gone {
                work.names.remove(&name);
            }
        }
        _ if name != other && known.is_some() => rename_one(work, &name, &other),
        _ => note(work, &path, known),
    }
    if work.round.is_multiple_of(200) {
        let entries = std::fs::read_dir(&work.dir).expect("list");
        let listed: BTreeSet<String> = entries
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .into_string()
                    .expect("name")
            })
            .collect();
        assert_eq!(listed, work.names.keys().cloned().collect(), "listing");
    }
}

fn rename_one(work: &mut Work, name: &str, other: &str) {
    let (path, to) = (work.dir.join(name), work.dir.join(other));
    let kind = work.names[name];
    let taken = work.names.get(other).copied();
    if let Some(taken) = taken.filter(|_| work.dice.roll(3) == 0) {
        rename(&path, &to, RenameFlags::EXCHANGE).expect("exchange");
        work.names.insert(name.to_owned(), taken);
        work.names.insert(other.to_owned(), kind);
        return;
    }
    let flags = match taken {
        None => RenameFlags::NOREPLACE,
        Some(_) => RenameFlags::empty(),
    };
    let expected = match (kind, taken) {
        (Kind::Dir, Some(Kind::File | Kind::Link)) => Err(Errno::NOTDIR),
        (Kind::File | Kind::Link, Some(Kind::Dir)) => Err(Errno::ISDIR),
        _ => Ok(()),
    };
    assert_eq!(rename(&path, &to, flags), expected, "rename {name} {other}");
    if expected.is_ok() {
        // Two names of one file: such a rename does nothing.
        if std::fs::symlink_metadata(&path).is_err() {
            work.names.remove(name);
        }
        work.names.insert(other.to_owned(), kind);
    }
}

/// An attribute that is made exclusively and taken away again.
fn note(work: &mut Work, path: &Path, known: Option<Kind>) {
    if known != Some(Kind::File) || !work.round.is_multiple_of(3) {
        return;
    }
    rustix::fs::setxattr(path, "user.once", b"1", XattrFlags::CREATE).expect("make an attribute");
    let again = rustix::fs::setxattr(path, "user.once", b"2", XattrFlags::CREATE);
    assert_eq!(again, Err(Errno::EXIST));
    rustix::fs::removexattr(path, "user.once").expect("take it away");
    let again = rustix::fs::removexattr(path, "user.once");
    assert_eq!(again, Err(Errno::NODATA));
}

/// Appends numbers: each is there once, in order.
fn append(work: &mut Work) {
    let path = work.dir.join("log");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
    let file = open(&path, flags).expect("open");
    for _ in 0..20 {
        let number = work.content.len() as u64 / 8;
        let bytes = number.to_le_bytes();
        assert_eq!(rustix::io::write(&file, &bytes), Ok(8));
        work.content.extend(bytes);
    }
    if work.round.is_multiple_of(10) {
        let file = open(&path, OFlags::RDONLY).expect("open");
        flock(&file, FlockOperation::LockExclusive).expect("lock");
        assert!(
            read_all(&file, work.content.len()) == work.content,
            "numbers"
        );
    }
    if work.content.len() > 400_000 {
        ftruncate(&file, 0).expect("truncate");
        work.content.clear();
    }
}

/// Keeps files open that have no name any more.
fn nameless(work: &mut Work) {
    if work.held.len() < 12 {
        let path = work.dir.join(format!("t{}", work.round));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = open(&path, flags).expect("create");
        let byte = work.round as u8;
        assert_eq!(write_at(&file, 0, &[byte; 20_000]), (20_000, None));
        if work.round.is_multiple_of(2) {
            rustix::fs::unlink(&path).expect("unlink");
        } else {
            // Under a name that is replaced.
            let other = work.dir.join("other");
            drop(create(&other).expect("create"));
            rename(&other, &path, RenameFlags::empty()).expect("replace");
            rustix::fs::unlink(&path).expect("unlink");
        }
        work.held.push((file, byte));
    }
    let index = work.dice.roll(work.held.len() as u64) as usize;
    let (file, byte) = &work.held[index];
    let mut bytes = vec![0; 20_000];
    assert_eq!(pread(file, &mut bytes[..], 0), Ok(20_000));
    assert!(bytes.iter().all(|one| one == byte), "what has no name");
    assert_eq!(rustix::fs::fstat(file).expect("stat").st_nlink, 0);
    assert_eq!(write_at(file, 5000, &[*byte; 3000]), (3000, None));
    if work.dice.roll(3) == 0 {
        work.held.swap_remove(index);
    }
}

/// Lists a directory in which names come and go: those that stay are each seen once.
fn walk(work: &mut Work) {
    let passing = work.dir.join(format!("passes-{}", work.round % 7));
    drop(create(&passing).expect("create"));
    let mut seen = BTreeMap::<String, u32>::new();
    for entry in std::fs::read_dir(&work.dir).expect("list") {
        let entry = entry.expect("entry");
        let name = entry.file_name().into_string().expect("name");
        if name.starts_with("stays-") {
            assert!(entry.metadata().expect("metadata").is_file());
            *seen.entry(name).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), 300);
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    rustix::fs::unlink(&passing).expect("unlink");
}

/// Stores through mappings.
fn mapped(work: &mut Work) {
    let path = work.dir.join("map");
    if work.content.is_empty() {
        work.content = vec![0x5a; 256 * 1024];
        crate::harness::files::put(&path, 256 * KIB);
    }
    let (page, byte) = (work.dice.roll(64) as usize * 4096, work.round as u8);
    let store = format!("mwrite -S {byte} {page} 4096");
    let status = Command::new("xfs_io")
        .args([
            "-c",
            "mmap -rw 0 256k",
            "-c",
            &store,
            "-c",
            "msync -s 0 256k",
        ])
        .arg(&path)
        .output()
        .expect("xfs_io");
    assert!(status.status.success(), "{status:?}");
    work.content[page..page + 4096].fill(byte);
    let file = open(&path, OFlags::RDONLY).expect("open");
    assert!(
        read_all(&file, work.content.len()) == work.content,
        "stores"
    );
}
