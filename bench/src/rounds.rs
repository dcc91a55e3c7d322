//! The loop: every round mounts all peers afresh, and gives each workload to all of them, one right after the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};

use crate::interrupt::Interrupt;
use crate::measure::{Sample, Scale};
use crate::peer::{Ground, Peer, Tools};
use crate::terminal::progress;
use crate::worker;
use crate::workload::{Place, Workload};

/// What to run.
pub(crate) struct Plan {
    pub(crate) peers: Vec<Peer>,
    pub(crate) workloads: Vec<Box<dyn Workload>>,
    pub(crate) rounds: u32,
    pub(crate) scale: Scale,
    pub(crate) tools: Tools,
}

/// One figure, and when it was taken.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) round: u32,
    pub(crate) peer: Peer,
    pub(crate) sample: Sample,
    /// Processes that wanted to run, by the kernel's count of the last minute.
    pub(crate) load: f64,
}

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) records: Vec<Record>,
    /// What failed: peer and workload, with the last message.
    pub(crate) failures: BTreeMap<(&'static str, String), String>,
}

impl Plan {
    /// Runs all rounds in a directory, and leaves nothing there.
    pub(crate) fn run(&self, dir: &Path, archive: &Path, interrupt: &Interrupt) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for round in 1..=self.rounds {
            let place = tempfile::Builder::new().prefix("round").tempdir_in(dir)?;
            self.round(round, place.path(), archive, interrupt, &mut outcome)?;
        }
        Ok(outcome)
    }

    fn round(
        &self,
        round: u32,
        dir: &Path,
        archive: &Path,
        interrupt: &Interrupt,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let mut mounts = Vec::new();
        for peer in &self.peers {
            interrupt.check()?;
            match peer.mount(&Ground::new(dir, peer.name())?, &self.tools) {
                Ok(mounted) => mounts.push((*peer, mounted)),
                Err(error) => outcome.fail(*peer, "mount", &error),
            }
        }
        let disk = File::open(dir)?;
        let first = usize::try_from(round)? % mounts.len().max(1);
        mounts.rotate_left(first);
        for workload in &self.workloads {
            progress(&format!(
                "round {round}/{}: {}",
                self.rounds,
                workload.name()
            ));
            mounts.rotate_left(1);
            for (peer, mounted) in &mounts {
                if workload.needs_content() && !peer.keeps_content() {
                    continue;
                }
                // Nobody pays for what another left to be written.
                rustix::fs::syncfs(&disk).context("syncfs")?;
                let place = mounted.root().join(workload.name());
                let result = measure(&place, archive, &**workload, self.scale, interrupt);
                interrupt.check()?;
                match result {
                    Ok(samples) => outcome.keep(round, *peer, samples),
                    Err(error) => outcome.fail(*peer, &workload.name(), &error),
                }
            }
        }
        Ok(())
    }
}

fn measure(
    dir: &Path,
    archive: &Path,
    workload: &dyn Workload,
    scale: Scale,
    interrupt: &Interrupt,
) -> Result<Vec<Sample>> {
    worker::fresh(dir)?;
    let place = Place {
        dir,
        archive,
        scale,
    };
    let samples = worker::run(&workload.name(), place, interrupt);
    // A server that hangs is reported by the worker; waiting here for it again would be for good.
    if samples.is_ok() {
        std::fs::remove_dir_all(dir).context("the remains cannot be removed")?;
    }
    samples
}

impl Outcome {
    fn keep(&mut self, round: u32, peer: Peer, samples: Vec<Sample>) {
        let load = load();
        let records = samples.into_iter().map(|sample| Record {
            round,
            peer,
            sample,
            load,
        });
        self.records.extend(records);
    }

    fn fail(&mut self, peer: Peer, what: &str, error: &anyhow::Error) {
        progress(&format!("{} {what}: {error:#}", peer.name()));
        self.failures
            .insert((peer.name(), what.to_owned()), format!("{error:#}"));
    }
}

/// The load of the last minute.
pub(crate) fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|load| load.parse().ok())
        .unwrap_or(0.0)
}
