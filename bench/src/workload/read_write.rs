//! Reads and writes through one handle that was opened for both, as databases do.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use anyhow::Result;

use super::pattern::{Places, bytes};
use super::{Place, Workload};
use crate::measure::{Sample, Unit, timed};

pub(super) struct ReadWrite;

const PAGE: u64 = 4096;
/// Of ten operations of the mix, this many are reads.
const READS_OF_TEN: u64 = 7;

impl Workload for ReadWrite {
    fn name(&self) -> String {
        "read-write".to_owned()
    }

    fn about(&self) -> &'static str {
        "4 KiB in random places of a file open for reading and writing; 7 reads to 3 writes as the mix"
    }

    fn needs_content(&self) -> bool {
        false
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let count = place.scale.pick(8_000, 50_000);
        let pages = u64::from(place.scale.pick(4_096, 16_384));
        let path = place.dir.join("database");
        let mut page = bytes(usize::try_from(PAGE)?);
        let new = File::create(&path)?;
        for number in 0..pages {
            new.write_all_at(&page, number * PAGE)?;
        }
        drop(new);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        for number in 0..pages {
            file.read_exact_at(&mut page, number * PAGE)?;
        }
        let mut measure = |phase: &str, reads: u64| {
            let mut places = Places::new(11);
            timed(phase, count, Unit::Ops, || {
                for _ in 0..count {
                    let offset = places.below(pages) * PAGE;
                    if places.below(10) < reads {
                        file.read_exact_at(&mut page, offset)?;
                    } else {
                        file.write_all_at(&page, offset)?;
                    }
                }
                Ok(())
            })
        };
        Ok(vec![
            measure("rdwr-read-4k", 10)?,
            measure("rdwr-write-4k", 0)?,
            measure("rdwr-mix-4k", READS_OF_TEN)?,
        ])
    }
}
