//! `scale`: what one operation costs, and what one inode takes, as a VE grows; and what the number of users and of
//! other VEs does to it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::args::ScaleArgs;
use crate::host::{Host, Ve};
use crate::interrupt::Interrupt;
use crate::report::{Line, lines};
use crate::terminal::{progress, say};

/// Operations of one measurement.
const SAMPLE: u32 = 1_000;
/// Measurements of each kind at each size.
const REPEATS: u32 = 5;
/// Files of one directory.
const CROWD: u64 = 1_000;
/// Entries of the large directory.
const LARGE: u32 = 200_000;

/// Measures, prints, records.
pub(crate) fn scale(args: &ScaleArgs) -> Result<()> {
    let interrupt = Interrupt::catch()?;
    let dir = args.site.scratch("scale")?;
    let mut host = Host::new(dir.path(), &args.site.bin_dir);
    let result = measure(&mut host, args.most, &interrupt);
    host.unmount_all();
    let found = result?;
    let drawing = |name, across| {
        let title = format!("Cost of one operation against the number of {across}");
        lines::drawing(&title, across, "microseconds", &found.lines(name))
    };
    args.site.record(&[
        ("scale.csv", &found.csv()),
        ("scale.md", &found.notes),
        ("scale-files.svg", &drawing("files", "files in the VE")),
        ("scale-users.svg", &drawing("users", "users")),
        ("scale-ves.svg", &drawing("ves", "mounted VEs")),
    ])?;
    say(&found.notes)
}

/// One measurement.
struct Figure {
    against: &'static str,
    number: u64,
    operation: &'static str,
    micros: f64,
}

#[derive(Default)]
struct Found {
    figures: Vec<Figure>,
    notes: String,
}

impl Found {
    fn csv(&self) -> String {
        let mut text = String::from("against,number,operation,microseconds\n");
        for figure in &self.figures {
            let _ = writeln!(
                text,
                "{},{},{},{:.3}",
                figure.against, figure.number, figure.operation, figure.micros
            );
        }
        text
    }

    fn lines(&self, against: &str) -> Vec<Line> {
        let mut drawn: Vec<Line> = Vec::new();
        for figure in self
            .figures
            .iter()
            .filter(|figure| figure.against == against)
        {
            let number = f64::from(u32::try_from(figure.number).unwrap_or(u32::MAX));
            let place = match drawn.iter().position(|line| line.name == figure.operation) {
                Some(place) => place,
                None => {
                    drawn.push(Line {
                        name: figure.operation.to_owned(),
                        points: Vec::new(),
                    });
                    drawn.len() - 1
                }
            };
            let Some(line) = drawn.get_mut(place) else {
                continue;
            };
            match line.points.last_mut() {
                Some((known, figures)) if (*known - number).abs() < 0.5 => {
                    figures.push(figure.micros);
                }
                _ => line.points.push((number, vec![figure.micros])),
            }
        }
        drawn
    }

    fn take(&mut self, against: &'static str, number: u64, root: &Path) -> Result<()> {
        for _ in 0..REPEATS {
            for (operation, micros) in operations(root)? {
                self.figures.push(Figure {
                    against,
                    number,
                    operation,
                    micros,
                });
            }
        }
        Ok(())
    }
}

fn measure(host: &mut Host<'_>, most: u64, interrupt: &Interrupt) -> Result<Found> {
    let mut found = Found::default();
    host.mount_up_to(1, interrupt)?;
    let ve = host.ves().first().context("no VE")?.clone();
    files(&mut found, &ve, most, interrupt)?;
    large_directory(&mut found, &ve, interrupt)?;
    for users in [1, 10, 100, 1_000, 10_000] {
        interrupt.check()?;
        progress(&format!("{users} users"));
        let dir = ve.root.join(format!("users{users}"));
        fs::create_dir(&dir)?;
        for user in 0..users {
            let path = dir.join(format!("f{user}"));
            File::create(&path)?;
            chown(&path, Some(100_000 + user), Some(100_000 + user))?;
        }
        found.take("users", users.into(), &ve.root)?;
    }
    for ves in [1, 10, 100] {
        progress(&format!("{ves} VEs"));
        host.mount_up_to(ves, interrupt)?;
        found.take("ves", ves.into(), &ve.root)?;
    }
    Ok(found)
}

/// The VE grows; what a known inode takes is the growth of the daemon's memory.
fn files(found: &mut Found, ve: &Ve, most: u64, interrupt: &Interrupt) -> Result<()> {
    let before = ve.private_kib()?;
    let mut made = 0;
    let mut size = 1_000;
    while size <= most {
        progress(&format!("{size} files"));
        while made < size {
            interrupt.check()?;
            let dir = ve.root.join(format!("many/{}", made / CROWD));
            fs::create_dir_all(&dir)?;
            for number in made..(made + CROWD).min(size) {
                File::create(dir.join(format!("f{number}")))?;
            }
            made = (made + CROWD).min(size);
        }
        found.take("files", size, &ve.root)?;
        let grown = ve.private_kib()?.saturating_sub(before);
        let _ = writeln!(
            found.notes,
            "- {size} files known to the kernel: the daemon holds {} bytes for each",
            grown * 1024 / size
        );
        size *= 10;
    }
    // The kernel forgets what it has cached, and the daemon with it.
    fs::write("/proc/sys/vm/drop_caches", "2").context("drop_caches")?;
    std::thread::sleep(std::time::Duration::from_secs(5));
    let kept = ve.private_kib()?.saturating_sub(before);
    let _ = writeln!(
        found.notes,
        "- after the kernel forgot them: {kept} KiB in all"
    );
    Ok(())
}

/// Listed through the mount and in the private area.
fn large_directory(found: &mut Found, ve: &Ve, interrupt: &Interrupt) -> Result<()> {
    progress("a large directory");
    let dir = ve.root.join("large");
    fs::create_dir(&dir)?;
    for number in 0..LARGE {
        if number % 10_000 == 0 {
            interrupt.check()?;
        }
        File::create(dir.join(format!("f{number}")))?;
    }
    let mut ratios = Vec::new();
    for _ in 0..REPEATS {
        fs::write("/proc/sys/vm/drop_caches", "2").context("drop_caches")?;
        let native = list(&ve.private.join("large"))?;
        let mounted = list(&dir)?;
        ratios.push(native / mounted);
    }
    ratios.sort_by(f64::total_cmp);
    let _ = writeln!(
        found.notes,
        "- a directory of {LARGE} entries is listed at {:.2} of the native speed ({:.2}-{:.2})",
        ratios.get(ratios.len() / 2).copied().unwrap_or(0.0),
        ratios.first().copied().unwrap_or(0.0),
        ratios.last().copied().unwrap_or(0.0)
    );
    Ok(())
}

fn list(dir: &Path) -> Result<f64> {
    let start = Instant::now();
    let count = fs::read_dir(dir)?.count();
    if count != usize::try_from(LARGE)? {
        bail!("{count} entries instead of {LARGE}");
    }
    Ok(start.elapsed().as_secs_f64())
}

/// What one operation takes, in microseconds.
fn operations(root: &Path) -> Result<Vec<(&'static str, f64)>> {
    let dir = root.join("sample");
    fs::create_dir(&dir)?;
    let paths: Vec<PathBuf> = (0..SAMPLE)
        .map(|number| dir.join(format!("s{number}")))
        .collect();
    let each = |work: &dyn Fn(&PathBuf) -> std::io::Result<()>| -> Result<f64> {
        let start = Instant::now();
        paths.iter().try_for_each(work)?;
        Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(SAMPLE))
    };
    let found = vec![
        ("create", each(&|path| File::create_new(path).map(drop))?),
        ("write 4 KiB", each(&|path| fs::write(path, [1; 4096]))?),
        ("open", each(&|path| File::open(path).map(drop))?),
        ("unlink", each(&|path| fs::remove_file(path))?),
    ];
    fs::remove_dir(&dir)?;
    Ok(found)
}
