//! `recovery`: how long a VE is away after its daemon was killed, against the number of its files and against what was
//! touched since the last commit.
//!
//! One private area for each number of files, all of them empty files in directories of a hundred. In each round every one
//! is mounted, some files are written to, keeper and daemon are killed before the next commit, and the VE is mounted again.
//! What counts is the time from the kill until a file answers; the same after a clean unmount tells what of it is the mount's.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::args::RecoveryArgs;
use crate::crowd::{CrowdedVe, FIRST, PATIENCE};
use crate::host::number;
use crate::interrupt::Interrupt;
use crate::report::{Line, lines};
use crate::statistics::Spread;
use crate::terminal::{progress, say};

const ROUNDS_THAT_COUNT: u32 = 3;

/// One figure.
#[derive(Clone, Copy, Debug)]
struct Record {
    round: u32,
    files: u32,
    /// Files written to since the last commit; `None` after a clean unmount.
    touched: Option<u32>,
    ms: f64,
}

/// Measures, prints and records.
pub(crate) fn recovery(args: &RecoveryArgs) -> Result<()> {
    if args.rounds < ROUNDS_THAT_COUNT {
        progress("fewer than three rounds: the figures show the order of magnitude only");
    }
    let interrupt = Interrupt::catch()?;
    let dir = args.site.scratch("recovery")?;
    let mut ves = Vec::new();
    for (number, &files) in (FIRST..).zip(&args.files) {
        progress(&format!("making {files} files"));
        ves.push(CrowdedVe::new(
            dir.path(),
            &args.site.bin_dir,
            number,
            files,
            &interrupt,
        )?);
    }
    let mut records = Vec::new();
    for round in 1..=args.rounds {
        for ve in &ves {
            for touched in [None]
                .into_iter()
                .chain(args.touched.iter().copied().map(Some))
            {
                interrupt.check()?;
                if touched.is_some_and(|touched| touched > ve.files) {
                    continue;
                }
                let ms = measure(ve, touched)?;
                progress(&format!(
                    "round {round}: {} files, {touched:?} touched: {ms:.1} ms",
                    ve.files
                ));
                records.push(Record {
                    round,
                    files: ve.files,
                    touched,
                    ms,
                });
            }
        }
    }
    let table = table(&records)?;
    args.site.record(&[
        ("recovery.md", &table),
        ("recovery.csv", &csv(&records)),
        ("recovery.svg", &drawing(&records)),
    ])?;
    say(&table)
}

/// Mounts, works, ends in one way or the other, mounts again; the milliseconds from the end until a file answers.
fn measure(ve: &CrowdedVe<'_>, touched: Option<u32>) -> Result<f64> {
    ve.simfs("mount")?;
    // The commit that begins the mount is over, and what this adds to the caches is there in every case.
    fs::metadata(ve.path(0))?;
    for file in 0..touched.unwrap_or(0) {
        // Spread over the whole tree.
        let chosen = u64::from(file) * u64::from(ve.files) / u64::from(touched.unwrap_or(1));
        let path = ve.path(u32::try_from(chosen)?);
        fs::File::options()
            .write(true)
            .open(path)?
            .write_all_at(&[1; 512], 0)?;
    }
    let start = match touched {
        None => {
            ve.simfs("umount")?;
            Instant::now()
        }
        Some(_) => kill(ve)?,
    };
    while let Err(error) = ve.simfs("mount") {
        if start.elapsed() > PATIENCE {
            return Err(error);
        }
    }
    fs::metadata(ve.path(ve.files / 2))?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    assert_recovered(ve)?;
    ve.simfs("umount")?;
    Ok(ms)
}

/// Kills keeper and daemon; when.
fn kill(ve: &CrowdedVe<'_>) -> Result<Instant> {
    let status = ve.status()?;
    let pids = [number(&status, "keeper_pid")?, number(&status, "pid")?];
    let start = Instant::now();
    for pid in pids {
        let raw = i32::try_from(pid)?;
        // A daemon that lost its keeper may be ending by itself.
        let _ = kill_process(Pid::from_raw(raw).context("a process id")?, Signal::KILL);
        while is_alive(pid) {
            thread::sleep(Duration::from_micros(200));
        }
    }
    let _gone_with_its_keeper = unmount(&ve.root, UnmountFlags::DETACH);
    Ok(start)
}

/// A recount would make the figure worthless.
fn assert_recovered(ve: &CrowdedVe<'_>) -> Result<()> {
    let status = ve.status()?;
    match status.contains("\"mounted\"") {
        true => Ok(()),
        false => bail!("the VE is not in service: {status}"),
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The rows of a table or drawing: number of files, what was touched, the figures.
fn rows(records: &[Record]) -> Vec<(u32, Option<u32>, Vec<f64>)> {
    let mut rows: Vec<(u32, Option<u32>, Vec<f64>)> = Vec::new();
    for record in records {
        let key = (record.touched, record.files);
        match rows.iter_mut().find(|row| (row.1, row.0) == key) {
            Some(row) => row.2.push(record.ms),
            None => rows.push((record.files, record.touched, vec![record.ms])),
        }
    }
    rows.sort_by_key(|row| (row.1, row.0));
    rows
}

fn table(records: &[Record]) -> Result<String> {
    let mut text = String::from(
        "# Time from the kill of a daemon until its VE answers again\n\n\
         Rows \"clean\" are mounts after a clean unmount: what a mount takes anyway. *Touched* are files that were written to since the \
         last commit. Medians, with the lowest and highest of the rounds, in milliseconds; caches are warm.\n\n\
         | touched | files | ms | lowest | highest | to fewest files |\n|---|---|---|---|---|---|\n",
    );
    let mut first: Option<(Option<u32>, f64)> = None;
    for (files, touched, figures) in rows(records) {
        let spread = Spread::of(&figures).context("no figures")?;
        let base = match first {
            Some((of, base)) if of == touched => base,
            _ => spread.median,
        };
        first = Some((touched, base));
        let name = touched.map_or_else(|| "clean".to_owned(), |touched| touched.to_string());
        writeln!(
            text,
            "| {name} | {files} | {:.1} | {:.1} | {:.1} | {:.2} |",
            spread.median,
            spread.low,
            spread.high,
            spread.median / base
        )?;
    }
    Ok(text)
}

fn drawing(records: &[Record]) -> String {
    let mut lines: Vec<Line> = Vec::new();
    for (files, touched, figures) in rows(records) {
        let name = touched.map_or_else(
            || "clean unmount".to_owned(),
            |touched| format!("killed, {touched} touched"),
        );
        let point = (f64::from(files), figures);
        match lines.last_mut().filter(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line {
                name,
                points: vec![point],
            }),
        }
    }
    let title = "Time from the kill until the VE answers again";
    lines::drawing(title, "files in the VE", "milliseconds", &lines)
}

fn csv(records: &[Record]) -> String {
    let mut text = "round,files,touched,ms\n".to_owned();
    for Record {
        round,
        files,
        touched,
        ms,
    } in records
    {
        let touched = touched.map_or_else(|| "clean".to_owned(), |touched| touched.to_string());
        let _never_fails = writeln!(text, "{round},{files},{touched},{ms:.3}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_gather_rounds() {
        let record = |round, touched, ms| Record {
            round,
            files: 10,
            touched,
            ms,
        };
        let records = [
            record(1, Some(5), 2.0),
            record(1, None, 1.0),
            record(2, Some(5), 4.0),
        ];
        assert_eq!(
            rows(&records),
            [(10, None, vec![1.0]), (10, Some(5), vec![2.0, 4.0])]
        );
        assert!(
            table(&records)
                .unwrap()
                .contains("| 5 | 10 | 3.0 | 2.0 | 4.0 | 1.00 |")
        );
        assert!(csv(&records).contains("1,10,clean,1.000"));
        assert!(drawing(&records).ends_with("</svg>\n"));
    }
}
