//! The daemon is killed while users work: after the next mount the totals are exact, at once.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::mount::{UnmountFlags, unmount};

use crate::harness::command::eventually;
use crate::harness::files::{mkdir, open, rename, write_at};
use crate::harness::user::{ALICE, BOB, ROOT, User};
use crate::harness::{Kind, Spec, Ve, crash};

/// How often the daemon is killed, from `SIMFS_KILL_ROUNDS`.
fn rounds() -> u64 {
    let text = std::env::var("SIMFS_KILL_ROUNDS").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(25)
}

/// A cheap sequence of numbers (xorshift) from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Does all kinds of things to the files of a directory until told to stop, or nothing works any more.
fn work(dir: &Path, user: User, seed: u64, stop: &AtomicBool) {
    let mut dice = Dice(seed);
    let mut held = Vec::new();
    let data = vec![7; 300_000];
    while !stop.load(Ordering::Relaxed) {
        let path = dir.join(dice.roll(60).to_string());
        let other = dir.join(dice.roll(60).to_string());
        // What fails (a name that is taken, a full account, a mount that died) is part of the mess.
        let _ = one(&mut dice, user, &path, &other, &data, &mut held);
    }
}

fn one(
    dice: &mut Dice,
    user: User,
    path: &Path,
    other: &Path,
    data: &[u8],
    held: &mut Vec<OwnedFd>,
) -> rustix::io::Result<()> {
    let writable = || open(path, OFlags::RDWR | OFlags::CREATE);
    let some = &data[..dice.roll(data.len() as u64) as usize];
    match dice.roll(14) {
        0..=3 => {
            let _ = write_at(&writable()?, dice.roll(200_000), some);
        }
        4 => rustix::fs::ftruncate(&writable()?, dice.roll(200_000))?,
        5 => drop(open(path, OFlags::WRONLY | OFlags::TRUNC)?),
        6 => rustix::fs::unlink(path)?,
        7 => rename(path, other, RenameFlags::empty())?,
        8 => match dice.roll(2) {
            0 => mkdir(path)?,
            _ => rustix::fs::rmdir(path)?,
        },
        9 => rustix::fs::symlink(other, path)?,
        10 => rustix::fs::link(path, other)?,
        11 => {
            let value = &data[..dice.roll(2000) as usize];
            match dice.roll(2) {
                0 => rustix::fs::setxattr(path, "user.note", value, XattrFlags::empty())?,
                _ => rustix::fs::removexattr(path, "user.note")?,
            }
        }
        12 => {
            let file = writable()?;
            let mode = [
                FallocateFlags::KEEP_SIZE,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            ];
            let mode = mode[dice.roll(2) as usize];
            rustix::fs::fallocate(&file, mode, dice.roll(100_000), 1 + dice.roll(100_000))?;
        }
        _ if user == ROOT && dice.roll(2) == 0 => {
            let id = 1001 + dice.roll(2) as u32;
            let (uid, gid) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
            rustix::fs::chownat(
                CWD,
                path,
                Some(uid),
                Some(gid),
                rustix::fs::AtFlags::empty(),
            )?;
        }
        _ => {
            let file = writable()?;
            let _ = write_at(&file, 0, some);
            rustix::fs::unlink(path)?;
            held.push(file);
            if held.len() > 4 {
                let at = dice.roll(held.len() as u64) as usize;
                drop(held.swap_remove(at));
            }
        }
    }
    Ok(())
}

/// Has three users work, and kills the daemon at a random moment; in some rounds the keeper first.
fn kill_at_work(ve: &Ve, dice: &mut Dice, round: u64) {
    let stop = AtomicBool::new(false);
    let places: Vec<PathBuf> = (0..3).map(|user| ve.path(format!("home{user}"))).collect();
    std::thread::scope(|scope| {
        for (place, user) in places.iter().zip([ROOT, ALICE, BOB]) {
            let (seed, stop) = (dice.roll(u64::MAX) | 1, &stop);
            scope.spawn(move || user.run(|| work(place, user, seed, stop)));
        }
        // Now and then long enough for a commit.
        std::thread::sleep(Duration::from_millis(match round % 8 {
            0 => 3800 + dice.roll(1200),
            _ => dice.roll(700),
        }));
        let status = ve.status();
        let pid =
            |key: &str| u32::try_from(status[key].as_u64().expect(key)).expect("a process id");
        let (daemon, keeper) = (pid("pid"), pid("keeper_pid"));
        if round % 2 == 1 {
            crash::kill(keeper);
        }
        crash::kill(daemon);
        if round % 2 == 1 {
            let _ = unmount(ve.root(), UnmountFlags::DETACH);
        }
        stop.store(true, Ordering::Relaxed);
    });
    eventually("the dead mount is gone", || match ve.is_mounted() {
        true => Err("still mounted".to_owned()),
        false => Ok(()),
    });
}

fn make_homes(ve: &Ve) {
    for user in 0..3 {
        let home = ve.path(format!("home{user}"));
        mkdir(&home).expect("mkdir");
        rustix::fs::chmod(&home, Mode::from_raw_mode(0o777)).expect("chmod");
    }
}

/// Mounts after a kill; a thread that is still in a system call lets go of the private area a moment later.
fn mount_again(ve: &Ve) {
    eventually("the VE can be mounted again", || {
        let outcome = ve.mount();
        if outcome.code == 0 {
            Ok(())
        } else {
            Err(outcome.stderr)
        }
    });
}

fn killed_many_times(ve: &Ve, rounds: u64) {
    make_homes(ve);
    let mut dice = Dice(0x51_7cc1_b727);
    for round in 0..rounds {
        kill_at_work(ve, &mut dice, round);
        mount_again(ve);
        assert_eq!(
            ve.status()["state"],
            "mounted",
            "round {round}: no recount is needed"
        );
        let outcome = ve.simfs(["check", Ve::ID]);
        assert_eq!(outcome.code, 0, "round {round}: {outcome:?}");
    }
}

// S51: whatever was in flight.
#[test]
fn totals_are_exact_after_a_kill() {
    if let Some(ve) = Spec::default().second_level().mount() {
        killed_many_times(&ve, rounds());
    }
}

#[test]
fn totals_are_exact_after_a_kill_on_xfs() {
    if let Some(ve) = Spec::default()
        .second_level()
        .backing(Kind::Xfs { mib: 512 })
        .mount()
    {
        killed_many_times(&ve, rounds().div_ceil(5));
    }
}

/// What the close of a file gives back is not in the totals of the last commit, however long ago that was: blocks of a file
/// without a name, and those that XFS keeps behind the end of a file that grows.
#[test]
fn what_was_open_for_long_is_let_go_with_the_daemon() {
    for backing in [Kind::Host, Kind::Xfs { mib: 512 }] {
        let Some(ve) = Spec::default().backing(backing).mount() else {
            continue;
        };
        let grows = open(ve.path("grows"), OFlags::RDWR | OFlags::CREATE).expect("create");
        for part in 0..40 {
            let _ = write_at(&grows, part * 50_000, &[1; 50_000]);
        }
        let gone = open(ve.path("gone"), OFlags::RDWR | OFlags::CREATE).expect("create");
        let _ = write_at(&gone, 0, &[1; 500_000]);
        rustix::fs::unlink(ve.path("gone")).expect("unlink");
        let empty = open(ve.path("empty"), OFlags::RDWR | OFlags::CREATE).expect("create");
        rustix::fs::unlink(ve.path("empty")).expect("unlink");
        std::thread::sleep(Duration::from_secs(5));
        // The next commit is of something else.
        drop(open(ve.path("other"), OFlags::RDWR | OFlags::CREATE).expect("create"));
        std::thread::sleep(Duration::from_secs(5));
        let pid = ve.pid();
        crash::kill(pid);
        drop((grows, gone, empty));
        eventually("the dead mount is gone", || match ve.is_mounted() {
            true => Err("still mounted".to_owned()),
            false => Ok(()),
        });
        mount_again(&ve);
        ve.check();
    }
}

fn journal(ve: &Ve) -> PathBuf {
    let run = ve.prefix().join("run/simfs").join(Ve::ID);
    let entries = std::fs::read_dir(run).expect("run directory");
    let mut journals = entries.filter_map(|entry| {
        let path = entry.expect("entry").path();
        let name = path.file_name()?.to_str()?;
        name.starts_with("journal.").then_some(path)
    });
    journals.next().expect("a journal")
}

fn log(ve: &Ve) -> String {
    let path = ve.prefix().join("run/simfs").join(Ve::ID).join("log");
    String::from_utf8_lossy(&std::fs::read(path).expect("log")).into_owned()
}

/// Waits for the recount, after which the totals are right.
fn wait_for_recount(ve: &Ve) {
    let start = Instant::now();
    while ve.status()["state"] == "recovering" {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "no end: {}",
            ve.status()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    ve.check();
}

// S53: the VE mounts, says why, and counts while it works.
#[test]
fn a_journal_that_cannot_be_used_costs_a_recount_while_the_ve_runs() {
    let Some(ve) = Spec::default().second_level().mount() else {
        return;
    };
    make_homes(&ve);
    let mut dice = Dice(99);
    type Spoil<'a> = (&'a str, &'a dyn Fn(&Path));
    let spoil: [Spoil<'_>; 4] = [
        ("is damaged: a record", &|path| {
            let mut bytes = std::fs::read(path).expect("journal");
            bytes[36_864 + 9] ^= 1;
            std::fs::write(path, bytes).expect("journal");
        }),
        ("is damaged: it is cut off", &|path| {
            let length = std::fs::metadata(path).expect("journal").len();
            let file = open(path, OFlags::WRONLY).expect("journal");
            rustix::fs::ftruncate(&file, length / 2).expect("cut");
        }),
        ("is damaged: the header", &|path| {
            let mut bytes = std::fs::read(path).expect("journal");
            bytes[40] ^= 1;
            std::fs::write(path, bytes).expect("journal");
        }),
        ("there is no journal", &|path| {
            std::fs::remove_file(path).expect("journal")
        }),
    ];
    for (round, (cause, spoil)) in spoil.into_iter().enumerate() {
        kill_at_work(&ve, &mut dice, round as u64 + 1);
        spoil(&journal(&ve));
        mount_again(&ve);
        assert!(
            log(&ve).contains(cause),
            "'{cause}' is not in the log:\n{}",
            log(&ve)
        );
        if round == 3 {
            // Killed again: whether the recount is done or not, the next mount sees to it.
            kill_at_work(&ve, &mut dice, 2);
            mount_again(&ve);
        }
        wait_for_recount(&ve);
    }
}

// S41: a clean end needs no recovery.
#[test]
fn a_clean_end_leaves_no_journal_and_needs_none() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    make_homes(&ve);
    ve.umount().ok();
    let left =
        std::fs::read_dir(ve.prefix().join("run/simfs").join(Ve::ID)).expect("run directory");
    let left: Vec<_> = left
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().starts_with("journal")),
        "{left:?}"
    );
    ve.mount().ok();
    assert_eq!(ve.status()["state"], "mounted");
    assert!(
        !log(&ve).contains("without its last commit"),
        "{}",
        log(&ve)
    );
}
