//! `simfs`: serves VEs' private areas, and shows, checks and ends what is served. Called as `mount.simfs` it is the
//! helper of mount(8).

mod args;
mod check;
mod helper;
mod manual;
mod mount;
mod oci;
mod start;
mod status;
mod successor;
mod umount;
mod upgrade;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use quota::VeId;
use simfs::keeper::SUCCESSOR_COMMAND;
use simfs::sys::present::PresentBuffers;
use simfs_tools::cli;
use simfs_tools::exit::{Failure, SimfsExit};
use simfs_tools::paths::Paths;
use simfs_tools::record;
use simfs_tools::report::{complain, print};
use simfs_tools::value::parse_ve;

use crate::args::{Cli, Command};

/// Whoever kills the daemon while it reads a request fails nobody.
#[global_allocator]
static MEMORY: PresentBuffers = simfs::fuse::BUFFERS;

/// How a command ends: a code that is no failure, or a failure.
type Outcome = Result<SimfsExit, Failure<SimfsExit>>;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called_as = arguments.first().map(Path::new).and_then(Path::file_name);
    if called_as.is_some_and(|name| name == "mount.simfs" || name == "mount.fuse.simfs") {
        return helper::main(&arguments).into();
    }
    if let Some(done) = manual::answer(&arguments) {
        return done.into();
    }
    if arguments
        .get(1)
        .is_some_and(|word| word == SUCCESSOR_COMMAND)
    {
        return successor::main(arguments.get(2..).unwrap_or_default());
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return explained(&error).into(),
    };
    match run(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            complain(&format!("simfs: {}", failure.message));
            failure.exit.into()
        }
    }
}

fn explained(error: &clap::Error) -> SimfsExit {
    match cli::explain(error, "simfs") {
        Ok(text) => print(&text).map_or(SimfsExit::Failed, |()| SimfsExit::Ok),
        Err(line) => {
            complain(&format!("simfs: {line}"));
            SimfsExit::Usage
        }
    }
}

fn run(cli: &Cli) -> Outcome {
    let paths = Paths::open(cli.common.prefix.as_deref()).map_err(failed)?;
    match &cli.command {
        Command::Mount(args) => about(&args.veid, |ve| mount::run(&paths, ve, args)),
        Command::Umount(args) => about(&args.veid, |ve| umount::run(&paths, ve, args.lazy)),
        Command::Check(args) => about(&args.veid, |ve| check::run(&paths, ve, args)),
        Command::Oci(args) => about(&args.veid, |ve| oci::run(&paths, ve, args)),
        Command::Status(args) => status::run(&paths, args),
        Command::Upgrade(args) => upgrade::run(&paths, args),
    }
}

/// Runs a command on one VE; its failures name the VE.
fn about(veid: &str, command: impl FnOnce(VeId) -> Outcome) -> Outcome {
    let ve = parse_ve(veid).map_err(usage)?;
    command(ve).map_err(|failure| failure.about(format_args!("VE {ve}")))
}

/// Refuses a VE of which nothing is there: its number is a slip.
fn must_be_known(paths: &Paths, ve: VeId) -> Result<(), Failure<SimfsExit>> {
    let has_files = paths.private(ve).is_ok_and(|private| private.exists());
    if has_files || record::exists(paths, ve) || paths.run_dir(ve).exists() {
        return Ok(());
    }
    Err(failed(
        "no such VE: it has neither a private area nor a quota record, and is not mounted",
    ))
}

/// A failure of the command line.
fn usage(error: impl ToString) -> Failure<SimfsExit> {
    Failure::new(SimfsExit::Usage, error.to_string())
}

/// Any other failure.
fn failed(error: impl ToString) -> Failure<SimfsExit> {
    Failure::new(SimfsExit::Failed, error.to_string())
}
