//! One workload in one directory, in a process of its own: a server that hangs costs one measurement, not the run.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::args::WorkArgs;
use crate::interrupt::Interrupt;
use crate::measure::{Sample, Scale};
use crate::workload::{self, Place};

/// No workload takes longer than this, at its scale.
const LIMIT_QUICK: Duration = Duration::from_secs(60);
const LIMIT_FULL: Duration = Duration::from_secs(600);

/// The worker's side: prints a line for each phase.
pub(crate) fn work(args: &WorkArgs) -> Result<()> {
    let all = workload::all();
    let workload = all
        .iter()
        .find(|workload| workload.name() == args.workload)
        .with_context(|| format!("no workload '{}'", args.workload))?;
    let samples = workload.run(Place {
        dir: &args.dir,
        archive: &args.archive,
        scale: if args.quick {
            Scale::Quick
        } else {
            Scale::Full
        },
    })?;
    let mut out = std::io::stdout().lock();
    for sample in samples {
        writeln!(out, "{}", sample.line())?;
    }
    Ok(())
}

/// The parent's side: runs a worker, gives up when the time is over or the user asks to.
pub(crate) fn run(workload: &str, place: Place<'_>, interrupt: &Interrupt) -> Result<Vec<Sample>> {
    let mut out = tempfile::tempfile()?;
    let mut errors = tempfile::tempfile()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("work")
        .arg(workload)
        .args([place.dir, place.archive]);
    if place.scale == Scale::Quick {
        command.arg("--quick");
    }
    let child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(errors.try_clone()?)
        .spawn()?;
    let limit = if place.scale == Scale::Quick {
        LIMIT_QUICK
    } else {
        LIMIT_FULL
    };
    let done = Group(child).wait(limit, interrupt);
    let said = read(&mut errors)?;
    if !done? {
        bail!("{}", said.lines().last().unwrap_or("failed without a word"));
    }
    read(&mut out)?
        .lines()
        .map(|line| Sample::parse(line).with_context(|| format!("not a sample: {line}")))
        .collect()
}

fn read(file: &mut File) -> Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// A worker and the programs it started. Dropping it ends them.
struct Group(Child);

impl Group {
    /// Whether it succeeded.
    fn wait(mut self, limit: Duration, interrupt: &Interrupt) -> Result<bool> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.success());
            }
            interrupt.check()?;
            if start.elapsed() > limit {
                bail!("no end after {} s", limit.as_secs());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// An empty directory for a workload.
pub(crate) fn fresh(dir: &Path) -> Result<()> {
    std::fs::create_dir(dir).with_context(|| format!("{}", dir.display()))
}
