//! What is recorded and printed: the set-up, every figure, a table with its spread, plots.

pub(crate) mod lines;
mod plot;
mod setup;
mod summary;
mod targets;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

pub(crate) use lines::Line;
pub(crate) use setup::Setup;

use crate::peer::Peer;
use crate::programs::{command, output};
use crate::rounds::{Outcome, Plan};
use crate::terminal::say;
use crate::workload;

/// Peers and workloads.
pub(crate) fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "peers:")?;
    for peer in Peer::ALL {
        writeln!(out, "  {:15} {}", peer.name(), peer.about())?;
    }
    writeln!(out, "workloads:")?;
    for workload in workload::all() {
        writeln!(out, "  {:15} {}", workload.name(), workload.about())?;
    }
    Ok(())
}

/// The table, for the terminal.
pub(crate) fn print(plan: &Plan, outcome: &Outcome) -> Result<()> {
    say(&summary::markdown(plan, outcome))
}

/// `runs/DATE-HOST` beside the manifest.
pub(crate) fn default_out() -> Result<PathBuf> {
    let top = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from("bench"), PathBuf::from);
    let date = output(&mut command("date", ["-u", "+%F"]), Duration::from_secs(10))?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Ok(top
        .join("runs")
        .join(format!("{}-{}", date.trim(), host.trim())))
}

/// Writes all of it below a directory.
pub(crate) fn write(out: &Path, setup: &Setup, plan: &Plan, outcome: &Outcome) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("{}", out.display()))?;
    let save = |name: &str, text: String| {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("{}", path.display()))
    };
    save("setup.md", setup.markdown())?;
    save("raw.csv", raw(outcome))?;
    save("summary.md", summary::markdown(plan, outcome))?;
    for (name, drawing) in plot::all(plan, outcome) {
        save(&name, drawing)?;
    }
    Ok(())
}

fn raw(outcome: &Outcome) -> String {
    let mut text = "round,peer,phase,amount,unit,seconds,load\n".to_owned();
    for record in &outcome.records {
        let _ = writeln!(
            text,
            "{},{},{},{}",
            record.round,
            record.peer.name(),
            record.sample.line(),
            record.load
        );
    }
    text
}
