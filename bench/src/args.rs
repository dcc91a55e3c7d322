//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::measure::Scale;
use crate::site::Site;

/// The same workloads on simfs and on other file systems over one backing directory.
#[derive(Debug, Parser)]
#[command(name = "simfs-bench", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show peers and workloads.
    List,
    /// Run chosen workloads on chosen peers and print a table.
    Run(RunArgs),
    /// Run everything and record it: setup.md, raw.csv, summary.md, plots.
    Compare(RunArgs),
    /// Mount many VEs at once: mount times, memory, wake-ups.
    Density(DensityArgs),
    /// Measure what one operation costs as files, users and VEs grow.
    Scale(ScaleArgs),
    /// Kill daemons: how long until the VE answers again.
    Recovery(RecoveryArgs),
    /// Replace daemons under guests: how long these wait.
    Takeover(TakeoverArgs),
    /// Make VEs from templates: how long against copying and unpacking the same files.
    Create(CreateArgs),
    /// Saturate one VE: how long the guest of another one waits.
    Neighbour(NeighbourArgs),
    /// Run one workload in one directory (used by the others, so that a stuck one can be killed).
    #[command(hide = true)]
    Work(WorkArgs),
    /// Mount the server that does nothing.
    #[command(hide = true)]
    Floor {
        /// Where.
        mountpoint: PathBuf,
    },
}

/// `run` and `compare`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// How often everything is measured; below 5 nothing is concluded.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Small sizes: shows that everything works, and the order of magnitude.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only workloads whose name contains one of these words.
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only these peers; native is always among them.
    #[arg(long, value_name = "PEER", value_delimiter = ',')]
    pub(crate) peers: Vec<String>,
    /// Where the work happens: a directory on the file system to compare with (default: the temporary directory).
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Work there even if it is an ext4 without a journal, where making files takes long for reasons of its own; without
    /// this the run makes a file system with a journal in an image.
    #[arg(long)]
    pub(crate) as_it_is: bool,
    /// Where results are recorded (default of compare: bench/runs/DATE-HOST; run records nothing without it).
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Programs simfs and vzquota are taken from here instead of being built.
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// libfuse's example passthrough_hp, to be one of the peers.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) passthrough_hp: Option<PathBuf>,
    /// Do not install missing programs; leave out what needs them.
    #[arg(long)]
    pub(crate) no_install: bool,
}

impl RunArgs {
    pub(crate) fn scale(&self) -> Scale {
        if self.quick {
            Scale::Quick
        } else {
            Scale::Full
        }
    }
}

/// `density`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DensityArgs {
    /// How many VEs, growing.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 320, 1000])]
    pub(crate) ves: Vec<u32>,
    #[command(flatten)]
    pub(crate) site: Site,
}

/// `scale`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Files in the VE, at most; tenfold steps from 1,000.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) most: u64,
    #[command(flatten)]
    pub(crate) site: Site,
}

/// `recovery`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RecoveryArgs {
    /// How many files the VEs have.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000])]
    pub(crate) files: Vec<u32>,
    /// How many files are written to between the last commit and the kill.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100, 1_000, 10_000])]
    pub(crate) touched: Vec<u32>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: u32,
    #[command(flatten)]
    pub(crate) site: Site,
}

/// `takeover`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TakeoverArgs {
    /// How many files the daemons know.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000])]
    pub(crate) files: Vec<u32>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds: u32,
    #[command(flatten)]
    pub(crate) site: Site,
}

/// `create`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CreateArgs {
    /// A root directory, such as debootstrap makes.
    pub(crate) template: PathBuf,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: u32,
    #[command(flatten)]
    pub(crate) site: Site,
}

/// `neighbour`.
#[derive(Clone, Debug, Args)]
pub(crate) struct NeighbourArgs {
    /// How often everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    #[command(flatten)]
    pub(crate) site: Site,
}

/// `work`.
#[derive(Debug, Args)]
pub(crate) struct WorkArgs {
    /// Its name.
    pub(crate) workload: String,
    /// An empty directory of its own.
    pub(crate) dir: PathBuf,
    /// The archive to unpack.
    pub(crate) archive: PathBuf,
    /// Small sizes.
    #[arg(long)]
    pub(crate) quick: bool,
}
