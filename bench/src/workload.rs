//! The workloads. Each works in an empty directory of its own and reports one or more timed phases.
//!
//! Sizes, names and random places are fixed, so that every run and every peer does the same. Preparation is not
//! timed. Reads are warm: what is measured is the way to the page cache, not the disk.

mod appends;
mod build;
mod cargo;
mod clients;
mod data;
mod mapped;
mod names;
mod packages;
mod pattern;
mod read_write;
mod shared;
mod sqlite;
mod tree;

use std::path::Path;

use anyhow::Result;

use crate::measure::{Sample, Scale};
use crate::programs::Program;

/// What a workload is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// An empty directory.
    pub(crate) dir: &'a Path,
    /// An archive of a real tree.
    pub(crate) archive: &'a Path,
    /// How much to do.
    pub(crate) scale: Scale,
}

/// Something that people do with files.
pub(crate) trait Workload {
    /// Its name, for the command line.
    fn name(&self) -> String;
    /// What it does, in half a line.
    fn about(&self) -> &'static str;
    /// Programs that it runs.
    fn programs(&self) -> &'static [Program] {
        &[]
    }
    /// Whether files must keep what is written into them.
    fn needs_content(&self) -> bool {
        true
    }
    /// Does it and reports the phases.
    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>>;
}

/// All of them, in the order of the report.
pub(crate) fn all() -> Vec<Box<dyn Workload>> {
    let mut all: Vec<Box<dyn Workload>> = Vec::new();
    for data in data::Data::all() {
        all.push(Box::new(data));
    }
    all.push(Box::new(shared::Shared));
    all.push(Box::new(read_write::ReadWrite));
    all.push(Box::new(mapped::Mapped));
    all.push(Box::new(appends::Appends));
    all.push(Box::new(appends::Synced));
    all.push(Box::new(sqlite::Sqlite));
    all.push(Box::new(names::Names));
    all.push(Box::new(tree::Tree));
    all.push(Box::new(build::Build));
    all.push(Box::new(cargo::Cargo));
    all.push(Box::new(packages::Packages));
    all.push(Box::new(clients::Clients));
    all
}
