//! Small writes at the end of a log, and writes that must reach the disk.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;

use anyhow::Result;

use super::pattern::bytes;
use super::{Place, Workload};
use crate::measure::{Sample, Unit, timed};

pub(super) struct Appends;

impl Workload for Appends {
    fn name(&self) -> String {
        "append".to_owned()
    }

    fn about(&self) -> &'static str {
        "4 KiB and 100 bytes at the end of a file"
    }

    fn needs_content(&self) -> bool {
        false
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let count = place.scale.pick(5_000, 30_000);
        let measure = |phase: &str, length: usize| {
            let piece = bytes(length);
            let mut log = OpenOptions::new()
                .append(true)
                .create_new(true)
                .open(place.dir.join(phase))?;
            timed(phase, count, Unit::Ops, || {
                for _ in 0..count {
                    log.write_all(&piece)?;
                }
                Ok(())
            })
        };
        Ok(vec![
            measure("append-4k", 4096)?,
            measure("append-100b", 100)?,
        ])
    }
}

pub(super) struct Synced;

impl Workload for Synced {
    fn name(&self) -> String {
        "fsync".to_owned()
    }

    fn about(&self) -> &'static str {
        "4 KiB and fdatasync, over old data and at the end of a file"
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let count = place.scale.pick(50, 300);
        let page = bytes(4096);
        let old = File::create(place.dir.join("old"))?;
        for number in 0..u64::from(count) {
            old.write_all_at(&page, number * 4096)?;
        }
        old.sync_all()?;
        let new = File::create(place.dir.join("new"))?;
        let measure = |phase: &str, file: &File| {
            timed(phase, count, Unit::Ops, || {
                for number in 0..u64::from(count) {
                    file.write_all_at(&page, number * 4096)?;
                    file.sync_data()?;
                }
                Ok(())
            })
        };
        Ok(vec![
            measure("fsync-overwrite-4k", &old)?,
            measure("fsync-append-4k", &new)?,
        ])
    }
}
