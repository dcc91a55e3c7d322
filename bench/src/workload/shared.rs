//! Two jobs that overwrite one file in random places, as the writers of a database do.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use anyhow::{Result, anyhow};

use super::pattern::{Places, bytes};
use super::{Place, Workload};
use crate::measure::{Sample, Unit, timed};

pub(super) struct Shared;

const PAGE: u64 = 4096;
const JOBS: u32 = 2;

impl Workload for Shared {
    fn name(&self) -> String {
        "shared".to_owned()
    }

    fn about(&self) -> &'static str {
        "2 jobs overwrite one file, 4 KiB in random places"
    }

    fn needs_content(&self) -> bool {
        false
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let size = place.scale.pick(16, 32);
        let path = place.dir.join("file");
        let pages = u64::from(size) * 256;
        let (new, page) = (File::create(&path)?, bytes(usize::try_from(PAGE)?));
        for number in 0..pages {
            new.write_all_at(&page, number * PAGE)?;
        }
        drop(new);
        let job = &|seed: u32| overwrite(&path, &page, seed, pages);
        let written = timed("rand-write-4k-2j", size * JOBS, Unit::MiB, || {
            thread::scope(|scope| {
                let jobs: Vec<_> = (1..=JOBS)
                    .map(|seed| scope.spawn(move || job(seed)))
                    .collect();
                jobs.into_iter()
                    .try_for_each(|job| job.join().map_err(|_| anyhow!("a job panicked"))?)
            })
        })?;
        Ok(vec![written])
    }
}

fn overwrite(path: &Path, page: &[u8], seed: u32, pages: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let mut places = Places::new(seed.into());
    for _ in 0..pages {
        file.write_all_at(page, places.below(pages) * PAGE)?;
    }
    Ok(())
}
