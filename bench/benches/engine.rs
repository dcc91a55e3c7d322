//! The quota engine alone: what promises, settlements and commits cost, without any file system.
//!
//! `cargo bench -p simfs-bench --bench engine [FILTER]`. Every row is the middle of several rounds, with the lowest and the
//! highest; all limits are far away unless the row says otherwise.

use std::io::Write;

use anyhow::{Context, Result};

#[path = "engine/bench.rs"]
mod bench;
#[path = "engine/pause.rs"]
mod pause;
#[path = "engine/rows.rs"]
mod rows;

/// Rounds of each row.
const ROUNDS: usize = 7;

fn main() -> Result<()> {
    // Cargo adds flags of its own.
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let is_asked = |name: &str| filter.as_ref().is_none_or(|part| name.contains(part));
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:54} {:>8}  (lowest to highest)",
        "nanoseconds each", ""
    )?;
    for row in rows::ROWS {
        if !is_asked(row.name) {
            continue;
        }
        let mut figures = Vec::new();
        for _ in 0..ROUNDS {
            figures.push((row.measure)()?);
        }
        figures.sort_by(f64::total_cmp);
        let (low, high) = (
            figures.first().context("none")?,
            figures.last().context("none")?,
        );
        let middle = figures.get(ROUNDS / 2).context("none")?;
        writeln!(out, "{:54} {middle:8.0}  ({low:.0} to {high:.0})", row.name)?;
    }
    if is_asked("memory") {
        writeln!(
            out,
            "memory: {:.0} bytes for each account in use",
            rows::bytes_per_account()?
        )?;
    }
    for scene in pause::SCENES {
        if is_asked(scene.name) {
            writeln!(
                out,
                "commit pause, {}: {}",
                scene.name,
                pause::measure(scene)?
            )?;
        }
    }
    Ok(())
}
