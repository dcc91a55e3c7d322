//! A file server's clients, by dbench.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Place, Workload};
use crate::measure::{Sample, Unit};
use crate::programs::{Program, command, output};

pub(super) struct Clients;

impl Workload for Clients {
    fn name(&self) -> String {
        "dbench".to_owned()
    }

    fn about(&self) -> &'static str {
        "dbench, 4 clients, for a fixed time"
    }

    fn programs(&self) -> &'static [Program] {
        const { &[Program::new("dbench", "dbench")] }
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let seconds = place.scale.pick(2, 6).to_string();
        let mut dbench = command(
            "dbench",
            [
                "-c",
                "/usr/share/dbench/client.txt",
                "-t",
                &seconds,
                "-D",
                ".",
                "4",
            ],
        );
        let text = output(dbench.current_dir(place.dir), Duration::from_secs(60))?;
        let speed: f64 = text
            .lines()
            .find_map(|line| {
                line.strip_prefix("Throughput ")?
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .context("dbench says no throughput")?;
        Ok(vec![Sample {
            phase: "dbench-4".to_owned(),
            amount: speed,
            unit: Unit::MiB,
            seconds: 1.0,
        }])
    }
}
