//! A Rust program of several crates, built by cargo.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{Place, Workload};
use crate::measure::{Sample, Unit, timed};
use crate::programs::{Program, command, run_in};

pub(super) struct Cargo;

/// Functions of one crate.
const FUNCTIONS: u32 = 60;

impl Workload for Cargo {
    fn name(&self) -> String {
        "cargo".to_owned()
    }

    fn about(&self) -> &'static str {
        "cargo builds a program of 8 crates (2 quick), nothing fetched"
    }

    fn programs(&self) -> &'static [Program] {
        const { &[Program::new("cargo", "cargo")] }
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let crates = place.scale.pick(2, 8);
        for number in 0..crates {
            write_crate(place.dir, number)?;
        }
        let members: Vec<String> = (0..crates).map(|number| format!("\"c{number}\"")).collect();
        let manifest = format!(
            "[workspace]\nresolver = \"2\"\nmembers = [{}]\n",
            members.join(", ")
        );
        fs::write(place.dir.join("Cargo.toml"), manifest)?;
        let built = timed("cargo-build", 1, Unit::Runs, || {
            let mut cargo = command("cargo", ["build", "--offline", "--quiet"]);
            // A directory of this run's own, whatever the environment says.
            cargo.env("CARGO_TARGET_DIR", place.dir.join("target"));
            run_in(place.dir, &mut cargo)
        })?;
        Ok(vec![built])
    }
}

fn write_crate(dir: &Path, number: u32) -> Result<()> {
    let dir = dir.join(format!("c{number}"));
    fs::create_dir_all(dir.join("src"))?;
    let mut manifest =
        format!("[package]\nname = \"c{number}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
    if let Some(before) = number.checked_sub(1) {
        let _ = write!(
            manifest,
            "[dependencies]\nc{before} = {{ path = \"../c{before}\" }}\n"
        );
    }
    fs::write(dir.join("Cargo.toml"), manifest)?;
    let mut source = String::new();
    for function in 0..FUNCTIONS {
        let _ = writeln!(
            source,
            "pub fn f{function}(x: u64) -> String {{ let v: Vec<u64> = (0..x).map(|i| i * {function}).collect(); \
             format!(\"{{v:?}}\") }}"
        );
    }
    fs::write(dir.join("src/lib.rs"), source)?;
    Ok(())
}
