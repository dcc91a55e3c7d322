//! `vzquota`: the administrator's disk quota commands, in OpenVZ's grammar.

mod args;
mod first_level;
mod limits;
mod manual;
mod quota_file;
mod report;
mod second_level;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use quota::VeId;
use simfs::control::ErrorKind;
use simfs::private::PrivateError;
use simfs_tools::cli;
use simfs_tools::exit::{Failure, VzquotaExit};
use simfs_tools::logging;
use simfs_tools::paths::Paths;
use simfs_tools::recount::RecountError;
use simfs_tools::report::{complain, print};
use simfs_tools::value::parse_ve;
use simfs_tools::ve_handle::VeError;

use crate::args::{Cli, Command};

/// How a command ends: a code that is no failure, or a failure.
type Outcome = Result<VzquotaExit, Failure<VzquotaExit>>;

/// What every command knows.
struct Context {
    paths: Paths,
    ve: VeId,
    quiet: bool,
    verbose: bool,
    batch: bool,
    json: bool,
}

impl Context {
    /// Tells of something that is no error.
    fn warn(&self, message: &str) {
        if !self.quiet {
            complain(&format!("vzquota: VE {}: warning: {message}", self.ve));
        }
    }

    /// Tells what was done, when asked to.
    fn tell(&self, message: &str) {
        if self.verbose {
            complain(&format!("vzquota: VE {}: {message}", self.ve));
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(done) = manual::answer(&arguments) {
        return done.into();
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return explained(&error).into(),
    };
    logging::to_stderr(if cli.verbose > 1 { "debug" } else { "error" });
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            complain(&format!("vzquota: {}", failure.message));
            failure.exit.into()
        }
    }
}

fn explained(error: &clap::Error) -> VzquotaExit {
    match cli::explain(error, "vzquota") {
        Ok(text) => print(&text).map_or(VzquotaExit::System, |()| VzquotaExit::Ok),
        Err(line) => {
            complain(&format!("vzquota: {line}"));
            VzquotaExit::Usage
        }
    }
}

fn run(cli: Cli) -> Outcome {
    let veid = match &cli.command {
        Command::Init(args) => &args.veid,
        Command::On(args) | Command::Setlimit(args) => &args.veid,
        Command::Off(args) | Command::Drop(args) => &args.veid,
        Command::Setlimit2(args) => &args.veid,
        Command::Stat(args) | Command::Show(args) => &args.veid,
        Command::ExportQuotaFile(args) | Command::ImportQuotaFile(args) => &args.veid,
    };
    let ve = parse_ve(veid).map_err(usage)?;
    let paths = Paths::open(cli.common.prefix.as_deref())
        .map_err(|error| Failure::new(VzquotaExit::System, error.to_string()))?;
    let context = Context {
        paths,
        ve,
        quiet: cli.quiet,
        verbose: cli.verbose > 0 && !cli.quiet,
        batch: cli.batch,
        json: cli.json,
    };
    let outcome = match &cli.command {
        Command::Init(args) => first_level::init(&context, args),
        Command::On(args) => first_level::on(&context, args),
        Command::Off(_) => first_level::off(&context),
        Command::Drop(_) => first_level::drop_record(&context),
        Command::Setlimit(args) => first_level::setlimit(&context, args),
        Command::Setlimit2(args) => second_level::setlimit2(&context, args),
        Command::Stat(args) => report::stat(&context, args),
        Command::Show(args) => report::show(&context, args),
        Command::ExportQuotaFile(args) => quota_file::export(&context, args),
        Command::ImportQuotaFile(args) => quota_file::import(&context, args),
    };
    outcome.map_err(|failure| failure.about(format_args!("VE {ve}")))
}

/// A failure of the command line.
fn usage(error: impl ToString) -> Failure<VzquotaExit> {
    Failure::new(VzquotaExit::Usage, error.to_string())
}

/// Which code an error of the VE's accounts ends with.
fn ve_failure(error: VeError) -> Failure<VzquotaExit> {
    let exit = match &error {
        VeError::NoRecord { .. } => VzquotaExit::NoRecord,
        VeError::Held { .. } => VzquotaExit::Locked,
        VeError::Store { .. } => VzquotaExit::Store,
        VeError::Refused(refused) => match refused.kind {
            ErrorKind::Invalid => VzquotaExit::Usage,
            ErrorKind::Busy => VzquotaExit::Running,
            ErrorKind::NoRecord => VzquotaExit::NoRecord,
            ErrorKind::Store => VzquotaExit::Store,
            ErrorKind::System => VzquotaExit::System,
            _ => VzquotaExit::Mount,
        },
        _ => VzquotaExit::Mount,
    };
    Failure::new(exit, error.to_string())
}

/// Which code an error of the private area ends with.
fn recount_failure(error: &RecountError) -> Failure<VzquotaExit> {
    let exit = match error {
        RecountError::Private(PrivateError::InUse { .. }) => VzquotaExit::Running,
        RecountError::Private(PrivateError::Submount { .. }) => VzquotaExit::CrossesMount,
        RecountError::Private(_) => VzquotaExit::NoPrivate,
        _ => VzquotaExit::System,
    };
    Failure::new(exit, error.to_string())
}
