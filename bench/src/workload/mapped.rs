//! Loads and stores through shared mappings, by fio: its own clock excludes its start.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Place, Workload};
use crate::measure::{Sample, Unit};
use crate::programs::{Program, command, output};

pub(super) struct Mapped;

/// Fields of fio's terse output, version 3: milliseconds of all reads, of all writes.
///
/// # Source
/// fio(1), TERSE OUTPUT.
const READ_TIME: usize = 8;
const WRITE_TIME: usize = 49;

impl Workload for Mapped {
    fn name(&self) -> String {
        "mmap".to_owned()
    }

    fn about(&self) -> &'static str {
        "4 KiB loads and stores in random places of a mapped file (fio)"
    }

    fn programs(&self) -> &'static [Program] {
        const { &[Program::new("fio", "fio")] }
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let (size, work) = (place.scale.pick(16, 64), place.scale.pick(256, 1024));
        let measure = |phase: &str, kind: &str, field: usize| {
            let mut fio = command(
                "fio",
                [
                    "--minimal",
                    "--name=mapped",
                    "--ioengine=mmap",
                    "--bs=4k",
                    "--invalidate=0",
                    "--norandommap",
                    "--randseed=5",
                    "--overwrite=1",
                    "--filename=mapped",
                ],
            );
            fio.arg(format!("--rw={kind}"))
                .arg(format!("--size={size}m"))
                .arg(format!("--io_size={work}m"))
                .current_dir(place.dir);
            let text = output(&mut fio, Duration::from_secs(120))?;
            let line = text.lines().find(|line| line.starts_with("3;"));
            let spent: u64 = line
                .and_then(|line| line.split(';').nth(field)?.parse().ok())
                .context("fio says no time")?;
            anyhow::Ok(Sample::new(
                phase,
                work,
                Unit::MiB,
                Duration::from_millis(spent.max(1)),
            ))
        };
        measure("mmap-warm", "randread", READ_TIME)?;
        Ok(vec![
            measure("mmap-read-4k", "randread", READ_TIME)?,
            measure("mmap-write-4k", "randwrite", WRITE_TIME)?,
        ])
    }
}
