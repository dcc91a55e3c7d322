//! `takeover`: how long a guest waits while its VE gets another daemon, against the number of files that the daemons know.
//!
//! One VE for each number of files. Before each takeover every file is asked for, so that the daemon that goes has them all in
//! its memory. Then guests open and close files of the whole tree, one after the other and without a pause, and the daemon is
//! killed or replaced. What counts is the longest time that one of them waited for one file. The same without a takeover tells
//! what of it is the machine's.

mod guests;

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::args::TakeoverArgs;
use crate::crowd::{CrowdedVe, FIRST, PATIENCE};
use crate::host::number;
use crate::interrupt::Interrupt;
use crate::report::{Line, lines};
use crate::statistics::Spread;
use crate::terminal::{progress, say};
use guests::Guests;

/// How long guests work before and after.
const MARGIN: Duration = Duration::from_millis(300);
/// How often files are asked for that the kernel goes on forgetting.
const TRIES: u32 = 3;
/// The aim: the longest wait, and the median.
const LONGEST_MS: f64 = 1000.0;
const MEDIAN_MS: f64 = 100.0;

/// What happens to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Nothing.
    Nothing,
    /// SIGKILL.
    Kill,
    /// `simfs upgrade`, to the same program.
    Upgrade,
}

/// What is measured at each number of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    event: Event,
    /// Whether others write at the same time.
    load: bool,
}

const CASES: [Case; 5] = [
    Case::new(Event::Nothing, false),
    Case::new(Event::Kill, false),
    Case::new(Event::Upgrade, false),
    Case::new(Event::Kill, true),
    Case::new(Event::Upgrade, true),
];

impl Case {
    const fn new(event: Event, load: bool) -> Self {
        Self { event, load }
    }

    fn name(self) -> String {
        let event = match self.event {
            Event::Nothing => "undisturbed",
            Event::Kill => "kill -9",
            Event::Upgrade => "upgrade",
        };
        let load = if self.load { " under load" } else { "" };
        format!("{event}{load}")
    }

    /// Whether the aim is about it.
    fn is_aimed_at(self) -> bool {
        self.event != Event::Nothing
    }
}

/// One figure.
#[derive(Clone, Copy, Debug)]
struct Record {
    round: u32,
    files: u32,
    case: Case,
    ms: f64,
}

/// Measures, prints and records.
pub(crate) fn takeover(args: &TakeoverArgs) -> Result<()> {
    let interrupt = Interrupt::catch()?;
    let dir = args.site.scratch("takeover")?;
    let mut records = Vec::new();
    for (number, &files) in (FIRST..).zip(&args.files) {
        progress(&format!("making {files} files"));
        let ve = CrowdedVe::new(dir.path(), &args.site.bin_dir, number, files, &interrupt)?;
        ve.simfs("mount")?;
        for round in 1..=args.rounds {
            for case in CASES {
                interrupt.check()?;
                let ms = measure(&ve, case)?;
                let name = case.name();
                progress(&format!("round {round}: {files} files, {name}: {ms:.1} ms"));
                records.push(Record {
                    round,
                    files,
                    case,
                    ms,
                });
            }
        }
        ve.simfs("umount")?;
    }
    let table = table(&records)?;
    args.site.record(&[
        ("takeover.md", &table),
        ("takeover.csv", &csv(&records)),
        ("takeover.svg", &drawing(&records)),
    ])?;
    say(&table)
}

/// The milliseconds that a guest waited for one file at most.
fn measure(ve: &CrowdedVe<'_>, case: Case) -> Result<f64> {
    let daemon = make_known(ve)?;
    let guests = Guests::start(ve, case.load)?;
    thread::sleep(MARGIN);
    let replaced = replace(ve, case.event, daemon);
    thread::sleep(MARGIN);
    // Their errors say more than that of a command that waits for the daemon.
    let wait = guests.end()?;
    replaced?;
    Ok(wait.as_secs_f64() * 1e3)
}

/// Has the daemon know every file; its process.
fn make_known(ve: &CrowdedVe<'_>) -> Result<u32> {
    for _ in 0..TRIES {
        guests::ask_for_all(ve)?;
        let status = ve.status()?;
        if number(&status, "nodes")? >= ve.files {
            return number(&status, "pid");
        }
        progress("the kernel has forgotten files meanwhile; asking again");
    }
    bail!("the kernel forgets files as they are asked for: more memory is needed")
}

/// Returns when another daemon serves.
fn replace(ve: &CrowdedVe<'_>, event: Event, daemon: u32) -> Result<()> {
    match event {
        Event::Nothing => return Ok(()),
        Event::Kill => {
            let pid = Pid::from_raw(i32::try_from(daemon)?).context("a process id")?;
            kill_process(pid, Signal::KILL)?;
        }
        Event::Upgrade => drop(ve.simfs("upgrade")?),
    }
    let start = Instant::now();
    // Who asks meanwhile waits for the next one.
    while ve.daemon().map_or(true, |next| next == daemon) {
        if start.elapsed() > PATIENCE {
            bail!("no daemon follows the one that ended");
        }
    }
    Ok(())
}

/// The rows of a table or drawing: what happened, the number of files, the figures.
fn rows(records: &[Record]) -> Vec<(Case, u32, Vec<f64>)> {
    let mut rows = Vec::new();
    for case in CASES {
        let mut of_case: Vec<(Case, u32, Vec<f64>)> = Vec::new();
        for record in records.iter().filter(|record| record.case == case) {
            match of_case.iter_mut().find(|row| row.1 == record.files) {
                Some(row) => row.2.push(record.ms),
                None => of_case.push((case, record.files, vec![record.ms])),
            }
        }
        of_case.sort_by_key(|row| row.1);
        rows.extend(of_case);
    }
    rows
}

fn table(records: &[Record]) -> Result<String> {
    let mut text = format!(
        "# How long a guest waits while its daemon is replaced\n\n\
         The longest time that one of {} guests waited for one file of the tree, in milliseconds; median, lowest and highest of the \
         rounds. *Undisturbed*: without a takeover. *Under load*: {} others write, rename and remove files. Aimed at are {LONGEST_MS:.0} ms at \
         most and a median below {MEDIAN_MS:.0} ms.\n\n\
         | what | files known | ms | lowest | highest | met |\n|---|---|---|---|---|---|\n",
        guests::READERS,
        guests::WRITERS,
    );
    for (case, files, figures) in rows(records) {
        let spread = Spread::of(&figures).context("no figures")?;
        let is_met = spread.median < MEDIAN_MS && spread.high <= LONGEST_MS;
        let met = match (case.is_aimed_at(), is_met) {
            (false, _) => "",
            (true, true) => "yes",
            (true, false) => "**no**",
        };
        writeln!(
            text,
            "| {} | {files} | {:.1} | {:.1} | {:.1} | {met} |",
            case.name(),
            spread.median,
            spread.low,
            spread.high,
        )?;
    }
    Ok(text)
}

fn drawing(records: &[Record]) -> String {
    let mut lines: Vec<Line> = Vec::new();
    for (case, files, figures) in rows(records) {
        let (name, point) = (case.name(), (f64::from(files), figures));
        match lines.last_mut().filter(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line {
                name,
                points: vec![point],
            }),
        }
    }
    let title = "The longest wait of a guest while its daemon is replaced";
    lines::drawing(title, "files known to the daemon", "milliseconds", &lines)
}

fn csv(records: &[Record]) -> String {
    let mut text = "round,files,what,ms\n".to_owned();
    for record in records {
        let Record {
            round, files, ms, ..
        } = record;
        let _never_fails = writeln!(text, "{round},{files},{},{ms:.3}", record.case.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(files: u32, case: Case, ms: f64) -> Record {
        Record {
            round: 1,
            files,
            case,
            ms,
        }
    }

    #[test]
    fn the_aim_is_met_by_median_and_maximum() {
        let [quiet, kill, upgrade, ..] = CASES;
        let records = [
            record(10, kill, 20.0),
            record(10, kill, 30.0),
            record(10, kill, 900.0),
            record(100, kill, 1000.1),
            record(10, upgrade, 110.0),
            record(10, quiet, 2000.0),
        ];
        let table = table(&records).unwrap();
        for row in [
            "| undisturbed | 10 | 2000.0 | 2000.0 | 2000.0 |  |",
            "| kill -9 | 10 | 30.0 | 20.0 | 900.0 | yes |",
            "| kill -9 | 100 | 1000.1 | 1000.1 | 1000.1 | **no** |",
            "| upgrade | 10 | 110.0 | 110.0 | 110.0 | **no** |",
        ] {
            assert!(table.contains(row), "{row}\n{table}");
        }
        assert_eq!(drawing(&records).matches("<circle").count(), 6);
        let csv = csv(&records);
        assert!(csv.contains("1,100,kill -9,1000.100"), "{csv}");
    }
}
