//! Sequential and random reads and writes of read-only and write-only handles, in blocks of one size.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::pattern::{Places, bytes};
use super::{Place, Workload};
use crate::measure::{Sample, Scale, Unit, timed};

/// One block size and one number of jobs, each job with a file of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    label: &'static str,
    block: u32,
    jobs: u32,
}

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

impl Data {
    pub(super) fn all() -> Vec<Self> {
        let sizes = [("1m", MIB), ("128k", 128 * KIB), ("4k", 4 * KIB)];
        let with = |jobs| sizes.map(|(label, block)| Self { label, block, jobs });
        [with(1), with(4)].concat()
    }

    /// MiB in all files together.
    fn total(self, scale: Scale) -> u32 {
        if self.block < 64 * KIB {
            scale.pick(16, 32)
        } else {
            scale.pick(64, 128)
        }
    }

    fn phase(self, what: &str) -> String {
        format!("{what}-{}-{}j", self.label, self.jobs)
    }
}

/// One job's share.
struct Job {
    path: PathBuf,
    seed: u64,
    blocks: u64,
    buffer: Vec<u8>,
}

impl Job {
    fn place(&self, block: u64) -> u64 {
        block * u64::try_from(self.buffer.len()).unwrap_or(0)
    }

    fn write_new(&mut self) -> Result<()> {
        let file = File::create(&self.path)?;
        for block in 0..self.blocks {
            file.write_all_at(&self.buffer, self.place(block))?;
        }
        Ok(())
    }

    fn overwrite(&mut self) -> Result<()> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        let mut places = Places::new(self.seed);
        for _ in 0..self.blocks {
            file.write_all_at(&self.buffer, self.place(places.below(self.blocks)))?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        let file = File::open(&self.path)?;
        for block in 0..self.blocks {
            let place = self.place(block);
            file.read_exact_at(&mut self.buffer, place)?;
        }
        Ok(())
    }

    fn read_anywhere(&mut self) -> Result<()> {
        let file = File::open(&self.path)?;
        let mut places = Places::new(self.seed);
        for _ in 0..self.blocks {
            let place = self.place(places.below(self.blocks));
            file.read_exact_at(&mut self.buffer, place)?;
        }
        Ok(())
    }
}

impl Workload for Data {
    fn name(&self) -> String {
        self.phase("data")
    }

    fn about(&self) -> &'static str {
        "new files written in order, read in order, read and overwritten in random places"
    }

    fn needs_content(&self) -> bool {
        false
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let total = self.total(place.scale);
        let blocks =
            u64::from(total) * u64::from(MIB) / u64::from(self.block) / u64::from(self.jobs);
        let mut jobs = self.jobs(place.dir, blocks)?;
        let mut measure = |what: &str, work: fn(&mut Job) -> Result<()>| {
            timed(self.phase(what), total, Unit::MiB, || {
                together(&mut jobs, work)
            })
        };
        let written = measure("seq-write", Job::write_new)?;
        // The first look at a file fills the caches and is not counted.
        measure("warm", Job::read)?;
        Ok(vec![
            measure("seq-read", Job::read)?,
            measure("rand-read", Job::read_anywhere)?,
            written,
            measure("rand-write", Job::overwrite)?,
        ])
    }
}

impl Data {
    fn jobs(self, dir: &Path, blocks: u64) -> Result<Vec<Job>> {
        let length = usize::try_from(self.block).context("block size")?;
        Ok((0..self.jobs)
            .map(|number| Job {
                path: dir.join(format!("file{number}")),
                seed: u64::from(number) + 1,
                blocks,
                buffer: bytes(length),
            })
            .collect())
    }
}

/// Does the work of all jobs at the same time.
fn together(jobs: &mut [Job], work: fn(&mut Job) -> Result<()>) -> Result<()> {
    if let [job] = jobs {
        return work(job);
    }
    thread::scope(|scope| {
        let running: Vec<_> = jobs
            .iter_mut()
            .map(|job| scope.spawn(move || work(job)))
            .collect();
        for job in running {
            job.join().map_err(|_| anyhow!("a job panicked"))??;
        }
        Ok(())
    })
}
