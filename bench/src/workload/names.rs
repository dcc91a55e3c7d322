//! Many small files: made, looked at, opened, removed.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use anyhow::Result;

use super::{Place, Workload};
use crate::measure::{Sample, Unit, timed};

pub(super) struct Names;

/// Files of one directory.
const CROWD: u32 = 1000;

impl Workload for Names {
    fn name(&self) -> String {
        "names".to_owned()
    }

    fn about(&self) -> &'static str {
        "20,000 empty files (2,000 quick): create and close, stat, names that do not exist, open and close, unlink"
    }

    fn needs_content(&self) -> bool {
        false
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let count = place.scale.pick(2_000, 20_000);
        for number in 0..count.div_ceil(CROWD) {
            fs::create_dir(place.dir.join(format!("d{number}")))?;
        }
        let paths: Vec<PathBuf> = (0..count)
            .map(|number| place.dir.join(format!("d{}/f{number}", number / CROWD)))
            .collect();
        let measure = |phase: &str, work: &dyn Fn(&PathBuf) -> io::Result<()>| {
            timed(phase, count, Unit::Files, || {
                Ok(paths.iter().try_for_each(work)?)
            })
        };
        let absent = |path: &PathBuf| match fs::symlink_metadata(path.with_extension("no")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::other("a name that was never made")),
        };
        let created = measure("create", &|path| File::create_new(path).map(drop))?;
        // The first time is the server's, the second the kernel's: programs search their paths again and again.
        measure("lookup", &absent)?;
        Ok(vec![
            created,
            measure("lookup-miss", &absent)?,
            measure("stat", &|path| fs::symlink_metadata(path).map(|_| ()))?,
            measure("open", &|path| File::open(path).map(drop))?,
            measure("unlink", &|path| fs::remove_file(path))?,
        ])
    }
}
