//! `create`: how long a VE takes to be made from a template, against the plain copying and unpacking of the same files.
//!
//! On each file system, in an image of its own, all ways take turns in an order that rotates. A way has ended when what it
//! made is on the disk.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::args::CreateArgs;
use crate::interrupt::Interrupt;
use crate::programs::{command, output};
use crate::statistics::Spread;
use crate::terminal::{progress, say};

/// The file systems, and how they are made.
const KINDS: [(&str, &[&str]); 3] = [
    ("ext4", &["-q", "-F", "-E", "lazy_itable_init=0"]),
    ("btrfs", &["-q", "-f"]),
    ("xfs", &["-q", "-f"]),
];
/// The size of an image, sparse.
const IMAGE: u64 = 4 << 30;
/// No step takes longer.
const PATIENCE: Duration = Duration::from_secs(300);
const VE: &str = "101";

/// A way to get the files of a template into a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Copy,
    Clone,
    Tar,
    CreateFromTree,
    CreateFromTar,
}

const WAYS: [Way; 5] = [
    Way::Copy,
    Way::Clone,
    Way::Tar,
    Way::CreateFromTree,
    Way::CreateFromTar,
];

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Copy => "cp -a --reflink=never",
            Self::Clone => "cp -a --reflink=auto",
            Self::Tar => "tar -x",
            Self::CreateFromTree => "vzctl create, from a tree",
            Self::CreateFromTar => "vzctl create, from a tar file",
        }
    }
}

/// Measures on each file system, and prints the table.
pub(crate) fn create(args: &CreateArgs) -> Result<()> {
    let interrupt = Interrupt::catch()?;
    let dir = args.site.scratch("create")?;
    let mut table = String::from(
        "| file system | way | seconds, median (lowest to highest) |\n|---|---|---|\n",
    );
    let mut csv = String::from("file_system,way,round,seconds\n");
    for (kind, options) in KINDS {
        let bench = Bench::new(kind, options, dir.path(), args)?;
        let mut figures = vec![Vec::new(); WAYS.len()];
        for round in 0..args.rounds {
            progress(&format!("{kind}: round {}", round + 1));
            for step in 0..WAYS.len() {
                interrupt.check()?;
                let number = (step + usize::try_from(round)?) % WAYS.len();
                let (Some(way), Some(list)) = (WAYS.get(number), figures.get_mut(number)) else {
                    continue;
                };
                let seconds = bench.measure(*way)?;
                list.push(seconds);
                writeln!(csv, "{kind},\"{}\",{},{seconds:.3}", way.name(), round + 1)?;
            }
        }
        for (way, list) in WAYS.iter().zip(&figures) {
            let spread = Spread::of(list).context("no rounds")?;
            writeln!(
                table,
                "| {kind} | `{}` | {:.2} ({:.2} to {:.2}) |",
                way.name(),
                spread.median,
                spread.low,
                spread.high
            )?;
        }
        // What is done stays, whatever happens to the rest.
        args.site
            .record(&[("create.md", &table), ("create.csv", &csv)])?;
    }
    say(&table)
}

/// One file system with the template on it, in both forms.
struct Bench<'a> {
    place: PathBuf,
    bin_dir: &'a Path,
}

impl<'a> Bench<'a> {
    fn new(kind: &str, options: &[&str], dir: &Path, args: &'a CreateArgs) -> Result<Self> {
        let (image, place) = (dir.join(format!("{kind}.image")), dir.join(kind));
        File::create_new(&image)?.set_len(IMAGE)?;
        fs::create_dir(&place)?;
        let mut make = command(format!("mkfs.{kind}"), options);
        run(make.arg(&image))?;
        run(command("mount", ["-o", "loop"]).arg(&image).arg(&place))?;
        let bench = Self {
            place,
            bin_dir: &args.site.bin_dir,
        };
        let cache = bench.place.join("vz/template/cache");
        fs::create_dir_all(&cache)?;
        let mut copy = command("cp", ["-a", "--reflink=never"]);
        run(copy.arg(&args.template).arg(cache.join("tree")))?;
        let mut pack = command("tar", ["--xattrs", "--numeric-owner", "-C"]);
        pack.arg(&args.template)
            .arg("-cf")
            .arg(cache.join("tar.tar"));
        run(pack.arg("."))?;
        bench.sync()?;
        Ok(bench)
    }

    /// Seconds until the files are on the disk; then they are removed.
    fn measure(&self, way: Way) -> Result<f64> {
        let (cache, target) = (
            self.place.join("vz/template/cache"),
            self.place.join("copy"),
        );
        fs::create_dir(&target)?;
        let copy = |reflink| {
            let mut copy = command("cp", ["-a", reflink]);
            copy.arg(cache.join("tree/.")).arg(&target);
            copy
        };
        let mut command = match way {
            Way::Copy => copy("--reflink=never"),
            Way::Clone => copy("--reflink=auto"),
            Way::Tar => {
                let mut tar = command("tar", ["--xattrs", "--numeric-owner", "-C"]);
                tar.arg(&target).arg("-xf").arg(cache.join("tar.tar"));
                tar
            }
            Way::CreateFromTree => self.vzctl(&["create", VE, "--ostemplate", "tree"]),
            Way::CreateFromTar => self.vzctl(&["create", VE, "--ostemplate", "tar"]),
        };
        let begin = Instant::now();
        run(&mut command)?;
        self.sync()?;
        let seconds = begin.elapsed().as_secs_f64();
        if matches!(way, Way::CreateFromTree | Way::CreateFromTar) {
            run(&mut self.vzctl(&["destroy", VE]))?;
        }
        fs::remove_dir_all(&target)?;
        self.sync()?;
        Ok(seconds)
    }

    fn vzctl(&self, line: &[&str]) -> Command {
        let mut vzctl = command(self.bin_dir.join("vzctl"), ["--quiet"]);
        vzctl.args(line).env("SIMFS_PREFIX", &self.place);
        vzctl
    }

    fn sync(&self) -> Result<()> {
        run(command("sync", ["-f"]).arg(&self.place))
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        if run(command("umount", ["--"]).arg(&self.place)).is_err() {
            let _ = run(command("umount", ["-l"]).arg(&self.place));
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    output(command, PATIENCE).map(drop)
}
