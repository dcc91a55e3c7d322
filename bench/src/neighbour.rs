//! `neighbour`: two VEs, one of them saturated: how long the other one's guest waits for small things.
//!
//! The guest makes, fills and removes a file, again and again, in a VE of its own. Beside it nobody works, or several threads
//! make and remove files or write large ones as fast as they can: in a plain directory, which costs the guest only its share of
//! CPUs and disk, or in the other VE. What the second takes beyond the first would be the VEs' doing.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::args::NeighbourArgs;
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::statistics::Spread;
use crate::terminal::{progress, say};

/// How long the guest is watched beside each neighbour.
const WATCH: Duration = Duration::from_secs(2);
/// Before that, so that the neighbour is at full speed.
const LEAD: Duration = Duration::from_millis(300);
/// A neighbour's threads: twice as many as a small host has CPUs.
const STORMERS: u32 = 4;
/// Of a large file, in bytes, and how much is written at a time.
const LARGE: u64 = 64 << 20;
const PIECE: usize = 1 << 20;

/// What the neighbour does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storm {
    Nothing,
    Names,
    Writes,
}

/// What it does and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    storm: Storm,
    in_ve: bool,
}

const CASES: [Case; 5] = [
    Case::new(Storm::Nothing, false),
    Case::new(Storm::Names, false),
    Case::new(Storm::Names, true),
    Case::new(Storm::Writes, false),
    Case::new(Storm::Writes, true),
];

impl Case {
    const fn new(storm: Storm, in_ve: bool) -> Self {
        Self { storm, in_ve }
    }

    fn name(self) -> String {
        let storm = match self.storm {
            Storm::Nothing => return "nobody".to_owned(),
            Storm::Names => "files made and removed",
            Storm::Writes => "large files written",
        };
        let place = if self.in_ve {
            "in the other VE"
        } else {
            "in a plain directory"
        };
        format!("{storm} {place}")
    }
}

/// What the guest waited for one file, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Waits {
    median: f64,
    /// Of a hundred, one took longer.
    long: f64,
}

impl Waits {
    fn of(mut waits: Vec<Duration>) -> Result<Self> {
        waits.sort_unstable();
        let at = |part: usize| {
            let index = waits.len() * part / 100;
            let wait = waits.get(index).context("the guest did nothing")?;
            anyhow::Ok(wait.as_secs_f64() * 1e6)
        };
        Ok(Self {
            median: at(50)?,
            long: at(99)?,
        })
    }
}

/// Measures, prints and records.
pub(crate) fn neighbour(args: &NeighbourArgs) -> Result<()> {
    let interrupt = Interrupt::catch()?;
    let dir = args.site.scratch("neighbour")?;
    let mut host = Host::new(dir.path(), &args.site.bin_dir);
    let rounds = host
        .mount_up_to(2, &interrupt)
        .and_then(|()| measure(&host, dir.path(), args.rounds, &interrupt));
    host.unmount_all();
    let table = table(&rounds?)?;
    args.site.record(&[("neighbour.md", &table)])?;
    say(&table)
}

/// For each round what the guest waited, by case.
fn measure(
    host: &Host<'_>,
    dir: &Path,
    rounds: u32,
    interrupt: &Interrupt,
) -> Result<Vec<Vec<Waits>>> {
    let [guest, other] = host.ves() else {
        bail!("two VEs are mounted, not {}", host.ves().len());
    };
    let plain = dir.join("plain");
    fs::create_dir(&plain)?;
    let mut measured = Vec::new();
    for round in 1..=rounds {
        let mut of_round = Vec::new();
        for case in CASES {
            interrupt.check()?;
            let place = if case.in_ve { &other.root } else { &plain };
            let waits = beside(case.storm, place, &guest.root)?;
            progress(&format!(
                "round {round}: {}: {:.0} us",
                case.name(),
                waits.median
            ));
            of_round.push(waits);
        }
        measured.push(of_round);
    }
    Ok(measured)
}

/// What the guest waits while there is a storm at that place.
fn beside(storm: Storm, place: &Path, guest: &Path) -> Result<Waits> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let stormers = if storm == Storm::Nothing { 0 } else { STORMERS };
        let running: Vec<_> = (0..stormers)
            .map(|number| {
                let (path, ended) = (place.join(format!("storm{number}")), &ended);
                scope.spawn(move || rage(storm, path, ended))
            })
            .collect();
        thread::sleep(LEAD);
        let waits = work(&guest.join("file"));
        ended.store(true, Ordering::Relaxed);
        for stormer in running {
            let ended = stormer.join();
            ended.map_err(|_| anyhow!("a neighbour panicked"))??;
        }
        Waits::of(waits?)
    })
}

/// Makes, fills and removes a file; how long each took.
fn work(path: &Path) -> Result<Vec<Duration>> {
    let mut waits = Vec::new();
    let end = Instant::now() + WATCH;
    while Instant::now() < end {
        let start = Instant::now();
        File::create_new(path)?.write_all(&[7; 4096])?;
        fs::remove_file(path)?;
        waits.push(start.elapsed());
    }
    Ok(waits)
}

fn rage(storm: Storm, path: PathBuf, ended: &AtomicBool) -> Result<()> {
    let piece = vec![7; PIECE];
    let large = match storm {
        Storm::Writes => Some(File::create(&path)?),
        Storm::Names | Storm::Nothing => None,
    };
    let mut offset = 0;
    while !ended.load(Ordering::Relaxed) {
        match &large {
            Some(file) => {
                file.write_all_at(&piece, offset)?;
                offset = (offset + u64::try_from(PIECE)?) % LARGE;
            }
            None => {
                drop(File::create_new(&path)?);
                fs::remove_file(&path)?;
            }
        }
    }
    if large.is_some() {
        fs::remove_file(&path)?;
    }
    Ok(())
}

fn table(rounds: &[Vec<Waits>]) -> Result<String> {
    let mut text = String::from(
        "A file of 4 KiB made, filled and removed; medians of all rounds (lowest-highest).\n\n\
         | beside it | median, us | times undisturbed | one of a hundred takes longer, us |\n|---|---|---|---|\n",
    );
    for (number, case) in CASES.into_iter().enumerate() {
        let of_case = |figure: &dyn Fn(&Waits, &Waits) -> f64| {
            let figures: Vec<f64> = rounds
                .iter()
                .filter_map(|round| Some(figure(round.get(number)?, round.first()?)))
                .collect();
            Spread::of(&figures).context("no rounds")
        };
        let median = of_case(&|waits, _| waits.median)?;
        let ratio = of_case(&|waits, alone| waits.median / alone.median)?;
        let long = of_case(&|waits, _| waits.long)?;
        writeln!(
            text,
            "| {} | {:.0} ({:.0}-{:.0}) | {:.2} ({:.2}-{:.2}) | {:.0} ({:.0}-{:.0}) |",
            case.name(),
            median.median,
            median.low,
            median.high,
            ratio.median,
            ratio.low,
            ratio.high,
            long.median,
            long.low,
            long.high,
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(median: f64) -> Waits {
        Waits {
            median,
            long: median * 3.0,
        }
    }

    #[test]
    fn each_neighbour_is_held_against_none_in_the_same_round() {
        let round = |alone: f64| {
            let of = |factor: f64| waits(alone * factor);
            vec![of(1.0), of(1.5), of(2.0), of(1.2), of(1.3)]
        };
        let text = table(&[round(100.0), round(300.0), round(200.0)]).unwrap();
        let row = text
            .lines()
            .find(|line| line.contains("removed in the other VE"));
        let row = row.unwrap();
        assert!(
            row.contains("| 400 (200-600) | 2.00 (2.00-2.00) | 1200 (600-1800) |"),
            "{row}"
        );
    }

    #[test]
    fn waits_are_told_by_their_middle_and_their_hundredth() {
        let waits = Waits::of((0..1000).map(Duration::from_micros).collect()).unwrap();
        assert_eq!((waits.median.round(), waits.long.round()), (500.0, 990.0));
        assert!(Waits::of(Vec::new()).is_err());
    }
}
