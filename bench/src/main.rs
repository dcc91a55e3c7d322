//! The same workloads on several file systems, in turn, over one backing directory.
//!
//! Each round mounts every peer afresh and runs each workload on all of them, one right after the other, in an order
//! that rotates. What counts is the ratio to the native file system in the same round: the machine's mood cancels
//! out. The native file system runs twice; where its two runs differ, the row is not fit for conclusions.

mod args;
mod backing;
mod create;
mod crowd;
mod density;
mod host;
mod interrupt;
mod measure;
mod neighbour;
mod peer;
mod programs;
mod recovery;
mod report;
mod rounds;
mod scale;
mod session;
mod site;
mod statistics;
mod takeover;
mod terminal;
mod worker;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::List => report::list(),
        Command::Run(args) => session::run(&args),
        Command::Compare(args) => session::compare(&args),
        Command::Density(args) => density::density(&args),
        Command::Scale(args) => scale::scale(&args),
        Command::Recovery(args) => recovery::recovery(&args),
        Command::Takeover(args) => takeover::takeover(&args),
        Command::Create(args) => create::create(&args),
        Command::Neighbour(args) => neighbour::neighbour(&args),
        Command::Work(args) => worker::work(&args),
        Command::Floor { mountpoint } => peer::floor::serve(&mountpoint),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::progress(&format!("simfs-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
