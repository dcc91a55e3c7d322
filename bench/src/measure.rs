//! What a measurement is.

use std::time::{Duration, Instant};

use anyhow::Result;

/// How much work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Seconds in all: shows that it works.
    Quick,
    /// What results are recorded with.
    Full,
}

impl Scale {
    /// The amount for this scale.
    pub(crate) fn pick(self, quick: u32, full: u32) -> u32 {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// What the work is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Mebibytes.
    MiB,
    /// Operations.
    Ops,
    /// Files and directories.
    Files,
    /// The whole thing.
    Runs,
}

impl Unit {
    /// All of them.
    const ALL: [Self; 4] = [Self::MiB, Self::Ops, Self::Files, Self::Runs];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MiB => "MiB",
            Self::Ops => "ops",
            Self::Files => "files",
            Self::Runs => "runs",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name)
    }
}

/// One phase of one workload, measured once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// What was measured; unique over all workloads.
    pub(crate) phase: String,
    /// How much was done.
    pub(crate) amount: f64,
    /// Of what.
    pub(crate) unit: Unit,
    /// How long it took.
    pub(crate) seconds: f64,
}

impl Sample {
    pub(crate) fn new(phase: impl Into<String>, amount: u32, unit: Unit, took: Duration) -> Self {
        Self {
            phase: phase.into(),
            amount: f64::from(amount),
            unit,
            seconds: took.as_secs_f64(),
        }
    }

    /// Units a second.
    pub(crate) fn speed(&self) -> f64 {
        self.amount / self.seconds.max(1e-9)
    }

    /// As one line between parent and worker.
    pub(crate) fn line(&self) -> String {
        format!(
            "{},{},{},{:.9}",
            self.phase,
            self.amount,
            self.unit.name(),
            self.seconds
        )
    }

    /// Reads [`Sample::line`].
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(',');
        Some(Self {
            phase: fields.next()?.to_owned(),
            amount: fields.next()?.parse().ok()?,
            unit: Unit::named(fields.next()?)?,
            seconds: fields.next()?.parse().ok()?,
        })
    }
}

/// Does something and says how long it took.
pub(crate) fn timed(
    phase: impl Into<String>,
    amount: u32,
    unit: Unit,
    work: impl FnOnce() -> Result<()>,
) -> Result<Sample> {
    let start = Instant::now();
    work()?;
    Ok(Sample::new(phase, amount, unit, start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back() {
        let sample = Sample::new("seq-read-1m-4j", 64, Unit::MiB, Duration::from_millis(125));
        assert_eq!(Sample::parse(&sample.line()), Some(sample));
        assert_eq!(Sample::parse("x,1,parsecs,1.0"), None);
    }

    #[test]
    fn speed_is_amount_by_time() {
        let sample = Sample::new("x", 64, Unit::MiB, Duration::from_millis(500));
        assert!((sample.speed() - 128.0).abs() < 1e-9);
    }
}
