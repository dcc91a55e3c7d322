//! Many processes at the hard limit: never above it, exact at the end.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags, fallocate, ftruncate};

use crate::harness::files::{open, write_at};
use crate::harness::sampler::Sampler;
use crate::harness::user::{ALICE, BOB, ROOT, User};
use crate::harness::{KIB, Kind, MIB, Spec};

/// How long, from `SIMFS_STORM_SECONDS`.
fn duration() -> Duration {
    let text = std::env::var("SIMFS_STORM_SECONDS").ok();
    Duration::from_secs(text.and_then(|text| text.parse().ok()).unwrap_or(30))
}

/// Samples that show something.
const SAMPLES: u64 = 30;
/// How much longer a storm lasts where a busy machine has not brought it to its limit in time.
const EXTENSION: Duration = Duration::from_secs(90);

/// When a storm of writers ends: after its time, and not before it has reached the limit and was looked at often enough.
struct Storm<'a> {
    end: Instant,
    sampler: &'a Sampler,
    refused: AtomicU64,
}

impl<'a> Storm<'a> {
    fn new(length: Duration, sampler: &'a Sampler) -> Self {
        Self {
            end: Instant::now() + length,
            sampler,
            refused: AtomicU64::new(0),
        }
    }

    fn goes_on(&self) -> bool {
        let now = Instant::now();
        now < self.end || (!self.shows_something() && now < self.end + EXTENSION)
    }

    fn shows_something(&self) -> bool {
        self.sampler.samples() > SAMPLES && self.refused.load(Ordering::Relaxed) > 0
    }

    fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
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

/// Works on one file of its own until the end; refusals are expected, other errors are not.
fn writer(path: &Path, seed: u64, storm: &Storm<'_>) {
    let mut dice = Dice(seed);
    let file = loop {
        match open(path, OFlags::RDWR | OFlags::CREATE) {
            Ok(file) => break file,
            Err(rustix::io::Errno::DQUOT) if storm.goes_on() => storm.refuse(),
            Err(rustix::io::Errno::DQUOT) => return,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    };
    let data = vec![seed as u8; 256 * 1024];
    while storm.goes_on() {
        let (offset, len) = (dice.roll(4 * MIB), dice.roll(256 * KIB));
        let refused = match dice.roll(8) {
            // Making a file longer can take space on btrfs.
            0 => ftruncate(&file, dice.roll(2 * MIB)).err(),
            _ => write_at(&file, offset, &data[..len as usize]).1,
        };
        match refused {
            None => {}
            Some(rustix::io::Errno::DQUOT) => storm.refuse(),
            Some(error) => panic!("write or truncate: {error}"),
        }
    }
}

/// Makes and removes small files and directories.
fn maker(dir: &Path, seed: u64, end: Instant) -> u64 {
    let mut dice = Dice(seed);
    let mut refused = 0;
    while Instant::now() < end {
        let path = dir.join(format!("{seed}-{}", dice.roll(40)));
        let made = if dice.roll(4) == 0 {
            crate::harness::files::mkdir(&path)
        } else {
            crate::harness::files::create(&path)
                .and_then(|file| write_at(&file, 0, &[1; 5000]).1.map_or(Ok(()), Err))
        };
        match made {
            Ok(()) => {}
            Err(rustix::io::Errno::DQUOT) => refused += 1,
            Err(rustix::io::Errno::EXIST) => {
                let _one_of_both =
                    std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    refused
}

/// Eight writers on 8 MiB; what they occupy is counted all the time.
fn writers_on(kind: Kind) {
    let hard = 8 * MIB;
    let spec = Spec::default().backing(kind).space(hard / KIB, hard / KIB);
    let Some(ve) = spec.mount() else { return };
    let sampler = Sampler::start(ve.private(), ve.pid());
    let storm = Storm::new(duration() / 2, &sampler);
    std::thread::scope(|scope| {
        for n in 1..=8_u64 {
            let (path, storm) = (ve.path(format!("file-{n}")), &storm);
            scope.spawn(move || writer(&path, n * 7919, storm));
        }
    });
    assert!(
        storm.shows_something(),
        "the limit was never reached, or too few samples taken: the test shows nothing"
    );
    let most = sampler.stop();
    assert!(
        most.space <= hard,
        "{} bytes at one moment, {hard} allowed",
        most.space
    );
    ve.assert_exact();
}

// S7: used never exceeds the hard limit. S4: and equals a recount at the end.
#[test]
fn storm_of_writers_in_memory() {
    writers_on(Kind::Tmpfs { mib: 64 });
}

#[test]
fn storm_of_writers_on_ext4() {
    writers_on(Kind::Ext4 { mib: 128 });
}

#[test]
fn storm_of_writers_on_xfs() {
    writers_on(Kind::Xfs { mib: 400 });
}

#[test]
fn storm_of_writers_on_btrfs() {
    writers_on(Kind::Btrfs { mib: 300 });
}

/// Writes where the file is known to have its space, while others take that space away.
fn overwriter(path: &Path, seed: u64, end: Instant) {
    let mut dice = Dice(seed);
    let file = open(path, OFlags::WRONLY).expect("open");
    let data = vec![seed as u8; 64 * 1024];
    while Instant::now() < end {
        let block = dice.roll(MIB / (64 * KIB));
        let (_, error) = write_at(&file, block * 64 * KIB, &data);
        assert!(matches!(error, None | Some(rustix::io::Errno::DQUOT)));
    }
}

/// Frees what others write, and takes the room for another file.
fn digger(path: &Path, seed: u64, end: Instant) {
    let mut dice = Dice(seed);
    let (file, other) = (
        open(path, OFlags::WRONLY).expect("open"),
        open(
            path.with_extension("other"),
            OFlags::WRONLY | OFlags::CREATE,
        )
        .expect("open"),
    );
    let mut at = 0;
    while Instant::now() < end {
        let offset = dice.roll(MIB / (64 * KIB)) * 64 * KIB;
        if dice.roll(4) == 0 {
            ftruncate(&file, offset).expect("truncate");
        } else {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, mode, offset, 128 * KIB).expect("punch");
        }
        let (written, _) = write_at(&other, at, &[1; 128 * 1024]);
        at += written as u64;
        if written == 0 {
            ftruncate(&other, 0).expect("truncate");
            at = 0;
        }
    }
}

// S7: space that one frees and another takes is never taken twice.
#[test]
fn storm_of_overwriting_and_freeing() {
    let hard = 2 * MIB;
    let kind = Kind::Tmpfs { mib: 64 };
    let spec = Spec::default().backing(kind).space(hard / KIB, hard / KIB);
    let Some(ve) = spec.mount() else { return };
    crate::harness::files::put(ve.path("file"), MIB);
    let end = Instant::now() + duration() / 4;
    let sampler = Sampler::start(ve.private(), ve.pid());
    std::thread::scope(|scope| {
        for seed in 1..=3 {
            let path = ve.path("file");
            scope.spawn(move || overwriter(&path, seed * 7919, end));
        }
        scope.spawn(|| digger(&ve.path("file"), 17, end));
    });
    assert!(
        sampler.samples() > SAMPLES,
        "too few samples: the test shows nothing"
    );
    let most = sampler.stop();
    assert!(most.space <= hard, "{} of {hard}", most.space);
    // What a look at the file charges after the fact shows here, however short it was.
    let peak = ve.stat()["peak"]["space"].as_u64().expect("peak");
    assert!(peak <= hard, "{peak} of {hard} at one moment");
    ve.assert_exact();
}

// S7, S25: names and users at their limits, three users at once.
#[test]
fn storm_of_names() {
    let Some(ve) = Spec::default()
        .space(4096, 4096)
        .inodes(60, 60)
        .second_level()
        .mount()
    else {
        return;
    };
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(ve.root(), open_to_all).unwrap();
    ve.setlimit2(&["-u", "1001", "256", "256", "12", "12"]);
    ve.setlimit2(&["-g", "1002", "128", "128", "9", "9"]);
    let end = Instant::now() + duration() / 2;
    let users: [User; 8] = [ROOT, ALICE, BOB, ALICE, BOB, ROOT, ALICE, BOB];
    let peak = std::thread::scope(|scope| {
        for (n, user) in users.into_iter().enumerate() {
            let dir = ve.root();
            scope.spawn(move || user.run(|| maker(&dir, n as u64 * 31 + 7, end)));
        }
        let mut peak = 0;
        while Instant::now() < end {
            let used = ve.used();
            assert!(used.inodes <= 60 && used.space <= 4 * MIB, "{used:?}");
            let charged = ve.charged();
            let alice = charged.users.get(&1001).copied().unwrap_or_default();
            assert!(alice.space <= 256 * KIB && alice.inodes <= 12, "{alice:?}");
            let bobs = charged.groups.get(&1002).copied().unwrap_or_default();
            assert!(bobs.space <= 128 * KIB && bobs.inodes <= 9, "{bobs:?}");
            peak = peak.max(used.inodes);
        }
        peak
    });
    assert!(peak > 30, "{peak} inodes at most: the test shows nothing");
    ve.assert_exact();
}
