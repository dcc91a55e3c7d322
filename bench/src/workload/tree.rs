//! A real tree: unpacked, searched, copied, put under version control, removed.

use std::path::Path;

use anyhow::Result;

use super::{Place, Workload};
use crate::measure::{Sample, Unit, timed};
use crate::programs::{Program, command, run_in};

pub(super) struct Tree;

impl Workload for Tree {
    fn name(&self) -> String {
        "tree".to_owned()
    }

    fn about(&self) -> &'static str {
        "tar -x, find, grep -r, cp -a, git add, status and checkout, rm -rf of a real tree"
    }

    fn programs(&self) -> &'static [Program] {
        const { &[Program::new("git", "git"), Program::new("tar", "tar")] }
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let here = place.dir;
        let archive = place.archive.as_os_str();
        let entries = |dir: &Path| count(dir).map(|count| count.max(1));
        std::fs::create_dir(here.join("t"))?;
        let unpacked = timed("untar", 1, Unit::Runs, || {
            let mut tar = command("tar", ["-xC", "t", "-f"]);
            run_in(here, tar.arg(archive))
        })?;
        let files = entries(&here.join("t"))?;
        let step = |phase: &str, words: &[&str]| {
            timed(phase, files, Unit::Files, || {
                let (program, args) = words.split_first().unwrap_or((&"true", &[]));
                run_in(here, &mut command(program, args))
            })
        };
        let mut samples = vec![Sample {
            amount: f64::from(files),
            unit: Unit::Files,
            ..unpacked
        }];
        samples.push(step("find", &["find", "t", "-size", "+100M"])?);
        // grep answers 1 where nothing matches, as here.
        samples.push(step(
            "grep-r",
            &[
                "sh",
                "-c",
                "grep -rs 'no such text anywhere' t; test $? -eq 1",
            ],
        )?);
        samples.push(step("cp-a", &["cp", "-a", "t", "u"])?);
        run_in(here, &mut command("git", ["init", "-q", "t"]))?;
        samples.push(step("git-add", &["git", "-C", "t", "add", "-A"])?);
        run_in(
            here,
            &mut command("git", ["-C", "t", "status", "--porcelain"]),
        )?;
        samples.push(step(
            "git-status",
            &["git", "-C", "t", "status", "--porcelain"],
        )?);
        let commit = "git -C t -c user.name=n -c user.email=e commit -qm all && \
                      find t -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {} +";
        run_in(here, &mut command("sh", ["-c", commit]))?;
        samples.push(step(
            "git-checkout",
            &["git", "-C", "t", "checkout", "-qf", "HEAD", "--", "."],
        )?);
        samples.push(step("rm-rf", &["rm", "-rf", "u"])?);
        Ok(samples)
    }
}

fn count(dir: &Path) -> Result<u32> {
    let mut found = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        found += 1;
        if entry.file_type()?.is_dir() {
            found += count(&entry.path())?;
        }
    }
    Ok(found)
}
