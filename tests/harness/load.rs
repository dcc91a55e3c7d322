//! Users who do all kinds of things to their files at once, so that whatever happens to the VE happens in the middle of
//! something.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, RenameFlags, XattrFlags};

use super::Ve;
use super::files::{mkdir, open, rename, write_at};
use super::user::{ALICE, BOB, ROOT, User};

/// A cheap sequence of numbers (xorshift) from a seed.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
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
    let parent = path.parent().unwrap_or(path);
    let writable = || open(path, OFlags::RDWR | OFlags::CREATE);
    let some = &data[..dice.roll(data.len() as u64) as usize];
    match dice.roll(16) {
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
        13 => {
            // What programs do where O_TMPFILE is refused, as on any FUSE mount (S37): the name goes before the content comes.
            let name = parent.join(format!("tmp{}", dice.roll(u64::MAX)));
            let file = open(&name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
            rustix::fs::unlink(&name)?;
            let _ = write_at(&file, dice.roll(200_000), some);
            hold(held, file, dice);
        }
        14 => {
            // And goes on with one that has had no name for a while.
            let some_file = held.get(dice.roll(5) as usize);
            let file = some_file.ok_or(rustix::io::Errno::NOENT)?;
            let _ = write_at(file, dice.roll(400_000), some);
            rustix::fs::ftruncate(file, dice.roll(400_000))?;
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
            hold(held, file, dice);
        }
    }
    Ok(())
}

/// Keeps a file without a name open, and closes another one where there are too many.
fn hold(held: &mut Vec<OwnedFd>, file: OwnedFd, dice: &mut Dice) {
    held.push(file);
    if held.len() > 4 {
        let at = dice.roll(held.len() as u64) as usize;
        drop(held.swap_remove(at));
    }
}

/// Makes the directories that [`during`] has users work in.
pub(crate) fn make_homes(ve: &Ve) {
    for user in 0..3 {
        let home = ve.path(format!("home{user}"));
        mkdir(&home).expect("mkdir");
        rustix::fs::chmod(&home, Mode::from_raw_mode(0o777)).expect("chmod");
    }
}

/// Has root and two users work while `happens` runs; returns when all have ended.
pub(crate) fn during<T>(ve: &Ve, dice: &mut Dice, happens: impl FnOnce(&mut Dice) -> T) -> T {
    let stop = AtomicBool::new(false);
    let places: Vec<PathBuf> = (0..3).map(|user| ve.path(format!("home{user}"))).collect();
    std::thread::scope(|scope| {
        for (place, user) in places.iter().zip([ROOT, ALICE, BOB]) {
            let (seed, stop) = (dice.roll(u64::MAX) | 1, &stop);
            scope.spawn(move || user.run(|| work(place, user, seed, stop)));
        }
        let _stop = StopOnDrop(&stop);
        happens(dice)
    })
}

/// Also where what happens fails: the users must not work for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
